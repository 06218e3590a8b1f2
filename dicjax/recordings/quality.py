"""What is odd about a spike train, in words that an experimenter can act on."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dicjax._core import Advice, on_host, Remedy
from dicjax.spikes import (
    burst_gap,
    BURSTING,
    MIN_SPIKES,
    spike_features,
    SpikeTrain,
    times_of_one,
)


# Each was chosen on the real recordings that docs/recordings.md names.
SHORT_MS, SHORT_SHARE = 2.0, 0.005  # spike sorters doubt units beyond such a share
SPARED_MS, SPARED_SHARE = 1.0, 0.25  # a refractory cell has hardly any so short
MIN_SHORTEST = 5
REFRACTORY = 0.25  # of the median interval in a burst: one cell is never so quick
DRIFT, MIN_Z = 1.25, 2.5  # of the mean intervals of two halves; in deviations
PAUSE_SHARE, PAUSE_RATIO = 0.1, 3.0  # of the recording, and of the next longest
MIN_JUDGED = 40  # spikes to judge bursts by, and in a window that is suggested
NUM_BLOCKS = 24  # that windows are made of

Times = Float[np.ndarray, " spikes"]
Intervals = Float[np.ndarray, " intervals"]
Ends = Float[np.ndarray, " 2"]


class Finding(NamedTuple):
    """Something odd about a train.

    `kind` is "repeats", "reset", "unsorted", "merged", "pause" or "drift"; `message` a
    sentence with its remedy, a [`dicjax.Advice`][] where this is a setting;
    `window` the stretch to use instead, in ms, if one helps.
    """

    kind: str
    message: str
    window: tuple[float, float] | None = None


@on_host()
def examine(train: Times | SpikeTrain) -> list[Finding]:
    """Reports what an experimenter should know about a train before trusting it.

    Times out of order are reported alone: repeated stamps, a clock that starts over, or
    no order at all. Otherwise, a train of ten spikes or more may hold two cells, fall
    silent, or drift.

    - *merged*: at least five intervals are shorter than 1 ms, 0.5 % of all are shorter
        than 2 ms, and among these those below 1 ms are not spared; or, within bursts,
        the shortest 5 % of intervals are below a quarter of the median.
    - *pause*: a silence takes over a tenth of the recording, and three times as long as
        any other interval.
    - *drift*: mean intervals of the two halves differ by a factor over 1.25, and by
        more than chance makes of a train so irregular and short.

    **Arguments:**

    - `train`: spike times, in ms, or a [`dicjax.Run`][] of one cell.

    **Returns:**

    A list of [`dicjax.Finding`][]; empty where nothing is odd.

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    times = times_of_one(train)
    disorder = disorder_of(times)
    if disorder is not None:
        return [disorder]
    if times.size < MIN_SPIKES:
        return []
    ends = times[[0, -1]]
    if isinstance(train, SpikeTrain):
        ends = np.array([train.t_start, train.t_stop])
    found = (_merged(times), _pause(times, ends) or _drift(times, ends))
    return [finding for finding in found if finding is not None]


def disorder_of(times: Times) -> Finding | None:
    """Why times do not increase, if they do not."""
    steps = np.diff(times)  # nan after what is not a number
    falls, repeats = np.flatnonzero(steps < 0), np.flatnonzero(steps == 0)
    if not falls.size:
        if not repeats.size:
            return None
        i = int(repeats[0]) + 1
        return Finding(
            "repeats",
            f"{repeats.size} of {times.size} stamps repeat the one before (the first "
            f"is spike {i}, at {times[i]} ms), but spike times must be strictly "
            "increasing: drop what was detected twice.",
        )
    i = int(falls[0]) + 1
    before, after = float(times[i - 1]), float(times[i])
    is_fresh = times[falls + 1] <= times[falls] / 4
    if is_fresh.all() and 5 * falls.size <= times.size:
        more = f" {falls.size} times, first" if falls.size > 1 else ""
        return Finding(
            "reset",
            f"The clock starts over{more} at spike {i}, from {before:.6g} to "
            f"{after:.6g} ms, but spike times must be strictly increasing: split the "
            "file there.",
        )
    return Finding(
        "unsorted",
        f"Spike {i} is at {after} ms, after one at {before} ms, but spike times must "
        "be strictly increasing: sort them or, if they are intervals between spikes, "
        "head their column `isi_ms`.",
    )


