import dataclasses
import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st
from pyarrow import csv, parquet

from dicjax._core import versions
from dicjax.dics.conductances import dynamic_input_conductances
from dicjax.generation.result import Generated, Round
from dicjax.inference.posterior import Posterior
from dicjax.neurons.models import stg
from dicjax.output.folders import write_folder
from dicjax.output.population_files import (
    read_models,
    write_population,
    write_simulation,
)
from dicjax.populations.certification import (
    Certificate,
    OTHER_START,
    Perturbation,
)
from dicjax.populations.diversity import participation_ratio
from dicjax.simulation.simulate import Run, simulate
from dicjax.spikes.features import spike_features
from dicjax.spikes.trains import SpikeTrain
from dicjax.spikes.validity import feature_errors, is_valid


NEURON = stg()
BURSTING = np.array([6407.5, 91.66, 4.846, 36.43, 151.0, 375.6, 0.3759, 0.0095])
COLUMNS = [f"g_{name}" for name in NEURON.channel_names]


def make_certificate(num: int) -> Certificate:
    """One that was made up: chances fall from check to check."""
    checks = (
        OTHER_START,
        *(
            Perturbation("conductances", change, channel)
            for channel in NEURON.channel_names
            for change in (-0.2, 0.2)
        ),
        Perturbation("current", -1.5),
        Perturbation("current", 1.5),
        Perturbation("noise", 3.0),
        Perturbation("temperature", 10.0),
    )
    chance = np.linspace(0.9, 0.2, len(checks))
    drawn = np.random.default_rng(1).random((num, len(checks)))
    drawn[0, 0] = 1
    return Certificate(checks, drawn < chance, drawn < chance + 0.3)


@functools.cache
def make_generated() -> Generated:
    """Sixteen bursting neurons around one, the first of which is the recording."""
    noise = np.random.default_rng(0).lognormal(0, 0.1, (16, len(BURSTING)))
    noise[0] = 1
    g = (BURSTING * noise).astype(np.float32)
    run = simulate(NEURON, g, 1500.0, discard=500.0)
    features = jax.tree.map(np.asarray, spike_features(run.spike_times))
    times = np.asarray(run.spike_times[0], np.float64)[: run.num_spikes[0]]
    train = SpikeTrain(times, name="<b>LP</b>", source="/home/ana/mouse & co <1>.csv")
    target = jax.tree.map(lambda x: x[0], features)
    valid = np.asarray(is_valid(features, target, 0.1))
    distance = np.abs(np.asarray(feature_errors(features, target))).max(axis=1)
    order = np.argsort(~valid, kind="stable")
    posterior = Posterior(
        weights=jnp.log(jnp.array([[0.7, 0.3]])),
        means=jnp.array([[[-0.7, -0.8], [0.1, -0.3]]]),
        factors=jnp.array([[[[0.2, 0], [0.1, 0.3]]] * 2]),
        low=jnp.array([-22.0, -1.0]),
        high=jnp.array([22.0, 21.0]),
        ranks=jnp.linspace(0, 1, 101)[None],
    )
    failures = {"period": 5, "silent": 1}
    return Generated(
        neuron=NEURON,
        train=train,
        target=target,
        posterior=posterior,
        tolerance=0.1,
        num_asked=12,
        g=g[order],
        dics=np.asarray(
            dynamic_input_conductances(NEURON, jnp.asarray(g[order]), -51.0)
        ),
        V_th=np.where(np.arange(16) == 3, np.nan, -51.0).astype(np.float32),
        spike_times=np.asarray(run.spike_times)[order],
        features=jax.tree.map(lambda x: x[order], features),
        distance=distance[order],
        accepted=valid[order],
        num_uncertified=1,
        certificate=make_certificate(int(valid.sum())),
        duration=1500.0,
        discard=500.0,
        rounds=(Round("posterior", 16, 14, int(valid.sum()), failures),),
        participation_ratio=participation_ratio(g[valid]),
        seconds=2.5,
        settings={"seed": np.int64(0), "source_sha256": "0f" * 32, "share": np.nan},
    )


