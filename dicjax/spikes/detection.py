"""Where sampled potentials spike: the one rule for arrays.

A spike is an upward crossing of one level, `V_spike`, that a later fall below another,
`V_rearm`, confirms. After a spike, the potential has to fall below `V_rearm` before
another can begin. Both belong to the neuron; by default they are 10 and 0 mV. The same
rule for a potential that is still being integrated is in `dicjax.simulation`.

A shortfall is what a spike would be, had it reached `V_spike`: an upstroke of more than
10 mV/ms through -30 mV, after which the potential falls below -30 mV again. Where
`V_rearm` is lower than -30 mV, it takes the place of -30 mV.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, ScalarLike


V_SPIKE = 10.0  # mV: a spike is an upward crossing of this ...
V_REARM = 0.0  # mV: ... confirmed by a later fall below this, by default.
ONSET = 10.0  # mV/ms, the slope from which on a spike has begun
SHORTFALL = -30.0  # mV, the level through which upstrokes are looked for


class FoundSpikes(NamedTuple):
    """Spikes of one potential, with room for a fixed number of them.

    - `index`: the last sample before each; -1 where there is none.
    - `times`: of each, in ms, padded with infinity.
    - `num`: how many there are, whether or not there was room.
    """

    index: Int[Array, " spikes"]
    times: Float[Array, " spikes"]
    num: Int[Array, ""]


@jax.jit
def mark_spikes(
    V: Float[Array, "*cells times"],
    *,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> Bool[Array, "*cells steps"]:
    """Whether a spike crosses `V_spike` between each sample and the next.

    All potentials are in mV. The result is one shorter than `V` in its last axis.
    """
    levels = (jnp.asarray(x, V.dtype) for x in (V_spike, V_rearm))
    return _marked(functools.partial(_mark_one, *levels), V)


def _marked(mark, V):
    flat = V.reshape(math.prod(V.shape[:-1]), V.shape[-1])
    marks = jax.vmap(mark)(flat)
    return marks.reshape(*V.shape[:-1], marks.shape[-1])


def _mark_one(V_spike, V_rearm, V: Float[Array, " times"]) -> Bool[Array, " steps"]:
    before, after = V[:-1], V[1:]
    step = jnp.arange(len(before), dtype=jnp.int32)
    is_crossing = (before < V_spike) & (after >= V_spike)
    # Samples below `V_rearm` have even numbers and crossings odd ones, in order of
    # time, so that one running maximum finds the latest of both.
    low = jnp.where(before < V_rearm, 2 * step, -2)
    latest = jax.lax.cummax(jnp.where(is_crossing, 2 * step + 1, low))
    earlier = jnp.concatenate([low[:1], latest[:-1]])
    is_first = jnp.maximum(low, earlier) % 2 == 0
    # A crossing after the last fall is not confirmed.
    falls = jnp.where(after < V_rearm, step, -1)
    return is_crossing & is_first & (step < jnp.max(falls, initial=-1))


@jax.jit
def mark_shortfalls(
    V: Float[Array, "*cells times"],
    every: ScalarLike,
    *,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> Bool[Array, "*cells steps"]:
    """Whether a shortfall ends between each sample and the next.

    `V` (mV) is sampled every `every` ms. The result is one shorter in its last axis.
    """
    every, V_spike, V_rearm = (
        jnp.asarray(x, V.dtype) for x in (every, V_spike, V_rearm)
    )
    mark = functools.partial(
        _mark_shortfalls_of_one, every, V_spike, shortfall_level(V_rearm)
    )
    return _marked(mark, V)


def _mark_shortfalls_of_one(every, V_spike, level, V):
    before, after = V[:-1], V[1:]
    step = jnp.arange(len(before), dtype=jnp.int32)
    latest = lambda where: jax.lax.cummax(jnp.where(where, step, -1))
    begins = (before < level) & (after >= level) & is_upstroke(before, after, every)
    # Below the level, nothing has begun; a sample at `V_spike` makes it a spike.
    begun, low, high = (latest(x) for x in (begins, before < level, before >= V_spike))
    return (after < level) & (begun >= low) & (begun >= high) & (begun >= 0)


def is_upstroke(before, after, h):
    """Whether a potential rises as in a spike in a step of `h` ms."""
    return after - before > ONSET * h


def shortfall_level(V_rearm):
    """The potential (mV) that shortfalls rise through and fall below."""
    return jnp.minimum(V_rearm, SHORTFALL)


def crossing_part(before, after, V_spike):
    """The part of a step at which a potential crosses `V_spike`, by interpolation."""
    return (V_spike - before) / (after - before)


def find_spikes(
    V: Float[Array, " times"],
    every: float,
    *,
    max_spikes: int,
    within: Bool[Array, " steps"] | None = None,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> FoundSpikes:
    """The spikes of one potential, for compiled code.

    - `V`: in mV, sampled every `every` ms from 0 on.
    - `max_spikes`: later spikes are counted only.
    - `within`: the steps to look at; all by default.
    - `V_spike`, `V_rearm`: the levels of a spike, in mV.
    """
    is_spike = mark_spikes(V, V_spike=V_spike, V_rearm=V_rearm)
    is_spike = is_spike if within is None else is_spike & within
    (index,) = jnp.nonzero(is_spike, size=max_spikes, fill_value=-1)
    is_there = index >= 0
    # A difference of one where there is no spike, whose part is not used.
    after = jnp.where(is_there, V[index + 1], V[index] + 1)
    part = crossing_part(V[index], after, jnp.asarray(V_spike, V.dtype))
    times = (index.astype(V.dtype) + part) * jnp.asarray(every, V.dtype)
    return FoundSpikes(index, jnp.where(is_there, times, jnp.inf), jnp.sum(is_spike))


def list_spikes(
    ts: Float[np.ndarray, " times"],
    V: Float[np.ndarray, "cells times"],
    *,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> tuple[Int[np.ndarray, " spikes"], Float[np.ndarray, " spikes"]]:
    """Cells and times (ms) of all spikes in sampled potentials (mV), cell by cell."""
    marks = mark_spikes(jnp.asarray(V), V_spike=V_spike, V_rearm=V_rearm)
    cell, at = np.nonzero(np.asarray(marks))
    up = np.asarray(V_spike, V.dtype)
    part = crossing_part(V[cell, at], V[cell, at + 1], up)
    return cell, ts[at] + part * (ts[at + 1] - ts[at])


def spike_trains(
    ts: Float[np.ndarray, " times"],
    V: Float[np.ndarray, "cells times"],
    *,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> list[Float[np.ndarray, " spikes"]]:
    """The spike times (ms) of every cell in sampled potentials (mV)."""
    cell, times = list_spikes(ts, V, V_spike=V_spike, V_rearm=V_rearm)
    ends = np.searchsorted(cell, np.arange(len(V) + 1))
    return [times[a:b] for a, b in itertools.pairwise(ends)]
