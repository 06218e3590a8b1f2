"""The inputs of a sweep: recordings and tables of members, copied into its folder.

Workers read the copies alone. A sweep therefore goes on as it began even if the
original files change.
"""

import os
import pathlib
import warnings

import numpy as np
import pyarrow as pa

from dicjax.inference import find_neuron
from dicjax.output import read_models
from dicjax.recordings import read_spike_trains
from dicjax.spikes import as_train, SpikeTrain
from dicjax.sweeps.config import Config, GenerateJob, Tabled, Target, Targets


TRAIN = pa.schema(
    [
        ("recording", pa.string()),
        ("unit_id", pa.string()),
        ("t_start", pa.float64()),
        ("t_stop", pa.float64()),
        ("spike_times", pa.list_(pa.float64())),
        ("refused", pa.string()),
    ]
)
TARGETS = pa.schema([*TRAIN, ("tolerance", pa.float64()), ("model_asked", pa.string())])


def read_inputs(config: Config) -> dict[str, pa.Table]:
    """The tables of a sweep: "targets", and "members" if they are not drawn.

    **Raises:**

    - `ValueError`: if members do not fit the model, or no recording can be read.
    """
    tables = {}
    if isinstance(config, GenerateJob):
        tables["targets"] = _targets(config.targets)
        return tables
    members = getattr(config, "members", None)
    if isinstance(members, Tabled):
        neuron, _ = find_neuron(config.model)  # pyright: ignore
        _, g = read_models(members.table, neuron)
        columns = dict(zip(neuron.channel_names, g.astype(np.float32).T, strict=True))
        tables["members"] = pa.table(
            {f"g_{k}": pa.array(x) for k, x in columns.items()}
        )
    target = getattr(config, "target", None)
    if isinstance(target, Target):
        rows = _trains(
            str(target.recording), target.unit, target.window, target.unit_id
        )
        if rows[0]["refused"] is not None:
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
        t_start=row["t_start"],
        t_stop=row["t_stop"],
        name=row["unit_id"],
        source=row["recording"],
    )


def _targets(targets: Targets) -> pa.Table:
    above = os.path.commonpath([pathlib.Path(x).parent for x in targets.recordings])
    trains = [
        row | {"recording": pathlib.Path(path).relative_to(above).as_posix()}
        for path in targets.recordings
        for row in _trains(path, targets.unit, targets.window, None)
    ]
    refused = [row["refused"] for row in trains if row["refused"] is not None]
    if len(refused) == len(trains):
        raise ValueError(f"None of {len(trains)} recordings can be read: {refused[0]}")
    for reason in refused:
        warnings.warn(f"Left out: {reason}", stacklevel=2)
    rows = [
        {**train, "tolerance": tolerance, "model_asked": model}
        for train in trains
        for model in targets.models
        for tolerance in targets.tolerances
    ]
    return pa.Table.from_pylist(rows, TARGETS)


def _trains(path: str, unit, window, unit_id) -> list[dict]:
    """The trains of a file as rows; or one row with the reason if it cannot be read."""
    name = pathlib.Path(path).name
    nothing = {"recording": name, "unit_id": None, "t_start": None, "t_stop": None}
    try:
        trains = read_spike_trains(path, unit=unit, unit_id=unit_id)
    except ValueError as e:
        return [nothing | {"spike_times": None, "refused": _naming(name, str(e))}]
    rows = []
    for train in trains:
        row = nothing | {"unit_id": train.name}
        try:
            cut = as_train(train if window is None else train.window(*window))
        except ValueError as e:
            reason = _naming(name, str(e))
            rows.append(row | {"spike_times": None, "refused": reason})
            continue
        times = {"t_start": cut.t_start, "t_stop": cut.t_stop}
        rows.append(row | times | {"spike_times": cut.times, "refused": None})
    return rows


def _naming(name: str, message: str) -> str:
    return message if name in message else f"{name}: {message}"
