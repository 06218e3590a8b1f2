"""Rasters of zeros and ones, the times of their bins, and the trains in them."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from dicjax.recordings.readers.common import (
    check_size,
    is_vector,
    Train,
    UNIT_BYTES,
)
from dicjax.recordings.readers.tabular.columns import are_bits, is_count, is_regular
from dicjax.recordings.readers.tabular.vectors import names_neurons
from dicjax.recordings.readers.units import (
    is_measure,
    is_of_spikes,
    is_time,
    MILLISECONDS,
    stated_unit,
)


Places = Int[np.ndarray, " ones"]

MIN_BINS = 20  # of a raster
# Bins are no shorter than samples at 50 kHz. In longer ones, spikes would share a bin.
BIN_MS = (0.02, 50.0)


@dataclasses.dataclass(frozen=True)
class Sparse:
    """Where the numbers of a sparse matrix are, that are not zero."""

    rows: Shaped[np.ndarray, " numbers"]
    columns: Shaped[np.ndarray, " numbers"]
    values: Shaped[np.ndarray, " numbers"]
    shape: tuple[int, int]


class Axis(NamedTuple):
    """The times of bins, and their unit if something states it."""

    times: Float[np.ndarray, " bins"]
    unit: str | None = None


NO_AXIS = Axis(np.zeros(0))


def is_raster(value: Any) -> bool:
    if isinstance(value, Sparse):
        return bool(value.values.size and (value.values == 1).all())
    is_long = isinstance(value, np.ndarray) and max(value.shape, default=0) > MIN_BINS
    return is_long and value.dtype.kind in "biuf" and value.ndim < 4 and are_bits(value)


def rasters_among(
    fields: Mapping[str, Any], times: Sequence[str]
) -> tuple[list[str], Axis]:
    """Fields that are rasters, if no field in `times` has spike times, and their axis.

    Flags of trials, which have no bin for each time of the axis, are no rasters.
    """
    found = [x for x in fields if is_raster(fields[x])]
    for x in times:
        is_vague = x in found or not is_time(x)
        is_axis = is_vector(fields[x]) and is_regular(np.ravel(fields[x]).astype(float))
        if not (is_vague or is_axis) or (is_of_spikes(x) and x not in found):
            return [], NO_AXIS
    found = [x for x in found if not (names_neurons(x) or is_measure(x))]
    axis = _axis(fields, found)
    fit = [x for x in found if axis.times.size in fields[x].shape]
    return fit or found, axis


def _axis(fields: Mapping[str, Any], rasters: Sequence[str]) -> Axis:
    """The times of a raster's bins, if they stand beside it."""
    sizes = {size for x in rasters for size in fields[x].shape}
    for label, value in fields.items():
        if is_time(label) and is_vector(value) and np.size(value) in sizes:
            times = np.ravel(value).astype(float)
            if is_regular(times):
                return Axis(times, stated_unit(label))
    return NO_AXIS


def unit_of_bins(times: Float[np.ndarray, " bins"]) -> str | None:
    """The unit of the times of bins, if their width makes sense in one unit alone."""
    if is_count(times) and times[0] in (0, 1):
        return None  # they may number bins
    width = float(np.mean(np.diff(times)))
    shortest, longest = BIN_MS
    fit = [x for x, ms in MILLISECONDS.items() if shortest <= width * ms <= longest]
    return fit[0] if len(fit) == 1 else None


def trains_in_dense_raster(
    path: pathlib.Path, raster: Shaped[np.ndarray, "..."], axis: Axis = NO_AXIS
) -> list[Train]:
    check_size(path, 8 * (raster.ndim + 2) * int(np.count_nonzero(raster)))
    return trains_in_raster(path, np.nonzero(raster), raster.shape, axis)


def trains_in_raster(
    path: pathlib.Path,
    ones: Sequence[Places],
    shape: Sequence[int],
    axis: Axis = NO_AXIS,
) -> list[Train]:
    """Trains from where the ones of a raster are, in bins or in times of its axis.

    Time runs along the axis, or else along the longest side. Trains are named by their
    places along the other sides, such as trial and unit.
    """
    has_axis = axis.times.size in shape
    along = shape.index(axis.times.size) if has_axis else int(np.argmax(shape))
    others = [i for i in range(len(shape)) if i != along]
    sizes = [shape[i] for i in others]
    num = int(np.prod(sizes))
    check_size(path, UNIT_BYTES * num)
    bins, which = ones[along], np.ravel_multi_index([ones[i] for i in others], sizes)
    times = axis.times[bins] if has_axis else bins.astype(float)
    span = axis.times[[0, -1]] if has_axis else np.array([0.0, shape[along]])
    unit = axis.unit if has_axis else "samples"
    usual = unit_of_bins(axis.times) if has_axis else None
    order = np.lexsort((bins, which))
    parts = np.split(times[order], np.searchsorted(which[order], np.arange(1, num)))
    names = ["_".join(str(i + 1) for i in place) for place in np.ndindex(*sizes)]
    return [
        Train(name, own, unit, usual, span)
        for name, own in zip(names, parts, strict=True)
    ]
