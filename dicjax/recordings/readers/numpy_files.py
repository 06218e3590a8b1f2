"""Reads NumPy arrays and archives, and archives of pynapple."""

import pathlib
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dicjax._core import tidy
from dicjax.recordings.readers.common import (
    check_size,
    grouped,
    is_vector,
    labelled_train,
    name_of,
    reading,
    span_of,
    Train,
    unpacked_size,
    vector,
)
from dicjax.recordings.readers.sorters.spikeinterface import (
    is_sorting,
    sorting_trains,
)
from dicjax.recordings.readers.tabular.matrices import (
    columns_in_words,
    trains_in_matrix,
    which_column,
)
from dicjax.recordings.readers.tabular.rasters import rasters_among
from dicjax.recordings.readers.tabular.vectors import times_among
from dicjax.recordings.readers.units import named_unit, stated_unit


Arrays = dict[str, Shaped[np.ndarray, "..."]]

_KIND = "a NumPy file of numbers"


def read_numpy(path: pathlib.Path) -> list[Train]:
    check_size(path, unpacked_size(path, _KIND))
    _refuse_objects(path)
    with reading(path, _KIND), path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"": loaded}
        else:
            # pynapple also saves a pickle, which is not read.
            arrays = {x: loaded[x] for x in loaded.files if x != "_metadata"}
        if not all(isinstance(x, np.ndarray) for x in arrays.values()):
            raise ValueError("It holds other files than arrays.")
    if {"t", "start", "end", "type"} <= arrays.keys():
        return _pynapple_trains(path, arrays)
    if is_sorting(arrays):
        return sorting_trains(path, arrays)
    return _array_trains(path, arrays)


def _refuse_objects(path: pathlib.Path) -> None:
    """Raises a `ValueError` for arrays of objects, which are pickles."""
    with reading(path, _KIND), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            found = [""] if _dtype(file).hasobject else []
        else:
            with zipfile.ZipFile(file) as archive:
                names = [x for x in archive.namelist() if x != "_metadata.npy"]
                found = [name for name in names if _is_of_objects(archive, name)]
    if found:
        label = tidy(found[0].removesuffix(".npy"))
        which = f'["{label}"]' if label else ""
        raise ValueError(
            f"{path.name} is not a NumPy file of numbers: it holds Python objects, "
            "which are not opened as they could run code. If you trust it, save an "
            f'array per unit: np.savez("trains.npz", *np.load("{path.name}", '
            f"allow_pickle=True){which})."
        )


def _is_of_objects(archive: zipfile.ZipFile, name: str) -> bool:
    if not name.endswith(".npy"):
        return False
    with archive.open(name) as file:
        return _dtype(file).hasobject


def _dtype(file: Any) -> np.dtype:
    version = np.lib.format.read_magic(file)
    one, two = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    return (one if version == (1, 0) else two)(file)[2]


def _array_trains(path: pathlib.Path, arrays: Arrays) -> list[Train]:
    with reading(path, _KIND):
        ends = [arrays.pop(x).item() for x in ("t_start", "t_stop") if x in arrays]
        span, unit = np.array(ends, float), None
        if "unit" in arrays and arrays["unit"].dtype.kind == "U":
            unit = named_unit(arrays.pop("unit").item())
    rasters, axis = rasters_among(arrays, [*arrays])
    arrays = {x: arrays[x] for x in rasters} or arrays
    is_lone = {x: is_vector(own) and x not in rasters for x, own in arrays.items()}
    vectors = {x: np.ravel(own) for x, own in arrays.items() if is_lone[x]}
    times, ids = times_among(vectors)
    if ids is not None and all(is_lone.values()):
        label = times[0]
        parts = grouped(path, vectors[ids], vector(path, label, arrays[label]))
        own = [labelled_train(path, x, label, t, unit) for x, t in parts.items()]
        return [train._replace(span=span) for train in own]
    arrays = {x: own for x, own in arrays.items() if x in times or x not in vectors}
    trains = []
    for label, array in arrays.items():
        name = name_of(path, label, is_lone=len(arrays) == 1)
        parts = [] if is_lone[label] else trains_in_matrix(path, array, axis)
        columns = columns_in_words(array)
        if not parts and columns:
            raise ValueError(which_column(path, f"{label or 'its array'} ({columns})"))
        if not parts:
            train = labelled_train(path, name, label, vector(path, label, array), unit)
            trains.append(train._replace(span=span))
        for part in parts:
            own = "_".join(x for x in (label, part.name) if x) or path.stem
            stated = part.unit or unit or stated_unit(label)
            trains.append(part._replace(name=own, unit=stated))
    return trains


def _pynapple_trains(path: pathlib.Path, arrays: Arrays) -> list[Train]:
    kind = str(arrays["type"].ravel()[:1])
    if "'Ts'" not in kind and "'TsGroup'" not in kind:
        raise ValueError(
            f"{path.name} holds values over time, as pynapple saves them, and no spike "
            "times: save a Ts or a TsGroup."
        )
    times = vector(path, "t", arrays["t"])
    with reading(path, "an archive of pynapple"):
        units = {path.stem: times}
        if "'TsGroup'" in kind:
            units = {str(key): np.zeros(0) for key in arrays["keys"].ravel()}
            units |= grouped(path, arrays["index"].ravel(), times)
        span = span_of(arrays["start"].astype(float), arrays["end"].astype(float))
        return [Train(name, own, None, "s", span) for name, own in units.items()]
