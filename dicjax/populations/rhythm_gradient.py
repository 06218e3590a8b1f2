r"""Exact derivatives of a firing rhythm, from one cycle of it.

Derivatives through many spikes of a simulation grow without bound where a neuron is
slightly irregular. They are useless then. A rhythm, however, is a cycle. Let $z$ be the
state where the potential crosses `V_spike` at the onset of a cycle. The cycle maps this
state to itself, $z = P(z, \theta)$. Forward derivatives of one cycle, whose length
follows from the times of spikes, stay small. The implicit function theorem turns them
into derivatives of the rhythm,

$\frac{dz}{d\theta} = (1 - P_z)^{-1} P_\theta$,
$\frac{dT}{d\theta} = T_\theta + T_z \frac{dz}{d\theta}$,

which are the limit of infinitely many cycles. Here $\theta$ are logarithms of maximal
conductances, and other numbers of the cell. The state moves to that limit by Newton's
method, since transients may not be over. Slopes of two cycles, one in finer steps than
the other, have to agree: where a cycle amplifies errors, they do not, and are not
trusted.

The number of spikes in a cycle has no derivative. Its dependence on conductances has to
be estimated from models with different numbers of spikes.
"""

import dataclasses
import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from dicjax._core import AnyArray, in_batches, solve, varying_with
from dicjax.neurons import Neuron, State
from dicjax.populations.limit_cycle import at_crossing, Flow, simulate_cycle
from dicjax.simulation import (
    Cell,
    detect_spike,
    log_conductances,
    LONGEST,
    next_step,
    Numbers,
    relax_gates,
    relax_membrane,
)
from dicjax.spikes import burst_gap, BURSTING, crossing_part, Features


BATCHES = (16, 64, 256)  # numbers of cells that are compiled for
CLOSED = 0.02  # how far a cycle's end may be from its start, relative to its size
STEEPEST = 30.0  # slope by ln g; if one is steeper, the cycle is no stable rhythm
AGREEMENT = 0.1  # by how much two cycles may disagree, relative to the largest slope
LEAST_SLOPE = 0.05  # that a largest slope counts as, at least
SCALE, SCALE_V = 0.01, 10.0  # which errors of gates and calcium, and mV, count beside
MAX_SPIKES = 512  # that show a rhythm
FURTHEST = 0.2  # that Newton's method may move a state, relative to its size
TOLERANCES = (1e-2, 1e-3, 2e-4)  # of steps, in a cycle for each
DOUBLINGS = 10  # of cycles, after which a stable one has forgotten where it started


class Cycle(eqx.Module):
    """The cycles of cells, and their derivatives by numbers of these.

    - `times`: the length of the cycle and the mean interval within it, in ms. In a
        cycle of one spike, both are the interval between spikes.
    - `slopes`: derivatives of the logarithms of `times` by logarithms of conductances,
        and by other numbers after them, per unit of each.
    - `disagreement`: the largest difference from the slopes of a cycle in longer steps,
        relative to the largest slope of the same time, or to 0.05 if that is more.
        Slopes by other numbers are compared for their own size: per 100 %.
    - `is_closed`: whether this is a stable cycle.
    - `is_trusted`: whether it is, and two cycles agree within 10 %; otherwise the
        slopes mean nothing.
    """

    times: Float[AnyArray, "*cells 2"]
    slopes: Float[AnyArray, "*cells 2 numbers"]
    disagreement: Float[AnyArray, "*cells"]
    is_closed: Bool[AnyArray, "*cells"]
    is_trusted: Bool[AnyArray, "*cells"]


class Linear(NamedTuple):
    """A limit cycle to first order: where it begins, and its derivatives there.

    - `z`: the state at its onset.
    - `P_z`, `T_z`: derivatives of the state and the times after one cycle by `z`.
    """

    z: Float[Array, " state"]
    P_z: Float[Array, "state state"]
    T_z: Float[Array, "times state"]


class ObservedRhythm(eqx.Module):
    """A rhythm as spikes show it.

    - `num_spikes`: in a cycle; `period`: its length, in ms.
    - `onset_isi`: a cycle begins after an interval of at least so many ms.
    """

    num_spikes: Int[Array | np.ndarray, "*cells"]
    period: Float[Array | np.ndarray, "*cells"]
    onset_isi: Float[Array | np.ndarray, "*cells"]


class _Running(eqx.Module):
    """The state of a cell and its latest spikes, in a running simulation."""

    y: State
    t: Float[Array, ""]
    h: Float[Array, ""]
    pending: Float[Array, ""]  # ms, as `detect_spike` leaves it
    at: State  # at the latest spike
    spike: Float[Array, ""]  # ms, the time of the latest spike
    before: Float[Array, ""]  # ms, the time of the spike before
    count: Int[Array, ""]


