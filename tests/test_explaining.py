import contextlib
import csv
import io
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import dicjax as dj
from dicjax.cli import main
from dicjax.output.population_files import read_models, write_simulation
from dicjax.spikes.patterns import BURSTING, PATTERNS


STG = dj.stg()
NUM = 5


def _run(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    return int(stopped.value.code or 0)


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows])


def _write(folder: pathlib.Path, neuron: dj.Neuron, g: np.ndarray) -> pathlib.Path:
    folder.mkdir()
    run = dj.simulate(neuron, g, 100.0)
    write_simulation(neuron, g, run, folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> pathlib.Path:
    g = dj.compensate(jax.random.key(0), STG, (-8.0, 4.0), num=NUM).g
    return _write(tmp_path_factory.mktemp("models") / "bursters", STG, g)


@pytest.fixture(scope="module")
def explained(models) -> pathlib.Path:
    out = models.parent / "explained"
    assert _run("explain", models, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def mapped(models) -> pathlib.Path:
    out = models.parent / "mapped"
    assert _run("explain", models, "--out", out, "--map", "--members-per-point", 1) == 0
    return out


@pytest.mark.parametrize(
    "folder, names",
    [
        ("explained", ("attribution", "identifiability")),
        pytest.param(
            "mapped",
            ("attribution", "identifiability", "reachability"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_explanation_holds_tables_figures_and_sentences(request, folder, names):
    explained = request.getfixturevalue(folder)
    files = {f"{name}.{kind}" for name in names for kind in ("csv", "png")}
    files |= {"explanation.txt", "README.txt", "manifest.json"}
    assert {path.name for path in explained.iterdir()} == files
    about = json.loads((explained / "manifest.json").read_text())
    assert about["model"] == "stg"
    assert about["V"] == -51
    readme = (explained / "README.txt").read_text().splitlines()
    said = {line.split("  ")[0] for line in readme if "  " in line}
    for name in names:
        assert set(_rows(explained / f"{name}.csv")[0]) <= said
        assert (explained / f"{name}.png").stat().st_size > 10_000


def test_written_shares_add_up_to_the_input_conductances(explained):
    rows = _rows(explained / "attribution.csv")
    assert [row["dic"] for row in rows] == ["g_f", "g_s", "g_u"] * NUM
    shares = sum(_column(rows, f"share_{name}") for name in STG.channel_names)
    value = _column(rows, "value")
    np.testing.assert_allclose(shares, value, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value[1::3], -8, atol=1e-3)
    np.testing.assert_allclose(value[2::3], 4, atol=1e-3)


def test_written_directions_are_those_that_features_constrain(explained):
    rows = _rows(explained / "identifiability.csv")
    assert len(rows) == len(STG.channels)
    loadings = np.stack(
        [_column(rows, f"loading_{name}") for name in STG.channel_names]
    )
    np.testing.assert_allclose(np.sum(loadings**2, axis=0), 1, rtol=1e-6)
    eigenvalue, reach = _column(rows, "eigenvalue"), _column(rows, "reach")
    np.testing.assert_allclose(reach**2 * eigenvalue, 1, rtol=1e-6)
    assert np.all(np.diff(reach) >= 0)
    # What makes these neurons burst is what their bursts constrain most.
    stiffest = np.abs(loadings[:, 0])
    assert STG.channel_names[int(np.argmax(stiffest))] in ("CaS", "A")
    assert {row["constrained"] for row in rows[:2]} == {"true"}


@pytest.mark.slow
def test_a_written_map_accounts_for_every_member(mapped):
    said = (mapped / "explanation.txt").read_text()
    assert "(g_s, g_u) = (-8, 4) is reachable: 1 of 1 members" in said
    rows = _rows(mapped / "reachability.csv")
    assert len(rows) == 21 * 11
    assert np.all(_column(rows, "asked") == 1)
    ended = ("ok", "infeasible", "singular", "not_converged", "no_threshold")
    np.testing.assert_array_equal(sum(_column(rows, name) for name in ended), 1)
    labels = ("silent", "tonic", "bursting", "irregular")
    fired = sum(_column(rows, name) for name in labels)
    assert np.all(fired <= _column(rows, "ok"))
    g_s = _column(rows, "g_s")
    label = np.array([row["label"] for row in rows])
    assert np.mean(label[g_s < -6] == "bursting") > 0.9
    assert np.mean(label[g_s > 6] == "tonic") > 0.8
    bursting = label == "bursting"
    assert np.isfinite(_column(rows, "period")[bursting]).all()
    assert np.isnan(_column(rows, "period")[~bursting]).all()


def test_sentences_say_what_was_found(explained):
    written = (explained / "explanation.txt").read_text()
    assert f"{NUM} stg models of bursters." in written
    assert "CaS contributes most" in written
    for feature in PATTERNS[BURSTING].compared:
        assert feature.words in written


def test_models_are_never_replaced_by_their_explanation(models, explained, capsys):
    before = (models / "models.csv").read_bytes()
    assert _run("explain", models, "--out", models, "--overwrite") == 2
    assert "holds models" in capsys.readouterr().err
    assert (models / "models.csv").read_bytes() == before
    assert _run("explain", models, "--out", explained) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_silent_models_have_no_slopes_and_are_explained_without(tmp_path, capsys):
    g = np.asarray(STG.default_g)[None].astype(np.float32)
    g[:, 0] = 0  # without sodium nothing fires
    folder, out = _write(tmp_path / "models", STG, g), tmp_path / "out"
    assert _run("explain", folder, "--out", out) == 1
    said = capsys.readouterr()
    assert "none of 1 models fires" in said.err
    assert "contributes most" in said.out
    names = {path.name for path in out.iterdir()}
    assert "attribution.png" in names
    assert not {"identifiability.csv", "reachability.csv"} & names


@pytest.fixture
def squid(tmp_path) -> pathlib.Path:
    """A table of a model without a recipe, which is explained in no time."""
    neuron = dj.hodgkin_huxley()
    g = np.asarray(neuron.default_g)[None].astype(np.float32)
    return _write(tmp_path / "squid", neuron, g)


def test_an_explanation_is_replaced_when_asked(squid, tmp_path):
    out = tmp_path / "out"
    assert _run("explain", squid, "--out", out) == 1
    assert _run("explain", squid, "--out", out, "--overwrite", "--V", -45) == 1
    assert _rows(out / "attribution.csv")[0]["V"] == "-45"


def test_models_without_a_recipe_are_explained_as_far_as_can_be(
    squid, tmp_path, capsys
):
    folder, out = squid, tmp_path / "out"
    assert _run("explain", folder, "--out", out) == 1
    said = capsys.readouterr()
    assert "has no recipe" in said.err
    assert "Na contributes most" in said.out
    assert _run("explain", folder, "--out", tmp_path / "map", "--map") == 2
    assert "has no recipe for populations" in capsys.readouterr().err


@pytest.fixture(scope="module")
def at_threshold(models) -> tuple[pathlib.Path, str, str]:
    """Bursting and fewer tonic models at their thresholds, and what was said."""
    _, g = read_models(models)
    tonic = dj.compensate(jax.random.key(0), STG, (8.0, 4.0), num=2).g
    mixed = _write(models.parent / "mixed", STG, np.concatenate([tonic, g]))
    out, printed, noted = models.parent / "at_threshold", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(noted):
        assert _run("explain", mixed, "--out", out, "--V", "threshold") == 0
    return out, printed.getvalue(), noted.getvalue()


def test_sentences_are_printed_as_they_are_written(at_threshold):
    out, printed, _ = at_threshold
    assert printed.startswith((out / "explanation.txt").read_text())


def test_at_their_own_thresholds_the_slope_of_the_steady_state_current_vanishes(
    at_threshold,
):
    values = _column(_rows(at_threshold[0] / "attribution.csv"), "value")
    np.testing.assert_allclose(values.reshape(-1, 3).sum(axis=1), 0, atol=2e-3)


def test_slopes_are_those_of_the_commonest_pattern(at_threshold):
    _, printed, noted = at_threshold
    assert f"{NUM} bursting models; 2 other" in noted
    assert f"in all {NUM} at once" in printed


@pytest.mark.parametrize(
    ("args", "message"),
    (
        (("--V", "nan"), "--V must be at least -200"),
        (("--model", "squid"), "squid"),
        (("--map", "--members-per-point", 0), "must be at least 1"),
    ),
)
def test_bad_input_gets_a_sentence_and_nothing_is_written(
    models, tmp_path, capsys, args, message
):
    out = tmp_path / "out"
    assert _run("explain", models, "--out", out, *args) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not out.exists()


def test_a_table_that_does_not_say_its_model_needs_one(models, tmp_path, capsys):
    alone = tmp_path / "models.csv"
    shutil.copy(models / "models.csv", alone)
    assert _run("explain", alone, "--out", tmp_path / "out") == 2
    assert "does not say of which model" in capsys.readouterr().err
