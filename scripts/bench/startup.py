"""How long dicjax takes to its first result."""

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from dicjax.neurons import MODELS
from scripts.bench.processes import environment
from scripts.bench.results import Benchmark, Measurement, row


# What a process does before it has a result; the command line prepares JAX as here.
IMPORT = "import dicjax"
SIMULATE = """
import sys
from dicjax.cli import configure_jax
configure_jax()
import dicjax as dj
import numpy as np
neuron = dj.MODELS[sys.argv[1]]()
g = neuron.default_g if neuron.defaults else neuron.box / 2
dj.simulate(neuron, np.tile(np.asarray(g, np.float32), (64, 1)), 1.0)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Startup(Benchmark):
    """How long a user waits: wall seconds of whole processes.

    A process imports dicjax, or simulates 64 neurons of a model for a millisecond:
    first with an empty cache of compiled programs, then with the cache that the first
    one left, kept as the command line keeps it. All take turns, round after round.
    """

    rounds: int = 3
    """Measurements of each."""
    models: tuple[str, ...] = tuple(MODELS)
    """Models to simulate."""

    def measure(self) -> Iterator[Measurement]:
        """Measures all in turn."""
        imports: list[float] = []
        first: dict[str, list[float]] = {model: [] for model in self.models}
        second: dict[str, list[float]] = {model: [] for model in self.models}
        for _ in range(self.rounds):
            with tempfile.TemporaryDirectory() as cache:
                imports.append(seconds(IMPORT, cache=cache))
            for model in self.models:
                with tempfile.TemporaryDirectory() as cache:
                    first[model].append(seconds(SIMULATE, model, cache=cache))
                    second[model].append(seconds(SIMULATE, model, cache=cache))
        yield from row("import dicjax", {}, {("whole process", "s"): imports})
        for model in self.models:
            columns = {
                ("empty cache", "s"): first[model],
                ("second process", "s"): second[model],
            }
            yield from row("first simulation", {"model": model}, columns)


def seconds(code: str, *args: str, cache: str) -> float:
    """Wall seconds of a process of its own, from its start to its end."""
    changes = {"XDG_CACHE_HOME": cache, "JAX_PLATFORMS": "cpu"}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *args],
        env=environment(changes, without=("JAX_",)),
        check=True,
    )
    return time.perf_counter() - began
