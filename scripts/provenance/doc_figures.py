"""Draws the figures of docs/theory.md into docs/images.

All come from simulations of the stomatogastric neuron by fixed keys, in two minutes.
"""

import argparse
import io
import pathlib

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator
from PIL import Image

import dicjax as dj
from dicjax.output.plots.style import (
    color_key,
    GRID,
    HIGHLIGHTS,
    INK,
    MEMBERS,
    MUTED,
    new_figure,
    new_panels,
    OTHER,
    RECORDING,
    spike_ticks,
    style_axes,
)
from dicjax.spikes import BURSTING


OUT = pathlib.Path(__file__).parents[2] / "docs" / "images"
TIMESCALES = ("fast", "slow", "ultraslow")
TARGET = (-8.0, 4.0)  # (g_s, g_u), the published bursting one
SHOWN = 700.0  # ms of potential


def timescales() -> Figure:
    """Whose time constants are what, and the input conductances that come of it."""
    neuron = dj.stg()
    g = neuron.default_g
    V = np.linspace(-75.0, -35.0, 321)
    constants = jax.vmap(
        lambda V: jnp.stack(neuron.time_constants(V, jnp.asarray(1.0)))
    )
    references = jax.vmap(
        lambda V: jnp.stack(neuron.reference_time_constants(V, jnp.asarray(1.0)))
    )
    dics = dj.dynamic_input_conductances(neuron, jnp.tile(g, (len(V), 1)), V)
    V_th = float(dj.threshold(neuron, g).V)

    figure, (left, right) = new_panels(2.9, ncols=2)
    left.semilogy(V, constants(V), color=OTHER, lw=0.9)
    for k, tau in enumerate(np.asarray(references(V)).T):
        left.plot(V, tau, color=HIGHLIGHTS[k], lw=2)
        place = {"ha": "right", "va": "center", "size": 9}
        at = tau[-1] * (0.5 if k == 1 else 1.7)
        left.text(-35.4, at, TIMESCALES[k], color=HIGHLIGHTS[k], **place)
    left.set(ylabel="time constant (ms)", ylim=(0.05, 3000))
    right.axhline(0, color=MUTED, lw=0.8)
    for k in range(3):
        right.plot(V, dics[:, k], color=HIGHLIGHTS[k], lw=1.6)
    right.plot(V, dics.sum(axis=1), color=INK, lw=2)
    right.axvline(V_th, color=RECORDING, lw=1.1, ls=(0, (4, 3)))
    right.text(V_th - 0.6, -7.5, "threshold", color=RECORDING, ha="right", size=9)
    right.set(ylabel="input conductance (in leaks)", ylim=(-9, 9))
    names = [(name, HIGHLIGHTS[k]) for k, name in enumerate(TIMESCALES)]
    color_key(right, *names, ("total", INK))
    for ax in (left, right):
        ax.set(xlabel="potential (mV)", xlim=(-75, -35))
    return figure


def threshold() -> Figure:
    """Where the steady current stops rising, and where spikes take off."""
    neuron = dj.stg()
    g = neuron.default_g
    V_th = float(dj.threshold(neuron, g).V)

    def steady_current(V):
        Ca = neuron.steady_calcium(V, g)
        return jnp.stack(neuron.unit_currents(V, neuron.steady_gates(V, Ca), Ca)) @ g

    V = np.linspace(-66.0, -44.0, 200)
    run = dj.simulate(neuron, g, 3000 + SHOWN, discard=3000, save_every=0.1)

    figure, (left, right) = new_panels(2.7, ncols=2)
    left.plot(V, jax.vmap(steady_current)(V), color=INK, lw=1.8)
    left.plot(V_th, steady_current(jnp.asarray(V_th)), "o", color=RECORDING, ms=6)
    said = f"threshold, −{-V_th:.1f} mV:\nthe slope is zero"
    left.text(V_th - 2, -0.4, said, color=RECORDING, size=9, ha="center", va="center")
    left.set(xlabel="potential (mV)", ylabel="steady-state current (µA/cm²)")
    _trace(right, run, (), 0.0, INK)
    right.axhline(V_th, color=RECORDING, lw=1.1, ls=(0, (4, 3)))
    right.set(xlabel="time (ms)", ylabel="potential (mV)")
    return figure


def compensation() -> Figure:
    """Input conductances of draws before and after, and conductances after."""
    neuron = dj.stg()
    members = dj.compensate(jr.key(0), neuron, TARGET, num=400).g
    # The same draws, their compensated conductances shuffled among members.
    shuffled = np.array(members)
    for i, name in enumerate(("CaS", "H")):
        (column,) = neuron.index(name)
        shuffled[:, column] = jr.permutation(jr.key(i), shuffled[:, column])
    before, after = (
        np.asarray(dj.dynamic_input_conductances(neuron, g, neuron.V_ref))
        for g in (shuffled, members)
    )

    figure, (left, right) = new_panels(2.9, ncols=2)
    left.plot(before[:, 1], before[:, 2], ".", color=OTHER, ms=3)
    left.plot(after[:, 1], after[:, 2], "o", color=MEMBERS, ms=6)
    left.set(xlabel="slow $g_\\mathrm{s}$", ylabel="ultraslow $g_\\mathrm{u}$")
    color_key(left, ("compensated", MEMBERS), ("CaS and H shuffled", MUTED))
    CaS, H, leak = neuron.index("CaS", "H", "leak")
    right.plot(members[:, leak] * 1e3, members[:, CaS], ".", color=MEMBERS, ms=3)
    right.set(xlabel="leak (µS/cm²)", ylabel="CaS (mS/cm²)")
    return figure


