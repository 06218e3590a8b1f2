"""Data from sweeps that encoders and operators learn from."""

import pathlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core import Row, Swept
from dicjax.inference import Dataset, default_sources, from_table, joined, neuron_hash
from dicjax.neurons import Neuron
from dicjax.operator import (
    CharacterisedMembers,
    Characteristics,
    DICS,
    Family,
    FEATURES,
)
from dicjax.sweeps.config import DatasetJob, OperatorJob
from dicjax.sweeps.plan import Plan, read_plan


def swept_dataset(folder: pathlib.Path | str, neuron: Neuron) -> Swept[Dataset]:
    """The dataset that a sweep of `job = "dataset"` has simulated.

    **Arguments:**

    - `folder`: folder of the sweep.
    - `neuron`: neuron whose members the sweep simulated.

    **Raises:**

    - `ValueError`: if the folder holds no such sweep, the sweep is not complete, or its
        members belong to another neuron; on reading, if a part is damaged.
    """
    plan = read_plan(pathlib.Path(folder))
    if not isinstance(plan.config, DatasetJob):
        raise ValueError(_other_job(plan, "dataset"))
    _check(plan, neuron)
    sources = default_sources(neuron, plan.config.num)
    if tuple(source.num for source in sources) != plan.stages:
        raise ValueError(
            f"{plan.folder} was drawn from other sources, by another version of "
            "dicjax: simulate it anew."
        )
    read = partial(_dataset, plan.folder, neuron.channel_names)
    return Swept(plan.config.num, plan.config.seed, read)


def swept_library(
    folder: pathlib.Path | str, family: Family
) -> Swept[CharacterisedMembers]:
    """The members that a sweep of `job = "operator"` has characterised.

    **Arguments:**

    - `folder`: folder of the sweep.
    - `family`: family that the members were drawn from.

    **Raises:**

    - `ValueError`: if the folder holds no such sweep, the sweep is not complete, or its
        members belong to another family; on reading, if a part is damaged.
    """
    plan = read_plan(pathlib.Path(folder))
    if not isinstance(plan.config, OperatorJob):
        raise ValueError(_other_job(plan, "operator"))
    _check(plan, family.neuron)
    read = partial(_library, plan.folder, family.neuron.channel_names)
    return Swept(plan.config.num, plan.config.seed, read)


def _dataset(folder: pathlib.Path, channels: tuple[str, ...]) -> Dataset:
    parts = []
    for table, counts in _parts(read_plan(folder)):
        left_out = {name: num for name, num in counts.items() if name != "members"}
        parts.append(from_table(table, channels, left_out))
    return joined(parts)


def _library(folder: pathlib.Path, channels: tuple[str, ...]) -> CharacterisedMembers:
    table = pa.concat_tables([table for table, _ in _parts(read_plan(folder))])
    known = [feature.name for feature in (*FEATURES, *DICS)]
    names = tuple(name for name in known if name in table.column_names)
    columns = lambda some: np.stack([table[name].to_numpy() for name in some], axis=1)
    measured = Characteristics(columns(names), table["is_complete"].to_numpy(), names)
    cells = CharacterisedMembers(columns([f"g_{name}" for name in channels]), measured)
    return cells[measured.is_complete]


def _check(plan: Plan, neuron: Neuron) -> None:
    """Checks that a sweep is complete and used this neuron."""
    ((whose, digest),) = plan.models.items()
    if digest != neuron_hash(neuron):
        raise ValueError(
            f"{plan.folder} holds members of {whose} as it was declared when the sweep "
            f"began, not of {neuron.name} as it is declared now."
        )
    _done(plan, check=False)


def _other_job(plan: Plan, job: str) -> str:
    return (
        f"{plan.folder} is a sweep of job {plan.config.job!r}: this learns from one "
        f"of job {job!r}."
    )


def _parts(plan: Plan) -> Iterator[tuple[pa.Table, dict[str, int]]]:
    """Tables and counts of all parts, in order."""
    done = _done(plan, check=True)
    return (
        (pq.read_table(plan.store.path(i)), done[i]["counts"]) for i in sorted(done)
    )


def _done(plan: Plan, *, check: bool) -> dict[int, Row]:
    shards = range(len(plan.spans))
    done = plan.store.done(shards, check=check)
    if missing := len(shards) - len(done):
        raise ValueError(
            f"{missing} of {len(shards)} parts of the sweep in {plan.folder} are "
            "missing or damaged: run it to its end first."
        )
    return done