def rows_of(result: Generated, keep) -> Generated:
    """The result with some of its members."""
    cells = ("g", "dics", "V_th", "spike_times", "distance", "accepted")
    return dataclasses.replace(
        result,
        features=jax.tree.map(lambda x: x[keep], result.features),
        **{name: getattr(result, name)[keep] for name in cells},
    )


@pytest.fixture(scope="session")
def generated() -> Generated:
    return make_generated()


@pytest.fixture
def folder(generated, tmp_path) -> pathlib.Path:
    write_population(generated, tmp_path)
    return tmp_path


def test_a_population_leaves_these_files_and_nothing_temporary(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.txt",
        "manifest.json",
        "models.csv",
        "models.parquet",
        "spikes.parquet",
    ]


@pytest.mark.parametrize("name", ("", "models.parquet", "models.csv"))
def test_conductances_survive_to_the_last_bit(generated, folder, name):
    model, g = read_models(folder / name)
    assert model == "stg"
    np.testing.assert_array_equal(g.astype(np.float32), generated.g)


def test_spike_times_survive(generated, folder):
    table = parquet.read_table(folder / "spikes.parquet")
    assert table.schema.field("spike_times").type == pa.list_(pa.float32())
    for times, row in zip(
        generated.spike_times, table["spike_times"].to_pylist(), strict=True
    ):
        np.testing.assert_array_equal(np.float32(row), times[np.isfinite(times)])


def test_every_column_says_its_meaning_and_unit(folder):
    schema = parquet.read_schema(folder / "models.parquet")
    readme = (folder / "README.txt").read_text().splitlines()
    for field in schema:
        assert field.metadata[b"meaning"]
        lines = [line for line in readme if line.split()[:1] == [field.name]]
        assert len(lines) == 1
        unit = field.metadata[b"unit"].decode()
        assert unit in ("", "1") or f"({unit})" in lines[0]
    assert schema.field("g_Na").metadata[b"unit"] == b"mS/cm2"
    assert schema.field("period").metadata[b"unit"] == b"ms"


def test_what_is_not_defined_is_empty(folder):
    for table in (
        parquet.read_table(folder / "models.parquet"),
        csv.read_csv(folder / "models.csv"),
    ):
        assert table["V_th"].null_count == 1
        assert table["V_th"][3].as_py() is None


def test_rows_agree_with_the_result(generated, folder):
    table = csv.read_csv(folder / "models.csv")
    assert table["accepted"].to_pylist() == generated.accepted.tolist()
    assert set(table["label"].to_pylist()) <= {
        "silent",
        "tonic",
        "bursting",
        "irregular",
    }
    rate, isi = (table[name].to_numpy() for name in ("rate", "mean_isi"))
    np.testing.assert_allclose(rate * isi, 1000, rtol=1e-5)
    np.testing.assert_allclose(table["g_s"].to_numpy(), generated.dics[:, 1], rtol=1e-6)


def test_rows_say_under_what_their_members_stay_valid(generated, folder):
    start = generated.certificate.valid[:, 0]
    robustness = generated.certificate.valid[:, 1:].mean(axis=1)
    num = generated.num_accepted
    assert 2 < num < len(generated.g)
    assert 0 < start.sum() < num
    for table in (
        parquet.read_table(folder / "models.parquet"),
        csv.read_csv(folder / "models.csv"),
    ):
        valid = table["from_another_start"].to_pylist()
        assert valid == [*start.tolist(), *[False] * (len(valid) - num)]
        column = table["robustness"]
        assert column.null_count == len(valid) - num
        np.testing.assert_allclose(column.to_numpy()[:num], robustness)


