"""Runs benchmarks: `python -m scripts.bench COMMAND --help`."""

import importlib
import itertools
import os
import sys
from typing import Annotated, Any, Union

import tyro

from scripts.bench.processes import WIDE_VECTORS


COMMANDS = {
    "simulation": "simulation.comparison:Simulation",
    "kinetics": "simulation.kinetics:Kinetics",
    "gradients": "gradients:Gradients",
    "slopes": "slopes:Slopes",
    "generate synthetic": "generate.synthetic:Synthetic",
    "generate recordings": "generate.recordings:Recordings",
    "generate irregular": "generate.irregular:Irregular",
    "generate refinement": "generate.refinement:Refinement",
    "encoder tests": "encoder.checkpoints:Tests",
    "encoder seeds": "encoder.checkpoints:Seeds",
    "encoder speed": "encoder.speed:Speed",
    "encoder inference": "encoder.speed:Inference",
    "encoder calibration": "encoder.readings:Calibration",
    "encoder flaws": "encoder.readings:Flaws",
    "encoder recordings": "encoder.readings:Recordings",
    "encoder emulator": "encoder.emulator:Emulator",
    "encoder targets": "encoder.targets:Targets",
    "encoder learning": "encoder.learning:Learning",
    "operator accuracy": "operator.accuracy:Accuracy",
    "operator ablation": "operator.ablation:Ablation",
    "operator fourier": "operator.fourier:Fourier",
    "operator interpolation": "operator.interpolation:Interpolation",
    "operator speed": "operator.speed:Speed",
    "devices simulation": "devices.simulation:Simulation",
    "devices training": "devices.training:Training",
    "devices gpu": "devices.gpu:Gpu",
    "stretches": "stretches:Stretches",
    "startup": "startup:Startup",
    "sweep throughput": "sweep.throughput:Throughput",
    "sweep scale": "sweep.scale:Scale",
    "faults": "faults:Faults",
}
GROUPS = {
    "generate": "Populations for targets that nobody tuned to.",
    "encoder": "Encoders, and what is built on them.",
    "operator": "Neural operators beside tables, regression and a Fourier operator.",
    "devices": "Simulation and training on the devices of this machine.",
    "sweep": "Sweeps beside the engine that they drive.",
}


def load(where: str) -> type:
    """The class of a command, whose module is imported."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(f"scripts.bench.{module}"), name)


def command_line(kinds: dict[str, type]) -> Any:
    """The type from which Tyro makes commands, and commands of groups."""
    groups = []
    for group, some in itertools.groupby(kinds.items(), lambda x: x[0].split()[0]):
        each = tuple(
            Annotated[kind, tyro.conf.subcommand(name.split()[-1])]
            for name, kind in some
        )
        if group in GROUPS:
            how = tyro.conf.subcommand(group, description=GROUPS[group])
            each = (Annotated[Union[each], how],)  # noqa: UP007
        groups += each
    return Union[tuple(groups)]  # noqa: UP007


def main() -> None:
    """Reads the command line, measures, and ends with the benchmark's exit status."""
    # Both count only before Equinox and JAX are imported.
    os.environ.setdefault("EQX_ON_ERROR", "nan")  # solvers are not cached otherwise
    if sys.argv[1:2] == ["encoder"]:
        os.environ.setdefault("XLA_FLAGS", WIDE_VECTORS)
    kinds = {name: load(where) for name, where in COMMANDS.items()}
    benchmark = tyro.cli(
        command_line(kinds),
        prog="python -m scripts.bench",
        description="Measures dicjax beside what else could be used. Prints tables; "
        "with --out FILE, also appends every measurement to a file, as a line of JSON.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    name = next(name for name, kind in kinds.items() if type(benchmark) is kind)
    run = importlib.import_module("scripts.bench.results").run
    sys.exit(run(name, benchmark))


if __name__ == "__main__":
    main()
