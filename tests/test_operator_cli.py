"""The command line of operators, with one that knows a single cell by heart."""

import csv
import json

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from operators import blank, FAMILY, RANGES, SMALL

import dicjax as dj
from dicjax.cli import main
from dicjax.operator.characteristics import at_rest, NAMES
from dicjax.operator.checkpoint import save_operator


CELL = FAMILY.sample(jr.key(0), 2)[1]  # 5 spikes in a second at 1.1 µA/cm²
CAPACITANCE = 80.0  # pF
EVERY, START, STOP, DURATION = 0.2, 100.0, 1150.0, 1250.0  # ms, of the recording
DENSITIES = np.array([-0.4, 1.1, 1.3, 1.6])  # µA/cm²


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("operators")


@pytest.fixture(scope="module")
def saved(folder):
    """An operator that takes every neuron for `CELL`, whatever its features."""
    operator = blank(200)
    last = lambda o: (o.branch.last.weight, o.branch.last.bias)
    operator = eqx.tree_at(last, operator, replace_fn=jnp.zeros_like)
    center = jnp.log(jnp.asarray(CELL))
    operator = eqx.tree_at(lambda o: o.branch.amplitude_center, operator, center)
    save_operator(folder / "knowing", operator, SMALL, {})
    return folder / "knowing"


@pytest.fixture(scope="module")
def neurons(folder):
    """A table of features of three neurons, with `CELL`'s rest."""
    path = folder / "neurons.csv"
    rest = float(at_rest(FAMILY, CELL[None])[0][0])
    middle = {name: (low + high) / 2 for name, (low, high) in RANGES.items()}
    rows = [middle | {"rest": rest, "width": width} for width in (2.0, 2.5, 3.0)]
    _write(path, rows)
    return path


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def simulated():
    """`CELL` under `DENSITIES`, from `START` to `STOP`."""
    g = np.repeat(CELL[None], len(DENSITIES), axis=0)
    rest = at_rest(FAMILY, g)[0]
    run = dj.simulate(
        FAMILY.neuron,
        g,
        DURATION,
        dt=0.025,
        V0=rest,
        stimulus=dj.Step(DENSITIES.astype(np.float32), START, STOP),
        save_every=EVERY,
    )
    assert run.V is not None
    return np.concatenate([rest[:, None], run.V], axis=1)


@pytest.fixture(scope="module")
def recording(folder, simulated):
    ts = EVERY * np.arange(simulated.shape[1])
    on = (ts >= START - 1e-6) & (ts < STOP - 1e-6)
    current = CAPACITANCE * DENSITIES[:, None] * on  # pF are a thousandth µF
    path = folder / "cell.npz"
    np.savez(path, time_ms=ts, current_pA=current, voltage_mV=simulated)
    return path


@pytest.fixture
def run(capsys, saved):
    def run(command, *args):
        named = () if "--operator" in args else ("--operator", saved)
        with pytest.raises(SystemExit) as stopped:
            main(["operator", command, *map(str, args), *map(str, named)])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


# Ensembles


def test_features_are_listed_with_units_ranges_and_meanings(run):
    status, said, _ = run("ensemble", "--list")
    lines = said.splitlines()
    assert status == 0 and [line.split()[0] for line in lines] == list(NAMES)
    (rest,) = (line for line in lines if line.startswith("rest"))
    low, high = (float(rest.split()[i]) for i in (1, 3))
    assert -80 < low < -76 and -70 < high < -66
    assert "mV" in rest and "potential without a step" in rest


def test_an_ensemble_is_a_table_of_all_features(run, tmp_path):
    path = tmp_path / "drawn.csv"
    measured = ("--measured", "rest=-72.5", "width=2.2")
    status, said, _ = run("ensemble", *measured, "--neurons", 3, "--out", path)
    rows = _read(path)
    assert status == 0 and "3 neurons" in said and len(rows) == 3
    assert tuple(rows[0]) == NAMES
    for row in rows:
        assert float(row["rest"]) == pytest.approx(-72.5, abs=1e-3)
        assert float(row["width"]) == pytest.approx(2.2, rel=1e-4)
    assert len({row["gain"] for row in rows}) == 3
    out = tmp_path / "predicted"
    short = ("--start", 1, "--stop", 5, "--duration", 10, "--out", out)
    assert run("predict", path, *short)[0] == 0
    with np.load(out / "traces.npz") as file:
        np.testing.assert_allclose(file["voltage_mV"][:, 0], -72.5, atol=1e-3)


