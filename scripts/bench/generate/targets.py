"""Simulated members of a model, to be targets and to be compared with."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from dicjax.dics import OK


SEED = 20
NUM_DRAWN = {"recipe": 4096, "box": 16_384}  # members that targets are taken from
FEWEST_SPIKES = 10  # of a target
Kind = Literal["recipe", "box"]


class Targets:
    """Members that a model's recipe or its Monte-Carlo box gives, and how they fire.

    (g_s, g_u) of the recipe's members are uniform over its range.
    """

    def __init__(self, neuron: dj.Neuron, kind: Kind):
        key = jax.random.key(SEED)
        num = NUM_DRAWN[kind]
        recipe = neuron.required_recipe
        if kind == "box":
            g = np.asarray(dj.sample(key, neuron, num, dtype=jnp.dtype("float32")))
        else:
            low, high = np.array([recipe.g_s, recipe.g_u]).T
            unit = np.asarray(jax.random.uniform(key, (num, 2)))
            g = with_dics(key, neuron, low + unit * (high - low))
        # As long as a recording may be. Candidates may be simulated for less.
        run = dj.simulate(
            neuron, g, recipe.duration, discard=recipe.discard, dt=recipe.dt / 2
        )
        self.neuron, self.g, self.run = neuron, g, run
        self.features = jax.tree.map(np.asarray, dj.spike_features(run.spike_times))
        V = float(neuron.V_ref)
        self.dics = np.asarray(dj.dynamic_input_conductances(neuron, g, V))[:, 1:]

    def choose(self, label: str, num: int) -> np.ndarray:
        """The first members with this pattern and enough spikes."""
        same = self.features.label == dj.LABELS.index(label)
        enough = self.features.num_spikes >= FEWEST_SPIKES
        return np.flatnonzero(same & enough)[:num]

    def train(self, i: int) -> np.ndarray:
        """Spike times (ms) of one member."""
        return np.asarray(self.run.spike_times[i, : self.run.num_spikes[i]], float)

    def features_of(self, i: int) -> dj.Features:
        """Features of one member."""
        return jax.tree.map(lambda x: x[i], self.features)

    def matching(self, target: dj.Features) -> np.ndarray:
        """Conductances of all that are valid for a target."""
        valid = np.asarray(dj.is_valid(self.features, target, 0.1))
        return self.g[valid & self.run.succeeded]


def with_dics(key, neuron: dj.Neuron, dics, num: int | None = None) -> np.ndarray:
    """Conductances of members with given (g_s, g_u): `num` of one pair, or one of each.

    Fewer, if some cannot be reached.
    """
    members = dj.compensate(key, neuron, dics, num=num, dtype=jnp.dtype("float32"))
    return members.g[members.status == OK]
