"""Features by which physiologists know a cell, measured with steps of current.

Passive properties, the F-I curve and the shape of spikes, of thousands of simulated
cells at once, by a protocol that can also be run on a real one.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dicjax._core import (
    as_progress,
    conductances_of,
    counted,
    described,
    HasConductances,
    on_host,
    Progress,
    Stage,
)
from dicjax.dics import dynamic_input_conductances
from dicjax.operator.families import Family
from dicjax.simulation import Run, simulate, Step
from dicjax.spikes import step_response, StepResponse


COUNTS = (5, 15, 40)  # spikes in the first second of a step
BEFORE, STEP, AFTER = 20.0, 1000.0, 200.0  # ms
# A spike is detected once it has fallen, which may be after the step.
LATE_END = BEFORE + STEP + 20.0  # ms
EVERY = 0.05  # ms between samples of spikes
CURRENTS = (0.01, 20.0)  # µA/cm² between which cells fire
NUM_HALVINGS = 16
RESTS = (-110.0, -30.0)  # mV between which cells rest
STEEPEST = 1.02  # times the current: what jumps to more spikes has no F-I curve
SMALL, LARGE = -4.0, -20.0  # mV that cells are hyperpolarised by
HIGHEST_REBOUND = 40.0  # mV above rest: what is higher is a spike
DT = 0.025  # ms
TRACES = 256  # at once


class Feature(NamedTuple):
    """A feature, its unit, whether its logarithm is what counts, and what it means."""

    name: str
    unit: str
    is_log: bool
    meaning: str


FEATURES = (
    Feature("rest", "mV", False, "potential without a step"),
    Feature("resistance", "kΩ·cm²", True, "steady deflection over a small current"),
    Feature("sag", "", False, "part of a deflection by 20 mV that is lost again"),
    Feature("threshold", "µA/cm²", True, "current of 5 spikes in a second"),
    Feature("gain", "Hz·cm²/µA", True, "slope of the F-I curve, 5 to 15 Hz"),
    Feature("high_gain", "Hz·cm²/µA", True, "slope of the F-I curve, 15 to 40 Hz"),
    Feature("adaptation", "", False, "mean change of intervals at 15 Hz"),
    Feature("latency", "ms", True, "of the first spike at 15 Hz"),
    Feature("height", "mV", False, "of spikes at 15 Hz"),
    Feature("width", "ms", True, "of spikes at half their height at 15 Hz"),
    Feature("depth", "mV", False, "lowest potential between spikes at 15 Hz"),
    Feature("rebound", "mV", False, "overshoot after a deflection by 20 mV"),
)
NAMES = tuple(feature.name for feature in FEATURES)
OF_SPIKES = ("adaptation", "latency", "height", "width", "depth")
# What no electrode measures, but encoders infer from spikes and populations share.
DICS = (
    Feature("g_f", "", False, "fast input conductance at V_ref"),
    Feature("g_s", "", False, "slow input conductance at V_ref"),
    Feature("g_u", "", False, "ultraslow input conductance at V_ref"),
)
BY_NAME = {feature.name: feature for feature in (*FEATURES, *DICS)}


class Characteristics(eqx.Module):
    """Features of cells; nan where a cell has none.

    - `values`: one row per cell.
    - `names`: of its columns, as in `FEATURES` and, of some families, `DICS`.
    - `is_complete`: whether a cell is silent by itself, fires fast enough, and
        does so the faster the more current it receives.
    """

    values: Float[np.ndarray, "cells features"]
    is_complete: Bool[np.ndarray, " cells"]
    names: tuple[str, ...] = eqx.field(static=True, default=NAMES)

    def __repr__(self) -> str:
        return described(self, lambda: counted(len(self.values), "cell"))

    def __getitem__(self, name: str) -> Float[np.ndarray, " cells"]:
        return self.values[:, self.names.index(name)]

    def of(self, rows) -> "Characteristics":
        """Those of some cells."""
        return jax.tree.map(lambda x: x[rows], self)


@on_host(
    "call it outside of them, and where JAX should trace use `dicjax.solve` and "
    "`dicjax.step_response`"
)
def characterise(
    family: Family,
    g: Float[np.ndarray, "cells channels"] | HasConductances,
    *,
    on_progress: Progress | None = None,
) -> Characteristics:
    """Measures cells of a family with steps of current on top of its holding current.

    The currents at which a cell fires the 5th, 15th and 40th spike of a step's first
    second are found by halving intervals, and spikes are measured at the second one.
    Such thresholds are continuous in the conductances, and steps into a recorded cell
    show them too.

    **Arguments:**

    - `family`: the cells' model, and the current that holds them.
    - `g`: maximal conductances, in mS/cm², ordered as the model's `channel_names`, or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.
    - `on_progress`: called with (stage, done, total), in rounds of simulation.

    **Raises:**

    - `ValueError`: if conductances are bad.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    g = conductances_of(family.neuron, g).astype(np.float32)
    cells = _Cells(family, g, as_progress(on_progress))
    run, _ = cells.deflected(np.zeros(len(g), np.float32))
    rest, is_silent = np.asarray(run.V)[:, -100:].mean(axis=1), run.num_spikes == 0
    _, small = cells.deflected(np.full(len(g), -0.1, np.float32))
    first = np.minimum(small.steady - rest, -1e-3) / -0.1
    _, small = cells.deflected(SMALL / first)
    resistance = (small.steady - rest) / (SMALL / first)
    run, large = cells.deflected(LARGE / resistance, AFTER)
    rebound = np.asarray(run.V)[:, round(BEFORE + STEP) :].max(axis=1) - rest
    currents = cells.currents_of_counts()
    spikes = cells.spikes_at(currents[1].astype(np.float32))
    rise = np.maximum(np.diff(currents, axis=0), 1e-6 * currents[1:])
    gain, high_gain = np.diff(COUNTS)[:, None] / rise
    columns = {
        "rest": rest,
        "resistance": resistance,
        "sag": large.sag,
        "threshold": currents[0],
        "gain": gain,
        "high_gain": high_gain,
        **{name: getattr(spikes, name) for name in OF_SPIKES},
        "rebound": np.clip(rebound, 0, HIGHEST_REBOUND),
    }
    if family.with_dics:
        dics = dynamic_input_conductances(family.neuron, g, family.neuron.V_ref)
        of_dics = (feature.name for feature in DICS)
        columns |= dict(zip(of_dics, np.asarray(dics).T, strict=True))
    names = tuple(columns)
    values = np.stack([np.asarray(column) for column in columns.values()], axis=1)
    is_complete = (
        is_silent
        & (currents[-1] < CURRENTS[1] * 0.99)
        & np.all(currents[1:] > STEEPEST * currents[:-1], axis=0)
        & np.all(values[:, are_logarithms(names)] > 0, axis=1)
        & np.isfinite(values).all(axis=1)
    )
    return Characteristics(values.astype(np.float32), is_complete, names)


