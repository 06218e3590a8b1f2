"""How well the emulator predicts what members fire like, and how fast."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import tyro

import dicjax as dj
from dicjax.inference import log_conductances, log_features
from dicjax.inference.dataset import make_dataset, Source
from dicjax.spikes import columns_of, LABELS, spike_features
from scripts.bench.encoder.held_out import load, SEED
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.timing import timed


FEWEST = 30  # members of a pattern that is measured
TOLERANCE = 0.10
SAMPLERS: tuple[Literal["recipe", "box"], ...] = ("recipe", "box")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emulator(Benchmark):
    """Patterns and decisive features of members, as the emulator predicts them.

    The features are the mean ISI of tonic members, and the burst period, intra-burst
    ISI and spikes per burst of bursting ones.
    """

    model: tyro.conf.Positional[str]
    """Model of the emulator."""
    members: int = 4000
    """Members of the recipe, and of the box."""
    repeats: int = 5
    """Predictions of all members, after one that compiles."""

    def measure(self) -> Iterator[Measurement]:
        """Compares predictions with simulations, by pattern."""
        loaded = load(self.model)
        neuron = loaded.neuron
        for sampler in SAMPLERS:
            if sampler == "recipe" and neuron.required_recipe.bounded:
                continue
            source = (Source(sampler, self.members),)
            test = make_dataset(jr.key(SEED), neuron, source)
            features = spike_features(test.spike_times)
            labels = np.asarray(features.label)
            log_g = jnp.asarray(log_conductances(test.g, neuron.bounds))
            guess = jax.jit(jax.vmap(loaded.emulator))
            predict = lambda g=log_g, guess=guess: guess(g)
            took, predicted = timed(predict, self.repeats), predict()
            error = np.abs(np.asarray(predicted.features) - log_features(features))
            found = np.argmax(np.asarray(predicted.labels), axis=1)
            for label in range(1, len(LABELS)):
                decisive = columns_of(label)
                of = labels == label
                if of.sum() < FEWEST:
                    continue
                columns = {
                    ("members", ""): [int(of.sum())],
                    ("pattern predicted", ""): [np.mean(found[of] == label)],
                    ("a prediction", "µs"): [1e6 * x / len(test) for x in took.later],
                }
                for n, i in enumerate(decisive, 1):
                    own = error[of, i]
                    columns[f"median error of feature {n}", "%"] = [
                        100 * np.median(own)
                    ]
                    within = np.mean(own < np.log1p(TOLERANCE))
                    columns[f"feature {n} within 10 %", ""] = [within]
                case = {"members from": sampler, "pattern": dj.LABELS[label]}
                yield from row(f"emulator of {self.model}", case, columns)
