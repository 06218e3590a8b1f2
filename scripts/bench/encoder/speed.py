"""How many trains an encoder reads and learns from in a second."""

import dataclasses
import functools
import time
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro

import dicjax as dj
from dicjax.inference import PRIORS, TrainingConfig
from dicjax.inference.dataset import Batch, batch_of
from dicjax.inference.encoder import Encoder, read
from dicjax.inference.training import train_encoder
from dicjax.spikes import MIN_SPIKES
from scripts.bench.encoder.held_out import held_out, load
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.timing import side_by_side


HELD_OUT = 2000  # members that are simulated for inference
STEPS, COMPILING = 60, 18  # of a training; the first compile for every length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference(Benchmark):
    """Trains that `infer` reads in a second of processor time of all threads.

    Trains of more spikes than the encoder reads at once take one reading per window.
    """

    trains: tyro.conf.Positional[int] = 20_000
    """Held-out trains to read, again and again if there are fewer."""
    most: int = 96
    """Spikes of each at most; later ones are cut off."""
    repeats: int = 5
    """Readings, after one that compiles."""

    def measure(self) -> Iterator[Measurement]:
        """Reads all trains in one call."""
        times = held_out("stg", min(self.trains, HELD_OUT)).spike_times[:, : self.most]
        times = times[np.isfinite(times).sum(axis=1) >= MIN_SPIKES]
        times = times[np.arange(self.trains) % len(times)]
        spent = []
        for _ in range(1 + self.repeats):
            began = time.process_time()
            jax.block_until_ready(jax.tree.leaves(dj.infer(times, "stg")))
            spent.append(time.process_time() - began)
        case = {
            "trains": self.trains,
            "spikes": round(float(np.isfinite(times).sum(axis=1).mean())),
        }
        columns = {("read", "trains/CPU s"): [self.trains / x for x in spent[1:]]}
        yield from row("inference", case, columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed(Benchmark):
    """Trains read and learned from in a second, in float32 and bfloat16."""

    batches: tyro.conf.Positional[tuple[int, ...]] = (256, 1024, 4096)
    """Trains at once."""
    repeats: int = 7
    """Readings, after one that compiles. Both precisions take turns."""

    def measure(self) -> Iterator[Measurement]:
        """Measures each batch."""
        encoder = load("stg").encoder
        known = batch_of(held_out("stg", max(self.batches)))
        prior = jnp.asarray(PRIORS.index("any"), jnp.int32)
        encoders = {x: cast(encoder, jnp.dtype(x)) for x in ("float32", "bfloat16")}
        for num in self.batches:
            batch = known[np.arange(num) % len(known.labels)]
            times = jnp.asarray(batch.spike_times[:, : encoder.config.max_spikes])
            calls = {
                name: functools.partial(read, own, times, prior)
                for name, own in encoders.items()
            }
            for name, took in side_by_side(calls, self.repeats).items():
                columns = {("read", "trains/s"): [num / x for x in took.later]}
                if name == "float32":  # weights that are learned stay in float32
                    rate = num * steps_per_second(encoder, known, num)
                    columns["learned from", "trains/s"] = [rate]
                yield from row("speed", {"precision": name, "batch": num}, columns)


def cast(encoder: Encoder, dtype: jnp.dtype) -> Encoder:
    """An encoder with weights of another precision; its scales stay as they are."""
    as_dtype = lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x
    own = jax.tree.map(as_dtype, encoder)
    return eqx.tree_at(lambda e: e.scales, own, encoder.scales)


def steps_per_second(encoder: Encoder, known: Batch, batch_size: int) -> float:
    """Optimiser steps of a training, after those that compile."""
    done: list[float] = []
    config = TrainingConfig(num_steps=STEPS, batch_size=batch_size)
    note = lambda *_: done.append(time.perf_counter())
    train_encoder(encoder, known, config, on_progress=note)
    last = STEPS - 2
    return (last - COMPILING) / (done[last] - done[COMPILING])
