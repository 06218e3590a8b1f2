"""Writes docs/models: what every model that ships is made of, and what it does.

All of them are made from the declarations alone.
"""

import functools
import inspect
import io
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import dicjax as dj
from dicjax.output.plots.style import (
    color_key,
    INK,
    MEMBERS,
    MUTED,
    new_figure,
    style_axes,
)


Number = float | jax.Array
OUT = pathlib.Path(__file__).parents[2] / "docs" / "models"
V = np.linspace(-110.0, 50.0, 321)  # mV
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b0568b", "#e69f00", "#56b4e9", "#666666")
# What each is shown doing: (µA/cm², from ms, to ms) or nothing, and for how long.
SHOWN = {
    "stg": (None, 1500.0),
    "stg-prinz": (None, 6000.0),
    "da": (None, 6000.0),
    "cortical": ((1.0, 100.0, 700.0), 800.0),
    "hodgkin-huxley": ((10.0, 50.0, 200.0), 250.0),
    "connor-stevens": ((8.5, 100.0, 900.0), 1000.0),
    "pospischil-rs": ((2.0, 100.0, 500.0), 600.0),
    "pospischil-fs": ((5.0, 100.0, 500.0), 600.0),
    "pospischil-ib": ((0.5, 100.0, 700.0), 800.0),
    "pospischil-lts": ((-0.8, 300.0, 800.0), 1200.0),
}
CORTEX = """\
The numbers are the fits in the paper's tables as coded in PySONIC, except where
published implementations differ:

- The potassium reversal is -90 mV, as in the paper; its ModelDB entry (123623) has
  -100 mV."""
NOTES = {
    "cortical": """\
This cell has the channels of all kinds of `pospischil`. Each kind is a region of its
conductances. The family that the [neural operator](../operators.md) learns is this cell
at 22 °C, `cortical().at(22.0)`, with conductances drawn from wide ranges. `V_T`,
`tau_max` and `V_x` have the values of the regular spiking and low-threshold spiking
cells. H is the published current of thalamic relay cells at 35.5 °C. The default
conductances belong to a regular spiking cell with a little of the other currents.""",
    "stg": """\
The calcium reversal is fixed at 80 mV, as in the populations of Fyon et al. (2024) and
Brandoit et al. (2025). In the model of Liu et al. it follows Nernst's equation.""",
    "stg-prinz": """\
Steady calcium has to be solved for in this model, because calcium sets its own reversal
and the reversal sets calcium. [Another page](../stg_prinz.md) shows the measurements
behind the recipe.""",
    "da": """\
- **Sodium activation.** The published rate of opening is
  -(15.6504 + 0.4043 V) / (exp(-19.565 - 0.5052 V) - 1). Its numerator is zero at
  -38.70987 mV and its denominator at -38.72724 mV. There the time constant has a pole,
  and it is negative over 3 µV. Here both are zero at the first potential, smoothly.
  Farther than 0.2 mV from the pole, the time constant differs by at most 1.8 %.
- **ERG** starts in equilibrium. Published simulations start with all of it closed. It
  counts as ultraslow (its own two time constants are 5.7 and 1,749 ms at -55.5 mV).
- **NMDA** is instantaneous, at 0.012 mS/cm² as in Brandoit et al. (2025). Fyon et al.
  (2024) simulate ten times as much and leave it out of the dynamic input conductances.
- **Default conductances** are the means of the tonic population from which the recipe
  starts. The Monte-Carlo box is from Fyon et al. (2024), with leak and NMDA up to
  0.02 mS/cm².""",
    "hodgkin-huxley": """\
The equations use the modern sign convention, shifted to rest at -65 mV. The
steady-state current of the axon rises at all potentials, so the axon has no threshold
in the sense of `dj.threshold`. It fires through its slow variables (type II), from a
rate of some 55 Hz on.""",
    "connor-stevens": """\
The rates are the original ones at the original temperature, without a factor. The
neuron starts to fire at arbitrarily low rates (type I). Without the A current it fires
at 156 Hz even if no current is applied.""",
    "pospischil-rs": CORTEX,
    "pospischil-fs": CORTEX
    + """
- Conductances, leak and threshold are from the authors' own fast spiking cell in
  ModelDB, which has no M current. The fitted cell of the paper as coded in PySONIC (Na
  58, Kd 3.9, M 0.0787, leak 0.038 mS/cm² at -70.4 mV, V_T = -57.9 mV) has an M current
  and adapts.""",
    "pospischil-ib": CORTEX,
    "pospischil-lts": CORTEX
    + """
- Activation of CaT is instantaneous, as in the paper and ModelDB. PySONIC gives it a
  time constant.
- Inactivation of CaT has the time constant of Destexhe et al. (1996) and ModelDB, with
  30.8 ms before the fraction. The paper prints the 30.8 ms within the fraction, and
  Jaxley codes it so. PySONIC has an older form in two pieces.""",
}


