"""Where a recording changes its rate or its firing pattern, and where it is steady."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from dicjax._core import on_host
from dicjax.recordings.pauses import PAUSE_RATIO, pauses_of
from dicjax.spikes import (
    BURSTING,
    IRREGULAR,
    LABELS,
    MIN_SPIKES,
    SILENT,
    spike_features,
    SpikeTrain,
    times_of_one,
    TONIC,
)


# `python -m scripts.bench stretches` counts how often these find known changes.
MIN_DESCRIBED = 40  # intervals of what a pattern is read from
MOST_BLOCKS, FEWEST_BLOCKS = 48, 8
PER_BLOCK = 2.5  # of the intervals that most of the time is made of
INTERVALS_PER_BLOCK = 10
SHORTEST = 4  # blocks between two changes
# Log rate, mean log interval, and mean log ratio of neighbouring intervals.
LEAST = np.array([math.log(1.25), math.log(1.25), 0.25])  # that is a change
FLOOR = 0.02  # deviation of a block that recordings have in any case
PENALTY = 26.0  # of a change, in variances
SCALES = (1, 2, 4)  # blocks whose means are compared for the noise
MEDIAN_OF_SQUARE = 0.455  # of a normal deviate
NUM_BINS = 24  # of the histograms that place a change
ORDINARY = 1.4  # how many times as long as its neighbour an interval may be
MIN_ALIKE = 0.5  # share of such neighbours, in a train that may be tonic now and then
MIN_TONIC = 0.6  # share of an irregular train that is tonic now and then
FEWEST_WINDOWS, MOST_WINDOWS = 5, 2000  # in which its pattern is read
IRREGULAR_WORTH = 0.5  # of a time, beside the same time of a regular pattern
MIN_BURSTS = 5  # complete ones, of a rhythm that is known well

Window = tuple[float, float] | Literal["auto"]
"""Start and stop of what to use, in ms, or the stretch that `best_stretch` takes."""
Times = Float[np.ndarray, " spikes"]
Blocks = Float[np.ndarray, "blocks 3"]
Indices = list[int]


class Stretch(NamedTuple):
    """A part of a recording in which a neuron fires in one way.

    - `start`, `stop`: in ms; spikes at both ends belong to it.
    - `pattern`: its firing pattern, as in [`dicjax.LABELS`][].
    - `num_spikes`; `num_bursts`: complete ones.
    - `steadiness`: the rate of its slowest third as a share of that of its fastest.
    """

    start: float
    stop: float
    pattern: str
    num_spikes: int
    num_bursts: int
    steadiness: float

    @property
    def duration(self) -> float:
        """In ms."""
        return self.stop - self.start


@on_host()
def steady_stretches(train: Times | SpikeTrain) -> tuple[Stretch, ...]:
    """Parts a recording where its rate or its firing pattern changes.

    Parts are split again until they are *steady*: until none of these is found in them.

    - A pause, as [`dicjax.examine`][] reports it. It is a silent stretch.
    - A change that lasts. The part is cut into blocks of equal time: 48, or fewer, so
        that each holds ten intervals, and 2.5 of those that most of the time is made
        of. A block has a rate, a mean of the logarithm of its intervals, and a mean of
        how much neighbours differ. The median of three blocks is taken, so that a lone
        gap changes nothing. Optimal partitioning finds the levels that explain all
        blocks. Another level costs 26 variances of the noise, and lasts four blocks.
        The noise is what neighbouring blocks differ by, alone and in groups of two and
        four, so that bursts and slow fluctuations are no change. Neighbours are joined
        unless their rates or typical intervals differ by a factor of 1.25, or their
        mean log ratios of neighbouring intervals by 0.25.
    - Tonic firing that is interrupted, or wanders in its rate. The part is not tonic,
        but 60 % or more of its windows of 40 intervals are. It has five such windows or
        more.

    Parts below 80 intervals are split at pauses only. Where a change is, to the spike,
    follows from the intervals on both sides. Neighbours are joined where nothing is
    found in both together. Each stretch has the pattern that
    [`dicjax.spike_features`][] names. A stretch that is cut out is found whole again.

    Time and memory grow with the number of spikes; a million take seconds.

    **Arguments:**

    - `train`: spike times, in ms, or a [`dicjax.Run`][] of one cell.

    **Returns:**

    [`dicjax.Stretch`][]es, in order. They cover all that was observed, and none reaches
    across a time that was not.

    **Raises:**

    - `ValueError`: if times do not increase.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    if not isinstance(train, SpikeTrain):
        train = SpikeTrain(times_of_one(train))
    found: list[tuple[float, float, Times]] = []
    for start, stop in train.observed.tolist():
        inside = np.searchsorted(train.times, (start, np.nextafter(stop, np.inf)))
        found += _of_piece(train.times[slice(*inside)], start, stop)
    features = spike_features([times for _, _, times in found])
    return tuple(
        Stretch(start, stop, LABELS[label], times.size, num, _steadiness(times))
        for (start, stop, times), label, num in zip(
            found,
            np.asarray(features.label).tolist(),
            np.asarray(features.num_bursts).tolist(),
            strict=True,
        )
    )


