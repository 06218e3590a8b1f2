"""Populations of neurons in time: spike times, and traces where wanted."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree, Shaped

from dicjax._checks import check_conductances, check_simulation
from dicjax.neuron import Neuron, State
from dicjax.solvers import relax_gates, relax_membrane
from dicjax.stimulus import between_nodes, NODE_INTERVAL, Nodes, NoisyCurrent


SPIKE_UP = 10.0  # mV: a spike is an upward crossing of this ...
SPIKE_DOWN = 0.0  # mV: ... confirmed by a later fall below this.
WINDOW = 1.0  # ms in which a cell fires at most once
CHUNK = 256  # windows advanced per dispatch, between which a caller hears of progress
BLOCKS = (16, 64, 256, 512, 1024)  # numbers of cells that are compiled for


class Run(eqx.Module):
    """What came of a simulation.

    - `spike_times`: in ms from its start, one row per cell, padded with inf.
    - `num_spikes`: how many of them are spikes.
    - `succeeded`: whether the cell stayed finite and fired no faster than 1 kHz.
    - `ts`, `V`: times (ms) and potentials (mV) where traces were asked for.
    """

    spike_times: Float[np.ndarray, "*cells spikes"]
    num_spikes: Int[np.ndarray, "*cells"]
    succeeded: Bool[np.ndarray, "*cells"]
    ts: Float[np.ndarray, " times"] | None = None
    V: Float[np.ndarray, "*cells times"] | None = None


def simulate(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"],
    duration: float,
    *,
    discard: float = 0.0,
    dt: float = 0.05,
    stimulus: NoisyCurrent | None = None,
    save: Literal["spikes", "traces"] = "spikes",
    save_every: float = 0.1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Simulates every cell of a population.

    Cells share the biology of `neuron` and differ only in maximal conductance. Spikes
    are upward crossings of 10 mV confirmed by a fall below 0 mV, timed by linear
    interpolation within the step, so that memory holds spikes and nothing else.

    **Arguments:**

    - `neuron`: the model, e.g. [`dicjax.stg`][]`()`.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. Its dtype is that of the computation.
    - `duration`: simulated time, in ms.
    - `discard`: spikes (and traces) before this time, in ms, are left out.
    - `dt`: the time step, in ms, shortened so that a whole number of steps fill 1 ms.
    - `stimulus`: an applied current; none by default.
    - `save`: `"traces"` keeps the potential too, every `save_every` ms (at most 1).
    - `on_progress`: called with (done, total) units of work; whatever it raises stops
        the simulation.

    **Returns:**

    A [`dicjax.Run`][].

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron` or has a negative or
        non-finite entry, or if times do not make sense.
    """
    g = jnp.asarray(g)
    if not jnp.issubdtype(g.dtype, jnp.floating):
        g = g.astype(float)
    check_conductances(neuron, g)
    check_simulation(duration, discard, dt, save, save_every)
    window = WINDOW if save == "spikes" else save_every
    shape, flat = g.shape[:-1], g.reshape(-1, g.shape[-1])
    engine = _Engine(neuron, flat.dtype, window, dt, stimulus, save == "traces")
    num_windows = round(duration / window)
    blocks = list(_blocks(len(flat)))
    total = len(blocks) * num_windows
    pieces = []
    for number, (start, stop, size) in enumerate(blocks):
        report = None
        if on_progress is not None:
            report = lambda done, n=number: on_progress(n * num_windows + done, total)
        # Padding repeats a real member, so that it can do nothing unusual.
        members = np.minimum(np.arange(start, start + size), stop - 1)
        piece = engine.run(flat[members], members, num_windows, discard, report)
        pieces.append([None if x is None else x[: stop - start] for x in piece])
    return _gather(pieces, shape, engine.window, num_windows, discard)


