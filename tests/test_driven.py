"""Members with a drive wherever a population goes."""

import dataclasses
import json
import zipfile

import jax
import numpy as np
import pyarrow as pa
import pytest
from driven import DISCARD, make_driven
from pyarrow import csv, parquet
from runs import dicjax as run
from test_tables import make_generated

from dicjax.app import figures
from dicjax.app.canvas import LIGHT
from dicjax.app.downloads import DOWNLOADS
from dicjax.app.runs import read_run
from dicjax.output import exporters
from dicjax.output.driven import DRIVE_COLUMNS, limits_of
from dicjax.output.frames import to_dataframe
from dicjax.output.population_files import read_models, write_population
from dicjax.output.report import feature_rows, write_report
from dicjax.output.saved_population import read_population
from dicjax.simulation.noise import Drive
from dicjax.simulation.simulate import simulate
from dicjax.spikes.features import spike_features
from dicjax.sweeps.config import SimulateJob
from dicjax.sweeps.inputs import read_inputs


@pytest.fixture(scope="module")
def driven():
    return make_driven()


@pytest.fixture
def folder(driven, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    write_population(driven, folder)
    return folder


def test_the_members_of_these_tests_fire_irregularly(driven):
    assert 2 < driven.num_accepted < len(driven.g)
    assert (driven.features.cv[driven.accepted] > 0.3).all()


@pytest.mark.parametrize("name", ("", "models.parquet", "models.csv"))
def test_a_drive_survives_to_the_last_bit(driven, folder, name):
    found = read_population(folder / name).drive
    assert found is not None
    for field in dataclasses.fields(Drive):
        expected = getattr(driven.drive, field.name)
        np.testing.assert_array_equal(getattr(found, field.name), expected)


def test_a_table_of_members_without_a_drive_is_as_before(tmp_path):
    write_population(make_generated(), tmp_path)
    assert read_population(tmp_path).drive is None
    columns = set(csv.read_csv(tmp_path / "models.csv").column_names)
    assert not columns & {*DRIVE_COLUMNS, "distribution_distance"}
    about = json.loads((tmp_path / "manifest.json").read_text())
    assert not {"drive", "agreement"} & {*about}


def test_every_column_of_a_drive_says_its_unit_and_meaning(folder):
    schema = parquet.read_schema(folder / "models.parquet")
    text = (folder / "README.txt").read_text()
    for name in (*DRIVE_COLUMNS, "distribution_distance"):
        about = schema.field(name).metadata
        assert about[b"meaning"] and about[b"unit"]
        assert any(line.split()[:1] == [name] for line in text.splitlines())
    assert schema.field("I_sigma").metadata[b"unit"] == b"uA/cm2"
    assert "noise made from a seed" in " ".join(text.split())
    table = to_dataframe(read_population(folder))
    assert table.attrs["units"]["I_slow_tau"] == "ms"


def test_distances_of_distributions_are_those_that_members_are_judged_by(
    driven, folder
):
    distances = csv.read_csv(folder / "models.csv")["distribution_distance"].to_numpy()
    compared = driven.agreement.compare(driven.spike_times)
    np.testing.assert_allclose(distances, compared.distance, rtol=1e-5)
    assert (distances[driven.accepted] <= driven.agreement.furthest).all()


def test_the_manifest_says_how_members_are_judged(driven, folder):
    about = json.loads((folder / "manifest.json").read_text())
    agreement = about["agreement"]
    assert agreement["pattern"] == "irregular" in agreement["patterns"]
    assert list(agreement["limits"]) == list(driven.agreement.names)
    assert agreement["furthest"] == pytest.approx(driven.agreement.furthest)
    assert about["drive"]["seed"] == 0
    # All that decides is in the folder.
    assert min(agreement["limits"].values()) >= np.log(1.1) - 1e-6


def test_members_that_are_read_back_fire_with_the_same_statistics(driven, folder):
    population = read_population(folder).take(driven.accepted)
    _, g = read_models(folder)
    assert population.drive is not None
    stimulus = population.drive.stimulus(jax.random.key(5), population.members)
    found = simulate(
        driven.neuron,
        np.float32(g[driven.accepted]),
        20_000.0 + DISCARD,
        discard=DISCARD,
        stimulus=stimulus,
    )
    again, first = spike_features(found.spike_times), driven.features
    np.testing.assert_allclose(again.rate, first.rate[driven.accepted], rtol=0.2)
    np.testing.assert_allclose(again.cv, first.cv[driven.accepted], rtol=0.3)
    alone = population.take([1])
    assert alone.drive is not None
    one = simulate(
        driven.neuron,
        np.float32(g[alone.members]),
        6000.0,
        stimulus=alone.drive.stimulus(jax.random.key(5), alone.members),
    )
    # The noise belongs to the member, wherever it is simulated.
    both = simulate(
        driven.neuron,
        np.float32(g[population.members]),
        6000.0,
        stimulus=stimulus,
    )
    num = int(one.num_spikes[0])
    assert num > 20
    np.testing.assert_allclose(
        one.spike_times[0, :num], both.spike_times[1, :num], atol=0.1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda x: x.drop_columns("I_tau"), "lacks I_tau: give all numbers"),
        (lambda x: _with(x, "I_sigma", -1.0), "I_sigma is -1.0 in row 0"),
        (lambda x: _with(x, "I_slow_tau", 0.0), "I_slow_tau is 0.0 in row 0"),
        (lambda x: _with(x, "I_mean", float("inf")), "I_mean is inf in row 0"),
        (lambda x: _with(x, "I_mean", "much"), "I_mean is much in row 0"),
    ),
)
def test_what_can_be_no_drive_is_refused_in_a_sentence(folder, change, message):
    path = folder / "models.parquet"
    parquet.write_table(change(parquet.read_table(path)), path)
    with pytest.raises(ValueError, match=message) as error:
        _ = read_population(folder).drive
    assert "\n" not in str(error.value)