def cycles(
    cell: Cell,
    rhythm: ObservedRhythm,
    *,
    settle: float,
    dt: float,
    numbers: Numbers | None = None,
) -> Cycle:
    """Differentiates the rhythms of cells in a row, in the dtype of their conductances.

    Derivatives are by logarithms of conductances, and by `numbers` after them. Cells
    are simulated under the current that they receive at `settle` ms, in steps of `dt`
    ms as [`dicjax.simulate`][] takes it, for `settle` ms before their cycles.
    """
    dtype = cell.g[0].dtype
    own, shared = cell.parted()
    settings = (np.asarray(x, dtype) for x in (settle, dt))
    differentiate = functools.partial(_cycles, shared, numbers, *settings)
    times = (np.asarray(x, dtype) for x in (rhythm.period, rhythm.onset_isi))
    rhythm = ObservedRhythm(np.asarray(rhythm.num_spikes, np.int32), *times)
    num = len(cell.g[0])
    size = next((x for x in BATCHES if x >= num), BATCHES[-1])
    return in_batches(differentiate, own, rhythm, size=size)


@eqx.filter_jit
def _cycles(shared, numbers, settle, dt, own, rhythm):
    def one(own, rhythm):
        cell = eqx.combine(own, shared)
        period, onset_isi = rhythm.period, rhythm.onset_isi
        I = cell.current(settle)
        start = state_at_onset(cell.neuron, cell.g, settle, period, onset_isi, dt, I)
        num = rhythm.num_spikes
        found, _ = linearised(cell, settle, start, num, period, numbers=numbers)
        return found

    return jax.vmap(one)(own, rhythm)


def linearised(
    cell: Cell,
    t: Float[Array, ""],
    start: State,
    num_spikes: Int[AnyArray, ""],
    period: Float[AnyArray, ""],
    tolerances: tuple[float, ...] = TOLERANCES,
    numbers: Numbers | None = None,
) -> tuple[Cycle, Linear]:
    """The limit cycle near the spike `start`, and whether its slopes are trusted.

    The cell receives the current that it does at `t` ms. Slopes are by logarithms of
    conductances, and by `numbers` after them. There is a cycle for each of the
    `tolerances`, of which the last two are compared.
    """
    first, _ = as_vector(cell.neuron, start)
    num, num_g, logs = len(first), len(cell.g), log_conductances(cell)
    scale = jnp.ones(num_g, first.dtype)
    if numbers is not None:
        scale = jnp.append(scale, numbers.sizes(cell))

    def visit(z, tolerance):
        def both(inputs):
            moved = logs.moved(cell, inputs[num : num + num_g])
            if numbers is not None:
                moved = numbers.moved(moved, inputs[num + num_g :])
            neuron, g, I = moved.neuron, moved.g, moved.current(t)
            end, times, is_whole = cycle(
                neuron, g, inputs[:num], num_spikes, period, tolerance, I
            )
            return jnp.concatenate([end, times]), (end, times, is_whole)

        J, (end, times, is_whole) = jax.jacfwd(both, has_aux=True)(
            jnp.concatenate([z, jnp.zeros_like(scale)])
        )
        P_z, T_z = J[:num, :num], J[num:, :num]
        right = jnp.concatenate([J[:num, num:], (end - z)[:, None]], axis=1)
        along = solve(jnp.eye(num, dtype=z.dtype) - P_z, right)
        slopes = (J[num:, num:] + T_z @ along[:, :-1]) / times[:, None]
        size = jnp.abs(z) + CLOSED
        is_closed = is_whole & (jnp.max(jnp.abs(end - z) / size) <= CLOSED)
        step = along[:, -1]
        is_near = jnp.max(jnp.abs(step) / size) <= FURTHEST
        new = jnp.where(is_near, z + step, end)
        return new, (times, slopes, is_closed, Linear(z, P_z, T_z))

    # Nothing of how the cycle is found has a derivative.
    each = jnp.asarray(tolerances, first.dtype)
    _, found = jax.lax.scan(visit, first, each)
    times, slopes, is_closed, linear = jax.tree.map(lambda x: x[-1], found)
    size = jnp.maximum(jnp.max(jnp.abs(slopes * scale[None]), axis=1), LEAST_SLOPE)
    apart = jnp.abs(slopes - found[1][-2]) * scale[None] / size[:, None]
    after = linear.P_z
    for _ in range(DOUBLINGS):
        after = after @ after
    # Comparisons fail for what is not finite, too.
    is_stable = jnp.max(jnp.abs(after)) < 1
    is_stable &= jnp.max(jnp.abs(slopes[:, :num_g])) <= STEEPEST
    is_closed &= is_stable
    is_trusted = is_closed & (jnp.max(apart) <= AGREEMENT)
    return Cycle(times, slopes, jnp.max(apart), is_closed, is_trusted), linear


