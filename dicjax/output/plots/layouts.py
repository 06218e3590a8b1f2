"""What figures show, computed once for the report and the app alike."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import ArrayLike, Float, ScalarLike
from matplotlib.ticker import MaxNLocator

from dicjax._core import short
from dicjax.inference import NUM_DRAWS, Posterior
from dicjax.spikes import (
    burst_gap,
    BURSTING,
    Feature,
    FEATURES,
    Features,
    NUM_COMPARED,
    spike_features,
    spike_trains,
    SpikeTrain,
    Target,
)


NUM_GRID = 140  # points along each axis of a posterior
MAX_LINES = 300  # members drawn one by one
SMALLEST = 1e-3  # of the largest conductance: what a logarithm takes for zero
REGIONS = (("90 %", 0.9, 0.2), ("50 %", 0.5, 0.45))  # name, share held, opacity

Conductances = Float[ArrayLike, "cells channels"]  # mS/cm²
Span = tuple[float, float]  # from when to when something is shown, in ms
Line = tuple[np.ndarray, np.ndarray]


def raster_of(
    train: SpikeTrain, spike_times: Iterable[np.ndarray]
) -> tuple[list[np.ndarray], Span]:
    """Spikes (ms) of a recording and of members since their first whole burst."""
    cycle, gap = rhythm(train)
    # One stretch of the recording, since what follows a pause is no rhythm.
    rows = [from_onset(row, gap) for row in (train.longest, *spike_times)]
    stop = span_of(rows, cycle)
    start = -0.015 * stop
    return [row[(row >= start) & (row <= stop)] for row in rows], (start, stop)


def traces_of(
    train: SpikeTrain,
    ts: Float[np.ndarray, " times"],
    V: np.ndarray,
    **levels: ScalarLike,
) -> tuple[np.ndarray, list[Line], Span]:
    """The recording's spikes since its first whole burst, and times and potentials of
    every member since its own; times in ms. `levels` are those of `spike_trains`."""
    cycle, gap = rhythm(train)
    trains = spike_trains(ts, V, **levels) if len(V) else []
    spikes, *rows = [from_onset(x, gap) for x in (train.longest, *trains)]
    stop = span_of([spikes, *rows], 0.5 * cycle)
    start = -0.03 * stop
    lines = []
    for times, row, v in zip(trains, rows, V, strict=True):
        x = ts - float(times[0] - row[0] if len(times) else ts[0])
        keep = (x >= start) & (x <= stop)
        lines.append((x[keep], v[keep]))
    return spikes[(spikes >= start) & (spikes <= stop)], lines, (start, stop)


def rhythm(train: SpikeTrain) -> tuple[float, float]:
    """The time (ms) of eight bursts or 25 ISIs, and the ISI (ms) that parts bursts."""
    features = spike_features(train)
    if int(features.label) != BURSTING:
        return 25 * float(features.mean_isi), np.inf
    return 7.8 * float(features.period), float(burst_gap(features))


def from_onset(times: np.ndarray, gap: float) -> np.ndarray:
    """Times (ms) since the first whole burst, or else the first spike."""
    times = np.asarray(times[np.isfinite(times)], np.float64)
    onset = np.flatnonzero(np.diff(times) > gap)
    return times - (times[onset[0] + 1] if len(onset) else times[:1])


def span_of(rows: list[np.ndarray], wanted: float) -> float:
    """As much of what is wanted as the recording and most members can fill."""
    ends = [row[-1] for row in rows if len(row) > 1]
    if not ends:
        return 1e3
    enough = min(ends[0], float(np.median(ends[1:] or ends)))
    return min(wanted if np.isfinite(wanted) else np.inf, enough)


def spike_path(times: np.ndarray, y: float | int, height: float) -> Line:
    """Spikes (ms) as one line with gaps, which takes far less than a line for each."""
    x = np.stack([times, times, np.full_like(times, np.nan)], axis=1).ravel() / 1e3
    return x, np.tile([y - height, y + height, np.nan], len(times))


def intervals_of(spike_times: Iterable[np.ndarray]) -> list[np.ndarray]:
    """ISIs (ms) of all members that have any."""
    rows = (np.asarray(row, np.float64) for row in spike_times)
    return [isi for row in rows if len(isi := np.diff(row[np.isfinite(row)]))]


def log_bins(intervals: list[np.ndarray]) -> np.ndarray:
    known = [x for x in intervals if len(x)] or [np.array([10.0, 1000.0])]
    ends = [np.quantile(x, (0.005, 0.995)) for x in (known[0], np.concatenate(known))]
    low, high = 0.75 * max(np.min(ends), 0.1), 1.3 * np.max(ends)
    return np.geomspace(low, high, int(np.clip(np.log(high / low) / 0.08, 24, 50)) + 1)


def shares_of(isi: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return 100 * np.histogram(isi, edges)[0] / max(len(isi), 1)


class Allowed(NamedTuple):
    """A feature that decides, and between what members may be.

    It is the ratio (member + ease) / (recording + ease) that lies in the `band`.
    """

    feature: Feature
    ease: float
    band: tuple[float, float]

    def values(self, recorded: float) -> list[float]:
        """The band as values of the feature, given the recorded one."""
        return [(recorded + self.ease) * x - self.ease for x in self.band]


def allowed(
    target: Features, tolerance: float, limits: Mapping[str, float] | None = None
) -> list[Allowed]:
    """What every feature that decides may be.

    `limits` are those of an agreement, by the names of features, in place of the
    `tolerance`.
    """
    if limits is not None:
        return [
            Allowed(FEATURES[name], FEATURES[name].ease, (np.exp(-x), np.exp(x)))
            for name, x in limits.items()
        ]
    wanted = Target(target, tolerance)
    sides = np.array([[-1.0] * NUM_COMPARED, [1.0] * NUM_COMPARED])
    bands = np.exp(sides * np.asarray(wanted.limits(sides)))
    return [
        Allowed(feature, 0.0, (float(low), float(high)))
        for feature, (low, high) in zip(wanted.pattern.compared, bands.T, strict=False)
    ]


def compared(
    target: Features,
    features: Features,
    tolerance: float,
    limits: Mapping[str, float] | None = None,
):
    """Name, member / recording and allowed band of every feature that decides."""
    rows = []
    for feature, ease, band in allowed(target, tolerance, limits):
        recorded = float(feature.read(target))
        values = np.asarray(feature.read(features), np.float64)
        name = f"{feature.words}\n{short(recorded)} {feature.unit}".rstrip()
        rows.append((name, (values + ease) / (recorded + ease), band))
    if not rows:
        raise ValueError(
            "A silent recording has no features to compare members with: choose one "
            "with at least 3 spikes."
        )
    return rows


def ratio_axis(rows, tolerance: float) -> tuple[float, dict[float, str]]:
    """Where an axis of the ratios in `compared` ends, and its ticks with names."""
    edge = max(high for *_, (_, high) in rows) ** 2.2
    ends = [1 + 2 * tolerance, 1 + tolerance]
    ticks = [*(1 / x for x in ends), 1.0, *reversed(ends)]
    return edge, {x: f"{x:.2f}" for x in ticks if 1 / edge < x < edge}


def jitter_of(num: int) -> np.ndarray:
    return 0.27 * np.sin(2.4 * np.arange(num) ** 2)  # the same every time


class Inference(NamedTuple):
    """The log density of a posterior over (g_s, g_u) on a grid, and the least of it in
    each of the `REGIONS`."""

    g_s: np.ndarray
    g_u: np.ndarray
    density: np.ndarray
    floors: np.ndarray
    V_ref: float


def inference_of(posterior: Posterior, dics: np.ndarray, V_ref: float) -> Inference:
    """The first row of a posterior on a grid that holds it and members, whose last two
    columns of `dics` are (g_s, g_u)."""
    cells = {x: getattr(posterior, x)[:1] for x in ("weights", "means", "factors")}
    first = dataclasses.replace(posterior, **cells, distance=None)
    draws = np.asarray(first.sample(jr.key(0), NUM_DRAWS))[0]
    low, high = np.quantile(draws, (0.002, 0.998), axis=0)
    low = np.min([low, *dics[:, -2:]], axis=0)
    high = np.max([high, *dics[:, -2:]], axis=0)
    margin = 0.04 * (high - low)
    x, y = np.linspace(low - margin, high + margin, NUM_GRID, dtype=draws.dtype).T
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(1, -1, 2)
    density = np.asarray(first.log_prob(jnp.asarray(grid)))[0].reshape(NUM_GRID, -1)
    floors = [float(posterior.region(share).floor[0]) for _, share, _ in REGIONS]
    return Inference(x, y, density, np.array(floors), float(V_ref))


def folds_of(
    g: Conductances, highlight: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Conductances over their medians, rows to draw (all, or some evenly spaced), and
    between what most of them and all that are highlighted lie."""
    log_g = logarithms_of(g)
    fold = np.exp(log_g - np.median(log_g, axis=0))
    rows = np.linspace(0, len(fold) - 1, min(len(fold), MAX_LINES))
    far = np.append(np.quantile(fold, (0.01, 0.99), axis=0), fold[list(highlight)])
    ends = min(0.45, float(far.min())), max(2.2, float(far.max()))
    return fold, np.unique(rows.astype(int)), ends


