"""Trajectories as pure functions, which JAX compiles, vectorises and differentiates.

The steps are those of populations: a cell takes bursts of steps until it has passed the
last time that is asked for. What it did after every step is kept, and interpolated.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TYPE_CHECKING

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Real

from dicjax._core import (
    cast_floats,
    check_dt,
    check_resolved,
    check_start,
    check_stimulus,
    check_times,
    HasConductances,
    is_traced,
    jax_conductances_of,
    untraced,
    varying_with,
)
from dicjax.neurons import member_axes, Neuron, State
from dicjax.simulation.cells import in_a_row
from dicjax.simulation.integrator import FINEST, relax_gates
from dicjax.simulation.lanes import (
    BURST,
    burst,
    Lanes,
    lanes_at,
    step_sizes_of,
    StepSizes,
)
from dicjax.simulation.stimulus import (
    AbstractStimulus,
    as_stimulus,
    cell_axes,
    for_members,
)
from dicjax.simulation.trajectories.trajectory import (
    after,
    fields_of,
    Followed,
    Kept,
    Moment,
    moments,
    SavedState,
    Trajectory,
)


if TYPE_CHECKING:
    import diffrax

AT_ONCE = 4  # bursts whose steps are kept together for derivatives


class Steps(NamedTuple):
    """What was recorded after every step; the first is where the cell started.

    - `whole`, `t`: its time is `whole + t` ms, infinite for a step not taken.
    - `V`: potentials; `others`: gates and calcium, if they are kept.
    """

    whole: Int[Array, " steps"]
    t: Float[Array, " steps"]
    V: Float[Array, " steps"]
    others: PyTree


@untraced(
    "dt",
    "is_adaptive",
    "max_steps",
    "max_spikes",
    "states",
    "currents",
    "solver",
    "tolerance",
    "adjoint",
)
def solve(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    ts: Real[ArrayLike, " times"],
    *,
    stimulus: AbstractStimulus | Callable | None = None,
    start: State | SavedState | None = None,
    dt: float = 0.05,
    is_adaptive: bool = True,
    max_steps: int | None = None,
    max_spikes: int = 64,
    states: bool = False,
    currents: bool = False,
    solver: "diffrax.AbstractSolver | None" = None,
    tolerance: float | None = 1e-6,
    adjoint: "diffrax.AbstractAdjoint | None" = None,
) -> Trajectory:
    """Integrates cells as a pure function, under any transformation of JAX.

    It may be compiled (`jax.jit`), vectorised (`jax.vmap`) and differentiated in
    forward and reverse mode: with respect to conductances, every number of the neuron,
    of the stimulus, and of the start. It takes the steps of [`dicjax.simulate`][],
    which needs no room for them and is for populations of any size.

    **Arguments:**

    - `neuron`: the model; its numbers are data, so that neurons that differ in numbers
        alone share a compiled program. Each may be an array with the axes of cells in
        front.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. Its dtype is that of the computation.
    - `ts`: the times of the result, in ms, in rising order from 0 on. Values between
        steps are those of a smooth cubic, so that derivatives are smooth too.
    - `stimulus`: an applied current, such as [`dicjax.Step`][], or a function of time
        (ms) and [`dicjax.State`][] that gives µA/cm². Time steps do not know how fast
        a function changes: give a short enough `dt`.
    - `start`: a state at time zero, such as `neuron.initial_state(-60.0)`, or the
        `final` of an earlier trajectory, from which time goes on.
    - `dt`: the time step, in ms, while the potential moves at 16 mV/ms; `is_adaptive`
        lets it change as in [`dicjax.simulate`][]. Otherwise every step is `dt`.
    - `max_steps`: the most steps per cell. Memory for steps is taken for all of them.
        By default there are enough for any firing. It must be given where `ts` is
        traced.
    - `max_spikes`: how many spike times there is room for.
    - `states`, `currents`: whether to keep gates and calcium, and currents.
    - `solver`: a diffrax solver, such as `diffrax.Tsit5()`, in place of our own:
        slower, and as accurate as wanted. `dt` is its first step, and `ts` must have
        values. Spikes are looked for every 0.05 ms. It goes on from the `final` of a
        solver alone.
    - `tolerance`: relative tolerance of `solver`; None makes its steps `dt` long.
    - `adjoint`: how diffrax differentiates: by default in reverse mode, and by
        `diffrax.ForwardMode()` in forward mode.

    **Returns:**

    A [`dicjax.Trajectory`][]. Spike times are differentiable: a spike is where the
    line between two steps, or samples, crosses the neuron's `V_spike`.

    **Raises:**

    - `ValueError`: if shapes do not match, times do not rise, `dt` is too long for the
        model, the stimulus ends before the last time, or the precision of `g` cannot
        reach `tolerance`.
    - `TypeError`: if `ts` is traced and `max_steps` is not given, or there is a
        `solver`; or if any of `dt` and the arguments after it is traced.
    """
    g = jax_conductances_of(neuron, g)
    end = _last_time(ts, max_steps, solver)
    stimulus = as_stimulus(stimulus)
    if stimulus is not None and end is not None:
        check_stimulus(stimulus, end)
    begun = start.lanes.y if isinstance(start, SavedState) else start
    starts = {} if begun is None else {"start": begun.V}
    shape, neuron, g, stimulus = in_a_row(neuron, g, stimulus, **starts)
    _check_steps(neuron, dt, max_steps, max_spikes)
    sizes = step_sizes_of(dt, stimulus, g.dtype, is_adaptive)
    begin = _begin(neuron, start, shape, sizes)
    kept = Kept(max_spikes, states or currents, currents)
    if solver is not None:
        # Loads diffrax, which most never need.
        from dicjax.simulation.diffrax_backend import check_followed
        from dicjax.simulation.trajectories.by_diffrax import following

        check_followed(neuron, tolerance, g.dtype)
        _check_from_a_solver(start)
        assert end is not None  # or `_last_time` has raised
        span = end - _earliest(begin.until)
        follow = following(solver, tolerance, adjoint, dt, span, max_steps, kept.states)
    else:
        if max_steps is None:
            assert end is not None  # or `_last_time` has raised
            longest = math.inf if stimulus is None else stimulus.longest_step
            max_steps = _room(end - _earliest(begin.until), dt, longest, is_adaptive)
        num_blocks = math.ceil(max_steps / (AT_ONCE * BURST))
        follow = Stepping(sizes, num_blocks, kept.states)
    found = _solve(neuron, g, stimulus, begin, moments(ts, g.dtype), follow, kept)
    found = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)
    return Trajectory(jnp.asarray(ts), **found)


@eqx.filter_jit
def _solve(neuron, g, stimulus, start, ts, follow, kept):
    """The fields of the trajectories of all cells, but for their times."""
    if stimulus is not None:
        stimulus = for_members(stimulus, jnp.arange(len(g)))
    axes = None if stimulus is None else cell_axes(stimulus)

    def one(neuron, g, stimulus, start):
        start = varying_with(start, neuron, g, stimulus, start, ts)
        return fields_of(neuron, g, follow(neuron, g, stimulus, start, ts), ts, kept)

    axes = (member_axes(neuron), 0, axes, 0)
    return jax.vmap(one, axes)(neuron, g, stimulus, start)


class Stepping(eqx.Module):
    """Follows cells in the steps of populations."""

    sizes: StepSizes
    num_blocks: int = eqx.field(static=True)
    keeps_states: bool = eqx.field(static=True)

    def __call__(self, neuron, g, stimulus, start, ts) -> Followed:
        """One cell from `start` to the last of `ts`."""
        # Separate conductances vectorise over cells like the state.
        steps, spikes, lane, last = _integrate(
            neuron, tuple(g), stimulus, start.lanes, ts[-1], self
        )
        V, others = jax.vmap(_at, (None, 0))(steps, ts)
        # Bursts that are taken once more may have spikes that have been told.
        is_new = jnp.arange(spikes.rest.size, dtype=jnp.int32) >= start.num_bursts
        is_new |= jax.vmap(after, (0, None))(spikes, start.until) > 0
        num_steps = jnp.sum(jnp.isfinite(steps.t), dtype=jnp.int32) - 1
        return Followed(
            V=V,
            others=others,
            spikes=spikes,
            is_new=is_new,
            num_steps=num_steps,
            is_done=_has_passed(lane, ts[-1]) & jnp.isfinite(lane.y.V),
            has_lost=lane.lost,
            final=SavedState(last, ts[-1], jnp.minimum(num_steps // BURST, 2)),
        )


def _integrate(neuron, g, stimulus, lane, end, stepping: Stepping):
    """Takes bursts of steps until the time is past `end`.

    Returns what was recorded; the moments of spikes, infinite where a burst has none,
    and minus infinite where it has a shortfall; the lane after the last burst, and
    before the last two.
    """

    def record(lane: Lanes) -> tuple:
        if not stepping.keeps_states:
            return lane.t, lane.y.V, None
        # Gates are half a step behind.
        y = relax_gates(neuron, lane.y, lane.h / 2)
        return lane.t, y.V, (y.gates, y.Ca)

    def advance(carry, _):
        lane, last, _ = carry
        going = ~_has_passed(lane, end)
        new, spike, (t, V, others) = burst(
            neuron, lane, g, stimulus, stepping.sizes, record=record
        )
        either = lambda new, old: jnp.where(going, new, old)
        carry = jax.tree.map(either, (new, lane, last), carry)
        row = either(t, jnp.inf), V, others, lane.whole, either(spike, jnp.inf)
        return carry, row

    def take(carry):
        return jax.lax.scan(advance, carry, length=AT_ONCE)

    def skip(carry):
        fill = lambda x: jnp.zeros((AT_ONCE, BURST), x.dtype)
        t, V, others = jax.tree.map(fill, first)
        whole, spike = (
            jnp.zeros(AT_ONCE, jnp.int32),
            jnp.full(AT_ONCE, jnp.inf, V.dtype),
        )
        nothing = (t + jnp.inf, V, others, whole, spike)
        return carry, varying_with(nothing, lane)

    first = record(lane)

    # Derivatives keep the state between blocks, and take the steps within once more.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(carry, _):
        going = ~_has_passed(carry[0], end)
        # The same decision for all cells that are vectorised, or both sides would run.
        return jax.lax.cond(eqxi.unvmap_any(going), take, skip, carry)

    (new, _, last), rows = jax.lax.scan(block, (lane,) * 3, length=stepping.num_blocks)
    t, V, others, whole, spike = rows
    whole, spike = whole.reshape(-1), spike.reshape(-1)
    join = lambda x, more: jnp.concatenate((x[None], more.reshape(-1)))
    every = jnp.repeat(whole, BURST, total_repeat_length=t.size)
    steps = Steps(join(lane.whole, every), *jax.tree.map(join, first, (t, V, others)))
    return steps, Moment(whole, spike), new, last


def _at(steps: Steps, time: Moment) -> tuple:
    """Potential, and others, at one time; nan at a time that no step is around."""
    last = steps.t.size - 1
    offset = lambda i: after(Moment(steps.whole[i], steps.t[i]), time)

    def halve(_, ends):
        low, high = ends
        middle = (low + high + 1) // 2
        is_before = offset(middle) <= 0
        return jnp.where(is_before, middle, low), jnp.where(is_before, high, middle - 1)

    ends = varying_with((jnp.int32(0), jnp.int32(last)), steps.V, time)
    before, _ = jax.lax.fori_loop(0, last.bit_length(), halve, ends)
    # The step around the time, and the one before it and after it.
    i = jnp.clip(before + jnp.arange(-1, 3, dtype=jnp.int32), 0, last)
    t = jax.vmap(offset)(i)
    is_known = (t[1] <= 0) & (t[2] >= 0) & jnp.isfinite(t[2])
    is_step = (t[1:] > t[:-1]) & jnp.isfinite(t[1:])
    h = jnp.where(is_step, t[1:] - jnp.where(is_step, t[:-1], 0), 1)
    part = jnp.where(is_known, -t[1], 0) / h[1]

    def interpolate(x):
        """The cubic that has the slopes of parabolas through three steps each."""
        x = x[i]
        slope = (x[1:] - x[:-1]) / h
        slope = jnp.where(is_step, slope, slope[1])
        left, right = (
            (slope[k] * h[k + 1] + slope[k + 1] * h[k]) / (h[k] + h[k + 1])
            for k in (0, 1)
        )
        straight = x[1] + part * (x[2] - x[1])
        off = (part - 1) * (left - slope[1]) + part * (right - slope[1])
        cubic = straight + part * (part - 1) * h[1] * off
        return jnp.where(is_known, cubic, jnp.nan)

    return interpolate(steps.V), jax.tree.map(interpolate, steps.others)


def _has_passed(lane: Lanes, end: Moment) -> Bool[Array, ""]:
    """Whether the cell is a step past `end`, or never will be."""
    before = Moment(lane.whole, lane.t - lane.h)
    return (after(before, end) > 0) | ~jnp.isfinite(lane.y.V)


def _begin(neuron, start, shape, sizes) -> SavedState:
    """Where cells in a row start, at time zero unless they go on."""
    in_row = lambda x: jnp.broadcast_to(x, shape).reshape(-1)
    if isinstance(start, SavedState):
        return jax.tree.map(in_row, start)
    dtype, num = sizes.dt.dtype, math.prod(shape)
    if start is None:
        axes = member_axes(neuron)
        state = jax.vmap(lambda n, _: n.initial_state(), (axes, 0))
        y = state(neuron, jnp.zeros(num))
    else:
        y = cast_floats(start, dtype)
        _check_state(neuron, y, shape)
        y = jax.tree.map(in_row, y)
    # Gates are at time zero too, so that their first step is half as long.
    lanes = lanes_at(y, (num,), sizes, jnp.zeros((), dtype))
    return SavedState(lanes, Moment(lanes.whole, lanes.t), lanes.whole)


def _room(span: float, dt: float, longest: float, is_adaptive: bool) -> int:
    """Steps that are enough for `span` ms."""
    per_ms = 1 / min(dt, longest)
    if is_adaptive:
        per_ms = max(FINEST / dt, 1 / longest)  # as if a spike never ended
    # Two bursts more: the one that goes beyond, and the one that is repeated.
    return math.ceil(span * per_ms) + 2 * BURST


def _last_time(ts: Any, max_steps: int | None, solver: Any) -> float | None:
    """The last of `ts`, in ms; None if they are traced. Raises if they do not rise."""
    end = check_times(ts)
    if end is None and solver is not None:
        raise TypeError("With a `solver`, `ts` must have values, but they are traced.")
    if end is None and max_steps is None:
        raise TypeError(
            "`ts` is traced, so that `solve` cannot know how many steps there will be: "
            "give `max_steps`, or times with values."
        )
    return end


def _earliest(since: Moment) -> float:
    """The time in ms from which on steps are needed, or one before it."""
    if is_traced(since):
        return 0.0
    return max(0.0, float(np.min(np.asarray(since.whole))))


def _check_steps(neuron, dt: float, max_steps: int | None, max_spikes: int) -> None:
    check_dt(dt)
    if not is_traced(neuron):
        check_resolved(neuron, dt, member_axes(neuron))
    for name, num in (("max_steps", max_steps), ("max_spikes", max_spikes)):
        if num is not None and num < 1:
            raise ValueError(f"`{name}` must be at least 1, got {num}.")


def _check_from_a_solver(start: Any) -> None:
    if not isinstance(start, SavedState) or is_traced(start.num_bursts):
        return
    if np.any(np.asarray(start.num_bursts)):
        raise ValueError(
            "With a `solver`, `start` must be a state, or the `final` of a trajectory "
            "that was made with one."
        )


def _check_state(neuron, y: State, shape: tuple[int, ...]) -> None:
    num_gates = sum(channel.num_states for channel in neuron.channels)
    if len(y.gates) != num_gates:
        raise ValueError(
            f"`start` has {len(y.gates)} gates, but {neuron.name} has {num_gates}."
        )
    for leaf in jax.tree.leaves(y):
        if leaf.shape not in ((), y.V.shape, shape):
            raise ValueError(
                f"`start` holds potentials of shape {y.V.shape}, but gates or calcium "
                f"of shape {leaf.shape}."
            )
    if not is_traced(y):
        check_start(np.asarray(y.V), np.asarray(y.Ca))
