"""Reads text files: tables of any separator and encoding, and marks of Spike2."""

import csv
import pathlib
import re

import numpy as np

from dicjax.recordings.readers.common import check_size, reading, Train
from dicjax.recordings.readers.tables import is_header, number, table_of, trains_of


_WAVEMARK = '"WAVMK"\t'


def read_text(path: pathlib.Path) -> list[Train]:
    check_size(path, 8 * path.stat().st_size)
    lines = lines_of(path)
    if any(line.startswith(_WAVEMARK) for line in lines):
        return _wavemark_trains(path, lines)
    return _table_trains(path, lines)


def lines_of(path: pathlib.Path) -> list[str]:
    with reading(path, "open to you"):
        raw = path.read_bytes()
    is_utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # of Excel; µ is one byte
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        raise ValueError(
            f"{path.name} holds control characters, so it is not text: export it as "
            "text."
        )
    return [line.strip(" ") + "\n" for line in re.split(r"\r\n?|\n", text)]


def _table_trains(path: pathlib.Path, lines: list[str]) -> list[Train]:
    first, second = ([line for line in lines if line.strip()] + ["", ""])[:2]
    mark = _separator(path, first, second)
    read = csv.reader(lines, delimiter=mark, skipinitialspace=True)
    with reading(path, "a table with one spike a line"):
        rows = [(read.line_num, [" ".join(c.split()) for c in r]) for r in read if r]
    table = table_of(path, rows)
    is_bare = mark == "," and len(table.header) == 2 and not any(table.header)
    if is_bare and "." not in "".join(lines):
        raise ValueError(
            f"{path.name}: {first.strip()!r} may be two cells or a decimal comma: add "
            "a header line, such as `unit,time_ms` or `time_ms`."
        )
    return trains_of(table)


def _separator(path: pathlib.Path, first: str, second: str) -> str:
    has_header = is_header([first])
    # If the header has no comma, a comma is a decimal comma.
    is_lone = path.suffix.lower() == ".tsv" or (has_header and "," not in first)
    for mark in ";\t" if is_lone else ";\t,":
        if mark in (second if has_header else first + second):
            return mark
    return " " if " " in second else "\x1f"


def _wavemark_trains(path: pathlib.Path, lines: list[str]) -> list[Train]:
    channel, onsets, codes = "", {}, {}
    for i, line in enumerate(lines, 1):
        kind, *cells = [cell.strip().strip('"') for cell in line.split("\t")]
        if kind == "CHANNEL" and cells:
            channel = cells[0]
        elif line.startswith(_WAVEMARK):
            onsets.setdefault(channel, []).append(number(path, i, cells[0]))
            codes.setdefault(channel, set()).update(cells[1:2])
    return [
        Train(
            path.stem if len(onsets) == 1 else name,
            np.array(times, float),
            usual_unit="s",
            caution=_several(codes[name]),
        )
        for name, times in onsets.items()
    ]


def _several(codes: set[str]) -> str:
    known = sorted(codes - {""})
    if not 1 < len(known) <= 16:
        return ""
    return (
        f"holds marks of codes {', '.join(known)}; if these are different cells, "
        "export one code"
    )