def most_different(g: Conductances, num: int = 3) -> list[int]:
    """Members whose conductances differ most: the two furthest apart, and so on.

    Each is as far as can be from those before it, in logarithms of conductances over
    their standard deviations.
    """
    log_g = logarithms_of(g)
    z = (log_g - log_g.mean(axis=0)) / np.maximum(log_g.std(axis=0), 1e-12)
    chosen = [int(np.argmax(np.sum(z**2, axis=1)))]
    while len(chosen) < min(num, len(z)):
        apart = [np.sum((z - z[i]) ** 2, axis=1) for i in chosen]
        chosen.append(int(np.argmax(np.min(apart, axis=0))))
    return chosen


def correlations_of(g: Conductances) -> Float[np.ndarray, "channels channels"]:
    """Of the logarithms of conductances; nan where a channel does not vary."""
    log_g = logarithms_of(g)
    num = log_g.shape[1]
    r = np.full((num, num), np.nan)
    varies = np.flatnonzero(log_g.std(axis=0) > 0)
    if len(log_g) > 2 and len(varies) > 1:
        r[np.ix_(varies, varies)] = np.corrcoef(log_g[:, varies].T)
    return r


def logarithms_of(g: Conductances) -> np.ndarray:
    g = np.asarray(g, np.float64)
    floor = SMALLEST * g.max(axis=0, initial=0)
    return np.log(np.maximum(np.maximum(g, floor), np.finfo(g.dtype).tiny))


