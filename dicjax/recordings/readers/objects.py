"""Reads spike trains from objects of other libraries, known by their methods."""

from typing import Any

import numpy as np

from dicjax.recordings.readers.common import span_of, Train
from dicjax.recordings.readers.neo_files import neo_trains
from dicjax.recordings.readers.neo_worker import spike_times
from dicjax.recordings.readers.units import samples_at


def read_object(source: Any) -> list[Train]:
    """The trains of an object of pynapple, neo or spikeinterface."""
    if hasattr(source, "get_unit_spike_train"):
        return _sorting_trains(source)
    if hasattr(source, "time_support"):
        return _pynapple_trains(source)
    parts = list(source) if isinstance(source, list | tuple) else [source]
    is_neo = [
        any(hasattr(part, name) for name in ("segments", "spiketrains"))
        or (hasattr(part, "rescale") and hasattr(part, "t_stop"))
        for part in parts
    ]
    if parts and all(is_neo):
        return neo_trains(spike_times(parts))
    raise ValueError(
        f"A {type(source).__name__} is no path, and no spike trains of pynapple, neo "
        "or spikeinterface: give times in ms to dicjax.SpikeTrain."
    )


def _sorting_trains(sorting: Any) -> list[Train]:
    unit = samples_at(float(sorting.get_sampling_frequency()))
    num_segments = int(sorting.get_num_segments())
    trains = []
    for segment in range(num_segments):
        before = f"{segment}_" if num_segments > 1 else ""
        for name in sorting.get_unit_ids():
            times = sorting.get_unit_spike_train(name, segment_index=segment)
            trains.append(Train(f"{before}{name}", np.asarray(times, float), unit))
    return trains


def _pynapple_trains(group: Any) -> list[Train]:
    epochs = group.time_support
    span = span_of(np.asarray(epochs.start, float), np.asarray(epochs.end, float))
    if hasattr(group, "keys"):
        units = {str(key): group[key] for key in group.keys()}  # noqa: SIM118
    else:
        units = {type(group).__name__: group}
    if any(hasattr(unit, "d") for unit in units.values()):
        raise ValueError(
            f"A {type(group).__name__} holds values over time and no spikes: give a Ts "
            "or a TsGroup."
        )
    times = {name: np.asarray(unit.t, float) for name, unit in units.items()}
    return [Train(name, own, "s", span=span) for name, own in times.items()]
