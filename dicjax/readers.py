"""Spike trains from files: text tables, NumPy arrays and NWB.

Every format has one function that returns trains in the file's own unit of time, and
how that unit is known. The rest is common to all: choosing units, conversion, and
refusing what no neuron does. A new format is one function and one entry in `_READERS`.
"""

import collections
import contextlib
import csv
import os
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Float, Shaped

from dicjax.spikes import SpikeTrain


Times = Float[np.ndarray, " spikes"]

MIN_SPIKES = 10
MAX_BYTES = 2**28  # 33 million spikes; an eighth as many bytes of text
POSSIBLE_HZ = (1e-3, 1e3)
PLAUSIBLE_HZ = (0.05, 200.0)
PLAUSIBLE_ISI = 0.7  # ms, for all but the shortest 1 % of intervals

_MILLISECONDS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "min": 6e4}
_UNIT_WORDS = {
    "ms": {"ms", "msec", "millisecond"},
    "s": {"s", "sec", "second"},
    "us": {"us", "μs", "usec", "microsecond"},
    "min": {"min", "minute"},
    "samples": {"sample"},
}
_TIME_WORDS = {"t", "time", "timestamp", "spike", "spiking"}
_ID_WORDS = {"id", "unit", "neuron", "cell", "cluster", "channel", "electrode"}
_MISSING = {"", "nan", "na", "n/a", "#n/a", "null", "none"}
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.I)
_WORD = re.compile(r"(?![+-]?(?:nan|inf))\W*[^\W\d]", re.I)


class _Train(NamedTuple):
    name: str
    times: Times
    unit: str | None = None  # of time, if the file states it
    usual_unit: str | None = None  # in files of this format
    span: Float[np.ndarray, " ends"] = np.zeros(0)  # of what was recorded


def read_spike_trains(
    path: str | os.PathLike[str],
    *,
    unit: str | None = None,
    unit_id: str | int | None = None,
) -> list[SpikeTrain]:
    """Reads the spike trains of a file.

    Understands `.csv`, `.txt` and `.tsv` (one column; rows of `unit,time`; one column
    per neuron, padded with blanks or NaN; `ID,spiking_times` with quoted lists; `;` and
    decimal commas), `.npy`, `.npz` (an array per neuron and, if wanted, `unit`,
    `t_start` and `t_stop`), and the Units table of `.nwb`.

    The unit of time is never guessed silently. A header such as `spike_time_ms` or
    `t [s]` states it; NWB means seconds, `spiking_times` ms. Where nothing says, times
    are taken as ms only if a neuron could fire so: at 0.05 to 200 Hz, with 99 % of
    intervals at least 0.7 ms long. No unit may give less than 0.001 or over 1,000 Hz.

    **Arguments:**

    - `path`: the file.
    - `unit`: unit of time in the file: `"ms"`, `"s"`, `"us"`, `"min"`, or sample
        indices with their rate in Hz, as `"samples@30000"`. Default: that of the file.
    - `unit_id`: name of the one unit (neuron) to read. Default: all.

    **Returns:**

    One [`dicjax.SpikeTrain`][] per unit, in the order of the file. Units with fewer
    than 10 spikes are left out with a warning where others have enough.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if it cannot be read, lacks `unit_id`, has too few spikes, or times
        that are not finite, non-negative and increasing, or not credible in this unit.
    """
    path = pathlib.Path(path)
    if unit is not None:
        _milliseconds_per(unit)
    _check_file(path)
    with np.errstate(all="ignore"):  # what overflows is refused as not finite
        raw = _READERS[path.suffix.lower()](path)
        raw = _long_enough(path, _select(path, raw, unit_id))
        is_sure = unit is not None or _is_usual(raw)
        trains = [_spike_train(path, train, unit, is_sure) for train in raw]
    if unit is None and any(map(_is_whole, raw)):
        warnings.warn(
            f"{path.name} has whole numbers without a unit, read as ms; if they are "
            f"sample indices, give {_option('samples@30000')}.",
            stacklevel=2,
        )
    return trains


