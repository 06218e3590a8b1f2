"""Reads NumPy arrays and archives, and archives of pynapple."""

import pathlib

import numpy as np
from jaxtyping import Shaped

from dicjax.recordings.readers.common import (
    check_size,
    grouped,
    labelled_train,
    name_of,
    reading,
    span_of,
    Train,
    unpacked_size,
    vector,
)
from dicjax.recordings.readers.units import named_unit


Arrays = dict[str, Shaped[np.ndarray, "..."]]

_KIND = "a NumPy file of numbers"


def read_numpy(path: pathlib.Path) -> list[Train]:
    check_size(path, unpacked_size(path, _KIND))
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
    return _array_trains(path, arrays)


def _array_trains(path: pathlib.Path, arrays: Arrays) -> list[Train]:
    with reading(path, _KIND):
        ends = [arrays.pop(x).item() for x in ("t_start", "t_stop") if x in arrays]
        span, unit = np.array(ends, float), None
        if "unit" in arrays and arrays["unit"].dtype.kind == "U":
            unit = named_unit(arrays.pop("unit").item())
    trains = []
    for label, array in arrays.items():
        name = name_of(path, label, is_lone=len(arrays) == 1)
        train = labelled_train(path, name, label, vector(path, label, array), unit)
        trains.append(train._replace(span=span))
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
            if arrays["index"].shape != times.shape:
                raise ValueError("Spikes and their units differ in number.")
            units = {str(key): np.zeros(0) for key in arrays["keys"].ravel()}
            units |= grouped(path, arrays["index"].ravel(), times)
        span = span_of(arrays["start"].astype(float), arrays["end"].astype(float))
        return [Train(name, own, None, "s", span) for name, own in units.items()]