def test_an_ensemble_without_a_file_goes_to_the_terminal(run):
    status, first, _ = run("ensemble", "--neurons", 3)
    assert status == 0 and first.splitlines()[0].replace('"', "") == ",".join(NAMES)
    assert len(first.splitlines()) == 4
    assert run("ensemble", "--neurons", 3)[1] == first  # the seed is the same
    assert run("ensemble", "--neurons", 3, "--seed", 1)[1] != first


def test_a_cell_beyond_the_family_is_noted(run, tmp_path):
    status, _, said = run("ensemble", "--measured", "rest=-40", "--neurons", 3)
    assert status == 0 and "Note: No neuron of the family 'cortical' is like" in said


@pytest.mark.parametrize(
    "args, message",
    [
        (("--measured", "rest"), "'rest' is no measured feature: write name=value"),
        (("--measured", "rest=low"), "'rest=low' is no measured feature"),
        (("--measured", "colour=1"), "knows no feature 'colour', only rest"),
        (("--measured", "width=-2"), "width is -2.0, but must be a positive number"),
        (("--measured", "rest=nan"), "rest is nan"),
        (("--neurons", "0"), "neurons"),
        (("--neurons", "-3"), "neurons"),
        (("--operator", "squid"), "There is no operator 'squid'"),
        (("--operator", "checkpoints/none"), "There is no operator"),
    ],
)
def test_what_no_ensemble_can_be_drawn_from_is_a_sentence(run, tmp_path, args, message):
    out = tmp_path / "x.csv"
    _refused(run("ensemble", *args, "--out", out), message)
    assert not out.exists()


def _refused(answer, message):
    status, out, err = answer
    assert status == 2 and not out
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("dicjax: ")]
    assert message in line


# Predictions


def _spike_times(V, every):
    """When the potential rises above 0 mV, in ms from the onset of the step."""
    return every * np.flatnonzero((V[1:] >= 0) & (V[:-1] < 0)) - START


def test_a_step_is_answered_as_the_simulator_does(run, neurons, simulated, tmp_path):
    out = tmp_path / "predicted"
    step = ("--step", 1.6, "--start", START, "--stop", STOP, "--duration", DURATION)
    status, said, _ = run("predict", neurons, *step, "--out", out)
    assert status == 0 and "3 neurons, 1250 ms" in said
    with np.load(out / "traces.npz") as file:
        ts, I, V = (file[x] for x in ("time_ms", "current_uA_cm2", "voltage_mV"))
    np.testing.assert_allclose(ts, 0.1 * np.arange(12_500))
    on = (ts >= START - 1e-6) & (ts < STOP - 1e-6)
    np.testing.assert_allclose(I, np.broadcast_to(1.6 * on, (3, 12_500)), rtol=1e-6)
    truth = _spike_times(simulated[-1], EVERY)
    assert len(truth) > 15
    for own in (_spike_times(row, 0.1) for row in V):
        assert abs(len(own) - len(truth)) <= 1
        assert own[0] == pytest.approx(truth[0], rel=0.02)
    assert (out / "traces.png").stat().st_size > 5000
    assert json.loads((out / "manifest.json").read_text())["every_ms"] == 0.1


