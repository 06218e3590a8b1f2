"""Measures dicjax beside other simulators: `bench_simulation.py --help`.

Every row is the same neurons (Liu et al. 1998) for the same time, from conductances to
spike times: how fast, how long until it starts, how much memory, how accurate.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import tyro
from simulators.reference import LOOSER, reference, RTOL
from simulators.summary import summarise, Summary, table, Truth

import dicjax as dj
from dicjax.output.exporters import export_neuron


G_S, G_U = (-20.0, 20.0), (0.0, 20.0)
DISCARD = 3000.0  # ms


@dataclasses.dataclass(frozen=True)
class Row:
    """A simulator with its settings, as the table lists it."""

    peer: str
    method: str
    dt: float
    dtype: str = "float64"
    all_cores: bool = False

    def __str__(self) -> str:
        dt = f" {self.dt}" if self.dt else ""
        cores = ", all cores" if self.all_cores else ""
        return f"{self.peer} {self.method}{dt} {self.dtype.replace('loat', '')}{cores}"


# `dt` counts for nothing where steps adapt.
ROWS = (
    Row("dicjax", "midpoint", 0.05, "float32"),
    Row("dicjax", "midpoint", 0.025, "float32"),
    Row("dicjax", "midpoint", 0.1, "float32"),
    Row("dicjax", "midpoint", 0.05),
    Row("dicjax", "midpoint", 0.05, "float32", all_cores=True),
    Row("scipy", "BDF", 0),
    Row("arbor", "cnexp", 0.05),
    Row("jaxley", "bwd_euler", 0.05, "float32"),
    Row("jaxley", "bwd_euler", 0.025, "float32"),
    Row("jaxley", "crank_nicolson", 0.025, "float32"),
    Row("brian2", "exponential_euler", 0.05),
    Row("neuron", "fixed", 0.025),
    Row("neuron", "secondorder", 0.025),
)
STANDARD = ROWS[0]
PEERS = tuple(dict.fromkeys(row.peer for row in ROWS))


@dataclasses.dataclass(frozen=True)
class Options:
    """Prints dicjax's speed, memory and accuracy beside those of other simulators.

    Every measurement is a process of its own, held to one core (but for the row on all
    cores), with empty compilation caches. Rounds go through all rows in random order;
    the table has medians and, in brackets, least and most over rounds. Peers come with
    `pip install dicjax[bench]`; those that are missing are listed as such. Start on a
    quiet machine, and compare CPU-seconds where it is not.
    """

    peers: tuple[str, ...] = PEERS
    """Simulators to measure. Ratios need dicjax among them."""
    rounds: int = 3
    """Measurements of every row."""
    neurons: tuple[int, ...] = (1, 512)
    """Sizes of population, each measured by itself."""
    at_most: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"scipy": 16, "neuron": 64}
    )
    """Neurons at most for simulators that are slow and gain nothing from numbers."""
    reference_neurons: int = 32
    """Neurons whose periods are compared with those of LSODA at 1e-9."""
    duration: float = 6000.0
    """Simulated time, in ms. Features are of what follows 3,000 ms, or half of it."""
    seed: int = 0
    """Seed of the population, whose DICs are uniform over the published range, and of
    the order of measurements."""
    core: int | None = None
    """The core to hold processes to; the last one by default."""
    cache: pathlib.Path = pathlib.Path(tempfile.gettempdir()) / "dicjax-reference"
    """Where solutions of LSODA, slow to find, are kept for the next time."""
    python: dict[str, str] = dataclasses.field(default_factory=dict)
    """Interpreters of peers that need an environment of their own, as
    `--python brian2 /path/to/bin/python`; `all` stands for those not named."""
    timeout: float = 1800.0
    """Seconds after which a measurement is given up."""
    json: pathlib.Path | None = None
    """Where to write all measurements, and what the table has."""


def population(num: int, seed: int) -> np.ndarray:
    """Conductances (mS/cm²) of neurons with DICs uniform over the published range."""
    rng = np.random.default_rng(seed)
    (low_s, high_s), (low_u, high_u) = G_S, G_U
    targets = rng.uniform((low_s, low_u), (high_s, high_u), (num, 2))
    with jax.enable_x64(True):
        found = dj.compensate(
            jax.random.key(seed), dj.stg(), targets, dtype=np.dtype(np.float64)
        )
    return np.asarray(found.g, np.float64)


class Bench:
    """A population on file, and the processes that simulate it."""

    def __init__(self, options: Options, folder: pathlib.Path):
        self.options, self.folder = options, folder
        self.g = population(max(options.neurons), options.seed)
        np.save(folder / "g.npy", self.g)
        export_neuron(dj.stg(), self.g[:1], folder / "neuron")
        cores = _cores()
        self.core = options.core if options.core is not None else cores[-1]

    def measure(self, row: Row, num: int) -> dict[str, Any]:
        """What one process found, its spikes included."""
        num = min(num, self.options.at_most.get(row.peer, num))
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = pathlib.Path(name)
            task = {
                **dataclasses.asdict(row),
                "g": str(self.folder / "g.npy"),
                "num": num,
                "duration": self.options.duration,
                "mechanism": str(self.folder / "neuron" / "mod"),
                "core": None if row.all_cores else self.core,
                "started": time.time(),
            }
            (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
            result = self._execute(row.peer, folder)
            if "run_s" in result:
                result["spikes"] = np.load(folder / "spikes.npy")
        return {"row": str(row), "num": num, **result}

    def _execute(self, peer: str, folder: pathlib.Path) -> dict[str, Any]:
        python = self.options.python
        default = sys.executable if peer == "dicjax" else python.get("all")
        interpreter = python.get(peer, default or sys.executable)
        command = [interpreter, "-m", "simulators.worker", str(folder)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=_environment(),
                capture_output=True,
                text=True,
                timeout=self.options.timeout,
            )
        except subprocess.TimeoutExpired:
            return {"missing": f"given up after {self.options.timeout:g} s"}
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"missing": f"failed ({last})"}
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def _environment() -> dict[str, str]:
    """That of this process, without what would warm or spread out a measurement."""
    scripts = pathlib.Path(__file__).resolve().parent
    paths = [str(scripts), str(scripts.parent), os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    search = os.pathsep.join(filter(None, paths))
    return {**kept, **threads, "PYTHONPATH": search, "JAX_PLATFORMS": "cpu"}


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_rounds(bench: Bench) -> list[dict[str, Any]]:
    """All measurements; progress goes to standard error."""
    options = bench.options
    rows = [row for row in ROWS if row.peer in options.peers]
    cases = [(row, num) for row in rows for num in options.neurons]
    cases = [(row, num) for row, num in cases if num > 1 or not row.all_cores]
    order, measurements = random.Random(options.seed), []
    given_up = set()
    for number in range(options.rounds):
        for row, num in order.sample(cases, len(cases)):
            if (row, num) in given_up:
                continue
            found = bench.measure(row, num)
            measurements.append({"round": number, "size": num, **found})
            if "missing" in found:
                given_up.add((row, num))
            _say(f"round {number + 1}: {row}, {num}: {_brief(found)}")
    return measurements


def _brief(found: dict[str, Any]) -> str:
    if "missing" in found:
        return found["missing"]
    return f"{found['run_cpu_s']:.2f} CPU-s, {found['run_s']:.2f} s"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.processor()


def header(
    options: Options, measurements: list[dict[str, Any]], truth: Truth, load: float
) -> str:
    """What was measured, on what."""
    versions = {x["row"].split()[0]: x["version"] for x in measurements if "run_s" in x}
    versions["jax"] = importlib.metadata.version("jax")
    versions["dicjax"] = _revision() or dj.__version__
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"{_processor()}, {len(_cores())} cores, load {load:.1f} before and "
        f"{_load():.1f} after; Python {platform.python_version()}, {named}.\n"
        f"STG neurons, {options.duration:g} ms each, {options.rounds} rounds; n-s is a "
        "neuron-second of simulated time. Rates are of the run alone, the quickest in "
        "a second; start-up is importing, build is compiling and laying out, both in "
        "wall seconds. Errors of "
        "the period (burst period, or mean interval of tonic cells) are against LSODA "
        f"at rtol {RTOL:g}, of {len(truth.certain)} neurons at most; left out are "
        f"{int((~truth.certain).sum())} whose period or label is another at {LOOSER:g} "
        "or without the first or last spike."
    )


def _revision() -> str:
    """Of the sources, where they are under version control."""
    command = ["git", "describe", "--always", "--dirty"]
    folder = pathlib.Path(__file__).parent
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        return ""


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def main(options: Options) -> None:
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        sys.exit(f"No such peers: {sorted(unknown)}; there are {PEERS}.")
    load = _load()
    with tempfile.TemporaryDirectory(prefix="dicjax-bench-") as name:
        bench = Bench(options, pathlib.Path(name))
        _say("reference: LSODA")
        g = bench.g[: options.reference_neurons]
        trains, looser = (
            reference(g, options.duration, rtol, options.cache)
            for rtol in (RTOL, LOOSER)
        )
        measurements = run_rounds(bench)
    discard = min(DISCARD, options.duration / 2)
    truth = Truth.from_trains(trains, looser, discard)
    summaries: list[Summary] = []
    print(header(options, measurements, truth, load))
    for size in options.neurons:
        of = [x for x in measurements if x["size"] == size]
        some = summarise(of, options.duration, str(STANDARD), truth, discard)
        summaries += some
        print(f"\n{size} neuron{'s' if size > 1 else ''}\n{table(some)}")
    if options.json is not None:
        _write(options.json, measurements, summaries)


def _write(
    path: pathlib.Path, measurements: list[dict[str, Any]], summaries: list[Summary]
) -> None:
    plain = [{k: v for k, v in x.items() if k != "spikes"} for x in measurements]
    rows = [dataclasses.asdict(summary) for summary in summaries]
    text = json.dumps({"measurements": plain, "table": rows}, indent=1)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