def at_rest(
    family: Family, g: Float[np.ndarray, "cells channels"]
) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
    """The lowest potential (mV) at which a cell's currents cancel, and calcium (µM)."""
    V, Ca = _at_rest(family, jnp.asarray(g))
    return np.asarray(V), np.asarray(Ca)


@eqx.filter_jit
def _at_rest(family, g):
    neuron = family.neuron.with_dtype(g.dtype)

    def outward(V, g):
        Ca = neuron.steady_calcium(V, g)
        I = neuron.total_current(V, neuron.steady_gates(V, Ca), Ca, g)
        return I - jnp.asarray(family.hold, V.dtype)

    def one(g):
        V = jnp.linspace(*RESTS, 161, dtype=g.dtype)
        # From below, the first at which the current turns outward.
        first = jnp.argmax(jax.vmap(outward, (0, None))(V, g) > 0)
        ends = V[jnp.maximum(first - 1, 0)], V[first]

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            beyond = outward(middle, g) > 0
            return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

        low, high = jax.lax.fori_loop(0, 20, halve, ends)
        V = (low + high) / 2
        return V, neuron.steady_calcium(V, g)

    return jax.vmap(one)(g)


def stepped(family: Family, g, rest, step: Step, duration: float, **how: Any) -> Run:
    """Cells at `rest` (mV, µM) under a step of current, beside what holds them."""
    stimulus = step + Step(family.hold) if family.hold else step
    V0, Ca0 = rest
    how |= {"stimulus": stimulus, "V0": V0, "Ca0": Ca0}
    return simulate(family.neuron, g, duration, **how)


