"""Reads the first sheet of Excel's workbooks with openpyxl."""

import contextlib
import pathlib
from collections.abc import Iterable

from dicjax.recordings.readers.common import check_size, reading, Train, unpacked_size
from dicjax.recordings.readers.tables import Row, table_of, trains_of


LIBRARIES = ("openpyxl",)
_KIND = "an Excel workbook (.xlsx)"


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
            rows = _rows(path, book.worksheets[0].iter_rows(values_only=True))
    return trains_of(table_of(path, rows))


def _rows(path: pathlib.Path, cells: Iterable[tuple[object, ...]]) -> list[Row]:
    rows, num_bytes = [], 0
    for line, row in enumerate(cells, 1):
        num_bytes += 8 * max(len(row), 8)
        check_size(path, num_bytes)  # a sheet with one cell may claim to have billions
        if any(cell is not None for cell in row):
            texts = ["" if cell is None else str(cell) for cell in row]
            rows.append((line, [" ".join(text.split()) for text in texts]))
    return rows
