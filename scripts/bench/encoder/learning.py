"""An adapter beside training from nothing."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import numpy as np
import tyro

import dicjax as dj
from dicjax.inference import TrainingConfig
from dicjax.inference.adapter import merge
from dicjax.inference.calibration import evaluate, plain_calibration
from dicjax.inference.dataset import batch_of, learnable
from dicjax.inference.train import adapt
from dicjax.inference.training import new_encoder, train_encoder
from dicjax.sweeps import swept_dataset
from scripts.bench.encoder.held_out import held_out, load
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.timing import clocked


RANK = 16  # of the adapter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning(Benchmark):
    """Errors of an adapter and of an encoder from nothing, by number of members.

    Both learn the dopamine neuron; the adapter starts from the encoder of `stg`.
    """

    data: tyro.conf.Positional[pathlib.Path]
    """Folder of a sweep of job "dataset" that has simulated members of `da`."""
    steps: tyro.conf.Positional[int] = 3_000
    """Steps of each training."""
    members: tuple[int, ...] = (1_000, 10_000)
    """Numbers of members to learn from, besides all."""
    tested: int = 6_000
    """Members that neither has seen."""

    def measure(self) -> Iterator[Measurement]:
        """Trains both on each number of members."""
        neuron = dj.da()
        base = load("stg").encoder
        known = batch_of(learnable(swept_dataset(self.data, neuron).read()))
        test = batch_of(held_out("da", self.tested))
        recipe = neuron.required_recipe
        for num in (*self.members, len(known.labels)):
            # As many of every pattern as chance gives.
            some = known[np.random.default_rng(0).permutation(len(known.labels))[:num]]
            training = TrainingConfig(num_steps=self.steps)
            seed = training.seed
            starts = {
                "from nothing": new_encoder(
                    some, recipe.g_s, recipe.g_u, base.config, seed
                ),
                "adapter": adapt(base, neuron, some, RANK, seed),
            }
            for name, start in starts.items():
                train = functools.partial(train_encoder, start, some, training)
                trained, seconds = clocked(train)
                table = evaluate(
                    merge(trained.encoder), plain_calibration(), test, "recipe"
                )
                columns = {
                    (f"{label}, error of {dic}", ""): table[label][f"mae_{dic}"]
                    for label in ("tonic", "bursting")
                    for dic in ("g_s", "g_u")
                }
                columns["training", "s"] = seconds
                case = {"members": len(some.labels), "encoder": name}
                yield from row(f"da, {self.steps} steps", case, columns)