@on_host()
def best_stretch(train: Times | SpikeTrain) -> Stretch:
    """The stretch that models should fire like.

    It is the longest of the steady stretches whose pattern is well determined: with 40
    intervals or more and, if it bursts, five complete bursts or more. An irregular
    stretch counts half its time, so that a tonic or bursting one is taken if it lasts
    more than half as long. If no stretch is well determined, the one with most spikes
    is taken. A train that is steady throughout is taken whole, whatever its pattern.

    **Arguments:**

    - `train`: spike times, in ms, or a [`dicjax.Run`][] of one cell.

    **Returns:**

    A [`dicjax.Stretch`][].

    **Raises:**

    - `ValueError`: if there are no spikes, or times do not increase.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    return best_of(steady_stretches(train))


def best_of(stretches: Sequence[Stretch]) -> Stretch:
    """Of the stretches of a train, the one that `best_stretch` takes."""
    spiking = [x for x in stretches if x.num_spikes]
    if not spiking:
        raise ValueError("There are no spikes in the train, and so nothing is steady.")
    known = [x for x in spiking if _is_determined(x)]
    if not known:
        return max(spiking, key=lambda x: x.num_spikes)
    return max(known, key=_worth)


def cut_to_best(train: SpikeTrain) -> SpikeTrain:
    """The train within the stretch that `best_stretch` takes.

    It is taken whole if it is steady wherever it was observed.
    """
    if is_steady(train):
        return train
    best = best_stretch(train)
    return train.window(best.start, best.stop) if best.duration > 0 else train


def is_steady(train: SpikeTrain) -> bool:
    """Whether nothing changes among all its intervals, laid end to end."""
    times = np.cumsum(np.append(0.0, train.intervals))
    return not _changes(times)


def pattern_shares(stretches: Sequence[Stretch]) -> dict[str, float]:
    """The share of the time that each pattern takes, the largest first."""
    times = dict.fromkeys(LABELS, 0.0)
    for stretch in stretches:
        times[stretch.pattern] += stretch.duration
    total = sum(times.values()) or 1.0
    shares = {name: time / total for name, time in times.items() if time > 0}
    return dict(sorted(shares.items(), key=lambda x: -x[1]))


def _is_determined(stretch: Stretch) -> bool:
    if stretch.pattern == LABELS[SILENT] or stretch.num_spikes <= MIN_DESCRIBED:
        return False
    return stretch.pattern != LABELS[BURSTING] or stretch.num_bursts >= MIN_BURSTS


def _worth(stretch: Stretch) -> float:
    is_irregular = stretch.pattern == LABELS[IRREGULAR]
    return stretch.duration * (IRREGULAR_WORTH if is_irregular else 1.0)


def _steadiness(times: Times) -> float:
    if times.size < 4:
        return math.nan
    edges = np.linspace(times[0], times[-1], 4)
    counts = np.diff(np.interp(edges, times, np.arange(times.size)))
    return float(counts.min() / counts.max())


def _of_piece(
    times: Times, start: float, stop: float
) -> list[tuple[float, float, Times]]:
    """Stretches of a time observed without a break, as start, stop and spikes."""
    if not times.size:
        return [(start, stop, times)] if start < stop else []
    parts = _joined(times, _parts_of(times))
    found = [(float(times[a]), float(times[b]), times[a : b + 1]) for a, b in parts]
    # Silence at an end belongs to the stretch beside it, unless it is like a pause.
    first, last = found[0], found[-1]
    if first[0] - start <= PAUSE_RATIO * _longest(first[2]):
        found[0] = (start, *first[1:])
    else:
        found.insert(0, (start, first[0], times[:1]))
    if stop - last[1] <= PAUSE_RATIO * _longest(last[2]):
        found[-1] = (found[-1][0], stop, last[2])
    else:
        found.append((last[1], stop, times[-1:]))
    return found


def _longest(times: Times) -> float:
    return float(np.diff(times).max(initial=0.0))


def _parts_of(times: Times) -> list[tuple[int, int]]:
    """First and last spikes of parts in which nothing changes."""
    todo, parts = [(0, times.size - 1)], []
    while todo:
        first, last = todo.pop()
        cuts = _changes(times[first : last + 1])
        if cuts:
            ends = [first, *(first + cut for cut in cuts), last]
            todo += itertools.pairwise(ends)
        else:
            parts.append((first, last))
    return sorted(parts)


def _joined(times: Times, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Parts, of which neighbours are joined where both together are steady."""
    log_isi, variation = _intervals_of(times)
    sums = _sums(np.stack([log_isi, variation], axis=1))

    def levels(first: int, last: int) -> np.ndarray:
        num = max(last - first, 1)
        rate = math.log(num / max(times[last] - times[first], 1e-9))
        return np.array([rate, *(sums[last] - sums[first]) / num])

    kept: list[tuple[int, int]] = []
    for part in parts:
        while kept:
            both = kept[-1][0], part[1]
            change = np.abs(levels(*kept[-1]) - levels(*part))
            if (change >= 2 * LEAST).any() or _changes(times[both[0] : both[1] + 1]):
                break
            kept.pop()
            part = both
        kept.append(part)
    return kept