def number(x: Number) -> str:
    return f"{float(x):.6g}"


def shifted(midpoint: Number) -> str:
    x = float(midpoint)
    if x == 0:
        return "V"
    return f"V {'-' if x > 0 else '+'} {number(abs(x))}"


def ratio(midpoint: Number, width: Number) -> str:
    inner = shifted(midpoint)
    return f"({inner}) / {number(width)}" if " " in inner else f"V / {number(width)}"


def plus(offset, rest: str) -> str:
    if offset is None:
        return rest
    sign = "-" if rest.startswith("-") else "+"
    return f"{number(offset)} {sign} {rest.removeprefix('-')}"


@functools.singledispatch
def formula(curve) -> str:
    raise TypeError(f"No formula for {type(curve).__name__}.")


@formula.register
def _(curve: dj.Constant) -> str:
    return number(curve.value)


@formula.register
def _(curve: dj.Sigmoid) -> str:
    top = "1" if curve.amplitude is None else number(curve.amplitude)
    fraction = f"{top} / (1 + exp({ratio(curve.midpoint, curve.width)}))"
    return plus(curve.offset, fraction)


@formula.register
def _(curve: dj.Bell) -> str:
    left, right = (f"exp({ratio(*flank)})" for flank in (curve.left, curve.right))
    return plus(curve.offset, f"{number(curve.amplitude)} / ({left} + {right})")


@formula.register
def _(curve: dj.Exponential) -> str:
    return f"{number(curve.amplitude)} exp({ratio(curve.midpoint, curve.width)})"


@formula.register
def _(curve: dj.Linoid) -> str:
    x = ratio(curve.midpoint, curve.width)
    return f"{number(curve.amplitude)} L({x})"


@formula.register
def _(curve: dj.CalciumSaturation) -> str:
    return f"Ca / (Ca + {number(curve.half)})"


@formula.register
def _(curve: dj.MagnesiumBlock) -> str:
    share = f"{number(curve.magnesium)} / {number(curve.half)}"
    return f"1 / (1 + {share} exp(-V / {number(curve.width)}))"


@formula.register
def _(curve: dj.Nernst) -> str:
    unit = 1000 * 8.6174e-5 * curve.temperature / curve.valence
    return f"{number(unit)} ln({number(curve.outside)} / Ca)"


@formula.register
def _(curve: dj.Scaled) -> str:
    return f"{number(curve.factor)} ({formula(curve.curve)})"


@formula.register
def _(curve: dj.Power) -> str:
    exponent = curve.exponent
    shown = "1/3" if exponent == 1 / 3 else number(exponent)
    return f"({formula(curve.curve)})<sup>{shown}</sup>"


@formula.register
def _(curve: dj.Product) -> str:
    return " · ".join(f"({formula(x)})" for x in curve.factors)


@formula.register
def _(curve: dj.Sum) -> str:
    return " + ".join(formula(x) for x in curve.terms)


@formula.register
def _(curve: dj.OpenFraction) -> str:
    return f"α / (α + β), {rates(curve)}"


@formula.register
def _(curve: dj.Relaxation) -> str:
    return f"1 / ({formula(curve.alpha)} + {formula(curve.beta)})"


def rates(gate) -> str:
    return f"α = {formula(gate.alpha)}, β = {formula(gate.beta)}"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def gate_names(channel: dj.AbstractChannel) -> list[str]:
    if isinstance(channel, dj.MarkovChannel):
        return list(channel.kinetic_states[1:])
    return ["m", "h", "s"][: channel.num_states]


def current(channel: dj.AbstractChannel) -> str:
    parts = []
    if isinstance(channel, dj.MarkovChannel):
        parts.append(" + ".join(channel.open_states))
    if isinstance(channel, dj.GatedChannel):
        for name, gate in zip(gate_names(channel), channel.gates, strict=True):
            power = f"<sup>{gate.exponent}</sup>" if gate.exponent > 1 else ""
            parts.append(name + power)
    if channel.factor is not None:
        parts.append(f"[{formula(channel.factor)}]")
    if isinstance(channel.reversal, dj.Constant):
        drive = shifted(channel.reversal.value)
        parts.append(f"({drive})" if " " in drive else drive)
    elif channel.reversal is not None:
        parts.append(f"(V - {formula(channel.reversal)})")
    return " · ".join(parts)


def channels(neuron: dj.Neuron) -> str:
    g = dict(neuron.defaults or ())
    rows = [(c.name, current(c), number(g[c.name])) for c in neuron.channels]
    return table(("channel", "current / conductance", "default, mS/cm²"), rows)