def test_what_was_not_tried_has_no_column(generated, tmp_path):
    alone = generated.certificate.along("start")
    for certificate, columns in (
        (alone, {"from_another_start"}),
        (generated.certificate.along("noise"), {"robustness"}),
        (None, set()),
    ):
        out = tmp_path / str(len(columns) and columns)
        out.mkdir()
        result = dataclasses.replace(generated, certificate=certificate)
        write_population(result, out)
        written = set(csv.read_csv(out / "models.csv").column_names)
        assert written & {"from_another_start", "robustness"} == columns
        manifest = json.loads((out / "manifest.json").read_text())
        if certificate is None:
            assert manifest["certificate"] is None
        else:
            assert list(manifest["certificate"]) == list(certificate.names)


def test_the_manifest_holds_shares_by_check(generated, folder):
    shares = json.loads((folder / "manifest.json").read_text())["certificate"]
    assert list(shares) == list(generated.certificate.names)
    for name, valid, low, high, same in generated.certificate.shares():
        written = {"valid": valid, "interval": [low, high], "same_pattern": same}
        assert shares[name] == written


def test_a_report_says_under_what_members_stay_valid(generated):
    num = len(NEURON.channels)
    valid = np.ones((4, 1 + 2 * num + 4), bool)
    same = valid.copy()
    valid[0, 0] = False
    valid[:, 1 + 2 * NEURON.index("CaS")[0]] = False  # when it is lower
    valid[:3, 1 + 2 * NEURON.index("A")[0]] = False
    valid[:, [-4, -2]] = [[True, False]] * 3 + [[False, False]]
    same[1, -2] = False
    certificate = dataclasses.replace(
        generated.certificate, valid=valid, same_pattern=same
    )
    said = dataclasses.replace(generated, certificate=certificate).report()
    assert said.splitlines()[-5:] == [
        "From another start, 75% (30% to 95%) of the accepted members still match; the "
        "others have another state, in which they rest or fire otherwise.",
        "With one conductance 20 % lower or higher, 89% stay valid on average, fewest "
        "when CaS changes (50%); 100% keep the pattern.",
        "With the applied current 1.5 µA/cm² lower or higher, 88% stay valid on "
        "average; 100% keep the pattern.",
        "Under noise of 3 µA/cm², 0% stay valid; 75% keep the pattern.",
        "At +10 °C and the higher pace that follows, 100% stay valid; 100% keep the "
        "pattern.",
    ]
    silent = dataclasses.replace(generated, certificate=None).report()
    assert "another start" not in silent
    alone = dataclasses.replace(generated, certificate=certificate.along("start"))
    assert alone.report().splitlines() == said.splitlines()[:-4]


def test_the_manifest_is_strict_json_without_private_folders(generated, folder):
    text = (folder / "manifest.json").read_text()

    def refuse(name: str):
        raise AssertionError(name)

    manifest = json.loads(text, parse_constant=refuse)
    assert manifest["source"]["file"] == "mouse & co <1>.csv"
    assert manifest["source"]["sha256"] == "0f" * 32
    assert "/home/ana" not in text
    assert manifest["num_accepted"] == generated.num_accepted
    assert manifest["rounds"][0]["failures"]["period"] == 5
    assert manifest["settings"]["seed"] == 0
    assert set(manifest["versions"]) == {"python", *versions()}


def test_simulated_cells_are_written_like_a_population(generated, tmp_path):
    times = generated.spike_times
    num = np.isfinite(times).sum(axis=1).astype(np.int32)
    good = np.ones(len(times), bool)
    run = Run(times, num, good, ~good, ~good)
    g = generated.g.astype(np.float64)
    write_folder(tmp_path / "out", False, lambda x: write_simulation(stg(), g, run, x))
    model, read = read_models(tmp_path / "out")
    assert model == "stg"
    np.testing.assert_array_equal(read, g)
    table = parquet.read_table(tmp_path / "out" / "models.parquet")
    assert table["num_spikes"].to_pylist() == num.tolist()
    # What we wrote may be replaced.
    write_folder(tmp_path / "out", True, lambda x: write_simulation(stg(), g, run, x))


