"""What the recording and the members do: spikes, intervals, potentials, features."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, ScalarLike
from matplotlib.figure import Figure

from dicjax.output.plots import layouts, style
from dicjax.spikes import Features, SpikeTrain, V_REARM, V_SPIKE


MANY_CURVES = 40  # members beyond which their curves are drawn as pixels
Trains = Float[ArrayLike, "cells spikes"]  # ms, padded with inf


def plot_raster(
    train: SpikeTrain,
    spike_times: Trains,
    accepted: Bool[ArrayLike, " cells"] | None = None,
    *,
    num: int = 12,
) -> Figure:
    """Spikes of the recording above members' spikes, each from its first whole burst.

    A member's phase is arbitrary, so all rows start where a burst does, or else a
    spike. They show some eight bursts or 25 ISIs.

    - `accepted`: which members are valid, by default all; these come first, the others
        are grey.
    - `num`: how many members to show.
    """
    times = np.asarray(spike_times)
    valid = np.ones(len(times), bool) if accepted is None else np.asarray(accepted)
    shown = np.argsort(~valid, kind="stable")[:num]
    rows, (start, stop) = layouts.raster_of(train, times[shown])
    figure, (ax,) = style.new_panels(0.75 + 0.19 * len(rows), sides=("bottom",))
    members = [style.MEMBERS if valid[i] else style.OTHER for i in shown]
    ys = [0.5, *(-i for i in range(1, len(rows)))]
    for row, y, color in zip(rows, ys, (style.RECORDING, *members), strict=True):
        style.spike_ticks(ax, row, y, 0.62 if y > 0 else 0.38, color)
    ax.set(xlim=(start / 1e3, stop / 1e3), ylim=(-len(rows) + 0.4, 1.25))
    ax.set_xlabel("time (s)")
    ax.set_yticks(ys, ["recording", *(f"member {i}" for i in shown)])
    ax.tick_params(axis="y", length=0, labelcolor=style.MUTED, labelsize=7.5)
    ax.get_yticklabels()[0].set(color=style.RECORDING, size=9)
    return figure


def plot_isis(
    train: SpikeTrain, spike_times: Trains, *, one_by_one: bool = False
) -> Figure:
    """Interspike intervals of the recording and of members.

    On the left, histograms of the recording and of the average member; on the right,
    the share of intervals up to each duration, of the recording and the median member;
    bands hold 90 % of members. With `one_by_one`, the right has a line for each member
    instead, or for some of very many.
    """
    recorded = train.intervals
    members = layouts.intervals_of(np.asarray(spike_times))
    edges = layouts.log_bins([recorded, *members])
    fine = np.geomspace(edges[0], edges[-1], 400)
    figure, (left, right) = style.new_panels(2.6, ncols=2)
    shares = lambda isi: np.repeat(layouts.shares_of(isi, edges), 2)
    up_to = lambda isi: 100 * np.searchsorted(np.sort(isi), fine) / max(len(isi), 1)
    for ax, x, curve, middle in (
        (left, np.repeat(edges, 2)[1:-1], shares, np.mean),
        (right, fine, up_to, np.median),
    ):
        ax.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="ISI (ms)")
        style.name_ticks(ax.xaxis, layouts.round_names(edges[0], edges[-1]))
        if members and ax is right and one_by_one:
            faint: dict[str, Any] = {"color": style.MEMBERS, "lw": 0.7}
            faint["alpha"] = min(0.6, 6 / len(members) ** 0.5)
            faint["rasterized"] = len(members) > MANY_CURVES
            for isi in members[:: -(-len(members) // layouts.MAX_LINES)]:
                ax.plot(x, curve(isi), **faint)
        elif members:
            y = np.stack([curve(isi) for isi in members])
            low, high = np.quantile(y, (0.05, 0.95), axis=0)
            ax.fill_between(x, low, high, color=style.MEMBERS, alpha=0.2, lw=0)
            ax.plot(x, middle(y, axis=0), color=style.MEMBERS, lw=1.5)
        ax.plot(x, curve(recorded), color=style.RECORDING, lw=1.5)
        ax.set_ylim(bottom=0)
    left.set_ylabel("share of ISIs (%)")
    right.set_ylabel("ISIs up to this long (%)")
    key = ("recording", style.RECORDING), ("members (band: 90 %)", style.MEMBERS)
    style.color_key(left, *key)
    return figure


def plot_traces(
    train: SpikeTrain,
    ts: Float[ArrayLike, " times"],
    V: Float[ArrayLike, "cells times"],
    names: Sequence[str] = (),
    *,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> Figure:
    """Simulated potentials of a few members below the spikes of the recording.

    Like a raster, all start at their first whole burst or spike. They show some four
    bursts or 12 ISIs. Times `ts` are in ms, potentials `V` in mV. `V_spike` and
    `V_rearm` are the neuron's.
    """
    ts, levels = np.asarray(ts, np.float64), {"V_spike": V_spike, "V_rearm": V_rearm}
    spikes, lines, (start, stop) = layouts.traces_of(train, ts, np.asarray(V), **levels)
    figure, panels = style.new_panels(
        0.75 + 0.95 * len(lines),
        nrows=1 + len(lines),
        sides=("left",),
        sharex=True,
        height_ratios=(0.3, *np.ones(len(lines))),
        gridspec_kw={"hspace": 0.04},
    )
    top, *below = panels
    style.spike_ticks(top, spikes, 0, 0.8, style.RECORDING)
    top.spines["left"].set_visible(False)
    top.set(ylim=(-0.5, 0.5), xlim=(start / 1e3, stop / 1e3))
    top.set_yticks([0], ["recording"], color=style.RECORDING, size=9)
    for ax in panels[:-1]:
        ax.tick_params(axis="x", length=0)
    top.tick_params(axis="y", length=0)
    titles = itertools.chain(names, itertools.repeat(""))
    colors = itertools.cycle(style.HIGHLIGHTS)
    for ax, line, title, color in zip(below, lines, titles, colors, strict=False):
        x, y = line
        ax.plot(x / 1e3, y, color=color, lw=0.9)
        ax.set(ylim=(-90, 60), yticks=(-80, -40, 0, 40))
        place = {"loc": "left", "y": 0.88, "size": 9, "weight": "bold"}
        ax.set_title(f" {title}", color=color, **place)
    if below:
        figure.supylabel("membrane potential (mV)", color=style.INK, size=9)
    panels[-1].spines["bottom"].set_visible(True)
    panels[-1].set_xlabel("time (s)")
    return figure


def plot_features(
    target: Features,
    features: Features,
    tolerance: float,
    accepted: Bool[ArrayLike, " cells"],
    limits: Mapping[str, float] | None = None,
) -> Figure:
    """What makes members valid: their features, relative to the recording's.

    Shaded is what counts as the same. Members far out are drawn at the edge. `limits`
    are those of an agreement, where members have a drive.
    """
    valid = np.asarray(accepted)
    rows = layouts.compared(target, features, tolerance, limits)
    figure, (ax,) = style.new_panels(0.95 + 0.55 * len(rows), sides=("bottom",))
    edge, ticks = layouts.ratio_axis(rows, tolerance)
    jitter = layouts.jitter_of(len(valid))
    dots: dict[str, Any] = {"s": 9, "alpha": 0.7, "lw": 0, "clip_on": False}
    dots["rasterized"] = len(valid) > style.MAX_VECTOR
    for row, (_, ratio, band) in enumerate(rows):
        ax.fill_betweenx((row - 0.4, row + 0.4), *band, color=style.GRID, lw=0)
        x, known = np.clip(ratio, 1 / edge, edge), np.isfinite(ratio)
        for which, color in ((~valid, style.OTHER), (valid, style.MEMBERS)):
            keep = which & known
            ax.scatter(x[keep], row + jitter[keep], color=color, **dots)
    ax.axvline(1, color=style.RECORDING, lw=1.6, zorder=0.5)
    ax.set(xscale="log", xlim=(1 / edge, edge))
    style.name_rows(ax, [name for name, *_ in rows])
    style.name_ticks(ax.xaxis, ticks)
    ax.set_xlabel("member / recording")
    key = [("recording", style.RECORDING), ("accepted members", style.MEMBERS)]
    if not valid.all():
        key.append(("others", style.MUTED))
    style.color_key(ax, *key)
    return figure
