"""What a simulator receives, and what it returns."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np


SPIKE_UP, SPIKE_DOWN = 10.0, 0.0  # mV, as in dicjax


@dataclasses.dataclass(frozen=True)
class Task:
    """A population to simulate.

    - `g`: conductances, in mS/cm², ordered as `liu.CHANNELS`.
    - `duration`, `dt`: in ms.
    - `method`, `dtype`: the simulator's own names.
    - `folder`: an empty one, for what has to be built.
    - `mechanism`: a folder with the NMODL that dicjax exports.
    """

    g: np.ndarray
    duration: float
    dt: float
    method: str
    dtype: str
    folder: pathlib.Path
    mechanism: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a simulation.

    - `spikes`: gives spike times (ms) by cell; not timed, for simulators that have
        traces only.
    - `peak_mb`: the peak memory of another process, if that does the work.
    """

    spikes: Callable[[], list[np.ndarray]]
    peak_mb: float | None = None


# What an adapter's `build` gives; may be called again.
Run = Callable[[], Result]


def crossings(ts: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Upward crossings of 10 mV confirmed by a fall below 0 mV, interpolated (ms)."""
    (rises,) = np.nonzero((V[:-1] < SPIKE_UP) & (V[1:] >= SPIKE_UP))
    (falls,) = np.nonzero(V < SPIKE_DOWN)
    if not len(rises) or not len(falls):
        return np.zeros(0)
    # Of several rises before one fall, the first; without a fall, none.
    fall = np.searchsorted(falls, rises)
    confirmed = fall < len(falls)
    first = np.append(True, fall[1:] != fall[:-1])
    i = rises[confirmed & first]
    return ts[i] + (SPIKE_UP - V[i]) / (V[i + 1] - V[i]) * (ts[i + 1] - ts[i])


def by_cell(cells: np.ndarray, times: np.ndarray, num_cells: int) -> list[np.ndarray]:
    """Times of every cell, in order."""
    order = np.lexsort((times, cells))
    ends = np.cumsum(np.bincount(cells, minlength=num_cells))
    return np.split(times[order], ends[:-1])


def peak_mb(pid: int | str = "self") -> float | None:
    """The peak memory of a running process, where the platform reports it."""
    # `getrusage` would count what the parent had before the process was executed.
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024 if "VmHWM" in lines else None


def use_tool(folder: pathlib.Path, *command: str) -> None:
    """Runs a program that came with a package of this interpreter."""
    beside = str(pathlib.Path(sys.executable).parent)
    path = os.pathsep.join((beside, os.environ.get("PATH", "")))
    program = shutil.which(command[0], path=path) or command[0]
    done = subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:]
        raise RuntimeError(f"{command[0]} failed: {' '.join(last)}")
