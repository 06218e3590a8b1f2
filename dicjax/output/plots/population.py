"""What the members are: their DICs and conductances, and how they were found."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.figure import Figure

from dicjax._core import short
from dicjax.generation import Round
from dicjax.inference import Posterior
from dicjax.neurons import Neuron
from dicjax.output.plots import layouts, style
from dicjax.populations import wilson
from dicjax.simulation import Drive


def plot_posterior(
    posterior: Posterior, dics: Float[ArrayLike, "cells dics"], V_ref: float
) -> Figure:
    """The posterior of one recording over (g_s, g_u), with members on top.

    Contours are calibrated: the one of 90 % holds the truth for 90 % of cells on which
    this was tried.

    - `posterior`: its first row is shown.
    - `dics`: of members, at the potential `V_ref` (mV); their last two columns are
        (g_s, g_u).
    """
    points = np.asarray(dics)[:, -2:]
    x, y, density, (outer, inner), _ = layouts.inference_of(posterior, points, V_ref)
    figure, (above, corner, ax, beside) = style.new_panels(
        4.2,
        0.66 * style.WIDTH,
        nrows=2,
        ncols=2,
        width_ratios=(4, 1),
        height_ratios=(1, 4),
        gridspec_kw={"wspace": 0.02, "hspace": 0.02},
    )
    corner.remove()
    if outer < inner < density.max():
        names, _, opacities = zip(*layouts.REGIONS, strict=True)
        tints = [(style.RECORDING, opacity) for opacity in opacities]
        ax.contourf(x, y, density, [outer, inner, density.max()], colors=tints)
        floors = dict(zip((outer, inner), names, strict=True))
        red = {"colors": style.RECORDING, "linestyles": "-", "linewidths": 1}
        lines = ax.contour(x, y, density, list(floors), **red)
        ax.clabel(lines, fmt=floors, fontsize=8, colors=style.INK)
    many = len(points) > style.MAX_VECTOR
    ax.scatter(*points.T, s=9, color=style.MEMBERS, alpha=0.6, lw=0, rasterized=many)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    style.name_dics(ax)
    outline: dict[str, Any] = {"histtype": "step", "color": style.MEMBERS, "lw": 1.2}
    outline |= {"bins": 12, "density": True}
    probability = np.exp(density)
    for side, value, axis in ((above, x, 0), (beside, y, 1)):
        marginal = probability.sum(axis=axis)
        marginal /= marginal.sum() * (value[1] - value[0])
        fill = side.fill_between if axis == 0 else side.fill_betweenx
        fill(value, marginal, color=style.RECORDING, alpha=0.3, lw=0)
        if len(points) > 1:
            outline["orientation"] = "horizontal" if axis else "vertical"
            side.hist(points[:, axis], **outline)
        side.set_axis_off()
    above.set_xlim(ax.get_xlim())
    beside.set_ylim(ax.get_ylim())
    at = layouts.with_minus(f"posterior at {V_ref:g} mV")
    style.color_key(above, (at, style.RECORDING), ("members", style.MEMBERS))
    return figure


def plot_conductances(
    neuron: Neuron, g: layouts.Conductances, highlight: Sequence[int] = ()
) -> Figure:
    """How far members spread in every conductance, each line a member.

    Conductances are relative to their median, on a logarithmic axis that all channels
    share; the numbers say where 5 % and 95 % of members lie, in mS/cm².

    `highlight` names at most three members to draw in colours of their own.
    """
    g = np.asarray(g, np.float64)
    fold, shown, (bottom, top) = layouts.folds_of(g, highlight)
    bottom, top = bottom / 1.5, top * 1.5
    figure, (ax,) = style.new_panels(3.3)
    x = np.arange(g.shape[1])
    faint = {"color": style.MEMBERS, "lw": 0.7, "alpha": min(0.5, 12 / len(shown))}
    ax.plot(x, fold[shown].T, rasterized=len(shown) > 40, zorder=1, **faint)
    named = []
    for member, color in zip(highlight, style.HIGHLIGHTS, strict=False):
        ax.plot(x, fold[member], color=color, lw=1.8, marker="o", ms=4, zorder=3)
        named.append((f"member {member}", color))
    ends = (bottom, "bottom"), (top, "top")
    quantiles = np.quantile(g, (0.05, 0.95), axis=0)
    for values, (y, va) in zip(quantiles, ends, strict=True):
        for i, value in enumerate(values):
            text = {"color": style.INK, "size": 8, "ha": "center", "va": va}
            ax.text(i, y, short(value, 2), **text)
    ax.axhline(1, color=style.MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
    ax.set(yscale="log", ylim=(bottom, top), xlim=(-0.5, len(x) - 0.5))
    style.name_ticks(ax.yaxis, layouts.fold_names(bottom, top))
    style.name_columns(ax, x, neuron.channel_names)
    ax.set_ylabel("conductance / median")
    numbers = ("numbers: 5 and 95 % of members, in mS/cm²", style.MUTED)
    style.color_key(ax, *named, numbers)
    return figure


def plot_drive(drive: Drive) -> Figure:
    """The input currents of members: the mean of each, and how much it fluctuates."""
    panels = (
        ("mean", drive.mean, False),
        ("SD, fast fluctuation", drive.sigma, True),
        ("SD, slow fluctuation", drive.slow_sigma, True),
    )
    figure, axes = style.new_panels(1.35, ncols=3, sides=("bottom",), sharey=True)
    for ax, (name, values, is_log) in zip(axes, panels, strict=True):
        x = np.asarray(values, np.float64)
        x = np.maximum(x, np.finfo(np.float32).tiny) if is_log else x
        low, high = float(x.min()), float(x.max())
        room = 1.3 if is_log else 0.1 * (high - low) + 0.1
        ends = (low / room, high * room) if is_log else (low - room, high + room)
        ax.set(xscale="log" if is_log else "linear", xlim=ends, ylim=(-0.6, 0.6))
        dots: dict[str, Any] = {"s": 10, "alpha": 0.7, "lw": 0}
        dots["rasterized"] = len(x) > style.MAX_VECTOR
        ax.scatter(x, layouts.jitter_of(len(x)), color=style.MEMBERS, **dots)
        ax.axvline(float(np.median(x)), color=style.MUTED, lw=0.8, ls=(0, (4, 3)))
        if is_log:
            style.name_ticks(ax.xaxis, layouts.round_names(*ends))
        ax.set_yticks([])
        ax.set_xlabel(f"{name} (µA/cm²)")
    return figure


def plot_correlations(neuron: Neuron, g: layouts.Conductances) -> Figure:
    """Correlations over members between the logarithms of their conductances.

    Orange is positive, blue negative.
    """
    r, names = layouts.correlations_of(g), neuron.channel_names
    num = len(r)
    figure, (ax,) = style.new_panels(3.7, 0.6 * style.WIDTH, sides=())
    for column, row in itertools.combinations(range(num), 2):
        value = float(r[row, column])
        style.signed_square(ax, column, row, value, layouts.signed_part(value))
    ax.set(xlim=(-0.5, num - 1.5), ylim=(num - 0.5, 0.5), aspect="equal")
    ax.set_xticks(range(num - 1), names[:-1])
    ax.set_yticks(range(1, num), names[1:])
    ax.tick_params(length=0, labelcolor=style.INK, labelsize=9)
    return figure


def plot_yield(rounds: Sequence[Round]) -> Figure:
    """How many candidates of every round were valid, or had the right pattern only.

    The line on each bar is the 95 % interval of the valid share.
    """
    figure, (ax,) = style.new_panels(0.8 + 0.42 * len(rounds), sides=("bottom",))
    faint = (style.MEMBERS, 0.35)
    colors = (style.MEMBERS, style.PAPER), (faint, style.INK), (style.GRID, style.INK)
    for row, of in enumerate(rounds):
        counts = (of.num_valid, of.num_label - of.num_valid, of.num - of.num_label)
        start = 0.0
        for count, (color, ink) in zip(counts, colors, strict=True):
            share = 100 * count / max(of.num, 1)
            bar = ax.barh(row, share, left=start, color=color, height=0.66, lw=0)
            if share > 4:
                label = {"label_type": "center", "color": ink, "size": 8}
                ax.bar_label(bar, [f"{count}"], **label)
            start += share
        low, high = (100 * x for x in wilson(of.num_valid, of.num))
        ax.plot((low, high), (row + 0.33,) * 2, color=style.INK, lw=2, clip_on=False)
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of candidates (%)")
    style.name_rows(ax, [f"{x.name}  ({x.num})" for x in rounds])
    key = ("valid", style.MEMBERS), ("right pattern only", (style.MEMBERS, 0.6))
    style.color_key(ax, *key, ("else", style.MUTED))
    return figure
