"""Reads spike trains from the files of recording systems and analysis programs.

Every format has one function. It returns trains in the file's unit of time, and how
this unit is known. All formats share the rest: choosing units, converting times, and
refusing impossible trains. A new format is one function and one entry in `READERS`.
"""

import collections
import os
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float

from dicjax._core import Advice, advice_of, counted, on_host, Remedy, tidy
from dicjax.recordings.cleaning import (
    clean_times,
    Cleaned,
    cleanings,
    counted_on,
    is_mark,
    start_of_session,
    without_pauses,
)
from dicjax.recordings.quality import disorder_of, overflow_of
from dicjax.recordings.readers.common import (
    check_file,
    listing,
    read_apart,
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
from dicjax.recordings.readers.plausibility import (
    disbelief,
    is_credible,
    is_usual,
    question,
    units_that_fit,
)
from dicjax.recordings.readers.sorters.hdf5 import read_hdf5, read_psort
from dicjax.recordings.readers.sorters.mclust import read_mclust
from dicjax.recordings.readers.sorters.spikeinterface import (
    is_zarr,
    read_sorting_folder,
    refuse_zarr,
    sorting_folder,
)
from dicjax.recordings.readers.text import read_nex_table, read_text
from dicjax.recordings.readers.units import contradict, milliseconds_per, samples_at
from dicjax.recordings.stretches import cut_to_best, Window
from dicjax.spikes import ENOUGH_SPIKES, MIN_SPIKES, SpikeTrain


TICK = 0.1  # ms between two intervals that were observed without a pause


@on_host()
def read_spike_trains(
    path: str | os.PathLike[str] | Any,
    *,
    unit: str | None = None,
    unit_id: str | int | None = None,
    window: Window | None = None,
    clean: str | Iterable[str] = (),
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
    are read as ms if only ms makes a credible neuron of them; otherwise the file is
    refused with the units that fit and the rate in each. In every unit, rates below
    0.001 Hz or above 1,000 Hz are refused.

    Stamps of a machine's clock, such as Unix time, and stamps that begin below zero are
    counted from the first one of the trains that are read, with a warning. Only what is
    used is checked: the unit asked for, within the window.

    [`dicjax.examine`][] reports what is odd about a train.

    **Arguments:**

    - `path`: the file, folder or object.
    - `unit`: unit of time in the file: `"ms"`, `"s"`, `"us"`, `"min"`, or sample
        indices with their rate in Hz, as `"samples@30000"`; for a raster, the rate of
        its bins, `"samples@1000"` for bins of 1 ms. Default: the file's.
    - `unit_id`: name of the unit (neuron) to read. Default: all.
    - `window`: start and stop, in ms, of the part to read; or "auto", for each unit's
        [`dicjax.best_stretch`][], which a warning names. Default: all.
    - `clean`: what to mend, one name or several, each with a count in a warning:
        "order" sorts stamps; "doubles" drops those less than 0.5 ms after another;
        "negative" drops those below zero; "overflow" counts on where numbers of 32 bits
        start over; "pauses" takes silences that look like pauses of the recording as
        not observed. Default: nothing.

    **Returns:**

    One [`dicjax.SpikeTrain`][] per unit, in the order of the file. Units with fewer
    than 5 spikes are left out with a warning if others have enough, and those with
    fewer than 10 are read with a warning. Repeated times are
    also left out with a warning, if they are at most 1 % of all. Trains know in which
    intervals they were observed, if the file states it.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if the file cannot be read, lacks `unit_id` or has too few spikes;
        if times are not finite, non-negative and increasing; if they are not credible
        in this unit; if several units fit and none is given; or if `clean` names
        nothing that can be done.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    found = _found(path, unit, unit_id, window, clean)
    if found.refused:
        _refuse(found.refused[0].why, found.raw)
    found.warn()
    return found.trains


@on_host()
def read_units(
    path: str | os.PathLike[str],
    *,
    unit: str | None = None,
    unit_id: str | int | None = None,
    window: Window | None = None,
    clean: str | Iterable[str] = (),
) -> "list[SpikeTrain | Refused]":
    """As `read_spike_trains`, but a unit that is refused does not refuse the others.

    Raises `ValueError` only for what concerns all units.
    """
    found = _found(path, unit, unit_id, window, clean)
    found.warn()
    return [x if isinstance(x, Refused) else x.train for x in found.units]


class Refused(NamedTuple):
    """A unit that cannot be used, and why."""

    unit_id: str
    why: ValueError


class _Read(NamedTuple):
    """A unit within the window, and what was cleaned how often."""

    train: SpikeTrain
    cleaned: dict[str, int]


class _Found(NamedTuple):
    """The units of a source, whose times are counted from `clock` (ms)."""

    source: str
    raw: list[Train]
    units: list[_Read | Refused]
    clock: float
    is_cut: bool

    @property
    def refused(self) -> list[Refused]:
        return [x for x in self.units if isinstance(x, Refused)]

    @property
    def read(self) -> list[_Read]:
        return [x for x in self.units if isinstance(x, _Read)]

    @property
    def trains(self) -> list[SpikeTrain]:
        return [x.train for x in self.read]

    def warn(self) -> None:
        """Notes for the user about how the source was read."""
        notes = _notes(self.raw, self.read, self.clock)
        notes += _taken(self.trains) if self.is_cut else []
        for message in notes:
            warnings.warn(Advice(f"{self.source}: ", message, "."), stacklevel=4)


def _found(
    path: Any,
    unit: str | None,
    unit_id: str | int | None,
    window: Window | None,
    clean: str | Iterable[str],
) -> _Found:
    if unit is not None:
        milliseconds_per(unit)
    wanted = cleanings(clean)
    if isinstance(window, str) and window != "auto":
        raise ValueError(f'`window` must be start and stop, or "auto", not {window!r}.')
    with np.errstate(all="ignore"):  # overflows are refused later as not finite
        source, raw = read_raw(path)
        raw = [train._replace(name=tidy(train.name)) for train in raw]
        raw = _long_enough(source, _select(source, raw, unit_id))
        raw = [_with_unit_of_rate(source, train, unit) for train in raw]
        try:
            known = _units_of(source, raw, unit, "order" in wanted)
            clock = _clock_of(raw, known, wanted)
        except ValueError as error:
            _refuse(error, raw)
        is_sure = unit is not None or is_usual(raw)
        request = _Request(source, window, wanted, is_sure)
        units: list[_Read | Refused] = []
        for train, name in zip(raw, known, strict=True):
            try:
                units.append(_spike_train(request, train, name, clock))
            except ValueError as error:
                units.append(Refused(train.name, error))
    return _Found(source, raw, units, clock, window == "auto")


def _refuse(error: ValueError, raw: list[Train]) -> NoReturn:
    """Raises an error that, of several units, also says how to read one of them."""
    if len(raw) == 1:
        raise error
    alone = " Or read one unit alone, by ", Remedy("unit_id"), "."
    raise ValueError(Advice(advice_of(error), *alone)) from error


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
        warnings.warn(message, stacklevel=5)
    few = [train for train in enough if train.times.size < ENOUGH_SPIKES]
    if few:
        counts = listing([f"{train.name} ({train.times.size})" for train in few])
        message = (
            f"{source}: few spikes to describe how a neuron fires, {counts}: "
            f"{ENOUGH_SPIKES} would do."
        )
        warnings.warn(message, stacklevel=5)
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


class _Request(NamedTuple):
    """What is asked for, beside the unit (neuron)."""

    source: str
    window: Window | None
    wanted: frozenset[str]
    is_sure: bool


def _units_of(
    source: str, raw: list[Train], unit: str | None, is_sorted: bool
) -> list[str | None]:
    """The unit of each train; none for times in ms that nothing states."""
    for train in raw:
        where = f"{source}, unit {train.name[:40]}"
        if unit and train.unit and contradict(unit, train.unit):
            raise ValueError(
                f"{where}: the file states its times in {train.unit}, which "
                f"contradicts unit={unit!r}: leave `unit` out, or correct the file."
            )
        if (unit or train.unit or train.usual_unit) == "samples":
            advice = Advice(
                f"{where}: sample indices, and bins of a raster, need their rate in "
                "Hz: give it as ",
                Remedy("unit", "samples@30000"),
                ", or samples@1000 for bins of 1 ms.",
            )
            raise ValueError(advice)
    known = [unit or train.unit or train.usual_unit for train in raw]
    bare = [train for train, name in zip(raw, known, strict=True) if name is None]
    if bare:
        fit = units_that_fit([train.times for train in bare])
        if len(fit.rates) > 1 and "ms" in fit.rates and not fit.is_ms:
            longest = max(bare, key=lambda train: train.times.size)
            asked = question(longest.times.size, fit)
            disorder = disorder_of(longest.times)
            # Such numbers may be no times at all, but intervals or values.
            if disorder is not None and disorder.kind == "unsorted" and not is_sorted:
                asked = disorder.message
            raise ValueError(Advice(f"{source}, unit {longest.name[:40]}: ", asked))
    return known


def _clock_of(
    raw: list[Train], known: list[str | None], wanted: frozenset[str]
) -> float:
    """What to count all times from, in ms."""
    times, starts = [], []
    for train, unit in zip(raw, known, strict=True):
        numbers = _numbers(train, wanted).times
        if "order" in wanted:
            numbers = np.sort(numbers)
        if "negative" in wanted:
            numbers = numbers[~(numbers < 0)]
        elif is_mark(numbers):
            return 0.0
        per = milliseconds_per(unit or "ms")
        times.append(numbers * per)
        starts += (train.span[:1] * per).tolist()
    return start_of_session(times, starts)


def _numbers(raw: Train, wanted: frozenset[str]) -> Cleaned:
    """The numbers of a train, without an overflow if that is wanted."""
    return counted_on(raw.times) if "overflow" in wanted else Cleaned(raw.times, {})


def _spike_train(
    request: _Request, raw: Train, known: str | None, clock: float
) -> _Read:
    where = f"{request.source}, unit {raw.name[:40]}"
    per = milliseconds_per(known or "ms")
    numbers, done = _numbers(raw, request.wanted)
    overflow = overflow_of(numbers)
    if overflow is not None:
        raise ValueError(Advice(f"{where}: ", overflow.message))
    # Subtracted first: large stamps leave few digits to what follows the point.
    times = (numbers - clock / per) * per
    span = (raw.span - clock / per) * per
    ends = times[np.isfinite(times)]
    window = None if isinstance(request.window, str) else request.window
    if window is not None:
        first, last = window
        times = times[~((times < first) | (times > last))]
    times, cleaned = clean_times(times, request.wanted)
    disorder = disorder_of(times)
    if disorder is not None:
        raise ValueError(Advice(f"{where}: ", disorder.message))
    try:
        # The silence before the first and after the last stamp is unknown.
        observed = _observed(span, times if window is None else ends)
        train = SpikeTrain(times, raw.name, request.source, observed=observed)
        if window is not None:
            train = train.window(*window)
        if "pauses" in request.wanted:
            train, left_out = without_pauses(train)
            cleaned |= left_out
        if request.window == "auto":
            train = cut_to_best(train)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    is_sure = request.is_sure or raw.unit is not None
    if train.num_spikes >= MIN_SPIKES and not is_credible(train.times, is_sure):
        used = raw._replace(times=train.times / per)
        advice = disbelief(used, known, request.is_sure)
        raise ValueError(Advice(f"{where}: ", advice))
    return _Read(train, done | cleaned)


def _observed(span: Times, times: Times) -> Float[np.ndarray, "stretches 2"]:
    """When a train was observed (ms). Spikes outside of the file's span extend it."""
    ends = span[np.isfinite(span)]
    if times.size == 0:
        return ends.reshape(-1, 2) if ends.size % 2 == 0 else np.zeros((0, 2))
    if ends.size < 4 or ends.size % 2 or (np.diff(ends) < 0).any():
        ends = np.append(ends, [times.min(), times.max()])
        return np.array([[ends.min(), ends.max()]])
    starts, stops = ends.reshape(-1, 2).T.copy()
    before = np.clip(np.searchsorted(starts, times, "right") - 1, 0, None)
    after = np.minimum(before + 1, starts.size - 1)
    is_nearer = np.abs(starts[after] - times) < np.abs(times - stops[before])
    np.minimum.at(starts, np.where(is_nearer, after, before), times)
    np.maximum.at(stops, np.where(is_nearer, after, before), times)
    is_apart = starts[1:] - stops[:-1] > TICK
    edges = np.append(True, is_apart), np.append(is_apart, True)
    return np.stack([starts[edges[0]], stops[edges[1]]], axis=1)


def _notes(
    raw: list[Train],
    made: list[_Read],
    clock: float,
) -> list[str]:
    """Notes for the user about how the file was read."""
    notes = [f"unit {r.name[:40]} {r.caution}" for r in raw[:10] if r.caution]
    if clock > 0:
        notes.append(
            "its stamps are of a clock that does not start with the recording: times "
            f"are counted from its start, at {clock:.15g} ms"
        )
    elif clock < 0:
        below = (
            f"its stamps begin below zero: times are counted from {clock:.15g} ms on; "
            "to drop those below zero instead, use "
        )
        notes.append(Advice(below, Remedy("clean", "negative")))
    for what in dict.fromkeys(what for x in made for what in x.cleaned):
        counts = {x.train.name: x.cleaned.get(what, 0) for x in made}
        some = [f"{name} ({num})" for name, num in counts.items() if num]
        if some:
            notes.append(f"{what}: {listing(some)}")
    return notes


def _taken(trains: list[SpikeTrain]) -> list[str]:
    """Notes on the stretches that were taken."""
    notes = [
        f"unit {train.name[:40]} is used where it is steady, from {train.t_start:.0f} "
        f"to {train.t_stop:.0f} ms ({counted(train.num_spikes, 'spike')})"
        for train in trains[:10]
    ]
    more = len(trains) - len(notes)
    return notes + [f"{more} more units are used where each is steady"] * (more > 0)


READERS = dict.fromkeys((".csv", ".txt", ".tsv"), read_text)
READERS |= dict.fromkeys((".npy", ".npz"), read_numpy)
# They check sizes before they unpack, and need no library that could do anything else.
HARMLESS = {read_text, read_numpy}
READERS |= {".nwb": read_nwb, ".mat": read_matlab, ".xlsx": read_excel}
READERS |= dict.fromkeys((".t", ".t32", ".t64"), read_mclust)
READERS |= {".nextimestamps": read_nex_table, ".psort": read_psort}
READERS |= dict.fromkeys((".h5", ".hdf5"), read_hdf5)
# How a folder of each kind is known, and read.
FOLDERS = (
    (is_kilosort, read_kilosort),
    (sorting_folder, read_sorting_folder),
    (is_zarr, refuse_zarr),
)