def _changes(times: Times) -> Indices:
    """Spikes at which a train without unobserved times changes, in order."""
    num = times.size - 1
    if num < MIN_SPIKES:
        return []
    pauses = pauses_of(SpikeTrain(times))
    if len(pauses):
        places = np.searchsorted(times, pauses.ravel())
    elif num < 2 * MIN_DESCRIBED:
        return []
    else:
        places = _lasting(times) or _interruptions(times)
    return sorted({int(i) for i in places} - {0, num})


def _intervals_of(times: Times) -> tuple[np.ndarray, np.ndarray]:
    """Log intervals, and for each the mean log ratio to its neighbours."""
    log_isi = np.log(np.diff(times))
    ratios = np.abs(np.diff(log_isi))
    if not ratios.size:
        return log_isi, np.zeros_like(log_isi)
    return log_isi, (np.append(ratios[0], ratios) + np.append(ratios, ratios[-1])) / 2


def _lasting(times: Times) -> Indices:
    """Where rate, intervals or their order change for a good while."""
    blocks = _blocks(times)
    noise = _noise(blocks)
    padded = np.pad(blocks, ((1, 1), (0, 0)), "edge")
    smooth = np.median([padded[:-2], padded[1:-1], padded[2:]], axis=0)
    ends = _without_slight(smooth, _levels(smooth / noise))
    if len(ends) == 2:
        return []
    # Only the clearest change: each level has noise of its own, and is looked at again.
    three = _clearest(smooth / noise, ends)
    edges = _edges(times, len(blocks))
    width = edges[1] - edges[0]
    first, near, last = np.searchsorted(times, edges[three]).tolist()
    return [_place(times, first, near, min(last, times.size - 1), 1.5 * width)]


def _sums(x: np.ndarray) -> np.ndarray:
    """Sums of the first rows: of none, of one, and so on."""
    return np.concatenate([np.zeros_like(x[:1]), np.cumsum(x, axis=0)])


def _threes(ends: Indices) -> Iterator[tuple[int, int, int]]:
    """Every end that has two neighbours, between them."""
    return zip(ends[:-2], ends[1:-1], ends[2:], strict=True)


def _edges(times: Times, num: int) -> np.ndarray:
    """Ends of blocks of equal time, in ms."""
    return np.linspace(times[0], times[-1], num + 1)


def _blocks(times: Times) -> Blocks:
    """Log rate, mean log interval and mean log ratio, in blocks of equal time.

    An interval counts in each block by the share of it that lies there.
    """
    isi = np.diff(times)
    in_time = float(isi.sum() ** 2 / (isi**2).sum())  # intervals that fill it
    num = min(in_time / PER_BLOCK, isi.size / INTERVALS_PER_BLOCK, MOST_BLOCKS)
    edges = _edges(times, max(int(num), FEWEST_BLOCKS))
    place = np.interp(edges, times, np.arange(times.size))
    whole = np.minimum(place.astype(int), isi.size - 1)
    counts = np.diff(place)

    def means(x: np.ndarray) -> np.ndarray:
        before = _sums(x)[whole]
        return np.diff(before + (place - whole) * x[whole]) / counts

    rate = np.log(counts / np.diff(edges))
    return np.stack([rate, *map(means, _intervals_of(times))], axis=1)


def _noise(blocks: Blocks) -> Float[np.ndarray, " 3"]:
    """Deviation of each column, without the levels that it jumps between."""
    sums = _sums(blocks)
    variance = np.full(3, FLOOR**2)
    for scale in SCALES:
        # Of ten groups or more, few span a change.
        if scale == 1 or len(blocks) >= 10 * scale:
            means = (sums[scale:] - sums[:-scale]) / scale
            squares = np.median((means[scale:] - means[:-scale]) ** 2, axis=0)
            own = scale * squares / (2 * MEDIAN_OF_SQUARE)
            variance = np.maximum(variance, own)
    return variance**0.5