def _merged(times: Times) -> Finding | None:
    isi = np.diff(times)
    short, shortest = (isi < SHORT_MS).sum(), (isi < SPARED_MS).sum()
    is_common = short >= SHORT_SHARE * isi.size and shortest >= MIN_SHORTEST
    if is_common and shortest >= SPARED_SHARE * short:
        return Finding(
            "merged",
            f"{100 * short / isi.size:.2g} % of intervals are shorter than "
            f"{SHORT_MS:g} ms, down to {isi.min():.2g} ms: two cells may be merged in "
            "this train, or spikes detected twice; sort it again.",
        )
    within = _burst_intervals(times)
    if within.size < MIN_JUDGED:
        return None
    low, middle = np.quantile(within, (0.05, 0.5))
    if low >= REFRACTORY * middle:
        return None
    return Finding(
        "merged",
        f"Within bursts, intervals are as short as {low:.1f} ms beside a median of "
        f"{middle:.1f} ms: two cells may be merged in this train, and models of it "
        "will fire like their sum.",
    )


def _burst_intervals(times: Times) -> Intervals:
    """Intervals within bursts, of a train that bursts."""
    isi, features = np.diff(times), spike_features(times)
    if int(features.label) != BURSTING:
        return np.zeros(0)
    return isi[isi < burst_gap(features)]


def _pause(times: Times, ends: Ends) -> Finding | None:
    marks = np.concatenate([ends[:1], times, ends[1:]])
    gaps = np.diff(marks)
    i = int(np.argmax(gaps))
    others = np.delete(gaps, i).max()
    if gaps[i] < max(PAUSE_SHARE * (ends[1] - ends[0]), PAUSE_RATIO * others):
        return None
    before, after = float(marks[i]), float(marks[i + 1])
    is_early = np.sum(times <= before) > times.size / 2
    window = (float(ends[0]), before) if is_early else (after, float(ends[1]))
    advice = Advice(
        f"There is no spike from {before:.6g} to {after:.6g} ms: if the recording "
        "stopped or the cell was lost, consider ",
        Remedy("window", window),
        ".",
    )
    return Finding("pause", advice, window)


def _drift(times: Times, ends: Ends) -> Finding | None:
    isi = np.diff(times)
    change = _change(isi)
    noise = min(isi.std() / isi.mean(), 1.0) * math.sqrt(4 / isi.size)
    if change <= DRIFT or math.log(change) < MIN_Z * noise:
        return None
    window = _steady_window(times, ends)
    such = (", such as ", Remedy("window", window), ".") if window else (".",)
    advice = Advice(
        f"The rate changes by a factor of {change:.2f} from the first to the second "
        "half: consider a window where it is steady",
        *such,
    )
    return Finding("drift", advice, window)


def _change(isi: Intervals) -> float:
    first, second = (half.mean() for half in np.array_split(isi, 2))
    return max(first / second, second / first)


def _steady_window(times: Times, ends: Ends) -> tuple[float, float] | None:
    """The longest stretch, of at least a fifth of the recording, without drift."""
    edges = np.linspace(ends[0], ends[1], NUM_BLOCKS + 1)
    for num in range(NUM_BLOCKS - 1, NUM_BLOCKS // 5, -1):
        steady = []
        for first in range(NUM_BLOCKS - num + 1):
            start, stop = edges[first], edges[first + num]
            inside = times[(times >= start) & (times <= stop)]
            thirds = np.histogram(inside, 3, (start, stop))[0]
            if inside.size >= MIN_JUDGED and thirds.max() <= DRIFT * thirds.min():
                steady.append((_change(np.diff(inside)), float(start), float(stop)))
        if steady and min(steady)[0] <= DRIFT:
            return min(steady)[1:]
    return None
