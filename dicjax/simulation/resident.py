"""Simulation whose cells, lanes and spikes all stay on a device until it ends.

The device hands cells to idle lanes, dispatches, and puts spikes into rows by itself,
several times before the host looks at it. Nothing crosses but three numbers: how many
cells are done, how many spikes the busiest has, and how much time has been simulated.
The spikes are those of `scheduler`, to the bit.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dicjax._core import compiled_size, handed_out, Progress, reports, Stage
from dicjax.simulation.lane_block import (
    bursts_for,
    IDLE,
    idle_block,
    initial_conditions,
    Program,
    program_of,
)
from dicjax.simulation.lanes import (
    CompiledNeuron,
    DispatchOutput,
    finished,
    LaneInputs,
    Lanes,
    StepSizes,
)
from dicjax.simulation.problem import num_ms, Problem, ROOM, Solution
from dicjax.simulation.scheduler import places, simulating_devices
from dicjax.simulation.stimulus import for_members


ROUNDS = 8  # dispatches between two looks of the host
LARGEST_CHUNK = 4_194_304  # cells whose spikes are kept together on a device


class Chunk(eqx.Module):
    """Cells on a device: those in lanes, those that wait, and what they have done.

    - `cells`: the cell of every lane, counted from the first of the chunk, or `IDLE`.
    - `num_taken`: how many cells lanes have been given.
    - `spike_times`: in ms, padded with infinity; `num_spikes`: of each cell.
    """

    lanes: Lanes
    cells: Int[Array, " lanes"]
    num_taken: Int[Array, ""]
    spike_times: Float[Array, "cells spikes"]
    num_spikes: Int[Array, " cells"]
    is_finite: Bool[Array, " cells"]
    has_lost: Bool[Array, " cells"]
    fell_short: Bool[Array, " cells"]
    num_done: Int[Array, ""]


class Limits(NamedTuple):
    """Where the time of cells ends, and which spikes are kept.

    - `until`: whole ms to simulate.
    - `first`, `last`: the earliest and the latest spike, in ms: a whole number and the
        rest of it, since one float would lose digits.
    """

    until: Int[Array, ""]
    first: tuple[Int[Array, ""], Float[Array, ""]]
    last: tuple[Int[Array, ""], Float[Array, ""]]


class Looked(NamedTuple):
    """What the host sees of a chunk.

    `num_done` cells are done, the busiest has `most_spikes`, and those in lanes have
    been simulated for `under_way` ms in all.
    """

    num_done: Int[Array, ""]
    most_spikes: Int[Array, ""]
    under_way: Float[Array, ""]


def suits(problem: Problem) -> bool:
    """Whether it is worth it: potentials are saved on the host, and cores share it."""
    is_traced = problem.save_every is not None
    return not is_traced and simulating_devices()[0].platform != "cpu"


def solve(problem: Problem, on_progress: Progress | None) -> Solution:
    """Simulates all cells of a problem; the arrays of the solution are on the device.

    `on_progress` is called on this thread, with (stage, done, total) ms of all cells.
    """
    num_cells, total = len(problem.g), len(problem.g) * num_ms(problem)
    devices, num_lanes, num_bursts = places(num_cells, per_device=1)
    program = program_of(problem, num_bursts)
    take = handed_out(num_cells)
    size = min(LARGEST_CHUNK, -(-num_cells // len(devices)))
    solved: dict[int, Solution] = {}

    def work(device, report, stopped) -> None:
        inputs = _all_inputs(program)
        while not stopped.is_set() and (cells := take(size)):
            chunk = _chunk_of(program, device, inputs, cells, num_lanes)
            solution = _solved(program, chunk, report, stopped)
            if solution is not None:
                solved[cells.start] = solution

    done = 0
    with contextlib.closing(reports(devices, work)) as looks:
        for gone in looks:
            done += gone
            if on_progress is not None:
                on_progress(Stage("simulating"), done, total)
    return _joined([solved[first] for first in sorted(solved)])


class Begun(NamedTuple):
    """A chunk, and what advances it."""

    chunk: Chunk
    advance: Callable[[Chunk], tuple[Chunk, Looked]]
    num_cells: int


def _chunk_of(program, device, inputs, cells: range, num_lanes) -> Begun:
    """Cells that have not begun yet."""
    problem, num = program.problem, len(cells)
    room = problem.max_spikes or compiled_size(ROOM + program.num_bursts)
    number = lambda x: jnp.asarray(x, jnp.int32)
    how = {
        "inputs": inputs,
        "step_sizes": program.step_sizes,
        "limits": _limits(problem),
        "num_cells": number(num),
        "first": number(cells.start),
        "compiled": program.compiled,
        "bursts": bursts_for(program, device),
        "num_bursts": program.num_bursts,
        "is_limited": problem.max_spikes is not None,
    }
    chunk = _empty(program, num, num_lanes, room)
    return Begun(chunk, functools.partial(advance, **how), num)


def _solved(program, begun: Begun, report, stopped) -> Solution | None:
    """What the cells of a chunk do; None if it is stopped before they have done it."""
    chunk, num, reported = begun.chunk, begun.num_cells, 0
    while True:
        chunk, looked = begun.advance(chunk)
        num_done, most = int(looked.num_done), int(looked.most_spikes)
        simulated = num_done * num_ms(program.problem) + int(looked.under_way)
        report(simulated - reported)
        reported = simulated
        if num_done == num:
            return _solution(chunk, num, program.problem.max_spikes, most)
        if stopped.is_set():
            return None
        if program.problem.max_spikes is None:
            chunk = _with_room(chunk, most + program.num_bursts)


def _all_inputs(program: Program) -> LaneInputs:
    """What all cells of a problem are given, on the default device."""
    problem = program.problem
    initial = initial_conditions(problem, np.arange(len(problem.g)))
    kinetics = tuple(map(jnp.asarray, program.kinetics))
    return LaneInputs(jnp.asarray(problem.g), problem.stimulus, initial, kinetics)


def _limits(problem: Problem) -> Limits:
    def moment(time: float):
        whole = int(np.floor(time))
        return jnp.asarray(whole, jnp.int32), jnp.asarray(time - whole, problem.g.dtype)

    until = jnp.asarray(num_ms(problem), jnp.int32)
    return Limits(until, moment(problem.discard), moment(problem.duration))


def _empty(program: Program, num_cells: int, num_lanes: int, room: int) -> Chunk:
    """A chunk of which nothing has been simulated; few sizes are compiled for."""
    size, dtype = compiled_size(num_cells, num_lanes), program.problem.g.dtype
    block = idle_block(program, None, num_lanes)
    zero = jnp.zeros((), jnp.int32)
    return Chunk(
        lanes=jax.tree.map(jnp.asarray, block.lanes),
        cells=jnp.full(num_lanes, IDLE, jnp.int32),
        num_taken=zero,
        spike_times=jnp.full((size, room), jnp.inf, dtype),
        num_spikes=jnp.zeros(size, jnp.int32),
        is_finite=jnp.zeros(size, bool),
        has_lost=jnp.zeros(size, bool),
        fell_short=jnp.zeros(size, bool),
        num_done=zero,
    )


def _with_room(chunk: Chunk, needed: int) -> Chunk:
    width = max(compiled_size(needed), chunk.spike_times.shape[1])
    return dataclasses.replace(chunk, spike_times=_widened(chunk.spike_times, width))


def _widened(rows: Float[Array, "cells spikes"], width: int) -> Array:
    missing = ((0, 0), (0, width - rows.shape[1]))
    return jnp.pad(rows, missing, constant_values=jnp.inf)


def _solution(chunk: Chunk, num: int, max_spikes: int | None, most: int) -> Solution:
    width = max_spikes or compiled_size(most, ROOM)
    return Solution(
        spike_times=chunk.spike_times[:num, :width],
        num_spikes=chunk.num_spikes[:num],
        is_finite=chunk.is_finite[:num],
        has_lost=chunk.has_lost[:num],
        fell_short=chunk.fell_short[:num],
        V=None,
    )


def _joined(solutions: list[Solution]) -> Solution:
    """One solution of all chunks, on one device."""
    if len(solutions) == 1:
        return solutions[0]
    width = max(x.spike_times.shape[1] for x in solutions)
    (device,) = jnp.asarray(solutions[0].spike_times).devices()
    wide = [
        x._replace(spike_times=_widened(jnp.asarray(x.spike_times), width))
        for x in solutions
    ]
    here = jax.device_put(wide, device)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *here)


@functools.partial(
    jax.jit, static_argnames=("compiled", "bursts", "num_bursts", "is_limited")
)
def advance(
    chunk: Chunk,
    *,
    inputs: LaneInputs,
    step_sizes: StepSizes,
    limits: Limits,
    num_cells: Int[Array, ""],
    first: Int[Array, ""],
    compiled: CompiledNeuron,
    bursts: Callable[..., tuple[Lanes, DispatchOutput]],
    num_bursts: int,
    is_limited: bool,
) -> tuple[Chunk, Looked]:
    """Dispatches up to `ROUNDS` times, and less if the chunk is done or out of room.

    `inputs` are those of all cells, of which the chunk has `num_cells` from `first` on.
    Spikes for which there is no room are dropped if `is_limited`.
    """
    room = chunk.spike_times.shape[1]

    def wanting(val):
        i, chunk = val
        goes_on = (i < ROUNDS) & (chunk.num_done < num_cells)
        # A lane has at most one spike in a burst.
        return goes_on & (is_limited | (chunk.num_spikes.max() + num_bursts <= room))

    def one(val):
        i, chunk = val
        chunk, fresh = _refilled(chunk, num_cells)
        own = _own(inputs, first + jnp.maximum(chunk.cells, 0))
        busy, began = chunk.cells != IDLE, jnp.where(fresh, 0, chunk.lanes.whole)
        lanes, output = bursts(
            compiled,
            chunk.lanes,
            own,
            step_sizes,
            limits.until,
            busy,
            fresh,
            num_bursts,
            False,
        )
        return i + 1, _settled(chunk, lanes, began, output, limits)

    _, chunk = jax.lax.while_loop(wanting, one, (jnp.zeros((), jnp.int32), chunk))
    simulated = jnp.minimum(chunk.lanes.whole, limits.until)
    under_way = jnp.where(chunk.cells != IDLE, simulated, 0).astype(jnp.float32)
    return chunk, Looked(chunk.num_done, chunk.num_spikes.max(), jnp.sum(under_way))


def _refilled(chunk: Chunk, num_cells) -> tuple[Chunk, Bool[Array, " lanes"]]:
    """Gives idle lanes to the next cells; which lanes these are."""
    idle = chunk.cells == IDLE
    place = chunk.num_taken + jnp.cumsum(idle, dtype=jnp.int32) - 1
    fresh = idle & (place < num_cells)
    cells = jnp.where(fresh, place, chunk.cells)
    num_taken = chunk.num_taken + jnp.sum(fresh, dtype=jnp.int32)
    return dataclasses.replace(chunk, cells=cells, num_taken=num_taken), fresh


def _own(inputs: LaneInputs, cells: Int[Array, " lanes"]) -> LaneInputs:
    """What these cells are given."""
    g, stimulus, initial, kinetics = inputs
    take = lambda tree: jax.tree.map(lambda x: x[cells], tree)
    if stimulus is not None:
        stimulus = for_members(stimulus, cells)
    return LaneInputs(g[cells], stimulus, take(initial), take(kinetics))


def _settled(
    chunk: Chunk,
    lanes: Lanes,
    began: Int[Array, " lanes"],
    output: DispatchOutput,
    limits: Limits,
) -> Chunk:
    """Puts the spikes of a dispatch into rows, and sets lanes free that are done."""
    spikes, size = output.spikes, len(chunk.num_spikes)
    whole = began[None] + output.ahead.astype(jnp.int32)
    busy = chunk.cells != IDLE
    after = lambda time, moment: (
        (whole - moment[0]).astype(time.dtype) + time - moment[1]
    )
    known = busy[None] & (whole < limits.until)
    # Shortfalls are minus infinity, and have the time of their burst.
    short = (
        known
        & (spikes == -jnp.inf)
        & (after(jnp.zeros_like(spikes), limits.first) >= 0)
    )
    kept = known & jnp.isfinite(spikes)
    kept &= (after(spikes, limits.first) >= 0) & (after(spikes, limits.last) <= 0)
    # Idle lanes write nowhere.
    rows = jnp.where(busy, chunk.cells, size)
    nth = jnp.cumsum(kept, axis=0, dtype=jnp.int32) - 1
    column = chunk.num_spikes[jnp.minimum(rows, size - 1)][None] + nth
    times = whole.astype(spikes.dtype) + spikes
    done = busy & finished(lanes, limits.until)
    ended = jnp.where(done, chunk.cells, size)
    return Chunk(
        lanes=lanes,
        cells=jnp.where(done, IDLE, chunk.cells),
        num_taken=chunk.num_taken,
        spike_times=chunk.spike_times.at[jnp.where(kept, rows[None], size), column].set(
            times, mode="drop"
        ),
        num_spikes=chunk.num_spikes.at[rows].add(
            jnp.sum(kept, axis=0, dtype=jnp.int32), mode="drop"
        ),
        is_finite=chunk.is_finite.at[ended].set(jnp.isfinite(lanes.y.V), mode="drop"),
        has_lost=chunk.has_lost.at[ended].set(lanes.lost, mode="drop"),
        fell_short=chunk.fell_short.at[jnp.where(short.any(axis=0), rows, size)].set(
            True, mode="drop"
        ),
        num_done=chunk.num_done + jnp.sum(done, dtype=jnp.int32),
    )