def gates(neuron: dj.Neuron) -> str:
    rows = []
    for channel in neuron.channels:
        if not isinstance(channel, dj.GatedChannel):
            continue
        for name, gate in zip(gate_names(channel), channel.gates, strict=True):
            row = (f"{name} of {channel.name}",)
            if isinstance(gate, dj.RateGate):
                row += (rates(gate), "1 / (α + β)")
            else:
                row += (formula(gate.steady_state), formula(gate.time_constant))
            rows.append(row)
    return table(("gate", "steady state, or rates (per ms)", "time constant, ms"), rows)


def schemes(neuron: dj.Neuron) -> str:
    text = ""
    for channel in neuron.channels:
        if isinstance(channel, dj.MarkovChannel):
            rows = [
                (f"{t.source} → {t.target}", formula(t.rate))
                for t in channel.transitions
            ]
            text += f"\n{channel.name} is a kinetic scheme:\n\n"
            text += table(("transition", "rate, per ms"), rows) + "\n"
    return text


def settings(neuron: dj.Neuron) -> str:
    named = ("fast", "slow", "ultraslow")
    scales = [
        f"{name} {f'{formula(curve)} ms' if isinstance(curve, dj.Constant) else of}"
        for name, curve, of in zip(
            named, neuron.timescales, timescale_names(neuron), strict=True
        )
        if curve is not None
    ]
    unit = neuron.normaliser
    rows = [
        ("timescales of dynamic input conductances", ", ".join(scales)),
        (
            "dynamic input conductances are divided by",
            f"{unit}" if isinstance(unit, str) else f"{unit} mS/cm²",
        ),
        ("V_ref", f"{number(neuron.V_ref)} mV"),
        ("start", f"V = {number(neuron.initial_V)} mV, gates in equilibrium"),
    ]
    if neuron.calcium is not None:
        pool = neuron.calcium
        inflow = f"{number(pool.influx)} ({' + '.join(f'I_{s}' for s in pool.sources)})"
        balance = f"-{inflow} - Ca + {number(pool.baseline)}"
        rows.append(("calcium, µM", f"{number(pool.time_constant)} dCa/dt = {balance}"))
        rows[3] = ("start", f"{rows[3][1]}, Ca = {number(neuron.initial_Ca)} µM")
    if neuron.temperature is not None:
        t = neuron.temperature
        rows.append(
            (
                "temperature",
                f"{number(t.celsius)} °C, a factor of {number(t.q10)} per 10",
            )
        )
    return table(("", ""), rows)


def timescale_names(neuron: dj.Neuron) -> list[str]:
    """Which gate has each of the reference time constants."""
    names = []
    for curve in neuron.timescales:
        own = [
            f"τ of {name} of {channel.name}"
            for channel in neuron.channels
            if isinstance(channel, dj.GatedChannel)
            for name, gate in zip(gate_names(channel), channel.gates, strict=True)
            if curve is not None
            and jax.tree.structure(gate.time_constant) == jax.tree.structure(curve)
            and jax.tree.all(
                jax.tree.map(lambda a, b: bool(a == b), gate.time_constant, curve)
            )
        ]
        names.append(own[0] if own else "")
    return names


def behaviour(neuron: dj.Neuron, run: dj.Run, shown) -> str:
    dics = np.asarray(
        dj.dynamic_input_conductances(neuron, neuron.default_g, float(neuron.V_ref))
    )
    own = dj.threshold(neuron, neuron.default_g)
    where = (
        f"the threshold is {float(own.V):.1f} mV"
        if own.names[int(own.status)] == "ok"
        else "there is no threshold"
    )
    count = len(neuron.timescales) - (neuron.timescales[2] is None)
    symbols = ("g_f", "g_s", "g_u")[:count]
    values = ", ".join(
        f"{s} = {number(round(float(x), 2))}"
        for s, x in zip(symbols, dics, strict=False)
    )
    stimulus, duration = shown
    applied = "Without an applied current"
    if stimulus is not None:
        amplitude, first, last = map(number, stimulus)
        applied = f"With {amplitude} µA/cm² from {first} to {last} ms"
    times = run.spike_times[: int(run.num_spikes)]
    isi = np.diff(times)
    return (
        f"With the default conductances, the {DICS} at V_ref are {values}, "
        f"and {where}. {applied}, the model fires {len(times)} times in "
        f"{duration:g} ms, as shown above. The first interval is {isi[0]:.3g} ms and "
        f"the last one is {isi[-1]:.3g} ms."
    )


