"""What explains a population: shares of DICs, what is reachable, what is sloppy."""

import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from dicjax.output.plots.style import (
    color_key,
    GRID,
    HIGHLIGHTS,
    INK,
    MAX_VECTOR,
    MEMBERS,
    MUTED,
    new_axes,
    new_figure,
    OTHER,
    PAPER,
    RECORDING,
    style_axes,
    WIDTH,
)
from dicjax.populations import Attribution, Identifiability, reach, ReachabilityMap
from dicjax.spikes import BURSTING, IRREGULAR, LABELS, SILENT, TONIC


LABEL_COLORS = {
    SILENT: OTHER,
    TONIC: HIGHLIGHTS[1],
    BURSTING: MEMBERS,
    IRREGULAR: HIGHLIGHTS[2],
}
FAINTEST = 0.25  # opacity of a point that hardly any member could be built at
FACTORS = (1.001, 1.003, 1.01, 1.03, 1.1, 1.3, 2, 10, 1000)  # ticks, as there is room
FURTHEST = np.log(1000.0)  # drawn at the edge beyond this factor


def plot_attribution(attribution: Attribution) -> Figure:
    """What every channel adds to each input conductance, and their sum.

    Bars are medians over members, lines hold 90 % of members.

    **Arguments:**

    - `attribution`: of a population.
    """
    low, middle, high = attribution.quantiles(0.05, 0.5, 0.95)
    names = (*attribution.channel_names, "sum")
    x = np.append(np.arange(len(names) - 1), len(names) - 0.5)
    figure = new_figure(4.6)
    panels = [new_axes(figure, 3, 1, i, sides=("left",)) for i in (1, 2, 3)]
    symbols = ("$g_\\mathrm{f}$", "$g_\\mathrm{s}$", "$g_\\mathrm{u}$")
    kinds = ("fast", "slow", "ultraslow")
    for k, ax in enumerate(panels):
        colors = [(MEMBERS, 0.4) if y >= 0 else MEMBERS for y in middle[k]]
        ax.bar(x, middle[k], 0.62, color=PAPER, lw=0)  # hides the grid behind tints
        ax.bar(x, middle[k], 0.62, color=[*colors[:-1], INK], lw=0)
        ax.vlines(x[:-1], low[k, :-1], high[k, :-1], color=INK, lw=1.1)
        ax.vlines(x[-1:], low[k, -1:], high[k, -1:], color=MUTED, lw=1.1)
        ax.axhline(0, color=MUTED, lw=0.8)
        ax.set_xlim(-0.6, x[-1] + 0.6)
        ax.margins(y=0.12)
        ax.set_ylabel(f"{kinds[k]} {symbols[k]}")
        ax.set_xticks(x, names if k == 2 else [""] * len(names), size=10)
        ax.tick_params(axis="x", length=0)
        ax.grid(axis="x", color=GRID, lw=0.8)
        ax.set_axisbelow(True)
    figure.align_ylabels()
    where = _potential(attribution.V)
    panels[-1].set_xlabel(f"share of each channel {where} (dimensionless)")
    color_key(
        panels[0],
        ("restores (positive)", (MEMBERS, 0.6)),
        ("regenerates (negative)", MEMBERS),
        ("lines: 90 % of members", MUTED),
    )
    return figure


def plot_reachability(
    mapped: ReachabilityMap, dics: Float[ArrayLike, "cells dics"] | None = None
) -> Figure:
    """What neurons with given slow and ultraslow input conductances fire like.

    Colours are the commonest pattern, the paler, the fewer members could be built;
    hatched is what none could reach.

    **Arguments:**

    - `mapped`: the map.
    - `dics`: of members to draw on top; their last two columns are (g_s, g_u) at the
        map's potential.
    """
    x, y = _edges(mapped.g_s), _edges(mapped.g_u)
    figure = new_figure(3.9, 0.8 * WIDTH)
    ax = new_axes(figure)
    ax.add_patch(
        Rectangle(
            (x[0], y[0]),
            x[-1] - x[0],
            y[-1] - y[0],
            facecolor=PAPER,
            edgecolor=GRID,
            hatch="////",
            lw=0,
            zorder=0,
        )
    )
    for i, j in np.argwhere(mapped.is_reached):
        corner, width, height = (x[i], y[j]), x[i + 1] - x[i], y[j + 1] - y[j]
        label, share = int(mapped.commonest[i, j]), float(mapped.share[i, j])
        ax.add_patch(Rectangle(corner, width, height, facecolor=PAPER, lw=0, zorder=1))
        tint = (LABEL_COLORS.get(label, MUTED), FAINTEST + (1 - FAINTEST) * share)
        cell = Rectangle(corner, width, height, facecolor=tint, edgecolor=PAPER, lw=0.6)
        ax.add_patch(cell)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    if dics is not None:
        points = np.asarray(dics)[:, -2:]
        many = len(points) > MAX_VECTOR
        edge = {"edgecolor": PAPER, "lw": 0.5}
        ax.scatter(*points.T, s=14, color=INK, rasterized=many, zorder=3, **edge)
    at = f"at {mapped.V_ref:g} mV".replace("-", "\u2212")
    ax.set_xlabel(f"slow input conductance $g_\\mathrm{{s}}$ {at} (dimensionless)")
    ax.set_ylabel("ultraslow input conductance $g_\\mathrm{u}$")
    color_key(ax, *_colors_in_words(mapped, dics is not None))
    return figure


