"""Reads spike trains from the cells of a table, in all common layouts."""

import pathlib
import re
from typing import NamedTuple

import numpy as np

from dicjax.recordings.readers.common import (
    check_size,
    labelled_train,
    listing,
    name_of,
    Times,
    Train,
)
from dicjax.recordings.readers.units import is_id, is_intervals, is_time, is_usual_ms


Row = tuple[int, list[str]]  # line number, cells

_MISSING = {"", "nan", "na", "n/a", "#n/a", "null", "none"}
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.I)
_WORD = re.compile(r"(?![+-]?(?:nan|inf))\W*[^\W\d]", re.I)
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True}


class Table(NamedTuple):
    path: pathlib.Path
    header: list[str]  # empty strings if the file has no header
    rows: list[Row]

    def column(self, j: int, *, is_padded: bool = False) -> Times:
        cells = [(line, row[j]) for line, row in self.rows]
        while is_padded and cells and cells[-1][1].casefold() in _MISSING:
            cells.pop()
        return np.array([number(self.path, *cell) for cell in cells], float)


def number(path: pathlib.Path, line: int, cell: str) -> float:
    if not _NUMBER.fullmatch(cell):
        raise ValueError(
            f"{path.name}, line {line}: {cell[:40]!r} is not a number: correct it."
        )
    return float(cell.replace(",", "."))


def table_of(path: pathlib.Path, rows: list[Row]) -> Table:
    if len(rows) < 2:
        raise ValueError(f"{path.name} has no lines of spike times: export one a line.")
    rows[0][1][0] = rows[0][1][0].lstrip("#% ")
    has_header = is_header(rows[0][1])
    width = len(rows[0][1]) if has_header else max(len(cells) for _, cells in rows)
    check_size(path, 8 * width * len(rows))
    for line, cells in rows:
        if any(cells[width:]):
            raise ValueError(
                f"{path.name}, line {line}: {len(cells)} cells under {width} headers: "
                "head every column, and separate columns of decimal commas by `;`."
            )
        cells[:] = (cells + [""] * width)[:width]
    header = rows[0][1] if has_header else [""] * width
    return Table(path, header, rows[has_header:])


def is_header(cells: list[str]) -> bool:
    count = [str(i) for i in range(len(cells) + 1)]  # of a table of numbered columns
    is_count = len(cells) > 1 and cells in (count[:-1], count[1:])
    return is_count or any(_WORD.match(cell) for cell in cells)


def trains_of(table: Table) -> list[Train]:
    cells = {cell for _, row in table.rows for cell in row}
    if cells <= _BITS.keys() and len({_BITS[cell] for cell in cells}) == 2:
        return _raster_trains(table)
    lists = [j for j, cell in enumerate(table.rows[0][1]) if cell.startswith("[")]
    ids = _id_column(table)
    if lists:
        return _listed_trains(table, ids, lists[0])
    return _column_trains(table) if ids is None else _long_trains(table, ids)


def _raster_trains(table: Table) -> list[Train]:
    bins = np.array([[_BITS[cell] for cell in row] for _, row in table.rows])
    labels = table.header
    # Without names of columns, time runs along the longer side.
    if not any(labels) and bins.shape[1] > bins.shape[0]:
        bins, labels = bins.T, [""] * bins.shape[0]
    span, trains = np.array([0.0, len(bins)]), []
    for j, label in enumerate(labels):
        name = name_of(table.path, label, is_lone=len(labels) == 1) or str(j + 1)
        times = np.flatnonzero(bins[:, j]).astype(float)
        trains.append(Train(name, times, "samples", span=span))
    return trains


def _id_column(table: Table) -> int | None:
    if len(table.header) == 2 and not any(table.header):
        cells = [row[0] for _, row in table.rows]
        is_count = all(cell.isdecimal() for cell in cells)
        return 0 if is_count and len(set(cells)) < len(cells) else None
    named = [j for j, label in enumerate(table.header) if is_id(label)]
    return named[0] if named and len(table.header) > 1 else None


def _of_times(table: Table, columns: list[int]) -> list[int]:
    """Leaves out columns of intervals if there are columns of times."""
    labels = {j: table.header[j] for j in columns}
    times = [j for j, x in labels.items() if x and is_time(x) and not is_intervals(x)]
    return [j for j, x in labels.items() if not (times and is_intervals(x))]


def _column_trains(table: Table) -> list[Train]:
    columns = list(zip(*(row for _, row in table.rows), strict=True))
    filled = [j for j, column in enumerate(columns) if table.header[j] or any(column)]
    # The first column of a table written by pandas is its index, without a header.
    is_index = columns[0] == tuple(str(i) for i in range(len(table.rows)))
    if any(table.header) and not table.header[0] and is_index:
        filled = filled[1:]
    filled, trains = _of_times(table, filled), []
    for j in filled:
        label, is_lone = table.header[j], len(filled) == 1
        name = name_of(table.path, label, is_lone) or str(j + 1)
        numbers = table.column(j, is_padded=not is_lone)
        trains.append(labelled_train(table.path, name, label, numbers))
    return trains


def _long_trains(table: Table, ids: int) -> list[Train]:
    others = [j for j in range(len(table.header)) if j != ids]
    if len(others) > 1:
        others = [j for j in others if table.header[j] and is_time(table.header[j])]
        others = _of_times(table, others)
    if len(others) != 1:
        raise ValueError(
            f"{table.path.name}: which column of {listing(table.header)} holds times "
            "is not clear: name that one, and no other, `time_ms`."
        )
    numbers, label = table.column(others[0]), table.header[others[0]]
    rows: dict[str, list[int]] = {}
    for i, (_, row) in enumerate(table.rows):
        rows.setdefault(row[ids], []).append(i)
    own = {name: numbers[places] for name, places in rows.items()}
    return [labelled_train(table.path, name, label, x) for name, x in own.items()]


def _listed_trains(table: Table, ids: int | None, lists: int) -> list[Train]:
    label = table.header[lists]
    usual = "ms" if is_usual_ms(label) else None
    trains = []
    for i, (line, row) in enumerate(table.rows, 1):
        cells = re.split(r"[,;\s]+", row[lists].strip("[] "))
        numbers = [number(table.path, line, cell) for cell in cells if cell]
        name = str(i) if ids is None else row[ids]
        train = labelled_train(table.path, name, label, np.array(numbers, float))
        trains.append(train._replace(usual_unit=usual))
    return trains
