"""Firing patterns: how they are told apart, and which features each is compared by.

This file is the only home of both rules, and of the words for features. A new feature
takes a field of `Features` with its computation, an entry in `FEATURES` here, and its
name under the patterns that are compared by it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int


# What separates the patterns, for recordings and simulated neurons alike.
MIN_SPIKES_TO_FIRE = 3
MAX_TONIC_CV = 0.15
MIN_SPIKES_TO_BURST = 6
MIN_GAP_RATIO = 1.8
MIN_BURSTS = 3
MIN_SPIKES_PER_BURST = 1.5


class Feature(NamedTuple):
    """A number that describes a spike train.

    - `name`: as in tables and code; `words`: as people say it.
    - `unit`, `meaning`: for the heads of tables; the unit is empty for pure numbers.
    - `slack`: how far off it may always be, in its own unit, whatever the tolerance. A
        mean number of spikes jumps when a spike is added to a burst.
    - `quartile`: its place among the quartiles of ISIs, if it is one of them.
    """

    name: str
    words: str
    unit: str
    meaning: str
    slack: float = 0.0
    quartile: int | None = None

    def read(self, features: Any) -> Any:
        """Takes it from [`dicjax.Features`][]."""
        if self.quartile is None:
            return getattr(features, self.name)
        return features.isi_quartiles[..., self.quartile]


class Pattern(NamedTuple):
    """A firing pattern, and the features by which neurons that have it are compared."""

    name: str
    compared: tuple[Feature, ...]


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
)
FEATURES = {feature.name: feature for feature in _ALL}


def _pattern(name: str, *compared: str) -> Pattern:
    return Pattern(name, tuple(FEATURES[feature] for feature in compared))


PATTERNS = (
    _pattern("silent"),
    _pattern("tonic", "mean_isi"),
    _pattern("bursting", "period", "intra_burst_isi", "spikes_per_burst"),
    _pattern("irregular", "mean_isi", "isi_quartile_1", "isi_median", "isi_quartile_3"),
)
"""The firing patterns, in the order of their numbers in `Features.label`."""
LABELS = tuple(pattern.name for pattern in PATTERNS)
"""Names of the firing patterns, in the order of their numbers in `Features.label`."""
SILENT, TONIC, BURSTING, IRREGULAR = range(len(PATTERNS))

COMPARED = tuple(dict.fromkeys(x for pattern in PATTERNS for x in pattern.compared))
"""Every feature that some pattern is compared by, once."""
NUM_COMPARED = max(len(pattern.compared) for pattern in PATTERNS)


def label_of(num_spikes, cv, gap_ratio, num_bursts, spikes_per_burst) -> Int[Array, ""]:
    """The number of a train's pattern, from its bursts if its largest gap splits it.

    `gap_ratio` is of the intervals on both sides of that gap. `num_bursts` counts the
    first and the last burst too, `spikes_per_burst` the others alone.
    """
    is_bursting = (
        (num_spikes >= MIN_SPIKES_TO_BURST)
        & (gap_ratio >= MIN_GAP_RATIO)
        & (num_bursts >= MIN_BURSTS)
        & (spikes_per_burst >= MIN_SPIKES_PER_BURST)
    )
    label = jnp.where(is_bursting, BURSTING, IRREGULAR)
    label = jnp.where(cv < MAX_TONIC_CV, TONIC, label)
    return jnp.where(num_spikes < MIN_SPIKES_TO_FIRE, SILENT, label).astype(jnp.int32)


def pattern_of(features: Any) -> Pattern:
    return PATTERNS[int(features.label)]


def columns_of(label: int) -> tuple[int, ...]:
    """Where the features that a pattern is compared by stand in `COMPARED`."""
    return tuple(COMPARED.index(feature) for feature in PATTERNS[label].compared)
