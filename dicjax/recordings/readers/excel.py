"""Reads the first sheet of Excel's workbooks with openpyxl."""

import pathlib
import zipfile
from collections.abc import Iterable

from dicjax.recordings.readers import common
from dicjax.recordings.readers.common import check_size, reading, Train
from dicjax.recordings.readers.tables import Row, table_of, trains_of


_KIND = "an Excel workbook (.xlsx)"


def read_excel(path: pathlib.Path) -> list[Train]:
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(
            f'{path.name} is read by openpyxl: pip install "dicjax[xlsx]", or save it '
            "as .csv."
        ) from error
    with reading(path, _KIND), zipfile.ZipFile(path) as archive:
        num_bytes = sum(info.file_size for info in archive.infolist())
    check_size(path, num_bytes)
    with reading(path, _KIND):
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        with reading(path, _KIND):
            rows, is_whole = _rows(book.worksheets[0].iter_rows(values_only=True))
    finally:
        book.close()
    if not is_whole:
        check_size(path, common.MAX_BYTES + 1)
    return trains_of(table_of(path, rows))


def _rows(cells: Iterable[tuple[object, ...]]) -> tuple[list[Row], bool]:
    # A sheet with one cell may claim to have billions.
    rows, left = [], common.MAX_BYTES // 8
    for line, row in enumerate(cells, 1):
        left -= max(len(row), 8)
        if left < 0:
            return rows, False
        if any(cell is not None for cell in row):
            rows.append((line, [_text(cell) for cell in row]))
    return rows, True


def _text(cell: object) -> str:
    return "" if cell is None else " ".join(str(cell).split())
