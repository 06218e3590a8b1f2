import csv
import dataclasses
import datetime
import json
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_tables import make_generated

from dicjax import cli
from dicjax.output.exporters import export_csv, export_nwb, export_xlsx
from dicjax.output.population_files import write_population
from dicjax.output.saved_population import read_population
from dicjax.recordings.readers import read_spike_trains


FILES = {"csv": export_csv, "nwb": export_nwb, "xlsx": export_xlsx}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "results"
    folder.mkdir()
    write_population(make_generated(), folder)
    return folder


@pytest.fixture
def population(folder):
    return read_population(folder)


def run(*args):
    """The exit status of a command."""
    with pytest.raises(SystemExit) as error:
        cli.main([str(arg) for arg in args])
    return error.value.code


def needs(kind) -> Any:
    library = {"nwb": "pynwb", "xlsx": "openpyxl"}.get(kind)
    return pytest.importorskip(library) if library else None


def sheet_of(path, title):
    openpyxl = needs("xlsx")
    rows = openpyxl.load_workbook(path)[title].iter_rows(values_only=True)
    header, *rest = rows
    return list(header), rest


# Populations read back


def test_a_population_is_read_back_whole(folder, population):
    generated = make_generated()
    np.testing.assert_array_equal(population.members, np.arange(16))
    np.testing.assert_array_equal(population.accepted, generated.accepted)
    for times, padded in zip(
        population.spike_times, generated.spike_times, strict=True
    ):
        np.testing.assert_array_equal(times, padded[np.isfinite(padded)])
    assert population.about["model"] == "stg"
    assert "first 500 ms" in population.since
    age = datetime.datetime.now(datetime.UTC) - population.written
    assert age < datetime.timedelta(hours=1)
    for name in ("models.csv", "models.parquet"):
        table = read_population(folder / name)
        assert table.models.column_names == population.models.column_names
        assert table.spike_times is None and table.about == population.about


def test_members_are_taken_by_number_or_mask(population):
    some = population.take(population.rows([5, 2]))
    assert some.members.tolist() == [5, 2]
    np.testing.assert_array_equal(some.spike_times[0], population.spike_times[5])
    # Their numbers stay those of the folder.
    assert some.take(some.rows([2])).members.tolist() == [2]
    with pytest.raises(ValueError, match=r"\b3\b"):
        some.rows([3])
    with pytest.raises(ValueError, match="named twice"):
        some.rows([2, 2])
    accepted = population.take(population.accepted)
    assert accepted.accepted.all() and 0 < len(accepted.members) < 16


# Files


def test_units_of_nwb_are_the_spikes_of_members(population, tmp_path):
    pynwb = needs("nwb")
    path = tmp_path / "population.nwb"
    export_nwb(population.take([5, 2, 0]), path)
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        units = file.units
        assert list(units.id) == [5, 2, 0]
        for row, member in enumerate((5, 2, 0)):
            seconds = population.spike_times[member] / 1e3
            np.testing.assert_array_equal(units["spike_times"][row], seconds)
            np.testing.assert_array_equal(units["obs_intervals"][row], [[0.5, 1.5]])
        g = make_generated().g[[5, 2, 0]]
        np.testing.assert_array_equal(units["g_Na"][:], g[:, 0])
        assert units["g_Na"].description == "maximal conductance of Na, in mS/cm2"
        assert list(units["accepted"][:]) == population.accepted[[5, 2, 0]].tolist()
        assert file.session_start_time == population.written
        assert "Nothing here was recorded" in file.session_description
        assert json.loads(file.notes) == population.about
    assert not pynwb.validate(path=path)


def test_our_own_reader_takes_nwb_back(population, tmp_path):
    needs("nwb")
    path = tmp_path / "population.nwb"
    export_nwb(make_generated(), path)  # as it is in memory
    trains = read_spike_trains(path)
    assert [train.name for train in trains] == [str(i) for i in range(16)]
    for train, times in zip(trains, population.spike_times, strict=True):
        np.testing.assert_allclose(train.times, times, rtol=1e-12)
        assert (train.t_start, train.t_stop) == (500.0, 1500.0)


def test_a_member_that_is_silent_is_a_unit_without_spikes(population, tmp_path):
    pynwb = needs("nwb")
    path = tmp_path / "population.nwb"
    times = (*population.spike_times[:-1], np.zeros(0))
    object.__setattr__(population, "spike_times", times)
    export_nwb(population, path)
    with pynwb.NWBHDF5IO(path, "r") as io:
        assert len(io.read().units["spike_times"][15]) == 0
    with pytest.warns(UserWarning, match="left out"):
        assert len(read_spike_trains(path)) == 15


