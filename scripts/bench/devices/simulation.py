"""How fast the devices of this machine simulate, and whether they agree with a CPU."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from dicjax.simulation.gpu_kernel import dispatch_fused
from dicjax.simulation.lanes import (
    BURST,
    CompiledNeuron,
    dispatch,
    initial_lanes,
    InitialConditions,
    LaneInputs,
    StepSizes,
)
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.stg_members import stg_members
from scripts.bench.timing import clocked, side_by_side, Timed


BURSTS = 64  # in each call of the compiled part
STEPS_PER_CALL = BURSTS * BURST
MOST_LANES = {"cpu": 512, "gpu": 524_288}
TILE = 128  # the kernel takes lanes in multiples of this
SHORT = 300.0  # ms, of the comparison with the CPU


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation(Benchmark):
    """Neuron-seconds per second of STG neurons, from conductances to spike times.

    Also measures the compiled part alone, with all arrays on the device: on a GPU, the
    kernel beside plain XLA. On a GPU, spike times are compared with the CPU's.
    """

    members: int | None = None
    """Neurons to simulate; a million on a GPU and 8,192 on a CPU if not given."""
    duration: float = 6000.0
    """Simulated time, in ms. Spikes of the second half are returned."""
    repeats: int = 3
    """Simulations of all neurons, after a short one that compiles."""
    calls: int = 5
    """Calls of the compiled part, after one that compiles."""

    def measure(self) -> Iterator[Measurement]:
        """Measures the comparison, the compiled part, and all of it."""
        device = jax.devices()[0]
        on_gpu = device.platform != "cpu"
        g = stg_members(self.members or (1_000_000 if on_gpu else 8192), 0, "float32")
        most = MOST_LANES["gpu" if on_gpu else "cpu"]
        lanes = g[: max(1, min(len(g), most) // TILE) * TILE]
        if on_gpu:
            yield from compare_with_cpu(g[:1024])
        parts = {"XLA": CompiledPart(lanes, dispatch)}
        if on_gpu:
            parts = {"kernel": CompiledPart(lanes, dispatch_fused), **parts}
        title = f"compiled part alone, {len(lanes):,} lanes"
        for name, took in side_by_side(parts, self.calls).items():
            yield from row(title, {"program": name}, parts[name].rates(took))
        yield from whole(g, self.duration, self.repeats)
        stats = device.memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            peak = stats["peak_bytes_in_use"] / 1e9
            yield from row("memory of the device", {}, {("peak", "GB"): peak})


class CompiledPart:
    """Calls of a compiled program; each goes on where the last one ended.

    - `calls`: how many there were.
    """

    def __init__(self, g: np.ndarray, advance: Callable):
        neuron, num = dj.stg().with_dtype(g.dtype), len(g)
        fill = lambda x: jnp.full(num, x, g.dtype)
        self.advance, self.calls = advance, 0
        self.steps = StepSizes(jnp.asarray(0.05, g.dtype), jnp.asarray(0.4, g.dtype))
        begin = InitialConditions(fill(neuron.initial_V), fill(neuron.initial_Ca))
        self.inputs = LaneInputs(jnp.asarray(g), None, begin)
        self.lanes = initial_lanes(neuron, begin, self.steps)
        self.program = CompiledNeuron(neuron)

    def __call__(self) -> object:
        """All steps of one call; what has to be waited for."""
        every = jnp.ones(len(self.inputs.g), bool)
        self.lanes, progress = self.advance(
            self.program,
            self.lanes,
            self.inputs,
            self.steps,
            jnp.asarray(10**6, jnp.int32),
            every,
            every if self.calls == 0 else ~every,
            BURSTS,
            False,
        )
        self.calls += 1
        return self.lanes, progress

    def rates(self, took: Timed) -> dict[tuple[str, str], float | list[float]]:
        """Nanoseconds of a step, and simulated time, of timed calls."""
        num, steps = len(self.inputs.g), STEPS_PER_CALL
        simulated = float(jnp.mean(self.lanes.whole)) / self.calls / 1000  # s a call
        return {
            ("a step of a lane", "ns"): [1e9 * x / (num * steps) for x in took.later],
            ("rate", "neuron-s/s"): [num * simulated / x for x in took.later],
            ("first call", "s"): took.first,
        }


def whole(g: np.ndarray, duration: float, repeats: int) -> Iterator[Measurement]:
    """How long `simulate` takes, from conductances to spike times."""
    neuron = dj.stg()
    _, first = clocked(lambda: dj.simulate(neuron, g, 10.0))
    runs = [
        clocked(lambda: dj.simulate(neuron, g, duration, discard=duration / 2))
        for _ in range(repeats)
    ]
    run = runs[-1][0]
    seconds = [x for _, x in runs]
    columns = {
        ("rate", "neuron-s/s"): [len(g) * duration / 1000 / x for x in seconds],
        ("time", "s"): seconds,
        ("first call, 10 ms", "s"): first,
        ("spikes of a neuron", ""): float(run.num_spikes.mean()),
        ("failed", ""): int((~run.succeeded).sum()),
        ("spike times", "GB"): run.spike_times.nbytes / 1e9,
    }
    yield from row(f"{len(g):,} neurons, {duration / 1000:g} s each", {}, columns)


def compare_with_cpu(g: np.ndarray) -> Iterator[Measurement]:
    """How far spikes are from those that the CPU computes."""
    here = dj.simulate(dj.stg(), g, SHORT)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        there = dj.simulate(dj.stg(), g, SHORT)
    ours, theirs = here.spike_times[:, :3], there.spike_times[:, :3]
    off = np.abs(ours - theirs)[np.isfinite(ours) & np.isfinite(theirs)]
    columns = {
        ("equal spike counts", ""): float((here.num_spikes == there.num_spikes).mean()),
        ("first three spikes, median", "ms"): float(np.median(off)),
        ("first three spikes, worst", "ms"): float(off.max()),
    }
    yield from row(f"against the CPU, {len(g)} neurons, {SHORT:g} ms", {}, columns)
