"""Exports populations as tables for spreadsheets."""

import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dicjax._core import on_host, write_csv
from dicjax.generation import Generated
from dicjax.output.files import check_suffix, load, writing
from dicjax.output.saved_population import stored, StoredPopulation, unit_and_meaning


MAX_COLUMNS = 16_384  # of a sheet

Sheet = tuple[Sequence[str], Iterable[Sequence[Any]]]  # header, rows


@on_host()
def export_xlsx(
    population: StoredPopulation | Generated, path: pathlib.Path | str
) -> None:
    """Writes a population as a workbook of Excel.

    The sheet `models` has a row per member, and `columns` the meanings and units of its
    columns. `spikes` has a column of spike times (ms) per member, if they are known.
    `about` holds the settings of the population. Needs openpyxl:
    `pip install "dicjax[xlsx]"`.

    **Arguments:**

    - `population`: a generated population, or one read by
        [`dicjax.read_population`][].
    - `path`: the `.xlsx` file, which is written whole or not at all.

    **Raises:**

    - `ValueError`: if a sheet cannot hold so many members, `path` has another suffix,
        or openpyxl is not installed.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    path = check_suffix(path, ".xlsx")
    openpyxl = load("openpyxl", "xlsx")
    book = openpyxl.Workbook(write_only=True)
    for title, (header, rows) in _sheets(stored(population)).items():
        sheet = book.create_sheet(title)
        sheet.freeze_panes = "A2"
        for row in itertools.chain([header], rows):
            sheet.append([_cell(openpyxl, sheet, value) for value in row])
    with writing(path) as partial:
        book.save(partial)


@on_host()
def export_csv(
    population: StoredPopulation | Generated, path: pathlib.Path | str
) -> None:
    """Writes the models of a population as a table of CSV.

    `population` and `path`, which ends in `.csv`, are as in [`dicjax.export_xlsx`][].
    Text that a spreadsheet would compute, such as `=1+1`, gets an apostrophe before it.

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    with writing(check_suffix(path, ".csv")) as partial:
        write_csv(stored(population).models, partial)


def _sheets(population: StoredPopulation) -> dict[str, Sheet]:
    models, times = population.models, population.spike_times
    names, about = models.column_names, population.about.items()
    columns = [_values(models[name]) for name in names]
    described = [(name, *unit_and_meaning(models, name)) for name in names]
    sheets: dict[str, Sheet] = {
        "models": (names, zip(*columns, strict=True)),
        "columns": (("column", "unit", "meaning"), described),
    }
    if times is not None:
        if len(times) > MAX_COLUMNS:
            raise ValueError(
                f"A sheet of Excel holds the spikes of {MAX_COLUMNS} members, not "
                f"{len(times)}: choose fewer."
            )
        header = [f"member {member} (ms)" for member in population.members]
        rows = itertools.zip_longest(*(map(_short, x) for x in times))
        sheets["spikes"] = header, rows
    sheets["about"] = ("what", "value"), [(key, _text(value)) for key, value in about]
    return sheets


def _cell(openpyxl: Any, sheet: Any, value: Any) -> Any:
    """A value as a cell; text is text, also where it looks like a formula."""
    if not isinstance(value, str):
        return value
    plain = openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.sub(" ", value)
    cell = openpyxl.cell.WriteOnlyCell(sheet, plain)
    cell.data_type = "s"
    return cell


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values as a sheet holds them; undefined values are empty."""
    rows = column.to_pylist()
    if not pa.types.is_floating(column.type):
        return rows
    write = _short if pa.types.is_float32(column.type) else float
    # Sheets can hold infinity only as text.
    return [None if x is None else write(x) if np.isfinite(x) else str(x) for x in rows]


def _short(x: float) -> float:
    """A single-precision number as the shortest decimal that it prints as."""
    return float(str(np.float32(x)))


def _text(value: Any) -> str | int | float | None:
    is_plain = value is None or isinstance(value, str | int | float)
    return value if is_plain else json.dumps(value, ensure_ascii=False)
