"""Simulated neurons to learn from: conductances, their DICs and their spike trains."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Array, Float, Key

from dicjax.dic import dynamic_input_conductances
from dicjax.neuron import Neuron
from dicjax.population import compensate, OK, sample
from dicjax.simulation import simulate
from dicjax.spikes import LABELS, pad_trains, spike_features
from dicjax.stimulus import NoisyCurrent


MAX_SPIKES = 512  # kept of a train
SPREAD = 0.2  # of log conductances around an enriched parent
BIN = 0.25  # of log features, within which activities count as alike


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a part of a data set comes from.

    - `sampler`: "recipe" draws (g_s, g_u) uniformly and compensates; "box" draws
        conductances uniformly; "rare" perturbs those members drawn so far whose
        activity is rarest, which fills the slow and the odd corners of what a model
        can do.
    - `num`: how many members to simulate.
    - `sigma`: noise, in µA/cm².
    """

    sampler: str
    num: int
    sigma: float = 0.0


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Simulated members: `g` (mS/cm²), `dics` (g_s, g_u), `sigma`, `trains` (ms)."""

    g: Float[np.ndarray, "cells channels"]
    dics: Float[np.ndarray, "cells 2"]
    sigma: Float[np.ndarray, " cells"]
    spike_times: Float[np.ndarray, "cells spikes"]

    def __len__(self) -> int:
        return len(self.g)

    def __getitem__(self, members) -> "Dataset":
        return Dataset(
            self.g[members],
            self.dics[members],
            self.sigma[members],
            self.spike_times[members],
        )


def default_sources(neuron: Neuron, num: int) -> tuple[Source, ...]:
    """How `num` members are spread over samplers, half of them with noise.

    A model whose recipe fills its Monte-Carlo box starts from the box; one whose recipe
    is a population of its own starts from that, with a fifth from the box beside it.
    """
    recipe = neuron.required_recipe
    start = (("box", 0.4),) if recipe.bounded else (("recipe", 0.8), ("box", 0.1))
    rest = 1 - sum(share for _, share in start)
    stages = (*start, *(("rare", rest / 3),) * 3)
    quiet = [Source(name, round(share * num / 2)) for name, share in stages]
    noisy = [
        Source(name, round(share * num / 2 / len(recipe.noise)), sigma)
        for name, share in ((start[0][0], start[0][1]), ("rare", 1 - start[0][1]))
        for sigma in recipe.noise
    ]
    return (*quiet, *noisy)


def make_dataset(
    key: Key[Array, ""],
    neuron: Neuron,
    sources: Sequence[Source],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Simulates a training set, one source after the other.

    **Arguments:**

    - `key`: everything random follows from it.
    - `neuron`: the model; its recipe gives ranges, durations and the time step.
    - `sources`: what to draw, in order: "rare" looks at all that came before.
    - `on_progress`: called with (done, total) members.

    **Returns:**

    A [`dicjax.dataset.Dataset`][]. Members that failed, that fell outside the ranges
    of DICs the recipe names, or that could not be compensated are left out.
    """
    total = sum(source.num for source in sources)
    parts: list[Dataset] = []
    done = 0
    for number, source in enumerate(sources):
        draw_key, noise_key = jr.split(jr.fold_in(key, number))
        g, dics = _draw(draw_key, neuron, source, parts)
        report = None
        if on_progress is not None:
            report = lambda i, n, at=done, num=source.num: on_progress(
                at + num * i // n, total
            )
        parts.append(_simulate(noise_key, neuron, source, g, dics, report))
        done += source.num
    return _joined(parts)


def _draw(key, neuron, source, parts):
    recipe = neuron.required_recipe
    if source.sampler == "recipe":
        low, high = np.transpose((recipe.g_s, recipe.g_u))
        draw, key = jr.split(key)
        unit = np.asarray(jr.uniform(draw, (source.num, 2)))
        population = compensate(key, neuron, low + unit * (high - low))
        ok = population.status == OK
        return population.g[ok], population.targets[ok]
    if source.sampler == "box":
        g = np.asarray(sample(key, neuron, source.num))
    else:
        g = _around_rare(key, neuron, _joined(parts), source.num)
    dics = np.asarray(dynamic_input_conductances(neuron, g, neuron.V_ref))[:, 1:]
    low, high = np.transpose((recipe.g_s, recipe.g_u)).astype(dics.dtype)
    inside = ((low <= dics) & (dics <= high)).all(axis=1)
    return g[inside], dics[inside]