def _with(table: pa.Table, name: str, value) -> pa.Table:
    column = [value, *table[name].to_pylist()[1:]]
    column = [str(x) for x in column] if isinstance(value, str) else column
    return table.set_column(table.column_names.index(name), name, pa.array(column))


# The command line


def test_simulate_gives_members_their_drive(driven, folder, tmp_path, capsys):
    def simulated(name: str, *options) -> list[np.ndarray]:
        out = tmp_path / name
        args = ("--duration", 3000, "--discard", 0, "--out", out, *options)
        assert run("simulate", folder, *args) == 0
        times = read_population(out).spike_times
        assert times is not None
        return [*times]

    first = simulated("first")
    assert "drive of their table, with fluctuations of the seed 0" in (
        capsys.readouterr().out
    )
    again, other = simulated("again"), simulated("other", "--seed", "1")
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first, other))
    assert all(map(len, first))
    # What they got is in the folder, from which they fire so again.
    assert read_population(tmp_path / "first").drive is not None
    about = json.loads((tmp_path / "first" / "manifest.json").read_text())
    assert about["drive"] == {"seed": 0}
    simulated("silent", "--no-drive")
    assert read_population(tmp_path / "silent").drive is None
    assert "drive" not in capsys.readouterr().out.splitlines()[-1]


def test_a_current_comes_on_top_of_a_drive(folder, tmp_path):
    counts = []
    for current in (0, 3):
        out = tmp_path / str(current)
        args = ("--current", current, "--duration", 3000, "--discard", 0, "--out", out)
        assert run("simulate", folder, *args) == 0
        times = read_population(out).spike_times
        counts.append(sum(map(len, times or ())))
    assert counts[1] > 1.2 * counts[0]


def test_certify_refuses_members_with_a_drive(driven, folder, tmp_path, capsys):
    recording = tmp_path / "recording.txt"
    np.savetxt(recording, driven.train.times)
    assert run("certify", folder, recording) == 2
    error = capsys.readouterr().err
    assert "fire under a drive that fluctuates" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("tool", ("neuron", "brian2", "jaxley"))
