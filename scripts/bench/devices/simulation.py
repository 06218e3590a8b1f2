"""Measures simulation and training on the devices at hand.

`bench_devices.py [--members 1000000]`, simulation.
On a GPU: neuron-seconds per second of a population of STG members from door to spikes,
the compiled part alone (the kernel beside plain XLA), memory, and whether the numbers
are those of the CPU. On a CPU the same, without the kernel.

`bench_devices.py training [--scale 1] [--steps 160]`: optimiser steps per second of the
encoder and of the operator on 1, 2, ... all devices, each in a process of its own, with
the batch of the defaults (or `--scale` times as large) and with one that grows with the
devices. What XLA_FLAGS=--xla_force_host_platform_device_count=2 makes of a CPU shows
that it runs, and nothing about GPUs.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import dicjax as dj
from dicjax.inference.config import EncoderConfig, TrainingConfig
from dicjax.inference.training import Batch, new_encoder, train_encoder
from dicjax.operator.characteristics import Characteristics, NAMES, to_coordinates
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.families import find_family
from dicjax.operator.model import untrained
from dicjax.operator.training import members_of, train_operator
from dicjax.simulation.gpu_kernel import dispatch_fused
from dicjax.simulation.lanes import BURST, Compiled, dispatch, Start, start, Steps


DURATION = 6000.0  # ms
BURSTS = 64
REPEATS = 5
SKIPPED = 3 / 8  # of the steps of a training, in which all is compiled


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


def encoder_speed(scale: int, num_steps: int) -> float:
    """Optimiser steps per second of an encoder, with trains of no neuron."""
    rng, num = np.random.default_rng(0), 4096
    times = np.cumsum(rng.uniform(20, 400, (num, 128)), axis=1)
    single = lambda *shape: rng.uniform(0, 1, shape).astype(np.float32)
    known = Batch(
        spike_times=times.astype(np.float32),
        slow=single(num, 2),
        fast=single(num, 2),
        labels=np.ones(num, np.int32),
        features=single(num, 7),
        priors=np.zeros(num, np.int32),
    )
    training = TrainingConfig(num_steps=num_steps)
    training = dataclasses.replace(training, batch_size=scale * training.batch_size)
    encoder = new_encoder(known, (-20.0, 20.0), (0.0, 20.0), EncoderConfig(), 0)
    at = []
    note = lambda step, *_: at.append((step, time.perf_counter()))
    train_encoder(encoder, known, training, on_progress=note)
    return _rate(at)


def operator_speed(scale: int, num_steps: int) -> float:
    """Optimiser steps per second of an operator, simulation of its pool included."""
    family = find_family("cortical")
    g = family.sample(jr.key(0), 4096)
    values = np.random.default_rng(0).uniform(1, 2, (len(g), len(NAMES)))
    measured = Characteristics(values.astype(np.float32), np.ones(len(g), bool))
    x = np.asarray(to_coordinates(measured.values))
    operator = untrained(jr.key(1), OperatorConfig(), family, NAMES, x, g)
    training = OperatorTraining(num_steps=num_steps)
    training = dataclasses.replace(
        training, batch_size=scale * training.batch_size, pool=scale * training.pool
    )
    at = []
    note = lambda step, *_: at.append((step, time.perf_counter()))
    members = members_of(g, measured)
    train_operator(operator, family, members, training, on_progress=note)
    return _rate(at)


def _rate(at: list[tuple[int, float]]) -> float:
    """Steps per second, of steps and when each was done."""
    last, ended = at[-1]
    first, began = next(x for x in at if x[0] >= SKIPPED * last)
    return (last - first) / (ended - began)


def with_devices(num: int, *args: object) -> list:
    """What this script prints, as JSON, on the first so many devices."""
    env = dict(os.environ)
    flag = f" --xla_force_host_platform_device_count={num}"
    env["XLA_FLAGS"] = env.get("XLA_FLAGS", "") + flag  # which only a CPU minds
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        visible = env.get(name, ",".join(map(str, range(num)))).split(",")
        env[name] = ",".join(visible[:num])
    command = [sys.executable, __file__, *map(str, args)]
    ran = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
    return json.loads(ran.stdout.splitlines()[-1])


def training(scale: int, num_steps: int) -> None:
    """Prints a table of speeds by number of devices."""
    ask = "import jax; d = jax.devices(); print(len(d), d[0].device_kind)"
    asked = subprocess.run(
        [sys.executable, "-c", ask], check=True, stdout=subprocess.PIPE, text=True
    )
    total, _, kind = asked.stdout.strip().partition(" ")
    fitting = [n for n in range(1, int(total) + 1) if scale * 256 % n == 0]
    print(
        f"JAX {jax.__version__}, {total} x {kind}; steps per second, and (trains per"
        " second, relative to one device)"
    )
    print("| devices | encoder | its batch grows | operator | its batch grows |")
    print("| --- | --- | --- | --- | --- |")
    alone = None
    for num in fitting:
        speeds = lambda scale, n=num: with_devices(
            n, "speeds", "--scale", scale, "--steps", num_steps
        )
        same = speeds(scale)
        grown = same if num == 1 else speeds(num * scale)
        alone = alone or same
        cells = [
            f"{steps:.1f} ({steps * size / base:.2f})"
            for i, base in enumerate(alone)
            for steps, size in ((same[i], 1), (grown[i], num))
        ]
        print(f"| {num} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="simulation",
        choices=("simulation", "training", "speeds"),
    )
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--members", type=int)
    args = parser.parse_args()
    if args.what == "training":
        training(args.scale, args.steps)
    elif args.what == "speeds":  # on the devices that `training` leaves to it
        how = args.scale, args.steps
        print(json.dumps([encoder_speed(*how), operator_speed(*how)]))
    else:
        simulation(args.members)


def simulation(num: int | None) -> None:
    """Prints how fast members are simulated."""
    device = jax.devices()[0]
    on_gpu = device.platform != "cpu"
    num = num or (1_000_000 if on_gpu else 8192)
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
