"""What explains a population: shares of DICs, what is reachable, what is sloppy."""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dicjax.output.plots import layouts, style
from dicjax.populations import Attribution, Identifiability, reach, ReachabilityMap
from dicjax.spikes import BURSTING, IRREGULAR, LABELS, SILENT, TONIC


LABEL_COLORS = {
    SILENT: style.OTHER,
    TONIC: style.HIGHLIGHTS[1],
    BURSTING: style.MEMBERS,
    IRREGULAR: style.HIGHLIGHTS[2],
}
FAINTEST = 0.25  # opacity of a point that hardly any member could be built at
FACTORS = (1.001, 1.003, 1.01, 1.03, 1.1, 1.3, 2, 10, 1000)  # ticks, as there is room
FURTHEST = np.log(1000.0)  # drawn at the edge beyond this factor


def plot_attribution(attribution: Attribution) -> Figure:
    """What every channel adds to each input conductance, and their sum.

    Bars are medians over members, lines hold 90 % of members.
    """
    names = (*attribution.channel_names, "sum")
    x = np.append(np.arange(len(names) - 1), len(names) - 0.5)
    figure, panels = style.new_panels(4.6, nrows=3, sides=("left",), sharex=True)
    kinds = ("fast", "f"), ("slow", "s"), ("ultraslow", "u")
    quantiles = zip(*attribution.quantiles(0.05, 0.5, 0.95), strict=True)
    for ax, (kind, letter), of in zip(panels, kinds, quantiles, strict=True):
        low, middle, high = of
        colors = [(style.MEMBERS, 0.4) if y >= 0 else style.MEMBERS for y in middle]
        lines = [style.INK] * (len(names) - 1) + [style.MUTED]
        ax.bar(x, middle, 0.62, color=style.PAPER, lw=0)  # hides the grid behind tints
        ax.bar(x, middle, 0.62, color=[*colors[:-1], style.INK], lw=0)
        ax.vlines(x, low, high, color=lines, lw=1.1)
        ax.axhline(0, color=style.MUTED, lw=0.8)
        ax.set_xlim(-0.6, x[-1] + 0.6)
        ax.margins(y=0.12)
        ax.set_ylabel(f"{kind} $g_\\mathrm{{{letter}}}$")
        style.name_columns(ax, x, names)
    figure.align_ylabels()
    known = attribution.V[np.isfinite(attribution.V)]
    where = f"at {known[0]:g} mV"
    if np.ptp(known):
        where = "at each member's own potential"
    label = f"share of each channel {where} (dimensionless)"
    panels[-1].set_xlabel(layouts.with_minus(label))
    style.color_key(
        panels[0],
        ("restores (positive)", (style.MEMBERS, 0.6)),
        ("regenerates (negative)", style.MEMBERS),
        ("lines: 90 % of members", style.MUTED),
    )
    return figure


def plot_reachability(
    mapped: ReachabilityMap, dics: Float[ArrayLike, "cells dics"] | None = None
) -> Figure:
    """What neurons with given slow and ultraslow input conductances fire like.

    Colours are the commonest pattern, the paler, the fewer members could be built;
    hatched is what none could reach. Members are drawn on top: the last two columns of
    `dics` are their (g_s, g_u) at the map's potential.
    """
    x, y = _edges(mapped.g_s), _edges(mapped.g_u)
    figure, (ax,) = style.new_panels(3.9, 0.8 * style.WIDTH)
    ax.patch.set(facecolor=style.PAPER, edgecolor=style.GRID, hatch="////", lw=0)
    for i, j in np.argwhere(mapped.is_reached):
        corner, width, height = (x[i], y[j]), x[i + 1] - x[i], y[j + 1] - y[j]
        label, share = int(mapped.commonest[i, j]), float(mapped.share[i, j])
        opacity = FAINTEST + (1 - FAINTEST) * share
        tint = (LABEL_COLORS.get(label, style.MUTED), opacity)
        for color in (style.PAPER, tint):  # paper hides the hatching
            cell = Rectangle(corner, width, height, facecolor=color)
            ax.add_patch(cell).set(edgecolor=style.PAPER, lw=0.6)
    key = [
        (LABELS[x], color if x != SILENT else style.MUTED)
        for x, color in LABEL_COLORS.items()
        if (mapped.commonest == x).any()
    ]
    if not mapped.is_reached.all():
        key.append(("hatched: none could be built", style.MUTED))
    if dics is not None:
        points = np.asarray(dics)[:, -2:]
        many = len(points) > style.MAX_VECTOR
        edge = {"edgecolor": style.PAPER, "lw": 0.5}
        ax.scatter(*points.T, s=14, color=style.INK, rasterized=many, zorder=3, **edge)
        key.append(("members", style.INK))
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    style.name_dics(ax, layouts.with_minus(f"at {mapped.V_ref:g} mV "))
    style.color_key(ax, *key)
    return figure


