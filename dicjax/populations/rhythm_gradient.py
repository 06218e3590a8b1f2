r"""Exact derivatives of a firing rhythm, from one cycle of it.

Derivatives through many spikes of a simulation grow without bound wherever a neuron is
the least bit irregular, and say nothing. A rhythm, though, is a cycle: between one
onset and the next the state, as the potential rises through the level that marks
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
from dicjax.simulation import LONGEST, next_step, relax_gates, relax_membrane
from dicjax.spikes import SPIKE_DOWN, SPIKE_UP


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
    from which on a cycle begins."""

    num_spikes: Int[Array | np.ndarray, "*cells"]
    period: Float[Array | np.ndarray, "*cells"]
    onset_isi: Float[Array | np.ndarray, "*cells"]


class _Running(eqx.Module):
    """A cell that is being simulated.

    The length of its steps is differentiated too: frozen steps would meet the upstroke
    of a spike that has moved with steps that are too long for it.
    """

    y: State
    t: Float[Array, ""]
    h: Float[Array, ""]
    armed: Bool[Array, ""]  # has been below, so that the next rise is a spike
    at_spike: State  # at the latest spike
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
    - `g`: maximal conductances, in mS/cm²; the computation has their dtype.
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
        start = settled(neuron, g, settle, period, onset_isi, dt, current)
        return _differentiated(neuron, g, start, num_spikes, period, dt, current)

    return jax.vmap(one)(g, num_spikes, period, onset_isi)


def _differentiated(neuron, g, start, num_spikes, period, dt, current):
    """Times of one cycle from the spike `start` on, their slopes, and whether these
    hold."""
    z, rebuild = flattened(neuron, start)
    log_g = jnp.log(jnp.maximum(g, jnp.finfo(g.dtype).tiny))

    def cycle(inputs):
        z, log_g = inputs[: len(z_start)], inputs[len(z_start) :]
        end = after_spikes(
            neuron, jnp.exp(log_g), rebuild(z), num_spikes, 3 * period, dt, current
        )
        within = jnp.where(num_spikes > 1, end.before, end.spike)
        intervals = jnp.maximum(num_spikes - 1, 1).astype(z.dtype)
        times = jnp.stack([end.spike, within / intervals])
        z_end, _ = flattened(neuron, end.at_spike)
        return jnp.concatenate([z_end, times]), (times, end)

    z_start = z
    inputs = jnp.concatenate([z, log_g])
    J, (times, end) = jax.jacfwd(cycle, has_aux=True)(inputs)
    num = len(z)
    P_z, P_g = J[:num, :num], J[:num, num:]
    T_z, T_g = J[num:, :num], J[num:, num:]
    along = solve(jnp.eye(num, dtype=z.dtype) - P_z, P_g)
    slopes = (T_g + T_z @ along) / times[:, None]
    away = jnp.abs(flattened(neuron, end.at_spike)[0] - z) / (jnp.abs(z) + CLOSED)
    is_closed = (jnp.max(away) <= CLOSED) & (end.count == num_spikes)
    # Of a burst, the last interval is the quiet one.
    is_closed &= (num_spikes == 1) | (end.spike - end.before > times[1])
    # Also where they are not finite.
    return times, slopes, is_closed & (jnp.max(jnp.abs(slopes)) <= STEEPEST)


def flattened(neuron: Neuron, y: State):
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


def settled(neuron, g, settle, period, onset_isi, dt, current) -> State:
    """The state at the first onset of a cycle after `settle` ms."""
    running = _start(neuron.initial_state(), dt, armed=True)
    limit = settle + 5 * period

    def wanting(running):
        is_onset = running.spike - running.before >= onset_isi
        arrived = (running.spike > settle) & is_onset
        return ~arrived & (running.t < limit)

    return jax.lax.while_loop(
        wanting, lambda x: _step(neuron, g, x, dt, current), running
    ).at_spike


def after_spikes(neuron, g, start, num_spikes, limit, dt, current) -> _Running:
    """A cell when it has fired `num_spikes` more spikes, or after `limit` ms."""
    running = _start(start, dt, armed=False)
    return jax.lax.while_loop(
        lambda x: (x.count < num_spikes) & (x.t < limit),
        lambda x: _step(neuron, g, x, dt, current),
        running,
    )


def _start(y: State, dt, *, armed: bool) -> _Running:
    zero = jnp.zeros_like(y.V)
    return _Running(
        y=y,
        t=zero,
        h=jnp.broadcast_to(dt / 4, y.V.shape),
        armed=jnp.full(y.V.shape, armed),
        at_spike=y,
        spike=zero,
        before=zero,
        count=jnp.zeros(y.V.shape, jnp.int32),
    )


def _step(neuron: Neuron, g: PyTree, running: _Running, dt, current) -> _Running:
    h, old = running.h, running.y
    y = relax_gates(neuron, old, h / 2)
    y = relax_membrane(neuron, y, g, h, current)
    y = relax_gates(neuron, y, h / 2)
    rises = running.armed & (old.V < SPIKE_UP) & (y.V >= SPIKE_UP)
    share = (SPIKE_UP - old.V) / jnp.where(rises, y.V - old.V, 1)
    spike = running.t + share * h
    pick = lambda new, old: jnp.where(rises, new, old)
    there = jax.tree.map(lambda a, b: a + share * (b - a), old, y)
    return _Running(
        y=y,
        t=running.t + h,
        h=next_step(y.V - old.V, h, dt, LONGEST * dt),
        armed=(running.armed & ~rises) | (y.V < SPIKE_DOWN),
        at_spike=jax.tree.map(pick, there, running.at_spike),
        spike=pick(spike, running.spike),
        before=pick(running.spike, running.before),
        count=running.count + rises.astype(running.count.dtype),
    )
