"""Prints optimiser steps per second on all devices of this process, as JSON.

`python -m scripts.bench.devices.training_worker SCALE STEPS`: batches that are SCALE
times as large as by default, and STEPS steps of each training.
"""

import dataclasses
import json
import sys
import time

import jax.random as jr
import numpy as np

from dicjax.inference import EncoderConfig, TrainingConfig
from dicjax.inference.dataset import Batch
from dicjax.inference.training import new_encoder, train_encoder
from dicjax.operator import (
    Characteristics,
    find_family,
    OperatorConfig,
    OperatorTraining,
)
from dicjax.operator.characteristics import NAMES, to_coordinates
from dicjax.operator.model import untrained
from dicjax.operator.training import members_of, train_operator


COMPILING = 3 / 8  # of the steps, in which every program is compiled
NUM = 4096  # members


def encoder_speed(scale: int, num_steps: int) -> float:
    """Steps per second of an encoder. Its trains are random and of no neuron."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(20, 400, (NUM, 128)), axis=1)
    single = lambda *shape: rng.uniform(0, 1, shape).astype(np.float32)
    batch = Batch(
        spike_times=times.astype(np.float32),
        slow=single(NUM, 2),
        fast=single(NUM, 2),
        labels=np.ones(NUM, np.int32),
        features=single(NUM, 7),
        priors=np.zeros(NUM, np.int32),
    )
    config = TrainingConfig(num_steps=num_steps)
    config = dataclasses.replace(config, batch_size=scale * config.batch_size)
    encoder = new_encoder(batch, (-20.0, 20.0), (0.0, 20.0), EncoderConfig(), 0)
    done: list[tuple[int, float]] = []
    note = lambda stage, step, total: done.append((step, time.perf_counter()))
    train_encoder(encoder, batch, config, on_progress=note)
    return steps_per_second(done)


def operator_speed(scale: int, num_steps: int) -> float:
    """Steps per second of an operator, with the simulations that it learns from."""
    family = find_family("cortical")
    g = family.sample(jr.key(0), NUM)
    values = np.random.default_rng(0).uniform(1, 2, (len(g), len(NAMES)))
    measured = Characteristics(values.astype(np.float32), np.ones(len(g), bool))
    x = np.asarray(to_coordinates(measured.values))
    operator = untrained(jr.key(1), OperatorConfig(), family, NAMES, x, g)
    config = OperatorTraining(num_steps=num_steps)
    config = dataclasses.replace(
        config, batch_size=scale * config.batch_size, pool=scale * config.pool
    )
    done: list[tuple[int, float]] = []
    note = lambda stage, step, total: done.append((step, time.perf_counter()))
    members = members_of(g, measured)
    train_operator(operator, family, members, config, on_progress=note)
    return steps_per_second(done)


def steps_per_second(done: list[tuple[int, float]]) -> float:
    """From steps and when each was done."""
    last, ended = done[-1]
    first, began = next(x for x in done if x[0] >= COMPILING * last)
    if first == last:
        raise SystemExit("Too few steps to measure: give more --steps.")
    return (last - first) / (ended - began)


def main() -> None:
    scale, num_steps = map(int, sys.argv[1:])
    speeds = {
        "encoder": encoder_speed(scale, num_steps),
        "operator": operator_speed(scale, num_steps),
    }
    print(json.dumps(speeds))


if __name__ == "__main__":
    main()