def plot_identifiability(identifiability: Identifiability) -> Figure:
    """How far conductances may change along every direction before spikes change.

    On the left, by what factor, for all members at once and for members one by one
    (lines hold 90 % of them); on the right, what each direction consists of: orange
    grows where blue shrinks. Filled dots are directions that spikes constrain.
    """
    figure, (left, right) = style.new_panels(
        0.9 + 0.3 * len(identifiability.channel_names),
        ncols=2,
        sides=("bottom",),
        width_ratios=(1, 1.15),
        gridspec_kw={"wspace": 0.03},
    )
    _draw_reach(left, identifiability)
    _draw_directions(right, identifiability)
    return figure


def _edges(axis: np.ndarray) -> list[float]:
    if len(axis) == 1:
        return [float(axis[0]) - 0.5, float(axis[0]) + 0.5]
    middle = (axis[1:] + axis[:-1]) / 2
    ends = 2 * axis[0] - middle[0], 2 * axis[-1] - middle[-1]
    return [float(x) for x in (ends[0], *middle, ends[1])]


def _draw_reach(ax: Axes, of: Identifiability) -> None:
    rows = np.arange(len(of.eigenvalues))
    alone = np.quantile(reach(of.spectra), (0.05, 0.5, 0.95), axis=0, method="nearest")
    shown = np.concatenate([of.reach, alone.ravel()])
    shown = shown[np.isfinite(shown)]
    low = 0.7 * min(shown.min(initial=0.1), 0.1)
    edge = min(max(1.6 * shown.max(initial=1.0), np.log(2)), FURTHEST)
    for row in np.flatnonzero(np.isfinite(alone[1])):
        ends = np.minimum(alone[[0, 2], row], edge)
        ax.plot(ends, (row + 0.22,) * 2, color=style.OTHER, lw=2, solid_capstyle="butt")
    is_stiff = rows < of.num_constrained
    dots: dict[str, Any] = {"s": 34, "lw": 1.4, "clip_on": False, "zorder": 3}
    for keep, face in ((is_stiff, style.MEMBERS), (~is_stiff, style.PAPER)):
        at = np.minimum(of.reach[keep], edge), rows[keep]
        ax.scatter(*at, facecolor=face, edgecolor=style.MEMBERS, **dots)
    for row in np.flatnonzero(of.reach > edge):
        ax.text(edge, row - 0.3, "further", color=style.MUTED, size=8, ha="right")
    ax.set(xscale="log", xlim=(low, edge))
    names = {np.log(x): f"\u00d7{x:g}" for x in FACTORS}
    inside = {x: name for x, name in names.items() if low <= x <= edge}
    style.name_ticks(ax.xaxis, inside)
    ax.set_xlabel("factor by which conductances change unseen")
    style.name_rows(ax, [str(row + 1) for row in rows])
    ax.set_ylabel("direction, from stiff to sloppy")
    ax.grid(axis="y", color=style.GRID, lw=0.8)
    ax.set_axisbelow(True)
    key = ("all members at once", style.MEMBERS), ("one by one (90 %)", style.MUTED)
    style.color_key(ax, *key)


def _draw_directions(ax: Axes, of: Identifiability) -> None:
    num = len(of.eigenvalues)
    for (row, column), value in np.ndenumerate(of.directions):
        text = layouts.signed_part(value, 1) if abs(value) >= 0.095 else ""
        style.signed_square(ax, column, row, value, text)
    ax.set(xlim=(-0.5, num - 0.5), ylim=(num - 0.5, -0.5))
    ax.set_xticks(range(num), of.channel_names)
    ax.set_yticks([])
    ax.tick_params(length=0, labelcolor=style.INK, labelsize=9)
    ax.spines["bottom"].set_visible(False)
    against = ("while these shrink, or all reversed", style.MEMBERS)
    style.color_key(ax, ("grow", style.RECORDING), against)