def _blocks(num_cells: int):
    """(start, stop, padded size) of the pieces a population is simulated in."""
    largest = BLOCKS[-1]
    for start in range(0, num_cells, largest):
        stop = min(start + largest, num_cells)
        yield start, stop, next(size for size in BLOCKS if size >= stop - start)


class _Engine:
    """Drives the compiled loop over chunks of time, collecting spikes on the host."""

    def __init__(self, neuron, dtype, window, dt, stimulus, traces):
        self.neuron = neuron.with_dtype(dtype)
        self.steps = int(np.ceil(window / dt - 1e-9))
        self.window = window
        self.dtype = dtype
        if stimulus is not None:
            stimulus = jax.tree.map(
                lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, stimulus
            )
        self.stimulus = stimulus
        self.traces = traces

    def run(self, g, members, num_windows, discard, report):
        dt = jnp.asarray(self.window / self.steps, self.dtype)
        keys = None
        if self.stimulus is not None:
            root = self.stimulus.key
            keys = jax.vmap(lambda i: jr.fold_in(root, i))(members)
        carry = _start(self.neuron, len(g), self.dtype)
        spikes, traces = [], []
        for first in range(0, num_windows, CHUNK):
            count = min(CHUNK, num_windows - first)
            carry, times, V = _advance(
                self.neuron,
                carry,
                g,
                self.stimulus,
                keys,
                dt,
                jnp.asarray(self.window, self.dtype),
                jnp.asarray(self.steps),
                jnp.asarray(first),
                jnp.asarray(count),
                self.traces,
            )
            spikes.append(_spikes(np.asarray(times), first * self.window, discard))
            if self.traces:
                traces.append(np.asarray(V)[:count])
            if report is not None:
                report(first + count)
        succeeded = np.asarray(jnp.isfinite(carry.y.V) & ~carry.lost)
        cells, times = (np.concatenate(x) for x in zip(*spikes, strict=True))
        V = np.concatenate(traces).T if self.traces else None
        return _rows(cells, times.astype(self.dtype), len(g)), succeeded, V


def _spikes(times, offset, discard):
    windows, cells = np.nonzero(np.isfinite(times))
    found = times[windows, cells].astype(np.float64) + offset
    keep = found >= discard
    return cells[keep], found[keep]


def _rows(cells, times, num_cells):
    """Times as one row per cell, in the order given, padded with inf."""
    num = np.bincount(cells, minlength=num_cells)
    order = np.argsort(cells, kind="stable")
    starts = np.cumsum(num) - num
    position = np.arange(len(cells)) - np.repeat(starts, num)
    # A few widths only, so that what looks at the spikes is not compiled for each.
    width = 1 << max(6, int(num.max(initial=0)).bit_length())
    rows = np.full((num_cells, width), np.inf, times.dtype)
    rows[cells[order], position] = times[order]
    return rows


def _gather(pieces, shape, window, num_windows, discard):
    width = max(piece[0].shape[1] for piece in pieces)
    rows = [
        np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=np.inf)
        for x, *_ in pieces
    ]
    padded = np.concatenate(rows)
    num_spikes = np.isfinite(padded).sum(axis=1, dtype=np.int32)
    succeeded = np.concatenate([piece[1] for piece in pieces])
    ts = V = None
    if pieces[0][2] is not None:
        ts = window * np.arange(1, num_windows + 1)
        keep = ts > discard
        ts = ts[keep]
        V = np.concatenate([piece[2] for piece in pieces])[:, keep]
        V = V.reshape(*shape, len(ts))
    return Run(
        spike_times=padded.reshape(*shape, width),
        num_spikes=num_spikes.reshape(shape),
        succeeded=succeeded.reshape(shape),
        ts=ts,
        V=V,
    )


class _Carry(eqx.Module):
    """Where every cell stands. Gates are half a step behind the potential."""

    y: State
    pending: Float[Array, "*cells"]  # ms, an unconfirmed spike
    lost: Bool[Array, "*cells"]


