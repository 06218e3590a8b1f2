"""How well potentials are predicted, by measures that see spikes."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dicjax.operator.characteristics import (
    Characteristics,
    resting_calcium,
    resting_potentials,
)
from dicjax.operator.families import Family
from dicjax.simulation import simulate, Step
from dicjax.spikes import spike_trains, step_response


EVERY = 0.1  # ms between samples
START, STOP, DURATION = 50.0, 550.0, 600.0  # ms, of the step
DT = 0.0125  # ms, of the simulations that are predicted
LOWEST = -0.5  # of the threshold
MATCHED = 2.0  # ms within which a spike counts as the same as one in the other trace
MAX_SPIKES = 64


class Trial(eqx.Module):
    """Members of a family under one step of current each, and what they do.

    - `g`: conductances, in mS/cm²; `features`: of each, in their units.
    - `amplitude`: of the step, in µA/cm².
    - `V`: potentials (mV) at the start of every sample.
    """

    g: Float[np.ndarray, "cells channels"]
    features: Float[np.ndarray, "cells features"]
    amplitude: Float[np.ndarray, " cells"]
    V: Float[np.ndarray, "cells samples"]

    @property
    def current(self) -> Float[np.ndarray, "cells samples"]:
        """The current of every sample, in µA/cm²."""
        ts = EVERY * np.arange(self.V.shape[1])
        on = (ts >= START - 1e-6) & (ts < STOP - 1e-6)
        return (self.amplitude[:, None] * on).astype(np.float32)


def amplitude_range(measured: Characteristics) -> tuple[np.ndarray, np.ndarray]:
    """Currents (µA/cm²): hyperpolarising, and up to those that cause 40 Hz and more."""
    threshold = measured["threshold"]
    highest = threshold + 10 / measured["gain"] + 25 / measured["high_gain"]
    return LOWEST * threshold, 1.1 * highest


def draw_amplitudes(
    rng: np.random.Generator, measured: Characteristics
) -> Float[np.ndarray, " cells"]:
    """A current (µA/cm²) for every member."""
    low, high = amplitude_range(measured)
    return (low + (high - low) * rng.random(len(low))).astype(np.float32)


def simulate_steps(
    family: Family,
    g: Float[np.ndarray, "cells channels"],
    amplitude: Float[np.ndarray, " cells"],
    dt: float = DT,
) -> Float[np.ndarray, "cells samples"]:
    """Potentials (mV) of cells that are at rest and then receive a step."""
    rest = resting_potentials(family, g)
    stimulus = Step(amplitude, START, STOP)
    if family.hold:
        stimulus = stimulus + Step(family.hold)
    run = simulate(
        family.neuron,
        g,
        DURATION,
        dt=dt,
        V0=rest,
        Ca0=resting_calcium(family, rest, g),
        stimulus=stimulus,
        save="traces",
        save_every=EVERY,
    )
    assert run.V is not None
    return np.concatenate([rest[:, None], run.V], axis=1)


def make_trial(
    seed: int,
    family: Family,
    g: Float[np.ndarray, "cells channels"],
    measured: Characteristics,
    per_cell: int = 1,
) -> Trial:
    """Every member under `per_cell` steps of random height."""
    rows = np.repeat(np.arange(len(g)), per_cell)
    g, everyone = g[rows], measured.of(rows)
    amplitude = draw_amplitudes(np.random.default_rng(seed), everyone)
    V = simulate_steps(family, g, amplitude)
    return Trial(g, everyone.values, amplitude, V)


@dataclasses.dataclass(frozen=True)
class Scores:
    """How far predicted potentials are from simulated ones, over all traces."""

    num: int
    """Traces."""
    centred_l2: float
    """Median over traces of the error relative to the variation of the trace."""
    centred_l2_mean: float
    """Its mean."""
    centred_l2_firing: float
    """Its median over traces with spikes."""
    l2: float
    """Median of the error relative to the size of the potential, rest included."""
    spike_count: float
    """Sum of the errors of spike counts, as a part of all spikes."""
    wrong_count: float
    """Share of traces with another spike count."""
    missed: float
    """Share of firing traces that were predicted to be silent."""
    false: float
    """Share of silent traces that were predicted to fire."""
    timing: float
    """Median distance between spikes of equal number, in ms."""
    matched: float
    """F1 of spikes that have one of the other trace within 2 ms."""
    latency: float
    """Median error of the first spike's latency, in ms."""
    height: float
    """Median error of the height of spikes, as a part of it."""
    width: float
    """Median error of the width of spikes, as a part of it."""
    depth: float
    """Median error of the lowest potential between spikes, in mV."""
    steady: float
    """Median error of the potential that silent cells reach, in mV."""


def score(
    V: Float[np.ndarray, "cells samples"], truth: Float[np.ndarray, "cells samples"]
) -> Scores:
    """Scores of predicted potentials (mV), over all traces."""
    V = np.where(np.isfinite(V), V, 0.0).astype(np.float32)
    truth = truth.astype(np.float32)
    ours, theirs = _responses(V), _responses(truth)
    k, k_true = ours.num_spikes, theirs.num_spikes
    fires = k_true > 0
    norm = lambda x: np.linalg.norm(x, axis=1)
    away = norm(V - truth)
    centred = away / norm(truth - truth.mean(axis=1, keepdims=True))
    times, true_times = _trains(V), _trains(truth)
    gaps = [
        np.abs(a[:n] - b[:n])
        for a, b in zip(times, true_times, strict=True)
        if (n := min(len(a), len(b)))
    ]
    both = (k > 0) & fires
    error = lambda name, part: _median(
        _error(getattr(ours, name), getattr(theirs, name), part)[both]
    )
    none = ~fires & (k == 0)
    return Scores(
        num=len(V),
        centred_l2=float(np.median(centred)),
        centred_l2_mean=float(centred.mean()),
        centred_l2_firing=_median(centred[fires]),
        l2=float(np.median(away / norm(truth))),
        spike_count=float(np.abs(k - k_true).sum() / max(1, k_true.sum())),
        wrong_count=float(np.mean(k != k_true)),
        missed=_share(k[fires] == 0),
        false=_share(k[~fires] > 0),
        timing=float(np.median(np.concatenate(gaps))) if gaps else np.nan,
        matched=_matched(times, true_times),
        latency=error("latency", False),
        height=error("height", True),
        width=error("width", True),
        depth=error("depth", False),
        steady=_median(np.abs(ours.steady - theirs.steady)[none]),
    )


def _responses(V) -> Any:
    response = step_response(jnp.asarray(V), EVERY, START, STOP, max_spikes=MAX_SPIKES)
    return jax.tree.map(np.asarray, response)


def _median(x) -> float:
    known = x[np.isfinite(x)]
    return float(np.median(known)) if len(known) else np.nan


def _share(x) -> float:
    return float(np.mean(x)) if len(x) else np.nan


def _error(ours, theirs, relative):
    away = np.abs(ours - theirs)
    return away / np.abs(theirs) if relative else away


def _trains(V) -> list[np.ndarray]:
    """Spike times (ms) during the step."""
    trains = spike_trains(EVERY * np.arange(V.shape[1]), V)
    return [times[(times >= START) & (times < STOP)] for times in trains]


def _matched(times, true_times) -> float:
    hits = total = 0
    for a, b in zip(times, true_times, strict=True):
        total += len(a) + len(b)
        if len(a) and len(b):
            gaps = np.abs(a[:, None] - b[None])
            hits += (gaps.min(axis=1) <= MATCHED).sum()
            hits += (gaps.min(axis=0) <= MATCHED).sum()
    return float(hits / total) if total else np.nan
