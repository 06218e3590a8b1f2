"""The inputs of a sweep: recordings and tables of members, copied into its folder.

Workers read only the copies. A sweep therefore continues as it began even if the
original files change.
"""

import itertools
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dicjax.inference import find_neuron
from dicjax.output import read_models, read_population
from dicjax.recordings import read_units, Refused
from dicjax.spikes import as_train, SpikeTrain
from dicjax.sweeps.config import Config, GenerateJob, SimulateJob, Tabled, TabledJob


TRAIN = pa.schema(
    [
        ("recording", pa.string()),
        ("unit_id", pa.string()),
        ("t_start", pa.float64()),
        ("t_stop", pa.float64()),
        ("observed", pa.list_(pa.float64())),  # start, stop, start ...
        ("spike_times", pa.list_(pa.float64())),
        ("refused", pa.string()),
    ]
)
TARGETS = pa.schema([*TRAIN, ("tolerance", pa.float64()), ("model_asked", pa.string())])


def read_inputs(config: Config) -> dict[str, pa.Table]:
    """The tables of a sweep: "targets", and "members" if they are not drawn.

    Raises `ValueError` if members do not fit the model, or no recording can be read.
    """
    tables = {}
    if isinstance(config, GenerateJob):
        tables["targets"] = _targets(config)
    if isinstance(config, SimulateJob | TabledJob) and isinstance(
        config.members, Tabled
    ):
        neuron, _ = find_neuron(config.model)
        _, g = read_models(config.members.table, neuron)
        if read_population(config.members.table).drive is not None:
            raise ValueError(
                f"{config.members.table} gives its models a drive, which sweeps do not "
                "apply: simulate them with `dicjax simulate`, or leave out the columns "
                "I_mean and so on to simulate them without."
            )
        names = [f"g_{name}" for name in neuron.channel_names]
        tables["members"] = pa.table(list(g.astype(np.float32).T), names)
    if isinstance(config, TabledJob):
        target = config.target
        rows = _trains(
            target.recording, target.unit, target.window, target.unit_id, target.clean
        )
        if "refused" in rows[0]:
            raise ValueError(rows[0]["refused"])
        if len(rows) > 1:
            names = ", ".join(repr(row["unit_id"]) for row in rows[:8])
            raise ValueError(
                f"{target.recording} holds {len(rows)} neurons; choose one with "
                f"target.unit_id: {names}."
            )
        tables["targets"] = pa.Table.from_pylist(rows, TRAIN)
    return tables


def train_of(row: dict) -> SpikeTrain:
    """The spike train of a row of targets."""
    return SpikeTrain(
        np.asarray(row["spike_times"], np.float64),
        observed=np.reshape(row.get("observed") or [], (-1, 2)),
        t_start=row["t_start"],
        t_stop=row["t_stop"],
        name=row["unit_id"],
        source=row["recording"],
    )


def _targets(config: GenerateJob) -> pa.Table:
    targets = config.targets
    above = os.path.commonpath([pathlib.Path(x).parent for x in targets.recordings])
    trains = [
        row | {"recording": pathlib.Path(path).relative_to(above).as_posix()}
        for path in targets.recordings
        for row in _trains(path, targets.unit, targets.window, None, targets.clean)
    ]
    refused = [row["refused"] for row in trains if "refused" in row]
    if len(refused) == len(trains):
        raise ValueError(f"None of {len(trains)} recordings can be read: {refused[0]}")
    for reason in refused:
        warnings.warn(f"Left out: {reason}", stacklevel=2)
    ways = itertools.product(trains, targets.models, targets.tolerances)
    rows = [x | {"model_asked": model, "tolerance": limit} for x, model, limit in ways]
    return pa.Table.from_pylist(rows, TARGETS)


def _trains(
    path: pathlib.Path | str, unit, window: Any, unit_id, clean: Sequence[str]
) -> list[dict]:
    """The trains of a file as rows; or one row with the reason if it cannot be read."""
    name = pathlib.Path(path).name

    def refused(error: ValueError, unit_id: str | None = None) -> dict:
        reason = str(error) if name in str(error) else f"{name}: {error}"
        return {"recording": name, "unit_id": unit_id, "refused": reason}

    try:
        units = read_units(path, unit=unit, window=window, unit_id=unit_id, clean=clean)
    except ValueError as e:
        return [refused(e)]
    rows = []
    for found in units:
        if isinstance(found, Refused):
            rows.append(refused(found.why, found.unit_id))
            continue
        try:
            train = as_train(found)
        except ValueError as e:
            rows.append(refused(e, found.name))
            continue
        ends: dict = {"t_start": train.t_start, "t_stop": train.t_stop}
        ends["observed"] = train.observed.ravel()
        about = {"recording": name, "unit_id": train.name, **ends}
        rows.append({**about, "spike_times": train.times})
    return rows
