"""Sortings that spikeinterface saves: archives, folders, and folders of analyzers."""

import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dicjax.recordings.readers.common import check_size, reading, Train, UNIT_BYTES
from dicjax.recordings.readers.units import is_rate, samples_at


Arrays = dict[str, Shaped[np.ndarray, "..."]]
Labels = dict[str, str]

INFO, SPIKES, ARCHIVE = "numpysorting_info.json", "spikes.npy", "sorting_cached.npz"
ZARR = (".zgroup", ".zmetadata", "zarr.json")
_VERDICTS = ("quality", "group", "KSLabel")  # labels by people come first


def is_sorting(arrays: Arrays) -> bool:
    """Whether arrays are those of an NpzSorting."""
    return {"unit_ids", "num_segment", "sampling_frequency"} <= arrays.keys()


def sorting_trains(path: pathlib.Path, arrays: Arrays) -> list[Train]:
    """The trains of an NpzSorting, per segment."""
    with reading(path, "a sorting of spikeinterface"):
        names = arrays["unit_ids"].ravel()
        num_segments = int(arrays["num_segment"].ravel()[0])
        rate = float(arrays["sampling_frequency"].ravel()[0])
        order, parts = np.argsort(names), []
        for i in range(num_segments):
            labels = arrays[f"spike_labels_seg{i}"].ravel()
            places = np.searchsorted(names, labels, sorter=order) % max(len(names), 1)
            if (names[order[places]] != labels).any():
                raise ValueError("A spike is of no unit.")
            parts.append((arrays[f"spike_indexes_seg{i}"].ravel(), order[places]))
        return _trains(path, [str(name) for name in names], rate, parts, {})


def sorting_folder(path: pathlib.Path) -> pathlib.Path | None:
    """The part of a folder that holds a sorting, if there is one."""
    for folder in (path, path / "sorting"):
        if any((folder / name).is_file() for name in (INFO, ARCHIVE)):
            return folder
    return None


def is_zarr(path: pathlib.Path) -> bool:
    return any((path / name).is_file() for name in ZARR)


def refuse_zarr(path: pathlib.Path) -> list[Train]:
    raise ValueError(
        f"{path.name} is a folder of zarr, which is not read: save the sorting of "
        'spikeinterface by sorting.save(folder="sorting"), or an analyzer by '
        'analyzer.save_as(folder="analyzer", format="binary_folder").'
    )


def read_sorting_folder(path: pathlib.Path) -> list[Train]:
    """The trains of a `numpy_folder`, an `npz_folder` or a `sorting_analyzer`."""
    folder = sorting_folder(path) or path
    kind = "a folder of spikeinterface"
    if not (folder / INFO).is_file():
        check_size(path, (folder / ARCHIVE).stat().st_size)
        with reading(folder / ARCHIVE, kind), np.load(folder / ARCHIVE) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        return sorting_trains(folder / ARCHIVE, arrays)
    check_size(path, (folder / INFO).stat().st_size)
    with reading(path, kind):
        info = json.loads((folder / INFO).read_text("utf-8"))
        names = [str(name) for name in info["unit_ids"]]
        rate = float(info["sampling_frequency"])
        num_segments = int(info["num_segments"])
        check_size(path, UNIT_BYTES * max(len(names), 1) * num_segments)
        check_size(path, (folder / SPIKES).stat().st_size)
        spikes = np.load(folder / SPIKES, allow_pickle=False)
        which = [spikes["segment_index"] == i for i in range(num_segments)]
        parts = [(spikes["sample_index"][x], spikes["unit_index"][x]) for x in which]
        return _trains(path, names, rate, parts, _verdicts(folder, names))


def _trains(
    path: pathlib.Path,
    names: list[str],
    rate: float,
    parts: list[tuple[Any, Any]],
    verdicts: Labels,
) -> list[Train]:
    """The trains of segments of sample indices and the places of their units."""
    check_size(path, UNIT_BYTES * len(names) * max(len(parts), 1))
    if not is_rate(rate):
        raise ValueError("Its sampling rate is none.")
    trains = []
    for i, (samples, units) in enumerate(parts):
        if samples.shape != units.shape or np.any((units < 0) | (units >= len(names))):
            raise ValueError("Spikes and their units do not fit.")
        before = f"{i}_" if len(parts) > 1 else ""
        order = np.argsort(units, kind="stable")
        ends = np.searchsorted(units[order], np.arange(1, len(names)))
        for name, own in zip(names, np.split(samples[order], ends), strict=True):
            verdict = verdicts.get(name, "")
            caution = "is multi-unit activity by its label" if verdict == "mua" else ""
            if verdict != "noise":
                times = own.astype(float)
                unit = samples_at(rate)
                trains.append(Train(before + name, times, unit, caution=caution))
    return trains


def _verdicts(folder: pathlib.Path, names: list[str]) -> Labels:
    """What units were labelled as, which is kept as a property of them."""
    for name in _VERDICTS:
        file = folder / "properties" / f"{name}.npy"
        if file.is_file() and file.stat().st_size < UNIT_BYTES * (len(names) + 1):
            labels = np.load(file, allow_pickle=False)
            if labels.dtype.kind == "U" and labels.shape == (len(names),):
                return dict(zip(names, map(str, labels), strict=True))
    return {}
