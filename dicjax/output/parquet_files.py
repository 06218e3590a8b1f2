"""Tables of Parquet, read in a process apart: a few bytes can claim to be many."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core import apart, limits_of


def read_parquet(path: pathlib.Path) -> pa.Table:
    """The table of a file. Raises `Overrun`, or what pyarrow raises."""
    return apart(_whole, limits_of(path), path)


def _whole(path: pathlib.Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()