def test_a_workbook_says_what_its_columns_mean(population, tmp_path):
    path = tmp_path / "population.xlsx"
    needs("xlsx")
    export_xlsx(population, path)
    header, rows = sheet_of(path, "models")
    assert header == population.models.column_names and len(rows) == 16
    column = lambda name: [row[header.index(name)] for row in rows]
    g = np.array(column("g_Na"), np.float32)
    np.testing.assert_array_equal(g, make_generated().g[:, 0])
    assert max(len(str(x)) for x in column("g_Na")) < 12
    assert column("accepted") == population.accepted.tolist()
    assert column("V_th")[3] is None  # what is not defined is empty
    _, meanings = sheet_of(path, "columns")
    assert [name for name, *_ in meanings] == header
    assert ("g_Na", "mS/cm2", "maximal conductance of Na") in meanings
    names, spikes = sheet_of(path, "spikes")
    assert names[5] == "member 5 (ms)"
    train = [row[5] for row in spikes if row[5] is not None]
    np.testing.assert_allclose(train, population.spike_times[5], rtol=1e-6)
    _, about = sheet_of(path, "about")
    assert dict(about)["num_simulated"] == 16


FORMULAS = ["=1+1", "+A1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "a=1", "-65"]


@pytest.mark.parametrize("kind", ("csv", "xlsx"))
def test_text_of_users_is_no_formula(kind, population, tmp_path):
    needs(kind)
    models = population.models.slice(0, len(FORMULAS))
    models = models.append_column("=name", pa.array(FORMULAS))
    object.__setattr__(population, "models", models)
    object.__setattr__(population, "spike_times", None)
    object.__setattr__(population, "about", {"=what": "=1+1\x07", "model": "stg"})
    path = tmp_path / f"population.{kind}"
    FILES[kind](population, path)
    if kind == "csv":
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header[-1] == "'=name"
        written = [row[-1] for row in rows]
        assert written == ["'" + x for x in FORMULAS[:-2]] + FORMULAS[-2:]
        return
    book = needs("xlsx").load_workbook(path)
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert not [cell for cell in cells if cell.data_type == "f"]
    assert {*FORMULAS, "=name", "=what"} <= {cell.value for cell in cells}


def test_infinity_is_written_as_text(population, tmp_path):
    needs("xlsx")
    models = population.models
    i = models.column_names.index("distance")
    endless = models["distance"].to_numpy().copy()
    endless[0] = np.inf
    models = models.set_column(i, models.field(i), [endless])
    object.__setattr__(population, "models", models)
    export_xlsx(population, tmp_path / "population.xlsx")
    header, rows = sheet_of(tmp_path / "population.xlsx", "models")
    assert rows[0][header.index("distance")] == "inf"


def test_a_sheet_that_excel_would_not_hold_is_refused(
    population, tmp_path, monkeypatch
):
    needs("xlsx")
    monkeypatch.setattr("dicjax.output.exporters.spreadsheets.MAX_COLUMNS", 15)
    with pytest.raises(ValueError, match="16"):
        export_xlsx(population, tmp_path / "population.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FILES)
def test_files_are_written_whole_or_not_at_all(kind, population, tmp_path, monkeypatch):
    needs(kind)
    path = tmp_path / f"population.{kind}"
    FILES[kind](population, path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        FILES[kind](population, path)
    assert [x.read_bytes() for x in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("kind", FILES)
def test_files_need_their_ending(kind, population, tmp_path):
    with pytest.raises(ValueError, match=rf"\.{kind}"):
        FILES[kind](population, tmp_path / "population.txt")


@pytest.mark.parametrize("kind, library", (("nwb", "pynwb"), ("xlsx", "openpyxl")))
def test_a_missing_library_is_named_with_the_remedy(
    kind, library, population, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError) as error:
        FILES[kind](population, tmp_path / f"population.{kind}")
    assert f"{library} is not installed" in str(error.value)
    assert f'pip install "dicjax[{kind}]"' in str(error.value)


def test_spikes_are_not_made_up(folder, tmp_path):
    needs("nwb")
    with pytest.raises(ValueError, match=r"spikes\.parquet"):
        export_nwb(read_population(folder / "models.csv"), tmp_path / "x.nwb")


# The command


@pytest.mark.parametrize("tool", ("neuron", "brian2", "jaxley", "neuroml"))
def test_members_are_exported_to_simulators_by_number(tool, folder, tmp_path, capsys):
    out = tmp_path / "out"
    args = ("export", folder, "--to", tool, "--member", "5", "2", "--out", out)
    assert run(*args) == 0
    assert "2 models exported" in capsys.readouterr().out
    with (out / "conductances.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["member"] for row in rows] == ["5", "2"]
    g = np.array([[float(x) for x in row.values()][1:] for row in rows])
    np.testing.assert_array_equal(g.astype(np.float32), make_generated().g[[5, 2]])
    before = (out / "run.py").read_bytes()
    assert run(*args) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*args, "--overwrite") == 0
    assert (out / "run.py").read_bytes() == before


@pytest.mark.parametrize("kind", FILES)
def test_accepted_members_are_exported_to_files(kind, folder, tmp_path, capsys):
    needs(kind)
    out = tmp_path / "new" / f"population.{kind}"
    args = ("export", folder, "--to", kind, "--accepted", "--out", out)
    assert run(*args) == 0
    num = int(make_generated().accepted.sum())
    assert f"{num} models exported: {out}." in capsys.readouterr().out
    assert out.stat().st_size > 1000
    assert run(*args) == 2 and run(*args, "--overwrite") == 0


def test_only_accepted_members_are_exported_unless_asked(folder, tmp_path, capsys):
    num = int(make_generated().accepted.sum())
    for options, expected in (((), num), (("--all",), 16), (("--member", 15), 1)):
        out = tmp_path / f"{expected}.csv"
        assert run("export", folder, "--to", "csv", "--out", out, *options) == 0
        assert f"{expected} model" in capsys.readouterr().out
    args = ("export", folder, "--to", "csv", "--all", "--member", 1)
    assert run(*args, "--out", tmp_path / "x.csv") == 2
    assert "`--all` exports all members" in capsys.readouterr().err


def test_nothing_is_exported_where_no_member_matches(tmp_path, capsys):
    folder, out = tmp_path / "results", tmp_path / "out"
    folder.mkdir()
    generated = make_generated()
    none = np.zeros(len(generated.g), bool)
    write_population(
        dataclasses.replace(generated, accepted=none, certificate=None), folder
    )
    args = ("export", folder, "--to", "neuron", "--out", out)
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert "None of the 16 models" in error and "pass `--all`" in error
    assert not out.exists()
    assert run(*args, "--all") == 0
    assert "16 models exported" in capsys.readouterr().out


def test_a_table_goes_to_a_simulator_with_its_model(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("g_Na,g_Kd,g_leak\n120,36,0.3\n100,36,0.3\n")
    args = ("export", path, "--to", "brian2", "--model", "hodgkin-huxley")
    assert run(*args, "--member", 1, "--out", tmp_path / "out") == 0
    table = (tmp_path / "out" / "conductances.csv").read_text()
    assert [float(x) for x in table.splitlines()[1].split(",")] == [1, 100, 36, 0.3]


@pytest.mark.parametrize(
    "args, message",
    (
        (("--member", "99", "--to", "csv"), "has no member 99"),
        (("--member", "1", "1", "--to", "csv"), "named twice"),
        (("--to", "nwb"), "must end in .nwb"),
        (("--to", "neuron", "--model", "nonsense"), "There is no model 'nonsense'"),
    ),
)
def test_bad_requests_get_one_sentence(args, message, folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert run("export", folder, *args, "--out", out) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not out.exists()


def test_what_an_export_must_not_replace_is_kept(folder, tmp_path, capsys):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    table = tmp_path / "mine.csv"
    table.write_text("mine")
    for to, out, message in (
        ("neuron", folder, "holds the models"),
        ("csv", folder / "models.csv", "holds the models"),
        ("neuron", other, "did not write"),
        ("jaxley", table, "is a file"),
        ("csv", other, "must end in .csv"),
    ):
        args = ("export", folder, "--to", to, "--out", out, "--overwrite")
        assert run(*args) == 2
        assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert len(list(other.iterdir())) == 1
    assert table.read_text() == "mine"


def test_populations_without_verdicts_have_no_accepted_ones(folder, tmp_path, capsys):
    assert (
        run(
            "simulate",
            folder,
            "--duration",
            100,
            "--discard",
            0,
            "--out",
            tmp_path / "again",
        )
        == 0
    )
    capsys.readouterr()
    args = ("export", tmp_path / "again", "--to", "csv", "--accepted")
    assert run(*args, "--out", tmp_path / "models.csv") == 2
    assert "does not say which of its models are accepted" in capsys.readouterr().err


def test_help_teaches(capsys):
    assert run("export", "--help") == 0
    text = capsys.readouterr().out
    for part in ("RESULTS", "--member", "--accepted", "neuron", "nwb", "For example"):
        assert part in text
