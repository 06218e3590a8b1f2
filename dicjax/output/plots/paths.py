"""Figures of populations that are led or refined."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dicjax.output.plots.style import (
    color_key,
    fold_ticks,
    HIGHLIGHTS,
    INK,
    MEMBERS,
    MUTED,
    new_figure,
    OTHER,
    RECORDING,
    style_axes,
)
from dicjax.populations import Path
from dicjax.spikes import LABELS


PATTERNS = dict(zip(LABELS, (OTHER, MEMBERS, RECORDING, HIGHLIGHTS[1]), strict=True))
SMALLEST = 1e-12  # mS/cm²


def plot_path(path: Path) -> Figure:
    """How conductances change along a path, and what members fire like on it.

    Above, of every channel that changes, the conductance relative to the median at the
    first waypoint: its median and where 5 % and 95 % of members lie. Below, the share
    of members that fire in each pattern; the line is the share that is valid.
    """
    g = np.maximum(path.g, SMALLEST)
    fold = g / np.median(g[0], axis=0)
    moves = np.abs(np.log(np.median(fold, axis=1))).max(axis=0)
    # Of the channels that change, those that change most.
    shown = [i for i in np.argsort(-moves)[: len(HIGHLIGHTS)] if moves[i] > 0.02]
    figure = new_figure(4.2)
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 2))
    ax, below = (style_axes(figure.add_subplot(grid[i])) for i in range(2))
    x = np.arange(1, len(g) + 1)
    low = high = 1.0
    for i, color in zip(shown, HIGHLIGHTS, strict=False):
        bottom, middle, top = np.quantile(fold[:, :, i], (0.05, 0.5, 0.95), axis=1)
        ax.fill_between(x, bottom, top, color=color, alpha=0.18, lw=0)
        ax.plot(x, middle, color=color, lw=1.6, marker="o", ms=3.5)
        low, high = min(low, bottom.min()), max(high, top.max())
    low, high = max(low, 0.02) / 1.2, min(high, 50) * 1.2
    ax.set(yscale="log", ylim=(low, high), xlim=(0.5, len(g) + 0.5))
    fold_ticks(ax.yaxis, low, high)
    ax.set_ylabel("conductance / median at the start")
    ax.set_xticks([])
    names = path.neuron.channel_names
    color_key(ax, *((names[i], c) for i, c in zip(shown, HIGHLIGHTS, strict=False)))
    _patterns(below, x, path)
    return figure


def _patterns(ax, x, path: Path) -> None:
    start = np.zeros(len(x))
    for label, color in PATTERNS.items():
        share = 100 * (path.labels == LABELS.index(label)).mean(axis=1)
        ax.bar(x, share, bottom=start, color=color, width=0.7, alpha=0.75, lw=0)
        start += share
    ax.plot(x, 100 * path.valid.mean(axis=1), color=INK, lw=1.4, marker="o", ms=3.5)
    ax.set(ylim=(0, 104), xlim=(0.5, len(x) + 0.5))
    ax.set_ylabel("members (%)")
    points = [f"{s:.3g}, {u:.3g}".replace("-", "\u2212") for s, u in path.targets]
    every = -(-len(x) // 10)
    ax.set_xticks(x[::every], points[::every])
    ax.set_xlabel("waypoint: $g_\\mathrm{s}$, $g_\\mathrm{u}$ (dimensionless)")
    found = [LABELS[i] for i in np.unique(path.labels)]
    color_key(ax, *((name, PATTERNS[name]) for name in found), ("valid", INK))


def plot_refinement(shares: dict[str, dict[str, Sequence[float]]]) -> Figure:
    """Shares of valid members over rounds of refinement, a line for each method.

    **Arguments:**

    - `shares`: of members, before and after every round, by the title of a panel and
        the name of a method.
    """
    figure = new_figure(3.0)
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    colors = (*HIGHLIGHTS, RECORDING, MUTED)
    for ax, (title, methods) in zip(panels, shares.items(), strict=True):
        style_axes(ax)
        for share, color in zip(methods.values(), colors, strict=False):
            ax.plot(100 * np.asarray(share), color=color, lw=1.6, marker="o", ms=4)
        ax.set(ylim=(0, 103), xlabel="rounds")
        ax.set_xticks(range(max(map(len, methods.values()))))
        ax.set_title(title, size=9, color=INK, loc="right")
    panels[0].set_ylabel("valid members (%)")
    names = next(iter(shares.values()))
    for row, (name, color) in enumerate(zip(names, colors, strict=False)):
        at = (0.97, 0.06 + 0.09 * (len(names) - 1 - row))
        text = {"color": color, "size": 9, "weight": "bold", "ha": "right"}
        panels[0].text(*at, name, transform=panels[0].transAxes, **text)
    return figure
