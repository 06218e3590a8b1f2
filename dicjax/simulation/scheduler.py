"""Simulation by our own engine: blocks of lanes on every core or device."""

import contextlib
import math
import os
from collections.abc import Generator
from typing import Any

import jax
import numpy as np

from dicjax._core import handed_out, Progress, reports, Stage
from dicjax.simulation.lane_block import (
    advance,
    collect,
    IDLE,
    idle_block,
    program_of,
    refill,
)
from dicjax.simulation.problem import assemble, num_ms, Part, Problem, Solution


# Numbers of lanes that a dispatch is compiled for, with its number of bursts: enough
# that the host's share of the time is small, few enough to report progress often.
CPU = {16: 512, 64: 256, 128: 128, 256: 64, 512: 64}
GPU = {1024: 64, 8192: 64, 65_536: 64, 524_288: 64}
# A step has a fixed cost, equal to the cost of this many lanes.
CPU_OVERHEAD, GPU_OVERHEAD = 70, 50_000
# The busiest lane works longer than the average lane by this part of a simulation.
IMBALANCE = 0.6


def solve(problem: Problem, on_progress: Progress | None) -> Solution:
    """Simulates all cells of a problem, side by side.

    `on_progress` is called on this thread, with (stage, done, total) ms of all cells.
    """
    with contextlib.closing(_parts(problem, on_progress)) as parts:
        return assemble(problem, parts)


def _parts(problem: Problem, on_progress: Progress | None) -> Generator[Part]:
    """Parts of the solution as they come in, of each cell in order of time.

    A worker per core or device advances a block of lanes in a thread of its own. The
    workers share nothing but the cells that are left, and a queue of what they found.
    """
    devices, num_lanes, num_bursts = places(len(problem.g))
    program = program_of(problem, num_bursts)
    next_cells = handed_out(len(problem.g))
    take = lambda most: np.array(next_cells(most), int)

    def work(device, report, stopped) -> None:
        block = refill(program, idle_block(program, device, num_lanes), take)
        while not stopped.is_set() and (block.cells != IDLE).any():
            block, part = collect(program, *advance(program, block))
            report(part)
            block = refill(program, block, take)

    # One compilation before all start, or every thread would compile for itself.
    with jax.default_device(devices[0]):
        advance(program, idle_block(program, devices[0], num_lanes))
    done, total = 0, len(problem.g) * num_ms(problem)
    with contextlib.closing(reports(devices, work)) as parts:
        for part in parts:
            yield part
            done += part.num_ms
            if on_progress is not None:
                on_progress(Stage("simulating"), done, total)


def places(num_cells: int, per_device: int | None = None) -> tuple[list[Any], int, int]:
    """Returns the device of each worker, and its lanes and bursts per dispatch.

    `per_device` workers use a device; by default as many as keep it busy.
    """
    devices = simulating_devices()
    kind = devices[0].platform
    sizes, overhead = (CPU, CPU_OVERHEAD) if kind == "cpu" else (GPU, GPU_OVERHEAD)
    # XLA keeps one core busy, so that every core needs a worker. A GPU would wait while
    # the host sorts spikes, so that it needs two.
    if per_device is None:
        per_device = max(1, num_cores() // len(devices)) if kind == "cpu" else 2
    devices = devices * per_device
    num_workers = min(len(devices), math.ceil(num_cells / min(sizes)))
    share = num_cells / num_workers

    def cost(lanes: int) -> float:
        return (overhead + lanes) * (max(1, share / lanes) + IMBALANCE)

    lanes = min(sizes, key=cost)
    return devices[:num_workers], lanes, sizes[lanes]


def simulating_devices() -> list[Any]:
    """The default device if one is set, or else all of this process."""
    default = jax.config.jax_default_device  # pyright: ignore
    return [default] if default is not None else jax.local_devices()


def num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
