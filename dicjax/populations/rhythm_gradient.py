r"""Exact derivatives of a firing rhythm, from one cycle of it.

Derivatives through many spikes of a simulation grow without bound where a neuron is
slightly irregular. They are useless then. A rhythm, however, is a cycle. Let $z$ be the
state where the potential crosses `V_spike` at the onset of a cycle. The cycle maps this
state to itself, $z = P(z, \theta)$. Forward derivatives of one cycle, whose length
follows from the times of spikes, stay small. The implicit function theorem turns them
into derivatives of the rhythm,

$\frac{dz}{d\theta} = (1 - P_z)^{-1} P_\theta$,
$\frac{dT}{d\theta} = T_\theta + T_z \frac{dz}{d\theta}$,

which are the limit of infinitely many cycles. $\theta$ are logarithms of maximal
conductances.

The number of spikes in a cycle has no derivative. Its dependence on conductances has to
be estimated from models with different numbers of spikes.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from dicjax._core import in_batches, solve
from dicjax.neurons import Neuron, State
from dicjax.simulation import (
    detect_spike,
    LONGEST,
    next_step,
    relax_gates,
    relax_membrane,
)
from dicjax.spikes import crossing_part


BATCHES = (32, 256)  # numbers of cells that are compiled for
CLOSED = 0.02  # how far a cycle's end may be from its start, relative to its size
STEEPEST = 30.0  # slope; if one is steeper, the cycle is no stable rhythm


class Cycle(eqx.Module):
    """The cycles of cells, and their derivatives by conductances.

    - `times`: the length of the cycle and the mean interval within it, in ms. In a
        cycle of one spike, both are the interval between spikes.
    - `slopes`: derivatives of the logarithms of `times` by logarithms of conductances.
    - `succeeded`: whether the cycle closed; otherwise the slopes mean nothing.
    """

    times: Float[np.ndarray, "cells 2"]
    slopes: Float[np.ndarray, "cells 2 channels"]
    succeeded: Bool[np.ndarray, " cells"]


class Rhythm(eqx.Module):
    """A rhythm as spikes show it.

    - `num_spikes`: in a cycle; `period`: its length, in ms.
    - `onset_isi`: a cycle begins after an interval of at least so many ms.
    """

    num_spikes: Int[Array | np.ndarray, "*cells"]
    period: Float[Array | np.ndarray, "*cells"]
    onset_isi: Float[Array | np.ndarray, "*cells"]


class _Running(eqx.Module):
    """The state of a cell and its latest spikes, in a running simulation.

    The length of steps is differentiated too. If it were fixed, steps at the upstroke
    of a spike would be too long after the spike has moved.
    """

    y: State
    t: Float[Array, ""]
    h: Float[Array, ""]
    pending: Float[Array, ""]  # ms, as `detect_spike` leaves it
    at: State  # at the latest spike
    spike: Float[Array, ""]  # ms, the time of the latest spike
    before: Float[Array, ""]  # ms, the time of the spike before
    count: Int[Array, ""]


def cycles(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"],
    rhythm: Rhythm,
    *,
    settle: float,
    dt: float,
    current: float = 0.0,
) -> Cycle:
    """Differentiates the rhythms of cells, in the dtype of their conductances (mS/cm²).

    They are simulated under a constant `current` (µA/cm²), in steps of `dt` ms as
    [`dicjax.simulate`][] takes it, for `settle` ms before their cycle.
    """
    settings = (np.asarray(x, g.dtype) for x in (settle, dt, current))
    differentiate = functools.partial(_cycles, neuron.with_dtype(g.dtype), *settings)
    times = (np.asarray(x, g.dtype) for x in (rhythm.period, rhythm.onset_isi))
    rhythm = Rhythm(np.asarray(rhythm.num_spikes, np.int32), *times)
    size = next((x for x in BATCHES if x >= len(g)), BATCHES[-1])
    return Cycle(*in_batches(differentiate, g, rhythm, size=size))


@eqx.filter_jit
def _cycles(neuron, settle, dt, current, g, rhythm):
    def one(g, rhythm):
        period, onset_isi = rhythm.period, rhythm.onset_isi
        start = state_at_onset(neuron, g, settle, period, onset_isi, dt, current)
        return _differentiated(neuron, g, start, rhythm.num_spikes, period, dt, current)

    return jax.vmap(one)(g, rhythm)


def _differentiated(neuron, g, start, num_spikes, period, dt, current):
    """Times of one cycle from the spike `start` on, their slopes, and whether the cycle
    closed."""
    z, rebuild = as_vector(neuron, start)
    log_g, num = jnp.log(jnp.maximum(g, jnp.finfo(g.dtype).tiny)), len(z)

    def cycle(inputs):
        own_g, own = jnp.exp(inputs[num:]), rebuild(inputs[:num])
        end = simulate_cycle(neuron, own_g, own, num_spikes, 3 * period, dt, current)
        within = jnp.where(num_spikes > 1, end.before, end.spike)
        intervals = jnp.maximum(num_spikes - 1, 1).astype(z.dtype)
        times = jnp.stack([end.spike, within / intervals])
        return jnp.concatenate([as_vector(neuron, end.at)[0], times]), (times, end)

    J, (times, end) = jax.jacfwd(cycle, has_aux=True)(jnp.concatenate([z, log_g]))
    P_z, P_g = J[:num, :num], J[:num, num:]
    T_z, T_g = J[num:, :num], J[num:, num:]
    along = solve(jnp.eye(num, dtype=z.dtype) - P_z, P_g)
    slopes = (T_g + T_z @ along) / times[:, None]
    away = jnp.abs(as_vector(neuron, end.at)[0] - z) / (jnp.abs(z) + CLOSED)
    is_closed = (jnp.max(away) <= CLOSED) & (end.count == num_spikes)
    # The last interval of a bursting cycle is the one between bursts.
    is_closed &= (num_spikes == 1) | (end.spike - end.before > times[1])
    # The comparison fails for slopes that are not finite, too.
    return times, slopes, is_closed & (jnp.max(jnp.abs(slopes)) <= STEEPEST)


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
    limit = settle + 5 * period

    def wanting(running):
        is_onset = running.spike - running.before >= onset_isi
        arrived = (running.spike > settle) & is_onset
        return ~arrived & (running.t < limit)

    step = lambda running: _step(neuron, g, running, dt, current)
    return jax.lax.while_loop(wanting, step, running).at


def simulate_cycle(neuron, g, start, num_spikes, limit, dt, current) -> _Running:
    """Simulates from a spike for `num_spikes` spikes, but at most `limit` ms."""
    running = _start(start, dt, pending=0.0)
    wanting = lambda running: (running.count < num_spikes) & (running.t < limit)
    step = lambda running: _step(neuron, g, running, dt, current)
    return jax.lax.while_loop(wanting, step, running)


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
