"""Structs of MATLAB that spike sorters and toolboxes write, known by their fields."""

import pathlib
from typing import Any

import numpy as np

from dicjax.recordings.readers.common import is_vector, Train
from dicjax.recordings.readers.units import is_rate, named_unit, samples_at


Fields = dict[str, Any]


def trains_of_sorter(path: pathlib.Path, fields: Fields) -> list[Train]:
    """The trains of a sorter or toolbox; of structs of other fields, none."""
    clusters = fields.get("cluster_class")
    if isinstance(clusters, np.ndarray) and clusters.ndim == 2:
        return _wave_clus_trains(path, clusters)
    if isinstance(fields.get("spikeTimes"), list) and "spikeDetectionResult" in fields:
        return _mea_nap_trains(fields)
    if {"label", "trial"} <= fields.keys() and isinstance(fields.get("time"), list):
        return _field_trip_trains(fields)
    if isinstance(fields.get("times"), list) and {"UID", "ts"} & fields.keys():
        return _cell_explorer_trains(fields)
    return []


def _is_vector(value: Any) -> bool:
    """Whether it is a row of numbers, or one number."""
    return isinstance(value, np.ndarray) and is_vector(np.atleast_1d(value))


def _vector(value: Any) -> np.ndarray:
    """The numbers of a vector; of all else, none."""
    return np.ravel(value).astype(float) if _is_vector(value) else np.zeros(0)


def _wave_clus_trains(path: pathlib.Path, clusters: np.ndarray) -> list[Train]:
    """Times in ms beside their cluster; what fits none is in cluster 0."""
    if clusters.shape[1] != 2:
        return []
    labels, times = clusters.astype(float).T
    names = [name for name in np.unique(labels) if name > 0]
    num_left = int(np.sum(labels == 0))
    if not names:
        raise ValueError(
            f"{path.name} has {num_left} spikes of cluster 0 alone, in which wave_clus "
            "leaves what it could not sort: sort them first."
        )
    trains = [Train(f"{x:g}", times[labels == x], usual_unit="ms") for x in names]
    if num_left:
        caution = f"was read without the {num_left} spikes of cluster 0, the unsorted"
        trains[0] = trains[0]._replace(caution=caution)
    return trains


def _mea_nap_trains(fields: Fields) -> list[Train]:
    """A struct per channel, with the times that each method of detection found."""
    result = fields["spikeDetectionResult"]
    result = result if isinstance(result, dict) else {}
    params = result.get("params")
    params = {**result, **(params if isinstance(params, dict) else {})}
    unit = params.get("unit")
    unit = unit if isinstance(unit, str) else ""
    rate = _vector(params.get("fs"))
    known = rate.size == 1 and is_rate(rate[0])
    stated = named_unit(unit)
    if unit.startswith(("frame", "sample")):
        stated = samples_at(float(rate[0])) if known else "samples"
    channels = _vector(fields.get("channels"))
    parts = fields["spikeTimes"]
    if channels.size != len(parts):
        channels = np.arange(1, len(parts) + 1)
    trains = []
    for channel, part in zip(channels, parts, strict=True):
        found = part if isinstance(part, dict) else {"": part}
        for method, times in found.items():
            if _is_vector(times):
                name = f"{channel:g}_{method}".rstrip("_")
                trains.append(Train(name, _vector(times), stated))
    if len({train.name.partition("_")[2] for train in trains}) > 1:
        caution = "is of one of several methods of detection: read one by its name"
        trains[0] = trains[0]._replace(caution=caution)
    return trains


def _cell_explorer_trains(fields: Fields) -> list[Train]:
    """Times in s per unit; `ts` has the same in samples."""
    parts = fields["times"]
    uid = _vector(fields.get("UID"))
    if uid.size != len(parts):
        uid = np.arange(1, len(parts) + 1)
    return [
        Train(f"{name:g}", _vector(own), usual_unit="s")
        for name, own in zip(uid, parts, strict=True)
        if _is_vector(own)
    ]


def _field_trip_trains(fields: Fields) -> list[Train]:
    """Times in s since the start of each trial; `timestamp` has ticks of a clock."""
    labels, trains = fields["label"], []
    trials = fields["trial"] if isinstance(fields["trial"], list) else []
    for i, own in enumerate(fields["time"]):
        has_name = isinstance(labels, list) and i < len(labels)
        name = labels[i] if has_name and isinstance(labels[i], str) else str(i + 1)
        times, which = _vector(own), _vector(trials[i] if i < len(trials) else own)
        if not _is_vector(own) or which.shape != times.shape:
            return []
        several = np.unique(which) if i < len(trials) else [0]
        for trial in several:
            part = times[which == trial] if len(several) > 1 else times
            after = f"_{trial:g}" if len(several) > 1 else ""
            trains.append(Train(name + after, part, usual_unit="s"))
    return trains
