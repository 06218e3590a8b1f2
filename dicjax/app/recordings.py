"""An uploaded recording: its possible units, its neurons and its window."""

import dataclasses
import itertools
import threading
import warnings
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from dicjax._core import Advice, advice_of, in_words, short
from dicjax.app.uploads import Upload
from dicjax.generation import infer, suit
from dicjax.recordings import (
    examine,
    Finding,
    is_credible,
    milliseconds_per,
    POSSIBLE_HZ,
    readers,
    samples_at,
    Train,
    units_that_fit,
)
from dicjax.spikes import (
    BURSTING,
    FEATURES,
    features_of,
    LABELS,
    MIN_SPIKES,
    pattern_of,
    SILENT,
    SpikeTrain,
)


UNITS = {"ms": "milliseconds", "s": "seconds", "us": "microseconds", "min": "minutes"}
COMMON_RATE = 30_000.0  # Hz, of most spike sorters
LOWEST_RATE = 1000.0  # Hz, that spikes are sampled at
FEW_SPIKES = 40  # below which firing patterns cannot be told apart reliably
_filters = threading.Lock()  # all threads share Python's warning filters
_numbers = itertools.count(1)


class Candidate(NamedTuple):
    """A possible unit of the times, and the firing rate in this unit."""

    unit: str
    name: str
    rate: float  # Hz
    is_credible: bool

    @property
    def is_possible(self) -> bool:
        low, high = POSSIBLE_HZ
        return low <= self.rate <= high


@dataclasses.dataclass(eq=False)
class Recording:
    """The content of one file, as far as it was read.

    - `candidates`: possible units of its times; none if the file states its unit.
    - `trains`: spike trains of its neurons, once the unit is known.
    - `notes`: warnings of the reader.
    - `clean`: what was mended in its stamps, as the user wished.
    - `fault`: why stamps cannot be used until they are mended, with the ways to do it.
    """

    upload: Upload
    num_spikes: int
    candidates: tuple[Candidate, ...] = ()
    unit: str | None = None
    trains: tuple[SpikeTrain, ...] = ()
    notes: tuple[str, ...] = ()
    clean: tuple[str, ...] = ()
    fault: Advice | None = None
    chosen: int = 0
    window: tuple[float, float] | None = None
    number: int = dataclasses.field(default_factory=lambda: next(_numbers))

    @property
    def address(self) -> str:
        return f"/recording/{self.number}"

    @property
    def train(self) -> SpikeTrain:
        """The spike train of the chosen neuron, within the window."""
        train = self.trains[self.chosen]
        return train if self.window is None else train.window(*self.window)

    def answer(self, unit: str | None, clean: tuple[str, ...] = ()) -> None:
        """Reads the neurons in a unit, mended as `clean` says.

        A `ValueError` changes nothing, unless stamps can be mended. Then the unit is
        kept with the `fault`.
        """
        try:
            with _filters, _caught() as caught:
                path = self.upload.path
                trains = readers.read_spike_trains(path, unit=unit, clean=clean)
        except ValueError as error:
            fault = advice_of(error)
            if ways_to_mend(fault):
                self.unit, self.clean, self.fault = unit, clean, fault
            raise
        if len(trains) != len(self.trains):
            self.chosen, self.window = 0, None
        self.notes = tuple(_plain(warning.message) for warning in caught or ())
        self.trains, self.unit = tuple(trains), unit
        self.clean, self.fault = clean, None

    def mend(self, way: str) -> None:
        """Reads the file again, and mends one more thing."""
        self.answer(self.unit, (*self.clean, way))

    def ask_again(self) -> None:
        """Forgets the unit, and what followed from it."""
        self.trains, self.window, self.clean, self.fault = (), None, (), None


def open_recording(upload: Upload) -> Recording:
    """Reads a file as far as possible without its unit, or raises a `ValueError`."""
    with _filters, _caught():
        _, raw = readers.read_raw(upload.path)
    longest = max(raw, key=lambda train: train.times.size, default=None)
    if longest is None or longest.times.size < MIN_SPIKES:
        raise ValueError(
            f"{upload.name} has no neuron with {MIN_SPIKES} spikes or more: give a "
            "longer recording."
        )
    recording = Recording(upload, longest.times.size, candidates_of(longest))
    if not recording.candidates:
        try:
            recording.answer(None)
        except ValueError:
            if recording.fault is None:
                raise
    return recording


def ways_to_mend(advice: Advice) -> tuple[str, ...]:
    """Values of `clean` that a sentence advises."""
    return tuple(str(x.value) for x in advice.remedies if x.setting == "clean")


