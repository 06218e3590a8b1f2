"""Reads spike trains from the files of recording systems and analysis programs.

Every format has one function. It returns trains in the file's unit of time, and how
this unit is known. All formats share the rest: choosing units, converting times, and
refusing impossible trains. A new format is one function and one entry in `READERS`.
"""

import collections
import os
import pathlib
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from dicjax._core import Advice, advice_of, on_host, Remedy
from dicjax.recordings.quality import disorder_of
from dicjax.recordings.readers.common import (
    check_file,
    listing,
    read_apart,
    tidy,
    Times,
    Train,
)
from dicjax.recordings.readers.excel import read_excel
from dicjax.recordings.readers.kilosort import is_kilosort, read_kilosort
from dicjax.recordings.readers.matlab import read_matlab
from dicjax.recordings.readers.neo_files import read_neo
from dicjax.recordings.readers.numpy_files import read_numpy
from dicjax.recordings.readers.nwb import read_nwb
from dicjax.recordings.readers.objects import read_object
from dicjax.recordings.readers.plausibility import disbelief, is_credible, is_usual
from dicjax.recordings.readers.sorters.hdf5 import read_hdf5, read_psort
from dicjax.recordings.readers.sorters.mclust import read_mclust
from dicjax.recordings.readers.sorters.spikeinterface import (
    read_sorting_folder,
    sorting_folder,
)
from dicjax.recordings.readers.text import read_nex_table, read_text
from dicjax.recordings.readers.units import contradict, milliseconds_per, samples_at
from dicjax.spikes import MIN_SPIKES, SpikeTrain


MAX_REPEATS = 0.01  # share of repeated times, which detectors mark by mistake


