"""What figures show, computed once for pages, the report and the app alike."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

from dicjax.output.plots.activity import from_onset, rhythm, span_of
from dicjax.output.plots.population import logarithms_of, MAX_LINES
from dicjax.spikes import spike_trains, SpikeTrain


Span = tuple[float, float]  # from when to when something is shown, in ms
Line = tuple[np.ndarray, np.ndarray]


def raster_of(
    train: SpikeTrain, spike_times: Iterable[np.ndarray]
) -> tuple[list[np.ndarray], Span]:
    """Spikes (ms) of a recording and of members since their first whole burst."""
    cycle, gap = rhythm(train)
    rows = [from_onset(row, gap) for row in (train.times, *spike_times)]
    stop = span_of(rows, cycle)
    start = -0.015 * stop
    return [row[(row >= start) & (row <= stop)] for row in rows], (start, stop)


def traces_of(
    train: SpikeTrain, ts: Float[np.ndarray, " times"], V: np.ndarray
) -> tuple[np.ndarray, list[Line], Span]:
    """The recording's spikes since its first whole burst, and times and potentials of
    every member since its own; times in ms."""
    cycle, gap = rhythm(train)
    trains = spike_trains(ts, V)
    spikes, *rows = [from_onset(x, gap) for x in (train.times, *trains)]
    stop = span_of([spikes, *rows], 0.5 * cycle)
    start = -0.03 * stop
    lines = []
    for times, row, v in zip(trains, rows, V, strict=True):
        x = ts - float(times[0] - row[0] if len(times) else ts[0])
        keep = (x >= start) & (x <= stop)
        lines.append((x[keep], v[keep]))
    return spikes[(spikes >= start) & (spikes <= stop)], lines, (start, stop)


def ratio_axis(rows, tolerance: float) -> tuple[float, dict[float, str]]:
    """Where an axis of the ratios in `compared` ends, and its ticks with names."""
    edge = max(high for *_, (_, high) in rows) ** 2.2
    ends = [1 + 2 * tolerance, 1 + tolerance]
    ticks = [*(1 / x for x in ends), 1.0, *reversed(ends)]
    return edge, {x: f"{x:.2f}" for x in ticks if 1 / edge < x < edge}


def jitter_of(num: int) -> np.ndarray:
    return 0.27 * np.sin(2.4 * np.arange(num) ** 2)  # the same every time


def folds_of(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Conductances over their medians, and rows to draw: all, or some evenly spaced."""
    log_g = logarithms_of(g)
    fold = np.exp(log_g - np.median(log_g, axis=0))
    rows = np.linspace(0, len(g) - 1, min(len(g), MAX_LINES))
    return fold, np.unique(rows.astype(int))


def fold_names(low: float, high: float) -> dict[float, str]:
    """Ticks at ratios between two, and their names."""
    base = 2.0 if high / low < 40 else 10.0
    powers = np.arange(np.ceil(np.log(low) / np.log(base)), np.log(high) / np.log(base))
    folds = [base**x for x in powers.tolist()]
    return {x: f"\u00d7{x:g}" if x >= 1 else f"\u00d71/{1 / x:g}" for x in folds}


def round_ticks(low: float, high: float) -> list[float]:
    """Four ticks or more at round numbers, on however short a logarithmic axis."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    choices = [np.outer(decades, x).ravel() for x in ((1,), (1, 3), (1, 2, 3, 5))]
    choices.append(np.asarray(MaxNLocator(5).tick_values(low, high)))
    inside = [x[(x >= low) & (x <= high)].tolist() for x in choices]
    return next((x for x in inside if len(x) > 3), inside[-1])


def spike_path(times: np.ndarray, y: float | int, height: float) -> Line:
    """Spikes (ms) as one line with gaps, which takes far less than a line for each."""
    x = np.stack([times, times, np.full_like(times, np.nan)], axis=1).ravel() / 1e3
    return x, np.tile([y - height, y + height, np.nan], len(times))


def correlation_words(r: float) -> str:
    if not np.isfinite(r):
        return "\u2013"
    return f"{r:+.2f}".replace("-", "\u2212").replace("0.", ".")
