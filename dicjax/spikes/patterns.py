"""Firing patterns: how they are told apart, and which features each is compared by.

This file is the only home of both rules, and of the words for features. A new feature
takes a field of `Features` with its computation, an entry in `FEATURES` here, and its
name under the patterns that are compared by it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dicjax._core import Scalar


# What separates the patterns, for recordings and simulated neurons alike. Recordings
# miss spikes and hold wrong ones, so that a few intervals may lie anywhere.
MIN_SPIKES_TO_FIRE = 3
MIN_SPIKES_TO_JUDGE = 6  # by anything but the variation of all intervals
MAX_TONIC_CV = 0.15
ORDINARY = 1.4  # how many times longer or shorter than the median an interval may be
MIN_ORDINARY = 0.8  # share of the intervals of a tonic train
MIN_ORDINARY_MEAN = 0.85  # of their mean, as a share of the mean of all intervals
MISSED_WITHIN = 0.25  # of a median interval, around its multiples
MIN_MISSED = 0.6  # share of long intervals that are such multiples
MIN_MISSED_CV = 0.5  # of spikes between long intervals, which come at random
MIN_RHYTHM = 0.8  # share of the width of a gap, if what it parts comes in a rhythm
MIN_GAP_RATIO = 1.8  # of the intervals on both sides of an empty gap
MIN_STRAY_GAP_RATIO = 2.2  # of a gap that holds strays
INTERVALS_PER_STRAY = 5  # at least, on the side of the gap that has fewer
INTERVALS_PER_PAUSE = 200  # at most
MIN_BURSTS = 3
MIN_SPIKES_PER_BURST = 1.5
MAX_BURST_CV = 0.7  # of spikes per burst; bursts of random lengths have about 1
MAX_PAUSE_CV = 1.5  # of pauses: random ones have about 1, and one long one more
MAX_OUTER = 3.0  # spikes in the first or last burst, in mean bursts, if these hold few


class Feature(NamedTuple):
    """A number that describes a spike train.

    - `name`: as in tables and code; `words`: as people say it.
    - `unit`, `meaning`: for the heads of tables; the unit is empty for pure numbers.
    - `slack`: how far off it may always be, in its own unit, whatever the tolerance. A
        mean number of spikes jumps when a spike is added to a burst.
    - `quartile`: its place among the quartiles of ISIs, if it is one of them.
    - `ease`: what is added before two are compared as a ratio, in its own unit, where
        it may be zero.
    """

    name: str
    words: str
    unit: str
    meaning: str
    slack: float = 0.0
    quartile: int | None = None
    ease: float = 0.0

    def read(self, features: Any) -> Any:
        """Takes it from [`dicjax.Features`][]."""
        if self.quartile is None:
            return getattr(features, self.name)
        return features.isi_quartiles[..., self.quartile]


class Pattern(NamedTuple):
    """A firing pattern, and the features by which neurons that have it are compared.

    - `compared`: features of what they do on average.
    - `varied`: features of how much this varies.
    """

    name: str
    compared: tuple[Feature, ...]
    varied: tuple[Feature, ...]


_ALL = (
    Feature("rate", "firing rate", "Hz", "firing rate, 1000 / mean_isi"),
    Feature("mean_isi", "mean ISI", "ms", "mean interspike interval"),
    Feature(
        "isi_quartile_1",
        "1st quartile of ISIs",
        "ms",
        "first quartile of interspike intervals",
        quartile=0,
    ),
    Feature("isi_median", "median ISI", "ms", "median interspike interval", quartile=1),
    Feature(
        "isi_quartile_3",
        "3rd quartile of ISIs",
        "ms",
        "third quartile of interspike intervals",
        quartile=2,
    ),
    Feature("cv", "CV of ISIs", "", "coefficient of variation of interspike intervals"),
    Feature(
        "period",
        "burst period",
        "ms",
        "burst period, onset to onset; empty if not bursting",
    ),
    Feature(
        "intra_burst_isi",
        "intra-burst ISI",
        "ms",
        "mean interspike interval within bursts",
    ),
    Feature(
        "spikes_per_burst",
        "spikes per burst",
        "",
        "mean number of spikes in a burst",
        slack=0.5,
    ),
    Feature(
        "duty_cycle",
        "duty cycle",
        "",
        "share of the period from first to last spike of a burst",
    ),
    Feature(
        "period_cv",
        "CV of periods",
        "",
        "coefficient of variation of burst periods",
        ease=0.05,
    ),
    Feature(
        "spikes_per_burst_sd",
        "SD of spikes per burst",
        "",
        "standard deviation of the numbers of spikes in bursts",
        ease=0.5,
    ),
    Feature(
        "intra_burst_cv",
        "CV of intra-burst ISIs",
        "",
        "coefficient of variation of interspike intervals within bursts",
        ease=0.1,
    ),
    Feature(
        "serial_correlation",
        "serial correlation",
        "",
        "correlation of the logarithms of neighbouring interspike intervals",
        ease=2.0,
    ),
)
FEATURES = {feature.name: feature for feature in _ALL}


def _pattern(name: str, compared: str = "", varied: str = "") -> Pattern:
    named = lambda names: tuple(FEATURES[feature] for feature in names.split())
    return Pattern(name, named(compared), named(varied))


QUARTILES = "isi_quartile_1 isi_median isi_quartile_3"
PATTERNS = (
    _pattern("silent"),
    _pattern("tonic", "mean_isi", QUARTILES),
    _pattern(
        "bursting",
        "period intra_burst_isi spikes_per_burst",
        "period_cv spikes_per_burst_sd intra_burst_cv",
    ),
    _pattern("irregular", f"mean_isi {QUARTILES}", "cv serial_correlation"),
)
"""The firing patterns, in the order of their numbers in `Features.label`."""
LABELS = tuple(pattern.name for pattern in PATTERNS)
"""Names of the firing patterns, in the order of their numbers in `Features.label`."""
SILENT, TONIC, BURSTING, IRREGULAR = range(len(PATTERNS))

COMPARED = tuple(dict.fromkeys(x for pattern in PATTERNS for x in pattern.compared))
"""Every feature that some pattern is compared by, once."""
VARIED = tuple(dict.fromkeys(x for pattern in PATTERNS for x in pattern.varied))
"""Every feature of variability that some pattern is compared by, once."""
NUM_COMPARED = max(len(pattern.compared) for pattern in PATTERNS)


class Regularity(NamedTuple):
    """How regular the intervals of a train are.

    - `cv`: of all intervals.
    - `ordinary_cv`: of the intervals near the median; `ordinary`: their share of all
        intervals; `ordinary_mean`: their mean as a share of the mean of all.
    - `multiples`: the share of longer intervals that are near multiples of the median.
    """

    cv: Scalar
    ordinary_cv: Scalar
    ordinary: Scalar
    ordinary_mean: Scalar
    multiples: Scalar


class Grouping(NamedTuple):
    """What a train is like if its widest gap splits it into bursts.

    - `clearness`: how many times as wide as it must be the gap is.
    - `num_bursts`: with the first and the last one.
    - `spikes_per_burst`: in the mean of the others, the complete ones.
    - `outer`: spikes of the first or the last burst, whichever has more; `complete`: of
        all complete bursts together.
    - `run_cv`: of the numbers of spikes between gaps; `burst_cv`: without lone spikes;
        `pause_cv`: of the lengths of gaps.
    - `period_cv`: of the times from one gap to the next; `spikes_per_burst_sd`: the
        standard deviation of spikes per burst.
    """

    clearness: Scalar
    num_bursts: Int[Array, ""]
    spikes_per_burst: Scalar
    outer: Scalar
    complete: Int[Array, ""]
    run_cv: Scalar
    burst_cv: Scalar
    pause_cv: Scalar
    period_cv: Scalar
    spikes_per_burst_sd: Scalar


def label_of(num_spikes, regular: Regularity, split: Grouping) -> Int[Array, ""]:
    """The number of a train's pattern."""
    # Cut bursts have no more spikes than complete ones, or these are not typical.
    is_cut = split.outer <= MAX_OUTER * split.spikes_per_burst
    is_bursting = (
        (num_spikes >= MIN_SPIKES_TO_JUDGE)
        & (split.clearness >= 1)
        & (split.num_bursts >= MIN_BURSTS)
        & (split.spikes_per_burst >= MIN_SPIKES_PER_BURST)
        & (split.burst_cv < MAX_BURST_CV)
        & (split.pause_cv < MAX_PAUSE_CV)
        & (is_cut | (2 * split.complete >= num_spikes))
    )
    is_ordinary = (
        (num_spikes >= MIN_SPIKES_TO_JUDGE)
        & (regular.ordinary_cv < MAX_TONIC_CV)
        & (regular.ordinary >= MIN_ORDINARY)
        & (regular.ordinary_mean >= MIN_ORDINARY_MEAN)
    )
    is_rhythm = (split.run_cv < MIN_MISSED_CV) & (split.clearness >= MIN_RHYTHM)
    has_missed = regular.multiples >= MIN_MISSED
    is_tonic = regular.cv < MAX_TONIC_CV
    is_tonic |= is_ordinary & ~is_rhythm & (has_missed | ~is_bursting)
    label = jnp.where(is_bursting, BURSTING, IRREGULAR)
    label = jnp.where(is_tonic, TONIC, label)
    return jnp.where(num_spikes < MIN_SPIKES_TO_FIRE, SILENT, label).astype(jnp.int32)


def pattern_of(features: Any) -> Pattern:
    return PATTERNS[int(features.label)]


def columns_of(label: int) -> tuple[int, ...]:
    """Where the features that a pattern is compared by stand in `COMPARED`."""
    return tuple(COMPARED.index(feature) for feature in PATTERNS[label].compared)
