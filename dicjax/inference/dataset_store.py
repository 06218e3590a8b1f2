"""Simulated members as tables, and parts of them on disk to go on with."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.random as jr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core import digest, Progress, Store
from dicjax.dics import DICS, spike_lists
from dicjax.inference.dataset import Dataset, make_dataset, num_shards, Source
from dicjax.neurons import Neuron
from dicjax.spikes import V_REARM, V_SPIKE


CLOSING = "]))"  # of how JAX writes the structure of a neuron
LEVELS = ", *, *" + CLOSING  # and of its two levels, which come before


def simulate_dataset(
    neuron: Neuron,
    sources: Sequence[Source],
    *,
    seed: int,
    folder: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> Dataset:
    """Simulates a data set as `make_dataset`, or goes on with one that was stopped.

    Parts are kept in a folder of its own in `folder`, if that is given; damaged ones
    are simulated again. Raises `Busy` if another process simulates the same there.
    """
    key = jr.key(seed)
    if folder is None:
        return make_dataset(key, neuron, sources, on_progress=on_progress)
    identity = _identity(neuron, sources, seed)
    store = Store(folder / f"members-{seed}-{identity}", identity)
    names = neuron.channel_names
    with store.locked():
        store.tidy()
        done = store.done(range(num_shards(sources)))

        def keep(number: int, simulate: Callable[[], Dataset]) -> Dataset:
            if number in done:
                table = pq.read_table(store.path(number))
                return from_table(table, names, done[number]["left_out"])
            shard = simulate()
            about = {"left_out": shard.num_left_out}
            store.write(number, to_table(shard, names), about)
            return shard

        return make_dataset(key, neuron, sources, keep=keep, on_progress=on_progress)


def _identity(neuron: Neuron, sources: Sequence[Source], seed: int) -> str:
    """Tells data sets apart whose members differ."""
    plan = {
        "neuron": neuron_hash(neuron),
        "sources": [dataclasses.asdict(source) for source in sources],
        "seed": seed,
    }
    return digest(json.dumps(plan, sort_keys=True).encode())


def neuron_hash(neuron: Neuron) -> str:
    """Tells neurons apart that differ in structure, numbers or recipe."""
    leaves, structure = jax.tree.flatten(dataclasses.replace(neuron, recipe=None))
    numbers = [np.asarray(leaf, np.float32).tobytes() for leaf in leaves]
    recipe, shape = repr(neuron.recipe).encode(), str(structure)
    # Levels are the last leaves. They came later than stored hashes, which hold for
    # neurons with the usual ones.
    if (float(neuron.V_spike), float(neuron.V_rearm)) == (V_SPIKE, V_REARM):
        numbers, shape = numbers[:-2], shape.removesuffix(LEVELS) + CLOSING
    return digest(b"".join([shape.encode(), *numbers, recipe]))


def to_table(members: Dataset, names: Sequence[str]) -> pa.Table:
    """Members as a table; `names` are those of the channels."""
    columns: dict = {f"g_{name}": members.g[:, i] for i, name in enumerate(names)}
    for i, name in enumerate(DICS):
        columns[name] = members.dics[:, i]
    columns["V_th"], columns["sigma"] = members.V_th, members.sigma
    columns["sampler"] = members.sampler
    columns["spike_times"] = spike_lists(members.spike_times)
    return pa.table(columns)


def from_table(table: pa.Table, names: Sequence[str], num_left_out: dict) -> Dataset:
    """The members of a table."""
    column = lambda name: table[name].to_numpy()
    trains = table["spike_times"].combine_chunks()
    num = np.diff(np.asarray(trains.offsets).astype(np.int64))
    times = np.full((len(num), max([1, *num])), np.inf, np.float32)
    times[np.arange(times.shape[1]) < num[:, None]] = np.asarray(trains.values)
    return Dataset(
        g=np.stack([column(f"g_{name}") for name in names], axis=1),
        dics=np.stack([column(name) for name in DICS], axis=1),
        V_th=column("V_th"),
        sigma=column("sigma"),
        sampler=column("sampler"),
        spike_times=times,
        num_left_out=num_left_out,
    )
