r"""Exact derivatives of a firing rhythm, from one cycle of it.

Derivatives through many spikes of a simulation grow without bound wherever a neuron is
the least bit irregular, and say nothing. A rhythm, though, is a cycle: between one
onset and the next the state, as the potential rises through the level that tells
spikes, is mapped to itself, $z = P(z, \theta)$. Differentiating that one cycle, forward
and with its length given by the implicit times of the spikes, is harmless; and
the implicit function theorem turns it into derivatives of the rhythm itself,

$\frac{dz}{d\theta} = (1 - P_z)^{-1} P_\theta$,
$\frac{dT}{d\theta} = T_\theta + T_z \frac{dz}{d\theta}$,

as they would be after infinitely many cycles. $\theta$ are logarithms of maximal
conductances.

The number of spikes in a cycle has no derivative: what a spike more or less takes has
to be learned from members that differ.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from dicjax._core import solve
from dicjax.neurons import Neuron, State
from dicjax.simulation import (
    detect_spike,
    LONGEST,
    next_step,
    relax_gates,
    relax_membrane,
)
from dicjax.spikes import crossing_part, SPIKE_UP


BATCHES = (32, 256)  # numbers of cells that are compiled for
CLOSED = 0.02  # by which a cycle's end may miss its start, in terms of its range
STEEPEST = 30.0  # slope; where it is steeper, what repeats is not one rhythm


class Cycle(eqx.Module):
    """What a rhythm fires like, and how that follows conductances.

    - `times`: the length of the cycle and the mean interval within it, in ms; of a
        cycle of one spike both are its interval.
    - `slopes`: derivatives of their logarithms by logarithms of conductances.
    - `succeeded`: whether the cycle closed, and so whether slopes mean anything.
    """

    times: Float[np.ndarray, "cells 2"]
    slopes: Float[np.ndarray, "cells 2 channels"]
    succeeded: Bool[np.ndarray, " cells"]


class Rhythm(eqx.Module):
    """What is known of a rhythm: spikes in a cycle, its length, and the interval (ms)
    that tells whether a cycle begins."""

    num_spikes: Int[Array | np.ndarray, "*cells"]
    period: Float[Array | np.ndarray, "*cells"]
    onset_isi: Float[Array | np.ndarray, "*cells"]


class _Flight(eqx.Module):
    """A cell on its way.

    The length of its steps is differentiated too: frozen steps would meet the upstroke
    of a spike that has moved with steps that are too long for it.
    """

    y: State
    t: Float[Array, ""]
    h: Float[Array, ""]
    pending: Float[Array, ""]  # ms, a spike that has not fallen yet; else infinite
    at: State  # at the latest spike
    spike: Float[Array, ""]  # its time, ms
    before: Float[Array, ""]  # the time of the one before
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
    """Derivatives of the rhythms of cells.

    **Arguments:**

    - `neuron`: the model.
    - `g`: maximal conductances, in mS/cm²; their dtype is that of the computation.
    - `rhythm`: of each cell, as its spikes show.
    - `settle`: how long cells run before their cycle is looked at, in ms.
    - `dt`: the time step, in ms, as [`dicjax.simulate`][] takes it.
    - `current`: applied throughout, in µA/cm².

    **Returns:**

    A `Cycle` with a row per cell.
    """
    dtype = g.dtype
    neuron = neuron.with_dtype(dtype)
    as_float = lambda x: jnp.asarray(x, dtype)
    parts = []
    largest = BATCHES[-1]
    for start in range(0, len(g), largest):
        num = min(largest, len(g) - start)
        size = next(size for size in BATCHES if size >= num)
        take = np.minimum(np.arange(start, start + size), len(g) - 1)
        found = _cycles(
            neuron,
            as_float(g[take]),
            jnp.asarray(np.asarray(rhythm.num_spikes)[take], jnp.int32),
            as_float(np.asarray(rhythm.period)[take]),
            as_float(np.asarray(rhythm.onset_isi)[take]),
            as_float(settle),
            as_float(dt),
            as_float(current),
        )
        parts.append([np.asarray(x)[:num] for x in found])
    return Cycle(*map(np.concatenate, zip(*parts, strict=True)))


@eqx.filter_jit
def _cycles(neuron, g, num_spikes, period, onset_isi, settle, dt, current):
    def one(g, num_spikes, period, onset_isi):
        start = _settled(neuron, g, settle, period, onset_isi, dt, current)
        return _differentiated(neuron, g, start, num_spikes, period, dt, current)

    return jax.vmap(one)(g, num_spikes, period, onset_isi)


def _differentiated(neuron, g, start, num_spikes, period, dt, current):
    """Times of one cycle from the spike `start` on, their slopes, and whether these
    hold."""
    z, rebuild = _flattened(neuron, start)
    log_g = jnp.log(jnp.maximum(g, jnp.finfo(g.dtype).tiny))

    def cycle(inputs):
        z, log_g = inputs[: len(z_start)], inputs[len(z_start) :]
        end = _flown(
            neuron, jnp.exp(log_g), rebuild(z), num_spikes, 3 * period, dt, current
        )
        within = jnp.where(num_spikes > 1, end.before, end.spike)
        intervals = jnp.maximum(num_spikes - 1, 1).astype(z.dtype)
        times = jnp.stack([end.spike, within / intervals])
        return jnp.concatenate([_flattened(neuron, end.at)[0], times]), (times, end)

    z_start = z
    inputs = jnp.concatenate([z, log_g])
    J, (times, end) = jax.jacfwd(cycle, has_aux=True)(inputs)
    num = len(z)
    P_z, P_g = J[:num, :num], J[:num, num:]
    T_z, T_g = J[num:, :num], J[num:, num:]
    along = solve(jnp.eye(num, dtype=z.dtype) - P_z, P_g)
    slopes = (T_g + T_z @ along) / times[:, None]
    away = jnp.abs(_flattened(neuron, end.at)[0] - z) / (jnp.abs(z) + CLOSED)
    is_closed = (jnp.max(away) <= CLOSED) & (end.count == num_spikes)
    # Of a burst, the last interval is the quiet one.
    is_closed &= (num_spikes == 1) | (end.spike - end.before > times[1])
    # Also where they are not finite.
    return times, slopes, is_closed & (jnp.max(jnp.abs(slopes)) <= STEEPEST)


def _flattened(neuron: Neuron, y: State):
    """Gates and calcium as one vector, and the way back to a state at a spike."""
    num = len(y.gates)
    # Where there is no calcium, it is not part of the cycle.
    has_Ca = neuron.calcium is not None
    z = jnp.stack([*y.gates, y.Ca] if has_Ca else y.gates)

    def rebuild(z):
        V = jnp.full_like(z[0], SPIKE_UP)
        Ca = z[num] if has_Ca else y.Ca
        return State(V=V, gates=tuple(z[i] for i in range(num)), Ca=Ca)

    return z, rebuild


def _settled(neuron, g, settle, period, onset_isi, dt, current) -> State:
    """The state at the first onset of a cycle after `settle` ms."""
    flight = _start(neuron.initial_state(), dt, pending=jnp.inf)
    limit = settle + 5 * period

    def wanting(flight):
        is_onset = flight.spike - flight.before >= onset_isi
        arrived = (flight.spike > settle) & is_onset
        return ~arrived & (flight.t < limit)

    return jax.lax.while_loop(
        wanting, lambda x: _step(neuron, g, x, dt, current), flight
    ).at


def _flown(neuron, g, start, num_spikes, limit, dt, current) -> _Flight:
    """A flight of `num_spikes` spikes from one on, or of `limit` ms."""
    flight = _start(start, dt, pending=0.0)
    return jax.lax.while_loop(
        lambda x: (x.count < num_spikes) & (x.t < limit),
        lambda x: _step(neuron, g, x, dt, current),
        flight,
    )


def _start(y: State, dt, *, pending: float) -> _Flight:
    zero = jnp.zeros_like(y.V)
    return _Flight(
        y=y,
        t=zero,
        h=jnp.broadcast_to(dt / 4, y.V.shape),
        pending=jnp.full_like(y.V, pending),
        at=y,
        spike=zero,
        before=zero,
        count=jnp.zeros(y.V.shape, jnp.int32),
    )


def _step(neuron: Neuron, g: PyTree, flight: _Flight, dt, current) -> _Flight:
    h, old = flight.h, flight.y
    y = relax_gates(neuron, old, h / 2)
    y = relax_membrane(neuron, y, g, h, current)
    y = relax_gates(neuron, y, h / 2)
    pending, _, _ = detect_spike(old.V, y.V, flight.t, h, flight.pending)
    # A cycle begins at a crossing, before the spike is confirmed.
    crosses = jnp.isinf(flight.pending) & jnp.isfinite(pending)
    part = crossing_part(old.V, jnp.where(crosses, y.V, old.V + 1))
    pick = lambda new, old: jnp.where(crosses, new, old)
    crossing = jax.tree.map(lambda a, b: a + part * (b - a), old, y)
    return _Flight(
        y=y,
        t=flight.t + h,
        h=next_step(y.V - old.V, h, dt, LONGEST * dt),
        pending=pending,
        at=jax.tree.map(pick, crossing, flight.at),
        spike=pick(flight.t + part * h, flight.spike),
        before=pick(flight.spike, flight.before),
        count=flight.count + crosses.astype(flight.count.dtype),
    )
