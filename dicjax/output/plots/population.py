"""What the members are: their DICs and conductances, and how they were found."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dicjax.generation import Round
from dicjax.inference import NUM_DRAWS, Posterior
from dicjax.neurons import Neuron
from dicjax.output.plots.style import (
    color_key,
    fold_ticks,
    GRID,
    HIGHLIGHTS,
    INK,
    MAX_VECTOR,
    MEMBERS,
    MUTED,
    new_axes,
    new_figure,
    PAPER,
    RECORDING,
    short,
    style_axes,
    WIDTH,
)
from dicjax.populations import wilson


MAX_LINES = 300  # members drawn one by one
SMALLEST = 1e-3  # of the largest conductance: what a logarithm takes for zero

Conductances = Float[ArrayLike, "cells channels"]


def plot_posterior(
    posterior: Posterior, dics: Float[ArrayLike, "cells dics"], V_ref: float
) -> Figure:
    """The posterior of one recording over (g_s, g_u), with members on top.

    Contours are calibrated: the one of 90 % holds the truth for 90 % of cells on which
    this was tried.

    **Arguments:**

    - `posterior`: its first row is shown.
    - `dics`: of members; their last two columns are (g_s, g_u).
    - `V_ref`: the potential they are taken at, in mV.
    """
    points = np.asarray(dics)[:, -2:]
    x, y, density = density_of(posterior, points)
    figure = new_figure(4.2, 0.66 * WIDTH)
    grid = figure.add_gridspec(
        2, 2, width_ratios=(4, 1), height_ratios=(1, 4), wspace=0.02, hspace=0.02
    )
    ax, above, beside = (style_axes(figure.add_subplot(grid[i])) for i in (2, 0, 3))
    floors = [float(np.asarray(posterior.region(p).floor)[0]) for p in (0.9, 0.5)]
    if floors[0] < floors[1] < density.max():
        tints = [(RECORDING, 0.2), (RECORDING, 0.45)]
        ax.contourf(x, y, density, [*floors, density.max()], colors=tints)
        lines = ax.contour(x, y, density, floors, colors=RECORDING, linestyles="-")
        lines.set_linewidth(1)
        names = {floors[0]: "90 %", floors[1]: "50 %"}
        ax.clabel(lines, fmt=names, fontsize=8, colors=INK)
    many = len(points) > MAX_VECTOR
    ax.scatter(*points.T, s=9, color=MEMBERS, alpha=0.6, lw=0, rasterized=many)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set_xlabel("slow input conductance $g_\\mathrm{s}$ (dimensionless)")
    ax.set_ylabel("ultraslow input conductance $g_\\mathrm{u}$")
    probability = np.exp(density)
    for side, value, axis, member, turned in (
        (above, x, 0, points[:, 0], False),
        (beside, y, 1, points[:, 1], True),
    ):
        _marginal(side, value, probability.sum(axis=axis), member, turned)
    above.set_xlim(ax.get_xlim())
    beside.set_ylim(ax.get_ylim())
    at = f"posterior at {V_ref:g} mV".replace("-", "\u2212")
    color_key(above, (at, RECORDING), ("members", MEMBERS))
    return figure


def plot_conductances(
    neuron: Neuron, g: Conductances, *, highlight: Sequence[int] = ()
) -> Figure:
    """How far members spread in every conductance, each line a member.

    Conductances are relative to their median, on a logarithmic axis that all channels
    share; the numbers say where 5 % and 95 % of members lie, in mS/cm².

    **Arguments:**

    - `neuron`: whose channels they are.
    - `g`: maximal conductances, in mS/cm².
    - `highlight`: at most three members to draw in colours of their own.
    """
    g = np.asarray(g, np.float64)
    log_g = logarithms_of(g)
    fold = np.exp(log_g - np.median(log_g, axis=0))
    figure = new_figure(3.3)
    ax = new_axes(figure)
    x = np.arange(g.shape[1])
    shown = np.unique(np.linspace(0, len(g) - 1, min(len(g), MAX_LINES)).astype(int))
    lines = np.stack([np.broadcast_to(x, fold[shown].shape), fold[shown]], axis=-1)
    faint = min(0.5, 12 / len(shown))
    ax.add_collection(
        LineCollection(
            list(lines),
            colors=MEMBERS,
            lw=0.7,
            alpha=faint,
            rasterized=len(shown) > 40,
            zorder=1,
        )
    )
    for member, color in zip(highlight, HIGHLIGHTS, strict=False):
        ax.plot(x, fold[member], color=color, lw=1.8, marker="o", ms=4, zorder=3)
    low, high = np.quantile(fold, (0.01, 0.99), axis=0)
    extreme = fold[np.array(highlight, int)]
    bottom = min(0.45, low.min(), extreme.min(initial=1.0)) / 1.5
    top = max(2.2, high.max(), extreme.max(initial=1.0)) * 1.5
    for i, values in enumerate(np.quantile(g, (0.05, 0.95), axis=0).T):
        for value, y, va in ((values[0], bottom, "bottom"), (values[1], top, "top")):
            ax.text(i, y, short(value), color=INK, size=8, ha="center", va=va)
    ax.axhline(1, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
    ax.set(yscale="log", ylim=(bottom, top), xlim=(-0.5, len(x) - 0.5))
    fold_ticks(ax.yaxis, bottom, top)
    ax.set_xticks(x, neuron.channel_names, size=10)
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("conductance / median")
    ax.grid(axis="x", color=GRID, lw=0.8, zorder=0)
    drawn = [(f"member {i}", c) for i, c in zip(highlight, HIGHLIGHTS, strict=False)]
    color_key(ax, *drawn, ("numbers: 5 and 95 % of members, in mS/cm²", MUTED))
    return figure


def plot_correlations(neuron: Neuron, g: Conductances) -> Figure:
    """Correlations over members between the logarithms of their conductances.

    Orange is positive, blue negative.

    **Arguments:**

    - `neuron`: whose channels they are.
    - `g`: maximal conductances, in mS/cm².
    """
    r, names = correlations_of(g), neuron.channel_names
    num = len(r)
    figure = new_figure(3.7, 0.6 * WIDTH)
    ax = new_axes(figure, sides=())
    for column, row in itertools.combinations(range(num), 2):
        value = float(r[row, column])
        face = (RECORDING if value > 0 else MEMBERS, abs(np.nan_to_num(value)))
        square = (column - 0.47, row - 0.47)
        ax.add_patch(Rectangle(square, 0.94, 0.94, facecolor=face))
        ink = PAPER if abs(value) > 0.72 else INK
        text = {"color": ink, "size": 8, "ha": "center", "va": "center"}
        ax.text(column, row, _signed(value), **text)
    ax.set(xlim=(-0.5, num - 1.5), ylim=(num - 0.5, 0.5), aspect="equal")
    ax.set_xticks(range(num - 1), names[:-1])
    ax.set_yticks(range(1, num), names[1:])
    ax.tick_params(length=0, labelcolor=INK, labelsize=9)
    return figure


def plot_yield(rounds: Sequence[Round]) -> Figure:
    """How many candidates of every round were valid, or had the right pattern only.

    The line on each bar is the 95 % interval of the valid share.

    **Arguments:**

    - `rounds`: in order.
    """
    figure = new_figure(0.8 + 0.42 * len(rounds))
    ax = new_axes(figure, sides=("bottom",))
    for row, of in enumerate(rounds):
        counts = (of.num_valid, of.num_label - of.num_valid, of.num - of.num_label)
        start = 0.0
        for count, color, ink in zip(
            counts, (MEMBERS, (MEMBERS, 0.35), GRID), (PAPER, INK, INK), strict=True
        ):
            share = 100 * count / max(of.num, 1)
            ax.barh(row, share, left=start, color=color, height=0.66, lw=0)
            if share > 4:
                ax.text(
                    start + share / 2,
                    row,
                    f"{count}",
                    color=ink,
                    size=8,
                    ha="center",
                    va="center",
                )
            start += share
        low, high = (100 * x for x in wilson(of.num_valid, of.num))
        ax.plot((low, high), (row + 0.33,) * 2, color=INK, lw=2, clip_on=False)
    ax.set(xlim=(0, 100), ylim=(len(rounds) - 0.5, -0.5))
    ax.set_xlabel("share of candidates (%)")
    ax.set_yticks(range(len(rounds)), [f"{x.name}  ({x.num})" for x in rounds])
    ax.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    color_key(
        ax,
        ("valid", MEMBERS),
        ("right pattern only", (MEMBERS, 0.6)),
        ("else", MUTED),
    )
    return figure


def _signed(value: float) -> str:
    if not np.isfinite(value):
        return "\u2013"
    return f"{value:+.2f}".replace("-", "\u2212").replace("0.", ".")


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


def _marginal(side: Axes, value, density, members, turned: bool) -> None:
    density = density / (density.sum() * (value[1] - value[0]))
    fill = side.fill_betweenx if turned else side.fill_between
    fill(value, density, color=RECORDING, alpha=0.3, lw=0)
    if len(members) > 1:
        side.hist(
            members,
            bins=12,
            density=True,
            histtype="step",
            orientation="horizontal" if turned else "vertical",
            color=MEMBERS,
            lw=1.2,
        )
    side.set_axis_off()