@given(
    order=st.permutations(COLUMNS),
    values=st.lists(st.floats(0, 1e4, allow_subnormal=False), min_size=8, max_size=8),
)
def test_columns_are_matched_by_name_in_any_order(tmp_path_factory, order, values):
    path = tmp_path_factory.mktemp("models") / "models.csv"
    wanted = dict(zip(COLUMNS, values, strict=True))
    # Whatever else a table holds is left alone, input conductances too.
    header = ["note", *order, "g_s"]
    row = ["a", *(repr(wanted[name]) for name in order), "-3.0"]
    path.write_text(f"{','.join(header)}\n{','.join(row)}\n")
    model, g = read_models(path, NEURON)
    assert model == "stg"
    assert g.tolist() == [values]


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda x: {k: v for k, v in x.items() if k != "g_A"}, "lacks g_A"),
        (lambda x: {**x, "g_M": "1"}, "g_M"),
        (lambda x: {**x, "g_H": "nan"}, "g_H is None in row 0"),
        (lambda x: {**x, "g_H": ""}, "g_H is None in row 0"),
        (lambda x: {**x, "g_H": "-0.1"}, "g_H is -0.1 in row 0"),
        (lambda x: {**x, "g_H": "inf"}, "g_H is inf in row 0"),
        (lambda x: {**x, "g_H": "high"}, "g_H is high in row 0"),
    ),
)
def test_tables_that_are_no_models_are_refused_in_a_sentence(tmp_path, change, message):
    row = change(dict.fromkeys(COLUMNS, "1.5"))
    path = tmp_path / "models.csv"
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(ValueError, match=message) as error:
        read_models(path, NEURON)
    assert "\n" not in str(error.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "models.csv"
    path.write_text(f"{','.join([*COLUMNS, 'g_Na'])}\n{','.join(['1.5'] * 9)}\n")
    with pytest.raises(ValueError, match="has more than once g_Na: give one column"):
        read_models(path, NEURON)


def test_a_table_that_does_not_say_its_model_is_refused(folder, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone") / "models.csv"
    alone.write_bytes((folder / "models.csv").read_bytes())
    with pytest.raises(ValueError, match=r"manifest\.json"):
        read_models(alone)


@pytest.mark.parametrize("name", ("nothing", "notes.txt", "models.parquet"))
def test_what_is_no_table_is_refused(tmp_path, name):
    if name != "nothing":
        (tmp_path / name).write_text("hello")
    with pytest.raises(ValueError, match=name):
        read_models(tmp_path / name)


def _population(note: str):
    def write(folder: pathlib.Path) -> None:
        (folder / "manifest.json").write_text('{"format": "dicjax-population"}')
        (folder / "note").write_text(note)

    return write


def _fail(folder: pathlib.Path) -> None:
    (folder / "half").write_text("half")
    raise KeyboardInterrupt


def test_a_folder_appears_whole_with_its_parents(tmp_path):
    write_folder(tmp_path / "a" / "b", False, _population("new"))
    assert (tmp_path / "a" / "b" / "note").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_population_is_replaced_only_when_asked(tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    write_folder(out, False, _population("old"))
    with pytest.raises(ValueError, match="--overwrite"):
        write_folder(out, False, _population("new"))
    assert (out / "note").read_text() == "old"
    write_folder(out, True, _population("new"))
    assert (out / "note").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("manifest", (None, "[]", "{}", '{"format": "other"}', "{"))
def test_what_is_not_ours_is_never_replaced(tmp_path, manifest):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="out"):
            write_folder(out, overwrite, _population("new"))
    assert (out / "thesis.tex").read_text() == "years of work"


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("a file")
    for path in (tmp_path / "out", os.devnull):
        with pytest.raises(ValueError, match="is a file"):
            write_folder(path, True, _population("new"))


@pytest.mark.parametrize("exists", (False, True))
def test_a_run_that_is_stopped_changes_nothing(tmp_path, exists):
    out = tmp_path / "out"
    if exists:
        write_folder(out, False, _population("old"))
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, True, _fail)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * exists
    assert not exists or (out / "note").read_text() == "old"
