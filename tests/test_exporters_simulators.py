"""The simulators themselves, where they are installed.

They are looked for in the Python that runs the tests and in those that the variable
`DICJAX_SIMULATORS` names, as `PATH` does: simulators seldom agree on one environment.
"""

import functools
import os
import shutil
import subprocess
import sys

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from driven import drive_of, G as DRIVEN_G
from test_exporters import Bumpy, gated, leaky, ODD, Square
from test_tables import make_generated

from dicjax.dics.sampling import compensate
from dicjax.neurons import curves as gating
from dicjax.neurons.curves import Constant, Sigmoid
from dicjax.neurons.models import MODELS, stg_prinz
from dicjax.output import exporters
from dicjax.output.population_files import write_population
from dicjax.output.saved_population import read_population
from dicjax.recordings.readers import read_spike_trains
from dicjax.simulation.simulate import simulate


# How far spike times may be off after a second, in ms.
ERRORS = {"neuron": 0.1, "brian2": 0.1, "jaxley": 0.5, "neuroml": 0.5}
FINE = {"neuron": ("--tolerance", "1e-8"), "brian2": (), "jaxley": (), "neuroml": ()}
SIMULATORS = pytest.mark.parametrize("simulator", FINE)
SHORT = "its sodium needs steps so short that jNeuroML takes an hour"
DTS = (0.005, 0.0025)  # ms, of jNeuroML
STEPS = {
    "hodgkin-huxley": 10.0,
    "connor-stevens": 10.0,
    "pospischil-rs": 2.0,
    "pospischil-fs": 6.0,
    "pospischil-ib": 1.0,
    "pospischil-lts": 1.0,
    "da": 5.0,
    "stg": 0.0,
    "stg-prinz": 0.0,
}  # µA/cm²
G = {
    "stg": [6407.5, 91.66, 4.846, 36.43, 151.0, 375.6, 0.3759, 0.0095],
    "stg-prinz": [200.0, 75.0, 5.0, 4.0, 10.0, 30.0, 0.05, 0.03],
}  # mS/cm², where the published ones do not spike within a second


@functools.cache
def python_with(library):
    """A Python that can import a simulator, and where its tools are."""
    others = os.environ.get("DICJAX_SIMULATORS", "").split(os.pathsep)
    for python in (sys.executable, *filter(None, others)):
        code = f"import importlib.util as x; exit(x.find_spec({library!r}) is None)"
        if subprocess.run([python, "-c", code]).returncode == 0:
            tools = os.path.dirname(python), os.environ.get("PATH", "")
            return python, os.pathsep.join(tools)
    pytest.skip(f"{library} is not installed: see the head of this file")


@pytest.fixture
def run(tmp_path):
    """Exports cells, runs them in a simulator and gives the spike times of each."""

    def run(simulator, neuron, g, *options, members=None, **more_of_cells):
        if simulator == "neuroml" and "--dt" not in options:
            # Its steps are Euler's, whose error is proportional to their length.
            given = dict(zip(options[::2], options[1::2], strict=True))
            last = float(given.get("--duration", 1000))
            more = lambda dt: (*options, "--dt", dt, "--duration", 1.02 * last)
            ends = [run(simulator, neuron, g, *more(x), members=members) for x in DTS]
            num = lambda cells: min(map(len, cells))
            found = [
                2 * x[1][: num(x)] - x[0][: num(x)] for x in zip(*ends, strict=True)
            ]
            return [times[times < last] for times in found]
        python, path = python_with(simulator)
        if simulator == "neuroml" and shutil.which("java") is None:
            pytest.skip("Java, which runs jNeuroML, is not installed")
        export = getattr(exporters, f"export_{simulator}")
        export(neuron, g, tmp_path, members=members, **more_of_cells)
        commands = [[python, "run.py", *FINE[simulator], *map(str, options)]]
        if simulator == "neuron":
            for tool in ("nrnivmodl", "g++", "make"):
                if shutil.which(tool, path=path) is None:
                    pytest.skip(f"{tool}, which compiles mechanisms, is not installed")
            commands.insert(0, ["nrnivmodl", "mod"])
        for command in commands:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        rows = np.loadtxt(tmp_path / "spikes.csv", delimiter=",", skiprows=1, ndmin=2)
        members = members or range(len(np.atleast_2d(g)))
        return [rows[rows[:, 0] == member, 1] for member in members]

    return run


