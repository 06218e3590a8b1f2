"""Reads text files: tables of any separator and encoding, and exports of programs."""

import collections
import csv
import pathlib
import re

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from dicjax.recordings.readers.common import check_size, reading, Train
from dicjax.recordings.readers.sorters.exports import EXPORTS
from dicjax.recordings.readers.tables import columns_of, table_of, trains_of
from dicjax.recordings.readers.tabular.cells import Cells, is_number, pc
from dicjax.recordings.readers.tabular.heads import (
    has_words,
    MOST_TITLES,
    Row,
    split_head,
)


_NO_MARK = "\x1f"
_COMMENTS = ("#", "%", "//", ";")
_COUNTING = re.compile(r"#\s*[,;\t]")  # a header of numbers of rows, no comment
# Also between day and hour.
_QUOTED = re.compile(r'"[^"]*"|((?<=\d\d-\d\d)|(?<=\.\d{4})) (?=\d+:)')
_NUM_SAMPLE = 100  # lines that show how a table is separated
_SEP = re.compile(r"\s*\"?sep=(.|\\t)\"?\s*", re.I)

Lines = list[str]


def read_text(path: pathlib.Path) -> list[Train]:
    check_size(path, 8 * path.stat().st_size)
    lines = lines_of(path)
    for is_export, read in EXPORTS:
        if is_export(lines):
            return read(path, lines)
    return _table_trains(path, lines)


def read_nex_table(path: pathlib.Path) -> list[Train]:
    """Timestamps of NeuroExplorer, in s: a column per neuron."""
    return [train._replace(usual_unit="s") for train in read_text(path)]