def _around_rare(key, neuron, drawn, num):
    parent_key, noise_key = jr.split(key)
    weights = rarity(drawn)
    parents = jr.choice(parent_key, len(drawn), (num,), p=jnp.asarray(weights))
    g = drawn.g[np.asarray(parents)]
    noise = np.asarray(jr.normal(noise_key, g.shape, g.dtype))
    box = neuron.box
    return np.minimum(g * np.exp(SPREAD * noise), box.astype(g.dtype))


def rarity(drawn: Dataset) -> Float[np.ndarray, " cells"]:
    """Weights by which every kind of activity is drawn alike, bursting most of all."""
    features = spike_features(drawn.spike_times)
    label = np.asarray(features.label)
    coordinates = np.zeros((len(drawn), 3))
    columns = {
        "tonic": ("mean_isi",),
        "bursting": ("period", "intra_burst_isi", "spikes_per_burst"),
        "irregular": ("mean_isi", "cv"),
    }
    weights = np.zeros(len(drawn))
    shares = {"tonic": 0.15, "bursting": 0.75, "irregular": 0.1}
    for name, share in shares.items():
        members = label == LABELS.index(name)
        members &= drawn.sigma == 0
        values = np.stack([np.asarray(getattr(features, c)) for c in columns[name]])
        members &= (values > 0).all(axis=0)
        coordinates[members, : len(values)] = np.log(values[:, members].T)
        bins = np.floor(coordinates[members] / BIN).astype(int)
        _, which, counts = np.unique(
            bins, axis=0, return_inverse=True, return_counts=True
        )
        if len(counts):
            weights[members] = share / (len(counts) * counts[which.ravel()])
    return weights / weights.sum()


def _simulate(key, neuron, source, g, dics, report):
    recipe = neuron.required_recipe
    stimulus = NoisyCurrent(key, source.sigma) if source.sigma else None
    run = simulate(
        neuron,
        g,
        recipe.duration,
        discard=recipe.discard,
        dt=recipe.dt,
        stimulus=stimulus,
        on_progress=report,
    )
    good = run.succeeded
    sigma = np.full(int(good.sum()), source.sigma, np.float32)
    return Dataset(g[good], dics[good], sigma, run.spike_times[good, :MAX_SPIKES])


def _joined(parts: Sequence[Dataset]) -> Dataset:
    width = max(part.spike_times.shape[1] for part in parts)
    pad = lambda x: np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=np.inf)
    return Dataset(
        np.concatenate([part.g for part in parts]),
        np.concatenate([part.dics for part in parts]),
        np.concatenate([part.sigma for part in parts]),
        np.concatenate([pad(part.spike_times) for part in parts]),
    )


def save_dataset(dataset: Dataset, path: pathlib.Path, neuron: Neuron) -> None:
    """Writes a data set as one Parquet file, atomically."""
    columns = {
        f"g_{name}": dataset.g[:, i] for i, name in enumerate(neuron.channel_names)
    }
    columns["g_s"], columns["g_u"] = dataset.dics.T
    columns["sigma"] = dataset.sigma
    num = np.isfinite(dataset.spike_times).sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(num)]), pa.int32())
    flat = dataset.spike_times[np.isfinite(dataset.spike_times)]
    columns["spike_times"] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    table = pa.table(columns).replace_schema_metadata({"model": neuron.name})
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def load_dataset(path: pathlib.Path, neuron: Neuron) -> Dataset:
    """Reads what [`dicjax.dataset.save_dataset`][] wrote for the same model."""
    table = pq.read_table(path)
    model = (table.schema.metadata or {}).get(b"model", b"an unknown model").decode()
    if model != neuron.name:
        raise ValueError(f"{path} holds members of {model}, not of {neuron.name}.")
    column = lambda name: table[name].to_numpy()
    trains = table["spike_times"].combine_chunks()
    rows = np.split(np.asarray(trains.values), np.asarray(trains.offsets)[1:-1])
    return Dataset(
        np.stack([column(f"g_{name}") for name in neuron.channel_names], axis=1),
        np.stack([column("g_s"), column("g_u")], axis=1),
        column("sigma"),
        pad_trains(rows),
    )
