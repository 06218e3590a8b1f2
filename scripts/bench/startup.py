"""Measures how long dicjax takes to its first result: `bench_startup.py --help`."""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import dicjax as dj


# What a process does before it has a result; the doors prepare JAX as this does.
IMPORT = "import dicjax"
SIMULATE = """
import sys
from dicjax.cli import _prepare
_prepare()
import dicjax as dj
import numpy as np
neuron = dj.MODELS[sys.argv[1]]()
g = neuron.default_g if neuron.defaults else neuron.box / 2
dj.simulate(neuron, np.tile(np.asarray(g, np.float32), (64, 1)), 1.0)
"""


def seconds(code: str, *args: str, cache: str) -> float:
    """Wall seconds of a process of its own, from its start to its end."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    # Where the command line keeps compiled programs.
    environment = {**kept, "XDG_CACHE_HOME": cache, "JAX_PLATFORMS": "cpu"}
    repository = str(pathlib.Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (repository, kept.get("PYTHONPATH")))
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *args], env=environment, check=True)
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    median = statistics.median(values)
    return f"{median:.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Wall seconds of whole processes, medians over rounds (least and "
        "most in brackets): importing dicjax, and simulating 64 neurons of each model "
        "for a millisecond, at first with an empty compilation cache and then with the "
        "one that the first left, kept as the command line keeps it."
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument(
        "--models", nargs="+", default=list(dj.MODELS), choices=list(dj.MODELS)
    )
    options = parser.parse_args()
    num = range(options.rounds)
    with tempfile.TemporaryDirectory() as cache:
        print(f"import dicjax: {spread([seconds(IMPORT, cache=cache) for _ in num])} s")
    print(f"\n{'first simulation, s':20}  {'empty cache':20}  second process")
    for model in options.models:
        first, second = [], []
        for _ in num:
            with tempfile.TemporaryDirectory() as cache:
                first.append(seconds(SIMULATE, model, cache=cache))
                second.append(seconds(SIMULATE, model, cache=cache))
        print(f"{model:20}  {spread(first):20}  {spread(second)}", flush=True)


if __name__ == "__main__":
    main()