def plot_identifiability(identifiability: Identifiability) -> Figure:
    """How far conductances may change along every direction before spikes change.

    On the left, by what factor, for all members at once and for members one by one
    (lines hold 90 % of them); on the right, what each direction consists of: orange
    grows where blue shrinks. Filled dots are directions that spikes constrain.

    **Arguments:**

    - `identifiability`: of a population.
    """
    num = len(identifiability.channel_names)
    figure = new_figure(0.9 + 0.3 * num)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.15), wspace=0.03)
    left, right = (style_axes(figure.add_subplot(x), ("bottom",)) for x in grid)
    _draw_reach(left, identifiability)
    _draw_directions(right, identifiability)
    return figure


def _potential(V: Float[np.ndarray, " cells"]) -> str:
    known = V[np.isfinite(V)]
    if np.ptp(known):
        return "at each member's own potential"
    return f"at {known[0]:g} mV".replace("-", "\u2212")


def _edges(axis: np.ndarray) -> list[float]:
    if len(axis) == 1:
        return [float(axis[0]) - 0.5, float(axis[0]) + 0.5]
    middle = (axis[1:] + axis[:-1]) / 2
    first, last = axis[0] - (middle[0] - axis[0]), axis[-1] + (axis[-1] - middle[-1])
    return [float(x) for x in (first, *middle, last)]


def _colors_in_words(mapped: ReachabilityMap, with_members: bool):
    shown = [x for x in LABEL_COLORS if (mapped.commonest == x).any()]
    key = [(LABELS[x], LABEL_COLORS[x] if x != SILENT else MUTED) for x in shown]
    if not mapped.is_reached.all():
        key.append(("hatched: none could be built", MUTED))
    if with_members:
        key.append(("members", INK))
    return key


def _draw_reach(ax: Axes, of: Identifiability) -> None:
    rows = np.arange(len(of.eigenvalues))
    alone = np.quantile(reach(of.spectra), (0.05, 0.5, 0.95), axis=0, method="nearest")
    shown = np.concatenate([of.reach, alone.ravel()])
    shown = shown[np.isfinite(shown)]
    low = 0.7 * min(shown.min(initial=0.1), 0.1)
    edge = min(max(1.6 * shown.max(initial=1.0), np.log(2)), FURTHEST)
    clipped = lambda d: np.minimum(d, edge)
    for row in np.flatnonzero(np.isfinite(alone[1])):
        ends = clipped(alone[[0, 2], row])
        ax.plot(ends, (row + 0.22,) * 2, color=OTHER, lw=2, solid_capstyle="butt")
    is_stiff = rows < of.num_constrained
    for keep, face in ((is_stiff, MEMBERS), (~is_stiff, PAPER)):
        ax.scatter(
            clipped(of.reach[keep]),
            rows[keep],
            s=34,
            facecolor=face,
            edgecolor=MEMBERS,
            lw=1.4,
            clip_on=False,
            zorder=3,
        )
    for row in np.flatnonzero(of.reach > edge):
        ax.text(edge, row - 0.3, "further", color=MUTED, size=8, ha="right")
    ax.set(xscale="log", xlim=(low, edge), ylim=(len(rows) - 0.5, -0.5))
    ticks = [x for x in FACTORS if low <= np.log(x) <= edge]
    ax.xaxis.set_major_locator(FixedLocator([float(np.log(x)) for x in ticks]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"\u00d7{np.exp(x):.4g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("factor by which conductances change unseen")
    ax.set_yticks(rows, [str(row + 1) for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("direction, from stiff to sloppy")
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    color_key(ax, ("all members at once", MEMBERS), ("one by one (90 %)", MUTED))


def _draw_directions(ax: Axes, of: Identifiability) -> None:
    num = len(of.eigenvalues)
    for row, column in np.ndindex(num, num):
        value = float(of.directions[row, column])
        face = (RECORDING if value > 0 else MEMBERS, min(abs(value), 1.0))
        ax.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=face))
        if abs(value) >= 0.095:
            text = f"{value:+.1f}".replace("-", "\u2212").replace("0.", ".")
            ink = PAPER if abs(value) > 0.72 else INK
            place = {"color": ink, "size": 7.5, "ha": "center", "va": "center"}
            ax.text(column, row, text, **place)
    ax.set(xlim=(-0.5, num - 0.5), ylim=(num - 0.5, -0.5))
    ax.set_xticks(range(num), of.channel_names)
    ax.set_yticks([])
    ax.tick_params(length=0, labelcolor=INK, labelsize=9)
    ax.spines["bottom"].set_visible(False)
    color_key(ax, ("grow", RECORDING), ("while these shrink, or all reversed", MEMBERS))
