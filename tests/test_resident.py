"""Populations that stay on a device fire as those that the host looks after."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_kernel import conductances

import dicjax as dj
from dicjax.simulation import resident, scheduler
from dicjax.simulation.cells import in_a_row
from dicjax.simulation.gpu_kernel import dispatch_fused
from dicjax.simulation.problem import Problem


STG = dj.stg()
NUM = 40


def problem(dtype="float32", stimulus=None, duration=300.0, **changes):
    g = conductances("stg", NUM).astype(dtype)
    cells = in_a_row(STG, g, stimulus)
    start = np.full(NUM, -60.0, dtype), np.full(NUM, 0.05, dtype)
    made = Problem(
        cells.neuron, g, *start, duration, 20.3, 0.05, cells.stimulus, None, None
    )
    return made._replace(**changes)


def assert_equal(one, other):
    for a, b in zip(one[:5], other[:5], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def looked_after():
    return scheduler.solve(problem(), None)


@pytest.fixture(autouse=True)
def lanes_for_fewer_cells(monkeypatch):
    monkeypatch.setattr(scheduler, "CPU", {16: 8})


def test_the_spikes_are_those_that_the_host_collects(looked_after):
    assert looked_after.num_spikes.max() > 5
    done = []
    found = resident.solve(problem(), lambda stage, *x: done.append(x))
    assert isinstance(found.spike_times, jax.Array)
    assert_equal(found, looked_after)
    assert done == sorted(done) and done[-1] == (NUM * 300, NUM * 300)


def test_a_population_in_chunks_is_the_whole(looked_after, monkeypatch):
    monkeypatch.setattr(resident, "LARGEST_CHUNK", 17)
    assert_equal(resident.solve(problem(), None), looked_after)


def test_room_grows_as_cells_fire(looked_after, monkeypatch):
    monkeypatch.setattr(resident, "ROOM", 2)
    found = resident.solve(problem(), None)
    width = found.spike_times.shape[1]
    np.testing.assert_array_equal(
        found.spike_times, looked_after.spike_times[:, :width]
    )
    assert width >= looked_after.num_spikes.max()


def test_spikes_without_room_are_counted(looked_after):
    found = resident.solve(problem(max_spikes=3), None)
    np.testing.assert_array_equal(found.num_spikes, looked_after.num_spikes)
    np.testing.assert_array_equal(found.spike_times, looked_after.spike_times[:, :3])


def test_noise_and_steps_are_those_of_each_cell():
    noisy = dj.NoisyCurrent(jr.key(1), 2.0) + dj.Step(np.linspace(0, 5, NUM), 10.0)
    case = problem("float64", noisy, duration=100.0)
    assert_equal(resident.solve(case, None), scheduler.solve(case, None))


def test_a_cell_that_diverges_is_done():
    g = conductances("stg", NUM).astype("float32")
    g[3] = np.nan
    case = problem(g=g, duration=60.0)
    found = resident.solve(case, None)
    assert not found.is_finite[3] and found.is_finite.sum() == NUM - 1
    assert_equal(found, scheduler.solve(case, None))


def test_errors_and_interruptions_of_the_one_who_waits_end_the_work():
    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resident.solve(problem(duration=5000.0), stop)


@pytest.mark.slow
def test_the_kernel_of_gpus_keeps_cells_on_the_device_too(looked_after, monkeypatch):
    monkeypatch.setattr(scheduler, "CPU", {128: 8})
    fused = lambda *args: dispatch_fused(*args, interpret=True)
    monkeypatch.setattr(resident, "bursts_for", lambda *_: fused)
    found = resident.solve(problem(), None)
    np.testing.assert_allclose(found.num_spikes, looked_after.num_spikes, atol=1)


def test_what_comes_from_a_device_goes_back_there():
    g = conductances("hodgkin-huxley", 3)
    on_host, on_device = (
        dj.simulate(dj.hodgkin_huxley(), x, 20.0) for x in (g, jnp.asarray(g))
    )
    assert isinstance(on_host.spike_times, np.ndarray)
    for x in jax.tree.leaves(on_device):
        assert isinstance(x, jax.Array)
    np.testing.assert_array_equal(on_host.spike_times, on_device.spike_times)