def lines_of(path: pathlib.Path) -> Lines:
    with reading(path, "open to you"):
        raw = path.read_bytes()
    try:
        text = raw.decode(_wide(raw) or "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # of Excel; µ is one byte
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        raise ValueError(
            f"{path.name} holds control characters, so it is not text: export it as "
            "text."
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [line.strip(" ") for line in text.split("\n")]


def _wide(raw: bytes) -> str | None:
    """UTF-16, by its mark or by the zeros of plain letters."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    start = np.frombuffer(raw[: min(len(raw) // 2 * 2, 1000)], "u1")
    zeros = [float(np.mean(start[i::2] == 0)) if start.size else 0.0 for i in (0, 1)]
    if max(zeros) > 0.9 and min(zeros) < 0.1:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return None


def _table_trains(path: pathlib.Path, lines: Lines) -> list[Train]:
    kept, comment, stated = _without_comments(lines)
    if not kept:
        raise ValueError(f"{path.name} has no lines of spike times: export one a line.")
    texts = [lines[i] for i in kept]
    mark = stated or _separator(path, texts)
    if mark == " ":
        texts = [re.sub(" +", " ", text) for text in texts]
    with reading(path, "a table with one spike a line"):
        head = _split(texts[:MOST_TITLES], mark)
        sample = _split(texts[len(texts) // 2 :][:_NUM_SAMPLE], mark)
        header, above = split_head([row for _, row in head], [row for _, row in sample])
        if not header and comment is not None:
            header = _header_in(comment, mark, max(len(row) for _, row in sample))
        numbers = np.array(kept[above:], int) + 1
        columns = _columns(texts[above:], mark)
        rows = [] if columns else _split(texts[above:], mark)
    if rows:
        numbers = numbers[[i for i, _ in rows]]
        columns = columns_of(path, [row for _, row in rows])
    return trains_of(table_of(path, header, numbers, columns))


def _without_comments(lines: Lines) -> tuple[list[int], str | None, str]:
    """Lines that hold something, the last comment above them, and a stated mark."""
    filled = [i for i, line in enumerate(lines) if line and not line.isspace()]
    stated = _SEP.fullmatch(lines[filled[0]]) if filled else None
    filled = filled[1:] if stated else filled
    mark = stated[1].replace("\\t", "\t") if stated else ""
    sample = filled[len(filled) // 2 :][:_NUM_SAMPLE]
    has_semicolons = mark == ";" or 2 * sum(";" in lines[i] for i in sample) > len(
        sample
    )
    comments = _COMMENTS[:-1] if has_semicolons else _COMMENTS
    kept = [
        i
        for i in filled
        if not lines[i].startswith(comments) or _COUNTING.match(lines[i])
    ]
    above = [i for i in filled if not kept or i < kept[0]]
    comment = lines[above[-1]].lstrip("#%/; ") if above else None
    return kept, comment, mark


def _header_in(comment: str, mark: str, width: int) -> Row:
    if width == 1:
        return [comment]
    ((_, cells),) = _split([comment], mark) or [(0, [])]
    return cells if len(cells) == width and has_words(cells) else []


def _separator(path: pathlib.Path, texts: Lines) -> str:
    sample = [_QUOTED.sub("", text) for text in texts[len(texts) // 2 :][:_NUM_SAMPLE]]
    if len(texts) == 1:
        sample = [_QUOTED.sub("", texts[0])]
    counts = collections.Counter(mark for text in sample for mark in {*text})
    for mark in ";\t":
        if 2 * counts[mark] > len(sample):
            return mark
    if (
        counts[","]
        and path.suffix.lower() != ".tsv"
        and _separates(path, texts, sample)
    ):
        return ","
    is_one = counts[" "] and all(map(is_number, sample))
    are_thousands = is_one and not all(" " in _QUOTED.sub("", x) for x in texts)
    if are_thousands or (is_one and " " not in (_title(texts) or " ")):
        return _NO_MARK
    return " " if counts[" "] else _NO_MARK


def _separates(path: pathlib.Path, texts: Lines, sample: Lines) -> bool:
    """Whether a comma separates cells. If not, it is within numbers."""
    header = _title(texts)
    if not all(map(is_number, sample)):
        return not (header and "," not in header and " " in sample[0])
    if header:
        return "," in _QUOTED.sub("", header)
    if not all("," in text for text in sample) or any(
        re.search(r",0\d", x) for x in sample
    ):
        return False
    if any("." in text for text in sample):
        return True
    firsts = [text.partition(",")[0] for text in texts if is_number(text)]
    counts = all(map(str.isdecimal, firsts))
    if not counts or np.any(np.diff(np.array(firsts, float)) != 1):
        raise ValueError(
            f"{path.name}: {texts[0]!r} may be two cells or a decimal comma: add a "
            "header line, such as `unit,time_ms` or `time_ms`."
        )
    return True


def _title(texts: Lines) -> str:
    """The last of the first lines that holds words."""
    first = reversed(texts[:MOST_TITLES])
    return next(
        (x for x in first if not is_number(x) and has_words([x.strip('"')])), ""
    )


def _split(texts: Lines, mark: str) -> list[tuple[int, Row]]:
    """Rows of cells, each with the place of its last line."""
    read = csv.reader(texts, delimiter=mark, skipinitialspace=True)
    return [(read.line_num - 1, [cell.strip() for cell in row]) for row in read if row]


def _columns(texts: Lines, mark: str) -> list[Cells]:
    """The columns of a table whose rows are equally long, fast; of others, none."""
    text = "\n".join([*texts, ""])
    if re.search(rf'{mark} +"', text):
        return []
    ((_, first), *_) = _split(texts[:1], mark) or [(0, [])]
    names = [str(i) for i in range(len(first))]
    try:
        read = arrow_csv.read_csv(
            pa.BufferReader(text.encode()),
            arrow_csv.ReadOptions(use_threads=False, column_names=names),
            arrow_csv.ParseOptions(delimiter=mark, ignore_empty_lines=False),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid:
        return []
    if read.num_rows != len(texts):  # a quoted cell has taken in lines
        return []
    return [pc.utf8_trim_whitespace(x).combine_chunks() for x in read.columns]