def cycle(neuron, g, z, num_spikes, period, tolerance, current):
    """The state after one cycle from `z`, its times, and whether it is a whole one."""
    num, start = len(z), as_vector(neuron, neuron.initial_state())[1](z)
    V = start.V

    def rates(x):
        y = as_vector(neuron, start)[1](x[:num])
        y = dataclasses.replace(y, V=x[num])
        I = current(y) if callable(current) else current
        rate = neuron.vector_field(jnp.zeros_like(V), y, g, I)
        return jnp.append(as_vector(neuron, rate)[0], rate.V)

    is_gate = np.arange(num + 1) < len(start.gates)
    is_V = np.arange(num + 1) == num
    fast = np.stack([is_gate, is_V]).astype(z.dtype)
    flow = Flow(neuron, rates, fast, np.where(is_V, SCALE_V, SCALE).astype(z.dtype))
    x = jnp.append(z, V)
    end = simulate_cycle(flow, x, num_spikes, 3 * period, tolerance)
    crossings = jax.tree.map(lambda *x: jnp.stack(x), end.spike, end.last)
    states, times = jax.vmap(lambda x: at_crossing(flow, x, V))(crossings)
    length, until = times
    intervals = jnp.maximum(num_spikes - 1, 1).astype(z.dtype)
    mean = jnp.where(num_spikes > 1, until, length) / intervals
    is_whole = end.count == num_spikes
    # The last interval of a bursting cycle is the one between bursts.
    is_whole &= (num_spikes == 1) | (length - until > mean)
    return states[0, :num], jnp.stack([length, mean]), is_whole


def as_vector(neuron: Neuron, y: State):
    """Gates and calcium as one vector, and the inverse, for a state at a spike."""
    num = len(y.gates)
    has_Ca = neuron.calcium is not None
    z = jnp.stack([*y.gates, y.Ca] if has_Ca else y.gates)

    def rebuild(z):
        V = neuron.V_spike.astype(z.dtype)
        Ca = z[num] if has_Ca else y.Ca
        return State(V=V, gates=tuple(z[i] for i in range(num)), Ca=Ca)

    return z, rebuild


def state_at_onset(neuron, g, settle, period, onset_isi, dt, current) -> State:
    """The state at the first onset of a cycle after `settle` ms."""
    running = _start(neuron.initial_state(), dt, pending=jnp.inf)
    running = varying_with(running, neuron, g, period)
    limit = settle + 5 * period

    def wanting(running):
        is_onset = running.spike - running.before >= onset_isi
        arrived = (running.spike > settle) & is_onset
        return ~arrived & (running.t < limit)

    step = lambda running: _step(neuron, g, running, dt, current)
    return jax.lax.while_loop(wanting, step, running).at


def observed_spikes(
    neuron, g, duration, discard, dt, current
) -> Float[Array, " spikes"]:
    """The first spikes (ms) of a cell from `discard` to `duration` ms, with padding."""

    def step(carry):
        running, times, num = carry
        new = _step(neuron, g, running, dt, current)
        is_spike = (new.count > running.count) & (new.spike > discard)
        place = jnp.where(is_spike, num, MAX_SPIKES)
        times = times.at[place].set(new.spike, mode="drop")
        return new, times, num + is_spike.astype(num.dtype)

    running = _start(neuron.initial_state(), dt, pending=jnp.inf)
    times = jnp.full(MAX_SPIKES, jnp.inf, duration.dtype)
    wanting = lambda carry: (carry[0].t < duration) & (carry[2] < MAX_SPIKES)
    begun = varying_with((running, times, jnp.int32(0)), neuron, g)
    return jax.lax.while_loop(wanting, step, begun)[1]


def rhythm_of(features: Features) -> ObservedRhythm:
    """The cycle of tonic or bursting members, as their spikes show it."""
    bursts = jnp.asarray(features.label) == BURSTING
    num = jnp.where(bursts, jnp.round(features.spikes_per_burst), 1)
    return ObservedRhythm(
        num_spikes=num.astype(jnp.int32),
        period=jnp.where(bursts, features.period, features.mean_isi),
        onset_isi=jnp.where(bursts, burst_gap(features), 0),
    )


def _start(y: State, dt, *, pending: float) -> _Running:
    zero = jnp.zeros_like(y.V)
    return _Running(
        y=y,
        t=zero,
        h=jnp.broadcast_to(dt / 4, y.V.shape),
        pending=jnp.full_like(y.V, pending),
        at=y,
        spike=zero,
        before=zero,
        count=jnp.zeros(y.V.shape, jnp.int32),
    )


def _step(neuron: Neuron, g: PyTree, running: _Running, dt, current) -> _Running:
    h, old = running.h, running.y
    y = relax_gates(neuron, old, h / 2)
    y = relax_membrane(neuron, y, g, h, current)
    y = relax_gates(neuron, y, h / 2)
    found = detect_spike(neuron, old.V, y.V, running.t, h, running.pending)
    # A cycle begins at a crossing, before the spike is confirmed.
    crosses = jnp.isinf(running.pending) & jnp.isfinite(found.pending)
    after = jnp.where(crosses, y.V, old.V + 1)
    part = crossing_part(old.V, after, neuron.V_spike)
    pick = lambda new, old: jnp.where(crosses, new, old)
    crossing = jax.tree.map(lambda a, b: a + part * (b - a), old, y)
    return _Running(
        y=y,
        t=running.t + h,
        h=next_step(y.V - old.V, h, dt, LONGEST * dt),
        pending=found.pending,
        at=jax.tree.map(pick, crossing, running.at),
        spike=pick(running.t + part * h, running.spike),
        before=pick(running.spike, running.before),
        count=running.count + crosses.astype(running.count.dtype),
    )
