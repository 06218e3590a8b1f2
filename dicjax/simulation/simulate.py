"""Populations of neurons in time: spike times, and traces where wanted."""

from collections.abc import Callable
from typing import Literal, TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from dicjax._core import (
    check_concrete,
    check_conductances,
    check_resolved,
    check_simulation,
    check_start,
    check_stimulus,
    HasConductances,
    members_of,
)
from dicjax.neurons import Neuron
from dicjax.simulation.scheduler import Job
from dicjax.simulation.stimulus import AbstractStimulus, per_cell


if TYPE_CHECKING:
    import diffrax


class Run(eqx.Module):
    """What came of a simulation.

    - `spike_times`: in ms from its start, one row per cell, padded with inf.
    - `num_spikes`: how many of them are spikes.
    - `succeeded`: whether the cell stayed finite and no spike of it was lost.
    - `overflowed`: whether it fired more than `max_spikes`, or faster than the engine
        can tell spikes apart (over 1 kHz); later spikes are then missing.
    - `ts`, `V`: times (ms) and potentials (mV) where traces were asked for.
    """

    spike_times: Float[np.ndarray, "*cells spikes"]
    num_spikes: Int[np.ndarray, "*cells"]
    succeeded: Bool[np.ndarray, "*cells"]
    overflowed: Bool[np.ndarray, "*cells"]
    ts: Float[np.ndarray, " times"] | None = None
    V: Float[np.ndarray, "*cells times"] | None = None


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
    save: Literal["spikes", "traces"] = "spikes",
    save_every: float = 0.1,
    max_spikes: int | None = None,
    solver: "diffrax.AbstractSolver | None" = None,
    tolerance: float | None = 1e-6,
    on_progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Simulates every cell of a population.

    Cells share the biology of `neuron` and differ only in maximal conductance. Every
    cell takes steps of its own, short while its potential moves fast and long between
    spikes. Spikes are upward crossings of 10 mV confirmed by a fall below 0 mV, timed
    by linear interpolation within the step, so that memory holds spikes and nothing
    else. All cores, or all devices, take part.

    **Arguments:**

    - `neuron`: the model, e.g. [`dicjax.stg`][]`()`.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. Its dtype is that of the computation. Of a
        [`dicjax.Population`][], members that are not "ok" are left out.
    - `duration`: simulated time, in ms.
    - `discard`: spikes (and traces) before this time, in ms, are left out.
    - `dt`: the time step, in ms, while the potential moves at 16 mV/ms; steps are a
        quarter as long during spikes and up to eight times as long between them. Errors
        go with its square.
    - `stimulus`: an applied current, such as [`dicjax.Step`][]; none by default.
    - `V0`, `Ca0`: potential (mV) and calcium (µM) at which cells start, with their
        gates in equilibrium; one value for all or one for each. By default those of the
        model.
    - `save`: `"traces"` keeps the potential too, every `save_every` ms.
    - `max_spikes`: room for this many spikes per cell; by default for all.
    - `solver`: one of diffrax's, such as `diffrax.Tsit5()`, in place of our own. It is
        20 to 100 times slower, and memory grows with the duration.
    - `tolerance`: relative tolerance of `solver`; with `None` its steps are `dt`.
    - `on_progress`: called with (done, total) units of work; whatever it raises stops
        the simulation.

    **Returns:**

    A [`dicjax.Run`][].

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron` or has a negative or
        non-finite entry, if times, `V0` or `Ca0` do not make sense, if `dt` is too long
        for the model, or if the stimulus ends before the simulation or has values for
        other cells.
    """
    check_concrete(g)
    g = np.asarray(jnp.asarray(members_of(g)))
    if not np.issubdtype(g.dtype, np.floating):
        g = g.astype(jnp.zeros(()).dtype)
    check_conductances(neuron, g)
    check_simulation(duration, discard, dt, save, save_every, max_spikes)
    check_stimulus(stimulus, duration)
    check_resolved(neuron, dt)
    shape = g.shape[:-1]
    if stimulus is not None:
        stimulus = per_cell(stimulus, shape)
    every = save_every if save == "traces" else None
    flat = g.reshape(-1, g.shape[-1])
    V0 = np.asarray(neuron.initial_V if V0 is None else V0)
    Ca0 = np.asarray(neuron.initial_Ca if Ca0 is None else Ca0)
    check_start(V0, Ca0)
    starts = [np.broadcast_to(x, shape).reshape(-1) for x in (V0, Ca0)]
    job = Job(neuron, flat, duration, discard, dt, stimulus, every, max_spikes, *starts)
    if solver is None:
        job.run(on_progress)
    else:
        from dicjax.simulation.diffrax_backend import (
            solve,  # loads diffrax, which most never need
        )

        solve(job, solver, tolerance, on_progress)
    rows, num_spikes = job.spikes.rows, job.spikes.num
    return Run(
        spike_times=rows.reshape(*shape, -1),
        num_spikes=num_spikes.reshape(shape),
        succeeded=(job.finite & ~job.lost).reshape(shape),
        overflowed=(job.lost | (num_spikes > rows.shape[1])).reshape(shape),
        ts=job.ts,
        V=None if job.V is None else job.V.reshape(*shape, -1),
    )
