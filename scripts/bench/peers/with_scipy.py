"""SciPy's BDF at the tolerances of the published data set's pipeline."""

import numpy as np
from scipy.integrate import solve_ivp

from scripts.bench.peers import liu
from scripts.bench.peers.task import crossings, Result, Run, Task


SAVE_EVERY = 0.1  # ms
RTOL, ATOL = 1e-2, 1e-4


def build(task: Task) -> Run:
    """Nothing to build: one neuron after the other, in Python."""
    ts = np.arange(0.0, task.duration, SAVE_EVERY)
    y0 = liu.initial_state()

    def potential(g: np.ndarray) -> np.ndarray:
        field = liu.vector_field(g)
        ends = (0.0, task.duration)
        return solve_ivp(field, ends, y0, task.method, ts, rtol=RTOL, atol=ATOL).y[0]

    def run() -> Result:
        V = [potential(g) for g in task.g]
        return Result(lambda: [crossings(ts[: len(x)], x) for x in V])

    return run
