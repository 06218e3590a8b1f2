"""dicjax beside other simulators: the same neurons for the same time.

Every measurement is of neurons of Liu et al. (1998), from conductances to spike times:
how fast, how long until it starts, how much memory, how accurate.
"""

import dataclasses
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

import dicjax as dj
from scripts.bench.peers.reference import LOOSER, reference, RTOL
from scripts.bench.processes import cores, environment
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.simulation.periods import errors, Truth
from scripts.bench.stg_members import stg_members


DISCARD = 3000.0  # ms
Peer = Literal["dicjax", "scipy", "arbor", "jaxley", "brian2", "neuron"]
Found = dict[str, Any]  # what a process has measured, or why it has not, as `missing`


@dataclasses.dataclass(frozen=True)
class Method:
    """A simulator with its settings: a row of the table."""

    peer: Peer
    method: str
    dt: float
    dtype: str = "float64"
    all_cores: bool = False

    def __str__(self) -> str:
        dt = f" {self.dt}" if self.dt else ""
        where = ", all cores" if self.all_cores else ""
        return f"{self.peer} {self.method}{dt} {self.dtype.replace('loat', '')}{where}"


# `dt` does not matter where steps adapt.
METHODS = (
    Method("dicjax", "midpoint", 0.05, "float32"),
    Method("dicjax", "midpoint", 0.025, "float32"),
    Method("dicjax", "midpoint", 0.1, "float32"),
    Method("dicjax", "midpoint", 0.05),
    Method("dicjax", "midpoint", 0.05, "float32", all_cores=True),
    Method("scipy", "BDF", 0),
    Method("arbor", "cnexp", 0.05),
    Method("jaxley", "bwd_euler", 0.05, "float32"),
    Method("jaxley", "bwd_euler", 0.025, "float32"),
    Method("jaxley", "crank_nicolson", 0.025, "float32"),
    Method("brian2", "exponential_euler", 0.05),
    Method("neuron", "fixed", 0.025),
    Method("neuron", "secondorder", 0.025),
)
STANDARD = METHODS[0]  # with which all others are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation(Benchmark):
    """Speed, memory and accuracy beside those of other simulators.

    Every measurement is a process of its own on one core (except for the row on all
    cores), with empty compilation caches. Rounds go through all rows in random order.
    Peers come with `pip install dicjax[bench]`; those that are missing are listed.
    Rates are of the run alone, the quickest within a second, in neuron-seconds of
    simulated time. Start-up is importing; build is compiling and laying out. Burst
    periods, or mean intervals of tonic cells, are compared with LSODA at 1e-9. Start on
    a quiet machine, and compare CPU-seconds otherwise.
    """

    peers: tuple[Peer, ...] = ("dicjax", "scipy", "arbor", "jaxley", "brian2", "neuron")
    """Simulators to measure. Ratios need dicjax among them."""
    rounds: int = 3
    """Measurements of every row."""
    neurons: tuple[int, ...] = (1, 512)
    """Sizes of population, each measured by itself."""
    at_most: tuple[tuple[Peer, int], ...] = (("scipy", 16), ("neuron", 64))
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

    def measure(self) -> Iterator[Measurement]:
        """Solves the reference, then measures all rows, round after round."""
        discard = min(DISCARD, self.duration / 2)
        with tempfile.TemporaryDirectory(prefix="dicjax-bench-") as name:
            folder = pathlib.Path(name)
            g = stg_members(max(self.neurons), self.seed, "float64")
            np.save(folder / "g.npy", g)
            dj.export_neuron(dj.stg(), g[:1], folder / "neuron")
            trains, looser = (
                reference(g[: self.reference_neurons], self.duration, rtol, self.cache)
                for rtol in (RTOL, LOOSER)
            )
            truth = Truth.from_trains(trains, looser, discard)
            found = measure_rounds(self, folder)
        for size in self.neurons:
            of = {method: found[method, num] for method, num in found if num == size}
            standard = _rates(of.get(STANDARD, []), self.duration, "run_cpu_s")
            for method, each in of.items():
                yield from summary(self.duration, method, size, each, standard)
                if runs := [x for x in each if "run_s" in x]:
                    case = {"simulator": str(method), "neurons": runs[-1]["num"]}
                    known = errors(runs[-1]["spikes"], truth, discard)
                    title = f"{_neurons(size)}: periods against LSODA at {RTOL:g}"
                    yield from row(title, case, known)


