"""Simulated neurons to learn from: conductances, their DICs and their spike trains."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import get_args, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from dicjax._core import AnyArray, compiled_size, in_batches, Progress, stacked, Stage
from dicjax.dics import compensate, dynamic_input_conductances, OK, sample, threshold
from dicjax.inference.encoder import PRIORS
from dicjax.inference.library import log_features
from dicjax.neurons import Neuron
from dicjax.simulation import AbstractStimulus, applied, NoisyCurrent, simulate
from dicjax.spikes import FEATURES, LABELS, PATTERNS, spike_features


MAX_SPIKES = 512  # kept of a train
MIN_SPIKES = 10  # of a train that is learned from
SHARD_SIZE = 8192  # members simulated, and written, at once
# Members whose DICs are computed at once; sizes in between are powers of two.
FEWEST_MEASURED, MEASURED_AT_ONCE = 64, 1024
SPREAD = 0.2  # of log conductances around an enriched parent
BIN = 0.25  # of log features, within which activities count as alike
SHARES = {"tonic": 0.15, "bursting": 0.75, "irregular": 0.1}  # of enriched parents
Sampler = Literal["recipe", "gamma", "box", "rare"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
PRIOR_OF = {"recipe": "recipe", "gamma": "any", "box": "box", "rare": "any"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a part of a data set comes from.

    - `sampler`: "recipe" draws (g_s, g_u) uniformly and compensates. "box" draws
        conductances uniformly, and "gamma" from gamma distributions of the same mean
        and variance. "rare" perturbs the members drawn so far whose activity is rarest,
        which adds slow and unusual activity.
    - `num`: how many members to simulate.
    - `sigma`: noise, in µA/cm².
    """

    sampler: Sampler
    num: int
    sigma: float = 0.0


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Simulated members.

    - `g`: conductances, in mS/cm².
    - `dics`: (g_f, g_s, g_u) at the model's reference potential.
    - `V_th`: own threshold, in mV; nan where there is none.
    - `sigma`: noise, in µA/cm².
    - `sampler`: index into `SAMPLERS`.
    - `spike_times`: in ms, padded with infinity.
    - `num_left_out`: members that were drawn but are missing, by reason.
    """

    g: Float[np.ndarray, "cells channels"]
    dics: Float[np.ndarray, "cells 3"]
    V_th: Float[np.ndarray, " cells"]
    sigma: Float[np.ndarray, " cells"]
    sampler: np.ndarray
    spike_times: Float[np.ndarray, "cells spikes"]
    num_left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.g)

    def __getitem__(self, members) -> "Dataset":
        rows = {name: getattr(self, name)[members] for name in COLUMNS}
        return Dataset(**rows, num_left_out=self.num_left_out)


COLUMNS = ("g", "dics", "V_th", "sigma", "sampler", "spike_times")


def default_sources(neuron: Neuron, num: int) -> tuple[Source, ...]:
    """How `num` members are spread over samplers, a third of them with noise.

    A model whose recipe fills its Monte-Carlo box starts from the box; one whose recipe
    is a population of its own starts from that, with a seventh from the box beside it.
    """
    recipe = neuron.required_recipe
    shares: dict[Sampler, float] = {"recipe": 0.75, "box": 0.1, "gamma": 0.03}
    if recipe.bounded:
        shares = {"box": 0.45, "gamma": 0.05}
    rest = 1 - sum(shares.values())
    rare: tuple[Sampler, float] = ("rare", rest / 3)
    stages = (*shares.items(), rare, rare, rare)
    quiet = [Source(name, round(share * num * 2 / 3)) for name, share in stages]
    first, most = stages[0]
    noisy_shares: dict[Sampler, float] = {first: most, "rare": 1 - most}
    noisy = [
        Source(name, round(share * num / 3 / len(recipe.noise)), sigma)
        for name, share in noisy_shares.items()
        for sigma in recipe.noise
    ]
    return (*quiet, *noisy)


def test_sources(neuron: Neuron, num: int) -> tuple[Source, ...]:
    """What an encoder is tested on: members by the recipe, with and without noise, and,
    where the recipe is another, `num / 2` uniform over the box."""
    recipe = neuron.required_recipe
    name = "box" if recipe.bounded else "recipe"
    noisy = [Source(name, num // 2, sigma) for sigma in recipe.noise]
    box = () if recipe.bounded else (Source("box", num // 2),)
    return (Source(name, num), *noisy, *box)


def make_dataset(
    key: Key[Array, ""],
    neuron: Neuron,
    sources: Sequence[Source],
    *,
    shard_size: int = SHARD_SIZE,
    keep: Callable[[int, Callable[[], Dataset]], Dataset] = lambda number, make: make(),
    on_progress: Progress | None = None,
) -> Dataset:
    """Simulates a training set, one source after the other, shard by shard.

    Members that failed, that fired more than memory holds, that fell outside the ranges
    of DICs that the recipe names, or that could not be compensated are left out, and
    counted. A member depends only on the key, its source and its number, so that the
    size of shards changes nothing. `keep` returns the shard of a number, from 0, given
    a function that simulates it; it may keep shards and return one that it has.
    """
    total = sum(source.num for source in sources)
    report = on_progress or (lambda stage, done, total: None)
    stages: list[Dataset] = []
    done, count = 0, itertools.count()
    for number, source in enumerate(sources):
        make = begin_source(key, neuron, source, number, stages)
        shards = []
        for first in range(0, source.num, shard_size):
            num = min(shard_size, source.num - first)
            within = lambda stage, i, n, at=done + first, num=num: report(
                stage, at + num * i // n, total
            )
            make_shard = functools.partial(make, first, num, within)
            shards.append(keep(next(count), make_shard))
            report(Stage("simulating"), done + first + num, total)
        stages.append(joined(shards))
        done += source.num
    return joined(stages)


def num_shards(sources: Sequence[Source], shard_size: int = SHARD_SIZE) -> int:
    """Shards of the data set that is drawn from these sources."""
    return sum(-(-source.num // shard_size) for source in sources)


def begin_source(
    key: Key[Array, ""],
    neuron: Neuron,
    source: Source,
    number: int,
    earlier: Sequence[Dataset],
) -> Callable[[int, int, Progress | None], Dataset]:
    """A function that simulates members of one source, the one of this `number`.

    It takes the number of the first member, how many, and what to call with progress.
    """
    draw_key, noise_key = jr.split(jr.fold_in(key, number))
    draw = _drawer(draw_key, neuron, source, earlier)
    run = functools.partial(_simulate, noise_key, neuron, source)
    return lambda first, num, report: run(*draw(first, num), report)


def learnable(dataset: Dataset) -> Dataset:
    """The members that fire enough to be learned from."""
    return dataset[np.isfinite(dataset.spike_times).sum(axis=1) >= MIN_SPIKES]


class Batch(eqx.Module):
    """Trains to learn from and what is known of them.

    - `slow`, `fast`: (g_s, g_u) and (g_f, V_th), the last nan where there is none.
    - `features`: logarithms; nan where undefined.
    - `priors`: the index of the narrowest prior that each is a draw of.
    """

    spike_times: Float[AnyArray, "batch spikes"]
    slow: Float[AnyArray, "batch 2"]
    fast: Float[AnyArray, "batch 2"]
    labels: Int[AnyArray, " batch"]
    features: Float[AnyArray, "batch 7"]
    priors: Int[AnyArray, " batch"]

    def __getitem__(self, members) -> "Batch":
        return jax.tree.map(lambda x: x[members], self)


def batch_of(dataset: Dataset) -> Batch:
    """What there is to learn from simulated members, on the host."""
    features = spike_features(dataset.spike_times)
    priors = np.array([PRIORS.index(PRIOR_OF[name]) for name in SAMPLERS], np.int32)
    return Batch(
        spike_times=dataset.spike_times,
        slow=dataset.dics[:, 1:].astype(np.float32),
        fast=np.stack([dataset.dics[:, 0], dataset.V_th], 1).astype(np.float32),
        labels=np.asarray(features.label),
        features=log_features(features),
        priors=priors[dataset.sampler],
    )


def rarity(drawn: Dataset) -> Float[np.ndarray, " cells"]:
    """Weights by which all kinds of activity are drawn equally often, bursting most."""
    features = spike_features(drawn.spike_times)
    label = np.asarray(features.label)
    weights = np.zeros(len(drawn))
    for name, share in SHARES.items():
        members = (label == LABELS.index(name)) & (drawn.sigma == 0)
        binned = PATTERNS[LABELS.index(name)].compared
        if name == "irregular":  # whose quartiles follow from these two
            binned = FEATURES["mean_isi"], FEATURES["cv"]
        values = np.stack([np.asarray(x.read(features)) for x in binned])
        members &= (values > 0).all(axis=0)
        bins = np.floor(np.log(values[:, members].T) / BIN).astype(int)
        _, which, counts = np.unique(
            bins, axis=0, return_inverse=True, return_counts=True
        )
        if len(counts):
            weights[members] = share / (len(counts) * counts[which.ravel()])
    if not weights.any():
        raise ValueError(
            "None of the members drawn so far fires: there is nothing to learn from. "
            "Widen the recipe's ranges or give it a `current`."
        )
    return weights / weights.sum()


# Conductances, numbers of the members that they are of, and how many were left out.
Drawn = tuple[np.ndarray, np.ndarray, dict[str, int]]


def _drawer(key, neuron, source, stages) -> Callable[[int, int], Drawn]:
    if source.sampler == "recipe":
        return functools.partial(draw_by_recipe, key, neuron)
    if source.sampler == "rare":
        g_of = _around_rare(key, neuron, joined(stages))
    elif source.sampler == "gamma":
        g_of = functools.partial(_gamma, key, neuron)
    else:
        g_of = lambda first, num: np.asarray(sample(key, neuron, num, first=first))

    def draw(first, num):
        g = g_of(first, num)
        dics = in_batches(_dics_of(neuron), g, size=MEASURED_AT_ONCE)
        low, high = _ranges(neuron).astype(dics.dtype)
        inside = ((low <= dics[:, 1:]) & (dics[:, 1:] <= high)).all(axis=1)
        left = {"outside the range of DICs": int((~inside).sum())}
        return g[inside], first + np.flatnonzero(inside), left

    return draw


def _ranges(neuron):
    recipe = neuron.required_recipe
    return np.transpose((recipe.g_s, recipe.g_u))


def draw_by_recipe(key: Key[Array, ""], neuron: Neuron, first: int, num: int) -> Drawn:
    """Members whose (g_s, g_u) are uniform over the recipe's ranges."""
    low, high = _ranges(neuron)
    target_key, draw_key = jr.split(key)
    targets = low + _uniform(target_key, first, num, 2) * (high - low)
    population = compensate(draw_key, neuron, targets, first=first, through="recipe")
    ok = population.status == OK
    left = {"not compensated": int((~ok).sum())}
    return population.g[ok], first + np.flatnonzero(ok), left


