"""NEURON with fixed steps, and the mechanism that dicjax exports."""

import importlib
import shutil
from typing import Any

import numpy as np

from scripts.bench.peers import liu
from scripts.bench.peers.task import Result, Run, SPIKE_UP, Task, use_tool


neuron: Any = importlib.import_module("neuron")


def build(task: Task) -> Run:
    """Compiles the mechanism and makes all cells."""
    (mechanism,) = task.mechanism.glob("*.mod")
    shutil.copytree(task.mechanism, task.folder / "mod")
    use_tool(task.folder, "nrnivmodl", "mod")
    neuron.load_mechanisms(str(task.folder))
    h = neuron.h
    h.secondorder = 2 if task.method == "secondorder" else 0
    h.dt = task.dt
    context = h.ParallelContext()
    context.set_maxstep(10)
    cells = [_cell(h, mechanism.stem, g) for g in task.g]

    def run() -> Result:
        h.finitialize(liu.INITIAL_V)
        context.psolve(task.duration)
        return Result(lambda: [np.array(times) for *_, times in cells])

    return run


def _cell(h: Any, suffix: str, g: np.ndarray) -> tuple[Any, Any, Any]:
    soma = h.Section(name="soma")
    soma.L = soma.diam = 100 / h.PI**0.5  # µm
    soma.cm = 1.0  # µF/cm²
    soma.insert(suffix)
    for name, value in liu.conductances(g).items():
        setattr(soma(0.5), f"gbar_{name[2:]}_{suffix}", value / 1000)  # S/cm²
    detector = h.NetCon(soma(0.5)._ref_v, None, sec=soma)
    detector.threshold = SPIKE_UP
    times = h.Vector()
    detector.record(times)
    return soma, detector, times
