"""How well potentials are predicted, by measures that see spikes."""

import dataclasses

import equinox as eqx
import numpy as np
from jaxtyping import Float, ScalarLike

from dicjax.operator.characteristics import (
    at_rest,
    Characteristics,
    measured_steps,
    stepped,
)
from dicjax.operator.families import Family
from dicjax.operator.prediction import sampled_step
from dicjax.simulation import Step
from dicjax.spikes import spike_trains


EVERY = 0.1  # ms between samples
START, STOP, DURATION = 50.0, 550.0, 600.0  # ms, of the step
DT = 0.0125  # ms, of the simulations that are predicted
LOWEST = -0.5  # of the threshold
MATCHED = 2.0  # ms within which a spike counts as the same as one in the other trace


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
        num = self.V.shape[1]
        return sampled_step(self.amplitude[:, None], START, STOP, num, EVERY)


def draw_amplitudes(
    rng: np.random.Generator, measured: Characteristics
) -> Float[np.ndarray, " cells"]:
    """A current (µA/cm²) for every member, from hyperpolarising ones to 40 Hz."""
    threshold = measured["threshold"]
    highest = threshold + 10 / measured["gain"] + 25 / measured["high_gain"]
    low, high = LOWEST * threshold, 1.1 * highest
    return (low + (high - low) * rng.random(len(low))).astype(np.float32)


def simulate_steps(
    family: Family,
    g: Float[np.ndarray, "cells channels"],
    amplitude: Float[np.ndarray, " cells"],
    dt: float = DT,
) -> Float[np.ndarray, "cells samples"]:
    """Potentials (mV) of cells at rest that then receive a step."""
    rest, step = at_rest(family, g), Step(amplitude, START, STOP)
    how = {"dt": dt, "save_every": EVERY}
    run = stepped(family, g, rest, step, DURATION, **how)
    assert run.V is not None
    return np.concatenate([rest[0][:, None], run.V], axis=1)


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
    """How far predicted potentials are from simulated ones, over `num` traces.

    - `centred_l2`: median error relative to the variation of a trace.
    - `centred_l2_mean`, `centred_l2_firing`: its mean, and its median of firing traces.
    - `l2`: median error relative to the size of the potential, rest included.
    - `spike_count`: sum of the errors of spike counts, as a part of all spikes.
    - `wrong_count`: share of traces with another spike count.
    - `missed`, `false`: share of firing traces that were predicted to be silent, and of
        silent ones that were predicted to fire.
    - `timing`: median distance between spikes of equal number, in ms.
    - `matched`: F1 of spikes that have one of the other trace within 2 ms.
    - `latency`: median error of the first spike's latency, in ms.
    - `height`, `width`: median errors of spikes, as a part of their height and width.
    - `depth`: median error of the lowest potential between spikes, in mV.
    - `steady`: median error of the potential that silent cells reach, in mV.
    """

    num: int
    centred_l2: float
    centred_l2_mean: float
    centred_l2_firing: float
    l2: float
    spike_count: float
    wrong_count: float
    missed: float
    false: float
    timing: float
    matched: float
    latency: float
    height: float
    width: float
    depth: float
    steady: float


def score(
    V: Float[np.ndarray, "cells samples"],
    truth: Float[np.ndarray, "cells samples"],
    **levels: ScalarLike,
) -> Scores:
    """Scores of predicted potentials (mV), over all traces.

    `levels` are the `spike_levels` of the neuron, where they are not the usual ones.
    """
    V = np.where(np.isfinite(V), V, 0.0).astype(np.float32)
    truth = truth.astype(np.float32)
    ours, theirs = (measured_steps(x, EVERY, START, STOP, **levels) for x in (V, truth))
    k, k_true = ours.num_spikes, theirs.num_spikes
    fires, none = k_true > 0, (k_true == 0) & (k == 0)
    norm = lambda x: np.linalg.norm(x, axis=1)
    away = norm(V - truth)
    centred = away / norm(truth - truth.mean(axis=1, keepdims=True))
    times, true_times = (_trains(x, levels) for x in (V, truth))
    pairs = zip(times, true_times, strict=True)
    gaps = [np.abs(a[:n] - b[:n]) for a, b in pairs if (n := min(len(a), len(b)))]

    def error(name, relative=False):
        own, other = getattr(ours, name), getattr(theirs, name)
        return np.abs(own - other) / (np.abs(other) if relative else 1)

    return Scores(
        num=len(V),
        centred_l2=float(np.median(centred)),
        centred_l2_mean=float(centred.mean()),
        centred_l2_firing=_median(centred[fires]),
        l2=float(np.median(away / norm(truth))),
        spike_count=float(error("num_spikes").sum() / max(1, k_true.sum())),
        wrong_count=_share(k != k_true),
        missed=_share(k[fires] == 0),
        false=_share(k[~fires] > 0),
        timing=_median(np.concatenate([*gaps, ()])),
        matched=_matched(times, true_times),
        latency=_median(error("latency")),
        height=_median(error("height", relative=True)),
        width=_median(error("width", relative=True)),
        depth=_median(error("depth")),
        steady=_median(error("steady")[none]),
    )


def _median(x) -> float:
    known = x[np.isfinite(x)]
    return float(np.median(known)) if len(known) else np.nan


def _share(x) -> float:
    return float(np.mean(x)) if len(x) else np.nan


def _trains(V, levels) -> list[np.ndarray]:
    """Spike times (ms) during the step."""
    trains = spike_trains(EVERY * np.arange(V.shape[1]), V, **levels)
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