def _for_each(draw, key, first, num):
    """What is drawn for members of some numbers, with a key of each one's own."""
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(first + jnp.arange(num))
    return np.asarray(jax.vmap(draw)(keys))


def _uniform(key, first, num, width):
    return _for_each(lambda key: jr.uniform(key, (width,)), key, first, num)


def _gamma(key, neuron, first, num):
    # A uniform variable over (0, b) has mean b / 2 and variance b^2 / 12.
    box = neuron.box
    unit = _for_each(lambda key: jr.gamma(key, 3.0, (len(box),)), key, first, num)
    return np.minimum(unit * (box / 6), neuron.bounds).astype(unit.dtype)


def _around_rare(key, neuron, drawn):
    heights = np.cumsum(rarity(drawn))
    bounds = neuron.bounds
    parent_key, noise_key = jr.split(key)

    def draw(first, num):
        u = _uniform(parent_key, first, num, 1)[:, 0]
        parents = np.minimum(np.searchsorted(heights, u), len(heights) - 1)
        normal = lambda key: jr.normal(key, (len(bounds),))
        noise = _for_each(normal, noise_key, first, num)
        g = drawn.g[parents] * np.exp(SPREAD * noise)
        return np.minimum(g, bounds).astype(drawn.g.dtype)

    return draw


