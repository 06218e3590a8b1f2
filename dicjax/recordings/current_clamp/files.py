"""Recorded sweeps from files: NumPy archives, tables, and all that neo reads.

Every kind of file has one function that returns current and potential in pA and mV, and
the time between samples. What no cell does is refused by [`dicjax.Sweeps`][] itself.
"""

import csv
import importlib.util
import os
import pathlib

import numpy as np

from dicjax._core import on_host
from dicjax.recordings.current_clamp.channels import (
    check_alike,
    Recording,
    rounded,
    Rows,
    Source,
    Trace,
    UNEVEN,
    words_of,
)
from dicjax.recordings.current_clamp.neo_sweeps import sweeps_of_neo
from dicjax.recordings.current_clamp.sweeps import check_count, Sweeps
from dicjax.recordings.readers.common import (
    check_file,
    read_apart,
    reading,
    TooLarge,
    unpacked_size,
)
from dicjax.recordings.readers.neo_files import check_readable, WITHOUT_NEO
from dicjax.recordings.readers.text import lines_of


MAX_BYTES = 2**30


@on_host()
def read_sweeps(
    path: str | os.PathLike[str],
    *,
    voltage: str | None = None,
    current: str | None = None,
) -> Sweeps:
    """Reads what the potential of a cell did in answer to injected currents.

    Understands `.npz` (arrays like `time_ms`, `current_pA` and `voltage_mV`, of sweeps
    × samples), `.csv`, `.tsv` and `.txt` (a sample a row, in such columns and, where
    there are several sweeps, one named `sweep`), and all that
    [neo](https://neo.readthedocs.io) reads, such as `.abf`, whose segments are the
    sweeps. If an ABF2 file records no current, its protocol of steps gives it.

    Units are never guessed: names of columns and arrays end in the unit of time (ms or
    s), current (pA or nA) or potential (mV or V), as in `t_ms`, `I [nA]` or `Vm (mV)`.

    **Arguments:**

    - `path`: the file.
    - `voltage`, `current`: names of the channels to read. Default: the only ones.

    **Returns:**

    A [`dicjax.Sweeps`][], whose times count from the first sample of each sweep.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if it cannot be read, has no or several potentials or currents, is
        not sampled evenly and in all sweeps alike, or holds what no cell does.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    path = pathlib.Path(path)
    check_file(path)
    _check_size(path, path.stat().st_size)
    read = _READERS.get(path.suffix.lower(), _read_neo)
    with np.errstate(all="ignore"):  # what overflows is refused as not finite
        currents, V, every = read(Source(path, voltage, current))
    return Sweeps(currents, V, every, path.stem)


def _check_size(path: pathlib.Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise TooLarge(f"{path.name} is too large: export fewer sweeps of one cell.")


_SWEEP_WORDS = {"sweep", "episode", "trial", "segment"}


def _read_npz(source: Source) -> Recording:
    path, kind = source.path, "a NumPy archive of numbers"
    _check_size(path, unpacked_size(path, kind))
    with reading(path, kind), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
        if not all(isinstance(x, np.ndarray) for x in arrays.values()):
            raise ValueError("It holds other files than arrays.")
    labels, values = list(arrays), []
    for i, factor in source.columns(labels):
        array = arrays[labels[i]]
        if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not array.size:
            raise ValueError(
                f"{path.name}: {labels[i]} is an array of {array.dtype} of shape "
                f"{array.shape}: save numbers, as sweeps × samples."
            )
        values.append(np.atleast_2d(array).astype(np.float64) * factor)
    times, currents, V = values
    if currents.shape != V.shape or times.shape not in (V.shape, (1, V.shape[1])):
        raise ValueError(
            f"{path.name}: time, current and voltage have shapes {times.shape}, "
            f"{currents.shape} and {V.shape}: save sweeps × samples of each."
        )
    return currents, V, _every(path, times)


def _read_table(source: Source) -> Recording:
    path, lines = source.path, lines_of(source.path)
    with reading(path, "a table of text with a header"):
        numbers = [i for i, line in enumerate(lines) if line.strip()]
        header = lines[numbers[0]].lstrip("#% ")
        mark = next((mark for mark in ";\t," if mark in header), " ")
        split = lambda lines: csv.reader(lines, delimiter=mark, skipinitialspace=True)
        labels = [label.strip() for label in next(split([header]))]
        rows = list(split([lines[i] for i in numbers[1:]]))
    columns = source.columns(labels)
    numbering = {i for i, x in enumerate(labels) if _SWEEP_WORDS & {*words_of(x)}}
    sweep = min(numbering - {i for i, _ in columns}, default=None)
    decimal = mark if mark == "," else "."  # a comma that separates is no decimal one
    sweeps: dict[str, list[list[float]]] = {}
    for i, row in zip(numbers[1:], rows, strict=False):
        row += [""] * (len(labels) - len(row))
        cells = [row[j].replace(",", decimal) for j, _ in columns]
        try:
            sample = [float(x) * by for x, (_, by) in zip(cells, columns, strict=True)]
        except ValueError:
            raise ValueError(
                f"{path.name}, line {i + 1}: {', '.join(cells)[:60]!r} are not time, "
                "current and voltage: correct the line."
            ) from None
        sweeps.setdefault("" if sweep is None else row[sweep], []).append(sample)
    counts = [len(samples) for samples in sweeps.values()] or [0]
    check_alike(path, counts, "samples")
    check_count(path.name, counts[0])
    times, currents, V = np.moveaxis(np.array([*sweeps.values()]), 2, 0)
    return currents, V, _every(path, times)


def _every(path: pathlib.Path, times: Rows) -> float:
    """The time between samples, in ms, of sweeps sampled evenly and alike."""
    num_samples = times.shape[1]
    check_count(path.name, num_samples)
    if not np.isfinite(times).all():
        raise ValueError(f"{path.name}: a time is not finite: number every sample.")
    name = path.name
    periods = [_period(f"{name}, sweep {i} (from 0)", t) for i, t in enumerate(times)]
    check_alike(path, periods, "ms between samples", 1 / num_samples)
    return rounded(periods[0], num_samples)


def _period(where: str, times: Trace) -> float:
    steps = np.diff(times)
    usual = np.median(steps)
    rounding = 2 * np.finfo(np.float32).eps * np.abs(times).max()
    uneven = np.abs(steps - usual) > UNEVEN * np.abs(usual) + rounding
    if uneven.any():
        j = int(np.argmax(uneven))
        raise ValueError(
            f"{where}: samples are {usual:.4g} ms apart, but {steps[j]:.4g} ms after "
            f"{times[j]:g} ms: sample evenly, write times with all their digits, and "
            "number several sweeps in a column `sweep`."
        )
    every = float(times[-1] - times[0]) / len(steps)
    drift = np.abs(times - times[0] - every * np.arange(len(times))).max()
    if not drift < every:
        raise ValueError(
            f"{where}: samples {every:.4g} ms apart in the mean are up to {drift:.4g} "
            "ms from where they should be: sample evenly, and let times increase."
        )
    return every


def _read_neo(source: Source) -> Recording:
    path, known = source.path, ", ".join(_READERS)
    check_readable(path)
    if importlib.util.find_spec("neo") is None:
        raise ValueError(WITHOUT_NEO.format(path.name, known, ".abf"))
    channels = (source.voltage, source.current, known)
    return read_apart(sweeps_of_neo, path, *channels, remedy="export it as .npz")


_READERS = {".npz": _read_npz, **dict.fromkeys((".csv", ".tsv", ".txt"), _read_table)}
