"""Measures one task in a process of its own.

`python -m scripts.bench.peers.worker FOLDER`: the folder has the task in `task.json`,
and gets `result.json` and `spikes.npy`.
"""

import importlib
import importlib.metadata
import json
import os
import pathlib
import resource
import sys
import time
from typing import Any

import numpy as np

from scripts.bench.peers.task import peak_mb, Result, Run, Task


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def quickest(run: Run) -> tuple[Result, float, float]:
    """The run that took least CPU-seconds, with its wall and CPU-seconds.

    Short runs are repeated for a second, since the first may wait for what is compiled
    or read only then.
    """
    runs: list[tuple[Result, float, float]] = []
    while not runs or (sum(cpu for *_, cpu in runs) < 1 and len(runs) < 5):
        wall, cpu = time.perf_counter(), cpu_seconds()
        result = run()
        runs.append((result, time.perf_counter() - wall, cpu_seconds() - cpu))
    return min(runs, key=lambda x: x[2])


def measure(folder: pathlib.Path) -> dict[str, Any]:
    """Times and memory of a task; or why there are none, as `missing`."""
    given = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if given["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {given["core"]})
    peer = given["peer"]
    try:
        adapter = importlib.import_module(f"scripts.bench.peers.with_{peer}")
        version = importlib.metadata.version(peer)
    except ModuleNotFoundError as e:
        needed = "" if e.name == peer else f" ({e.name})"
        return {"missing": f"not installed{needed}"}
    except Exception as e:  # a peer may break on other versions of what it needs
        return {"missing": f"cannot be imported ({type(e).__name__}: {e})"}
    imported, imported_cpu = time.time(), cpu_seconds()
    (folder / "build").mkdir()
    task = Task(
        g=np.load(given["g"])[: given["num"]],
        duration=given["duration"],
        dt=given["dt"],
        method=given["method"],
        dtype=given["dtype"],
        folder=folder / "build",
        mechanism=pathlib.Path(given["mechanism"]),
    )
    run = adapter.build(task)
    built, built_cpu = time.time(), cpu_seconds()
    result, run_s, run_cpu_s = quickest(run)
    peaks = [x for x in (result.peak_mb, peak_mb()) if x is not None]
    _save(folder / "spikes.npy", result.spikes())
    return {
        "version": version,
        "import_s": imported - given["started"],
        "import_cpu_s": imported_cpu,
        "build_s": built - imported,
        "build_cpu_s": built_cpu - imported_cpu,
        "run_s": run_s,
        "run_cpu_s": run_cpu_s,
        "peak_mb": max(peaks, default=None),
    }


def _save(path: pathlib.Path, trains: list[np.ndarray]) -> None:
    rows = np.full((len(trains), max(1, *map(len, trains), 1)), np.inf)
    for row, times in zip(rows, trains, strict=True):
        row[: len(times)] = times
    np.save(path, rows)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    result = json.dumps(measure(folder))
    (folder / "result.json").write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