@on_host()
def read_spike_trains(
    path: str | os.PathLike[str] | Any,
    *,
    unit: str | None = None,
    unit_id: str | int | None = None,
) -> list[SpikeTrain]:
    """Reads the spike trains of a file, a folder, or another library's object.

    It reads

    - `.csv`, `.txt`, `.tsv` and the first sheet of `.xlsx`: one column; rows of
        `unit,time`; one column per neuron, padded with blanks or NaN;
        `ID,spiking_times` with quoted lists; intervals under a header such as
        `isi_ms`; rasters of 0 and 1; `;` and decimal commas; WaveMarks of Spike2,
    - `.npy`, `.npz` (an array per neuron and optionally `unit`, `t_start` and
        `t_stop`; or pynapple's archives), and the Units table of `.nwb`,
    - `.mat` of any version: vectors, cells of vectors, structs with a field of times,
    - the folder of Kilosort or phy, without its noise clusters; sortings that
        spikeinterface saved; MClust's `.t`, `.psort`, and `.h5` of SONATA,
    - formats that [neo](https://neo.readthedocs.io) reads, such as `.nex`, `.plx`,
        `.nev`, `.smr` and `.nix`,
    - objects of pynapple (`Ts`, `TsGroup`), neo (`SpikeTrain`, `Segment`, `Block`, or a
        list of them) and spikeinterface (sortings).

    The unit of time is never guessed silently. A header such as `spike_time_ms` or
    `t [s]` states it. NWB, pynapple and WaveMarks use seconds, `spiking_times` ms, and
    Kilosort samples at the rate in its `params.py`. If nothing states the unit, times
    are read as ms, but only if the train is then credible: 0.05 to 200 Hz, with 99 % of
    intervals at least 0.7 ms long. In every unit, rates below 0.001 Hz or above
    1,000 Hz are refused.

    [`dicjax.examine`][] reports what is odd about a train.

    **Arguments:**

    - `path`: the file, folder or object.
    - `unit`: unit of time in the file: `"ms"`, `"s"`, `"us"`, `"min"`, or sample
        indices with their rate in Hz, as `"samples@30000"`; for a raster, the rate of
        its bins, `"samples@1000"` for bins of 1 ms. Default: the file's.
    - `unit_id`: name of the unit (neuron) to read. Default: all.

    **Returns:**

    One [`dicjax.SpikeTrain`][] per unit, in the order of the file. Units with fewer
    than 10 spikes are left out with a warning if others have enough. Repeated times are
    also left out with a warning, if they are at most 1 % of all.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if the file cannot be read, lacks `unit_id` or has too few spikes;
        if times are not finite, non-negative and increasing; or if they are not
        credible in this unit.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    if unit is not None:
        milliseconds_per(unit)
    with np.errstate(all="ignore"):  # overflows are refused later as not finite
        source, raw = read_raw(path)
        raw = [train._replace(name=tidy(train.name)) for train in raw]
        raw = _long_enough(source, _select(source, raw, unit_id))
        raw = [_with_unit_of_rate(source, train, unit) for train in raw]
        is_sure = unit is not None or is_usual(raw)
        try:
            trains = [_spike_train(source, train, unit, is_sure) for train in raw]
        except ValueError as error:
            if len(raw) == 1:
                raise
            alone = " Or read one unit alone, by ", Remedy("unit_id"), "."
            raise ValueError(Advice(advice_of(error), *alone)) from error
    for message in _notes(raw, trains, unit):
        warnings.warn(Advice(f"{source}: ", message, "."), stacklevel=3)
    return trains


def read_raw(path: Any) -> tuple[str, list[Train]]:
    """The name of a source, and its trains in its own unit of time, unchecked."""
    if not isinstance(path, str | os.PathLike):
        return type(path).__name__, read_object(path)
    path = pathlib.Path(path)
    if os.path.isdir(path):
        own = (read for is_own, read in FOLDERS if is_own(path))
        read = next(own, None)
        trains = read(path) if read else read_neo(path, [*READERS])
        return path.resolve().name, trains
    check_file(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        return path.name, read_neo(path, [*READERS])
    return path.name, read(path) if read in HARMLESS else read_apart(read, path)


def _select(source: str, raw: list[Train], unit_id: str | int | None) -> list[Train]:
    names = [train.name for train in raw]
    wanted = "spike times" if unit_id is None else f"unit {str(unit_id)!r}"
    chosen = [t for t in raw if unit_id is None or t.name == str(unit_id)]
    if not chosen:
        raise ValueError(f"{source} has no {wanted}: it has {listing(names)}.")
    repeated = [n for n, k in collections.Counter(names).items() if k > 1]
    if repeated and unit_id in (None, *repeated):
        raise ValueError(f"{source} has two units {repeated[0]!r}: rename one.")
    return chosen


def _long_enough(source: str, raw: list[Train]) -> list[Train]:
    enough = [train for train in raw if train.times.size >= MIN_SPIKES]
    short = [train for train in raw if train.times.size < MIN_SPIKES]
    counts = listing([f"{train.name} ({train.times.size})" for train in short])
    if not enough:
        raise ValueError(
            f"{source} has too few spikes in {counts}: at least {MIN_SPIKES} in a unit "
            "are needed."
        )
    if short:
        message = f"{source}: left out for fewer than {MIN_SPIKES} spikes: {counts}."
        warnings.warn(message, stacklevel=4)
    return enough


def _with_unit_of_rate(source: str, raw: Train, unit: str | None) -> Train:
    """The train with its unit, if the file states a sampling rate beside the times."""
    if raw.rate is None or unit is not None:
        return raw
    if raw.unit == "samples":
        return raw._replace(unit=samples_at(raw.rate))
    if raw.is_whole:
        advice = Advice(
            f"{source}, unit {raw.name[:40]}: its whole numbers may be sample indices, "
            f"as a rate of {raw.rate:g} Hz is stated: give ",
            Remedy("unit", samples_at(raw.rate)),
            " if they are, or else their true unit.",
        )
        raise ValueError(advice)
    return raw


def _spike_train(
    source: str, raw: Train, unit: str | None, is_sure: bool
) -> SpikeTrain:
    where = f"{source}, unit {raw.name[:40]}"
    if unit and raw.unit and contradict(unit, raw.unit):
        raise ValueError(
            f"{where}: the file states its times in {raw.unit}, which contradicts "
            f"unit={unit!r}: leave `unit` out, or correct the file."
        )
    known = unit or raw.unit or raw.usual_unit
    if known == "samples":
        advice = Advice(
            f"{where}: sample indices, and bins of a raster, need their rate in Hz: "
            "give it as ",
            Remedy("unit", "samples@30000"),
            ", or samples@1000 for bins of 1 ms.",
        )
        raise ValueError(advice)
    per = milliseconds_per(known or "ms")
    times = _without_repeats(raw.times * per)
    # Spikes outside the file's span extend the span.
    ends = np.append(raw.span[np.isfinite(raw.span)] * per, times[[0, -1]])
    disorder = disorder_of(times)
    if disorder is not None:
        raise ValueError(f"{where}: {disorder.message}")
    start, stop = float(ends.min()), float(ends.max())
    try:
        train = SpikeTrain(times, raw.name, source, start, stop)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not is_credible(times, is_sure or raw.unit is not None):
        raise ValueError(Advice(f"{where}: ", disbelief(raw, known, is_sure)))
    return train


def _without_repeats(times: Times) -> Float[np.ndarray, " distinct"]:
    steps = np.diff(times)
    is_new = np.append(True, steps > 0)
    is_sorted = bool((steps >= 0).all())
    few = np.sum(~is_new) <= MAX_REPEATS * times.size
    return times[is_new] if is_sorted and few else times


def _notes(raw: list[Train], trains: list[SpikeTrain], unit: str | None) -> list[str]:
    """Notes for the user about how the file was read."""
    notes = [f"unit {r.name[:40]} {r.caution}" for r in raw[:10] if r.caution]
    pairs = zip(raw, trains, strict=True)
    dropped = {r.name: r.times.size - t.num_spikes for r, t in pairs}
    repeats = [f"{name} ({num})" for name, num in dropped.items() if num]
    if repeats:
        notes.append(f"dropped stamps that repeat the one before: {listing(repeats)}")
    if unit is None and any(train.is_whole for train in raw):
        read = "whole numbers without a unit were read as ms; if they are sample "
        notes.append(Advice(f"{read}indices, give ", Remedy("unit", "samples@30000")))
    return notes


READERS = dict.fromkeys((".csv", ".txt", ".tsv"), read_text)
READERS |= dict.fromkeys((".npy", ".npz"), read_numpy)
# They check sizes before they unpack, and need no library that could do anything else.
HARMLESS = {read_text, read_numpy}
READERS |= {".nwb": read_nwb, ".mat": read_matlab, ".xlsx": read_excel}
READERS |= dict.fromkeys((".t", ".t32", ".t64"), read_mclust)
READERS |= {".nextimestamps": read_nex_table, ".psort": read_psort}
READERS |= dict.fromkeys((".h5", ".hdf5"), read_hdf5)
# How a folder of each kind is known, and read.
FOLDERS = ((is_kilosort, read_kilosort), (sorting_folder, read_sorting_folder))