def reference(neuron, g, duration, I_ext=None):
    """Upward crossings of 10 mV, by an adaptive solver at a tight tolerance."""
    current = I_ext or (lambda t: jnp.zeros(()))
    field = lambda t, y, g: neuron.vector_field(t, y, g, current(t))
    ts = 0.02 * np.arange(1, round(duration / 0.02))
    V = dfx.diffeqsolve(
        dfx.ODETerm(field),
        dfx.Tsit5(),
        0.0,
        duration,
        0.01,
        neuron.initial_state(),
        args=jnp.asarray(g),
        saveat=dfx.SaveAt(ts=jnp.asarray(ts), fn=lambda t, y, args: y.V),
        stepsize_controller=dfx.PIDController(rtol=1e-8, atol=1e-8),
        max_steps=None,
    ).ys
    V = np.asarray(V)
    (up,) = np.nonzero((V[:-1] < 10) & (V[1:] >= 10))
    return ts[up] + 0.02 * (10 - V[up]) / (V[up + 1] - V[up])


def assert_same_times(actual, expected, atol=0.1):
    assert len(expected) > 3
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)  # ms


def step(current, start):
    return lambda t: jnp.where(t >= start, current, 0.0)


@functools.cache
def first_second(model):
    """When a model's cell spikes under its step of current from 20 ms on."""
    neuron, g = MODELS[model](), G.get(model)
    g = np.asarray(neuron.default_g if g is None else g)
    return neuron, g, reference(neuron, g, 1000.0, step(STEPS[model], 20.0))


@pytest.mark.slow
@SIMULATORS
@pytest.mark.parametrize("model", STEPS)
def test_simulators_fire_as_we_do_over_a_second(model, simulator, run):
    python_with(simulator)
    if simulator == "neuroml" and model == "stg":
        pytest.skip(SHORT)
    neuron, g, expected = first_second(model)
    (actual,) = run(simulator, neuron, g, "--current", STEPS[model], "--start", 20)
    assert_same_times(actual, expected, atol=ERRORS[simulator])


@pytest.mark.slow
@SIMULATORS
def test_members_of_a_population_fire_as_their_folder_says(simulator, run, tmp_path):
    python_with(simulator)
    if simulator == "neuroml":
        pytest.skip(SHORT)
    folder = tmp_path / "results"
    folder.mkdir()
    write_population(make_generated(), folder)
    stored = read_population(folder)
    neuron, g = make_generated().neuron, make_generated().g
    assert stored.spike_times is not None
    members = [5, 2]
    cells = run(simulator, neuron, g[members], "--duration", 1500, members=members)
    for member, actual in zip(members, cells, strict=True):
        expected = stored.spike_times[member]
        # Half a millisecond apart: the folder holds what steps of 0.05 ms gave.
        assert_same_times(actual[actual > 500][: len(expected)], expected, atol=1.0)
    trains = read_spike_trains(tmp_path / "spikes.csv")
    assert [train.name for train in trains] == ["5", "2"]


# Options, and how far the rate and the CV of ISIs may be off, as shares: three standard
# errors of what chance makes of so many intervals.
DRIVEN = {
    "neuron": (("--duration", 10_000), 0.10),
    "brian2": (("--duration", 10_000), 0.10),
    "jaxley": (("--duration", 5000, "--dt", 0.01), 0.15),
}


@pytest.mark.slow
@pytest.mark.parametrize("simulator", DRIVEN)
def test_members_with_a_drive_vary_as_ours_do(simulator, run):
    options, most = DRIVEN[simulator]
    num, neuron = 16, stg_prinz()
    g, drive = np.tile(np.float32(DRIVEN_G), (num, 1)), drive_of(num)
    noise = drive.stimulus(jr.key(0))
    ours = simulate(neuron, g, 40_000.0, discard=1000.0, stimulus=noise).spike_times
    expected = pooled([np.asarray(x)[np.isfinite(x)] for x in ours])
    cells = run(simulator, neuron, g, *options, drive=drive)
    actual = pooled([times[times > 1000] for times in cells])
    print(simulator, "rate and CV", *actual, "dicjax", *expected)
    np.testing.assert_allclose(actual, expected, rtol=most)
    again = run(simulator, neuron, g[:2], "--duration", 1500, drive=drive_of(2))
    # Noise differs from cell to cell and, with another seed, from run to run.
    assert not np.array_equal(again[0], again[1])
    options = ("--duration", 1500, "--seed", 1)
    other = run(simulator, neuron, g[:2], *options, drive=drive_of(2))
    assert not np.array_equal(again[0], other[0])


