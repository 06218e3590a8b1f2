"""Spike trains: in whatever form they come, checked, padded and laid end to end."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from dicjax._core import AnyArray, check_concrete, counted


Trains = Float[ArrayLike, "*cells spikes"]
Intervals = Float[Array, "*cells intervals"]
Counts = Int[Array, "*cells"]
Errors = Float[AnyArray, "*cells 4"]
Row = Float[Array, " _"]
Mask = Bool[Array, " _"]
Count = Int[Array, ""]
AS_ROWS = "make it outside of them; `dicjax.spike_features` takes rows of times there"

MIN_SPIKES = 5  # in a train that is read at all
ENOUGH_SPIKES = 10  # in one that is read without a warning
AT_ONCE = 1 << 21  # spikes, with padding, that are laid end to end together
FINITE = "finite: remove it"
SORTED = "increasing: sort the times and pad with infinity at the end only"
POSITIVE = "non-negative: count time from the start of the recording"
STRICT = "strictly increasing: sort the times and drop repeated ones"
OBSERVED = "within what was observed: correct `observed`"


@dataclasses.dataclass(frozen=True, eq=False)
class SpikeTrain:
    """The spike times of one recorded unit, checked, on the host, in float64.

    **Arguments:**

    - `times`: spike times, in ms; what is negative, not finite or not strictly
        increasing is a `ValueError`.
    - `name`, `source`: the unit and its file, as tables and figures should name them.
    - `t_start`, `t_stop`: what was recorded, in ms. By default from the first to the
        last spike, which leaves open how long the silence at the ends was.
    - `observed`: the stretches in which spikes would have been recorded, as rows of
        start and stop, in ms, one after another. By default one, from `t_start` to
        `t_stop`. Between two stretches, nothing is known: this is no silence, and no
        interval between spikes reaches across.
    """

    times: Float[np.ndarray, " spikes"]
    name: str = ""
    source: str = ""
    t_start: float = math.nan
    t_stop: float = math.nan
    observed: Float[np.ndarray, "stretches 2"] = dataclasses.field(
        default_factory=lambda: np.zeros((0, 2))
    )

    def __post_init__(self):
        check_concrete("SpikeTrain", AS_ROWS, **vars(self))
        times = np.array(self.times, dtype=np.float64)
        _check_times(times, self.name)
        observed = self._stretches(times)
        for array in (times, observed):
            array.flags.writeable = False
        start, stop = float(observed[0, 0]), float(observed[-1, 1])
        settled = {"times": times, "t_start": start, "t_stop": stop}
        for field, value in (settled | {"observed": observed}).items():
            object.__setattr__(self, field, value)

    def _stretches(self, times: np.ndarray) -> np.ndarray:
        """What was observed, checked, with defaults where nothing was stated."""
        first, last = (times[0], times[-1]) if times.size else (0.0, 0.0)
        observed = np.array(self.observed, dtype=np.float64)
        ends = [self.t_start, self.t_stop]
        if not observed.size:
            start = float(first if math.isnan(ends[0]) else ends[0])
            stop = float(max(start, last) if math.isnan(ends[1]) else ends[1])
            if not start <= stop or (times.size and not start <= first <= last <= stop):
                raise ValueError(
                    f"Train {self.name!r} has spikes from {first} to {last} ms outside "
                    f"its recording, {start} to {stop} ms: correct `t_start` and "
                    "`t_stop`."
                )
            return np.array([[start, stop]])
        is_table = observed.ndim == 2 and observed.shape[1:] == (2,)
        if not is_table or not (np.diff(observed.ravel()) >= 0).all():
            raise ValueError(
                f"Train {self.name!r} has `observed` {observed.tolist()}, but it must "
                "be rows of start and stop, in ms, in order and without overlap."
            )
        known = np.where(np.isnan(ends), observed.ravel()[[0, -1]], ends)
        if not (known == observed.ravel()[[0, -1]]).all():
            raise ValueError(
                f"Train {self.name!r} was observed from {observed[0, 0]} to "
                f"{observed[-1, 1]} ms, but `t_start` and `t_stop` are {ends}: leave "
                "these out."
            )
        which = np.searchsorted(observed[:, 0], times, "right") - 1
        outside = (which < 0) | (times > observed[which, 1])
        whose = Ragged(times, np.zeros(1, int), np.array([times.size]))
        whose.refuse(outside, OBSERVED, lambda _: f"train {self.name!r}")
        return observed

    @property
    def num_spikes(self) -> int:
        return self.times.size

    @property
    def duration(self) -> float:
        """How long it was observed, in ms, without what lies between stretches."""
        return float((self.observed[:, 1] - self.observed[:, 0]).sum())

    @property
    def is_fresh(self) -> Bool[np.ndarray, " spikes"]:
        """Which spikes are the first after a time in which nothing was observed."""
        which = np.searchsorted(self.observed[:, 0], self.times, "right")
        return np.diff(which, prepend=which[:1]) > 0

    @property
    def intervals(self) -> Float[np.ndarray, " intervals"]:
        """Intervals between spikes that follow each other, in ms, in order."""
        return np.diff(self.times)[~self.is_fresh[1:]]

    @property
    def longest(self) -> Float[np.ndarray, " spikes"]:
        """The spike times (ms) of the stretch that holds most of them."""
        parts = np.split(self.times, np.flatnonzero(self.is_fresh))
        return max(parts, key=len)

    def window(self, start: float, stop: float) -> "SpikeTrain":
        """The spikes from `start` to `stop` (ms, included), on the same clock."""
        observed = np.clip(self.observed, start, stop)
        observed = observed[observed[:, 0] < observed[:, 1]]
        if not start < stop or not observed.size:
            raise ValueError(
                f"Nothing was recorded from {start} to {stop} ms: choose a window "
                f"within {self.t_start} to {self.t_stop} ms."
            )
        first, last = observed[0, 0], observed[-1, 1]
        inside = self.times[(self.times >= first) & (self.times <= last)]
        return SpikeTrain(inside, self.name, self.source, observed=observed)


def _check_times(times: np.ndarray, name: str) -> None:
    if times.ndim != 1:
        raise ValueError(
            f"Train {name!r} has shape {times.shape}, but spike times must be one row "
            "of numbers: make one train per unit."
        )
    whose = Ragged(times, np.zeros(1, int), np.array([times.size]))
    of_name = lambda _: f"train {name!r}"
    whose.refuse(~np.isfinite(times), FINITE, of_name)
    whose.refuse(times < 0, POSITIVE, of_name)
    whose.refuse(times <= whose.previous, STRICT, of_name)


class Ragged(NamedTuple):
    """Trains of any lengths, laid end to end.

    - `times`: of all their spikes, in ms.
    - `starts`: where in it each train begins; `counts`: how many spikes it has.
    - `is_fresh`: which spikes are the first after a time in which nothing was observed,
        if there are such; the interval before them is none.
    """

    times: Float[np.ndarray, " spikes"]
    starts: Int[np.ndarray, " trains"]
    counts: Int[np.ndarray, " trains"]
    is_fresh: Bool[np.ndarray, " spikes"] | None = None

    @property
    def previous(self) -> Float[np.ndarray, " spikes"]:
        """The spike before each, in ms; -inf before the first one of a train."""
        before = np.empty_like(self.times)
        before[1:] = self.times[:-1]
        before[self.starts[self.counts > 0]] = -np.inf
        return before

    @property
    def intervals(self) -> Float[np.ndarray, " intervals"]:
        """From each spike to the next, in ms; infinite where nothing was observed.

        Across two trains they mean nothing.
        """
        intervals = np.diff(self.times.astype(np.float64))
        if self.is_fresh is not None:
            intervals[self.is_fresh[1:]] = np.inf
        return intervals

    def refuse(self, bad: np.ndarray, rule: str, name_of: Any) -> None:
        """Raises `ValueError` if a spike is `bad`, with the rule that it breaks."""
        if bad.any():
            i = int(np.argmax(bad))
            train = int(np.searchsorted(self.starts, i, "right")) - 1
            raise ValueError(
                f"Spike {i - self.starts[train]} of {name_of(train)} is at "
                f"{self.times[i]} ms, but spike times must be {rule}."
            )


def rows_of(
    values: Float[np.ndarray, " values"],
    starts: Int[np.ndarray, " rows"],
    counts: Int[np.ndarray, " rows"],
    width: int,
) -> Float[np.ndarray, "rows {width}"]:
    """Stretches of `values` as rows, padded with infinity."""
    rows = np.full((len(starts), width), np.inf, values.dtype)
    slots = np.arange(width)
    inside = slots < counts[:, None]
    rows[inside] = values[(starts[:, None] + slots)[inside]]
    return rows


@runtime_checkable
class HasSpikes(Protocol):
    """What holds spike times (ms) beside other things, as a [`dicjax.Run`][] does."""

    @property
    def spike_times(self) -> Any: ...


AnyTrains = Trains | SpikeTrain | HasSpikes | Sequence[Any]
"""Trains in rows of one array, a sequence of rows or `SpikeTrain`s, or a result."""


def times_of(trains: Any) -> AnyArray | list[Any]:
    """Spike times (ms) of trains in any form: one array, or a list of rows.

    An array has rows padded with infinity, after any leading axes, and is returned as
    it is. So are the spike times of what holds them, such as a [`dicjax.Run`][]. Rows
    of a list are arrays or `SpikeTrain`s of any lengths.
    """
    if isinstance(trains, HasSpikes):
        trains = trains.spike_times
    if isinstance(trains, SpikeTrain):
        return trains.times
    is_array = isinstance(trains, jax.Array | np.ndarray)
    if is_array and trains.ndim and trains.dtype != object:
        return trains
    if not isinstance(trains, Iterable) or getattr(trains, "ndim", 1) == 0:
        raise ValueError(f"Spike trains must be arrays of times in ms, got {trains}.")
    rows = list(trains)
    if all(map(_is_row, rows)):
        return rows or np.zeros((0, 0))
    return np.asarray(rows)  # numbers of one train, or tables of rows


def _is_row(row: Any) -> bool:
    if isinstance(row, np.ndarray):
        return row.ndim == 1
    return isinstance(row, SpikeTrain) or np.ndim(row) == 1


def end_to_end(
    trains: AnyArray | list[Any], *, in_order: bool = True
) -> Iterator[Ragged]:
    """Trains from `times_of` without their padding, in pieces of bounded memory.

    Leading axes are taken as one. With `in_order`, a train with a nan, or with times
    that fall, is a `ValueError`.
    """
    for first, flat, sizes, is_fresh in _pieces(trains):
        padded = Ragged(flat, np.cumsum(sizes) - sizes, sizes)
        if in_order:
            name_of = lambda i, first=first: _named(trains, first + i)
            padded.refuse(np.isnan(flat) | (flat == -np.inf), FINITE, name_of)
            padded.refuse(flat < padded.previous, SORTED, name_of)
        is_spike = np.isfinite(flat)
        before = np.append(0, np.cumsum(is_spike))
        counts = before[padded.starts + sizes] - before[padded.starts]
        if is_fresh is not None:
            is_fresh = is_fresh[is_spike]
        yield Ragged(flat[is_spike], np.cumsum(counts) - counts, counts, is_fresh)


def _pieces(
    trains,
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]:
    """The number of the first train, all times, how many are of each train, and which
    are fresh if any is."""
    if isinstance(trains, list):
        arrays = [np.asarray(getattr(train, "times", train)) for train in trains]
        sizes = np.array([times.size for times in arrays])
        groups = np.cumsum(sizes) // AT_ONCE
        ends = [*(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(arrays)]
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            flat = _floats(np.concatenate(arrays[first:end]))
            yield first, flat, sizes[first:end], _fresh_among(trains[first:end])
        return
    width = trains.shape[-1]
    rows = np.reshape(trains, (math.prod(trains.shape[:-1]), width))
    step = max(1, AT_ONCE // max(1, width))
    for first in range(0, len(rows), step):
        some = rows[first : first + step]
        yield first, _floats(some.ravel()), np.full(len(some), width), None


def _fresh_among(trains: list[Any]) -> np.ndarray | None:
    if not any(isinstance(x, SpikeTrain) and len(x.observed) > 1 for x in trains):
        return None
    none_of = lambda times: np.zeros(np.size(times), bool)
    fresh = [x.is_fresh if isinstance(x, SpikeTrain) else none_of(x) for x in trains]
    return np.concatenate(fresh)


def _floats(times: np.ndarray) -> np.ndarray:
    return times if times.dtype.kind == "f" else times.astype(np.float64)


def _named(trains, number: int) -> str:
    name = getattr(trains[number], "name", "") if isinstance(trains, list) else ""
    return f"train {number} ({name!r})" if name else f"train {number}"


def pad_trains(
    trains: Sequence[ArrayLike | SpikeTrain], max_spikes: int | None = None
) -> Float[np.ndarray, "cells spikes"]:
    """Stacks trains (ms) into sorted rows padded with infinity, on the host.

    Keep `max_spikes`, by default the longest train, the same between calls and what
    follows will not be compiled again. A train that is longer, or that holds a nan, is
    a `ValueError`; infinities are taken as padding.
    """
    times = [t.times if isinstance(t, SpikeTrain) else t for t in trains]
    rows = [np.sort(np.asarray(t, dtype=np.float64)) for t in times]
    rows = [row[row != np.inf] for row in rows]
    width = max_spikes or max([1, *(row.size for row in rows)])
    padded = np.full((len(rows), width), np.inf)
    for i, row in enumerate(rows):
        if not np.isfinite(row).all():
            raise ValueError(f"Train {i} holds {row.min()}: pad with infinity instead.")
        if row.size > width:
            raise ValueError(
                f"Train {i} has {row.size} spikes, but `max_spikes` is {width}: raise "
                "it, or cut the train to a window."
            )
        padded[i, : row.size] = row
    return padded


def as_trains(trains: Any) -> Float[np.ndarray, "trains spikes"] | list[Any]:
    """Checked spike trains of at least five spikes each, in any form, on the host.

    They come as rows, as from `times_of`. What `SpikeTrain` refuses is refused here,
    with the number of the train, and its name if it has one.
    """
    # By itself, an array of times would not say when it was observed.
    trains = [trains] if isinstance(trains, SpikeTrain) else times_of(trains)
    if not isinstance(trains, list):
        trains = np.asarray(trains)
        trains = trains.reshape(math.prod(trains.shape[:-1]), trains.shape[-1])
    first = 0
    for piece in end_to_end(trains):
        name_of = lambda i, first=first: _named(trains, first + i)
        piece.refuse(piece.times < 0, POSITIVE, name_of)
        piece.refuse(piece.times <= piece.previous, STRICT, name_of)
        few = piece.counts < MIN_SPIKES
        if few.any():
            i = int(np.argmax(few))
            raise ValueError(_too_few(name_of(i), int(piece.counts[i])))
        first += len(piece.counts)
    return trains


def times_of_one(train: Any) -> Float[np.ndarray, " spikes"]:
    """Spike times (ms) of one train, in any form that holds just one, unpadded."""
    rows = times_of(train)
    num = len(rows) if isinstance(rows, list) else math.prod(rows.shape[:-1])
    if num != 1:
        raise ValueError(f"There must be one spike train here, not {num}.")
    row = rows[0] if isinstance(rows, list) else np.ravel(rows)
    times = np.asarray(getattr(row, "times", row), np.float64)
    is_padding = np.logical_and.accumulate(times[::-1] == np.inf)
    return times[: len(times) - int(is_padding.sum())]


def as_train(train: Any) -> SpikeTrain:
    """A checked train of at least five spikes, in any form that holds just one."""
    if not isinstance(train, SpikeTrain):
        train = SpikeTrain(times_of_one(train))
    if train.num_spikes < MIN_SPIKES:
        raise ValueError(_too_few("the train", train.num_spikes))
    return train


def _too_few(whose: str, num: int) -> str:
    return (
        f"There {'is' if num == 1 else 'are'} {counted(num, 'spike')} in {whose}, but "
        f"it takes {MIN_SPIKES} to describe how a neuron fires: give a longer "
        "recording or window."
    )
