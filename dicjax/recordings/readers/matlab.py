"""Reads spike trains from the variables of a MATLAB file."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from dicjax.recordings.readers.common import (
    grouped,
    is_vector,
    labelled_train,
    listing,
    reading,
    Train,
)
from dicjax.recordings.readers.matlab_files import load_hdf5, load_matrices
from dicjax.recordings.readers.units import (
    is_id,
    is_intervals,
    is_of_spikes,
    is_time,
    named_unit,
)


LIBRARIES = ("scipy.io",)
Fields = dict[str, Any]

_UNIT_FIELDS = {"unit", "units", "timeunit", "timeunits"}
_RATE_FIELDS = {"fs", "sr", "samplingrate", "samplerate", "samplingfrequency"}
_NAME_FIELDS = {"name", "label", "id", "unitid", "clusterid", "cluster", "unitname"}


def read_matlab(path: pathlib.Path) -> list[Train]:
    with reading(path, "a MATLAB file of numbers, cells and structs"):
        fields = load_hdf5(path) if h5py.is_hdf5(path) else load_matrices(path)
    at = _Place(path)
    trains = list(_of_struct(at, fields, is_top=True))
    if not trains:
        raise ValueError(
            f"{path.name} has no vector of times: it has {listing(at.others)}; save "
            "one vector per unit."
        )
    return trains


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of a value in a file, with the unit and rate stated above it."""

    path: pathlib.Path
    name: str = ""
    unit: str | None = None
    rate: float | None = None
    others: list[str] = dataclasses.field(default_factory=list)  # without times

    def below(self, part: str) -> "_Place":
        return dataclasses.replace(self, name=f"{self.name}_{part}".lstrip("_"))


def _of_value(at: _Place, label: str, value: Any) -> Iterator[Train]:
    if isinstance(value, dict):
        yield from _of_struct(at, value)
    elif isinstance(value, list):
        for i, part in enumerate(value, 1):
            # A cell with one spike was squeezed into a number.
            part = part if _number(part) is None else np.atleast_1d(part)
            yield from _of_value(at.below(str(i)), label, part)
    elif is_vector(value):
        numbers, name = np.ravel(value).astype(float), at.name or at.path.stem
        train = labelled_train(at.path, name, label, numbers, at.unit)
        yield train._replace(rate=at.rate)
    else:
        shape = " × ".join(map(str, np.shape(value)))
        at.others.append(f"{label} ({shape or 'no vector'})")


def _of_struct(at: _Place, fields: Fields, is_top: bool = False) -> Iterator[Train]:
    at = dataclasses.replace(
        at,
        unit=_stated(fields, _UNIT_FIELDS, _unit) or at.unit,
        rate=_stated(fields, _RATE_FIELDS, _rate) or at.rate,
    )
    times = _times_among(fields, is_top)
    ids = _ids_of(fields, times)
    if ids is not None:
        (whole,) = _of_value(at, times[0], fields[times[0]])
        for name, own in grouped(at.path, np.ravel(fields[ids]), whole.times).items():
            yield whole._replace(name=name.removesuffix(".0"), times=own)
        return
    name = None if is_top else _stated(fields, _NAME_FIELDS, _name)
    place = dataclasses.replace(at, name=name) if name else at
    for label in times:
        is_lone = len(times) == 1 and (is_time(label) or not is_top)
        below = place if is_lone else place.below(label)
        yield from _of_value(below, label, fields[label])


def _times_among(fields: Fields, is_top: bool) -> list[str]:
    """Fields with the names of times; all possible fields if there are none."""
    known = _UNIT_FIELDS | _RATE_FIELDS | _NAME_FIELDS
    labels = [
        label
        for label, value in fields.items()
        if _plain(label) not in known or isinstance(value, dict | list)
    ]
    times = [x for x in labels if is_time(x) and _holds_several(fields[x])]
    spikes = [x for x in times if is_of_spikes(x)]
    # At the top of a file, `t` may be the time of a trace.
    return spikes or (labels if is_top else times or labels)


def _ids_of(fields: Fields, times: list[str]) -> str | None:
    """The field that holds the unit of each spike."""
    if len(times) != 1 or not is_vector(fields[times[0]]) or is_intervals(times[0]):
        return None
    size = np.size(fields[times[0]])
    for label, value in fields.items():
        bare = label.casefold().removeprefix("spike").lstrip("_")
        if is_id(bare) and is_vector(value) and np.size(value) == size > 0:
            return label
    return None


def _number(value: Any) -> float | None:
    is_nested = isinstance(value, str | dict | list)
    if is_nested or np.asarray(value).dtype.kind not in "iuf" or np.size(value) != 1:
        return None
    return float(np.ravel(value)[0])


def _holds_several(value: Any) -> bool:
    return isinstance(value, dict | list) or np.size(value) != 1


def _plain(label: str) -> str:
    return label.casefold().replace("_", "")


def _stated(fields: Fields, names: set[str], read: Callable[[Any], Any]) -> Any:
    stated = {x for k, v in fields.items() if _plain(k) in names and (x := read(v))}
    return stated.pop() if len(stated) == 1 else None


def _unit(value: Any) -> str | None:
    return named_unit(value) if isinstance(value, str) else None


def _rate(value: Any) -> float | None:
    rate = _number(value)
    return rate if rate is not None and 0 < rate < np.inf else None


def _name(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    number = _number(value)
    return None if number is None else f"{number:g}"