def simulated(neuron: dj.Neuron, shown) -> dj.Run:
    stimulus, duration = shown
    return dj.simulate(
        neuron,
        neuron.default_g,
        duration,
        dt=0.025,
        stimulus=None if stimulus is None else dj.Step(*stimulus),
        save_every=duration / 5000,
    )


def figure(neuron: dj.Neuron, run: dj.Run, shown) -> None:
    at = jnp.asarray(V), jnp.full(len(V), 1.0)
    steady = jax.vmap(neuron.steady_gates)(*at)
    fig = new_figure(4.8)
    grid = fig.add_gridspec(2, 2)
    steady_axes, tau_axes, trace = (
        style_axes(fig.add_subplot(place))
        for place in (grid[0, 0], grid[0, 1], grid[1, :])
    )
    start, entries = 0, []
    for i, channel in enumerate(c for c in neuron.channels if c.num_states):
        color = COLORS[i % len(COLORS)]
        entries.append((channel.name, color))
        taus = jax.vmap(channel.time_constants)(*at)
        for k in range(channel.num_states):
            style = ("-", "--", ":")[k]
            steady_axes.plot(V, steady[start + k], style, color=color, lw=1.3)
            if k < len(taus) and np.isfinite(taus[k]).all():
                tau_axes.plot(V, taus[k], style, color=color, lw=1.3)
        start += channel.num_states
    color_key(steady_axes, *entries)
    steady_axes.set(xlabel="potential (mV)", ylabel="steady state", ylim=(-0.02, 1.05))
    tau_axes.set(xlabel="potential (mV)", ylabel="time constant (ms)", yscale="log")
    assert run.ts is not None and run.V is not None
    trace.plot(run.ts, run.V, color=MEMBERS, lw=0.8)
    trace.set(xlabel="time (ms)", ylabel="potential (mV)", xlim=(0, shown[1]))
    if shown[0] is not None:
        amplitude, first, last = shown[0]
        low = float(np.min(run.V)) - 8
        trace.plot([first, last], [low, low], color=INK, lw=2, solid_capstyle="butt")
        text = f"{number(amplitude)} µA/cm²"
        trace.text(last, low, f"  {text}", va="center", color=MUTED, fontsize=8)
    path = OUT / f"{neuron.name}.png"
    drawn = io.BytesIO()
    fig.savefig(drawn, dpi=110)
    few = Image.open(drawn).convert("RGB").quantize(200, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def about(name: str) -> tuple[str, str]:
    """What the docstring of a model says, and its source."""
    make = dj.MODELS[name]
    doc = inspect.getdoc(getattr(make, "func", make)) or ""
    doc = re.sub(r"\[(`[^`]+`)\]\[\]", r"\1", doc).replace("$q_{10}$", "Q10")
    text, _, source = doc.partition('??? cite "Reference"')
    text = text.partition("**Arguments:**")[0].strip()
    return text, re.sub(r"\n +", "\n", source).strip()


def card(name: str) -> str:
    neuron, shown = dj.MODELS[name](), SHOWN[name]
    run = simulated(neuron, shown)
    figure(neuron, run, shown)
    text, source = about(name)
    linear = "L(" in gates(neuron) + schemes(neuron)
    return f"""\
# {name}

{text}

**Source.** {source}

![Steady states, time constants and potential]({name}.png)

The upper panels show the steady states and time constants of the
gates{calcium_note(neuron)}. For each channel, the first gate is a solid line and the
second is dashed. The lower panel shows the potential.

## What it does

{behaviour(neuron, run, shown)}

## Equations

C dV/dt = I - Σ (all currents), with C = {number(neuron.capacitance)} µF/cm². V is in
mV, time in ms, and currents in µA/cm².{LINEAR if linear else ""}

{channels(neuron)}

{gates(neuron)}
{schemes(neuron)}
{settings(neuron)}

## Notes

{NOTES[name]}

This page is made by `python -m scripts.provenance.model_cards`.
"""


LINEAR = " L(x) = x / (1 - exp(-x))."
DICS = "[dynamic input conductances](../glossary.md#dynamic-input-conductance)"


def calcium_note(neuron: dj.Neuron) -> str:
    return "" if neuron.calcium is None else " (at 1 µM of calcium)"


def index() -> str:
    rows = []
    for name, make in dj.MODELS.items():
        text, _ = about(name)
        first = " ".join(text.split("\n\n")[0].split())
        rows.append((f"[{name}]({name}.md)", first, str(len(make().channels))))
    header = ("model", "what it is", "channels")
    return f"# Models that ship\n\n{table(header, rows)}\n"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name in dj.MODELS:
        (OUT / f"{name}.md").write_text(card(name), encoding="utf-8")
        print(OUT / f"{name}.md")
    (OUT / "README.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