def test_a_current_of_ones_own_is_answered(run, neurons, tmp_path):
    current, out = tmp_path / "current.csv", tmp_path / "predicted"
    ts = np.arange(0, 100, 0.25)
    own = np.sin(ts / 5)
    rows = [{"time_ms": t, "current": x} for t, x in zip(ts, own, strict=True)]
    for name in ("current", "current_uA_cm2"):
        _write(current, [{"time_ms": x["time_ms"], name: x["current"]} for x in rows])
        how = ("--current", current, "--out", out, "--overwrite")
        assert run("predict", neurons, *how)[0] == 0
        with np.load(out / "traces.npz") as file:
            np.testing.assert_allclose(file["time_ms"], ts, atol=1e-9)
            np.testing.assert_allclose(file["current_uA_cm2"][1], own, rtol=1e-5)
            V = file["voltage_mV"]
    # The current swings below threshold, and the membrane with it.
    assert V[0].max() > V[0, 0] + 3 and V[0].min() < V[0, 0] - 2


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"t": 0, "current": 1}], "has the columns t, current, but time_ms and curr"),
        ([{"time_ms": 0, "I": 1}], "has the columns time_ms, I, but"),
        ([{"time_ms": 0, "current": 1}], "has 1 samples, but two are needed"),
        (
            [{"time_ms": t, "current": 1} for t in (0, 0.5, 1, 3, 3.5)],
            "is not evenly sampled after 1 ms: resample it in steps of 0.5 ms",
        ),
        ([{"time_ms": -t, "current": 1} for t in range(4)], "not evenly sampled"),
        (
            [{"time_ms": t, "current": x} for t, x in enumerate((1, "x", 1))],
            "something else than numbers in its column current",
        ),
        (
            [{"time_ms": t, "current": x} for t, x in enumerate((1, "", 1))],
            "`current` must be finite, but sample (1,)",
        ),
        ([{"time_ms": 2 * t, "current": 1} for t in range(4)], "at most 1, got 2.0"),
    ],
)
def test_a_current_that_makes_no_sense_is_a_sentence(
    run, neurons, tmp_path, rows, message
):
    current, out = tmp_path / "current.csv", tmp_path / "x"
    _write(current, rows)
    _refused(run("predict", neurons, "--current", current, "--out", out), message)
    assert not out.exists()


def _without_rest(rows):
    return [{k: v for k, v in row.items() if k != "rest"} for row in rows]


def _with(name, value):
    return lambda rows: [rows[0], rows[1] | {name: value}]


@pytest.mark.parametrize(
    "change, message",
    [
        (_without_rest, "has no column rest, which the operator 'cortical' needs"),
        (_with("width", "wide"), "something else than numbers in its column width"),
        (_with("gain", ""), "gain of neuron 1 is nan: draw it from what is"),
        (_with("rest", -0.072), "rest of neuron 1 is -0.072, but the operator"),
        (lambda rows: [], "has no rows: it needs one per neuron"),
    ],
)
def test_features_that_make_no_sense_are_a_sentence(
    run, neurons, tmp_path, change, message
):
    path, out = tmp_path / "features.csv", tmp_path / "x"
    rows = change(_read(neurons))
    if rows:
        _write(path, rows)
    else:
        path.write_text(",".join(NAMES) + "\n")
    _refused(run("predict", path, "--out", out), message)
    assert not out.exists()


def test_a_column_that_is_there_twice_is_a_sentence(run, neurons, tmp_path):
    path = tmp_path / "features.csv"
    lines = [line.rstrip() for line in neurons.read_text().splitlines()]
    doubled = [
        f"{line},{end}"
        for line, end in zip(lines, ("rest", -72, -72, -72), strict=True)
    ]
    path.write_text("\n".join(doubled))
    _refused(run("predict", path, "--out", tmp_path / "x"), "rest")


def test_files_that_cannot_be_read_are_a_sentence(run, neurons, tmp_path):
    out = ("--out", tmp_path / "x")
    _refused(run("predict", tmp_path / "none.csv", *out), "There is no file")
    _refused(run("predict", tmp_path, *out), "There is no file")
    missing = ("--current", tmp_path / "none.csv")
    _refused(run("predict", neurons, *missing, *out), "There is no file")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    _refused(run("predict", empty, *out), "empty.csv cannot be read as CSV")


@pytest.mark.parametrize(
    "step",
    [
        ("--start", 300, "--stop", 200),
        ("--stop", 700),
        ("--start", -5),
        ("--duration", "inf"),
        ("--duration", "nan"),
        ("--step", "nan"),
    ],
)
def test_a_step_that_makes_no_sense_is_a_sentence(run, neurons, tmp_path, step):
    _refused(run("predict", neurons, *step, "--out", tmp_path / "x"), "")


def test_a_prediction_is_not_replaced_unless_asked(run, neurons, tmp_path):
    out = tmp_path / "predicted"
    short = ("--start", 1, "--stop", 5, "--duration", 10, "--out", out)
    assert run("predict", neurons, *short)[0] == 0
    _refused(run("predict", neurons, *short), "--overwrite")
    assert run("predict", neurons, *short, "--overwrite")[0] == 0


