"""Members simulated as long as a target needs, and judged by it."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree

from dicjax._core import check_dt, check_simulation, in_batches, listed, Progress
from dicjax.neurons import Neuron
from dicjax.simulation import AbstractStimulus, applied, as_stimulus, Run, simulate
from dicjax.spikes import Agreement, BURSTING, spike_features, Target, TONIC


BATCH = 512  # members judged at once


class Window(NamedTuple):
    """The simulated time of which spikes are compared: all but `discard`, in ms."""

    duration: float
    discard: float


class Conditions(NamedTuple):
    """How members are simulated: for how long, in which steps (ms), under what."""

    window: Window
    dt: float
    stimulus: AbstractStimulus | None


def conditions_for(
    neuron: Neuron,
    window: Window,
    *,
    dt: float | None = None,
    stimulus: AbstractStimulus | None = None,
) -> Conditions:
    """What is given; by default half the step of the recipe, and its current."""
    if dt is None:
        dt = neuron.required_recipe.dt / 2
    check_dt(dt)
    return Conditions(window, dt, stimulus_for(neuron, stimulus))


def stimulus_for(neuron: Neuron, stimulus: Any) -> AbstractStimulus | None:
    """The stimulus that was given, or else the current of the recipe, if any."""
    if stimulus is None and neuron.recipe is not None:
        return applied(neuron.recipe.current)
    return as_stimulus(stimulus)


def simulated_times(
    neuron: Neuron, duration: float | None, discard: float | None, dt: float | None
) -> tuple[float, float, float]:
    """Duration, discarded time and time step, in ms: given, or of the recipe.

    The time step is half of the recipe's.
    """
    given: Any = {"duration": duration, "discard": discard, "dt": dt}
    check_given(neuron, **given)
    if neuron.recipe is not None:
        own = neuron.recipe
        of_recipe = {"duration": own.duration, "discard": own.discard, "dt": own.dt / 2}
        given = {name: of_recipe[name] if x is None else x for name, x in given.items()}
    times = given["duration"], given["discard"], given["dt"]
    check_simulation(*times)
    return times


def check_given(neuron: Neuron, **times: float | None) -> None:
    """Raises `ValueError` if a time (ms) is None that the neuron has no recipe for."""
    missing = [f"`{name}`" for name, x in times.items() if x is None]
    if missing and neuron.recipe is None:
        raise ValueError(
            f"{neuron.name} has no recipe that says how to simulate it: give "
            f"{listed(missing)} in ms."
        )


def window_for(
    neuron: Neuron,
    target: Target,
    *,
    duration: float | None = None,
    discard: float | None = None,
) -> Window:
    """How long members are simulated to be compared with a target.

    By default that is twelve bursts, twenty intervals of a regular train or a hundred
    of an irregular one, from 2 to 60 s, after as long a start as the recipe leaves out.
    """
    check_given(neuron, duration=duration, discard=discard)
    start = neuron.recipe.discard if neuron.recipe is not None else 0.0
    if duration is None:
        features = target.features
        if target.label == BURSTING:
            span = 12 * float(features.period)
        else:
            span = (20 if target.label == TONIC else 100) * float(features.mean_isi)
        duration = start + float(np.clip(span, 2000.0, 60_000.0))
    return Window(duration, start if discard is None else discard)


def simulate_by_recipe(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"],
    window: Window | None = None,
    *,
    drive: AbstractStimulus | None = None,
    halved: bool = False,
    on_progress: Progress | None = None,
) -> Run:
    """Simulates members under the current of their recipe, and with its time step or
    half of it; also for its times, unless there is a `window`.

    A `drive` takes the place of the current.
    """
    recipe = neuron.required_recipe
    duration, discard = window or (recipe.duration, recipe.discard)
    return simulate(
        neuron,
        g,
        duration,
        discard=discard,
        dt=recipe.dt / (2 if halved else 1),
        stimulus=applied(recipe.current) if drive is None else drive,
        on_progress=on_progress,
    )


class Verdict(eqx.Module):
    """How members fire beside a target.

    - `features`: what is compared; of spike trains [`dicjax.Features`][].
    - `errors`: how far off each of them is; of spike trains ln(feature / target), as
        [`dicjax.feature_errors`][] gives them, or, of members with a drive, as an
        `Agreement` compares them.
    - `limits`: how far each of them may be off.
    - `succeeded`: whether they were simulated to the end.
    - `fell_short`: whether they rose like a spike without reaching `V_spike`.
    - `valid`: whether they succeeded, and they fire like the target.
    - `score`: how far off they are in units of what is allowed, by their largest error
        unless the target says otherwise; infinite where the firing pattern is another.
    - `distance`: of distributions of intervals, of members with a drive.
    """

    features: Any
    errors: Float[np.ndarray, "cells errors"]
    limits: Float[np.ndarray, "cells errors"]
    succeeded: Bool[np.ndarray, " cells"]
    fell_short: Bool[np.ndarray, " cells"]
    valid: Bool[np.ndarray, " cells"]
    score: Float[np.ndarray, " cells"]
    distance: Float[np.ndarray, " cells"] | None = None

    def __getitem__(self, members) -> "Verdict":
        return jax.tree.map(lambda x: x[members], self)


def judge(run: Run, target: Target) -> Verdict:
    """Compares simulated members with a target."""
    if target.agreement is not None:
        return _judge_agreement(run, target.agreement)

    def compared(times):
        features = spike_features(times)
        return features, target.errors(features), target.is_valid(features)

    features, errors, valid = in_batches(compared, run.spike_times, size=BATCH)
    limits = np.asarray(target.limits(errors))
    known = (features.label == target.label) & np.isfinite(errors).all(axis=1)
    score = np.where(known, np.max(np.abs(errors) / limits, axis=1), np.inf)
    ran, fell_short = np.asarray(run.succeeded), np.asarray(run.fell_short)
    valid = ran & valid
    return Verdict(features, errors, limits, ran, fell_short, valid, score)


def _judge_agreement(run: Run, agreement: Agreement) -> Verdict:
    found = agreement.compare(run.spike_times)
    limits = np.broadcast_to(agreement.limits, found.errors.shape)
    off = np.abs(found.errors) / np.where(limits > 0, limits, 1)
    score = np.maximum(off.max(axis=1), found.distance / agreement.furthest)
    known = np.isfinite(score) & agreement.patterns[found.features.label]
    ran, fell_short = np.asarray(run.succeeded), np.asarray(run.fell_short)
    return Verdict(
        found.features,
        found.errors,
        limits,
        ran,
        fell_short,
        valid=ran & found.agrees,
        score=np.where(known, score, np.inf),
        distance=found.distance,
    )


def evaluate(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"],
    target: Target,
    window: Window,
    *,
    drive: AbstractStimulus | None = None,
    halved: bool = False,
    on_progress: Progress | None = None,
) -> tuple[Run, Verdict]:
    """Simulates members by their recipe, with a drive if there is one, and judges
    them."""
    how: Any = {"drive": drive, "halved": halved, "on_progress": on_progress}
    run = simulate_by_recipe(neuron, g, window, **how)
    return run, judge(run, target)


def with_rows(tree: PyTree, rows: np.ndarray, new: PyTree) -> Any:
    """Copies of arrays in which some rows (indices or a mask) are replaced."""

    def one(x, new):
        x = np.array(x)
        x[rows] = new
        return x

    return jax.tree.map(one, tree, new)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if trials == 0:
        return 0.0, 1.0
    z, share = 1.96, successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = z / (1 + z**2 / trials)
    half = spread * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(0, middle - half)), float(min(1, middle + half))
