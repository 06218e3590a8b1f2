"""All that a GPU is for, in one run: what is right, how fast, and how much memory."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from dicjax.simulation.gpu_kernel import dispatch_fused
from dicjax.simulation.lanes import dispatch
from scripts.bench.devices.simulation import CompiledPart, SHORT, TILE
from scripts.bench.peers.exported import is_installed, potentials_by_jaxley
from scripts.bench.processes import ROOT
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.stg_members import stg_members
from scripts.bench.timing import clocked


TITLE = "the GPU, in one run"
DURATION = 1000.0  # ms of every simulation
GOAL_RATE = 1e6  # neuron-seconds per second, end to end
GOAL_SECONDS = 1.0  # for 1,000 valid members
EXAMPLE = ROOT / "examples" / "slow_burster.csv"
Rows = Iterator[Measurement]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much each part does.

    - `members`: of simulations; `gradients`: cells; `traces`: of the operator.
    - `duration`: of trajectories that are differentiated, in ms.
    - `valid`: members to generate.
    """

    members: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    gradients: tuple[int, ...] = (64, 4096)
    duration: float = 200.0
    valid: int = 1000
    traces: int = 16_384


SMALL = Sizes((128,), (4,), 20.0, 16, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu(Benchmark):
    """Everything that a GPU is for, in one run of a few minutes.

    The kernel against the CPU, simulation end to end beside plain XLA and Jaxley,
    features, gradients, a population, the operator, and memory. A part that fails is
    reported, and the others still run.
    """

    small: bool = False
    """Little of everything, which a CPU does in two minutes."""
    only: tuple[str, ...] = ()
    """Parts to run; all by default."""

    def measure(self) -> Rows:
        """Measures every part."""
        sizes = SMALL if self.small else Sizes()
        for name in self.only or PARTS:
            began = time.perf_counter()
            try:
                yield from PARTS[name](sizes)
            except Exception as e:  # the other parts say something all the same
                first = " ".join(str(e).strip().splitlines()[:1])
                note = f"failed: {type(e).__name__}: {first}"
                yield Measurement(TITLE, {"part": name}, note=note)
            seconds = time.perf_counter() - began
            yield from figure(name, "all of this part", seconds, "s")

    def status(self, measurements: Sequence[Measurement]) -> int:
        """1 if a part failed."""
        return int(any(x.note.startswith("failed") for x in measurements))


def figure(
    part: str, what: str, value: float, unit: str, goal: float | None = None
) -> Rows:
    """One figure, beside its goal where there is one."""
    case = {"part": part, "what": what, "unit": unit}
    columns = {("value", ""): float(value)}
    if goal is not None:
        columns["goal", ""] = goal
    yield from row(TITLE, case, columns)


def members_of(num: int) -> np.ndarray:
    """Conductances (mS/cm²) of STG neurons; a few thousand, again and again."""
    some = stg_members(min(2 * num, 8192), 0, "float32")
    return np.resize(some, (num, some.shape[1]))


def agreement(sizes: Sizes) -> Rows:
    """The kernel beside plain XLA on the same lanes, and spikes beside the CPU's."""
    del sizes
    g = members_of(TILE)
    fused = dispatch_fused
    if jax.devices()[0].platform == "cpu":
        fused = functools.partial(dispatch_fused, interpret=True)
    ends = []
    for advance in (dispatch, fused):
        part = CompiledPart(g, advance)
        part()
        ends.append(jax.tree.map(np.asarray, part.lanes))
    same = np.mean(ends[0].whole == ends[1].whole)
    off = np.median(np.abs(ends[0].y.V - ends[1].y.V))
    part = "agreement"
    yield from figure(part, "lanes of the kernel at the same ms", same, "", 1)
    yield from figure(part, "potentials of the kernel, median off", off, "mV")
    here = dj.simulate(dj.stg(), g, SHORT)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        there = dj.simulate(dj.stg(), g, SHORT)
    equal = float(np.mean(here.num_spikes == there.num_spikes))
    yield from figure(part, "spike counts as on the CPU", equal, "", 1)
    ours, theirs = here.spike_times[:, :3], there.spike_times[:, :3]
    known = np.isfinite(ours) & np.isfinite(theirs)
    worst = np.abs(ours[known] - theirs[known]).max(initial=0)
    yield from figure(part, "first three spikes, worst off", worst, "ms")


def simulation(sizes: Sizes) -> Rows:
    """Neuron-seconds per second, from conductances to spikes on the host."""
    neuron, part = dj.stg(), "simulation"
    nothing = dj.Waveform(np.zeros(2, np.float32), DURATION)  # not for the kernel
    for num in sizes.members:
        g, failed = members_of(num), 0
        for name, stimulus in (("", None), (", plain XLA", nothing)):
            run = lambda g=g, x=stimulus: dj.simulate(neuron, g, DURATION, stimulus=x)
            clocked(run)
            found, seconds = clocked(run)
            failed += int((~found.succeeded).sum())
            what, rate = f"{num:,} members{name}", num * DURATION / 1000 / seconds
            yield from figure(part, what, rate, "neuron-s/s", GOAL_RATE)
        yield from figure(part, f"{num:,} members, failed", failed, "", 0)
    yield from peak_memory(part)


def by_jaxley(sizes: Sizes) -> Rows:
    """The same by Jaxley, whose potentials stay on the device."""
    if not is_installed():
        yield Measurement(TITLE, {"part": "Jaxley"}, note="not installed")
        return
    num = sizes.members[0]
    g = jnp.asarray(members_of(num))
    one = potentials_by_jaxley(dj.stg(), sizes.duration, 0.025)
    run = functools.partial(jax.jit(jax.vmap(one)), g)
    clocked(run)
    rate = num * sizes.duration / 1000 / clocked(run)[1]
    yield from figure("Jaxley", f"{num:,} members, dt 0.025 ms", rate, "neuron-s/s")


def features(sizes: Sizes) -> Rows:
    """Features of spike trains that are on the device."""
    num = sizes.members[0]
    run = dj.simulate(dj.stg(), members_of(num), DURATION)
    measure = functools.partial(dj.spike_features, jnp.asarray(run.spike_times))
    clocked(measure)
    rate = num / clocked(measure)[1]
    yield from figure("features", f"{num:,} trains", rate, "trains/s")


def gradients(sizes: Sizes) -> Rows:
    """Gradients of a loss of trajectories by all conductances."""
    neuron, ts, part = dj.stg(), np.arange(1.0, sizes.duration, 1.0), "gradients"
    loss = lambda g: jnp.mean(dj.solve(neuron, g, ts).V ** 2)
    compiled = jax.jit(jax.value_and_grad(loss))
    for num in sizes.gradients:
        run = functools.partial(compiled, jnp.asarray(members_of(num)))
        _, first = clocked(run)
        (_, slopes), seconds = clocked(run)
        what, rate = f"{num:,} cells", num * sizes.duration / 1000 / seconds
        yield from figure(part, what, rate, "neuron-s/s")
        yield from figure(part, f"{what}, first call", first, "s")
        finite = np.isfinite(slopes).all(axis=1).mean()
        yield from figure(part, f"{what}, finite", finite, "", 1)
    yield from peak_memory(part)


def population(sizes: Sizes) -> Rows:
    """Valid members for a recording, in a first call and in a second one."""
    (train,) = dj.read_spike_trains(EXAMPLE)
    goal, part = GOAL_SECONDS if sizes.valid == 1000 else None, "population"
    for seed, name in enumerate(("first call", "second call")):
        key = jax.random.key(seed)
        make = functools.partial(dj.generate, key, train, num=sizes.valid)
        result, seconds = clocked(lambda make=make: make(model="stg-prinz"))
        what = f"{sizes.valid:,} valid members, {name}"
        yield from figure(part, what, seconds, "s", goal)
        found = result.num_accepted
        yield from figure(part, f"found, {name}", found, "", sizes.valid)


def operator(sizes: Sizes) -> Rows:
    """Responses of the neural operator to a second of current."""
    learned, every = dj.load_operator(), 0.5
    cells = dj.draw_ensemble(jax.random.key(0), learned, {}, min(sizes.traces, 1024))
    cells = np.resize(cells, (sizes.traces, cells.shape[1]))
    current = np.ones(round(DURATION / every), np.float32)
    run = lambda: dj.respond(learned, current, cells, every=every, out_of_range="try")
    clocked(run)
    rate = sizes.traces * DURATION / 1000 / clocked(run)[1]
    yield from figure("operator", f"{sizes.traces:,} traces", rate, "neuron-s/s")


def peak_memory(part: str) -> Rows:
    """The most memory of the device that was in use so far, where it is known."""
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if peak is not None:
        yield from figure(part, "memory of the device, peak so far", peak / 1e9, "GB")


PARTS: dict[str, Callable[[Sizes], Rows]] = {
    "agreement": agreement,
    "simulation": simulation,
    "features": features,
    "population": population,
    "operator": operator,
    "gradients": gradients,
    "Jaxley": by_jaxley,
}