def _neurons(size: int) -> str:
    return f"{size} neuron{'s' if size > 1 else ''}"


def measure_rounds(
    options: Simulation, folder: pathlib.Path
) -> dict[tuple[Method, int], list[Found]]:
    """All measurements of every row and size; progress goes to standard error."""
    methods = [method for method in METHODS if method.peer in options.peers]
    cases = [(method, num) for num in options.neurons for method in methods]
    cases = [(method, num) for method, num in cases if num > 1 or not method.all_cores]
    order = random.Random(options.seed)
    found: dict[tuple[Method, int], list[Found]] = {case: [] for case in cases}
    for number in range(options.rounds):
        for case in order.sample(cases, len(cases)):
            if any("missing" in x for x in found[case]):
                continue
            x = measure_once(options, folder, *case)
            found[case].append({"round": number, **x})
            result = x.get("missing") or f"{x['run_cpu_s']:.2f} CPU-s"
            print(f"  round {number + 1}, {case[0]}: {result}", file=sys.stderr)
    return found


def measure_once(
    options: Simulation, folder: pathlib.Path, method: Method, num: int
) -> Found:
    """What one process has measured, with its spikes."""
    num = min(num, dict(options.at_most).get(method.peer, num))
    core = options.core if options.core is not None else cores()[-1]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = pathlib.Path(name)
        task = {
            **dataclasses.asdict(method),
            "g": str(folder / "g.npy"),
            "num": num,
            "duration": options.duration,
            "mechanism": str(folder / "neuron" / "mod"),
            "core": None if method.all_cores else core,
            "started": time.time(),
        }
        (own / "task.json").write_text(json.dumps(task), encoding="utf-8")
        result = execute(options, method.peer, own)
        if "run_s" in result:
            result["spikes"] = np.load(own / "spikes.npy")
    return {"num": num, **result}


def execute(options: Simulation, peer: str, folder: pathlib.Path) -> Found:
    """Runs the worker of a peer in its environment."""
    default = sys.executable if peer == "dicjax" else options.python.get("all")
    interpreter = options.python.get(peer, default or sys.executable)
    # Without what would warm a measurement, or spread it over cores.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    variables = environment(
        {"JAX_PLATFORMS": "cpu", **threads}, without=("JAX_", "XLA_")
    )
    try:
        done = subprocess.run(
            [interpreter, "-m", "scripts.bench.peers.worker", str(folder)],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=options.timeout,
        )
    except subprocess.TimeoutExpired:
        return {"missing": f"given up after {options.timeout:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"missing": f"failed ({last})"}
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def summary(
    duration: float,
    method: Method,
    size: int,
    found: Sequence[Found],
    standard: dict[int, float],
) -> Iterator[Measurement]:
    """Rates over rounds; `standard` has those of dicjax, per CPU-second and round."""
    runs = [x for x in found if "run_s" in x]
    if not runs:
        case = {"simulator": str(method)}
        yield Measurement(_neurons(size), case, note=found[-1]["missing"])
        return
    per_cpu = _rates(runs, duration, "run_cpu_s")
    columns = {
        ("per CPU-second", "neuron-s"): list(per_cpu.values()),
        ("dicjax is faster by", ""): [
            standard[i] / rate for i, rate in per_cpu.items() if i in standard
        ],
        ("per second", "neuron-s"): list(_rates(runs, duration, "run_s").values()),
        ("start-up", "s"): [x["import_s"] for x in runs],
        ("build", "s"): [x["build_s"] for x in runs],
        ("peak", "MB"): [x["peak_mb"] for x in runs if x["peak_mb"] is not None],
    }
    case = {
        "simulator": str(method),
        "version": runs[-1]["version"],
        "neurons": runs[-1]["num"],
    }
    yield from row(_neurons(size), case, columns)


def _rates(found: Sequence[Found], duration: float, seconds: str) -> dict[int, float]:
    """Neuron-seconds per second of each round."""
    runs = [x for x in found if "run_s" in x]
    return {x["round"]: x["num"] * duration / 1000 / x[seconds] for x in runs}
