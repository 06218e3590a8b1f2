"""A recorded cell beside an ensemble of neurons that respond like it."""

import itertools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key, ScalarLike

from dicjax._core import compiled_size, described, in_batches, on_host
from dicjax.operator.characteristics import (
    COUNTS,
    from_coordinates,
    measured_steps,
    OF_SPIKES,
    to_coordinates,
)
from dicjax.operator.ensemble import draw_ensemble
from dicjax.operator.families import find_family
from dicjax.operator.model import Operator
from dicjax.operator.prediction import feature_ranges, respond, sampled_step
from dicjax.recordings import Steps, Sweeps
from dicjax.spikes import mark_spikes, spike_trains, StepResponse, V_REARM, V_SPIKE


SECOND = 1000.0  # ms of a step in which spikes are counted
REACH = 3  # spikes by which an F-I curve is continued
AROUND = 50.0  # ms before and after a predicted step
EVERY = 0.1  # ms
NEURONS = 64  # answered at once
TRIED = 6  # candidates for every neuron of an ensemble
ROUNDS = 4  # in which the likest have children
DIFFERENCE = 0.5  # of two parents, that a child is moved by
STRAY = 0.02  # of how much features vary in the family, for children
PINNED = ("threshold", "gain", "high_gain")  # what candidates have as measured
# How far a feature may be off for every sweep before it counts as one: as a part of
# what was recorded, or at least so much.
CLOSE = {
    "num_spikes": (0.05, 0.5),
    "latency": (0.2, 2.0),
    "adaptation": (0.0, 0.03),
    "height": (0.0, 6.0),
    "width": (0.15, 0.1),
    "depth": (0.0, 4.0),
}
PASSIVE = {"rest": (0.0, 2.0), "resistance": (0.1, 0.0)}  # likewise, of all sweeps
COMPARED = {
    "num_spikes": "spikes",
    "latency": "latency (ms)",
    "adaptation": "adaptation",
    "height": "height (mV)",
    "width": "width (ms)",
    "depth": "trough (mV)",
}


