"""The variables of MATLAB files, as arrays, text, lists (cells) and dictionaries."""

import io
import math
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped

from dicjax.recordings.readers import common
from dicjax.recordings.readers.common import check_size, UNIT_BYTES
from dicjax.recordings.readers.tabular.rasters import Sparse


MAX_DEPTH = 16  # of nested cells
MAX_CHARACTERS = 10_000  # in text about a variable

# Version 5: kinds of elements, and classes of matrices.
_HEADER, _TAG = 128, 8
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}
_WIDE_TEXT = (4, 17)
_CELL, _STRUCT, _CHAR, _SPARSE, _NUMERIC = 1, 2, 4, 5, range(6, 16)
_LOGICAL, _COMPLEX = 0x200, 0x800
Elements = Iterator[tuple[int, memoryview]]  # their kinds and data


def load_matrices(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file of version 4 to 7."""
    import scipy.io

    check_size(path, path.stat().st_size)
    raw = path.read_bytes()
    if 0 not in raw[:4]:
        # Not with scipy: its compiled reader of version 5 crashes Python on damaged
        # files.
        return _Version5(path, raw).variables()
    fields = scipy.io.loadmat(io.BytesIO(raw))
    return {x: np.squeeze(v) for x, v in fields.items() if not x.startswith("__")}


class _Version5:
    def __init__(self, path: pathlib.Path, raw: bytes):
        self.path, self.raw, self.spent = path, memoryview(raw), 0
        self.order = "little" if raw[126:128] == b"IM" else "big"

    def variables(self) -> dict[str, Any]:
        found = {}
        for kind, data in self._elements(self.raw[_HEADER:], padding=1):
            if kind == _COMPRESSED:
                left = common.MAX_BYTES - self.spent
                inflated = zlib.decompressobj().decompress(data, left + 1)
                self._spend(len(inflated))
                kind, data = next(self._elements(memoryview(inflated)))
                if len(inflated) != _TAG + len(data):
                    raise ValueError("A variable does not fill what holds it.")
            if kind == _MATRIX:
                name, value = self._matrix(data, MAX_DEPTH)
                found[name] = value
        return {name: value for name, value in found.items() if name}

    def _elements(self, data: memoryview, padding: int = 8) -> Elements:
        at = 0
        while at + _TAG <= len(data):
            kind, size = self._integers(data[at : at + _TAG])
            start = at + _TAG
            if kind >> 16:  # a small element, within its own tag
                kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if start + size > len(data):
                raise ValueError("An element is larger than what holds it.")
            yield kind, data[start : start + size]
            at = max(start + size, at + _TAG)
            at += -at % padding

    def _integers(self, data: memoryview) -> list[int]:
        return self._numbers(6, data).tolist()

    def _numbers(self, kind: int, data: memoryview) -> Shaped[np.ndarray, " _"]:
        mark = "<" if self.order == "little" else ">"
        return np.frombuffer(data, mark + _NUMBERS[kind])

    def _matrix(self, data: memoryview, depth: int) -> tuple[str, Any]:
        self._spend(UNIT_BYTES)
        if depth == 0:
            raise ValueError("Its cells do not fit into one another.")
        if not data:
            return "", np.zeros(0)
        parts = self._elements(data)
        (_, flags), (_, shape) = next(parts), next(parts)
        flags, shape = self._integers(flags)[0], self._integers(shape)
        name = bytes(next(parts)[1]).decode("utf-8", "replace")
        kind = flags & 0xFF
        if kind == _CELL:
            cells = [self._matrix(part, depth - 1)[1] for _, part in parts]
            if math.prod(shape) != len(cells):
                raise ValueError("Its shape is another than that of what it holds.")
            return name, cells
        if kind == _STRUCT:
            return name, self._struct(parts, depth)
        if kind == _CHAR:
            return name, self._text(*next(parts))
        if kind == _SPARSE and not flags & _COMPLEX:
            return name, _sparse(shape, *(self._numbers(*next(parts)) for _ in "123"))
        if kind not in _NUMERIC or flags & _COMPLEX:
            return name, None
        array = self._numbers(*next(parts)).reshape(shape, order="F")
        return name, np.squeeze(array != 0 if flags & _LOGICAL else array)

    def _struct(self, parts: Elements, depth: int) -> Any:
        width = self._integers(next(parts)[1])[0]
        text = bytes(next(parts)[1])
        starts = range(0, len(text), max(width, 1))
        labels = [text[i : i + width].split(b"\0")[0].decode() for i in starts]
        values = [self._matrix(part, depth - 1)[1] for _, part in parts]
        starts = range(0, len(values), len(labels))
        rows = [values[i : i + len(labels)] for i in starts]
        structs = [dict(zip(labels, row, strict=True)) for row in rows]
        return structs[0] if len(structs) == 1 else structs

    def _text(self, kind: int, data: memoryview) -> str:
        ending = "le" if self.order == "little" else "be"
        encoding = f"utf-16-{ending}" if kind in _WIDE_TEXT else "utf-8"
        return bytes(data).decode(encoding, "replace")

    def _spend(self, num_bytes: int) -> None:
        self.spent += num_bytes
        check_size(self.path, self.spent)


def _sparse(
    shape: list[int],
    rows: Shaped[np.ndarray, " numbers"],
    starts: Shaped[np.ndarray, " ends"],
    values: Shaped[np.ndarray, " numbers"],
) -> Sparse:
    starts = starts.astype(np.int64)
    num = int(starts[-1])
    if (
        len(shape) != 2
        or len(starts) != shape[1] + 1
        or num > min(rows.size, values.size)
    ):
        raise ValueError("A sparse matrix does not have the shape that it states.")
    columns = np.repeat(np.arange(shape[1]), np.diff(starts))
    rows, values = rows[:num].astype(np.int64), values[:num]
    if num and not 0 <= rows.min() <= rows.max() < shape[0]:
        raise ValueError("A sparse matrix has rows outside itself.")
    return Sparse(rows, columns, values, (shape[0], shape[1]))


def load_hdf5(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file of version 7.3."""
    with h5py.File(path, "r") as file:
        return _Hdf5(path, file).fields(file, MAX_DEPTH)


class _Hdf5:
    def __init__(self, path: pathlib.Path, file: h5py.File):
        self.path, self.file, self.spent = path, file, 0

    def fields(self, group: h5py.Group, depth: int) -> dict[str, Any]:
        names = [str(name) for name in group if not str(name).startswith("#")]
        return {name: self.value(group[name], depth - 1) for name in names}

    def value(self, item: Any, depth: int) -> Any:
        self._spend(UNIT_BYTES)
        if depth == 0:
            raise ValueError("Its cells do not fit into one another.")
        if isinstance(item, h5py.Group) and "MATLAB_sparse" in item.attrs:
            return self._sparse(item)
        if isinstance(item, h5py.Group):
            return _struct(self.fields(item, depth))
        kind = item.attrs.get("MATLAB_class", b"")
        if "MATLAB_empty" in item.attrs:
            return [] if kind == b"cell" else np.zeros(0)
        if h5py.check_ref_dtype(item.dtype) is not None:
            self._spend(item.size * UNIT_BYTES)
            cells = [self.value(self.file[x], depth - 1) for x in item[()].ravel()]
            return cells if kind == b"cell" else _Elements(cells)
        is_long = kind == b"char" and item.size > MAX_CHARACTERS
        if item.dtype.kind not in "iuf" or is_long:
            return None
        self._spend(item.size * item.dtype.itemsize)
        array = item[()]
        if kind == b"char":
            return "".join(map(chr, np.ravel(array)))
        return np.squeeze(array.T != 0 if kind == b"logical" else array.T)

    def _sparse(self, group: h5py.Group) -> Sparse:
        parts: list[Any] = [group[x] for x in ("ir", "jc", "data") if x in group]
        self._spend(sum(part.size * 8 for part in parts))
        rows, starts, values = (part[()] for part in parts)
        stated: Any = group.attrs["MATLAB_sparse"]
        shape = [int(stated), len(starts) - 1]
        return _sparse(shape, rows, starts, values)

    def _spend(self, num_bytes: int) -> None:
        self.spent += num_bytes
        check_size(self.path, self.spent)


class _Elements(list):
    """The values of a field in each element of a struct array."""


def _struct(fields: dict[str, Any]) -> Any:
    counts = {len(x) for x in fields.values() if isinstance(x, _Elements)}
    if len(counts) != 1 or not all(isinstance(x, _Elements) for x in fields.values()):
        return fields
    elements = zip(*fields.values(), strict=True)
    return [dict(zip(fields, parts, strict=True)) for parts in elements]
