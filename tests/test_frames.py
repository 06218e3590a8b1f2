"""Results in the hands of pandas, xarray and ArviZ."""

import importlib

import jax.random as jr
import numpy as np
import pytest
from test_tables import make_generated

import dicjax as dj
from dicjax.output.population_files import write_population


NEEDING = {
    "pandas": (dj.to_dataframe, "dicjax[pandas]"),
    "xarray": (dj.to_xarray, "dicjax[arviz]"),
    "arviz": (dj.to_inference_data, "dicjax[arviz]"),
}


def test_a_population_is_a_table_by_member(tmp_path):
    pytest.importorskip("pandas")
    made = make_generated()
    write_population(made, tmp_path)
    for population in (made, dj.read_population(tmp_path)):
        frame = dj.to_dataframe(population)
        assert frame.index.name == "member" and len(frame) == len(made.g)
        np.testing.assert_allclose(frame["g_Na"], made.g[:, 0], rtol=1e-6)
        assert frame["accepted"].tolist() == made.accepted.tolist()
        assert frame.attrs["units"]["g_Na"] == "mS/cm2"
        assert frame.attrs["meanings"]["g_Na"] == "maximal conductance of Na"
        assert set(frame.attrs["units"]) == {"member", *frame.columns}
    some = dj.read_population(tmp_path).take([3, 1])
    assert [*dj.to_dataframe(some).index] == [3, 1]


def test_members_and_features_are_tables():
    pytest.importorskip("pandas")
    members = dj.compensate(jr.key(0), dj.stg(), np.array([[4.0, 4.0], [-500.0, 4.0]]))
    frame = dj.to_dataframe(members)
    statuses = [members.names[x] for x in members.status]
    assert frame["status"].tolist() == statuses
    columns = [f"g_{name}" for name in members.channels]
    np.testing.assert_array_equal(frame[columns], members.g)
    regular, silent = 100.0 * np.arange(30), np.zeros(0)
    frame = dj.to_dataframe(dj.spike_features([regular, silent]))
    assert [*frame["label"]] == ["tonic", "silent"]
    assert [*frame["num_spikes"]] == [30, 0]
    assert frame["mean_isi"].tolist()[0] == pytest.approx(100)
    assert np.isnan(frame["mean_isi"].tolist()[1])
    assert frame.attrs["units"]["mean_isi"] == "ms"
    with pytest.raises(TypeError, match="got dict"):
        dj.to_dataframe({})  # pyright: ignore


@pytest.fixture(scope="module")
def posterior() -> dj.Posterior:
    trains = [np.cumsum(np.full(60, isi)) for isi in (150.0, 90.0)]
    return dj.infer(trains, "stg")


def test_draws_of_a_posterior_have_names_and_units(posterior):
    pytest.importorskip("xarray")
    draws = dj.to_xarray(posterior, num=2000)
    assert dict(draws.sizes) == {"chain": 1, "draw": 2000, "train": 2}
    assert draws["g_s"].attrs["units"] == "1"
    median = np.stack([draws[x].median("draw")[0] for x in ("g_s", "g_u")], axis=1)
    edges = np.asarray(posterior.interval(0.9))
    off = np.abs(median - np.asarray(posterior.median))
    assert (off < 0.1 * (edges[..., 1] - edges[..., 0])).all()
    assert draws.equals(dj.to_xarray(posterior, num=2000))
    assert not draws.equals(dj.to_xarray(posterior, num=2000, key=jr.key(1)))
    with pytest.raises(ValueError, match="`num`"):
        dj.to_xarray(posterior, num=0)


@pytest.mark.filterwarnings("default")  # of the library itself
def test_arviz_summarises_a_posterior(posterior):
    arviz = pytest.importorskip("arviz")
    summary = arviz.summary(dj.to_inference_data(posterior, num=500), kind="stats")
    assert {"g_s[0]", "g_u[1]"} <= set(summary.index)
    mean = np.asarray(dj.to_xarray(posterior, num=500)["g_s"].mean("draw"))[0]
    found = summary.loc[["g_s[0]", "g_s[1]"], "mean"].astype(float)
    np.testing.assert_allclose(found, mean, rtol=0.02, atol=0.06)


@pytest.mark.parametrize("library", NEEDING)
def test_a_library_that_is_absent_is_named_with_its_extra(
    library, posterior, monkeypatch
):
    found = importlib.import_module

    def absent(name, *args):
        if name == library:
            raise ImportError(name)
        return found(name, *args)

    monkeypatch.setattr(importlib, "import_module", absent)
    convert, extra = NEEDING[library]
    with pytest.raises(ValueError, match=f"{library} is not installed") as caught:
        convert(posterior)
    assert extra in str(caught.value)
