"""Spike trains in a matrix of numbers, whatever file it comes from."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dicjax.recordings.readers.common import check_size, Train, UNIT_BYTES
from dicjax.recordings.readers.tabular.columns import (
    are_bits,
    are_ids,
    id_column,
    in_order,
    is_count,
    is_regular,
    Numbers,
    padding_caution,
    without_padding,
)
from dicjax.recordings.readers.tabular.rasters import (
    Axis,
    NO_AXIS,
    trains_in_dense_raster,
)


MOST_COLUMNS = 8  # of a matrix with a row per spike


def trains_in_matrix(
    path: pathlib.Path, matrix: Any, axis: Axis = NO_AXIS
) -> list[Train]:
    """The trains in a matrix, with their numbers as names, "" for a lone one.

    A matrix may be a raster of zeros and ones, also of trials by units by bins; two
    columns of which one says whose spike each is or counts them; or a column or row per
    train, padded with NaN or zeros. Of others, such as traces, there are none. `axis`
    has the times of bins.
    """
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "biuf":
        return []
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim not in (2, 3) or 0 in matrix.shape:
        return []
    if are_bits(matrix):
        return trains_in_dense_raster(path, matrix, axis)
    if matrix.ndim == 3:
        return []
    check_size(path, 8 * matrix.size)
    values = matrix.astype(float)
    thin = values if values.shape[1] == 2 else values.T
    pairs = _pair_trains(*thin.T) if thin.shape[1] == 2 and len(thin) > 2 else []
    # Time runs along the longer side, if it could along both.
    sides = sorted((values, values.T), key=lambda side: -len(side))
    trains = pairs or _padded_trains(sides[0]) or _padded_trains(sides[1])
    check_size(path, UNIT_BYTES * len(trains))
    return trains


def columns_in_words(matrix: Any) -> str:
    """What the few columns of a long matrix hold, if one of them may be times."""
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "iuf":
        return ""
    if matrix.ndim != 2:
        return ""
    width, length = sorted(matrix.shape)
    if not 2 < width <= MOST_COLUMNS < length:
        return ""
    table = matrix if len(matrix) == length else matrix.T
    columns = [column.astype(float) for column in table.T]
    kinds = [_kind_of(column) for column in columns]
    if kinds.count("rises") in (0, width):
        return ""
    side = "column" if table is matrix else "row"
    return ", ".join(
        f"{side} {i} {kind} from {np.nanmin(column):g} to {np.nanmax(column):g}"
        for i, (kind, column) in enumerate(zip(kinds, columns, strict=True), 1)
    )


def which_column(path: pathlib.Path, matrices: str) -> str:
    """Asks for the column of times of matrices of which each says what it holds."""
    return (
        f"{path.name}: which column holds times is not clear in {matrices}: save that "
        "column alone, or two columns, of units and of times."
    )


def _kind_of(column: Numbers) -> str:
    if is_count(column):
        return "counts"
    if are_ids(column):
        return "has few whole numbers"
    if np.isfinite(column).all() and in_order(column) and not is_regular(column):
        return "rises"
    return "varies"


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
