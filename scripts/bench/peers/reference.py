"""What the peers should find: LSODA at tight tolerances, cell by cell."""

import concurrent.futures
import functools
import hashlib
import multiprocessing
import pathlib

import numpy as np
import scipy.integrate

from scripts.bench.peers import liu
from scripts.bench.peers.task import crossings
from scripts.bench.processes import cores


RTOL, LOOSER = 1e-9, 1e-7  # and a tenth of it absolute
SAVE_EVERY = 0.02  # ms


def reference(
    g: np.ndarray, duration: float, rtol: float, cache: pathlib.Path
) -> list[np.ndarray]:
    """Spike times (ms) of every cell, from `cache` where a run has left them.

    Takes some seconds per cell and core.
    """
    cache.mkdir(parents=True, exist_ok=True)
    paths = [cache / f"{_name(x, duration, rtol)}.npy" for x in g]
    todo = [i for i, path in enumerate(paths) if not path.exists()]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(cores()), context) as pool:
        solve = functools.partial(spike_times, duration=duration, rtol=rtol)
        results = pool.map(solve, g[todo])
        for i, times in zip(todo, results, strict=True):
            np.save(paths[i], times)
    return [np.load(path) for path in paths]


def spike_times(g: np.ndarray, duration: float, rtol: float = RTOL) -> np.ndarray:
    """Spike times (ms) of one cell."""
    field, y = liu.vector_field(g), liu.initial_state()
    ts, V, start = np.zeros(1), y[:1], 0.0
    while start < duration:  # in pieces, for the sake of memory
        stop = min(start + 500, duration)
        num = round((stop - start) / SAVE_EVERY)
        t = np.linspace(start, stop, num + 1)
        piece = scipy.integrate.odeint(
            field, y, t, tfirst=True, mxstep=100_000, rtol=rtol, atol=rtol / 10
        )
        y, start = piece[-1], stop
        ts, V = np.append(ts, t[1:]), np.append(V, piece[1:, 0])
    return crossings(ts, V)


def _name(g: np.ndarray, duration: float, rtol: float) -> str:
    model = repr((liu.STATES, liu.TOTAL_CURRENT, rtol, SAVE_EVERY, duration))
    return hashlib.sha256(model.encode() + g.tobytes()).hexdigest()[:24]
