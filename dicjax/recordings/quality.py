"""What is odd about a spike train, in words that an experimenter can act on."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dicjax._core import Advice, on_host, Remedy
from dicjax.recordings.pauses import (
    MANY_RATIO,
    PAUSE_RATIO,
    PAUSE_SHARE,
    pauses_of,
)
from dicjax.recordings.stretches import (
    best_of,
    is_steady,
    pattern_shares,
    steady_stretches,
)
from dicjax.spikes import (
    burst_gap,
    BURSTING,
    ENOUGH_SPIKES,
    features_of,
    LABELS,
    spike_features,
    SpikeTrain,
    times_of_one,
)


# Each was chosen on the real recordings that docs/recordings.md names.
SHORT_MS, SHORT_SHARE = 2.0, 0.005  # spike sorters doubt units beyond such a share
SPARED_MS, SPARED_SHARE = 1.0, 0.25  # a refractory cell has hardly any so short
MIN_SHORTEST = 5
REFRACTORY = 0.25  # of the median interval in a burst: one cell is never so quick
DOUBLE_MS = 0.5  # no neuron fires again so soon
DRIFT, MIN_Z = 1.25, 2.5  # of the mean intervals of two halves; in deviations
MIN_JUDGED = 40  # spikes to judge bursts by, and in a window that is suggested
MOST, LEAST = 0.9, 0.005  # of the time: as good as all, and worth a word
NUM_BLOCKS = 24  # that windows are made of
TRIAL_SHARE = 0.5  # of the range of times: by so much, a clock that starts over falls
MIN_RUN = 4  # spikes in order after one another: otherwise nothing starts over
WRAP = 2.0**32  # numbers of 32 bits start over by so much

Times = Float[np.ndarray, " spikes"]
Intervals = Float[np.ndarray, " intervals"]


class Finding(NamedTuple):
    """Something odd about a train.

    `kind` is "repeats", "reset", "overflow", "unsorted", "negative", "doubles",
    "merged", "pause", "drift" or "changes"; `message` a sentence with its remedy, a
    [`dicjax.Advice`][] where this is a setting; `window` the stretch to use instead, in
    ms, if one helps; `clean` the value of this argument of
    [`dicjax.read_spike_trains`][] that mends it, if there is one.
    """

    kind: str
    message: str
    window: tuple[float, float] | None = None
    clean: str | None = None


@on_host()
def examine(train: Times | SpikeTrain) -> list[Finding]:
    """Reports what an experimenter should know about a train before trusting it.

    Times that are out of order or negative are reported alone: repeated stamps, a clock
    that starts over, or no order at all. Otherwise, a train of ten spikes or more may
    hold spikes that were detected twice or two cells, fall silent, or drift.

    - *doubles*: spikes less than 0.5 ms after another one, far more than between 0.5
        and 1 ms. What follows is judged without them.
    - *merged*: at least five intervals are shorter than 1 ms, 0.5 % of all are shorter
        than 2 ms, and among these those below 1 ms are not spared; or, within bursts,
        the shortest 5 % of intervals are below a quarter of the median.
    - *pause*: a silence takes over a tenth of the recording, and three times as long as
        any other interval; or several do together, each ten times as long as the
        others, with 20 spikes and 5 s or more between two of them. Times in which the
        train was not `observed` are no silences.
    - *drift*: mean intervals of the two halves differ by a factor over 1.25, and by
        more than chance makes of a train so irregular and short.
    - *changes*: the train has no pause and no drift, but several of its
        [`dicjax.steady_stretches`][]. The one to use, from [`dicjax.best_stretch`][],
        is shorter than nine tenths of all, or has another firing pattern.

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
    if times.size < ENOUGH_SPIKES:
        return []
    if not isinstance(train, SpikeTrain):
        train = SpikeTrain(times)
    doubles = _doubles(train)
    if doubles is not None:
        train = SpikeTrain(times[~is_double(times)], observed=train.observed)
    found = (doubles, _merged(train), _pause(train) or _unsteady(train))
    return [finding for finding in found if finding is not None]


def disorder_of(times: Times) -> Finding | None:
    """Why times do not increase from zero on, if they do not."""
    steps = np.diff(times)  # nan after what is not a number
    falls, repeats = np.flatnonzero(steps < 0), np.flatnonzero(steps == 0)
    if falls.size:
        return _fall(times, falls)
    if repeats.size:
        i = int(repeats[0]) + 1
        advice = Advice(
            f"{repeats.size} of {times.size} stamps repeat the one before (the first "
            f"is spike {i}, at {times[i]} ms), but spike times must be strictly "
            "increasing: drop what was detected twice, by ",
            Remedy("clean", "doubles"),
            ".",
        )
        return Finding("repeats", advice, clean="doubles")
    num = int((times < 0).sum())
    if not num:
        return None
    advice = Advice(
        f"{num} of {times.size} stamps are negative (spike 0 is at {times[0]} ms), but "
        "spike times must be non-negative: count time from the start of the recording, "
        "or drop them if they mark that there is no spike, by ",
        Remedy("clean", "negative"),
        ".",
    )
    return Finding("negative", advice, clean="negative")


