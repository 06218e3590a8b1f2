"""Simulates populations of neurons: spike times, and potentials where wanted."""

from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from dicjax._core import (
    as_progress,
    cast_floats,
    check_resolved,
    check_simulation,
    check_start,
    check_stimulus,
    HasConductances,
    jax_conductances_of,
    on_host,
    Progress,
    replaced_argument,
)
from dicjax.neurons import Neuron
from dicjax.simulation import scheduler
from dicjax.simulation.problem import Problem, saved_samples
from dicjax.simulation.stimulus import AbstractStimulus, as_stimulus, per_cell


if TYPE_CHECKING:
    import diffrax


class Run(eqx.Module):
    """The result of a simulation.

    - `spike_times`: in ms from the start of the simulation, one row per cell, padded
        with inf.
    - `num_spikes`: how many spikes each cell fired.
    - `succeeded`: whether the potential stayed finite and no spike was lost.
    - `overflowed`: whether spikes are missing: the cell fired more than `max_spikes`,
        or faster than the simulation can separate spikes (over 1 kHz).
    - `ts`, `V`: saved times (ms) and potentials (mV); None without `save_every`.
    """

    spike_times: Float[np.ndarray, "*cells spikes"]
    num_spikes: Int[np.ndarray, "*cells"]
    succeeded: Bool[np.ndarray, "*cells"]
    overflowed: Bool[np.ndarray, "*cells"]
    ts: Float[np.ndarray, " times"] | None = None
    V: Float[np.ndarray, "*cells times"] | None = None


@replaced_argument("save", "save_every", {"spikes": None, "traces": 0.1})
@on_host(
    "pass all cells as leading axes of `g`, call it outside of them, and where JAX "
    "should trace or differentiate use `dicjax.solve`"
)
def simulate(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    duration: float,
    *,
    discard: float = 0.0,
    dt: float = 0.05,
    stimulus: AbstractStimulus | None = None,
    V0: Float[ArrayLike, "*#cells"] | None = None,
    Ca0: Float[ArrayLike, "*#cells"] | None = None,
    save_every: float | None = None,
    max_spikes: int | None = None,
    solver: "diffrax.AbstractSolver | None" = None,
    tolerance: float | None = 1e-6,
    on_progress: Progress | None = None,
) -> Run:
    """Simulates every cell of a population.

    Cells share the biology of `neuron` and differ only in maximal conductance. Every
    cell takes its own time steps: short ones while its potential moves fast, long ones
    between spikes. A spike is an upward crossing of 10 mV that a later fall below 0 mV
    confirms. Its time is interpolated linearly within the step. Spikes are found while
    the cells are integrated, so that memory holds spikes and nothing else. All cores,
    or all devices, take part.

    **Arguments:**

    - `neuron`: the model, e.g. [`dicjax.stg`][]`()`.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. Its dtype is that of the computation. Of a
        [`dicjax.Population`][], members that are not "ok" are left out.
    - `duration`: simulated time, in ms.
    - `discard`: the result leaves out spikes and potentials before this time, in ms.
    - `dt`: the time step, in ms, while the potential moves at 16 mV/ms. Steps are down
        to a quarter as long during spikes and up to eight times as long between them.
        Errors are proportional to the square of `dt`.
    - `stimulus`: an applied current, such as [`dicjax.Step`][]; none by default.
    - `V0`, `Ca0`: initial potential (mV) and calcium (µM), one value for all cells or
        one for each; by default the model's. Gates start in equilibrium.
    - `save_every`: keeps the potential too, every so many ms; by default only spikes.
    - `max_spikes`: how many spikes per cell the result has room for; by default all.
    - `solver`: a diffrax solver, such as `diffrax.Tsit5()`, in place of our own. It is
        20 to 100 times slower, and its memory grows with the duration.
    - `tolerance`: relative tolerance of `solver`; None makes its steps `dt` long.
    - `on_progress`: called with (stage, done, total), in units of work. An exception
        that it raises stops the simulation.

    **Returns:**

    A [`dicjax.Run`][].

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron`, or has a negative or
        non-finite entry; if times, `V0` or `Ca0` are impossible; if `dt` is too long
        for the model; or if the stimulus ends before the simulation, or has values for
        another number of cells.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    g = np.asarray(jax_conductances_of(neuron, g))
    check_simulation(duration, discard, dt, save_every, max_spikes)
    stimulus = as_stimulus(stimulus)
    check_stimulus(stimulus, duration)
    check_resolved(neuron, dt)
    shape = g.shape[:-1]
    if stimulus is not None:
        stimulus = per_cell(stimulus, shape)
    V0 = np.asarray(neuron.initial_V if V0 is None else V0)
    Ca0 = np.asarray(neuron.initial_Ca if Ca0 is None else Ca0)
    check_start(V0, Ca0)
    problem = Problem(
        neuron=neuron.with_dtype(g.dtype),
        g=g.reshape(-1, g.shape[-1]),
        V0=np.broadcast_to(V0, shape).reshape(-1).astype(g.dtype),
        Ca0=np.broadcast_to(Ca0, shape).reshape(-1).astype(g.dtype),
        duration=duration,
        discard=discard,
        dt=dt,
        stimulus=cast_floats(stimulus, g.dtype),
        save_every=save_every,
        max_spikes=max_spikes,
    )
    on_progress = as_progress(on_progress)
    if solver is None:
        solution = scheduler.solve(problem, on_progress)
    else:
        # Loads diffrax, which most never need.
        from dicjax.simulation import diffrax_backend

        solution = diffrax_backend.solve(problem, solver, tolerance, on_progress)
    num_spikes, room = solution.num_spikes, solution.spike_times.shape[1]
    ts = V = None
    if solution.V is not None:
        ts = problem.save_every * np.asarray(saved_samples(problem), int)
        V = solution.V.reshape(*shape, -1)
    return Run(
        spike_times=solution.spike_times.reshape(*shape, -1),
        num_spikes=num_spikes.reshape(shape),
        succeeded=(solution.is_finite & ~solution.has_lost).reshape(shape),
        overflowed=(solution.has_lost | (num_spikes > room)).reshape(shape),
        ts=ts,
        V=V,
    )