def _check_file(path: pathlib.Path) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if not os.path.isfile(path):
        raise ValueError(f"{str(path)!r} is not a file: give the path of a recording.")
    if path.suffix.lower() not in _READERS:
        known = ", ".join(_READERS)
        raise ValueError(f"{path.name} is not one of {known}: export it as one.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name} is empty: export the recording again.")


def _check_size(path: pathlib.Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(
            f"{path.name} is too large: export only times, of fewer units."
        )


def _select(
    path: pathlib.Path, raw: list[_Train], unit_id: str | int | None
) -> list[_Train]:
    names = [train.name for train in raw]
    wanted = "spike times" if unit_id is None else f"unit {str(unit_id)!r}"
    chosen = [t for t in raw if unit_id is None or t.name == str(unit_id)]
    if not chosen:
        raise ValueError(f"{path.name} has no {wanted}: it has {_listing(names)}.")
    repeated = [n for n, k in collections.Counter(names).items() if k > 1]
    if repeated and unit_id in (None, *repeated):
        raise ValueError(f"{path.name} has two units {repeated[0]!r}: rename one.")
    return chosen


def _long_enough(path: pathlib.Path, raw: list[_Train]) -> list[_Train]:
    enough = [train for train in raw if train.times.size >= MIN_SPIKES]
    short = [train for train in raw if train.times.size < MIN_SPIKES]
    counts = _listing([f"{train.name} ({train.times.size})" for train in short])
    if not enough:
        raise ValueError(
            f"{path.name} has too few spikes in {counts}: at least {MIN_SPIKES} in a "
            "unit are needed."
        )
    if short:
        message = f"{path.name}: left out for fewer than {MIN_SPIKES} spikes: {counts}."
        warnings.warn(message, stacklevel=3)
    return enough


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(name[:40] for name in names[:10]) + more or "nothing"


def _milliseconds_per(unit: str) -> float:
    rate = re.fullmatch(r"samples@(\d+(\.\d*)?)", unit, re.ASCII)
    if rate and 0 < float(rate[1]) < np.inf:
        return 1e3 / float(rate[1])
    if unit not in _MILLISECONDS:
        raise ValueError(
            f"`unit` must be one of {', '.join(_MILLISECONDS)}, or sample indices with "
            f"their rate in Hz, such as samples@30000, but is {unit!r}."
        )
    return _MILLISECONDS[unit]


def _words(label: str) -> set[str]:
    # "Time(s)" is in seconds, "Spike(s)" is a plural.
    label = re.sub(r"(?i)(spike|neuron|unit|cell)\(s\)", r"\1", label)
    words = re.findall(r"[^\W\d_]+", label.casefold())
    return {word.removesuffix("s") if len(word) > 2 else word for word in words}


def _stated_unit(label: str) -> str | None:
    words = _words(label)
    found = {unit for unit, names in _UNIT_WORDS.items() if words & names}
    # A neuron may be called "LP_s" or "sample 1".
    if not (words & _TIME_WORDS or re.search(r"[(\[]", label)):
        found -= {"s", "min", "samples"} if len(words) > 1 else {"samples"}
    return found.pop() if len(found) == 1 else None


def _is_time(label: str) -> bool:
    return _words(label) <= _TIME_WORDS.union({"arr", "in"}, *_UNIT_WORDS.values())


def _spike_train(
    path: pathlib.Path, raw: _Train, unit: str | None, is_sure: bool
) -> SpikeTrain:
    where = f"{path.name}, unit {raw.name[:40]}"
    if unit and raw.unit and unit.partition("@")[0] != raw.unit:
        raise ValueError(
            f"{where}: the file states its times in {raw.unit}, which contradicts "
            f"unit={unit!r}: leave `unit` out, or correct the file."
        )
    known = unit or raw.unit or raw.usual_unit
    if known == "samples":
        raise ValueError(
            f"{where}: sample indices need their rate in Hz: give it as "
            f"{_option('samples@30000')}."
        )
    per = _milliseconds_per(known or "ms")
    times = raw.times * per
    # Spikes outside the span that the file gives were recorded all the same.
    ends = np.append(raw.span[np.isfinite(raw.span)] * per, times[[0, -1]])
    start, stop = float(ends.min()), float(ends.max())
    try:
        train = SpikeTrain(times, raw.name, path.name, start, stop)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not _is_credible(times, is_sure or raw.unit is not None):
        raise ValueError(f"{where}: {_disbelief(raw, known, is_sure)}")
    return train


def _rate(times: Times) -> float:
    return float(1e3 * (times.size - 1) / (times[-1] - times[0]))


def _is_credible(times: Times, is_sure: bool = False) -> bool:
    low, high = POSSIBLE_HZ if is_sure else PLAUSIBLE_HZ
    is_short = bool(np.percentile(np.diff(times), 1) < PLAUSIBLE_ISI)
    return low <= _rate(times) <= high and (is_sure or not is_short)


def _is_usual(raw: list[_Train]) -> bool:
    # NWB prescribes seconds, and some published files hold ms all the same.
    known = [t.times * _MILLISECONDS[t.usual_unit] for t in raw if t.usual_unit]
    return any(PLAUSIBLE_HZ[0] <= _rate(ms) <= PLAUSIBLE_HZ[1] for ms in known)


def _is_whole(raw: _Train) -> bool:
    return not (raw.unit or raw.usual_unit or np.any(raw.times % 1))


def _disbelief(raw: _Train, known: str | None, is_sure: bool) -> str:
    tried = known or "ms"
    options = []
    for unit in ("s", "us", "samples@30000", "min", "ms"):
        times = raw.times * _milliseconds_per(unit)
        # A rate that is odd but possible needs only to be confirmed.
        if _is_credible(times, is_sure=unit == tried and not is_sure):
            name = unit if raw.unit else _option(unit)
            options.append(f"{name} makes it {_rate(times):.4g} Hz")
    remedy = "correct the unit in the file" if raw.unit else "give the true unit"
    remedy += f", {', '.join(options)}"
    times = raw.times * _milliseconds_per(tried)
    isi = np.diff(times)
    return (
        f"read as {known or 'ms, for want of a stated unit'}, its {times.size} spikes "
        f"come at {_rate(times):.4g} Hz (mean ISI {isi.mean():.4g} ms, 1 % of them up "
        f"to {np.percentile(isi, 1):.3g} ms), which is not plausible: "
        f"{remedy if options else 'no unit makes it so, check that these are times'}."
    )


def _option(unit: str) -> str:
    return f'unit="{unit}" (--unit {unit} on the command line)'


class _Table(NamedTuple):
    path: pathlib.Path
    header: list[str]  # empty strings where the file has none
    rows: list[tuple[int, list[str]]]  # line number, cells

    def column(self, j: int, *, is_padded: bool = False) -> Times:
        cells = [(line, row[j]) for line, row in self.rows]
        while is_padded and cells and cells[-1][1].casefold() in _MISSING:
            cells.pop()
        return np.array([_number(self.path, *cell) for cell in cells], float)


def _number(path: pathlib.Path, line: int, cell: str) -> float:
    if not _NUMBER.fullmatch(cell):
        raise ValueError(
            f"{path.name}, line {line}: {cell[:40]!r} is not a number: correct it."
        )
    return float(cell.replace(",", "."))


def _lines(path: pathlib.Path) -> list[str]:
    _check_size(path, 8 * path.stat().st_size)
    with _reading(path, "open to you"):
        raw = path.read_bytes()
    is_utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # Excel's, where µ is one byte
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        raise ValueError(f"{path.name} is not text: export the spike times as text.")
    return [line.strip(" ") + "\n" for line in re.split(r"\r\n?|\n", text)]


def _table(path: pathlib.Path) -> _Table:
    lines = _lines(path)
    first, second = ([line for line in lines if line.strip()] + ["", ""])[:2]
    mark = _separator(path, first, second)
    read = csv.reader(lines, delimiter=mark, skipinitialspace=True)
    with _reading(path, "a table with one spike a line"):
        rows = [(read.line_num, [" ".join(c.split()) for c in r]) for r in read if r]
    if len(rows) < 2:
        raise ValueError(f"{path.name} has no lines of spike times: export one a line.")
    rows[0][1][0] = rows[0][1][0].lstrip("#% ")
    has_header = _is_header(rows[0][1])
    width = len(rows[0][1]) if has_header else max(len(cells) for _, cells in rows)
    _check_size(path, 8 * width * len(rows))
    for line, cells in rows:
        if any(cells[width:]):
            raise ValueError(
                f"{path.name}, line {line}: {len(cells)} cells under {width} headers: "
                "head every column, and separate columns of decimal commas by `;`."
            )
        cells[:] = (cells + [""] * width)[:width]
    if (has_header, mark, width) == (False, ",", 2) and "." not in "".join(lines):
        raise ValueError(
            f"{path.name}: {first.strip()!r} may be two cells or a decimal comma: add "
            "a header line, such as `unit,time_ms` or `time_ms`."
        )
    header = rows[0][1] if has_header else [""] * width
    return _Table(path, header, rows[has_header:])


def _separator(path: pathlib.Path, first: str, second: str) -> str:
    has_header = _is_header([first])
    # Under a header without one, a comma can only be a decimal comma.
    is_lone = path.suffix.lower() == ".tsv" or (has_header and "," not in first)
    for mark in ";\t" if is_lone else ";\t,":
        if mark in (second if has_header else first + second):
            return mark
    return " " if " " in second else "\x1f"


def _is_header(cells: list[str]) -> bool:
    count = [str(i) for i in range(len(cells) + 1)]  # of a table of numbered columns
    is_count = len(cells) > 1 and cells in (count[:-1], count[1:])
    return is_count or any(_WORD.match(cell) for cell in cells)


def _read_text(path: pathlib.Path) -> list[_Train]:
    table = _table(path)
    lists = [j for j, cell in enumerate(table.rows[0][1]) if cell.startswith("[")]
    ids = _id_column(table)
    if lists:
        return _listed_trains(table, ids, lists[0])
    return _column_trains(table) if ids is None else _long_trains(table, ids)


def _id_column(table: _Table) -> int | None:
    if len(table.header) == 2 and not any(table.header):
        cells = [row[0] for _, row in table.rows]
        is_id = all(cell.isdecimal() for cell in cells) and len(set(cells)) < len(cells)
        return 0 if is_id else None
    named = [j for j, label in enumerate(table.header) if _is_id(label)]
    return named[0] if named and len(table.header) > 1 else None


def _is_id(label: str) -> bool:
    return set() < _words(label) <= _ID_WORDS and not re.search(r"\d", label)


def _column_trains(table: _Table) -> list[_Train]:
    columns = list(zip(*(row for _, row in table.rows), strict=True))
    filled = [j for j, column in enumerate(columns) if table.header[j] or any(column)]
    # The first column of a table written by pandas is its index, without a header.
    is_index = columns[0] == tuple(str(i) for i in range(len(table.rows)))
    if any(table.header) and not table.header[0] and is_index:
        filled = filled[1:]
    trains = []
    for j in filled:
        label, is_lone = table.header[j], len(filled) == 1
        times = table.column(j, is_padded=not is_lone)
        name = table.path.stem if is_lone and _is_time(label) else label or str(j + 1)
        trains.append(_Train(name, times, _stated_unit(label)))
    return trains


def _long_trains(table: _Table, ids: int) -> list[_Train]:
    others = [j for j in range(len(table.header)) if j != ids]
    if len(others) > 1:
        others = [j for j in others if table.header[j] and _is_time(table.header[j])]
    if len(others) != 1:
        raise ValueError(
            f"{table.path.name}: which column of {_listing(table.header)} holds times "
            "is not clear: name that one, and no other, `time_ms`."
        )
    times, unit = table.column(others[0]), _stated_unit(table.header[others[0]])
    rows: dict[str, list[int]] = {}
    for i, (_, row) in enumerate(table.rows):
        rows.setdefault(row[ids], []).append(i)
    return [_Train(name, times[own], unit) for name, own in rows.items()]


def _listed_trains(table: _Table, ids: int | None, lists: int) -> list[_Train]:
    label = table.header[lists]
    usual = "ms" if "spiking" in _words(label) else None
    trains = []
    for i, (line, row) in enumerate(table.rows, 1):
        cells = re.split(r"[,;\s]+", row[lists].strip("[] "))
        times = [_number(table.path, line, cell) for cell in cells if cell]
        name = str(i) if ids is None else row[ids]
        trains.append(_Train(name, np.array(times, float), _stated_unit(label), usual))
    return trains


@contextlib.contextmanager
def _reading(path: pathlib.Path, kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged files raise more types than are documented
        raise ValueError(
            f"{path.name} is not {kind}, or is damaged: export it again."
        ) from error


def _vector(path: pathlib.Path, name: str, array: Shaped[np.ndarray, "..."]) -> Times:
    is_row = array.ndim > 0 and array.size in (0, max(array.shape))
    if array.dtype.kind not in "iuf" or not is_row:
        raise ValueError(
            f"{path.name}: {name or 'it'} is an array of {array.dtype} of shape "
            f"{array.shape}, not of times: save one row of numbers per unit."
        )
    return array.ravel().astype(float)


def _read_numpy(path: pathlib.Path) -> list[_Train]:
    with _reading(path, "a NumPy file of numbers"), path.open("rb") as file:
        num_bytes, arrays = path.stat().st_size, {}
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                num_bytes = sum(info.file_size for info in archive.infolist())
        if num_bytes <= MAX_BYTES:
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        ends = [
            arrays.pop(end).item() for end in ("t_start", "t_stop") if end in arrays
        ]
        span, unit = np.array(ends, float), None
        if "unit" in arrays and arrays["unit"].dtype.kind == "U":
            unit = _stated_unit(arrays.pop("unit").item())
    _check_size(path, num_bytes)
    trains = []
    for label, array in arrays.items():
        name = path.stem if len(arrays) == 1 and _is_time(label) else label
        times, stated = _vector(path, label, array), unit or _stated_unit(label)
        trains.append(_Train(name, times, stated, span=span))
    return trains


def _read_nwb(path: pathlib.Path) -> list[_Train]:
    most = MAX_BYTES // 8 + 1  # a few bytes can declare a dataset of any size
    trains, kind = [], "an NWB file with spike times in its Units table"
    with _reading(path, kind), h5py.File(path, "r") as file:
        units: Any = file["units"]
        times = units["spike_times"][:most]
        rows = _ragged(times, units["spike_times_index"][:most])
        unit = _stated_unit(str(units["spike_times"].attrs.get("unit", "")))
        names = units["id"][:most] if "id" in units else range(len(rows))
        spans: Any = [np.zeros(0)] * len(rows)
        if "obs_intervals" in units:
            ends = units["obs_intervals_index"][:most]
            spans = _ragged(units["obs_intervals"][:most], ends)
        for name, row, span in zip(map(str, names), rows, spans, strict=True):
            row, span = _vector(path, name, row), np.ravel(span).astype(float)
            trains.append(_Train(name, row, unit, "s", span))
    _check_size(path, times.nbytes)
    return trains


def _ragged(values: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    ends = ends.astype(int)  # often unsigned, where differences would wrap around
    if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(values):
        raise ValueError("The index does not fit the values.")
    return np.split(values, ends[:-1])


_READERS = {
    ".csv": _read_text,
    ".txt": _read_text,
    ".tsv": _read_text,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".nwb": _read_nwb,
}