class _Cells:
    """Cells of a family, which receive steps of current and report every round."""

    def __init__(self, family, g, on_progress):
        self.family, self.g, self.on_progress = family, g, on_progress
        self.rest = at_rest(family, g)
        self.done, self.total = 0, NUM_HALVINGS + 5

    def deflected(self, amplitude, after=0.0) -> tuple[Run, StepResponse]:
        run = self._step(amplitude, BEFORE + STEP + after, 1.0)
        self._report()
        return run, self._response(run.V, 1.0)

    def currents_of_counts(self):
        """The current (µA/cm²) of every count, by halving intervals of logarithms."""
        everyone = np.tile(np.arange(len(self.g)), len(COUNTS))
        wanted = np.repeat(COUNTS, len(self.g))
        low, high = (np.full(len(wanted), np.log(x)) for x in CURRENTS)
        for _ in range(NUM_HALVINGS):
            middle = (low + high) / 2
            amplitude = np.exp(middle).astype(np.float32)
            times = self._step(amplitude, LATE_END, cells=everyone).spike_times
            self._report()
            count = np.sum((times >= BEFORE) & (times < BEFORE + STEP), axis=1)
            fires = count >= wanted
            low, high = np.where(fires, low, middle), np.where(fires, middle, high)
        return np.exp((low + high) / 2).reshape(len(COUNTS), -1)

    def spikes_at(self, amplitude) -> StepResponse:
        parts = []
        for first in range(0, len(amplitude), TRACES):
            some = slice(first, first + TRACES)
            run = self._step(amplitude[some], BEFORE + STEP, EVERY, some)
            parts.append(self._response(run.V, EVERY))
        self._report()
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    def _response(self, V, every) -> StepResponse:
        levels = self.family.neuron.spike_levels
        return measured_steps(V, every, BEFORE, BEFORE + STEP, **levels)

    def _step(self, amplitude, duration, every=None, cells: Any = ...) -> Run:
        step, g = Step(amplitude, BEFORE, BEFORE + STEP), self.g[cells]
        rest = [x[cells] for x in self.rest]
        how = {"dt": DT, "max_spikes": 64, "save_every": every}
        return stepped(self.family, g, rest, step, duration, **how)

    def _report(self) -> None:
        self.done += 1
        if self.on_progress is not None:
            self.on_progress(Stage("characterising"), self.done, self.total)


def measured_steps(
    V, every: float, start: float, stop: float, **levels: Any
) -> StepResponse:
    """As [`dicjax.step_response`][] measures, on the host."""
    response = step_response(jnp.asarray(V), every, start, stop, **levels)
    return jax.tree.map(np.asarray, response)


def to_coordinates(
    values: Float[Array | np.ndarray, "*cells features"], names: tuple[str, ...] = NAMES
) -> Float[Array, "*cells features"]:
    """Features with logarithms of those that are compared as such."""
    return _mapped(jnp.log, values, names)


def from_coordinates(
    x: Float[Array | np.ndarray, "*cells features"], names: tuple[str, ...] = NAMES
) -> Float[Array, "*cells features"]:
    """The inverse of `to_coordinates`."""
    return _mapped(jnp.exp, x, names)


def _mapped(function, x, names):
    x, kinds = jnp.asarray(x), enumerate(are_logarithms(names))
    columns = [function(x[..., i]) if is_log else x[..., i] for i, is_log in kinds]
    return jnp.stack(columns, axis=-1)


def are_logarithms(names: tuple[str, ...]) -> tuple[bool, ...]:
    """Which of these features are compared by their logarithms."""
    return tuple(BY_NAME[name].is_log for name in names)