def _levels(blocks: Blocks) -> Indices:
    """Ends of levels that explain blocks of unit noise best, penalised by number."""
    num = len(blocks)
    sums, squares = _sums(blocks), _sums((blocks**2).sum(axis=1))
    length = np.arange(num + 1) - np.arange(num + 1)[:, None]
    of_mean = ((sums - sums[:, None]) ** 2).sum(axis=-1) / np.maximum(length, 1)
    cost = np.where(length < SHORTEST, np.inf, squares - squares[:, None] - of_mean)
    best, before = np.zeros(num + 1), np.zeros(num + 1, int)
    for stop in range(1, num + 1):
        total = best[:stop] + cost[:stop, stop] + PENALTY
        before[stop] = np.argmin(total)
        best[stop] = total[before[stop]]
    ends = [num]
    while ends[0] > 0:
        ends.insert(0, int(before[ends[0]]))
    return ends


def _without_slight(blocks: Blocks, ends: Indices) -> Indices:
    """Ends of levels that differ by as much as a change must, or more."""
    while len(ends) > 2:
        means = [blocks[a:b].mean(axis=0) for a, b in itertools.pairwise(ends)]
        changes = (np.abs(np.diff(means, axis=0)) / LEAST).max(axis=1)
        slightest = int(np.argmin(changes))
        if changes[slightest] >= 1:
            break
        ends = ends[: slightest + 1] + ends[slightest + 2 :]
    return ends


def _clearest(blocks: Blocks, ends: Indices) -> Indices:
    """The end of a level that the blocks of unit noise speak for most, with its own."""
    return list(max(_threes(ends), key=lambda three: _gain(blocks, *three)))


def _gain(blocks: Blocks, first: int, middle: int, last: int) -> float:
    """By how much two levels explain blocks better than one."""
    before, after = blocks[first:middle], blocks[middle:last]
    change = before.mean(axis=0) - after.mean(axis=0)
    share = len(before) * len(after) / (last - first)
    return float((change**2).sum()) * share


def _place(times: Times, first: int, near: int, last: int, within: float) -> int:
    """The spike that parts two kinds of intervals best, `within` some time (ms)."""
    if not first + 1 < near < last - 1:
        return near
    low = np.searchsorted(times, times[near] - within)
    high = np.searchsorted(times, times[near] + within)
    low, high = max(int(low), first + 1), min(int(high), last - 1)
    evidence = np.zeros(last - first)  # for what comes before the change
    for values in _intervals_of(times[first : last + 1]):
        edges = np.quantile(values, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
        bins = np.searchsorted(edges, values)
        halves = bins[: near - first], bins[near - first :]
        counts = [np.bincount(half, minlength=NUM_BINS) + 0.5 for half in halves]
        before, after = (count / count.sum() for count in counts)
        evidence += np.log(before / after)[bins]
    upto = _sums(evidence)
    return low + int(np.argmax(upto[low - first : high - first + 1]))


def _interruptions(times: Times) -> Indices:
    """Where an irregular train that is tonic most of the time may be cut."""
    isi = np.diff(times)
    ratios = np.abs(np.diff(np.log(isi)))
    if isi.size < FEWEST_WINDOWS * MIN_DESCRIBED:
        return []
    if (ratios < math.log(ORDINARY)).mean() < MIN_ALIKE:
        return []
    num = min(isi.size // MIN_DESCRIBED, MOST_WINDOWS)
    ends = np.linspace(0, isi.size, num + 1).astype(int).tolist()
    is_tonic = _is_tonic([times[a : b + 1] for a, b in itertools.pairwise(ends)])
    if is_tonic.mean() < MIN_TONIC or _is_tonic([times])[0]:
        return []
    edges = [0, *(np.flatnonzero(np.diff(is_tonic)) + 1).tolist(), num]
    if len(edges) == 2:  # it is tonic all the time, at many rates
        return [_in_two(times)]
    within = float(np.median(np.diff(times[ends])))
    threes = ((ends[a], ends[b], ends[c]) for a, b, c in _threes(edges))
    return [_place(times, *three, within) for three in threes]


def _in_two(times: Times) -> int:
    """The spike that parts a train into two whose levels explain it best."""
    blocks = _blocks(times)
    num = len(blocks)
    cut = max(range(1, num), key=lambda cut: _gain(blocks, 0, cut, num))
    return int(times.searchsorted(_edges(times, num)[cut]))


def _is_tonic(trains: list[Times]) -> np.ndarray:
    return np.asarray(spike_features(trains).label) == TONIC
