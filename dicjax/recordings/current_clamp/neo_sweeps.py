"""Sweeps of all files that neo reads, as the process reads them that works apart."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from dicjax.recordings.current_clamp.channels import (
    check_alike,
    CURRENT,
    Quantity,
    Recording,
    rounded,
    Rows,
    Source,
    Trace,
    VOLTAGE,
)
from dicjax.recordings.readers.common import reading
from dicjax.recordings.readers.neo_files import UNKNOWN, UNREADABLE
from dicjax.recordings.readers.neo_worker import first_read, UNSAFE


LIBRARIES = ("neo.io",)


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


def sweeps_of_neo(
    path: pathlib.Path, voltage: str | None, current: str | None, known: str
) -> Recording:
    """The sweeps of a file; `known` names the formats that are read without neo."""
    source = Source(path, voltage, current)
    sweeps, commands = _neo_sweeps(path, known)
    V, every = _neo_channel(source, sweeps, VOLTAGE)
    has_current = any(s.in_unit("pA") is not None for sweep in sweeps for s in sweep)
    recorded = sweeps if has_current or not any(commands) else commands
    currents, period = _neo_channel(source, recorded, CURRENT)
    num, other = V.shape[1], currents.shape[1]
    if other != num or abs(period - every) * num > every:
        raise ValueError(
            f"{source.path.name}: the current has {other} samples {period:g} ms apart, "
            f"and the voltage {num} samples {every:g} ms apart: export both alike."
        )
    return currents, V, rounded(every, num)


def _neo_channel(
    source: Source, sweeps: list[_Sweep], quantity: Quantity
) -> tuple[Rows, float]:
    unit, rows, periods = next(iter(quantity.units)), [], []
    remedy = f"export one in {unit}"
    if quantity is CURRENT:
        remedy += " (of protocols, only the steps in ABF2 files are known)"
    for sweep in sweeps:
        labels = [signal.name for signal in sweep]
        values = [signal.in_unit(unit) for signal in sweep]
        channels = [i for i, x in enumerate(values) if x is not None]
        i = source.only(quantity, channels, labels, remedy)
        rows.append(values[i])
        periods.append(sweep[i].every)
    counts = [len(row) for row in rows]
    check_alike(source.path, counts, "samples")
    tolerance = 1 / max(counts[0], 1)
    check_alike(source.path, periods, "ms between samples", tolerance)
    return np.array(rows), periods[0]


def _neo_sweeps(path: pathlib.Path, known: str) -> tuple[list[_Sweep], list[_Sweep]]:
    """The signals recorded in every sweep and, of ABF2 files, the commands."""
    import neo.io

    try:
        candidates = neo.io.list_candidate_ios(path)
    except ValueError as error:
        raise ValueError(UNKNOWN.format(path.name, known)) from error

    def read(candidate: Any) -> tuple[list[_Sweep], Any]:
        if candidate.__name__ in UNSAFE:
            raise ValueError("it may run what it reads, or load a library")
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
