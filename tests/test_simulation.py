import functools
import logging
import os
import subprocess
import sys
from typing import Any, cast

import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
from cells import resistor, spikes_of, STG, twelve_cells
from test_neuron import field, steady_gates

from dicjax.neurons.models import MODELS
from dicjax.simulation import lane_block, scheduler
from dicjax.simulation.noise import NoisyCurrent
from dicjax.simulation.simulate import simulate
from dicjax.simulation.solvers import Membrane
from dicjax.simulation.stimulus import Ramp, Step
from dicjax.spikes.features import spike_features
from dicjax.spikes.patterns import LABELS


@pytest.fixture(scope="module")
def g():
    return twelve_cells()


@pytest.fixture(scope="module")
def run(g):
    return simulate(STG, g, 600.0)


def assert_same(a, b, **tolerance):
    np.testing.assert_array_equal(a.num_spikes, b.num_spikes)
    np.testing.assert_array_equal(a.succeeded, b.succeeded)
    width = max(1, a.num_spikes.max())
    np.testing.assert_allclose(
        a.spike_times[..., :width], b.spike_times[..., :width], **tolerance
    )


# Accuracy


def reference_spikes(g, duration, every=0.05):
    """Upward crossings of 10 mV by LSODA, on the independent vector field."""
    y0 = np.r_[-70.0, steady_gates("stg", -70.0, 0.5), 0.5]
    ts = np.arange(0, duration, every)
    V = scipy.integrate.odeint(
        field, y0, ts, ("stg", g), rtol=1e-8, atol=1e-8, mxstep=10_000, tfirst=True
    )[:, 0]
    (up,) = np.nonzero((V[:-1] < 10) & (V[1:] >= 10))
    return ts[up] + every * (10 - V[up]) / (V[up + 1] - V[up])


@pytest.mark.slow
def test_spikes_are_those_of_an_adaptive_stiff_solver(g):
    duration, cells = 600.0, range(0, len(g), 3)
    run = simulate(STG, g, duration, dt=0.025)
    labels = spike_features(jnp.asarray(run.spike_times)).label
    assert {"tonic", "bursting"} <= {LABELS[label] for label in labels[::3]}
    errors = []
    for cell in cells:
        expected = reference_spikes(g[cell].astype(np.float64), duration)
        actual = spikes_of(run, cell)
        assert abs(len(actual) - len(expected)) <= 1
        num = min(len(actual), len(expected))
        errors.append((actual[num - 1] - actual[0]) / np.ptp(expected[:num]) - 1)
    assert np.mean(np.abs(errors) < 0.01) >= 0.75


@pytest.mark.slow
def test_potentials_are_those_of_an_adaptive_solver(g):
    chosen = jnp.array([4000.0, 110.0, 4.0, 10.0, 120.0, 200.0, 0.3, 0.01])
    run = simulate(STG, chosen, 60.0, dt=0.0025, save_every=0.5)
    V = dfx.diffeqsolve(
        dfx.ODETerm(cast(Any, Membrane(STG))),
        dfx.Tsit5(),
        0.0,
        60.0,
        1e-3,
        STG.initial_state(),
        args=chosen,
        stepsize_controller=dfx.PIDController(rtol=1e-9, atol=1e-10),
        max_steps=100_000,
        saveat=dfx.SaveAt(ts=jnp.linspace(0.5, 60.0, 120), fn=lambda t, y, args: y.V),
    ).ys
    V = np.asarray(cast(Any, V))
    assert V.max() > 0  # it fires
    assert run.V is not None
    np.testing.assert_allclose(run.V, V, atol=0.05)


