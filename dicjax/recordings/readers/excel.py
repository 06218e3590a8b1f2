"""Reads the first sheet of Excel's workbooks with openpyxl."""

import contextlib
import datetime
import pathlib
from collections.abc import Iterable

import numpy as np

from dicjax.recordings.readers.common import check_size, reading, Train, unpacked_size
from dicjax.recordings.readers.tables import columns_of, table_of, trains_of
from dicjax.recordings.readers.tabular.heads import MOST_TITLES, split_head


LIBRARIES = ("openpyxl",)
_KIND = "an Excel workbook (.xlsx)"
_NUM_SAMPLE = 100  # rows that show which columns hold numbers


def read_excel(path: pathlib.Path) -> list[Train]:
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(
            f'{path.name} is read by openpyxl: pip install "dicjax[xlsx]", or save it '
            "as .csv."
        ) from error
    check_size(path, unpacked_size(path, _KIND))
    with reading(path, _KIND):
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        with contextlib.closing(book):
            cells = book.worksheets[0].iter_rows(values_only=True)
            numbers, rows = _rows(path, cells)
    if not rows:
        raise ValueError(f"{path.name} has no lines of spike times: export one a line.")
    sample = rows[len(rows) // 2 :][:_NUM_SAMPLE]
    header, above = split_head(rows[:MOST_TITLES], sample)
    lines, rows = np.array(numbers[above:], int), rows[above:]
    return trains_of(table_of(path, header, lines, columns_of(path, rows)))


def _rows(
    path: pathlib.Path, cells: Iterable[tuple[object, ...]]
) -> tuple[list[int], list[list[str]]]:
    """Rows that hold something, as text, and their numbers in the sheet."""
    numbers, rows, num_bytes = [], [], 0
    for line, row in enumerate(cells, 1):
        num_bytes += 8 * max(len(row), 8)
        check_size(path, num_bytes)  # a sheet with one cell may claim to have billions
        if any(cell is not None for cell in row):
            numbers.append(line)
            rows.append([" ".join(_text(cell).split()) for cell in row])
    return numbers, rows


def _text(cell: object) -> str:
    if isinstance(cell, datetime.timedelta):
        minutes, seconds = divmod(cell / datetime.timedelta(microseconds=1), 6e7)
        hours, minutes = divmod(int(minutes), 60)
        return f"{hours}:{minutes:02}:{seconds / 1e6:09.6f}"
    return "" if cell is None else str(cell)