def fold_names(low: float, high: float) -> dict[float, str]:
    """Ticks at ratios between two, and their names."""
    base = next((x for x in (2.0, 4.0) if high / low < x**5.5), 10.0)
    powers = np.arange(np.ceil(np.log(low) / np.log(base)), np.log(high) / np.log(base))
    folds = [base**x for x in powers.tolist()]
    return {x: f"\u00d7{x:g}" if x >= 1 else f"\u00d71/{1 / x:g}" for x in folds}


def round_names(low: float, high: float) -> dict[float, str]:
    """Four ticks or more at round numbers, on however short a logarithmic axis."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    choices = [np.outer(decades, x).ravel() for x in ((1,), (1, 3), (1, 2, 3, 5))]
    choices.append(np.asarray(MaxNLocator(5).tick_values(low, high)))
    inside = [x[(x >= low) & (x <= high)].tolist() for x in choices]
    ticks = next((x for x in inside if len(x) > 3), inside[-1])
    return {x: short(x) for x in ticks}


def signed_part(value: float, digits: int = 2) -> str:
    """A number between -1 and 1 with its sign, such as +.25."""
    if not np.isfinite(value):
        return "\u2013"
    return with_minus(f"{value:+.{digits}f}").replace("0.", ".")


def with_minus(text: str) -> str:
    return text.replace("-", "\u2212")