@pytest.mark.parametrize(
    "stimulus",
    (
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param(
            Step(5.0, 11.3, 90.0) + Ramp(0.0, 5.0, 0.0, 100.0), marks=pytest.mark.slow
        ),
    ),
    ids=("rest", "step and ramp"),
)
def test_solvers_of_diffrax_give_the_same_spikes_and_traces(g, stimulus):
    few = g[3:6].astype(np.float64)
    traced = functools.partial(
        simulate,
        *(STG, few, 120.0),
        stimulus=stimulus,
        save_every=0.2,
        discard=5.0,
    )
    ours = traced(dt=0.005)
    theirs = traced(solver=dfx.Tsit5(), tolerance=1e-8)
    assert ours.V is not None and theirs.V is not None
    assert ours.num_spikes.sum() > 5
    np.testing.assert_array_equal(ours.num_spikes, theirs.num_spikes)
    np.testing.assert_allclose(np.asarray(ours.ts), np.asarray(theirs.ts))
    for cell in range(3):
        ours_here, theirs_here = spikes_of(ours, cell), spikes_of(theirs, cell)
        np.testing.assert_allclose(ours_here, theirs_here, atol=0.05)
    assert np.median(np.abs(ours.V - theirs.V)) < 0.01


def test_a_cell_that_a_solver_cannot_solve_is_marked(g):
    broken = g[:2].astype(np.float64)
    broken[0] = 1e300
    run = simulate(STG, broken, 5.0, dt=2e-4, solver=dfx.Euler(), tolerance=None)
    assert not run.succeeded[0] and run.succeeded[1]


@pytest.mark.parametrize("stimulus", (None, Step(5.0, 11.3, 90.0)))
def test_errors_of_spike_times_fall_with_the_square_of_the_step(stimulus):
    g = jnp.array([4000.0, 110.0, 4.0, 10.0, 120.0, 200.0, 0.3, 0.01])
    fire = lambda dt: spikes_of(simulate(STG, g, 150.0, dt=dt, stimulus=stimulus))
    truth = fire(0.001)
    steps = np.array([0.04, 0.02, 0.01])
    errors = [np.abs(fire(dt) - truth).max() for dt in steps]
    assert len(truth) >= 3
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] > 1.7
    assert errors[0] < 0.5


def crossings(ts, V):
    """Upward crossings of 10 mV that a fall below 0 mV has confirmed."""
    times, pending = [], None
    for i in range(len(V) - 1):
        if pending is None and V[i] < 10 <= V[i + 1]:
            part = (10 - V[i]) / (V[i + 1] - V[i])
            pending = ts[i] + part * (ts[i + 1] - ts[i])
        if pending is not None and V[i + 1] < 0:
            times.append(pending)
            pending = None
    return times


def test_spike_times_are_where_the_saved_potential_crosses_ten_millivolts(g):
    run = simulate(STG, g, 200.0, save_every=0.05)
    assert run.ts is not None and run.V is not None
    np.testing.assert_allclose(run.ts, 0.05 * np.arange(1, 4001))
    assert run.V.shape == (12, 4000)
    num_seen = 0
    for cell, V in enumerate(run.V):
        times = crossings(run.ts, V)
        spikes = spikes_of(run, cell)
        for time in times:
            assert np.abs(spikes - time).min() < 0.02
        num_seen += len(times)
    assert num_seen > 20
    # Samples may miss a spike that hardly reaches 10 mV.
    assert 0.9 * run.num_spikes.sum() <= num_seen <= run.num_spikes.sum()


def test_saving_traces_leaves_the_spikes_alone(g, run):
    traced = simulate(STG, g, 600.0, save_every=1.0)
    assert_same(traced, run, atol=1e-3)


@pytest.mark.parametrize(("lanes", "bursts"), [(16, 512), (16, 4), (256, 64)])
def test_to_the_last_bit_neither_neighbours_nor_lanes_matter(
    g, lanes, bursts, monkeypatch
):
    # Ends everywhere: in the middle of some spikes too.
    many = np.concatenate([g * scale for scale in np.linspace(0.9, 1.1, 8)])
    many = many.astype(np.float32)
    whole = simulate(STG, many, 300.0)
    monkeypatch.setattr(scheduler, "CPU", {lanes: bursts})
    for first, last in ((0, len(many)), (1, 4), (17, 90)):
        part = simulate(STG, many[first:last], 300.0)
        np.testing.assert_array_equal(part.num_spikes, whole.num_spikes[first:last])
        for cell in range(first, last):
            np.testing.assert_array_equal(
                spikes_of(part, cell - first), spikes_of(whole, cell)
            )


