"""Arbor: cable cells of one compartment, with a mechanism compiled for this machine."""

import importlib
import pathlib
from typing import Any

import numpy as np

from scripts.bench.peers import liu
from scripts.bench.peers.task import by_cell, Result, Run, SPIKE_UP, Task, use_tool


arbor: Any = importlib.import_module("arbor")
units = arbor.units


def build(task: Task) -> Run:
    """Compiles the mechanism and lays out all cells."""
    catalogue = _compile(task.folder)
    recipe = _recipe(task.g, catalogue)
    context = arbor.context(threads=1)
    # Cells of a group are advanced together, in vectors.
    hints = {arbor.cell_kind.cable: arbor.partition_hint(cpu_group_size=len(task.g))}
    parts = arbor.partition_load_balance(recipe, context, hints)
    simulation = arbor.simulation(recipe, context, parts)
    # Without connections nothing is exchanged, and so `all` would record nothing.
    simulation.record(arbor.spike_recording.local)

    def run() -> Result:
        simulation.reset()
        simulation.run(task.duration * units.ms, task.dt * units.ms)
        spikes = simulation.spikes()
        cells, times = spikes["source"]["gid"].astype(int), spikes["time"]
        return Result(lambda: by_cell(cells, times, len(task.g)))

    return run


def _compile(folder: pathlib.Path) -> Any:
    (folder / "mod").mkdir()
    (folder / "mod" / "stg.mod").write_text(_mechanism())
    use_tool(folder, "arbor-build-catalogue", "bench", "mod")
    return arbor.load_catalogue(str(folder / "bench-catalogue.so"))


def _recipe(g: np.ndarray, catalogue: Any) -> Any:
    properties = arbor.neuron_cable_properties()
    properties.catalogue = catalogue
    tree = arbor.segment_tree()
    radius = 50 / np.sqrt(np.pi)
    ends = arbor.mpoint(-radius, 0, 0, radius), arbor.mpoint(radius, 0, 0, radius)
    tree.append(arbor.mnpos, *ends, tag=1)
    labels = arbor.label_dict({"middle": "(location 0 0.5)"})

    class Recipe(arbor.recipe):
        def num_cells(self):
            return len(g)

        def cell_kind(self, gid):
            return arbor.cell_kind.cable

        def global_properties(self, kind):
            return properties

        def cell_description(self, gid):
            values = {k: float(x) for k, x in liu.conductances(g[gid]).items()}
            decor = arbor.decor()
            decor.set_property(
                Vm=liu.INITIAL_V * units.mV, cm=0.01 * units.F / units.m2
            )
            decor.paint("(all)", arbor.density("stg", values))
            detector = arbor.threshold_detector(SPIKE_UP * units.mV)
            decor.place('"middle"', detector, "spikes")
            policy = arbor.cv_policy_single()
            return arbor.cable_cell(tree, decor, labels, policy)

    return Recipe()


def _mechanism() -> str:
    """The model in Arbor's NMODL."""
    g = [f"g_{name}" for name in liu.CHANNELS]
    starts = [f"{x} = {inf}" for x, (inf, _) in liu.GATES.items()]
    # `cnexp` must not see that states depend on one another.
    known = [f"inf_{x} = {inf}" for x, (inf, _) in liu.STATES.items()]
    rates = [f"{x}' = (inf_{x} - {x})/({tau})" for x, (_, tau) in liu.STATES.items()]
    return "\n".join(
        [
            "NEURON {",
            "SUFFIX stg",
            "NONSPECIFIC_CURRENT i",
            f"RANGE {', '.join(g)}",
            "}",
            "PARAMETER {",
            *(f"{name} = 0" for name in g),
            "}",
            "STATE {",
            *liu.STATES,
            "}",
            "INITIAL {",
            f"Ca = {liu.INITIAL_CA}",
            *starts,
            "}",
            "BREAKPOINT {",
            "SOLVE states METHOD cnexp",
            f"i = 0.001*({liu.TOTAL_CURRENT})",
            "}",
            "DERIVATIVE states {",
            f"LOCAL {', '.join(f'inf_{x}' for x in liu.STATES)}",
            *known,
            *rates,
            "}",
            "",
        ]
    )
