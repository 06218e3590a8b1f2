"""How fast a sweep is, from the start of its command to the last part on disk."""

import dataclasses
import functools
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import jax
import numpy as np

import dicjax as dj
from dicjax.sweeps import standing
from scripts.bench.processes import environment, SWEEP
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.sweep.config import write_config
from scripts.bench.timing import in_turn, ratios


ENGINE = "engine alone"
WAYS = {
    "`dicjax sweep run`": (),
    "`--workers 2`": ("--workers", "2"),
    "`--dask local:2`": ("--dask", "local:2"),
}
COMPILING = 2048  # members of a first call, in which programs are compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput(Benchmark):
    """Members per second from the start of a command to the last part on disk.

    The command computes in its own process, in two others, and through Dask. It is
    compared with one call of `dj.simulate` for the same members, with nothing else
    done. All take turns, round after round.
    """

    members: int = 1_000_000
    """Members of the sweep."""
    duration: float = 1500.0
    """Simulated time of each, in ms."""
    here: bool = False
    """Only in the process of the command."""
    rounds: int = 1
    """Measurements of each."""

    def measure(self) -> Iterator[Measurement]:
        """Measures the engine and all ways of running the sweep."""
        ways = dict(list(WAYS.items())[:1]) if self.here else WAYS
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            small = write_config(folder, COMPILING, self.duration)
            for options in ways.values():
                run_sweep(small, folder, *options)
            engine(min(self.members, 1 << 14), self.duration)()
            path = write_config(folder, self.members, self.duration)
            calls = {ENGINE: engine(self.members, self.duration)}
            for way, options in ways.items():
                calls[way] = functools.partial(run_sweep, path, folder, *options)
            took = in_turn(calls, self.rounds)
            *_, last = sorted(folder.glob("out-*"), key=lambda x: x.stat().st_mtime)
            of = standing(last / "sweep")
        for way, x in took.items():
            columns = {
                ("time", "s"): x,
                ("rate", "members/s"): [self.members / s for s in x],
                ("of the engine's", ""): ratios(took[ENGINE], x),
            }
            yield from row("from start to the last part", {"way": way}, columns)
        size = of.num_bytes / self.members
        columns = {("parts", ""): of.num_parts, ("size of a member", "bytes"): size}
        yield from row("on disk", {}, columns)


def engine(num: int, duration: float) -> functools.partial:
    """One call that simulates the members of the sweep."""
    neuron = dj.stg()
    key = jax.random.split(jax.random.key(0))[0]
    g = np.asarray(dj.sample(key, neuron, num), np.float32)
    room = 1 << math.ceil(math.log2(200 * duration * 2 / 3 / 1000))
    return functools.partial(
        dj.simulate,
        neuron,
        g,
        duration,
        discard=duration / 3,
        dt=neuron.required_recipe.dt,
        max_spikes=max(64, room),
    )


def run_sweep(path: pathlib.Path, folder: pathlib.Path, *options: str) -> None:
    """Runs the command of a sweep to its end, in a folder of its own."""
    out = pathlib.Path(tempfile.mkdtemp(prefix="out-", dir=folder)) / "sweep"
    command = [*SWEEP, "run", str(path), "--out", str(out), *options]
    subprocess.run(command, check=True, capture_output=True, env=environment())