# Recorded cells


@pytest.fixture
def compared(run, recording, tmp_path):
    out = tmp_path / "compared"
    how = ("--capacitance", CAPACITANCE, "--use", 1, 3, "--neurons", 3, "--out", out)
    status, said, _ = run("compare", recording, *how)
    assert status == 0
    return out, said


@pytest.mark.slow
def test_a_cell_that_the_operator_knows_is_predicted(compared, simulated):
    out, said = compared
    assert "2 sweeps predicted" in said and "comparison.png" in said
    about = json.loads((out / "manifest.json").read_text())
    assert about["used_sweeps"] == [1, 3]
    assert about["capacitance_pF"] == CAPACITANCE
    # Densities are currents over capacitance: its threshold is that of the model.
    assert 1.0 < about["measured"]["threshold"] < 1.15
    assert about["measured"]["rest"] == pytest.approx(simulated[0, 0], abs=0.1)
    rows = _read(out / "comparison.csv")
    assert len(rows) == len(DENSITIES) * 6
    for row in rows:
        if row["feature"] == "num_spikes":
            assert abs(float(row["median"]) - float(row["recorded"])) <= 1
        if row["feature"] == "width" and row["recorded"] not in ("", "nan"):
            assert float(row["median"]) == pytest.approx(
                float(row["recorded"]), rel=0.05
            )
    by_sweep = {(row["sweep"], row["current_pA"], row["used"]) for row in rows}
    assert len(by_sweep) == len(DENSITIES)
    used = [row["used"] for row in rows if row["feature"] == "num_spikes"]
    assert used == ["false", "true", "false", "true"]
    assert len(_read(out / "features.csv")) == 3
    assert (out / "comparison.png").stat().st_size > 20_000


def test_resistance_and_capacitance_are_measured_where_a_step_is_small(
    run, recording, tmp_path
):
    out = tmp_path / "compared"
    how = ("--use", 1, 3, "--neurons", 3, "--out", out)
    status, _, _ = run("compare", recording, *how)
    about = json.loads((out / "manifest.json").read_text())
    assert status == 0
    # Slow gates add to what the membrane itself charges with.
    assert about["capacitance_pF"] == pytest.approx(CAPACITANCE, rel=0.35)
    resistivity = about["resistance_MOhm"] * about["capacitance_pF"] / 1e3  # kΩ·cm²
    assert about["measured"]["resistance"] == pytest.approx(resistivity)


@pytest.mark.parametrize(
    "args, message",
    [
        (("--capacitance", 0), "The capacitance must be positive pF, got 0.0"),
        (("--capacitance", 80, "--use", 1, 9), "has sweeps 0 to 3, but [1, 9]"),
        (("--capacitance", 80, "--use", 0, 1), "an F-I curve needs two"),
        (("--capacitance", 80, "--neurons", 0), "neurons"),
        (
            ("--capacitance", 80, "--membrane", "none.npz"),
            "There is no file 'none.npz'",
        ),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(run, recording, tmp_path, args, message):
    out = tmp_path / "x"
    _refused(run("compare", recording, *args, "--out", out), message)
    assert not out.exists()


def test_recordings_that_do_not_suit_are_a_sentence(run, recording, tmp_path):
    with np.load(recording) as file:
        arrays = dict(file)
    out = ("--out", tmp_path / "x")
    short = tmp_path / "short.npz"
    ts = arrays["time_ms"]
    brief = arrays["current_pA"] * (ts < START + 300)
    np.savez(short, **(arrays | {"current_pA": brief}))
    _refused(
        run("compare", short, "--capacitance", 80, *out),
        "a step of 300 ms is too short: spikes are counted over its first 1000 ms",
    )
    firing = tmp_path / "firing.npz"
    rows = ("current_pA", "voltage_mV")
    np.savez(firing, **(arrays | {name: arrays[name][1:] for name in rows}))
    _refused(run("compare", firing, *out), "pF as `--capacitance`")
    _refused(run("compare", tmp_path / "none.npz", *out), "There is no file")