def _fall(times: Times, falls: np.ndarray) -> Finding:
    """Of a clock that starts over, or of no order."""
    i = int(falls[0]) + 1
    before, after = float(times[i - 1]), float(times[i])
    num, size = falls.size, times.size
    known = times[np.isfinite(times)]
    jumps = times[falls] - times[falls + 1]
    is_fresh = (times[falls + 1] <= times[falls] / 4).all()
    is_fresh |= np.median(jumps) >= TRIAL_SHARE * np.ptp(known)
    if is_fresh and (num + 1) * MIN_RUN <= size:
        if num == 1:
            where = "starts over", "split the file there"
        else:
            where = (
                f"starts over {num} times, first",
                "split the file there; if these are trials, save a column or an array "
                "for each. Sorting would mix them",
            )
        return Finding(
            "reset",
            f"The clock {where[0]} at spike {i}, from {before:.6g} to {after:.6g} ms, "
            f"but spike times must be strictly increasing: {where[1]}.",
        )
    fault = (
        f"Spike {i} is at {after} ms, after one at {before} ms ({num} of {size} are "
        "out of order), but spike times must be strictly increasing: "
    )
    if known.min() < 0:
        trials = "if these are trials around an event, save a column or an array for "
        return Finding("unsorted", f"{fault}{trials}each; sorting would mix them.")
    advice = Advice(
        f"{fault}sort them by ",
        Remedy("clean", "order"),
        " or, if they are intervals between spikes, head their column `isi_ms`.",
    )
    return Finding("unsorted", advice, clean="order")


def overflows(numbers: Times) -> np.ndarray:
    """Where whole numbers of 32 bits, as a file holds them, start over."""
    falls = np.flatnonzero(np.diff(numbers) < 0)
    before, after = numbers[falls], numbers[falls + 1]
    is_signed = (before > 0.49 * WRAP) & (after < -0.49 * WRAP)
    is_unsigned = (before > 0.98 * WRAP) & (after >= 0) & (after < 0.02 * WRAP)
    is_whole = not np.any(numbers % 1) and np.abs(numbers).max(initial=0) <= WRAP
    is_all = bool((is_signed | is_unsigned).all()) and is_whole
    return falls + 1 if is_all else falls[:0]


def overflow_of(numbers: Times) -> Finding | None:
    """That whole numbers of 32 bits start over, if they do."""
    places = overflows(numbers)
    if not places.size:
        return None
    i = int(places[0])
    advice = Advice(
        f"Its numbers have 32 bits, and overflow at spike {i}, from "
        f"{numbers[i - 1]:.0f} to {numbers[i]:.0f}: export them with 64 bits, or count "
        "on by ",
        Remedy("clean", "overflow"),
        ".",
    )
    return Finding("overflow", advice, clean="overflow")


def is_double(times: Times) -> np.ndarray:
    """Which spikes follow another so soon that one spike was detected twice."""
    return np.diff(times, prepend=-np.inf) < DOUBLE_MS


def _doubles(train: SpikeTrain) -> Finding | None:
    isi = train.intervals
    num = int((isi < DOUBLE_MS).sum())
    num_next = int((isi < 2 * DOUBLE_MS).sum()) - num
    # Of two cells, as many intervals are longer by up to half a millisecond.
    if num <= 2 * num_next + 2 * math.sqrt(num_next):
        return None
    advice = Advice(
        f"{num} of {train.num_spikes} spikes come less than {DOUBLE_MS:g} ms after "
        f"another, down to {isi.min():.2g} ms: they were probably detected twice; drop "
        "them by ",
        Remedy("clean", "doubles"),
        ".",
    )
    return Finding("doubles", advice, clean="doubles")


def _merged(train: SpikeTrain) -> Finding | None:
    isi = train.intervals
    short, shortest = (isi < SHORT_MS).sum(), (isi < SPARED_MS).sum()
    is_common = short >= SHORT_SHARE * isi.size and shortest >= MIN_SHORTEST
    if is_common and shortest >= SPARED_SHARE * short:
        return Finding(
            "merged",
            f"{100 * short / isi.size:.2g} % of intervals are shorter than "
            f"{SHORT_MS:g} ms, down to {isi.min():.2g} ms: two cells may be merged in "
            "this train, or spikes detected twice; sort it again.",
        )
    within = _burst_intervals(train)
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


def _burst_intervals(train: SpikeTrain) -> Intervals:
    """Intervals within bursts, of a train that bursts."""
    isi, features = train.intervals, spike_features(train)
    if int(features.label) != BURSTING:
        return np.zeros(0)
    return isi[isi < burst_gap(features)]