def _start(neuron: Neuron, num_cells: int, dtype) -> _Carry:
    # Gates start in equilibrium, where half a step back changes nothing.
    y = jax.tree.map(lambda x: jnp.full(num_cells, x, dtype), neuron.initial_state())
    return _Carry(
        y=y,
        pending=jnp.full(num_cells, jnp.inf, dtype),
        lost=jnp.zeros(num_cells, bool),
    )


@eqx.filter_jit(donate="none")
def _advance(
    neuron: Neuron,
    carry: _Carry,
    g: Float[Array, "cells channels"],
    stimulus: NoisyCurrent | None,
    keys: Key[Array, " cells"] | None,
    dt: Float[Array, ""],
    window: Float[Array, ""],
    steps: Int[Array, ""],
    first: Int[Array, ""],
    count: Int[Array, ""],
    traces: bool,
) -> tuple[_Carry, Float[Array, "times cells"], Float[Array, "times cells"] | None]:
    """Advances all cells by `count` windows, from window number `first` on."""

    def one_cell(carry: _Carry, g: Float[Array, " channels"], key):
        # As separate scalars the conductances vectorise over cells like the state.
        conductances = tuple(g)

        def one_window(i, val):
            carry, times, V = val
            nodes = origin = None
            if stimulus is not None:
                at = (first + i).astype(dt.dtype) * window / NODE_INTERVAL
                node = jnp.floor(at + 1e-3)
                nodes = stimulus.nodes(key, node.astype(jnp.int32))
                origin = at - node
            start = i.astype(dt.dtype) * window
            loop = lambda j, c: _step(
                neuron, c, conductances, dt, start, j, nodes, origin
            )
            fresh = jnp.asarray(jnp.inf, dt.dtype)
            carry, spike = jax.lax.fori_loop(0, steps, loop, (carry, fresh))
            times = times.at[i].set(spike)
            V = V.at[i].set(carry.y.V) if traces else V
            return carry, times, V

        empty = jnp.full(CHUNK, jnp.inf, dt.dtype)
        V = empty if traces else None
        carry, times, V = jax.lax.fori_loop(0, count, one_window, (carry, empty, V))
        elapsed = count.astype(dt.dtype) * window
        carry = _Carry(carry.y, carry.pending - elapsed, carry.lost)
        return carry, times, V

    in_axes = (0, 0, None if keys is None else 0)
    out_axes = (0, 1, 1 if traces else None)
    return jax.vmap(one_cell, in_axes, out_axes)(carry, g, keys)


def _step(
    neuron: Neuron,
    val: tuple[_Carry, Float[Array, ""]],
    g: PyTree,
    dt: Float[Array, ""],
    start: Float[Array, ""],
    j: Shaped[Array, ""],
    nodes: Nodes | None,
    origin: Float[Array, ""] | None,
) -> tuple[_Carry, Float[Array, ""]]:
    """One time step of one cell, with the spike it may have completed."""
    carry, spike = val
    j = j.astype(dt.dtype)
    I = None
    if nodes is not None and origin is not None:
        I = between_nodes(nodes, origin + (j + 0.5) * dt / NODE_INTERVAL)
    y = relax_gates(neuron, carry.y, dt)
    y = relax_membrane(neuron, y, g, dt, I)
    before, after = carry.y.V, y.V
    up = (before < SPIKE_UP) & (after >= SPIKE_UP) & jnp.isinf(carry.pending)
    crossing = start + (j + (SPIKE_UP - before) / (after - before)) * dt
    pending = jnp.where(up, crossing, carry.pending)
    confirmed = (after < SPIKE_DOWN) & jnp.isfinite(pending)
    lost = carry.lost | (confirmed & jnp.isfinite(spike))
    spike = jnp.where(confirmed, pending, spike)
    pending = jnp.where(confirmed, jnp.inf, pending)
    return _Carry(y, pending, lost), spike
