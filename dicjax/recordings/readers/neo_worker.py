"""Reads a file with neo, as the process does that reads apart.

A damaged file can make a reader of neo loop for ever or fill the memory. To start fast,
this module imports neo only where it reads, and nothing of dicjax.
"""

import importlib
import pathlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np


MAX_BYTES = 2**31  # limit of files that are read whole

# PickleIO and ElphyIO may run code of a file, ExampleIO invents data, and Plexon2IO
# downloads a library. The formats of the others are read without neo.
UNSAFE = {"PickleIO", "ElphyIO", "ExampleIO", "Plexon2IO"}
UNUSED = UNSAFE | {"PhyIO", "NeoMatlabIO", "AsciiSpikeTrainIO"}

LIBRARIES = ("neo.io",)

Read = TypeVar("Read")


class SpikeTimes(NamedTuple):
    name: str
    times: np.ndarray  # ms
    span: np.ndarray  # ms


class Found(NamedTuple):
    trains: list[SpikeTimes]
    has_traces: bool = False
    reasons: Sequence[str] = ()  # why readers of neo found no trains


def look_into(path: pathlib.Path) -> Found:
    """The spike trains of a file or folder, from the first reader that finds any."""

    def read(candidate: Any) -> Found:
        blocks = _blocks(candidate, path)
        trains = spike_times(blocks)
        segments = [segment for block in blocks for segment in block.segments]
        if not trains and not any(segment.analogsignals for segment in segments):
            raise ValueError("no spike trains")
        return Found(trains, not trains)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, reasons = first_read(_candidates(path), read)
    return Found([], reasons=reasons) if found is None else found


def first_read(
    candidates: Iterable[Any], read: Callable[[Any], Read]
) -> tuple[Read | None, list[str]]:
    """What the first reader of neo that succeeds has read, and why others failed."""
    reasons = []
    for candidate in candidates:
        try:
            return read(candidate), reasons
        except Exception as error:  # of any type, of a hundred readers
            why = " ".join(str(error).split())[:100] or type(error).__name__
            reasons.append(f"{candidate.__name__}: {why}")
    return None, reasons


def _candidates(path: pathlib.Path) -> list[Any]:
    is_folder = path.is_dir()
    files = path.iterdir() if is_folder else [path]
    suffixes = {file.suffix[1:].lower() for file in files} - {""}
    return [
        io
        for io in importlib.import_module("neo.io").iolist
        if io.__name__ not in UNUSED
        and (io.mode == "dir") == is_folder
        and suffixes & {extension.lower() for extension in io.extensions}
    ]


def _blocks(candidate: Any, path: pathlib.Path) -> list[Any]:
    io = candidate(str(path))
    if getattr(io, "support_lazy", False):
        return io.read(lazy=True)  # does not load gigabytes of traces
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("the file is too large")
    return io.read()


def spike_times(parts: Sequence[Any]) -> list[SpikeTimes]:
    """The trains of neo's blocks, segments or spike trains, each with a unique name."""
    trains = [train for part in parts for train in _below(part, "")]
    names = [name for name, _ in trains]
    is_clear = len(set(names)) == len(names)
    return [
        _in_ms(name if is_clear else f"{name} {i}", train)
        for i, (name, train) in enumerate(trains, 1)
    ]


def _below(part: Any, before: str) -> list[tuple[str, Any]]:
    if hasattr(part, "segments"):
        several = len(part.segments) > 1
        return [
            train
            for i, segment in enumerate(part.segments, 1)
            for train in _below(segment, f"{i}_" if several else "")
        ]
    if hasattr(part, "spiketrains"):
        return [
            (before + (_name(train) or str(i)), train)
            for i, train in enumerate(part.spiketrains, 1)
        ]
    return [(_name(part) or "1", part)]


def _name(train: Any) -> str:
    annotated = (train.annotations or {}).get("id")
    return str(train.name or ("" if annotated is None else annotated)).strip()


def _in_ms(name: str, train: Any) -> SpikeTimes:
    if hasattr(train, "load"):  # a lazily loaded train
        train = train.load()
    in_ms = lambda times: np.ravel(np.asarray(times.rescale("ms").magnitude, float))
    span = np.concatenate([in_ms(train.t_start), in_ms(train.t_stop)])
    return SpikeTimes(name, in_ms(train.times), span)
