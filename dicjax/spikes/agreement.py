"""How nearly neurons must fire like a recording, given how much the recording varies.

A stretch of a recording differs from the whole of it by chance. Neurons that are
simulated for as long may differ by as much, or by what the user allows, whichever is
more.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from dicjax._core import compiled_size, in_batches
from dicjax.spikes.features import Features, NARROWEST, spike_features
from dicjax.spikes.patterns import LABELS, PATTERNS, SILENT
from dicjax.spikes.trains import pad_trains, SpikeTrain, Trains


NUM_STRETCHES = 256  # of the recording, from which its variation is estimated
SHARE_OF_STRETCHES = 0.9  # that agree with the recording in all features
MIN_SHARE_OF_PATTERN = 0.1  # of stretches, from which another pattern counts as well
LONGEST_SHARE = 1 / 3  # of the recording that one stretch takes
PROBABILITIES = (np.arange(32) + 0.5) / 32  # of the quantiles of intervals
MAX_AGREED = max(len((*x.compared, *x.varied)) for x in PATTERNS)


class Agreement(eqx.Module):
    """What neurons that fire like a recording have in common with it.

    - `label`: the firing pattern of the recording, whose features are compared.
    - `patterns`: which firing patterns its stretches have.
    - `values`: logarithms of its features; `limits`: how far each may be off. Both are
        zero where there are fewer features.
    - `log_isi`: quantiles of the logarithms of its intervals (ms).
    - `furthest`: how far the distribution of these may be off, see
        `distribution_distance`.
    """

    label: int = eqx.field(static=True)
    patterns: Bool[np.ndarray, " 4"]
    values: Float[np.ndarray, " agreed"]
    limits: Float[np.ndarray, " agreed"]
    log_isi: Float[np.ndarray, " quantiles"]
    furthest: float

    @property
    def names(self) -> tuple[str, ...]:
        """The features that are compared."""
        return tuple(feature.name for feature in _agreed(self.label))

    def errors(self, features: Features) -> Float[np.ndarray, "*cells agreed"]:
        """How far neurons are off in each feature, as differences of logarithms."""
        return _logs(features, self.label) - self.values

    def compare(self, spike_times: Trains) -> "Comparison":
        """Compares spike trains (ms) with the recording."""
        times = np.asarray(spike_times)
        features = in_batches(spike_features, times, size=NUM_STRETCHES)
        errors = self.errors(features)
        distance = distribution_distance(log_isi_quantiles(times), self.log_isi)
        agrees = np.all(np.abs(errors) <= self.limits, axis=-1)
        agrees &= self.patterns[features.label] & (distance <= self.furthest)
        return Comparison(features, errors, distance, agrees)


class Comparison(eqx.Module):
    """How neurons fire beside a recording.

    - `features`: of each.
    - `errors`: how far off it is in each feature, as a difference of logarithms; nan
        where it lacks the feature.
    - `distance`: how far off its distribution of intervals is.
    - `agrees`: whether all of this is within limits, in a pattern of the recording.
    """

    features: Features
    errors: Float[np.ndarray, "cells agreed"]
    distance: Float[np.ndarray, " cells"]
    agrees: Bool[np.ndarray, " cells"]


def _agreed(label: int):
    return (*PATTERNS[label].compared, *PATTERNS[label].varied)


def _logs(features: Features, label: int) -> Float[np.ndarray, "*cells agreed"]:
    """Logarithms of the features that a pattern is compared by; zero for the rest."""
    columns = []
    for feature in _agreed(label):
        value = np.asarray(feature.read(features)) + feature.ease
        columns.append(np.log(np.where(value > 0, value, np.nan)))
    columns += [np.zeros_like(columns[0])] * (MAX_AGREED - len(columns))
    return np.stack(columns, axis=-1)


def log_isi_quantiles(
    times: Float[np.ndarray, "*cells spikes"],
) -> Float[np.ndarray, "*cells quantiles"]:
    """Quantiles of the logarithms of intervals (ms) of spike trains (ms).

    Rows of `times` increase and are padded with infinity. Trains of fewer than two
    spikes have none: nan.
    """
    known = np.isfinite(times[..., 1:])
    isi = np.diff(np.where(np.isfinite(times), times, 0), axis=-1)
    smallest = np.finfo(times.dtype).tiny  # two spikes may coincide in float32
    logs = np.log(np.where(known, np.maximum(isi, smallest), np.inf))
    ordered = np.sort(logs, axis=-1)
    num = known.sum(axis=-1, keepdims=True)
    last = np.maximum(num - 1, 0)
    place = np.clip(PROBABILITIES * num - 0.5, 0, last)
    below = np.floor(place).astype(int)
    at = lambda i: np.take_along_axis(ordered, np.minimum(i, last), axis=-1)
    low, high = (np.where(num > 0, at(i), np.nan) for i in (below, below + 1))
    return low + (place - below) * (high - low)


def distribution_distance(
    log_isi: Float[np.ndarray, "*cells quantiles"],
    other: Float[np.ndarray, "*#cells quantiles"],
) -> Float[np.ndarray, "*cells"]:
    """The Wasserstein distance of two distributions of logarithms of intervals.

    It is the mean distance of their quantiles: 0.1 means that intervals differ by 10 %
    on average.
    """
    return np.mean(np.abs(log_isi - other), axis=-1)


def quantiles_of(train: SpikeTrain) -> Float[np.ndarray, " quantiles"]:
    """Quantiles of the logarithms of a recording's intervals (ms)."""
    intervals = train.intervals
    return _quantiles(np.log(intervals[np.isfinite(intervals)]))