def candidates_of(raw: Train) -> tuple[Candidate, ...]:
    """Possible units of the times, likeliest first; none if the file states one."""
    needs_rate = raw.unit == "samples" and raw.rate is None
    if raw.unit is not None and not needs_rate:
        return ()
    usual = raw.usual_unit
    if usual is not None and is_credible(raw.times * milliseconds_per(usual)):
        return ()
    times = np.unique(raw.times[np.isfinite(raw.times)])
    if times.size < MIN_SPIKES:
        return ()  # such times are refused in every unit
    fit = units_that_fit([times]).rates
    units = [] if needs_rate else [*UNITS]
    if needs_rate or not np.any(times % 1):
        units.append(samples_at(raw.rate or COMMON_RATE))
    has_rate = bool(units) and units[-1] not in UNITS
    units += [x for x in fit if x not in UNITS and not (has_rate and is_of_samples(x))]
    found = [candidate(times, unit, fit) for unit in dict.fromkeys(units)]
    found = [x for x in found if x.unit != "min" or x.is_credible]
    return tuple(sorted(found, key=lambda x: not x.is_credible))


def is_of_samples(unit: str) -> bool:
    """Whether a unit has the rate of a digitiser, and not of a screen."""
    kind, _, rate = unit.partition("@")
    return kind == "samples" and float(rate) >= LOWEST_RATE


def candidate(times: np.ndarray, unit: str, fit: Collection[str]) -> Candidate:
    """The times in a unit: the firing rate, and whether it is credible."""
    ms = times * milliseconds_per(unit)
    span = float(ms[-1] - ms[0])
    rate = 1e3 * (ms.size - 1) / span if span > 0 else float("inf")
    at = unit.rpartition("@")[2]
    what = "sample numbers" if is_of_samples(unit) else "numbers of a stimulus' frames"
    name = UNITS.get(unit, f"{what} at {at} Hz")
    is_likely = unit in fit or (is_of_samples(unit) and any(map(is_of_samples, fit)))
    return Candidate(unit, name, rate, span > 0 and is_likely)


def question(recording: Recording) -> str:
    options = recording.candidates[:3]
    unit = lambda x: x.unit.partition("@")[0]
    rates = ", ".join(f"{hertz(x.rate)} if {unit(x)}" for x in options)
    return f"{recording.num_spikes} spikes: {rates}."


def hertz(rate: float) -> str:
    return f"{short(rate)}\u202fHz"


def seconds(ms: float) -> str:
    return f"{short(ms / 1e3, 4)}\u202fs"


class Glance(NamedTuple):
    """A summary of a train: its facts, the pattern among them, and findings."""

    train: SpikeTrain
    facts: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    obstacle: str = ""  # why nothing can be generated from it, if so


def glance(recording: Recording) -> Glance:
    try:
        train = recording.train
    except ValueError as error:
        return Glance(recording.trains[recording.chosen], obstacle=_plain(error))
    num, length = train.num_spikes, seconds(train.duration)
    facts = [("spikes", f"{num:,}"), ("length", length)]
    if num < MIN_SPIKES:
        few = f"The window has only {num} spikes: widen it."
        return Glance(train, tuple(facts), obstacle=few)
    features = features_of(train)
    label = int(features.label)
    facts.insert(0, ("firing pattern", LABELS[label]))
    facts.append(("firing rate", hertz(float(features.rate))))
    regular = FEATURES["mean_isi"], FEATURES["cv"]
    for x in pattern_of(features).compared if label == BURSTING else regular:
        value = short(float(x.read(features)))
        facts.append((x.words, f"{value} {x.unit}".rstrip()))
    findings = [x._replace(message=_plain(x.message)) for x in examine(train)]
    if num < FEW_SPIKES:
        few = f"{num} spikes are few to recognise a firing pattern: widen the window."
        findings.append(Finding("few", few))
    silent = "The neuron is silent here." if label == SILENT else ""
    return Glance(train, tuple(facts), tuple(findings), silent)


def _plain(message: object) -> str:
    return advice_of(message).said(in_words)


def is_known(train: SpikeTrain, model: str) -> bool:
    """Whether a train resembles what the encoder of a kind of neuron was trained on."""
    name = suit(train) if model == "auto" else model
    return bool(infer([train], name).in_distribution[0])


def _caught() -> warnings.catch_warnings:
    return warnings.catch_warnings(record=True, action="always", category=UserWarning)
