"""Where the numbers of a table begin, and the header and the titles above them."""

import re
from collections.abc import Sequence

from dicjax.recordings.readers.tabular.cells import is_missing, is_number
from dicjax.recordings.readers.units import named_unit


Row = list[str]

MOST_TITLES = 100  # lines above the numbers
_WORD = re.compile(r"(?![+-]?(?:nan|inf))\W*[^\W\d]", re.I)
_OTHER_UNITS = {"mv", "µv", "μv", "uv", "v", "pa", "na", "hz", "khz", "a.u.", "#", "-"}
_RULE = re.compile(r"[-=_*+|\s]*")  # between a header and its table


def has_words(row: Row) -> bool:
    return any(_WORD.match(cell) for cell in row)


def split_head(head: Sequence[Row], sample: Sequence[Row]) -> tuple[Row, int]:
    """The header of a table, empty if it has none, and how many rows stand above.

    `head` has its first rows, `sample` some further down.
    """
    columns = _numeric_columns(sample)
    first = next((i for i, row in enumerate(head) if _is_data(row, columns)), None)
    if first is None:
        first = int(has_words(head[0]))
    for i, row in enumerate(head[:first]):
        if not has_words(row) and any(row) and not _RULE.fullmatch("".join(row)):
            first = i  # such as `inf`: no title, and no number
            break
    above = [row for row in head[:first] if not _RULE.fullmatch("".join(row))]
    if above:
        return _header(above, sample), first
    is_numbered = _counts_columns(head[0]) and any(
        not cell.isdecimal() and not is_missing(cell) for row in sample for cell in row
    )
    return (head[0], 1) if is_numbered else ([], 0)


def _numeric_columns(sample: Sequence[Row]) -> set[int]:
    columns = set()
    for j in range(max(map(len, sample))):
        cells = [row[j] for row in sample if j < len(row) and not is_missing(row[j])]
        if 2 * sum(is_number(cell) for cell in cells) > len(cells):
            columns.add(j)
    return columns


def _is_data(row: Row, columns: set[int]) -> bool:
    if not columns:
        return any(cell.startswith("[") for cell in row)
    cells = [row[j] for j in columns if j < len(row) and not is_missing(row[j])]
    return bool(cells) and all(map(is_number, cells))


def _header(above: list[Row], sample: Sequence[Row]) -> Row:
    """The last row of names, joined with a row of units below it."""
    *_, last = above
    if len(above) > 1 and len(above[-2]) == len(last):
        pairs = list(zip(above[-2], last, strict=True))
        if any(last) and all(_is_unit(unit) and name for name, unit in pairs if unit):
            last = [f"{x} [{y.strip('[]()')}]" if y else x for x, y in pairs]
    # R writes the names of rows without a name above them.
    firsts = [row[0] for row in sample]
    are_names = all(cell.isdecimal() or not is_number(cell) for cell in firsts)
    is_short = are_names and {len(row) for row in sample} == {len(last) + 1}
    return ["", *last] if is_short else last


def _is_unit(cell: str) -> bool:
    bare = cell.strip("[]()").casefold()
    is_of_time = bare.isalpha() and named_unit(bare) is not None
    return is_of_time or bare in _OTHER_UNITS


def _counts_columns(row: Row) -> bool:
    count = [str(i) for i in range(len(row) + 1)]
    return len(row) > 1 and row in (count[:-1], count[1:])
