"""Simulations by any diffrax solver: slow, and as accurate as wanted.

Spikes are found in potentials that are sampled every 0.05 ms or finer.
"""

import math

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dicjax._core import check_tolerance, Progress, Stage
from dicjax.neurons import member_axes, Neuron
from dicjax.simulation.lane_block import initial_conditions
from dicjax.simulation.problem import (
    assemble,
    Finished,
    is_kept,
    kept_spikes,
    num_ms,
    Part,
    Problem,
    saved_samples,
    SavedSamples,
    Solution,
)
from dicjax.simulation.solvers import Membrane
from dicjax.simulation.stimulus import cell_axes, for_members
from dicjax.spikes import list_spikes, mark_shortfalls


STRETCH = 50.0  # ms of simulated time between reports of progress
SAMPLED = 0.05  # ms, the longest time between samples
MOST_PER_MS = 1000  # steps that a tolerance may take


def solve(
    problem: Problem,
    solver: dfx.AbstractSolver,
    tolerance: float | None,
    on_progress: Progress | None,
) -> Solution:
    """Simulates all cells of a problem by `solver`.

    Steps are of the problem's `dt`, or as long as a relative tolerance of `tolerance`
    and an absolute one a hundred times smaller allow.
    """
    finer, every = 1, SAMPLED
    if problem.save_every is not None:
        finer = math.ceil(problem.save_every / SAMPLED - 1e-9)
        every = problem.save_every / finer
    ts, V = _potentials(problem, every, solver, tolerance, on_progress)
    cells, is_finite = np.arange(len(V)), np.isfinite(V)
    levels = problem.neuron.spike_levels
    if any(level.ndim for level in levels.values()):
        raise ValueError(
            "With a `solver`, all cells have one `V_spike` and one `V_rearm`: give one "
            "number for each, or simulate without a `solver`."
        )
    shortfalls = mark_shortfalls(jnp.asarray(V), every, **levels)
    short = np.asarray(shortfalls) & is_kept(problem, ts[1:])
    kept = np.asarray(saved_samples(problem), int)
    part = Part(
        spikes=kept_spikes(problem, *list_spikes(ts, V, **levels)),
        fell_short=np.flatnonzero(short.any(axis=1)),
        samples=SavedSamples(cells[:, None], np.arange(len(kept)), V[:, finer * kept]),
        finished=Finished(cells, np.all(is_finite, axis=1), np.zeros(len(V), bool)),
        num_ms=len(V) * num_ms(problem),
    )
    return assemble(problem, [part])


def _potentials(problem, every, solver, tolerance, on_progress):
    """Potentials (mV) of all cells every `every` ms from 0 on; nan after a failure."""
    g, stimulus = jnp.asarray(problem.g), problem.stimulus
    if stimulus is not None:
        stimulus = for_members(stimulus, jnp.arange(len(g)))
    initial = initial_conditions(problem, np.arange(len(g)))
    axes = (member_axes(problem.neuron), 0, 0)
    state = lambda neuron, V, Ca: neuron.initial_state(V, Ca)
    y = jax.vmap(state, axes)(problem.neuron, initial.V, initial.Ca)
    samples = math.ceil(problem.duration / every - 1e-9)
    per_stretch = max(1, min(samples, round(STRETCH / every)))
    dt, pieces = jnp.asarray(problem.dt, g.dtype), [np.asarray(y.V)[:, None]]
    max_steps = most_steps(every * per_stretch, problem.dt, tolerance)
    how = (solver, controller_of(tolerance), max_steps)
    for first in range(0, samples, per_stretch):
        # All stretches are equally long, so that one program serves them. The last may
        # go beyond the end.
        ts = jnp.asarray(every * np.arange(first, first + per_stretch + 1), g.dtype)
        y, V = _stretch(problem.neuron, y, g, stimulus, ts, dt, *how)
        pieces.append(np.asarray(V))
        if on_progress is not None:
            done = min(samples, first + per_stretch)
            on_progress(Stage("simulating"), len(g) * done, len(g) * samples)
    V = np.concatenate(pieces, axis=1)[:, : samples + 1]
    return every * np.arange(samples + 1), V


@eqx.filter_jit
def _stretch(neuron, y, g, stimulus, ts, dt, solver, controller, max_steps):
    """The states at the last of `ts`, and potentials at all but the first."""

    def one(neuron, y, g, stimulus):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(Membrane(neuron, stimulus)),  # pyright: ignore
            solver,
            ts[0],
            ts[-1],
            dt,
            y,
            args=g,
            stepsize_controller=controller,
            saveat=dfx.SaveAt(ts=ts[1:]),
            max_steps=max_steps,
            throw=False,
        )
        ys = solution.ys
        failed = solution.result != dfx.RESULTS.successful
        assert ys is not None  # sampled, hence saved
        V = jnp.where(failed, jnp.nan, ys.V)
        return jax.tree.map(lambda x: x[-1], ys), V

    axes = None if stimulus is None else cell_axes(stimulus)
    return jax.vmap(one, (member_axes(neuron), 0, 0, axes))(neuron, y, g, stimulus)


def controller_of(tolerance: float | None) -> dfx.AbstractStepSizeController:
    """Steps as long as a relative tolerance allows, or all equal."""
    if tolerance is None:
        return dfx.ConstantStepSize()
    return dfx.PIDController(rtol=tolerance, atol=tolerance / 100)


def most_steps(span: float, dt: float, tolerance: float | None) -> int:
    """Steps that are enough for `span` ms, so that nothing runs for ever."""
    # Late times are rounded, so that equal steps may be more than `span / dt`.
    per_ms = 2 / dt if tolerance is None else max(MOST_PER_MS, 2 / dt)
    return math.ceil(span * per_ms) + 16


def check_followed(neuron: Neuron, tolerance: float | None, dtype: DTypeLike) -> None:
    """Raises `ValueError` if no solver could follow `neuron` in numbers of `dtype`."""
    check_tolerance(tolerance, dtype)
    if not any(channel.num_states for channel in neuron.channels):
        # Loops of equinox take an empty tuple for another.
        raise ValueError(
            f"{neuron.name} has no gates, and diffrax cannot follow a state without "
            "any: leave `solver` out."
        )