def test_exports_hold_the_drive_of_each_member(driven, folder, tool, tmp_path, capsys):
    out = tmp_path / "out"
    args = ("export", folder, "--to", tool, "--member", 2, 0, "--out", out)
    assert run(*args) == 0
    table = csv.read_csv(out / "conductances.csv")
    assert table["member"].to_pylist() == [2, 0]
    for name, (field, *_) in DRIVE_COLUMNS.items():
        expected = getattr(driven.drive, field)[[2, 0]]
        np.testing.assert_array_equal(np.float32(table[name].to_numpy()), expected)
    compile((out / "run.py").read_text(), "run.py", "exec")
    readme = (out / "README.txt").read_text()
    assert "I_slow_tau" in readme and "--seed" in readme


def test_scripts_without_a_drive_have_no_noise(tmp_path):
    generated = make_generated()
    for tool in ("neuron", "brian2", "jaxley"):
        export = getattr(exporters, f"export_{tool}")
        export(generated.neuron, generated.g, tmp_path / tool)
        script = (tmp_path / tool / "run.py").read_text()
        assert "--seed" not in script and "drive" not in script


def test_neuroml_refuses_a_drive(folder, tmp_path, capsys):
    args = ("export", folder, "--to", "neuroml", "--out", tmp_path / "out")
    assert run(*args) == 2
    assert "choose neuron, brian2 or jaxley" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_drive_of_other_cells_is_refused(driven, tmp_path):
    with pytest.raises(ValueError, match="a value for each of 3 cells"):
        exporters.export_neuron(
            driven.neuron, driven.g[:3], tmp_path / "out", drive=driven.drive
        )


# The report


def test_the_report_says_what_is_compared(driven, tmp_path):
    write_report(driven, tmp_path / "report.html")
    text = " ".join((tmp_path / "report.html").read_text().split())
    headline = text[text.index("<h1>") : text.index("</h1>")]
    assert f"{driven.num_accepted} of 12 model neurons" in headline
    assert "or as far as its own stretches differ" in headline
    middle = np.median(driven.distribution_distance[driven.accepted])
    assert f"{middle:.2g}" in text and f"{driven.agreement.furthest:.2g}" in text
    for words in ("could not be drawn", "half the time step</a>.</p>"):
        assert words not in text
    assert "a fluctuating input" in text


def test_features_that_decide_are_those_of_the_agreement(driven):
    limits = limits_of(driven.agreement)
    members = np.flatnonzero(driven.accepted)
    rows = feature_rows(driven.target, driven.features, members, 0.1, limits)
    deciding = {row.name.partition(" (")[0] for row in rows if row.decides}
    assert "CV of ISIs" in deciding and "serial correlation" in deciding
    (cv,) = [row for row in rows if row.name == "CV of ISIs"]
    low, high = map(float, cv.allowed.split(" to "))
    inside = (driven.features.cv[members] >= 0.99 * low) & (
        driven.features.cv[members] <= 1.01 * high
    )
    assert inside.all()


# The app


def test_the_app_shows_and_exports_what_drives_members(driven, folder, tmp_path):
    outcome = read_run(folder)
    assert outcome.limits == pytest.approx(limits_of(driven.agreement))
    assert outcome.distribution_distance is not None
    np.testing.assert_allclose(
        outcome.distribution_distance,
        driven.distribution_distance[driven.accepted],
        rtol=1e-5,
    )
    assert figures.feature_bands(outcome, LIGHT)["layout"]["font"]
    (tmp_path / "x.zip").write_bytes(DOWNLOADS["neuron"].make(outcome))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        (name,) = (x for x in archive.namelist() if x.endswith("conductances.csv"))
        header, *rows = archive.read(name).decode().splitlines()
    assert header.endswith(",".join(DRIVE_COLUMNS))
    assert len(rows) == driven.num_accepted


def test_runs_without_a_drive_have_no_limits(tmp_path):
    write_population(make_generated(), tmp_path)
    outcome = read_run(tmp_path)
    assert outcome.limits is None and outcome.distribution_distance is None


# Sweeps


def test_sweeps_refuse_tables_that_give_a_drive(folder):
    config = {"job": "simulate", "model": "stg-prinz"}
    config |= {"members": {"table": folder / "models.parquet"}}
    with pytest.raises(ValueError, match="a drive, which sweeps do not apply"):
        read_inputs(SimulateJob.model_validate(config))
