"""Which of some columns of numbers are spike times, by their numbers alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped


Numbers = Float[np.ndarray, " _"]

MAX_FALLS = 0.1  # share of steps back in a column of times
UNEVEN = 1e-3  # part of the mean step by which an axis may vary
MIN_COUNT = 3  # whole numbers in a row that count rows


def is_count(values: Shaped[np.ndarray, " _"]) -> bool:
    """Whether they are whole numbers in a row, which count rows."""
    steps = np.diff(values)
    return values.size >= MIN_COUNT and not values[0] % 1 and bool((steps == 1).all())


def is_regular(values: Numbers) -> bool:
    """Whether they rise in equal steps, as the times of bins do."""
    steps = np.diff(values)
    return bool(steps.size and np.ptp(steps) <= UNEVEN * steps.mean())


def in_order(values: Numbers) -> bool:
    """Whether most numbers are larger than the one before, as times are."""
    falls = np.diff(values) < 0
    return values.size < 2 or float(falls.mean()) <= MAX_FALLS


def are_bits(values: np.ndarray) -> bool:
    """Whether they are zeros and ones, and some of both."""
    if values.dtype.kind == "b":
        return bool(values.any() and not values.all())
    is_one = values == 1
    return bool((is_one | (values == 0)).all() and is_one.any() and not is_one.all())


def are_ids(values: Numbers) -> bool:
    """Whether they are few whole numbers that come back."""
    is_whole = not np.any(values % 1)  # nan is none
    return bool(is_whole) and 2 * np.unique(values).size <= values.size


def without_padding(values: Numbers) -> tuple[Numbers, int]:
    """Numbers without trailing NaN and zeros, and how many zeros there were."""
    filled = np.flatnonzero(~np.isnan(values))
    values = values[: filled[-1] + 1 if filled.size else 0]
    spikes = np.flatnonzero(values)
    end = int(spikes[-1]) + 1 if spikes.size else values.size
    is_padded = end < values.size and values[end - 1] > 0
    return (values[:end], values.size - end) if is_padded else (values, 0)


def padding_caution(num_zeros: int) -> str:
    return f"ends in {num_zeros} zeros, which were taken for padding" * bool(num_zeros)


def id_column(columns: Sequence[Numbers]) -> int | None:
    """Which of two columns says whose spike each is, if one does."""
    marks = [
        are_ids(column) and not (are_ids(other) and in_order(column))
        for column, other in (columns, columns[::-1])
    ]
    return marks.index(True) if sum(marks) == 1 else 0 if all(marks) else None


def spans_of_rows(
    table: Float[np.ndarray, "rows columns"],
) -> tuple[Bool[np.ndarray, " rows"], bool]:
    """Whether each row holds times in order, blanks at its end; and each column."""
    return _orders(table), bool(_orders(table.T).all())


def _orders(table: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, " rows"]:
    blank = np.isnan(table)
    is_padded = ~(blank[:, :-1] & ~blank[:, 1:]).any(axis=1)
    falls = (np.diff(table, axis=1) < 0).any(axis=1)
    return np.asarray(is_padded & ~falls)
