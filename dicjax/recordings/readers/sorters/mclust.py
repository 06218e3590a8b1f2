"""Reads the files of MClust: times of one cluster, after a header of text."""

import pathlib

import numpy as np

from dicjax.recordings.readers.common import check_size, reading, Train
from dicjax.recordings.readers.units import samples_at


_BEGIN, _END = b"%%BEGINHEADER", b"%%ENDHEADER"
_UNIT = samples_at(10_000.0)  # tenths of a ms
_WIDTHS = {".t": None, ".t32": 4, ".t64": 8}  # bytes a time


def read_mclust(path: pathlib.Path) -> list[Train]:
    check_size(path, 2 * path.stat().st_size)
    with reading(path, "open to you"):
        raw = path.read_bytes()
    if raw.startswith(_BEGIN):
        _, mark, after = raw.partition(_END)
        raw = after.partition(b"\n")[2]
        if not mark:
            raise ValueError(f"{path.name} ends in its header: export it again.")
    width = _WIDTHS[path.suffix.lower()] or _width(raw)
    if not raw or len(raw) % width:
        raise ValueError(
            f"{path.name} is no file of MClust: it does not hold whole numbers of "
            f"{width} bytes after its header."
        )
    times = np.frombuffer(raw, f">u{width}").astype(float)
    return [Train(path.stem, times, _UNIT)]


def _width(raw: bytes) -> int:
    """How many bytes times have: 8 if every other number of 4 is zero."""
    if len(raw) % 8 or not raw:
        return 4
    return 4 if np.frombuffer(raw, ">u4")[::2].any() else 8