def test_to_the_last_bit_neighbours_and_dispatches_leave_potentials_alone(
    g, monkeypatch
):
    many = np.tile(g.astype(np.float32), (4, 1))
    traced = lambda g: np.asarray(simulate(STG, g, 300.0, save_every=0.1).V)
    whole = traced(many)
    monkeypatch.setattr(scheduler, "CPU", {16: 24})
    for first, last in ((0, 1), (5, 9), (17, 40)):
        np.testing.assert_array_equal(traced(many[first:last]), whole[first:last])


def test_discarded_time_is_left_out_of_spikes_and_traces(g, run):
    late = simulate(STG, g, 600.0, discard=250.0, save_every=1.0)
    assert late.ts is not None and late.V is not None
    assert late.ts[0] == 251 and late.V.shape == (12, 350)
    for cell in range(len(g)):
        times = spikes_of(run, cell)
        np.testing.assert_allclose(
            spikes_of(late, cell), times[times >= 250], atol=1e-3
        )


# Independence


def test_a_cell_alone_fires_as_it_does_among_others(g, run):
    alone = simulate(STG, g[5], 600.0)
    assert alone.num_spikes.shape == ()
    np.testing.assert_array_equal(spikes_of(alone), spikes_of(run, 5))


def test_leading_axes_of_the_conductances_lead_the_result(g, run):
    grid = simulate(STG, g.reshape(3, 4, 8), 600.0)
    assert grid.spike_times.shape[:2] == (3, 4)
    np.testing.assert_array_equal(grid.spike_times.reshape(12, -1), run.spike_times)


def test_cells_do_not_depend_on_how_the_population_is_split(g):
    many = np.tile(g, (86, 1))[:1025]
    split = simulate(STG, many, 60.0)
    twelve = simulate(STG, g, 60.0)
    assert split.num_spikes.shape == (1025,)
    for cell in (0, 7, 1023, 1024):
        np.testing.assert_allclose(
            spikes_of(split, cell), spikes_of(twelve, cell % 12), atol=1e-2
        )
    np.testing.assert_array_equal(split.num_spikes, np.resize(twelve.num_spikes, 1025))
    assert spikes_of(split, 1024).size


def test_a_cell_that_diverges_is_marked_and_leaves_the_others_untouched(g, run):
    broken = g.copy()
    broken[3] = 3e38
    spoilt = simulate(STG, broken, 600.0)
    assert not spoilt.succeeded[3] and spoilt.succeeded.sum() == 11
    assert run.succeeded.all()
    for cell in set(range(12)) - {3}:
        np.testing.assert_array_equal(spikes_of(spoilt, cell), spikes_of(run, cell))


def test_a_shorter_run_is_the_beginning_of_a_longer_one(g, run):
    short = simulate(STG, g, 300.0)
    for cell in range(len(g)):
        longer = spikes_of(run, cell)
        # A spike is reported once it is over.
        np.testing.assert_array_equal(
            spikes_of(short, cell)[: np.sum(longer < 295)], longer[longer < 295]
        )
        assert np.all(spikes_of(short, cell) < 300)


def test_spike_times_are_sorted_and_padded_with_infinity(run):
    assert (run.num_spikes == np.isfinite(run.spike_times).sum(1)).all()
    assert run.spike_times.shape[1] >= run.num_spikes.max()
    for cell in range(12):
        times = run.spike_times[cell]
        assert np.isinf(times[run.num_spikes[cell] :]).all()
        assert (np.diff(spikes_of(run, cell)) > 0).all()


ON_DEVICES = """
import sys, jax, numpy as np, dicjax as dj
one, two = jax.local_devices()
g = np.load(sys.argv[1])
noise = dj.NoisyCurrent(jax.random.key(0), 3.0)
both = dj.simulate(dj.stg(), g, 80.0, stimulus=noise)
with jax.default_device(two):
    alone = dj.simulate(dj.stg(), g, 80.0, stimulus=noise)
assert alone.num_spikes.sum() > 100
np.testing.assert_array_equal(both.num_spikes, alone.num_spikes)
np.testing.assert_array_equal(both.spike_times, alone.spike_times)
"""


@pytest.mark.slow
def test_two_devices_give_what_one_gives_bit_for_bit(g, tmp_path):
    np.save(tmp_path / "g.npy", np.tile(g, (6, 1)))
    args = [sys.executable, "-c", ON_DEVICES, str(tmp_path / "g.npy")]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    subprocess.run(args, check=True, env={**os.environ, "XLA_FLAGS": flags})


