"""Simulated data on disk: Parquet files of one folder, written one after the other."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.random as jr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core import digest, replacing, versions
from dicjax.dics import DICS, spike_lists
from dicjax.inference.dataset import Dataset, joined, make_dataset, Source
from dicjax.neurons import Neuron


PLAN = "plan.json"


class Shards:
    """A folder of shards, and the plan they are made by.

    **Raises:**

    - `ValueError`: if the folder holds shards of another plan.
    """

    def __init__(
        self, folder: pathlib.Path, neuron: Neuron, sources: Sequence[Source], seed: int
    ):
        self.folder = folder
        self.names = neuron.channel_names
        self.plan = {
            "model": neuron.name,
            "neuron_hash": neuron_hash(neuron),
            "sources": [dataclasses.asdict(source) for source in sources],
            "seed": seed,
        }
        self.identity = digest(json.dumps(self.plan, sort_keys=True).encode())
        path = folder / PLAN
        if path.exists() and _plan(path) != self.plan:
            differs = [k for k, v in self.plan.items() if _plan(path).get(k) != v]
            raise ValueError(
                f"{folder} holds data made by another plan (other {', '.join(differs)})"
                "; name another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.plan | {"versions": versions()}, indent=2) + "\n"
        with replacing(path) as partial:
            partial.write_text(text)

    def load(self, stage: int, first: int) -> Dataset | None:
        """A shard that was finished before, or None where it is missing or damaged."""
        try:
            return _read(self._path(stage, first), self.names, self.identity)
        except (OSError, KeyError, ValueError, pa.ArrowException):
            return None  # it is made again

    def save(self, stage: int, first: int, shard: Dataset) -> None:
        """Writes a shard, whole or not at all."""
        about = {
            "plan": self.identity,
            "left_out": json.dumps(shard.num_left_out),
        }
        table = to_table(shard, self.names).replace_schema_metadata(about)
        with replacing(self._path(stage, first)) as partial:
            pq.write_table(table, partial, compression="zstd")

    def _path(self, stage: int, first: int) -> pathlib.Path:
        return self.folder / f"source-{stage:02}-member-{first:08}.parquet"


def simulate_dataset(
    neuron: Neuron,
    sources: Sequence[Source],
    *,
    seed: int,
    folder: pathlib.Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Simulates a data set, or goes on with the one that `folder` holds a part of.

    **Arguments:**

    - `neuron`, `sources`, `seed`: what to simulate; see
        `make_dataset`.
    - `folder`: where shards are kept; nowhere by default.
    - `on_progress`: called with (done, total) members.

    **Raises:**

    - `ValueError`: if `folder` holds data of another plan.
    """
    key = jr.key(seed)
    if folder is None:
        return make_dataset(key, neuron, sources, on_progress=on_progress)
    shards = Shards(folder, neuron, sources, seed)
    return make_dataset(
        key,
        neuron,
        sources,
        load=shards.load,
        save=shards.save,
        on_progress=on_progress,
    )


def load_dataset(folder: pathlib.Path, neuron: Neuron) -> Dataset:
    """Reads every shard of a folder, whoever made it, for the same model.

    **Raises:**

    - `ValueError`: if the folder holds no data, or those of another neuron.
    """
    plan = _plan(folder / PLAN)
    paths = sorted(folder.glob("source-*.parquet"))
    if not paths:
        raise ValueError(f"{folder} holds no simulated data.")
    if plan.get("neuron_hash") != neuron_hash(neuron):
        raise ValueError(
            f"{folder} holds members of {plan.get('model', 'an unknown model')}, not "
            f"of {neuron.name} as it is declared now."
        )
    identity = digest(json.dumps(plan, sort_keys=True).encode())
    return joined([_read(path, neuron.channel_names, identity) for path in paths])


def neuron_hash(neuron: Neuron) -> str:
    """Tells neurons apart that differ in structure, numbers or recipe."""
    leaves, structure = jax.tree.flatten(dataclasses.replace(neuron, recipe=None))
    numbers = [np.asarray(leaf, np.float32).tobytes() for leaf in leaves]
    recipe = repr(neuron.recipe).encode()
    return digest(b"".join([str(structure).encode(), *numbers, recipe]))


def _read(path, names, identity) -> Dataset:
    table = pq.read_table(path)
    about = table.schema.metadata or {}
    if about.get(b"plan", b"").decode() != identity:
        raise ValueError(
            f"{path} was made by another plan than the rest of its folder."
        )
    return from_table(table, names, json.loads(about.get(b"left_out", b"{}")))


def to_table(members: Dataset, names: Sequence[str]) -> pa.Table:
    """Members as a table; `names` are those of the channels."""
    columns: dict = {f"g_{name}": members.g[:, i] for i, name in enumerate(names)}
    for i, name in enumerate(DICS):
        columns[name] = members.dics[:, i]
    columns["V_th"], columns["sigma"] = members.V_th, members.sigma
    columns["sampler"] = members.sampler
    columns["spike_times"] = spike_lists(members.spike_times)
    return pa.table(columns)


def from_table(
    table: pa.Table, names: Sequence[str], num_left_out: dict[str, int]
) -> Dataset:
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


def _plan(path: pathlib.Path) -> dict:
    try:
        plan = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise ValueError(f"{path.parent} is not a folder of simulated data.") from e
    plan.pop("versions", None)
    return plan
