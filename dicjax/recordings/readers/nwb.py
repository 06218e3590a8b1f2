"""Reads the Units table of NWB files with h5py alone."""

import pathlib
from typing import Any

import h5py
import numpy as np

from dicjax.recordings.readers import common
from dicjax.recordings.readers.common import check_size, listing, reading, Train, vector
from dicjax.recordings.readers.units import stated_unit


def read_nwb(path: pathlib.Path) -> list[Train]:
    most = common.MAX_BYTES // 8 + 1  # a few bytes can declare a dataset of any size
    trains, kind = [], "an NWB file with spike times in its Units table"
    with reading(path, kind), h5py.File(path, "r") as file:
        lack = _lack(file)
    if lack:
        raise ValueError(
            f"{path.name} has {lack}: sort its spikes, or export the Units table with "
            "`spike_times`."
        )
    with reading(path, kind), h5py.File(path, "r") as file:
        units: Any = file["units"]
        times = units["spike_times"][:most]
        most_units = common.MAX_BYTES // common.UNIT_BYTES + 1
        rows = _ragged(times, units["spike_times_index"][:most_units])
        unit = stated_unit(str(units["spike_times"].attrs.get("unit", "")))
        names = units["id"][:most] if "id" in units else range(len(rows))
        spans: Any = [common.NO_SPAN] * len(rows)
        if "obs_intervals" in units:
            ends = units["obs_intervals_index"][:most_units]
            spans = _ragged(units["obs_intervals"][:most], ends)
        for name, row, span in zip(map(str, names), rows, spans, strict=True):
            row, span = vector(path, name, row), np.ravel(span).astype(float)
            trains.append(Train(name, row, unit, "s", span))
    check_size(path, times.nbytes)
    return trains


def _lack(file: Any) -> str:
    """What a whole NWB file has in place of spike times; nothing if it has some."""
    if "units" not in file:
        return "no Units table"
    units = file["units"]
    if not isinstance(units, h5py.Group) or "spike_times" in units:
        return ""
    return (
        f"a Units table without spike times (only {listing([str(x) for x in units])})"
    )


def _ragged(values: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    ends = ends.astype(int)  # often unsigned, so that differences would wrap around
    if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(values):
        raise ValueError("The index does not fit the values.")
    return np.split(values, ends[:-1])
