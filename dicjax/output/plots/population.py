"""What the members are: their DICs and conductances, and how they were found."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.figure import Figure

from dicjax.generation import Round
from dicjax.inference import NUM_DRAWS, Posterior
from dicjax.neurons import Neuron
from dicjax.output.plots import style
from dicjax.populations import wilson


MAX_LINES = 300  # members drawn one by one
SMALLEST = 1e-3  # of the largest conductance: what a logarithm takes for zero

Conductances = Float[ArrayLike, "cells channels"]  # mS/cm²


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
    x, y, density = density_of(posterior, points)
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
    outer, inner = (float(np.asarray(posterior.region(p).floor)[0]) for p in (0.9, 0.5))
    if outer < inner < density.max():
        tints = [(style.RECORDING, 0.2), (style.RECORDING, 0.45)]
        ax.contourf(x, y, density, [outer, inner, density.max()], colors=tints)
        floors = {outer: "90 %", inner: "50 %"}
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
    at = style.with_minus(f"posterior at {V_ref:g} mV")
    style.color_key(above, (at, style.RECORDING), ("members", style.MEMBERS))
    return figure


def plot_conductances(
    neuron: Neuron, g: Conductances, highlight: Sequence[int]
) -> Figure:
    """How far members spread in every conductance, each line a member.

    Conductances are relative to their median, on a logarithmic axis that all channels
    share; the numbers say where 5 % and 95 % of members lie, in mS/cm².

    `highlight` names at most three members to draw in colours of their own.
    """
    g = np.asarray(g, np.float64)
    log_g = logarithms_of(g)
    fold = np.exp(log_g - np.median(log_g, axis=0))
    figure, (ax,) = style.new_panels(3.3)
    x = np.arange(g.shape[1])
    shown = np.unique(np.linspace(0, len(g) - 1, min(len(g), MAX_LINES)).astype(int))
    faint = {"color": style.MEMBERS, "lw": 0.7, "alpha": min(0.5, 12 / len(shown))}
    ax.plot(x, fold[shown].T, rasterized=len(shown) > 40, zorder=1, **faint)
    named = []
    for member, color in zip(highlight, style.HIGHLIGHTS, strict=False):
        ax.plot(x, fold[member], color=color, lw=1.8, marker="o", ms=4, zorder=3)
        named.append((f"member {member}", color))
    low, high = np.quantile(fold, (0.01, 0.99), axis=0)
    extreme = fold[np.array(highlight, int)]
    bottom = min(0.45, low.min(), extreme.min(initial=1.0)) / 1.5
    top = max(2.2, high.max(), extreme.max(initial=1.0)) * 1.5
    ends = (bottom, "bottom"), (top, "top")
    quantiles = np.quantile(g, (0.05, 0.95), axis=0)
    for values, (y, va) in zip(quantiles, ends, strict=True):
        for i, value in enumerate(values):
            text = {"color": style.INK, "size": 8, "ha": "center", "va": va}
            ax.text(i, y, style.short(value), **text)
    ax.axhline(1, color=style.MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
    ax.set(yscale="log", ylim=(bottom, top), xlim=(-0.5, len(x) - 0.5))
    style.fold_ticks(ax.yaxis, bottom, top)
    style.name_columns(ax, x, neuron.channel_names)
    ax.set_ylabel("conductance / median")
    numbers = ("numbers: 5 and 95 % of members, in mS/cm²", style.MUTED)
    style.color_key(ax, *named, numbers)
    return figure


def plot_correlations(neuron: Neuron, g: Conductances) -> Figure:
    """Correlations over members between the logarithms of their conductances.

    Orange is positive, blue negative.
    """
    r, names = correlations_of(g), neuron.channel_names
    num = len(r)
    figure, (ax,) = style.new_panels(3.7, 0.6 * style.WIDTH, sides=())
    for column, row in itertools.combinations(range(num), 2):
        value = float(r[row, column])
        style.signed_square(ax, column, row, value, style.signed(value, 2))
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


def most_different(g: Conductances, num: int = 3) -> list[int]:
    """Members whose conductances differ most: the two furthest apart, and so on.

    Each is as far as can be from those before it, in logarithms of conductances over
    their standard deviations.
    """
    log_g = logarithms_of(np.asarray(g, np.float64))
    z = (log_g - log_g.mean(axis=0)) / np.maximum(log_g.std(axis=0), 1e-12)
    chosen = [int(np.argmax(np.sum(z**2, axis=1)))]
    while len(chosen) < min(num, len(z)):
        apart = [np.sum((z - z[i]) ** 2, axis=1) for i in chosen]
        chosen.append(int(np.argmax(np.min(apart, axis=0))))
    return chosen


def correlations_of(g: Conductances) -> Float[np.ndarray, "channels channels"]:
    """Of the logarithms of conductances; nan where a channel does not vary."""
    log_g = logarithms_of(np.asarray(g, np.float64))
    num = log_g.shape[1]
    r = np.full((num, num), np.nan)
    varies = np.flatnonzero(log_g.std(axis=0) > 0)
    if len(log_g) > 2 and len(varies) > 1:
        r[np.ix_(varies, varies)] = np.corrcoef(log_g[:, varies].T)
    return r


def logarithms_of(g: np.ndarray) -> np.ndarray:
    floor = SMALLEST * g.max(axis=0, initial=0)
    return np.log(np.maximum(np.maximum(g, floor), np.finfo(g.dtype).tiny))


def density_of(posterior: Posterior, points: np.ndarray, num: int = 140):
    """Log density of the first row on a grid that holds it and the points."""
    cells = {x: getattr(posterior, x)[:1] for x in ("weights", "means", "factors")}
    first = dataclasses.replace(posterior, **cells, distance=None)
    draws = np.asarray(first.sample(jr.key(0), NUM_DRAWS))[0]
    low, high = np.quantile(draws, (0.002, 0.998), axis=0)
    low = np.min([low, *points], axis=0)
    high = np.max([high, *points], axis=0)
    margin = 0.04 * (high - low)
    x, y = np.linspace(low - margin, high + margin, num, dtype=draws.dtype).T
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(1, -1, 2)
    return x, y, np.asarray(first.log_prob(jnp.asarray(grid)))[0].reshape(num, num)
