"""Spike trains: checked and padded."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from dicjax._core import check_concrete


AnyArray = Array | np.ndarray
Trains = Float[ArrayLike, "*cells spikes"]
Intervals = Float[Array, "*cells intervals"]
Counts = Int[Array, "*cells"]
Errors = Float[AnyArray, "*cells 4"]
Row = Float[Array, " _"]
Mask = Bool[Array, " _"]
Scalar = Float[Array, ""]
Count = Int[Array, ""]
AS_ROWS = "make it outside of them; `dicjax.spike_features` takes rows of times there"


@dataclasses.dataclass(frozen=True, eq=False)
class SpikeTrain:
    """The spike times of one recorded unit, checked, on the host, in float64.

    **Arguments:**

    - `times`: spike times, in ms; what is negative, not finite or not strictly
        increasing is a `ValueError`.
    - `name`, `source`: the unit and its file, as tables and figures should name them.
    - `t_start`, `t_stop`: what was recorded, in ms. By default from the first to the
        last spike, which leaves open how long the silence at the ends was.
    """

    times: Float[np.ndarray, " spikes"]
    name: str = ""
    source: str = ""
    t_start: float = math.nan
    t_stop: float = math.nan

    def __post_init__(self):
        check_concrete("SpikeTrain", AS_ROWS, **vars(self))
        times = np.array(self.times, dtype=np.float64)
        _check_times(times, self.name)
        times.flags.writeable = False
        first, last = (times[0], times[-1]) if times.size else (0.0, 0.0)
        start = float(first if math.isnan(self.t_start) else self.t_start)
        stop = float(max(start, last) if math.isnan(self.t_stop) else self.t_stop)
        if not start <= stop or (times.size and not start <= first <= last <= stop):
            raise ValueError(
                f"Train {self.name!r} has spikes from {first} to {last} ms outside its "
                f"recording, {start} to {stop} ms: correct `t_start` and `t_stop`."
            )
        for field, value in (("times", times), ("t_start", start), ("t_stop", stop)):
            object.__setattr__(self, field, value)

    @property
    def num_spikes(self) -> int:
        return self.times.size

    def window(self, start: float, stop: float) -> "SpikeTrain":
        """The spikes from `start` to `stop` (ms, included), on the same clock."""
        first, last = max(start, self.t_start), min(stop, self.t_stop)
        if not first < last:
            raise ValueError(
                f"Nothing was recorded from {start} to {stop} ms: choose a window "
                f"within {self.t_start} to {self.t_stop} ms."
            )
        inside = (self.times >= first) & (self.times <= last)
        return SpikeTrain(self.times[inside], self.name, self.source, first, last)


def _check_times(times: np.ndarray, name: str) -> None:
    if times.ndim != 1:
        raise ValueError(
            f"Train {name!r} has shape {times.shape}, but spike times must be one row "
            "of numbers: make one train per unit."
        )
    repeats = times <= np.append(-np.inf, times[:-1])
    for bad, rule in (
        (~np.isfinite(times), "finite: remove it"),
        (times < 0, "non-negative: count time from the start of the recording"),
        (repeats, "strictly increasing: sort the times and drop repeated ones"),
    ):
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"Spike {i} of train {name!r} is at {times[i]} ms, but spike times "
                f"must be {rule}."
            )


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


MIN_SPIKES = 10


def as_train(train: Float[np.ndarray, " spikes"] | SpikeTrain) -> SpikeTrain:
    """A checked spike train of at least ten spikes, whatever it came as."""
    if not isinstance(train, SpikeTrain):
        train = SpikeTrain(np.asarray(train, np.float64))
    if train.num_spikes < MIN_SPIKES:
        raise ValueError(
            f"A train needs at least {MIN_SPIKES} spikes to tell anything about a "
            f"neuron, got {train.num_spikes}; give a longer recording or window."
        )
    return train
