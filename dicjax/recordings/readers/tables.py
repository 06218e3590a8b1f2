"""Reads spike trains from the cells of a table, in all common layouts."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from dicjax.recordings.readers.common import (
    check_size,
    labelled_train,
    listing,
    name_of,
    Train,
    UNIT_BYTES,
)
from dicjax.recordings.readers.tabular.cells import (
    all_numbers,
    Cells,
    Column,
    decimal_mark,
    Lines,
    number,
    numbers,
    pc,
    refuse_missing,
)
from dicjax.recordings.readers.tabular.columns import (
    id_column,
    in_order,
    is_count,
    is_regular,
    padding_caution,
    spans_of_rows,
    without_padding,
)
from dicjax.recordings.readers.tabular.vectors import copies_among
from dicjax.recordings.readers.units import (
    is_id,
    is_intervals,
    is_measure,
    is_time,
    is_usual_ms,
    stated_unit,
)


MIN_ROW = 3  # times in the longest line of a file with a train per line


class Table(NamedTuple):
    path: pathlib.Path
    header: list[str]  # empty strings if the file has no header
    columns: list[Cells]
    lines: Lines
    decimal: str
    parsed: dict[int, Column]  # columns whose numbers were asked for

    @property
    def is_bare(self) -> bool:
        return not any(self.header)

    def take(self, columns: Sequence[int]) -> "Table":
        kept = [self.columns[j] for j in columns]
        header = [self.header[j] for j in columns]
        return self._replace(header=header, columns=kept, parsed={})

    def numbers(self, j: int) -> Column:
        if j not in self.parsed:
            cells = self.columns[j]
            self.parsed[j] = numbers(self.path, self.lines, cells, self.decimal)
        return self.parsed[j]

    def filled(self, j: int, *, is_padded: bool) -> Column:
        """The numbers of a column, of which none may be missing but at its end."""
        column = self.numbers(j)
        missing = np.isnan(column.values)
        if is_padded:
            missing &= np.flip(np.cumsum(np.flip(~missing))) > 0
        refuse_missing(self.path, self.lines, self.columns[j], missing)
        return column._replace(values=column.values[~np.isnan(column.values)])


def columns_of(path: pathlib.Path, rows: list[list[str]]) -> list[Cells]:
    """The columns of rows that may differ in length."""
    width = max(map(len, rows), default=0)
    check_size(path, 8 * width * len(rows))
    padded = [cells + [""] * (width - len(cells)) for cells in rows]
    return [pa.array(column, pa.string()) for column in zip(*padded, strict=True)]


def table_of(
    path: pathlib.Path, header: list[str], lines: Lines, columns: list[Cells]
) -> Table:
    """A table without blank rows and columns; its header may be empty."""
    check_size(path, 8 * len(columns) * lines.size)
    filled = [_filled(cells) for cells in columns]
    for is_filled in filled[len(header) :] if header else []:
        if is_filled.any():
            line = lines[int(np.argmax(is_filled))]
            raise ValueError(
                f"{path.name}, line {line}: {len(columns)} cells under {len(header)} "
                "headers: head every column, and separate columns of decimal commas "
                "by `;`."
            )
    rows = np.any(filled, axis=0) if filled else np.zeros(0, bool)
    if not rows.any():
        raise ValueError(f"{path.name} has no lines of spike times: export one a line.")
    if not rows.all():
        mask = pa.array(rows)
        columns, lines = [cells.filter(mask) for cells in columns], lines[rows]
    blank = pa.array([""] * lines.size, pa.string())
    width = max(len(header), len(columns))
    columns = [*columns, *[blank] * (width - len(columns))]
    header = header + [""] * (width - len(header))
    kept = [
        j for j, x in enumerate(header) if x or (j < len(filled) and filled[j].any())
    ]
    header, columns = [header[j] for j in kept], [columns[j] for j in kept]
    numeric = [cells for cells in columns if all_numbers(cells)]
    return Table(path, header, columns, lines, decimal_mark(path, numeric), {})


def _filled(cells: Cells) -> Bool[np.ndarray, " rows"]:
    return np.asarray(pc.not_equal(cells, ""), bool)


def trains_of(table: Table) -> list[Train]:
    lists = [j for j, x in enumerate(table.columns) if x[0].as_py().startswith("[")]
    if lists:
        return _listed_trains(table, lists[0])
    numeric = [j for j, cells in enumerate(table.columns) if all_numbers(cells)]
    bits = [j for j in numeric if _are_bits(table.numbers(j))]
    if len(bits) == len(table.columns) and _vary(table, bits):
        return _raster_trains(table, bits, None)
    if table.is_bare:
        return _rows_as_trains(table, numeric) or _bare_trains(table, numeric)
    return _headed_trains(table, numeric, bits)


def _headed_trains(table: Table, numeric: list[int], bits: list[int]) -> list[Train]:
    ids, times, others = _roles(table, numeric)
    rest = [j for j in range(len(table.columns)) if j not in times]
    has_axis = len(times) == 1 and rest and bits == rest and not ids
    if has_axis and _vary(table, bits) and is_regular(table.numbers(times[0]).values):
        return _raster_trains(table, bits, times[0])
    if ids:
        values = times or others
        if len(values) != 1:
            raise ValueError(
                f"{table.path.name}: which column of {listing(table.header)} holds "
                "times is not clear: name that one, and no other, `time_ms`."
            )
        return _long_trains(table, ids, values[0])
    values = times or others
    if not values:
        raise ValueError(
            f"{table.path.name} has {listing(table.header)} and no column of spike "
            "times: name the column that holds them `time_ms` or `time_s`."
        )
    return _column_trains(table, values, [j for j in others if times])


def _roles(table: Table, numeric: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Columns of labels of neurons, of times, and of numbers of an unknown kind."""
    ids, times, others = [], [], []
    for j, label in enumerate(table.header):
        counts = j in numeric and len(table.columns) > 1 and _counts(table, j)
        if is_time(label) and re.search(r"[^\W\d_]", label):
            times.append(j)
        elif counts or is_measure(label):
            continue
        elif is_id(label):
            ids.append(j)
        elif label or not _is_whole(table, j, numeric):
            others.append(j)
    spikes = [j for j in times if not is_intervals(table.header[j])]
    spikes = _without_copies(table, [j for j in spikes if j in numeric]) or spikes
    return ids if times or others else [], spikes or times, others


