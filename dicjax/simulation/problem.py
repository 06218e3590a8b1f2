"""What to simulate, and what comes of it: the values that all backends share.

A backend takes a `Problem` and returns a `Solution`. It may find the solution in parts,
which `assemble` puts together.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dicjax._core import AnyArray, compiled_size, widened
from dicjax.neurons import Neuron
from dicjax.simulation.stimulus import AbstractStimulus


ROOM = 64  # spikes per cell at first, where there is room for all


class Problem(NamedTuple):
    """A population to simulate; all numbers have the dtype of `g`.

    - `neuron`: the model, whose numbers have an axis of cells where these differ.
    - `g`: maximal conductances, in mS/cm².
    - `V0`, `Ca0`: initial potentials (mV) and calcium (µM); gates are in equilibrium.
    - `duration`: simulated time; `discard`: the part of it that is left out, in ms.
    - `dt`: the time step while the potential moves at 16 mV/ms, in ms.
    - `stimulus`: the applied current, with one leading axis where cells differ.
    - `save_every`: time between saved potentials, in ms; None saves no potentials.
    - `max_spikes`: room for spikes per cell; None makes room for all.
    """

    neuron: Neuron
    g: Float[np.ndarray, "cells channels"]
    V0: Float[np.ndarray, " cells"]
    Ca0: Float[np.ndarray, " cells"]
    duration: float
    discard: float
    dt: float
    stimulus: AbstractStimulus | None
    save_every: float | None
    max_spikes: int | None


class Solution(NamedTuple):
    """What the cells of a problem did.

    - `spike_times`: in ms, one row per cell, padded with infinity.
    - `num_spikes`: of each cell, whether or not there was room for them.
    - `is_finite`: whether the potential stayed finite.
    - `has_lost`: whether spikes came too fast to be told apart.
    - `fell_short`: whether an upstroke did not reach the level of a spike.
    - `V`: saved potentials, in mV.
    """

    spike_times: Float[AnyArray, "cells spikes"]
    num_spikes: Int[AnyArray, " cells"]
    is_finite: Bool[AnyArray, " cells"]
    has_lost: Bool[AnyArray, " cells"]
    fell_short: Bool[AnyArray, " cells"]
    V: Float[AnyArray, "cells times"] | None


class SpikeList(NamedTuple):
    """Spike times (ms) and the cells that fired them, cell by cell in order of time."""

    cells: Int[np.ndarray, " spikes"]
    times: Float[np.ndarray, " spikes"]


class SavedSamples(NamedTuple):
    """Saved potentials (mV), with the cell and the column of each."""

    cells: Int[np.ndarray, "..."]
    columns: Int[np.ndarray, "..."]
    V: Float[np.ndarray, "..."]


class Finished(NamedTuple):
    """Cells whose simulation has ended, and how."""

    cells: Int[np.ndarray, " cells"]
    is_finite: Bool[np.ndarray, " cells"]
    has_lost: Bool[np.ndarray, " cells"]


class Part(NamedTuple):
    """A part of a solution: what some cells did in some of the time.

    `fell_short` are cells that had a shortfall; `num_ms` is how much time this was,
    added up over cells.
    """

    spikes: SpikeList
    fell_short: Int[np.ndarray, " _"]
    samples: SavedSamples | None
    finished: Finished
    num_ms: int


def num_ms(problem: Problem) -> int:
    """Whole ms that every cell has to be simulated for."""
    return math.ceil(problem.duration)


def saved_samples(problem: Problem) -> range:
    """Numbers of the saved samples, at multiples of `save_every`."""
    every = problem.save_every
    if every is None:
        return range(0)
    first = math.floor(problem.discard / every + 1e-9) + 1
    return range(first, math.floor(problem.duration / every + 1e-9) + 1)


def is_kept(problem: Problem, times: Float[np.ndarray, "..."]) -> np.ndarray:
    """Whether times (ms) lie from `discard` to `duration`."""
    return (times >= problem.discard) & (times <= problem.duration)


def kept_spikes(
    problem: Problem, cells: Int[np.ndarray, " _"], times: Float[np.ndarray, " _"]
) -> SpikeList:
    """The spikes from `discard` to `duration`, in as little memory as they need."""
    kept = is_kept(problem, times)
    return SpikeList(cells[kept].astype(np.int32), times[kept].astype(problem.g.dtype))


def assemble(problem: Problem, parts: Iterable[Part]) -> Solution:
    """The solution that parts add up to, those of each cell in order of time."""
    num_cells, dtype = len(problem.g), problem.g.dtype
    rows = np.full((num_cells, problem.max_spikes or ROOM), np.inf, dtype)
    num = np.zeros(num_cells, np.int32)
    is_finite, has_lost, fell_short = np.zeros((3, num_cells), bool)
    V = None
    if problem.save_every is not None:
        V = np.full((num_cells, len(saved_samples(problem))), np.nan, dtype)
    for part in parts:
        rows = _with_spikes(rows, num, part.spikes, problem.max_spikes)
        cells = part.finished.cells
        is_finite[cells] = part.finished.is_finite
        has_lost[cells] = part.finished.has_lost
        fell_short[part.fell_short] = True
        if V is not None and part.samples is not None:
            V[part.samples.cells, part.samples.columns] = part.samples.V
    return Solution(rows, num, is_finite, has_lost, fell_short, V)


def _with_spikes(rows, num, spikes: SpikeList, max_spikes: int | None) -> np.ndarray:
    """Rows and counts after some spikes, in place; wider rows where there is no room.

    Widths are powers of two, for which few programs have to be compiled.
    """
    cells, times = spikes
    if not len(cells):
        return rows
    begins = np.flatnonzero(np.diff(cells, prepend=-1))
    who, more = cells[begins], np.diff(begins, append=len(cells))
    column = np.arange(len(cells)) + np.repeat(num[who] - begins, more)
    num[who] += more.astype(num.dtype)
    needed = int(num[who].max())
    if max_spikes is None and needed > rows.shape[1]:
        rows = widened(rows, compiled_size(needed))
    fits = column < rows.shape[1]
    rows[cells[fits], column[fits]] = times[fits]
    return rows
