"""Recorded sweeps from files: NumPy archives, tables, and all that neo reads.

Every kind of file has one function that returns current and potential in pA and mV, and
the time between samples. What no cell does is refused by [`dicjax.Sweeps`][] itself.
"""

import csv
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dicjax._core import on_host
from dicjax.recordings.current_clamp.sweeps import check_count, Rows, Sweeps
from dicjax.recordings.readers.common import (
    check_file,
    listing,
    reading,
    TooLarge,
    unpacked_size,
)
from dicjax.recordings.readers.neo_files import UNKNOWN, UNREADABLE, WITHOUT_NEO
from dicjax.recordings.readers.neo_worker import first_read
from dicjax.recordings.readers.text import lines_of


MAX_BYTES = 2**30
UNEVEN = 0.01  # part of the time between samples by which it may vary

Trace = Float[np.ndarray, " samples"]
Recording = tuple[Rows, Rows, float]  # pA, mV, ms between samples


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
        currents, V, every = read(_Source(path, voltage, current))
    return Sweeps(currents, V, every, path.stem)


def _check_size(path: pathlib.Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise TooLarge(f"{path.name} is too large: export fewer sweeps of one cell.")


class _Quantity(NamedTuple):
    name: str
    units: dict[str, float]
    words: set[str]  # that may name it


_TIME = _Quantity("time", {"ms": 1.0, "s": 1e3}, {"t", "time", "times"})
_CURRENT = _Quantity(
    "current",
    {"pA": 1.0, "nA": 1e3},
    {"i", "iinj", "inj", "injected", "current", "stim", "stimulus", "command"},
)
_VOLTAGE = _Quantity(
    "voltage", {"mV": 1.0, "V": 1e3}, {"v", "vm", "u", "voltage", "potential"}
)
_SWEEP_WORDS = {"sweep", "episode", "trial", "segment"}


def _words(label: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", label.casefold())


def _factor(quantity: _Quantity, label: str) -> float | None:
    *before, unit = _words(label) or [""]
    # A lone "V" names the potential and states no unit; a lone "mV" does both.
    is_meant = quantity.words & {*before} or (not before and len(unit) == 2)
    factors = {name.casefold(): factor for name, factor in quantity.units.items()}
    return factors.get(unit) if is_meant else None


class _Source(NamedTuple):
    """A file, and the names of the channels to read."""

    path: pathlib.Path
    voltage: str | None
    current: str | None

    def only(
        self, quantity: _Quantity, channels: list[int], labels: list[str], remedy: str
    ) -> int:
        """Which of the channels of this quantity is the one meant."""
        what, wanted = quantity.name, getattr(self, quantity.name, None)
        chosen = [i for i in channels if wanted in (None, labels[i])]
        if not chosen:
            named = "" if wanted is None else f" named {wanted!r}"
            raise ValueError(
                f"{self.path.name} has no {what}{named} with its unit in "
                f"{listing(labels)}: {remedy}."
            )
        if len(chosen) > 1:
            raise ValueError(
                f"{self.path.name} has several channels of {what}, "
                f"{listing([labels[i] for i in chosen])}: say which, as in "
                f"{what}={labels[chosen[0]]!r}, if need be after renaming."
            )
        return chosen[0]

    def columns(self, labels: list[str]) -> list[tuple[int, float]]:
        """Where time, current and potential are, and by what their unit multiplies."""
        columns = []
        for quantity in (_TIME, _CURRENT, _VOLTAGE):
            factors = [_factor(quantity, label) for label in labels]
            channels = [i for i, factor in enumerate(factors) if factor]
            names = " or ".join(f"{quantity.name}_{unit}" for unit in quantity.units)
            i = self.only(quantity, channels, labels, f"name one {names}")
            columns.append((i, factors[i]))
        return columns


def _read_npz(source: _Source) -> Recording:
    path, kind = source.path, "a NumPy archive of numbers"
    _check_size(path, unpacked_size(path, kind))
    with reading(path, kind), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
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


def _read_table(source: _Source) -> Recording:
    path, lines = source.path, lines_of(source.path)
    with reading(path, "a table of text with a header"):
        numbers = [i for i, line in enumerate(lines) if line.strip()]
        header = lines[numbers[0]].lstrip("#% ")
        mark = next((mark for mark in ";\t," if mark in header), " ")
        split = lambda lines: csv.reader(lines, delimiter=mark, skipinitialspace=True)
        labels = [label.strip() for label in next(split([header]))]
        rows = list(split([lines[i] for i in numbers[1:]]))
    columns = source.columns(labels)
    numbering = {i for i, x in enumerate(labels) if _SWEEP_WORDS & {*_words(x)}}
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
    _check_alike(path, counts, "samples")
    check_count(path.name, counts[0])
    times, currents, V = np.moveaxis(np.array([*sweeps.values()]), 2, 0)
    return currents, V, _every(path, times)


def _check_alike(
    path: pathlib.Path, values: Sequence[int | float], what: str, tolerance: float = 0.0
) -> None:
    for i, value in enumerate(values):
        if abs(value - values[0]) > tolerance * values[0]:
            raise ValueError(
                f"{path.name}: sweep {i} (from 0) has {value:.6g} {what}, and the "
                f"first has {values[0]:.6g}: export whole sweeps of one protocol."
            )


def _every(path: pathlib.Path, times: Rows) -> float:
    """The time between samples, in ms, of sweeps sampled evenly and alike."""
    num_samples = times.shape[1]
    check_count(path.name, num_samples)
    if not np.isfinite(times).all():
        raise ValueError(f"{path.name}: a time is not finite: number every sample.")
    name = path.name
    periods = [_period(f"{name}, sweep {i} (from 0)", t) for i, t in enumerate(times)]
    _check_alike(path, periods, "ms between samples", 1 / num_samples)
    return _tidy(periods[0], num_samples)


def _tidy(every: float, num_samples: int) -> float:
    near = float(f"{every:.6g}")  # in float32, 0.05 ms is 0.04999999 ms
    return near if abs(near - every) * num_samples <= UNEVEN * near else every


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


class _Signal(NamedTuple):
    name: str
    values: Any  # an array with a unit
    every: float

    def in_unit(self, unit: str) -> Trace | None:
        try:
            return np.asarray(self.values.rescale(unit).magnitude, np.float64)
        except ValueError:  # it is of another dimension
            return None


_Sweep = list[_Signal]


def _read_neo(source: _Source) -> Recording:
    sweeps, commands = _neo_sweeps(source.path)
    V, every = _neo_channel(source, sweeps, _VOLTAGE)
    has_current = any(s.in_unit("pA") is not None for sweep in sweeps for s in sweep)
    recorded = sweeps if has_current or not any(commands) else commands
    currents, period = _neo_channel(source, recorded, _CURRENT)
    num, other = V.shape[1], currents.shape[1]
    if other != num or abs(period - every) * num > every:
        raise ValueError(
            f"{source.path.name}: the current has {other} samples {period:g} ms apart, "
            f"and the voltage {num} samples {every:g} ms apart: export both alike."
        )
    return currents, V, _tidy(every, num)


def _neo_channel(
    source: _Source, sweeps: list[_Sweep], quantity: _Quantity
) -> tuple[Rows, float]:
    unit, rows, periods = next(iter(quantity.units)), [], []
    remedy = f"export one in {unit}"
    if quantity is _CURRENT:
        remedy += " (of protocols, only the steps in ABF2 files are known)"
    for sweep in sweeps:
        labels = [signal.name for signal in sweep]
        values = [signal.in_unit(unit) for signal in sweep]
        channels = [i for i, x in enumerate(values) if x is not None]
        i = source.only(quantity, channels, labels, remedy)
        rows.append(values[i])
        periods.append(sweep[i].every)
    counts = [len(row) for row in rows]
    _check_alike(source.path, counts, "samples")
    tolerance = 1 / max(counts[0], 1)
    _check_alike(source.path, periods, "ms between samples", tolerance)
    return np.array(rows), periods[0]


def _neo_sweeps(path: pathlib.Path) -> tuple[list[_Sweep], list[_Sweep]]:
    """The signals recorded in every sweep and, of ABF2 files, the commands."""
    known = ", ".join(_READERS)
    try:
        import neo.io
    except ImportError as error:
        raise ValueError(WITHOUT_NEO.format(path.name, known, ".abf")) from error
    try:
        candidates = neo.io.list_candidate_ios(path)
    except ValueError as error:
        raise ValueError(UNKNOWN.format(path.name, known)) from error

    def read(candidate: Any) -> tuple[list[_Sweep], Any]:
        if candidate is neo.io.PickleIO:
            raise ValueError("to read a pickle is to run it")
        io = candidate(str(path))
        segments = [segment for block in io.read() for segment in block.segments]
        sweeps = [_signals(segment) for segment in segments]
        if not any(sweeps):
            raise ValueError("no signals")
        return sweeps, io

    found, reasons = first_read(candidates, read)
    if found is None:
        why = "; ".join(reasons[:3])
        raise ValueError(UNREADABLE.format(path.name, why, "it as .npz"))
    sweeps, io = found
    return sweeps, _commands(path, io) if isinstance(io, neo.io.AxonIO) else []


def _signals(segment: Any) -> list[_Signal]:
    signals = []
    for signal in segment.analogsignals:
        several = [f"{signal.name} {j}" for j in range(signal.shape[1])]
        usual = several if len(several) > 1 else [signal.name]
        names = signal.array_annotations.get("channel_names", usual)
        every = float(signal.sampling_period.rescale("ms"))
        for j, name in enumerate(names):
            values = signal.magnitude[:, j] * signal.units
            signals.append(_Signal(str(name), values, every))
    return signals


def _commands(path: pathlib.Path, io: Any) -> list[_Sweep]:
    info = io._axon_info  # what is public does not say which outputs are in use
    if info["fFileVersionNumber"] < 2:
        return []
    with reading(path, "an ABF2 file with a protocol"):
        outputs = []
        sweeps = [_signals(segment) for segment in io.read_protocol()]
        for i, output in enumerate(info["listDACInfo"]):
            # In place of ramps, trains and waveforms of other files neo draws steps.
            epochs = info["dictEpochInfoPerDAC"].get(i, {}).values()
            lasting = [x["nEpochType"] for x in epochs if x["lEpochInitDuration"]]
            is_steps = output["nWaveformSource"] == 1 and {*lasting} <= {1}
            if output["nWaveformEnable"] and is_steps:
                outputs.append(i)
    return [[sweep[i] for i in outputs] for sweep in sweeps]


_READERS = {".npz": _read_npz, **dict.fromkeys((".csv", ".tsv", ".txt"), _read_table)}
