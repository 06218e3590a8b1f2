"""Data from sweeps that encoders and operators learn from."""

import pathlib
from functools import partial
from typing import get_args, TypeVar

import numpy as np
import pyarrow as pa

from dicjax._core import Swept
from dicjax.inference import Dataset, default_sources, joined, neuron_hash
from dicjax.neurons import Neuron
from dicjax.operator import BY_NAME, CharacterisedMembers, Characteristics, Family
from dicjax.sweeps.config import DatasetJob, OperatorJob
from dicjax.sweeps.kinds import dataset_of
from dicjax.sweeps.plan import Plan, read_plan


T = TypeVar("T", DatasetJob, OperatorJob)


def swept_dataset(folder: pathlib.Path | str, neuron: Neuron) -> Swept[Dataset]:
    """The dataset that a sweep of `job = "dataset"` has simulated.

    **Arguments:**

    - `folder`: folder of the sweep.
    - `neuron`: neuron whose members the sweep simulated.

    **Raises:**

    - `ValueError`: if the folder holds no such sweep, the sweep is not complete, or its
        members belong to another neuron; on reading, if a part is damaged.
    """
    plan, config = _complete(pathlib.Path(folder), DatasetJob, neuron)
    sources = default_sources(neuron, config.num)
    if tuple(source.num for source in sources) != plan.stages:
        raise ValueError(
            f"{plan.folder} was drawn from other sources, by another version of "
            "dicjax: simulate it anew."
        )
    read = partial(_dataset, plan, neuron.channel_names)
    return Swept(config.num, config.seed, read)


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
    plan, config = _complete(pathlib.Path(folder), OperatorJob, family.neuron)
    read = partial(_library, plan, family.neuron.channel_names)
    return Swept(config.num, config.seed, read)


def _complete(folder: pathlib.Path, kind: type[T], neuron: Neuron) -> tuple[Plan, T]:
    """The plan of a complete sweep of this kind, which used this neuron."""
    plan = read_plan(folder)
    if not isinstance(plan.config, kind):
        (job,) = get_args(kind.model_fields["job"].annotation)
        raise ValueError(
            f"{plan.folder} is a sweep of job {plan.config.job!r}, but this learns "
            f"from a sweep of job {job!r}."
        )
    ((name, digest),) = plan.models.items()
    if digest != neuron_hash(neuron):
        raise ValueError(
            f"{plan.folder} holds members of {name} as it was declared when the sweep "
            f"began, but {neuron.name} is declared differently now."
        )
    plan.rows(range(len(plan.spans)))
    return plan, plan.config


# `partial` of these can be sent to other processes.


def _dataset(plan: Plan, channels: tuple[str, ...]) -> Dataset:
    parts = plan.read(range(len(plan.spans)), check=True)
    return joined([dataset_of(part, channels) for part in parts])


def _library(plan: Plan, channels: tuple[str, ...]) -> CharacterisedMembers:
    parts = plan.read(range(len(plan.spans)), check=True)
    table = pa.concat_tables([table for table, _ in parts])
    names = tuple(name for name in BY_NAME if name in table.column_names)
    columns = lambda some: np.stack([table[name].to_numpy() for name in some], axis=1)
    measured = Characteristics(columns(names), table["is_complete"].to_numpy(), names)
    cells = CharacterisedMembers(columns([f"g_{name}" for name in channels]), measured)
    return cells[measured.is_complete]
