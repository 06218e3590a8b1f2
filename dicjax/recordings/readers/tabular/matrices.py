"""Spike trains in a matrix of numbers, whatever file it comes from."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from dicjax.recordings.readers.common import check_size, Train, UNIT_BYTES
from dicjax.recordings.readers.tabular.columns import (
    are_bits,
    id_column,
    in_order,
    is_count,
    Numbers,
    padding_caution,
    without_padding,
)


Places = Int[np.ndarray, " ones"]
Axis = Float[np.ndarray, " bins"]
NO_AXIS = np.zeros(0)


def trains_in_matrix(
    path: pathlib.Path, matrix: Any, axis: Axis = NO_AXIS
) -> list[Train]:
    """The trains in a matrix, with their numbers as names, "" for a lone one.

    A matrix may be a raster of zeros and ones, two columns of which one says whose
    spike each is or counts them, or a column or row per train, padded with NaN or
    zeros. Of others, such as traces, there are none. `axis` has the times of bins.
    """
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "biuf":
        return []
    if matrix.ndim != 2 or 0 in matrix.shape:
        return []
    if are_bits(matrix):
        check_size(path, 32 * int(np.count_nonzero(matrix)))
        rows, columns = np.nonzero(matrix)
        return trains_in_raster(path, rows, columns, matrix.shape, axis)
    check_size(path, 8 * matrix.size)
    values = matrix.astype(float)
    thin = values if values.shape[1] == 2 else values.T
    pairs = _pair_trains(*thin.T) if thin.shape[1] == 2 and len(thin) > 2 else []
    # Time runs along the longer side, if it could along both.
    sides = sorted((values, values.T), key=lambda side: -len(side))
    trains = pairs or _padded_trains(sides[0]) or _padded_trains(sides[1])
    check_size(path, UNIT_BYTES * len(trains))
    return trains


def trains_in_raster(
    path: pathlib.Path,
    rows: Places,
    columns: Places,
    shape: Sequence[int],
    axis: Axis = NO_AXIS,
) -> list[Train]:
    """Trains from where the ones of a raster are, in bins or in times of its axis."""
    num_bins = axis.size if axis.size in shape else max(shape)
    bins, which = (rows, columns) if shape[0] == num_bins else (columns, rows)
    has_axis = axis.size == num_bins
    times = axis[bins] if has_axis else bins.astype(float)
    span = axis[[0, -1]] if has_axis else np.array([0.0, num_bins])
    order = np.lexsort((bins, which))
    num = shape[1] if bins is rows else shape[0]
    check_size(path, UNIT_BYTES * num)
    ends = np.searchsorted(which[order], np.arange(1, num))
    parts = np.split(times[order], ends)
    unit = None if has_axis else "samples"
    return [Train(str(i), own, unit, span=span) for i, own in enumerate(parts, 1)]


def _pair_trains(first: Numbers, second: Numbers) -> list[Train]:
    if not np.isfinite([first, second]).all():
        return []
    for counts, times in ((first, second), (second, first)):
        if is_count(counts) and not is_count(times):
            return [Train("", times)] if in_order(times) else []
    place = id_column([first, second])
    if place is None:
        return []
    ids, times = (first, second) if place == 0 else (second, first)
    names = np.unique(ids)
    parts = [times[ids == name] for name in names]
    if not all(map(in_order, parts)):
        return []
    return [Train(f"{name:g}", own) for name, own in zip(names, parts, strict=True)]


def _padded_trains(table: Shaped[np.ndarray, "rows columns"]) -> list[Train]:
    """Trains in the columns of a table, if some of them are padded at their end."""
    parts = [without_padding(column) for column in table.T]
    parts = [(own if own.any() else own[:0], zeros) for own, zeros in parts]
    is_padded = any(own.size < len(table) for own, _ in parts)
    longest = max(own.size for own, _ in parts)
    are_times = all(np.isfinite(own).all() and in_order(own) for own, _ in parts)
    if not (is_padded and are_times and longest > 1):
        return []
    return [
        Train(str(i), own, caution=padding_caution(zeros))
        for i, (own, zeros) in enumerate(parts, 1)
    ]
