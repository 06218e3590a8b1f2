"""Which units of time the numbers of a file may be in, by what neurons can fire."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dicjax._core import Advice, Remedy
from dicjax.recordings.readers.common import Times, Train
from dicjax.recordings.readers.units import milliseconds_per, samples_at


POSSIBLE_HZ = (1e-3, 1e3)
PLAUSIBLE_HZ = (0.05, 200.0)
PLAUSIBLE_ISI = 0.7  # ms, for all but the shortest 1 % of intervals

# What times in another unit than ms may look like: wider, as doubts are cheap.
SLOWEST, FASTEST = 0.01, 500.0  # Hz
ALL_UNITS_HZ = 3000.0  # of sample numbers of all units of a probe together
LONGEST_S = 172_800.0  # two days
LATEST_MS = 1e13  # three centuries: Unix time is long before
SHORT_MS = 3e4  # shorter recordings than that are rare
COARSE, COARSE_IF_SLOW = 0.1, 0.01  # s: nobody stamps spikes like that
LONGEST_DEAD_S = 2.0  # of irregular neurons
SHORTEST_S = {True: 0.5, False: 10.0}  # of samples, by whether these are whole
MOST_FRAMES = 12.0  # between spikes in quick succession, if stamps are in frames
SAMPLE_RATES = (30e3, 25e3, 20e3, 15e3, 10e3, 50e3)  # Hz
FRAME_RATES = (60.0, 120.0, 30.0)  # Hz
# Spacings of times in ms by the clocks of digitisers. Parts of a sample come in others.
MS_GRIDS = tuple(1 / x for x in (24.4140625, 30, 44.1, 48))
OTHER_GRIDS = tuple(1 / x for x in (2, 4, 5, 8, 12.5, 16, 20, 25, 32, 40, 50))
PICKED = 4096  # of the times suffice to find their spacing
# The first unit that fits stands for its family. A question shows them in this order.
_FAMILIES = {
    "ms": ("ms",),
    "s": ("s",),
    "us": ("us",),
    "samples": tuple(map(samples_at, SAMPLE_RATES)),
    "frames": tuple(map(samples_at, FRAME_RATES)),
    "min": ("min",),
}


class Facts(NamedTuple):
    """What a train of numbers looks like, whatever their unit."""

    num: int
    first: float
    span: float
    cv: float
    shortest: float  # all but 1 % of intervals are longer
    short: float  # all but 10 % of intervals are longer
    grid: float  # all numbers are multiples of it from the first on; 0 if unknown
    dead: float  # no interval is shorter, if they stop as they do after a dead time
    is_whole: bool

    @property
    def mean(self) -> float:
        return self.span / (self.num - 1)


def is_credible(times: Times, is_sure: bool = False) -> bool:
    low, high = POSSIBLE_HZ if is_sure else PLAUSIBLE_HZ
    is_short = bool(np.percentile(np.diff(times), 1) < PLAUSIBLE_ISI)
    return low <= _rate(times) <= high and (is_sure or not is_short)


def is_usual(raw: list[Train]) -> bool:
    # NWB prescribes seconds, but some published files hold ms.
    known = [t.times * milliseconds_per(t.usual_unit) for t in raw if t.usual_unit]
    return any(PLAUSIBLE_HZ[0] <= _rate(ms) <= PLAUSIBLE_HZ[1] for ms in known)


class Fit(NamedTuple):
    """The units that the times of a file may be in, by what neurons can fire.

    - `rates`: the rate (Hz) of the longest train in each unit, likeliest unit first.
    - `is_ms`: whether nothing but ms makes sense of the times.
    """

    rates: dict[str, float]
    is_ms: bool


def units_that_fit(trains: Sequence[Times]) -> Fit:
    """Judges the trains of one file, in a unit that they share and nothing states."""
    every = [facts for times in trains if (facts := _facts(times)) is not None]
    if not every:
        return Fit({}, False)
    mean = max(every, key=lambda facts: facts.num).mean
    span = max(facts.span for facts in every)
    found = {}
    for family, units in _FAMILIES.items():
        for unit in units:
            per = milliseconds_per(unit)
            num = sum(_fits(family, facts, per, span) for facts in every)
            if 2 * num >= len(every):
                found[unit] = 1e3 / (mean * per)
                break
    is_natural = all(_is_natural_in_ms(facts) for facts in every)
    return Fit(found, is_natural and [*found] == ["ms"])


def question(num: int, fit: Fit) -> Advice:
    """Asks for the unit of `num` times that several units fit."""
    return Advice(
        f"nothing states the unit of its {num} times, and more than one is possible: "
        "give the true unit",
        *_options(fit),
        ".",
    )


def disbelief(raw: Train, known: str | None, is_sure: bool) -> Advice:
    """Why a train is not plausible in its unit, and which units would be."""
    tried = known or "ms"
    options = []
    for unit in ("s", "us", "samples@30000", "min", "ms"):
        times = raw.times * milliseconds_per(unit)
        # An odd but possible rate only needs a confirmation.
        if is_credible(times, is_sure=unit == tried and not is_sure):
            named = unit if raw.unit else Remedy("unit", unit)
            options += [", ", named, f" makes it {_rate(times):.4g} Hz"]
    if known is None:
        options = _options(units_that_fit([raw.times])) or options
    remedy = "correct the unit in the file" if raw.unit else "give the true unit"
    if not options:
        remedy = "no unit makes it so, check that these are times"
    times = raw.times * milliseconds_per(tried)
    isi = np.diff(times)
    return Advice(
        f"read as {known or 'ms, for want of a stated unit'}, its {times.size} spikes "
        f"come at {_rate(times):.4g} Hz (mean ISI {isi.mean():.4g} ms, 1 % of them up "
        f"to {np.percentile(isi, 1):.3g} ms), which is not plausible: {remedy}",
        *options,
        ".",
    )


def _options(fit: Fit) -> list[str | Remedy]:
    options = []
    for unit, rate in fit.rates.items():
        kind = "frames" if unit in _FAMILIES["frames"] else "samples"
        other = f" (or the true rate of the {kind}, in Hz)" if "@" in unit else ""
        options += [", ", Remedy("unit", unit), f"{other} makes it {rate:.4g} Hz"]
    return options


def _rate(times: Times) -> float:
    return float(1e3 * (times.size - 1) / (times[-1] - times[0]))


def _facts(times: Times) -> Facts | None:
    times = np.unique(times[np.isfinite(times)])
    if times.size < 3:
        return None
    isi = np.diff(times)
    few = min(max(0.01, 6 / isi.size), 0.2)
    low, tenth, lower, upper = np.quantile(isi, (0.01, 0.1, few, 5 * few)).tolist()
    # Without a dead time, five times as many intervals are up to five times as long.
    dead = lower if upper < 2.5 * lower else 0.0
    span = float(times[-1] - times[0])
    cv = float(isi.std() / isi.mean())
    grid, first = _grid_of(times), float(times[0])
    is_whole = not np.any(times % 1)
    return Facts(times.size, first, span, cv, low, tenth, grid, dead, is_whole)


def _grid_of(times: Times) -> float:
    """The spacing of a clock that all times are multiples of; 0 if none is found."""
    since = (times - times[0])[1 : PICKED + 1]
    # Zero differences say nothing, and large numbers have few digits behind the point.
    noise = 4 * np.spacing(max(abs(times[0]), abs(times[-1]))) + 1e-12 * since[-1]

    def on(grid: float, off: float) -> bool:
        return bool((np.abs(since - grid * np.round(since / grid)) <= off).all())

    places = next((p for p in range(8) if on(10.0**-p, 2 * noise)), None)
    step = 0.0 if places is None else 10.0**-places
    if step == 1:
        return 1.0
    for grid in sorted((*MS_GRIDS, *OTHER_GRIDS), reverse=True):
        # Two rounded numbers differ by up to one last digit more or less.
        off = 2 * noise + (step if step < grid / 8 else 0)
        is_finer = step < grid / 8 or (step < grid and on(step, 2 * noise))
        if is_finer and on(grid, off):
            return grid
    return step


def _is_natural_in_ms(facts: Facts) -> bool:
    low, high = PLAUSIBLE_HZ
    is_plausible = low <= 1e3 / facts.mean <= high
    return is_plausible and facts.shortest >= PLAUSIBLE_ISI


def _fits(family: str, facts: Facts, per: float, span: float) -> bool:
    """Whether numbers of `per` ms each may be the times of a neuron."""
    rate, is_whole = 1e3 / (facts.mean * per), facts.is_whole
    seconds = span * per / 1e3
    most = ALL_UNITS_HZ if family == "samples" and is_whole else FASTEST
    is_brief = span < SHORT_MS and family != "min"
    slowest = POSSIBLE_HZ[0] if is_brief else SLOWEST
    if not slowest <= rate <= most or facts.first * per > LATEST_MS:
        return False
    is_on_ms_grid = any(math.isclose(facts.grid, grid) for grid in MS_GRIDS)
    match family:
        case "ms":
            return True
        case "s" | "min":
            step = facts.grid * per / 1e3
            is_slow = facts.mean * per / 1e3 > 1 / PLAUSIBLE_HZ[0]
            is_coarse = step > (COARSE_IF_SLOW if is_slow else COARSE)
            # So that it is no chance of a few random intervals.
            is_apart = facts.shortest > 4 * facts.mean * max(0.01, 1 / facts.num)
            dead = facts.shortest * per / 1e3
            is_dead = facts.cv > 0.5 and is_apart and dead > LONGEST_DEAD_S
            return seconds <= LONGEST_S and not (is_coarse or is_dead)
        case "us":
            is_quick = facts.short * per < PLAUSIBLE_ISI
            return not is_quick
        case "samples":
            is_quick = 0 < facts.dead * per < PLAUSIBLE_ISI
            if not is_whole:
                is_quick |= facts.short * per < PLAUSIBLE_ISI
            is_other = not is_whole and is_on_ms_grid
            return seconds >= SHORTEST_S[is_whole] and not (is_quick or is_other)
        case "frames":
            is_near = (is_whole and is_brief) or facts.shortest <= MOST_FRAMES
            is_usual_rate = PLAUSIBLE_HZ[0] <= rate <= PLAUSIBLE_HZ[1]
            return is_near and is_usual_rate and not is_on_ms_grid
    raise ValueError(family)
