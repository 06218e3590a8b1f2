"""Brian2 as a C++ program of its own."""

import importlib
import pathlib
import subprocess
import time
from typing import Any

import numpy as np

from scripts.bench.peers import liu
from scripts.bench.peers.task import (
    by_cell,
    peak_mb,
    Result,
    Run,
    SPIKE_DOWN,
    SPIKE_UP,
    Task,
)


brian2: Any = importlib.import_module("brian2")


def build(task: Task) -> Run:
    """Writes and compiles the program."""
    ms = brian2.ms
    brian2.set_device("cpp_standalone", build_on_run=False)
    brian2.prefs.core.default_float_dtype = np.dtype(task.dtype).type
    brian2.defaultclock.dt = task.dt * ms
    cells = brian2.NeuronGroup(
        len(task.g),
        _equations(),
        threshold=f"v > {SPIKE_UP}",
        refractory=f"v > {SPIKE_DOWN}",
        method=task.method,
    )
    for x, value in zip(("v", *liu.STATES), liu.initial_state(), strict=True):
        setattr(cells, x, value)
    for name, values in liu.conductances(task.g).items():
        setattr(cells, name, values)
    monitor = brian2.SpikeMonitor(cells)
    brian2.run(task.duration * ms)
    device, folder = brian2.get_device(), task.folder / "program"
    device.build(directory=str(folder), compile=True, run=False)

    def run() -> Result:
        peak = _execute(folder, device.results_dir)
        device.has_been_run = True
        times = lambda: by_cell(
            np.asarray(monitor.i), np.asarray(monitor.t / ms), len(task.g)
        )
        return Result(times, peak)

    return run


def _equations() -> str:
    g = [f"{name} : 1 (constant)" for name in liu.conductances(np.zeros(8))]
    states = [
        f"d{x}/dt = (({inf}) - {x})/(({tau})*ms) : 1"
        for x, (inf, tau) in liu.STATES.items()
    ]
    return "\n".join([f"dv/dt = -({liu.TOTAL_CURRENT})/ms : 1", *states, *g])


def _execute(folder: pathlib.Path, results: str) -> float | None:
    """Runs the program; its peak memory, in MB."""
    # Not through Brian2, which would not let us look at the process. Its resource
    # usage will not do: that of a child includes its parent's memory.
    command = ["./main", "--results_dir", results]
    peak = None
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = peak_mb(process.pid) or peak
            time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"The program ended with {process.returncode}.")
    return peak