def _simulate(key, neuron, source, g, numbers, left, report) -> Dataset:
    recipe = neuron.required_recipe
    times = np.zeros((0, 1))
    if len(g):
        run = simulate(
            neuron,
            g,
            recipe.duration,
            discard=recipe.discard,
            dt=recipe.dt,
            stimulus=stimulus_of(key, source.sigma, recipe.current, numbers),
            on_progress=report,
        )
        good = run.succeeded & ~run.overflowed
        left = left | {
            "diverged": int((~run.succeeded).sum()),
            "overflowed": int((run.overflowed & run.succeeded).sum()),
        }
        g, times = g[good], run.spike_times[good, :MAX_SPIKES]
    dics, V_th = measured(neuron, g)
    return Dataset(
        g=g.astype(np.float32),
        dics=dics,
        V_th=V_th,
        sigma=np.full(len(g), source.sigma, np.float32),
        sampler=np.full(len(g), SAMPLERS.index(source.sampler), np.int8),
        spike_times=np.asarray(times, np.float32),
        num_left_out={name: count for name, count in left.items() if count},
    )


def stimulus_of(
    key: Key[Array, ""],
    sigma: float,
    current: float,
    numbers: Int[np.ndarray, " cells"],
) -> AbstractStimulus | None:
    """A current with noise, of each member's own; both in µA/cm²."""
    if sigma:
        return NoisyCurrent(key, sigma, current, jnp.asarray(numbers, jnp.int32))
    return applied(current)


def measured(
    neuron: Neuron, g: Float[np.ndarray, "cells channels"]
) -> tuple[Float[np.ndarray, "cells 3"], Float[np.ndarray, " cells"]]:
    """(g_f, g_s, g_u) at the reference potential, and own thresholds (mV), of cells."""
    if not len(g):
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    size = min(compiled_size(len(g), FEWEST_MEASURED), MEASURED_AT_ONCE)
    of_each = _dics_of(neuron), lambda g: threshold(neuron, g).V
    dics, V_th = (in_batches(of, g, size=size) for of in of_each)
    return dics.astype(np.float32), V_th.astype(np.float32)


def _dics_of(neuron):
    return lambda g: dynamic_input_conductances(neuron, g, neuron.V_ref)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets as one."""
    left = collections.Counter()
    for part in parts:
        left.update(part.num_left_out)
    columns = {x: [getattr(part, x) for part in parts] for x in COLUMNS}
    times = stacked(columns.pop("spike_times"))
    rows = {name: np.concatenate(column) for name, column in columns.items()}
    return Dataset(**rows, spike_times=times, num_left_out=dict(left))