def _column_trains(table: Table, columns: list[int], left: list[int]) -> list[Train]:
    trains, is_lone = [], len(columns) == 1
    for j in columns:
        label = table.header[j]
        name = name_of(table.path, label, is_lone) or str(j + 1)
        column = table.filled(j, is_padded=not is_lone)
        values, num_zeros = column.values, 0
        if not is_lone:
            values, num_zeros = without_padding(values)
        _refuse_count(table, label, values)
        is_odd = not (is_lone or is_time(label) or is_intervals(label))
        if is_odd and not in_order(values):
            left = [*left, j]
            continue
        train = labelled_train(table.path, name, label, values, column.unit)
        trains.append(train._replace(caution=padding_caution(num_zeros)))
    if not trains:
        raise ValueError(
            f"{table.path.name}: none of {listing(table.header)} is in order of time: "
            "name the column that holds spike times `time_ms` or `time_s`."
        )
    if left:
        names = listing([table.header[j] for j in left])
        caution = f"stands beside columns that were left out, as no times: {names}"
        trains[0] = trains[0]._replace(caution=trains[0].caution or caution)
    return trains


def _long_trains(table: Table, ids: list[int], times: int) -> list[Train]:
    column, label = table.filled(times, is_padded=False), table.header[times]
    keys = [pc.dictionary_encode(table.columns[j]) for j in ids]
    codes = np.zeros(len(table.lines), np.int64)
    names: list[str] = [""]
    for key in keys:
        words = [word.removesuffix(".0") for word in key.dictionary.to_pylist()]
        joined = codes * len(words) + key.indices.to_numpy()
        distinct, first, joined = np.unique(
            joined, return_index=True, return_inverse=True
        )
        if len(distinct) > len(names):
            check_size(table.path, UNIT_BYTES * len(distinct))
            before = [names[code] for code in codes[first]]
            own = [words[i] for i in key.indices.to_numpy()[first]]
            pairs = zip(before, own, strict=True)
            names = [f"{x}_{y}" if len(set(before)) > 1 else y for x, y in pairs]
            codes = joined
    if len(names) == 1 and names[0] == "":
        names = [str(table.columns[ids[0]][0].as_py()).removesuffix(".0")]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    parts = [order[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    trains = [
        labelled_train(table.path, name, label, column.values[part], column.unit)
        for name, part in zip(names, parts, strict=True)
    ]
    first = np.argsort([part[0] for part in parts], kind="stable")
    return [trains[i] for i in first]


def _bare_trains(table: Table, numeric: list[int]) -> list[Train]:
    """The trains of a table without a header."""
    words = [j for j in range(len(table.columns)) if j not in numeric]
    if len(table.columns) == 1:
        return _column_trains(table, [0], [])
    counts = [j for j in numeric if _counts(table, j)]
    rest = [j for j in numeric if j not in counts]
    rest = _without_copies(table, rest or numeric)
    if len(words) == 1 and len(rest) == 1:
        return _long_trains(table, words, rest[0])
    if not words and len(rest) == 1:
        lone = table.take(rest)
        return _column_trains(lone, [0], [])
    values = [table.numbers(j).values for j in rest]
    if not words and len(rest) == 2:
        ids = id_column(values)
        if ids is not None:
            return _long_trains(table, [rest[ids]], rest[1 - ids])
    if words or not all(in_order(without_padding(x)[0]) for x in values):
        raise ValueError(
            f"{table.path.name} has {len(table.columns)} columns without a header, and "
            "not all of them are times in order: add a header line, such as "
            "`unit,time_ms`."
        )
    return _column_trains(table, rest, [])


def _rows_as_trains(table: Table, numeric: list[int]) -> list[Train]:
    """A train in each row, if rows are in order of time and columns are not."""
    firsts = [j for j in range(len(table.columns)) if j not in numeric]
    if len(numeric) < MIN_ROW or firsts not in ([], [0]):
        return []
    columns = [table.numbers(j) for j in numeric]
    names = table.columns[0].to_pylist() if firsts else []
    if not names and len(table.lines) > 1 and _numbers_rows(columns[0].values):
        names, columns = table.columns[0].to_pylist(), columns[1:]
    values = np.stack([column.values for column in columns], axis=1)
    rows, are_columns = spans_of_rows(values)
    is_long = len(columns) > len(table.lines)
    if not rows.all() or (are_columns and not is_long):
        return []
    names = names or [str(i + 1) for i in range(len(values))]
    if len(values) == 1 and not firsts:
        names = [table.path.stem]
    trains = [
        Train(name, row[~np.isnan(row)], columns[0].unit)
        for name, row in zip(names, values, strict=True)
    ]
    if len(trains) > 1:
        caution = (
            f"is the first of {len(trains)} lines, each read as a train of its own"
        )
        trains[0] = trains[0]._replace(caution=caution)
    return trains


def _raster_trains(table: Table, bits: list[int], axis: int | None) -> list[Train]:
    """Trains of zeros and ones: in bins, or in times of an axis beside them."""
    bins = np.stack([table.numbers(j).values for j in bits], axis=1) > 0
    labels = [table.header[j] for j in bits]
    if axis is not None:
        times, label = table.filled(axis, is_padded=False), table.header[axis]
        unit, ends = times.unit or stated_unit(label), times.values[[0, -1]]
        rows = [times.values[bins[:, k]] for k in range(len(bits))]
        names = [label or str(k + 1) for k, label in enumerate(labels)]
        pairs = zip(names, rows, strict=True)
        return [Train(name, own, unit, span=ends) for name, own in pairs]
    # Without names of columns, time runs along the longer side.
    if not any(labels) and bins.shape[1] > bins.shape[0]:
        bins, labels = bins.T, [""] * bins.shape[0]
    span, trains = np.array([0.0, len(bins)]), []
    for j, label in enumerate(labels):
        name = name_of(table.path, label, is_lone=len(labels) == 1) or str(j + 1)
        times = np.flatnonzero(bins[:, j]).astype(float)
        trains.append(Train(name, times, "samples", span=span))
    return trains


def _listed_trains(table: Table, lists: int) -> list[Train]:
    label = table.header[lists]
    ids = next((j for j, x in enumerate(table.header) if is_id(x) and j != lists), None)
    if ids is None and table.is_bare and len(table.columns) == 2:
        ids = 1 - lists
    usual = "ms" if is_usual_ms(label) else None
    names = [str(i + 1) for i in range(len(table.lines))]
    names = names if ids is None else table.columns[ids].to_pylist()
    trains = []
    rows = zip(names, table.lines, table.columns[lists].to_pylist(), strict=True)
    for name, line, text in rows:
        cells = re.split(r"[,;\s]+", text.strip("[] "))
        values = [number(table.path, line, cell) for cell in cells if cell]
        train = labelled_train(table.path, name, label, np.array(values, float))
        trains.append(train._replace(usual_unit=usual))
    return trains


def _without_copies(table: Table, columns: list[int]) -> list[int]:
    copies = copies_among([table.numbers(j).values for j in columns])
    return [j for i, j in enumerate(columns) if i not in copies]


def _are_bits(column: Column) -> bool:
    return column.unit is None and bool(np.isin(column.values, (0, 1)).all())


def _vary(table: Table, columns: list[int]) -> bool:
    return len({*np.concatenate([table.numbers(j).values for j in columns])}) > 1


def _numbers_rows(values: np.ndarray) -> bool:
    return bool(values[0] in (0, 1) and (np.diff(values) == 1).all())


def _counts(table: Table, j: int) -> bool:
    return is_count(table.numbers(j).values)


def _is_whole(table: Table, j: int, numeric: list[int]) -> bool:
    return j in numeric and not np.any(table.numbers(j).values % 1)


def _refuse_count(table: Table, label: str, values: np.ndarray) -> None:
    if is_count(values):
        named = f"{label!r} " if label else ""
        raise ValueError(
            f"{table.path.name}: column {named}holds the whole numbers {values[0]:g} "
            f"to {values[-1]:g} in a row, which count rows and are no times: export "
            "the column of times."
        )
