"""Where sampled potentials spike: the one rule for arrays.

A spike is an upward crossing of 10 mV that a later fall below 0 mV confirms. After a
spike, the potential has to fall below 0 mV before another can begin. The same rule for
a potential that is still being integrated is in `dicjax.simulation`.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


SPIKE_UP = 10.0  # mV: a spike is an upward crossing of this ...
SPIKE_DOWN = 0.0  # mV: ... confirmed by a later fall below this.


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
def mark_spikes(V: Float[Array, "*cells times"]) -> Bool[Array, "*cells steps"]:
    """Whether a spike crosses 10 mV between each sample and the next.

    `V` is in mV. The result is one shorter than `V` in its last axis.
    """
    flat = V.reshape(math.prod(V.shape[:-1]), V.shape[-1])
    marks = jax.vmap(_mark_one)(flat)
    return marks.reshape(*V.shape[:-1], marks.shape[-1])


def _mark_one(V: Float[Array, " times"]) -> Bool[Array, " steps"]:
    before, after = V[:-1], V[1:]
    step = jnp.arange(len(before), dtype=jnp.int32)
    is_crossing = (before < SPIKE_UP) & (after >= SPIKE_UP)
    # Samples below 0 mV have even numbers and crossings odd ones, in order of time, so
    # that one running maximum finds the latest of both.
    low = jnp.where(before < SPIKE_DOWN, 2 * step, -2)
    latest = jax.lax.cummax(jnp.where(is_crossing, 2 * step + 1, low))
    earlier = jnp.concatenate([low[:1], latest[:-1]])
    is_first = jnp.maximum(low, earlier) % 2 == 0
    # A crossing after the last fall is not confirmed.
    falls = jnp.where(after < SPIKE_DOWN, step, -1)
    return is_crossing & is_first & (step < jnp.max(falls, initial=-1))


def crossing_part(before, after):
    """The part of a step at which a potential crosses 10 mV, by interpolation."""
    return (SPIKE_UP - before) / (after - before)


def find_spikes(
    V: Float[Array, " times"],
    every: float,
    *,
    max_spikes: int,
    within: Bool[Array, " steps"] | None = None,
) -> FoundSpikes:
    """The spikes of one potential, for compiled code.

    - `V`: in mV, sampled every `every` ms from 0 on.
    - `max_spikes`: later spikes are counted only.
    - `within`: the steps to look at; all by default.
    """
    is_spike = mark_spikes(V)
    is_spike = is_spike if within is None else is_spike & within
    (index,) = jnp.nonzero(is_spike, size=max_spikes, fill_value=-1)
    is_there = index >= 0
    # A difference of one where there is no spike, whose part is not used.
    after = jnp.where(is_there, V[index + 1], V[index] + 1)
    part = crossing_part(V[index], after)
    times = (index.astype(V.dtype) + part) * jnp.asarray(every, V.dtype)
    return FoundSpikes(index, jnp.where(is_there, times, jnp.inf), jnp.sum(is_spike))


def list_spikes(
    ts: Float[np.ndarray, " times"], V: Float[np.ndarray, "cells times"]
) -> tuple[Int[np.ndarray, " spikes"], Float[np.ndarray, " spikes"]]:
    """Cells and times (ms) of all spikes in sampled potentials (mV), cell by cell."""
    cell, at = np.nonzero(np.asarray(mark_spikes(jnp.asarray(V))))
    part = crossing_part(V[cell, at], V[cell, at + 1])
    return cell, ts[at] + part * (ts[at + 1] - ts[at])


def spike_trains(
    ts: Float[np.ndarray, " times"], V: Float[np.ndarray, "cells times"]
) -> list[Float[np.ndarray, " spikes"]]:
    """The spike times (ms) of every cell in sampled potentials (mV)."""
    cell, times = list_spikes(ts, V)
    ends = np.searchsorted(cell, np.arange(len(V) + 1))
    return [times[a:b] for a, b in itertools.pairwise(ends)]