def pooled(cells):
    """The rate (Hz) and the coefficient of variation of all intervals of cells."""
    isi = np.concatenate([np.diff(times) for times in cells])
    return 1000 / isi.mean(), isi.std() / isi.mean()


@pytest.mark.slow
def test_neuron_fires_as_the_stomatogastric_neuron_does(run):
    neuron = MODELS["stg"]()
    targets = np.repeat([[5.0, 4.0], [15.0, 8.0], [-8.0, 4.0], [-4.0, 8.0]], 2, 0)
    g = compensate(jr.key(0), neuron, targets).g
    ours = simulate(neuron, g, 200.0, dt=0.005)
    cells = run("neuron", neuron, g, "--duration", 200)
    for cell, actual in enumerate(cells):
        expected = ours.spike_times[cell][: ours.num_spikes[cell]]
        # We report a spike once it is over.
        assert 3 < len(expected) <= len(actual) <= len(expected) + 1
        assert_same_times(actual[: len(expected)], expected)


@pytest.mark.slow
def test_neuroml_fires_as_the_stomatogastric_neuron_does_in_short_steps(run):
    python_with("neuroml")
    neuron, g, expected = first_second("stg")
    (actual,) = run("neuroml", neuron, g, "--dt", 1.2e-4, "--duration", 60)
    assert_same_times(actual, expected[expected < 60], atol=0.2)
    with pytest.raises(AssertionError, match="Cell 0 left all bounds"):
        run("neuroml", neuron, g, "--dt", 0.005, "--duration", 60)


@pytest.mark.slow
@SIMULATORS
def test_simulators_run_what_users_declare(simulator, run):
    # Odd names and curves, equations that are not linear, another capacitance.
    odd = gated("exp", steady=gating.Scaled(Bumpy(-35.0), 0.01))
    odd = eqx.tree_at(lambda c: c.reversal, odd, Constant(-60.0))
    square = gated("K-1", steady=Sigmoid(-20.0, -9.0), kind=Square)
    square = eqx.tree_at(lambda c: c.reversal, square, Constant(-80.0))
    sodium = MODELS["hodgkin-huxley"]().channels[0]
    neuron = leaky(sodium, square, odd, name="a b", capacitance=1.5)
    g = np.array([120.0, 30.0, 0.5, 0.3])
    options = ("--duration", 200, "--current", 20.0, "--start", 20)
    (actual,) = run(simulator, neuron, g, *options)
    expected = reference(neuron, g, 200.0, step(20.0, 20.0))
    assert_same_times(actual, expected)


@pytest.mark.slow
@SIMULATORS
def test_simulators_take_odd_names(simulator, run):
    # Among them calcium that stays where it starts.
    channels = [gated(name, steady=gating.CalciumSaturation(3.0)) for name in ODD]
    neuron = leaky(*channels, MODELS["hodgkin-huxley"]().channels[0], name="exp 1")
    g = np.array([0.01] * len(ODD) + [120.0, 0.3])
    expected = reference(neuron, g, 100.0)
    (actual,) = run(simulator, neuron, g, "--duration", 100)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.1)


@pytest.mark.slow
def test_steps_that_are_too_long_are_not_believed(run):
    with pytest.raises(AssertionError, match="Cell 0 left all bounds"):
        run(
            "brian2",
            MODELS["stg"](),
            np.array(G["stg"]),
            "--dt",
            0.02,
            "--duration",
            100,
        )


@pytest.mark.slow
def test_fixed_steps_converge_to_adaptive_ones(run):
    neuron = MODELS["hodgkin-huxley"]()
    options = ("--duration", 200, "--current", 10, "--start", 20)
    times = lambda *more: run("neuron", neuron, neuron.default_g, *options, *more)[0]
    exact, coarse, fine = times(), times("--dt", 0.02), times("--dt", 0.002)
    error = lambda times: np.abs(times - exact).max()
    assert len(exact) > 3 and error(coarse) < 2
    assert error(fine) < 0.2 * error(coarse)
