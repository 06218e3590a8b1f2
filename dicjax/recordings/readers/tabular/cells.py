"""Numbers in the cells of a table: decimal marks, thousands, clock times, blanks."""

import pathlib
import re
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from pyarrow import compute

from dicjax._core import tidy


pc: Any = compute  # its functions are made when it is imported
Cells: TypeAlias = Any  # of a column: pa.StringArray, without blanks around them
Lines = Int[np.ndarray, " rows"]  # where each row stands in the file

MISSING = ("", "nan", "na", "n/a", "#n/a", "null", "none")
NUMBER = r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
_SPACES = " '’\u00a0\u202f"  # between thousands, in some countries
_GROUPED = "|".join(
    rf"[+-]?[0-9]{{1,3}}(?:[{mark}][0-9]{{3}})+(?:[{decimal}][0-9]*)?"
    for mark, decimal in ((r"\.", ","), (",", r"\."), (_SPACES, ".,"))
)
# Of thousands, and of a number with three decimals.
_THREES = {mark: rf"^[+-]?[1-9][0-9]{{0,2}}(\{mark}[0-9]{{3}})+$" for mark in ".,"}
_DAY = r"(?:(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4})[ T])"
_CLOCK = (
    rf"(?:{_DAY}?[0-9]{{1,3}}:[0-9]{{2}}:[0-9]{{2}}(?:[.,][0-9]+)?"
    rf"|{_DAY}[0-9]{{1,2}}:[0-9]{{2}}|[0-9]{{1,3}}:[0-9]{{2}}[.,][0-9]+)"
)
_SHORT_CLOCK = r"[0-9]{1,3}:[0-9]{2}"  # of hours and minutes, or minutes and seconds
_ANY = rf"^(?:{NUMBER}|{_GROUPED}|{_CLOCK}|{_SHORT_CLOCK})$"
_HALF_A_DAY = 43_200.0  # s


class Column(NamedTuple):
    """The numbers of a column, NaN for missing ones, and what their cells state."""

    values: Float[np.ndarray, " rows"]
    unit: str | None = None  # of clock times


def is_number(cell: str) -> bool:
    return re.search(_ANY, cell) is not None


def is_missing(cell: str) -> bool:
    return cell.casefold() in MISSING


def all_numbers(cells: Cells) -> bool:
    """Whether every cell is a number or missing, and some cell is a number."""
    if _cast(cells) is not None:
        return len(cells) > 0
    numeric, missing = _matches(cells, _ANY), missing_of(cells)
    return bool((numeric | missing).all() and numeric.any())


def missing_of(cells: Cells) -> Bool[np.ndarray, " rows"]:
    lower = pc.utf8_lower(cells)
    return np.asarray(pc.is_in(lower, pa.array(MISSING)))


def decimal_mark(path: pathlib.Path, columns: list[Cells]) -> str:
    """The decimal mark of a table of numbers, "" if nothing shows which it is.

    A mark is decimal if it comes last of two, if the other one repeats, or if what
    follows it is no group of three digits.
    """
    found: set[str] = set()
    is_open = False
    for cells in columns:
        if _has(cells, ":"):
            continue  # clock times have points between days, months and years
        if not _has(cells, ","):
            if _has(cells, ".") and _all_threes(cells, "."):
                is_open = True
                found |= {","} if _repeats(cells, ".") else set()
            elif _has(cells, "."):
                found.add(".")
            continue
        is_open = True
        for mark, other in (".,", ",."):
            after = _matches(cells, rf"\{other}.*\{mark}")
            marked = _matches(cells, rf"\{mark}") & ~_matches(cells, rf"\{other}")
            threes = _matches(cells, _THREES[mark]) | ~marked
            if after.any() or not threes.all():
                found.add(mark)
            elif _repeats(cells, mark):
                found.add(other)
    if len(found) == 2:
        raise ValueError(
            f"{path.name} mixes decimal commas and decimal points: write all numbers "
            "with one of them."
        )
    return found.pop() if found else "" if is_open else "."


def numbers(path: pathlib.Path, lines: Lines, cells: Cells, decimal: str) -> Column:
    """The numbers of a column.

    Raises a `ValueError` that names the line of a cell that is none.
    """
    cast = _cast(cells) if decimal == "." else None
    if cast is not None:
        return Column(cast)
    missing = missing_of(cells)
    _check(path, lines, cells, ~_matches(cells, _ANY) & ~missing)
    if _has(cells, ":"):
        return Column(_seconds(path, lines, cells, missing), "s")
    spaced = rf"([0-9])[{_SPACES}]([0-9])"
    if len(cells) and _matches(cells, spaced).any():
        cells = pc.replace_substring_regex(cells, spaced, r"\1\2")
    plain = _plain(path, cells, decimal)
    _check(path, lines, cells, ~_matches(plain, f"^{NUMBER}$") & ~missing)
    masked = pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), plain)
    values = masked.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return Column(np.array(values, float))