class Comparison(eqx.Module):
    """Recorded and predicted responses to the same steps.

    - `amplitude`: of the steps, in pA; `density`: in µA/cm².
    - `is_used`: which sweeps the features were measured from.
    - `measured`: these features, by name.
    - `features`: of the ensemble, as the operator takes them, the likest first.
    - `recorded`, `predicted`: of every sweep, and of every neuron (rows) and sweep.
    - `ts`, `V`: ms from the onset of the step, and potentials (mV) of all neurons.
    """

    amplitude: Float[np.ndarray, " sweeps"]
    density: Float[np.ndarray, " sweeps"]
    is_used: np.ndarray
    measured: dict[str, float]
    features: Float[np.ndarray, "neurons features"]
    recorded: StepResponse
    predicted: StepResponse
    ts: Float[np.ndarray, " samples"]
    V: Float[np.ndarray, "neurons sweeps samples"]

    def __repr__(self) -> str:
        return described(self, self.summary)

    def table(self) -> dict[str, list]:
        """A row per sweep and feature: the recording, and quartiles of the ensemble."""
        rows = [
            {
                "sweep": i,
                "current_pA": float(amplitude),
                "used": bool(self.is_used[i]),
                "feature": name,
                "recorded": float(getattr(self.recorded, name)[i]),
                **_quartiles(getattr(self.predicted, name)[:, i]),
            }
            for i, amplitude in enumerate(self.amplitude)
            for name in COMPARED
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def summary(self) -> str:
        """A line on the sweeps that were predicted, or on all if all were used."""
        kind, which = "predicted", ~self.is_used
        if not which.any():
            kind, which = "fitted", self.is_used
        recorded = self.recorded.num_spikes[which]
        counts = self.predicted.num_spikes[:, which]
        low, middle, high = np.percentile(counts, (25, 50, 75), axis=0)
        off = np.abs(middle - recorded).sum() / max(1, recorded.sum())
        inside = np.mean((low - 0.5 <= recorded) & (recorded <= high + 0.5))
        return (
            f"{which.sum()} sweeps {kind}: median spike counts "
            f"{', '.join(f'{x:g}' for x in middle)}, recorded "
            f"{', '.join(map(str, recorded))} ({off:.0%} off; {inside:.0%} lie "
            "within the ensemble's quartiles)."
        )


def _quartiles(x) -> dict[str, float]:
    x = np.asarray(x, float)
    of = np.nanpercentile(x, (25, 50, 75)) if np.isfinite(x).any() else [np.nan] * 3
    return dict(zip(("q25", "median", "q75"), map(float, of), strict=True))


@on_host()
def measure_cell(
    sweeps: Sweeps,
    steps: Steps,
    capacitance: float,
    *,
    resistance: float | None = None,
    use: Sequence[int] | None = None,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> dict[str, float]:
    """Features of a recorded cell, as [`dicjax.characterise`][] measures models.

    Currents become densities through the cell's capacitance, at 1 µF/cm². Features that
    the steps do not show are left out, such as the gain at 40 Hz if none went so far.

    **Arguments:**

    - `sweeps`, `steps`: of [`dicjax.read_sweeps`][] and [`dicjax.find_steps`][].
    - `capacitance`: of the cell, in pF.
    - `resistance`: of the cell, in MΩ, if known.
    - `use`: the sweeps to measure; all if not given.
    - `V_spike`, `V_rearm`: a spike is an upward crossing of the first (mV) that a later
        fall below the second confirms.

    **Raises:**

    - `ValueError`: if the step is shorter than a second, if `use` names sweeps that are
        not there, or if fewer than two of them have spikes.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    if steps.stop - steps.start < SECOND - 1:
        raise ValueError(
            f"{sweeps.name}: a step of {steps.stop - steps.start:g} ms is too short: "
            f"spikes are counted over its first {SECOND:g} ms."
        )
    if not capacitance > 0:
        raise ValueError(f"The capacitance must be positive pF, got {capacitance}.")
    rows = np.arange(len(sweeps.V)) if use is None else np.asarray(use, int)
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(sweeps.V):
        raise ValueError(
            f"{sweeps.name} has sweeps 0 to {len(sweeps.V) - 1}, but "
            f"{rows.tolist()} are to be used."
        )
    levels = {"V_spike": V_spike, "V_rearm": V_rearm}
    count = _counts(sweeps.V[rows], sweeps.every, steps, levels)
    fires = np.flatnonzero(count >= 1)
    order = fires[np.argsort(count[fires])]
    if len(order) < 2:
        raise ValueError(
            f"{sweeps.name}: {len(order)} of the sweeps {rows.tolist()} have "
            "spikes, but an F-I curve needs two: use more, or stronger steps."
        )
    stop = steps.start + SECOND
    V, every = sweeps.V[rows], sweeps.every
    response = measured_steps(V, every, steps.start, stop, **levels)
    found = {"rest": float(np.mean(response.rest))}
    if resistance is not None:
        # MΩ · pF is µs; over 1 µF/cm² that is kΩ·cm² in thousandths.
        found["resistance"] = resistance * capacitance / 1e3
    count, current = count[order], steps.amplitude[rows][order] / capacitance
    at = [_current_at(num, count, current) for num in COUNTS]
    if np.isfinite(at[0]):
        found["threshold"] = at[0]
    for i, name in enumerate(("gain", "high_gain")):
        if at[i + 1] > at[i]:  # and none of them is nan
            found[name] = (COUNTS[i + 1] - COUNTS[i]) / (at[i + 1] - at[i])
    middle = COUNTS[1]
    if count[0] <= middle + REACH and count[-1] >= middle - REACH:
        for name in OF_SPIKES:
            values = np.asarray(getattr(response, name), float)[order]
            if np.isfinite(values).all():
                found[name] = float(np.interp(middle, count, values))
    return found


def _counts(V, every, steps, levels) -> Float[np.ndarray, " sweeps"]:
    """Spikes in the first second of a step, and what is left of an interval."""
    counts = []
    for times in spike_trains(every * np.arange(V.shape[1]), V, **levels):
        times = times[(times >= steps.start) & (times < steps.stop)] - steps.start
        inside, later = times[times < SECOND], times[times >= SECOND]
        count = float(len(inside))
        if len(inside) > 1:
            last = later[0] - inside[-1] if len(later) else inside[-1] - inside[-2]
            count += min((SECOND - inside[-1]) / last, 0.99)
        counts.append(count)
    return np.array(counts)


def _current_at(num: int, count, current) -> float:
    """Where an F-I curve reaches a count, continued a little beyond its ends."""
    if count[0] <= num <= count[-1]:
        return float(np.interp(num, count, current))
    if count[0] - REACH <= num <= count[-1] + REACH:
        return float(np.polyval(np.polyfit(count, current, 1), num))
    return np.nan


@on_host()
def compare(
    key: Key[jax.Array, ""],
    operator: Operator,
    sweeps: Sweeps,
    steps: Steps,
    capacitance: float,
    *,
    resistance: float | None = None,
    use: Sequence[int] | None = None,
    num: int = 200,
    spread: float = 0.3,
) -> Comparison:
    """An ensemble conditioned on some sweeps of a cell, and what it does in all.

    Candidates resemble the cell in all that was measured, and have its F-I curve. Of
    six times as many as are wanted, those are kept whose responses to the sweeps in use
    are most like the cell's. Four times, children of these replace less similar ones.

    **Arguments:**

    - `key`: the randomness of the ensemble.
    - `operator`: of [`dicjax.load_operator`][].
    - `sweeps`, `steps`, `capacitance`, `resistance`, `use`: see
        [`dicjax.measure_cell`][].
    - `num`: neurons in the ensemble.
    - `spread`: how far candidates stray from the cell's F-I curve, as in
        [`dicjax.draw_ensemble`][].

    **Raises:**

    - `ValueError`: where [`dicjax.measure_cell`][] or [`dicjax.draw_ensemble`][] do.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    levels = find_family(operator.family).neuron.spike_levels
    how = {"resistance": resistance, "use": use, **levels}
    measured = measure_cell(sweeps, steps, capacitance, **how)
    density = steps.amplitude / capacitance
    sweep = np.arange(len(density))
    is_used = np.isin(sweep, sweep if use is None else use)
    duration = steps.stop - steps.start
    recorded = _seen_in(sweeps.V, sweeps.every, steps.start, duration, levels)
    wanted = jax.tree.map(lambda x: x[is_used], recorded)

    def tried(candidates):
        V = _answered(operator, candidates, density[is_used], duration)
        away = _distance(_seen_in(V, EVERY, AROUND, duration, levels), wanted)
        passive = _passive_distance(operator, candidates, measured)
        return candidates, V, np.hypot(away, passive)

    def likest(*several):
        features, V, away = map(np.concatenate, zip(*several, strict=True))
        order = np.argsort(away)[:num]
        return features[order], V[order], away[order]

    candidates = draw_ensemble(
        key, operator, measured, TRIED * num, spread=spread, pinned=PINNED
    )
    best = likest(tried(_within(operator, candidates)))
    for i in range(ROUNDS):
        children = _children(jax.random.fold_in(key, i + 1), operator, best[0])
        best = likest(best, tried(children))
    features, used, _ = best
    V = np.empty((num, len(density), used.shape[2]), used.dtype)
    V[:, is_used] = used
    if not is_used.all():
        V[:, ~is_used] = _answered(operator, features, density[~is_used], duration)
    return Comparison(
        amplitude=steps.amplitude,
        density=density,
        is_used=is_used,
        measured=measured,
        features=features,
        recorded=recorded.response,
        predicted=_seen_in(V, EVERY, AROUND, duration, levels).response,
        ts=EVERY * np.arange(V.shape[2]) - AROUND,
        V=V,
    )


def _answered(operator, features, density, duration):
    """Potentials (mV) of all neurons (rows) under all steps."""
    num = round((2 * AROUND + duration) / EVERY)
    current = sampled_step(density[:, None], AROUND, AROUND + duration, num, EVERY)
    answer = lambda some: respond(operator, current, some[:, None], every=EVERY).V
    size = min(NEURONS, compiled_size(len(features)))
    return in_batches(answer, features, size=size)


class _Seen(NamedTuple):
    """Features of responses; spikes in quarters of the step tell bursts from trains."""

    response: StepResponse
    quarters: Int[np.ndarray, "... 4"]


def _seen_in(V, every, start, duration, levels) -> _Seen:
    marks = np.asarray(mark_spikes(jnp.asarray(V), **levels))
    edges = [round((start + duration * i / 4) / every) for i in range(5)]
    quarters = [marks[..., a:b].sum(-1) for a, b in itertools.pairwise(edges)]
    response = measured_steps(V, every, start, start + duration, **levels)
    return _Seen(response, np.stack(quarters, -1))


def _distance(predicted: _Seen, recorded: _Seen) -> Float[np.ndarray, " neurons"]:
    """How far answers are from the recording, in all features and sweeps."""
    spread = np.maximum(0.1 * recorded.quarters, 1.0)
    away = (predicted.quarters - recorded.quarters) / spread
    total = np.mean(away**2, axis=-1)
    for name, (part, least) in CLOSE.items():
        ours = np.asarray(getattr(predicted.response, name), float)
        theirs = np.asarray(getattr(recorded.response, name), float)
        away = (ours - theirs) / np.maximum(part * np.abs(theirs), least)
        # What one of both lacks is as far off as can be.
        lacks = np.isfinite(ours) != np.isfinite(theirs)
        total = total + np.where(lacks, 3.0, np.nan_to_num(away)).clip(-9, 9) ** 2
    return np.sqrt(np.mean(total, axis=-1))


def _children(key, operator: Operator, features):
    """As many neurons as there are parents, each beside one by what two others differ.

    As in differential evolution (Storn and Price 1997), so that children stray as far
    as parents do, and along the directions that they do.
    """
    keys = jax.random.split(key, 2)
    x = np.asarray(to_coordinates(features, operator.names), np.float64)
    num = len(x)
    one, two, three = np.asarray(jax.random.randint(keys[0], (3, num), 0, num))
    noise = np.asarray(jax.random.normal(keys[1], x.shape, jnp.float32))
    scale = np.asarray(operator.library).std(axis=0)
    x = x[one] + DIFFERENCE * (x[two] - x[three]) + STRAY * scale * noise
    low, high = feature_ranges(operator)
    return np.clip(np.asarray(from_coordinates(x, operator.names)), low, high)


def _passive_distance(operator: Operator, features, measured):
    """How far candidates are from what was measured below threshold."""
    total = np.zeros(len(features))
    for name, (part, least) in PASSIVE.items():
        if name in measured:
            x = features[:, operator.names.index(name)]
            close = max(part * abs(measured[name]), least)
            total = total + ((x - measured[name]) / close) ** 2
    return np.sqrt(total)


def _within(operator: Operator, features):
    """The features; beyond what the operator knows, the edge of it."""
    low, high = feature_ranges(operator)
    outside = ((features < low) | (features > high)).any(axis=0)
    if outside.any():
        names = [operator.names[i] for i in np.flatnonzero(outside)]
        warnings.warn(
            f"The family {operator.family!r} does not reach the cell's "
            f"{', '.join(names)}: its edge is taken.",
            stacklevel=4,
        )
    return np.clip(features, low, high)
