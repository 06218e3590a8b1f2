"""Reads HDF5 files of simulators and sorters: SONATA, psort and SpyKING CIRCUS."""

import pathlib
from typing import Any

import h5py
import numpy as np

from dicjax.recordings.readers import common
from dicjax.recordings.readers.common import check_size, grouped, reading, Train, vector
from dicjax.recordings.readers.neo_files import read_neo
from dicjax.recordings.readers.nwb import read_nwb
from dicjax.recordings.readers.units import named_unit


_IDS = ("node_ids", "gids")
_PSORT = {"ss_index": "simple", "cs_index": "complex"}  # spikes of a Purkinje cell
_NUM_READ = 2**20  # samples at once
MAX_RATIO = 1100  # of numbers to stored bytes; no compression does better


def read_hdf5(path: pathlib.Path) -> list[Train]:
    """The trains of an HDF5 file, by the layout that it has."""
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        names, data = set(file), file.get("data")
        slots = set(data) if isinstance(data, h5py.Group) else set()
    if "i0" in slots:
        return read_psort(path)
    if "units" in names:
        return read_nwb(path)
    if "spiketimes" in names:
        return _circus_trains(path)
    if "spikes" in names:
        return _sonata_trains(path)
    return read_neo(path, ("SONATA", "psort", "SpyKING CIRCUS", "NWB"))


def _sonata_trains(path: pathlib.Path) -> list[Train]:
    """Times of populations beside the node of each."""
    trains = []
    with reading(path, "an HDF5 file of SONATA"), h5py.File(path, "r") as file:
        spikes: Any = file["spikes"]
        groups = {"": spikes} if "timestamps" in spikes else dict(spikes.items())
        for population, group in groups.items():
            times = group["timestamps"]
            ids = group[next(name for name in _IDS if name in group)]
            check_size(path, 16 * times.size + 16 * ids.size)
            stated = times.attrs.get("units", "")
            unit = named_unit(stated.decode() if isinstance(stated, bytes) else stated)
            own = grouped(path, ids[()], vector(path, "timestamps", times[()]))
            before = f"{population}_" if len(groups) > 1 else ""
            trains += [Train(before + x, t, unit, "ms") for x, t in own.items()]
    return trains


def _circus_trains(path: pathlib.Path) -> list[Train]:
    """Sample indices of each template."""
    trains, num_bytes = [], 0
    kind = "an HDF5 file of SpyKING CIRCUS"
    with reading(path, kind), h5py.File(path, "r") as file:
        group: Any = file["spiketimes"]
        for name in sorted(group, key=lambda x: (len(x), x)):
            num_bytes += 8 * group[name].size + common.UNIT_BYTES
            check_size(path, num_bytes)
            times = vector(path, name, group[name][()])
            trains.append(Train(name.removeprefix("temp_"), times, "samples"))
    return trains


def read_psort(path: pathlib.Path) -> list[Train]:
    """Simple and complex spikes, which psort marks among the samples of a trace."""
    with reading(path, "a file of psort"), h5py.File(path, "r") as file:
        slots: Any = file["data"]
        # The last slot has the whole recording.
        last = slots[max(slots, key=lambda name: int(name.removeprefix("i")))]
        rate = float(np.ravel(last["sample_rate"][()])[0])
        start = last["ch_time"][:1] if last["ch_time"].size else [0.0]
        trains = []
        for label, name in _PSORT.items():
            places = _places(path, last[label])
            times = float(start[0]) + places / rate
            trains.append(Train(name, times, "s"))
    return trains


def _places(path: pathlib.Path, marks: Any) -> np.ndarray:
    """Where a dataset is true, read in parts."""
    stored = marks.id.get_storage_size()
    if marks.size > MAX_RATIO * stored + _NUM_READ:
        raise ValueError("It states more samples than it holds.")
    found = [np.zeros(0)]
    for first in range(0, marks.size, _NUM_READ):
        own = np.flatnonzero(marks[first : first + _NUM_READ])
        found.append(first + own.astype(float))
        check_size(path, 8 * sum(part.size for part in found))
    return np.concatenate(found)