def refuse_missing(
    path: pathlib.Path, lines: Lines, cells: Cells, missing: Bool[np.ndarray, " rows"]
) -> None:
    """Raises a `ValueError` that names the line of the first missing number."""
    _check(path, lines, cells, missing)


def number(path: pathlib.Path, line: int, cell: str) -> float:
    """The number in a cell alone."""
    cells = pa.array([cell])
    decimal = "," if re.fullmatch(NUMBER, cell) and "," in cell else "."
    column = numbers(path, np.array([line]), cells, decimal)
    if np.isnan(column.values[0]):
        _check(path, np.array([line]), cells, np.array([True]))
    return float(column.values[0])


def _plain(path: pathlib.Path, cells: Cells, decimal: str) -> Cells:
    """Cells with a decimal point alone."""
    if decimal == "." or not (_has(cells, ".") or _has(cells, ",")):
        return pc.replace_substring(cells, ",", "")
    if decimal == ",":
        cells = pc.replace_substring(cells, ".", "")
        return pc.replace_substring(cells, ",", ".")
    mark = "," if _has(cells, ",") else "."
    as_decimal = pc.replace_substring(cells, mark, ".")
    as_thousands = pc.replace_substring(cells, mark, "")
    increasing = [_increases(x) for x in (as_decimal, as_thousands)]
    if increasing == [False, True]:
        return as_thousands
    if mark == "," and all(increasing):
        cell = cells.filter(pa.array(_matches(cells, ",")))[0].as_py()
        raise ValueError(
            f"{path.name}: {cell!r} may have a decimal comma or thousands: write it "
            "with a decimal point, or with more decimals."
        )
    return as_decimal


def _cast(cells: Cells) -> Float[np.ndarray, " rows"] | None:
    """The numbers of cells that are all plain and finite, fast."""
    try:
        values = cells.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return values if np.isfinite(values).all() else None


def _increases(cells: Cells) -> bool:
    cells = cells.filter(pa.array(_matches(cells, f"^{NUMBER}$")))
    return bool((np.diff(cells.cast(pa.float64()).to_numpy()) > 0).all())


def _seconds(
    path: pathlib.Path, lines: Lines, cells: Cells, missing: Bool[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    short = _matches(cells, f"^{_SHORT_CLOCK}$")
    if (short | missing).all():
        cell = cells[int(np.argmax(short))].as_py()
        raise ValueError(
            f"{path.name}: clock times such as {cell!r} may be hours and minutes, or "
            "minutes and seconds: write h:mm:ss."
        )
    _check(path, lines, cells, ~(_matches(cells, f"^{_CLOCK}$") | short | missing))
    values, first_day = np.full(len(cells), np.nan), None
    for i in np.flatnonzero(~missing):
        *day, clock = re.split("[ T]", cells[i].as_py())
        parts = [float(part) for part in clock.replace(",", ".").split(":")]
        if day and len(parts) == 2:  # beside a day, these are hours and minutes
            parts.append(0.0)
        values[i] = sum(x * 60**k for k, x in enumerate(reversed(parts)))
        if day:
            try:
                date = _date(day[0])
            except ValueError:
                _check(path, lines, cells, np.arange(len(cells)) == i)
                raise
            first_day = date if first_day is None else first_day
            values[i] += 86_400.0 * int((date - first_day).astype(int))
    known = values[~missing]
    is_past_midnight = np.append(False, np.diff(known) < -_HALF_A_DAY)
    values[~missing] = known + 86_400.0 * np.cumsum(is_past_midnight)
    return values


def _date(day: str) -> np.datetime64:
    """A day, written as 2024-02-28 or 28.02.2024."""
    parts = day.split(".")[::-1] if "." in day else day.split("-")
    return np.datetime64("-".join(part.rjust(2, "0") for part in parts), "D")


def _check(
    path: pathlib.Path, lines: Lines, cells: Cells, bad: Bool[np.ndarray, " rows"]
) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"{path.name}, line {lines[i]}: {tidy(cells[i].as_py())[:40]!r} is not a "
            "number: correct it."
        )


def _matches(cells: Cells, pattern: str) -> Bool[np.ndarray, " rows"]:
    return np.asarray(pc.match_substring_regex(cells, pattern), bool)


def _has(cells: Cells, mark: str) -> bool:
    return bool(pc.any(pc.match_substring(cells, mark)).as_py())


def _repeats(cells: Cells, mark: str) -> bool:
    return bool(_matches(cells, rf"\{mark}.*\{mark}").any())


def _all_threes(cells: Cells, mark: str) -> bool:
    for part in (cells.slice(0, 1000), cells):  # of most tables, the start is enough
        marked = part.filter(pc.match_substring(part, mark))
        if not _matches(marked, _THREES[mark]).all():
            return False
    return True
