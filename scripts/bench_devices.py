"""Measures simulation on the devices at hand: `bench_devices.py [--members 1000000]`.

On a GPU: neuron-seconds per second of a population of STG members from door to spikes,
the compiled part alone (the kernel beside plain XLA), memory, and whether the numbers
are those of the CPU. On a CPU the same, without the kernel.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import dicjax as dj
from dicjax.engine import BURST, Compiled, dispatch, Start, start, Steps
from dicjax.kernel import dispatch_fused


DURATION = 6000.0  # ms
BURSTS = 64
REPEATS = 5


def population(num: int) -> np.ndarray:
    """Conductances of members with (g_s, g_u) uniform over the published range."""
    targets = np.random.default_rng(0).uniform((-20, 0), (20, 20), (num, 2))
    members = dj.compensate(jr.key(0), dj.stg(), targets, dtype=jnp.float32)
    return members.g[members.status == 0]


def whole(g: np.ndarray) -> None:
    """Times `simulate`, spikes out and all."""
    neuron = dj.stg()
    began = time.perf_counter()
    dj.simulate(neuron, g, 10.0)
    print(f"first call, compilation included: {time.perf_counter() - began:.1f} s")
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        run = dj.simulate(neuron, g, DURATION, discard=DURATION / 2)
        seconds = time.perf_counter() - began
        rates.append(len(g) * DURATION / 1000 / seconds)
        print(
            f"{len(g):,} members, {DURATION / 1000:g} s each: {seconds:.2f} s, "
            f"{rates[-1]:,.0f} neuron-seconds per second; "
            f"{run.num_spikes.mean():.1f} spikes per member, "
            f"{int((~run.succeeded).sum())} failed, "
            f"{run.spike_times.nbytes / 1e9:.2f} GB"
        )
    print(
        f"median {statistics.median(rates):,.0f}, from {min(rates):,.0f} to "
        f"{max(rates):,.0f}"
    )


def compiled_part(g: np.ndarray, name: str, advance) -> None:
    """Times steps alone, with everything on the device."""
    neuron, num = dj.stg().with_dtype(g.dtype), len(g)
    steps = Steps(jnp.asarray(0.05, g.dtype), jnp.asarray(0.4, g.dtype))
    fill = lambda x: jnp.full(num, x, g.dtype)
    begin = Start(fill(neuron.initial_V), fill(neuron.initial_Ca))
    lanes, every = start(neuron, begin, steps), jnp.ones(num, bool)
    args = (jnp.asarray(g), None, steps, jnp.asarray(10**6, jnp.int32), every)
    program, seconds = Compiled(neuron), []
    began = time.perf_counter()
    for repeat in range(REPEATS + 1):
        lanes, progress = advance(
            program,
            lanes,
            *args,
            every if repeat == 0 else ~every,
            begin,
            BURSTS,
            False,
        )
        jax.block_until_ready((lanes, progress))
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    first, *later = seconds
    per_step, least, most = (
        f(later) / (num * BURSTS * BURST) for f in (statistics.median, min, max)
    )
    ms = float(jnp.mean(lanes.whole)) / ((REPEATS + 1) * BURSTS * BURST)
    print(
        f"{name}: {1e9 * per_step:.3f} ns per lane and step "
        f"({1e9 * least:.3f} to {1e9 * most:.3f}), {ms / per_step / 1000:,.0f} "
        f"neuron-seconds per second; first call {first:.1f} s"
    )


def same_as_cpu(g: np.ndarray) -> None:
    """Compares spikes of a few members with those of the CPU."""
    here = dj.simulate(dj.stg(), g, 300.0)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        there = dj.simulate(dj.stg(), g, 300.0)
    first = np.isfinite(here.spike_times[:, :3]) & np.isfinite(there.spike_times[:, :3])
    off = np.abs(here.spike_times[:, :3] - there.spike_times[:, :3])[first]
    print(
        f"against the CPU, {len(g)} members, 300 ms: "
        f"{(here.num_spikes == there.num_spikes).mean():.1%} have as many spikes; "
        f"their first three differ by {np.median(off):.1e} ms (worst {off.max():.1e})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    device = jax.devices()[0]
    on_gpu = device.platform != "cpu"
    parser.add_argument("--members", type=int, default=1_000_000 if on_gpu else 8192)
    num = parser.parse_args().members
    print(f"JAX {jax.__version__}, {len(jax.devices())} x {device.device_kind}")
    g = population(num)
    lanes = g[: min(len(g), 524_288 if on_gpu else 512) // 128 * 128]
    if on_gpu:
        same_as_cpu(g[:1024])
        compiled_part(lanes, "kernel", dispatch_fused)
    compiled_part(lanes, "XLA", dispatch)
    whole(g)
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        print(f"peak device memory {stats['peak_bytes_in_use'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
