"""Reads spike trains from the variables of a MATLAB file."""

import dataclasses
import itertools
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
from dicjax.recordings.readers.sorters.matlab_structs import trains_of_sorter
from dicjax.recordings.readers.tabular.matrices import (
    columns_in_words,
    trains_in_matrix,
    which_column,
)
from dicjax.recordings.readers.tabular.rasters import (
    Axis,
    is_raster,
    NO_AXIS,
    rasters_among,
    Sparse,
    trains_in_raster,
)
from dicjax.recordings.readers.tabular.vectors import (
    copies_among,
    names_neurons,
    times_among,
)
from dicjax.recordings.readers.units import (
    is_id,
    is_intervals,
    is_of_spikes,
    is_rate,
    is_time,
    named_unit,
    stated_unit,
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
    if not trains and at.unclear:
        raise ValueError(which_column(path, "; ".join(at.unclear[:3])))
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
    axis: Axis = NO_AXIS
    beside: Fields = dataclasses.field(default_factory=dict)  # of the same struct
    others: list[str] = dataclasses.field(default_factory=list)  # without times
    unclear: list[str] = dataclasses.field(default_factory=list)  # in which column

    def below(self, part: str) -> "_Place":
        return dataclasses.replace(self, name=f"{self.name}_{part}".lstrip("_"))

    def names(self, num: int) -> list[str]:
        """Names of trains, from numbers of channels or units beside them."""
        for label, value in self.beside.items():
            is_named = is_id(label) and is_vector(value) and np.size(value) == num > 1
            own = [f"{x:g}" for x in np.ravel(value)] if is_named else []
            if len({*own}) == num:
                return own
        return [str(i) for i in range(1, num + 1)]


def _of_value(at: _Place, label: str, value: Any) -> Iterator[Train]:
    if isinstance(value, dict):
        yield from _of_struct(at, value)
    elif isinstance(value, list):
        for name, part in zip(at.names(len(value)), value, strict=True):
            # A cell with one spike was squeezed into a number.
            part = part if _number(part) is None else np.atleast_1d(part)
            yield from _of_value(at.below(name), label, part)
    elif is_vector(value) and not is_raster(value):
        numbers, name = np.ravel(value).astype(float), at.name or at.path.stem
        train = labelled_train(at.path, name, label, numbers, at.unit)
        yield train._replace(rate=at.rate)
    elif trains := _in_matrix(at, value):
        own = [train.name for train in trains]
        is_counted = own == [str(i) for i in range(1, len(own) + 1)]
        names = at.names(len(own)) if is_counted else own
        for name, train in zip(names, trains, strict=True):
            below = at.below(name) if name and len(own) > 1 else at
            unit = train.unit or at.unit or stated_unit(label)
            named = train._replace(name=below.name or at.path.stem, unit=unit)
            yield named._replace(rate=at.rate)
    else:
        shape = getattr(value, "shape", None) or np.shape(value)
        at.others.append(f"{label} ({' × '.join(map(str, shape)) or 'no vector'})")
        if columns := columns_in_words(value):
            at.unclear.append(f"{label} ({columns})")


def _in_matrix(at: _Place, value: Any) -> list[Train]:
    if isinstance(value, Sparse):
        place = ((value.rows, value.columns), value.shape, at.axis)
        return trains_in_raster(at.path, *place) if is_raster(value) else []
    return trains_in_matrix(at.path, value, at.axis)


def _of_struct(at: _Place, fields: Fields, is_top: bool = False) -> Iterator[Train]:
    known = trains_of_sorter(at.path, fields)
    if known:
        yield from (t._replace(name=at.below(t.name).name) for t in known)
        return
    at = dataclasses.replace(
        at,
        unit=_stated(fields, _UNIT_FIELDS, _unit) or at.unit,
        rate=_stated(fields, _RATE_FIELDS, _rate) or at.rate,
        beside=fields,
    )
    times = _times_among(fields, is_top)
    rasters, axis = rasters_among(fields, times)
    if rasters:
        times, at = rasters, dataclasses.replace(at, axis=axis)
    times, ids = _without_others(at, fields, times)
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
    spikes = [x for x in times if is_of_spikes(x) or _repeats_spikes(fields, x, times)]
    # At the top of a file, `t` may be the time of a trace.
    return spikes or (labels if is_top else times or labels)


def _repeats_spikes(fields: Fields, label: str, times: list[str]) -> bool:
    """Whether a field of times has those of a field of spikes in another unit."""
    vectors = [fields[x] for x in times if is_of_spikes(x) and is_vector(fields[x])]
    own = fields[label]
    pairs = [(np.ravel(own), np.ravel(x)) for x in vectors if is_vector(own)]
    return any(copies_among(pair) for pair in pairs)


def _without_others(
    at: _Place, fields: Fields, times: list[str]
) -> tuple[list[str], str | None]:
    """Fields of times without vectors of another kind, and the field of units."""
    plain = [x for x in times if is_vector(fields[x]) and not is_raster(fields[x])]
    rest = [x for x in times if x not in plain]
    named = [x for x in fields if is_vector(fields[x]) and names_neurons(x)]
    vectors = {x: np.ravel(fields[x]) for x in dict.fromkeys([*plain, *named])}
    kept, ids = times_among(vectors)
    kept = [x for x in kept if not (rest and x in named)] + _without_copies(
        fields, rest
    )
    left = [x for x in times if x not in kept and x != ids]
    at.others.extend(f"{x} (no times, or the same ones)" for x in left)
    times = [x for x in times if x in kept]
    can_group = len(times) == 1 and not rest and not is_intervals(times[0])
    return times, ids if can_group else None


def _without_copies(fields: Fields, labels: list[str]) -> list[str]:
    """Without cells that hold the vectors of others in another unit."""
    copies: set[str] = set()
    cells = [x for x in labels if isinstance(fields[x], list)]
    for first, second in itertools.combinations(cells, 2):
        pairs = list(zip(fields[first], fields[second], strict=False))
        own = [pair for pair in pairs if all(is_vector(part) for part in pair)]
        found = [copies_among([np.ravel(part) for part in pair]) for pair in own]
        found = [
            places for pair, places in zip(own, found, strict=True) if pair[0].size > 3
        ]
        if found and all(found):
            copies.add(second if 1 in found[0] else first)
    return [x for x in labels if x not in copies]


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
    return rate if rate is not None and is_rate(rate) else None


def _name(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    number = _number(value)
    return None if number is None else f"{number:g}"