# Precision, cost


def test_precision_is_that_of_the_conductances(g, run):
    assert run.spike_times.dtype == np.float32
    double = simulate(STG, g.astype(np.float64), 600.0)
    assert double.spike_times.dtype == np.float64
    assert np.abs(double.num_spikes - run.num_spikes).max() <= 1
    np.testing.assert_allclose(
        double.spike_times[:, :3], run.spike_times[:, :3], rtol=1e-3
    )


def compilations(caplog, do):
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        do()
    return [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]


def test_no_value_compiles_again(g, run, caplog):
    del run  # compiled by now
    noise = lambda seed, sigma: NoisyCurrent(jr.key(seed), sigma, mean=0.1 * sigma)
    simulate(STG, g, 20.0, stimulus=noise(0, 1.0))

    def others():
        simulate(STG, 1.1 * g, 40.0, dt=0.1, discard=3.0)
        simulate(MODELS["stg"](), g, 20.0)  # equal, but another object
        simulate(STG, g, 30.0, stimulus=noise(1, 2.5))

    assert not [m for m in compilations(caplog, others) if "take_bursts" in m]
    # The count itself can count: another biology is another program.
    fresh = lambda: simulate(resistor("another"), np.ones(1), 1.0)
    assert [m for m in compilations(caplog, fresh) if "take_bursts" in m]


def test_memory_does_not_grow_with_the_duration(g, monkeypatch):
    dispatch, seen = lane_block.dispatch, set()

    def spy(*args):
        out = dispatch(*args)
        arrays = [x for x in jax.tree.leaves((args, out)) if hasattr(x, "nbytes")]
        seen.add(sum(x.nbytes for x in arrays))
        return out

    monkeypatch.setattr(lane_block, "dispatch", spy)
    for duration in (20.0, 600.0):
        simulate(STG, g, duration)
    assert len(seen) == 1


@pytest.mark.parametrize("room", (1, 1000))
def test_what_does_not_fit_is_reported_and_never_silently_cut(g, run, room):
    tight = simulate(STG, g, 600.0, max_spikes=room)
    assert tight.spike_times.shape == (12, room)
    np.testing.assert_array_equal(tight.num_spikes, run.num_spikes)
    np.testing.assert_array_equal(tight.overflowed, run.num_spikes > room)
    assert tight.succeeded.all() and not run.overflowed.any()
    for cell in range(12):
        np.testing.assert_array_equal(
            spikes_of(tight, cell), spikes_of(run, cell)[:room]
        )


def test_lanes_are_refilled_without_mixing_up_members(g, monkeypatch):
    # Members that finish at different times, in far fewer lanes than members.
    many = np.tile(g, (9, 1))
    monkeypatch.setattr(scheduler, "CPU", {16: 4})
    packed = simulate(STG, many, 90.0)
    twelve = simulate(STG, g, 90.0)
    for cell in range(len(many)):
        np.testing.assert_array_equal(
            spikes_of(packed, cell), spikes_of(twelve, cell % 12)
        )


def test_progress_is_reported_up_to_the_total(g):
    calls = []
    simulate(STG, g, 3000.0, on_progress=lambda *call: calls.append(call))
    stages, done, total = zip(*calls, strict=True)
    assert {stage.name for stage in stages} == {"simulating"}
    assert set(total) == {done[-1]} and len(calls) > 1
    assert (np.diff(done) > 0).all()


def test_an_exception_from_the_listener_stops_the_simulation(g):
    calls = []

    def cancel(stage, done, total):
        calls.append(done)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        simulate(STG, g, 1500.0, on_progress=cancel)
    assert len(calls) == 1


def test_noise_of_equal_keys_gives_equal_spikes_and_of_others_other_spikes(g):
    fire = lambda seed: simulate(STG, g, 20.0, stimulus=NoisyCurrent(jr.key(seed), 5.0))
    first, again, other = fire(0), fire(0), fire(1)
    np.testing.assert_array_equal(first.spike_times, again.spike_times)
    assert not np.array_equal(first.spike_times, other.spike_times)
