"""Simulates populations of neurons: spike times, and potentials where wanted."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from dicjax._core import (
    AnyArray,
    as_progress,
    check_resolved,
    check_simulation,
    check_start,
    check_stimulus,
    described,
    HasConductances,
    jax_conductances_of,
    members_of,
    on_host,
    OrNone,
    outcome,
    Progress,
    replaced_argument,
)
from dicjax.neurons import member_axes, Neuron
from dicjax.simulation import resident, scheduler
from dicjax.simulation.cells import in_a_row
from dicjax.simulation.problem import Problem, saved_samples
from dicjax.simulation.stimulus import AbstractStimulus, as_stimulus


if TYPE_CHECKING:
    import diffrax


class Run(eqx.Module):
    """The result of a simulation.

    Arrays are on the host, or on a device if the conductances were.

    - `spike_times`: in ms from the start of the simulation, one row per cell, padded
        with inf.
    - `num_spikes`: how many spikes each cell fired.
    - `succeeded`: whether the potential stayed finite and no spike was lost.
    - `overflowed`: whether spikes are missing: the cell fired more than `max_spikes`,
        or faster than the simulation can separate spikes (over 1 kHz).
    - `fell_short`: whether the potential rose like a spike, at more than 10 mV/ms
        through -30 mV, and fell below that again without reaching the neuron's
        `V_spike`. If that is how the neuron spikes, give it a lower `V_spike`. Where
        `V_rearm` is below -30 mV, it takes the place of -30 mV.
    - `ts`, `V`: saved times (ms) and potentials (mV); None without `save_every`.
    """

    spike_times: Float[AnyArray, "*cells spikes"]
    num_spikes: Int[AnyArray, "*cells"]
    succeeded: Bool[AnyArray, "*cells"]
    overflowed: Bool[AnyArray, "*cells"]
    fell_short: Bool[AnyArray, "*cells"]
    ts: Float[AnyArray, " times"] | OrNone = None
    V: Float[AnyArray, "*cells times"] | OrNone = None

    def __repr__(self) -> str:
        return described(self, lambda: outcome(self))


@replaced_argument("save", "save_every", {"spikes": None, "traces": 0.1})
@on_host(
    "pass all cells as leading axes of `g`, call it outside of them, and where JAX "
    "should trace or differentiate use `dicjax.solve`"
)
def simulate(
    neuron: Neuron,
    g: Float[ArrayLike, "*#cells channels"] | HasConductances,
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

    Cells may differ in maximal conductance, in any number of `neuron`, in the stimulus
    and in the start, which are broadcast against one another. Every cell takes its own
    time steps: short ones while its potential moves fast, long ones between spikes. A
    spike is an upward crossing of the neuron's `V_spike`, by default 10 mV, that a
    later fall below its `V_rearm`, by default 0 mV, confirms. Its time is interpolated
    linearly within the step. Spikes are found while the cells are integrated, so that
    memory holds spikes and nothing else. All cores, or all devices, take part.

    **Arguments:**

    - `neuron`: the model, e.g. [`dicjax.stg`][]`()`. Each of its numbers may be an
        array with the axes of cells in front.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. Its dtype is that of the computation. Of a
        [`dicjax.Population`][], members that are not "ok" are left out. The result is
        on a device if `g` is an array of JAX.
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
    - `tolerance`: relative tolerance of `solver`; None makes its steps `dt` long. A
        cell that takes more than 1,000 steps per ms has not succeeded.
    - `on_progress`: called with (stage, done, total), in units of work. An exception
        that it raises stops the simulation.

    **Returns:**

    A [`dicjax.Run`][].

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron`, or has a negative or
        non-finite entry; if times, `V0` or `Ca0` are impossible; if `dt` is too long
        for the model; if the stimulus ends before the simulation; or if conductances,
        numbers of the neuron, stimulus and start are for other numbers of cells; or if
        the precision of `g` cannot reach `tolerance`.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    given = members_of(g)
    g = np.asarray(jax_conductances_of(neuron, given))
    check_simulation(duration, discard, dt, save_every, max_spikes)
    stimulus = as_stimulus(stimulus)
    check_stimulus(stimulus, duration)
    V0 = np.asarray(neuron.initial_V if V0 is None else V0)
    Ca0 = np.asarray(neuron.initial_Ca if Ca0 is None else Ca0)
    check_start(V0, Ca0)
    cells = in_a_row(neuron, g, stimulus, V0=V0, Ca0=Ca0)
    check_resolved(cells.neuron, dt, member_axes(cells.neuron))
    in_row = lambda x: np.broadcast_to(x, cells.shape).reshape(-1).astype(g.dtype)
    problem = Problem(
        neuron=cells.neuron,
        g=np.asarray(cells.g),
        V0=in_row(V0),
        Ca0=in_row(Ca0),
        duration=duration,
        discard=discard,
        dt=dt,
        stimulus=cells.stimulus,
        save_every=save_every,
        max_spikes=max_spikes,
    )
    on_progress = as_progress(on_progress)
    if solver is not None:
        # Loads diffrax, which most never need.
        from dicjax.simulation import diffrax_backend

        diffrax_backend.check_followed(neuron, tolerance, g.dtype)
        solution = diffrax_backend.solve(problem, solver, tolerance, on_progress)
    else:
        backend = resident if resident.suits(problem) else scheduler
        solution = backend.solve(problem, on_progress)
    room, ts = solution.spike_times.shape[1], None
    if solution.V is not None:
        ts = problem.save_every * np.asarray(saved_samples(problem), int)
    run = Run(
        spike_times=solution.spike_times,
        num_spikes=solution.num_spikes,
        succeeded=solution.is_finite & ~solution.has_lost,
        overflowed=solution.has_lost | (solution.num_spikes > room),
        fell_short=solution.fell_short,
        V=solution.V,
    )
    run = jax.tree.map(lambda x: x.reshape(cells.shape + x.shape[1:]), run)
    # What came from a device goes back there.
    numpy = jnp if isinstance(given, jax.Array) else np
    return jax.tree.map(numpy.asarray, dataclasses.replace(run, ts=ts))