def _pause(train: SpikeTrain) -> Finding | None:
    pauses = pauses_of(train)
    if len(pauses) > 1:
        lengths = pauses[:, 1] - pauses[:, 0]
        advice = Advice(
            f"There are {len(pauses)} silences of {lengths.min():.6g} to "
            f"{lengths.max():.6g} ms, the first from {pauses[0, 0]:.6g} ms on, all "
            f"over {MANY_RATIO:g} times as long as any other: if nothing was recorded "
            "then, leave them out by ",
            Remedy("clean", "pauses"),
            ".",
        )
        return Finding("pause", advice, clean="pauses")
    gaps = _gaps(train)
    i = int(np.argmax(gaps[:, 1] - gaps[:, 0]))
    before, after = gaps[i].tolist()
    others = np.delete(gaps[:, 1] - gaps[:, 0], i).max()
    longest = max(PAUSE_SHARE * train.duration, PAUSE_RATIO * others)
    if after - before < longest:
        return None
    times, ends = train.times, (train.t_start, train.t_stop)
    is_early = np.sum(times <= before) > times.size / 2
    window = (ends[0], before) if is_early else (after, ends[1])
    start = Advice(
        f"There is no spike from {before:.6g} to {after:.6g} ms: if the recording "
        "stopped or the cell was lost, consider ",
        Remedy("window", window),
    )
    if not len(pauses):
        return Finding("pause", Advice(start, "."), window)
    both = Advice(start, " or, to use both sides, ", Remedy("clean", "pauses"), ".")
    return Finding("pause", both, window, "pauses")


def _gaps(train: SpikeTrain) -> Float[np.ndarray, "gaps 2"]:
    """From each spike, or start of what was observed, to the next spike or stop."""
    marks = np.sort(np.concatenate([train.times, train.observed.ravel()]))
    gaps = np.stack([marks[:-1], marks[1:]], axis=1)
    stretch = np.searchsorted(train.observed[:, 0], gaps[:, 0], "right") - 1
    return gaps[gaps[:, 1] <= train.observed[stretch, 1]]


def _unsteady(train: SpikeTrain) -> Finding | None:
    drift = _drift(train)
    if is_steady(train):
        return drift
    stretches = steady_stretches(train)
    best = best_of(stretches)
    total = sum(x.duration for x in stretches)
    is_most = best.duration > MOST * total
    if is_most and LABELS[int(features_of(train).label)] == best.pattern:
        return drift
    window = best.start, best.stop
    is_better = train.window(*window).num_spikes >= MIN_JUDGED
    shares = pattern_shares(stretches).items()
    # A window that drifts a little is better than one with two patterns.
    is_better &= len(shares) > 1 or _drift(train.window(*window)) is None
    if drift is not None and not is_better:
        return drift
    named = [f"{x} for {100 * share:.0f} %" for x, share in shares if share >= LEAST]
    fires = f"{' and '.join(named)} of the recording"
    if len(named) == 1:
        fires = f"{best.pattern} throughout"
    start, stop = (f"{x / 1e3:.4g}" for x in window)
    kind, fault = "changes", f"The train is {fires}"
    if drift is not None:
        kind, fault = drift.kind, f"{_rate_change(train)}. {fault}"
    advice = Advice(
        f"{fault}, and steady from {start} to {stop} s, where it is {best.pattern}: ",
        "use ",
        Remedy("window", "auto"),
        ", or ",
        Remedy("window", window),
        ".",
    )
    return Finding(kind, advice, window)


def _rate_change(train: SpikeTrain) -> str:
    change = _change(train.intervals)
    return (
        f"The rate changes by a factor of {change:.2f} from the first to the second "
        "half"
    )


def _drift(train: SpikeTrain) -> Finding | None:
    isi = train.intervals
    change = _change(isi)
    noise = min(isi.std() / isi.mean(), 1.0) * math.sqrt(4 / isi.size)
    if change <= DRIFT or math.log(change) < MIN_Z * noise:
        return None
    window = _steady_window(train)
    such = (", such as ", Remedy("window", window), ".") if window else (".",)
    advice = Advice(
        f"{_rate_change(train)}: consider a window where it is steady",
        *such,
    )
    return Finding("drift", advice, window)


def _change(isi: Intervals) -> float:
    first, second = (half.mean() for half in np.array_split(isi, 2))
    return max(first / second, second / first)


def _steady_window(train: SpikeTrain) -> tuple[float, float] | None:
    """The longest stretch, of at least a fifth of the recording, without drift."""
    # On a clock that stands still while nothing is observed.
    lengths = train.observed[:, 1] - train.observed[:, 0]
    stops = np.cumsum(lengths)
    marks = np.stack([stops - lengths, stops], axis=1).ravel()
    times = np.interp(train.times, train.observed.ravel(), marks)
    edges = np.linspace(0, stops[-1], NUM_BLOCKS + 1)
    is_fresh = train.is_fresh
    for num in range(NUM_BLOCKS - 1, NUM_BLOCKS // 5, -1):
        steady = []
        for first in range(NUM_BLOCKS - num + 1):
            start, stop = edges[first], edges[first + num]
            inside = (times >= start) & (times <= stop)
            thirds = np.histogram(times[inside], 3, (start, stop))[0]
            if inside.sum() >= MIN_JUDGED and thirds.max() <= DRIFT * thirds.min():
                isi = np.diff(times[inside])[~is_fresh[inside][1:]]
                steady.append((_change(isi), float(start), float(stop)))
        if steady and min(steady)[0] <= DRIFT:
            ends = np.interp(min(steady)[1:], marks, train.observed.ravel())
            return float(ends[0]), float(ends[1])
    return None
