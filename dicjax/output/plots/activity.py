"""What the recording and the members do: spikes, intervals, potentials, features."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from dicjax._core import compiled_size
from dicjax.output.plots.style import (
    color_key,
    GRID,
    HIGHLIGHTS,
    INK,
    log_ticks,
    MAX_VECTOR,
    MEMBERS,
    MUTED,
    new_axes,
    new_figure,
    OTHER,
    RECORDING,
    short,
    spike_ticks,
    style_axes,
)
from dicjax.spikes import (
    burst_gap,
    BURSTING,
    Features,
    NUM_COMPARED,
    pad_trains,
    spike_features,
    spike_trains,
    SpikeTrain,
    Target,
)


Trains = Float[ArrayLike, "cells spikes"]


def plot_raster(
    train: SpikeTrain,
    spike_times: Trains,
    *,
    accepted: Bool[ArrayLike, " cells"] | None = None,
    num: int = 12,
    span: float | None = None,
) -> Figure:
    """Spikes of the recording above members' spikes, each from its first whole burst.

    A member's phase is arbitrary, so all rows start where a burst does, or else a
    spike.

    **Arguments:**

    - `train`: the recording.
    - `spike_times`: of members, in ms, padded with inf.
    - `accepted`: which of them are valid; these come first, the others are grey.
    - `num`: how many members to show.
    - `span`: how much time to show, in ms; by default some eight bursts or 25 ISIs.
    """
    times = np.asarray(spike_times)
    valid = np.ones(len(times), bool) if accepted is None else np.asarray(accepted)
    shown = np.argsort(~valid, kind="stable")[:num]
    cycle, gap = rhythm(train)
    rows = [from_onset(row, gap) for row in (train.times, *times[shown])]
    span = span_of(rows, cycle) if span is None else span
    figure = new_figure(0.75 + 0.19 * len(rows))
    ax = new_axes(figure, sides=("bottom",))
    lead = 0.015 * span
    for i, row in enumerate(rows):
        row = row[(row >= -lead) & (row <= span)]
        color = RECORDING if i == 0 else MEMBERS if valid[shown[i - 1]] else OTHER
        height, y = (0.62, 0.5) if i == 0 else (0.38, -i)
        spike_ticks(ax, row, y, height, color)
    ax.set(xlim=(-lead / 1e3, span / 1e3), ylim=(-len(rows) + 0.4, 1.25))
    ax.set_xlabel("time (s)")
    ax.set_yticks([0.5, *(-i for i in range(1, len(rows)))])
    ax.set_yticklabels(["recording", *(f"member {i}" for i in shown)])
    ax.tick_params(axis="y", length=0)
    for i, label in enumerate(ax.get_yticklabels()):
        label.set(color=RECORDING if i == 0 else MUTED, size=9 if i == 0 else 7.5)
    return figure


def plot_isis(train: SpikeTrain, spike_times: Trains) -> Figure:
    """Interspike intervals of the recording and of members.

    On the left, histograms of the recording and of the average member; on the right,
    the share of intervals up to each duration, of the recording and the median member;
    bands hold 90 % of members.

    **Arguments:**

    - `train`: the recording.
    - `spike_times`: of members, in ms, padded with inf.
    """
    recorded = np.diff(train.times)
    members = [intervals_of(row) for row in np.asarray(spike_times)]
    members = [isi for isi in members if len(isi)]
    edges = log_bins([recorded, *members])
    fine = np.geomspace(edges[0], edges[-1], 400)
    figure = new_figure(2.6)
    left, right = (new_axes(figure, 1, 2, i) for i in (1, 2))
    shares = lambda isi: np.repeat(shares_of(isi, edges), 2)
    up_to = lambda isi: 100 * np.searchsorted(np.sort(isi), fine) / max(len(isi), 1)
    for ax, x, curve, middle in (
        (left, np.repeat(edges, 2)[1:-1], shares, np.mean),
        (right, fine, up_to, np.median),
    ):
        ax.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="ISI (ms)")
        log_ticks(ax.xaxis, edges[0], edges[-1])
        if members:
            y = np.stack([curve(isi) for isi in members])
            low, high = np.quantile(y, (0.05, 0.95), axis=0)
            ax.fill_between(x, low, high, color=MEMBERS, alpha=0.2, lw=0)
            ax.plot(x, middle(y, axis=0), color=MEMBERS, lw=1.5)
        ax.plot(x, curve(recorded), color=RECORDING, lw=1.5)
        ax.set_ylim(bottom=0)
    left.set_ylabel("share of ISIs (%)")
    right.set_ylabel("ISIs up to this long (%)")
    color_key(left, ("recording", RECORDING), ("members (band: 90 %)", MEMBERS))
    return figure


def plot_traces(
    train: SpikeTrain,
    ts: Float[ArrayLike, " times"],
    V: Float[ArrayLike, "cells times"],
    *,
    names: Sequence[str] = (),
    span: float | None = None,
) -> Figure:
    """Simulated potentials of a few members below the spikes of the recording.

    Like a raster, all start at their first whole burst or spike.

    **Arguments:**

    - `train`: the recording.
    - `ts`: times, in ms.
    - `V`: potentials, in mV, one row per member.
    - `names`: what to call the members.
    - `span`: how much time to show, in ms; by default some four bursts or 12 ISIs.
    """
    ts, V = np.asarray(ts, np.float64), np.asarray(V)
    spikes, onsets, fitting = aligned(train, ts, V)
    span = fitting if span is None else span
    lead = 0.03 * span
    figure = new_figure(0.75 + 0.95 * len(V))
    ratios = (0.3, *np.ones(len(V)))
    grid = figure.add_gridspec(1 + len(V), 1, height_ratios=ratios, hspace=0.04)
    top = style_axes(figure.add_subplot(grid[0]), sides=())
    ticks = spikes[(spikes >= -lead) & (spikes <= span)]
    spike_ticks(top, ticks, 0, 0.8, RECORDING)
    top.set(ylim=(-0.5, 0.5), xlim=(-lead / 1e3, span / 1e3))
    top.set_yticks([0], ["recording"], color=RECORDING, size=9)
    top.tick_params(length=0, labelbottom=False)
    ax = top
    for i, v in enumerate(V):
        last = i == len(V) - 1
        sides = ("left", "bottom") if last else ("left",)
        ax = style_axes(figure.add_subplot(grid[i + 1], sharex=top), sides=sides)
        onset = onsets[i]
        keep = (ts >= onset - lead) & (ts <= onset + span)
        color = HIGHLIGHTS[i % len(HIGHLIGHTS)]
        ax.plot((ts[keep] - onset) / 1e3, v[keep], color=color, lw=0.9)
        ax.set(ylim=(-90, 60), yticks=(-80, -40, 0, 40))
        ax.tick_params(axis="x", bottom=last, labelbottom=last)
        if i < len(names):
            ax.set_title(
                f" {names[i]}", color=color, size=9, weight="bold", loc="left", y=0.88
            )
    figure.supylabel("membrane potential (mV)", color=INK, size=9)
    ax.set_xlabel("time (s)")
    return figure


def plot_features(
    target: Features,
    features: Features,
    tolerance: float,
    accepted: Bool[ArrayLike, " cells"],
) -> Figure:
    """What makes members valid: their features, relative to the recording's.

    Shaded is what counts as the same. Members far out are drawn at the edge.

    **Arguments:**

    - `target`: of the recording.
    - `features`: of members.
    - `tolerance`: largest relative difference of a valid member.
    - `accepted`: which members are valid.
    """
    valid = np.asarray(accepted)
    rows = compared(target, features, tolerance)
    figure = new_figure(0.95 + 0.55 * len(rows))
    ax = new_axes(figure, sides=("bottom",))
    edge = max(high for *_, (_, high) in rows) ** 2.2
    jitter = 0.27 * np.sin(2.4 * np.arange(len(valid)) ** 2)  # the same every time
    for row, (_, ratio, band) in enumerate(rows):
        ax.fill_betweenx((row - 0.4, row + 0.4), *band, color=GRID, lw=0)
        known = np.isfinite(ratio)
        for keep, color in ((known & ~valid, OTHER), (known & valid, MEMBERS)):
            ax.scatter(
                np.clip(ratio[keep], 1 / edge, edge),
                row + jitter[keep],
                s=9,
                color=color,
                alpha=0.7,
                lw=0,
                clip_on=False,
                rasterized=len(valid) > MAX_VECTOR,
            )
    ax.axvline(1, color=RECORDING, lw=1.6, zorder=0.5)
    ax.set(xscale="log", xlim=(1 / edge, edge), ylim=(len(rows) - 0.5, -0.5))
    ticks = [1 / (1 + 2 * tolerance), 1 / (1 + tolerance), 1, 1 + tolerance]
    ticks = [x for x in (*ticks, 1 + 2 * tolerance) if 1 / edge < x < edge]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.2f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("member / recording")
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    ax.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    key = [("recording", RECORDING), ("accepted members", MEMBERS)]
    if (~valid).any():
        key.append(("others", MUTED))
    color_key(ax, *key)
    return figure


def rhythm(train: SpikeTrain) -> tuple[float, float]:
    """The time (ms) of eight bursts or 25 ISIs, and the ISI (ms) that parts bursts."""
    width = compiled_size(train.num_spikes, 128)
    features = spike_features(pad_trains([train], width))
    if int(features.label[0]) != BURSTING:
        return 25 * float(features.mean_isi[0]), np.inf
    return 7.8 * float(features.period[0]), float(burst_gap(features)[0])


def from_onset(times: np.ndarray, gap: float) -> np.ndarray:
    """Times (ms) since the first whole burst, or else the first spike."""
    times = np.asarray(times[np.isfinite(times)], np.float64)
    onset = np.flatnonzero(np.diff(times) > gap)
    return times - (times[onset[0] + 1] if len(onset) else times[:1])


def aligned(
    train: SpikeTrain, ts: Float[np.ndarray, " times"], V: np.ndarray
) -> tuple[np.ndarray, list[float], float]:
    """The recording's spikes since its first whole burst, the time at which the first
    whole burst of each potential begins, and how much time to show, all in ms."""
    cycle, gap = rhythm(train)
    trains = spike_trains(ts, V)
    rows = [from_onset(x, gap) for x in (train.times, *trains)]
    onsets = [
        float(x[0] - row[0] if len(x) else ts[0])
        for x, row in zip(trains, rows[1:], strict=True)
    ]
    return rows[0], onsets, span_of(rows, 0.5 * cycle)


def span_of(rows: list[np.ndarray], wanted: float) -> float:
    """As much of what is wanted as the recording and most members can fill."""
    ends = [row[-1] for row in rows if len(row) > 1]
    if not ends:
        return 1e3
    enough = min(ends[0], float(np.median(ends[1:] or ends)))
    return min(wanted if np.isfinite(wanted) else np.inf, enough)


def intervals_of(row: np.ndarray) -> np.ndarray:
    return np.diff(row[np.isfinite(row)].astype(np.float64))


def log_bins(intervals: list[np.ndarray]) -> np.ndarray:
    known = [x for x in intervals if len(x)] or [np.array([10.0, 1000.0])]
    low = min(np.quantile(known[0], 0.005), np.quantile(np.concatenate(known), 0.005))
    high = max(np.quantile(known[0], 0.995), np.quantile(np.concatenate(known), 0.995))
    low, high = 0.75 * max(low, 0.1), 1.3 * high
    return np.geomspace(low, high, int(np.clip(np.log(high / low) / 0.08, 24, 50)) + 1)


def shares_of(isi: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return 100 * np.histogram(isi, edges)[0] / max(len(isi), 1)


def compared(target: Features, features: Features, tolerance: float):
    """Name, member / recording and tolerated band of every feature that decides."""
    rows = []
    wanted = Target(target, tolerance)
    sides = np.array([[-1.0] * NUM_COMPARED, [1.0] * NUM_COMPARED])
    bands = np.exp(sides * np.asarray(wanted.limits(sides)))
    for feature, band in zip(wanted.pattern.compared, bands.T, strict=False):
        recorded = float(feature.read(target))
        ratio = np.asarray(feature.read(features), np.float64) / recorded
        name = f"{feature.words}\n{short(recorded)} {feature.unit}".rstrip()
        rows.append((name, ratio, tuple(band)))
    if not rows:
        raise ValueError(
            "A silent recording has no features to compare members with: choose one "
            "with at least 3 spikes."
        )
    return rows