def _quantiles(logs):
    return np.quantile(logs, PROBABILITIES, method="hazen")


def agreement_with(
    train: SpikeTrain, span: float, tolerance: float, *, seed: int = 0
) -> Agreement:
    """How nearly neurons that are simulated for `span` ms must fire like a recording.

    Stretches of the recording as long as `span`, or put together from thirds of the
    recording where it is shorter than three spans, show how far features are off by
    chance. A stretch is part of the recording, while neurons are off by chance as the
    whole recording is, too: by so much more, limits are wider than stretches differ.
    Limits are so wide that nine in ten keep all of them, and no narrower than the
    relative `tolerance`.
    """
    rng = np.random.default_rng(seed)
    isi = train.intervals
    isi = isi[np.isfinite(isi)]
    whole = spike_features(train)
    label = int(whole.label)
    values = np.asarray(_logs(whole, label), float)
    stretches = in_batches(
        spike_features, _resampled(rng, isi, span), size=NUM_STRETCHES
    )
    errors = np.asarray(_logs(stretches, label), float) - values
    labels = np.asarray(stretches.label)
    shares = np.bincount(labels, minlength=len(LABELS)) / len(labels)
    patterns = (shares >= MIN_SHARE_OF_PATTERN) | (np.arange(len(LABELS)) == label)
    patterns &= np.arange(len(LABELS)) != SILENT
    known = np.isfinite(errors).all(axis=1) & patterns[labels]
    spread = np.sqrt(np.mean(errors[known] ** 2, axis=0)) if known.any() else 0 * values
    wider = _independent(span / isi.sum())
    scaled = np.abs(errors[known]) / np.where(spread > 0, spread, 1)
    times = np.quantile(scaled.max(axis=1), SHARE_OF_STRETCHES) if known.any() else 0
    agreed = _agreed(label)
    slack = np.zeros(MAX_AGREED)
    slack[: len(agreed)] = [
        x.slack / float(x.read(whole)) if x.slack else 0 for x in agreed
    ]
    least = np.log1p(np.maximum(tolerance, slack))
    return Agreement(
        label,
        patterns,
        values.astype(np.float32),
        np.maximum(wider * times * spread, least).astype(np.float32),
        quantiles_of(train).astype(np.float32),
        float(_furthest(rng, isi, span)),
    )


def _independent(share: float) -> float:
    """How many times further a stretch of its own is from a recording than one that is
    part of it, where both take this share of it."""
    # Independent errors add up, and those of a part go into the whole.
    if share <= LONGEST_SHARE:
        return np.sqrt((1 + share) / (1 - share))
    return np.sqrt(1 + share)  # of parts that are drawn again and again


def _starts(rng, isi, length, num):
    """Where stretches of `length` ms begin and end, in intervals laid in a circle."""
    passed = np.concatenate([[0], np.cumsum(np.concatenate([isi, isi]))])
    first = rng.integers(0, len(isi), num)
    last = np.searchsorted(passed, passed[first] + length, side="right") - 1
    return first, np.maximum(last, first + 1)


def _resampled(rng, isi, span) -> Float[np.ndarray, "trains spikes"]:
    """Trains of stretches that last `span` ms together."""
    length = min(span, LONGEST_SHARE * isi.sum())
    num = max(1, round(span / length))
    first, last = _starts(rng, isi, length, NUM_STRETCHES * num)
    ring = np.concatenate([isi, isi])
    own = [ring[i:j] for i, j in zip(first, last, strict=True)]
    joined = (np.concatenate(own[i : i + num]) for i in range(0, len(own), num))
    trains = [np.concatenate([[0], np.cumsum(x)]) for x in joined]
    width = compiled_size(max(map(len, trains)), NARROWEST)
    return pad_trains(trains, width).astype(np.float32)


def _furthest(rng, isi, span):
    """How far 95 % of stretches are from the rest of the recording at most."""
    length = min(span, LONGEST_SHARE * isi.sum())
    first, last = _starts(rng, isi, length, NUM_STRETCHES)
    logs = np.log(isi)
    ring = np.concatenate([logs, logs])
    apart = [
        np.abs(_quantiles(ring[i:j]) - _quantiles(ring[j : i + len(isi)])).mean()
        for i, j in zip(first, last, strict=True)
    ]
    return np.quantile(apart, 0.95)
