"""How networks learn, and what an operator predicts, also beside a recorded cell."""

from typing import cast

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from dicjax.operator import COMPARED, Comparison
from dicjax.output.plots import style
from dicjax.recordings import Steps, Sweeps


SMOOTHED = 200  # steps that a point of the curve is the mean of
MOST_TRACES = 24  # potentials drawn over one another
SHOWN = 3  # sweeps whose potentials are shown
AROUND = 100.0  # ms before and after a step


def plot_training(
    losses: Float[np.ndarray, " steps"], validation: Float[np.ndarray, "rows 2"]
) -> Figure:
    """The loss over the steps of training, and on members kept apart.

    - `losses`: of every step; shown as means over 200 steps.
    - `validation`: rows of (step, loss).
    """
    figure, (ax,) = style.new_panels(2.6)
    size = max(1, min(SMOOTHED, len(losses) // 10))
    means = losses[: len(losses) // size * size].reshape(-1, size).mean(axis=1)
    steps = (np.arange(len(means)) + 0.5) * size
    ax.plot(steps, means, color=style.OTHER, lw=1.2)
    ax.plot(*validation.T, color=style.MEMBERS, lw=1.6, marker="o", ms=3)
    # The first steps are far off, and of no interest.
    settled = np.concatenate([means[len(means) // 20 :], validation[:, 1]])
    low, high = settled.min(), np.quantile(settled, 0.98)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats)")
    key = ("while learning", style.MUTED), ("on members kept apart", style.MEMBERS)
    style.color_key(ax, *key)
    return figure


def plot_responses(
    current: Float[np.ndarray, "cells samples"],
    V: Float[np.ndarray, "cells samples"],
    every: float,
) -> Figure:
    """Potentials that neurons answer (mV), over the currents they receive (µA/cm²)."""
    figure, (above, below) = style.new_panels(
        3.6, nrows=2, sharex=True, height_ratios=(3, 1)
    )
    ts = every * np.arange(V.shape[-1]) / 1e3
    for ax, rows, color, label in (
        (above, V, style.MEMBERS, "potential (mV)"),
        (below, np.unique(current, axis=0), style.INK, "current\n(µA/cm²)"),
    ):
        opacity = float(np.clip(2 / np.sqrt(len(rows)), 0.15, 1))
        ax.plot(ts, rows[:MOST_TRACES].T, color=color, lw=0.8, alpha=opacity)
        ax.set_ylabel(label)
    below.set_xlabel("time (s)")
    return figure


def plot_comparison(comparison: Comparison, sweeps: Sweeps, steps: Steps) -> Figure:
    """A recorded cell and an ensemble: F-I curve, features, potentials.

    Bands hold the middle half of the ensemble, lines are its median. Features were
    measured from the filled points; the others are predicted.
    """
    names = sorted(COMPARED, key=lambda name: name != "num_spikes")
    figure = style.new_figure(7.4)
    halves = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    upper, lower = cast(tuple[SubFigure, SubFigure], halves)
    above = upper.subplots(2, 3)
    for ax, name in zip(above.flat, names, strict=True):
        _feature(style.style_axes(ax), comparison, name)
    for ax in above[-1]:
        ax.set_xlabel("current (pA)")
    key = ("recorded", style.RECORDING), ("ensemble", style.MEMBERS)
    style.color_key(above[0, 0], *key)
    order = np.argsort(comparison.amplitude)
    shown = order[np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int))]
    below = lower.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, i in zip(below, shown[::-1], strict=True):
        _potentials(style.style_axes(ax), comparison, sweeps, steps, int(i))
    below[-1].set_xlabel("time from the onset of the step (s)")
    return figure


def _feature(ax: Axes, comparison: Comparison, name: str) -> None:
    order = np.argsort(comparison.amplitude)
    x = comparison.amplitude[order]
    ensemble = np.asarray(getattr(comparison.predicted, name), float)[:, order]
    known = np.isfinite(ensemble).mean(axis=0) > 0.5
    low, middle, high = np.nanpercentile(ensemble[:, known], (25, 50, 75), axis=0)
    ax.fill_between(x[known], low, high, color=style.MEMBERS, alpha=0.25, lw=0)
    ax.plot(x[known], middle, color=style.MEMBERS, lw=1.4)
    recorded = np.asarray(getattr(comparison.recorded, name), float)[order]
    used = comparison.is_used[order]
    for which, fill in ((used, style.RECORDING), (~used, style.PAPER)):
        dots = {"color": style.RECORDING, "markerfacecolor": fill, "mew": 1.1}
        ax.plot(x[which], recorded[which], "o", ms=4.5, **dots)
    ax.set_ylabel(COMPARED[name])
    ax.margins(y=0.15)


def _potentials(ax: Axes, comparison: Comparison, sweeps, steps, sweep: int) -> None:
    """The recording over the likest neuron of the ensemble."""
    t = np.arange(sweeps.V.shape[1]) * sweeps.every - steps.start
    stop = steps.stop - steps.start
    near = (t > -AROUND) & (t < stop + AROUND)
    V = comparison.V[0, sweep]
    ax.plot(comparison.ts / 1e3, V, color=style.MEMBERS, lw=0.8)
    ax.plot(t[near] / 1e3, sweeps.V[sweep, near], color=style.RECORDING, lw=0.8)
    ax.set_ylabel("mV")
    title = {"loc": "left", "fontsize": 8, "color": style.MUTED, "pad": 2}
    ax.set_title(f"{comparison.amplitude[sweep]:.0f} pA", **title)