def degeneracy() -> Figure:
    """Three neurons that fire alike and are built otherwise."""
    neuron = dj.stg()
    members = dj.sample_polytope(jr.key(0), neuron, TARGET, num=300).g
    run = dj.simulate(neuron, members, 6000.0, discard=3000.0)
    middle = _middle(dj.spike_features(run.spike_times))
    train = np.asarray(run.spike_times[middle, : run.num_spikes[middle]])
    refined = dj.refine(neuron, members, train, keep_dics=True, tolerance=0.05)
    alike = refined.g[refined.valid]
    folds = np.log2(alike / np.median(alike, axis=0))
    chosen = _apart(np.clip(folds, -4, 4), 3)
    traces = dj.simulate(neuron, alike[chosen], 4000.0, discard=3000.0, save_every=0.1)

    figure = new_figure(3.9)
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 2.1))
    x = np.arange(len(neuron.channel_names))
    for row, fold in enumerate(folds[chosen]):
        bars, trace = (figure.add_subplot(grid[row, i]) for i in (0, 1))
        style_axes(bars)
        bars.bar(x, fold, 0.7, color=HIGHLIGHTS[row])
        bars.axhline(0, color=MUTED, lw=0.8)
        bars.set_yticks([-2, 0, 2], ["¼", "1", "4"])
        bars.set_ylim(-4, 4)
        bars.set_xticks(x, neuron.channel_names if row == 2 else [""] * len(x))
        bars.tick_params(axis="x", rotation=90, length=0)
        style_axes(trace, sides=("left", "bottom") if row == 2 else ("left",))
        before = _onset(np.asarray(traces.spike_times[row])) - 50
        _trace(trace, traces, row, before, HIGHLIGHTS[row])
        if row < 2:
            trace.set_xticks([])
        if row == 1:
            bars.set_ylabel("conductance, as a multiple of the median")
            trace.set_ylabel("potential (mV)")
        if row == 2:
            trace.set_xlabel("time (ms)")
    return figure


def equal_dics() -> Figure:
    """What members with equal input conductances fire like, before and after."""
    neuron = dj.stg()
    members = dj.compensate(jr.key(1), neuron, TARGET, num=300).g
    run = dj.simulate(neuron, members, 6000.0, discard=3000.0)
    features = dj.spike_features(run.spike_times)
    middle = _middle(features)
    train = np.asarray(run.spike_times[middle, : run.num_spikes[middle]])
    refined = dj.refine(neuron, members, train, keep_dics=True)

    figure, (left, right) = new_panels(3.0, ncols=2)
    order = np.argsort(features.spikes_per_burst)
    for row, member in enumerate(order[:: len(order) // 14][:14]):
        times = np.asarray(run.spike_times[member])
        times = times[np.isfinite(times)] - _onset(times)
        spike_ticks(left, times[(times >= 0) & (times < 700)], row, 0.4, MEMBERS)
    left.set(xlabel="time (s)", ylabel="members", xlim=(-0.02, 0.7))
    left.set_yticks([])
    n, isi = (float(x[middle]) for x in (features.spikes_per_burst, _within(features)))
    allowed = max(0.5, 0.1 * n)
    right.add_patch(
        Rectangle(
            (isi / 1.1, n - allowed),
            isi * (1.1 - 1 / 1.1),
            2 * allowed,
            color=GRID,
            lw=0,
        )
    )
    spread = np.random.default_rng(0).uniform(-0.2, 0.2, len(members))
    for some, color, size in ((features, OTHER, 5), (refined.features, MEMBERS, 3)):
        y = some.spikes_per_burst + spread
        right.plot(_within(some), y, "o", color=color, ms=size, mew=0)
    right.yaxis.set_major_locator(MultipleLocator(1))
    right.set(xlabel="interval within bursts (ms)", ylabel="spikes per burst")
    color_key(right, ("equal DICs", MUTED), ("and refined", MEMBERS))
    shares = refined.valid_before.mean(), refined.valid.mean()
    print(f"valid before and after: {shares}")
    return figure


def _trace(ax: Axes, run: dj.Run, cell: int | tuple, start: float, color: str) -> None:
    """The potential of one cell from `start` ms on."""
    assert run.ts is not None and run.V is not None
    shown = run.ts >= start
    ts = run.ts[shown]
    ax.plot(ts - ts[0], run.V[cell][shown], color=color, lw=1)
    ax.set(xlim=(0, SHOWN), ylim=(-85, 60))
    ax.set_yticks([-80, -40, 0, 40])


def _onset(spike_times: np.ndarray) -> float:
    """When the first whole burst begins, in ms."""
    times = spike_times[np.isfinite(spike_times)]
    return float(times[1 + np.argmax(np.diff(times) > 50)])


def _within(features: dj.Features) -> np.ndarray:
    return np.asarray(features.intra_burst_isi)


def _middle(features: dj.Features) -> int:
    """The bursting member whose period is the median one."""
    period = np.where(np.asarray(features.label) == BURSTING, features.period, np.nan)
    return int(np.nanargmin(np.abs(period - np.nanmedian(period))))


def _apart(x: np.ndarray, num: int) -> np.ndarray:
    """Rows far from one another: each the farthest from those before it."""
    chosen = [int(np.argmax(((x - x.mean(0)) ** 2).sum(1)))]
    while len(chosen) < num:
        distance = np.min([((x - x[i]) ** 2).sum(1) for i in chosen], axis=0)
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen)


FIGURES = {
    draw.__name__: draw
    for draw in (timescales, threshold, compensation, degeneracy, equal_dics)
}


def _save(figure: Figure, name: str) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    # Few colours: a third of the bytes.
    image = Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    OUT.mkdir(exist_ok=True)
    image.save(OUT / f"{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []])
    for name in parser.parse_args().names or FIGURES:
        _save(FIGURES[name](), name)


if __name__ == "__main__":
    main()
