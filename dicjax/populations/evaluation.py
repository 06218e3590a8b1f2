"""What members are tried against: a train, its features, and who fires like it."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float

from dicjax.neurons import Neuron
from dicjax.simulation import applied, Run, simulate
from dicjax.spikes import (
    BURSTING,
    feature_errors,
    Features,
    is_valid,
    spike_features,
    TONIC,
)


BATCH = 512  # members judged at once
SPIKES_PER_BURST = 2  # among the errors of a bursting target


def simulated_time(neuron: Neuron, target: Features) -> tuple[float, float]:
    """How long (ms) members are simulated to be compared with a train, and the start
    that is left out: twelve bursts, twenty intervals of a regular train or forty of an
    irregular one, within reason."""
    discard = neuron.required_recipe.discard
    if int(target.label) == BURSTING:
        span = 12 * float(target.period)
    else:
        num = 20 if int(target.label) == TONIC else 40
        span = num * float(target.mean_isi)
    return discard + float(np.clip(span, 2000.0, 60_000.0)), discard


def simulate_by_recipe(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"],
    *,
    duration: float | None = None,
    discard: float | None = None,
    dt: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Simulates members under the current, and else for the times, of their recipe."""
    recipe = neuron.required_recipe
    return simulate(
        neuron,
        g,
        recipe.duration if duration is None else duration,
        discard=recipe.discard if discard is None else discard,
        dt=recipe.dt if dt is None else dt,
        stimulus=applied(recipe.current),
        on_progress=on_progress,
    )


class Verdict(eqx.Module):
    """How members fire beside a target.

    - `errors`: ln(feature / target), as [`dicjax.feature_errors`][] gives them.
    - `valid`: whether they fire like the target, and were simulated to the end.
    - `score`: the largest error in units of what is allowed; infinite where the firing
        pattern is another.
    """

    features: Features
    errors: Float[np.ndarray, "cells 3"]
    valid: Bool[np.ndarray, " cells"]
    score: Float[np.ndarray, " cells"]

    def __getitem__(self, members) -> "Verdict":
        return jax.tree.map(lambda x: x[members], self)


class Trial:
    """Simulates members for as long as a target needs, and judges them by it."""

    def __init__(
        self,
        neuron: Neuron,
        target: Features,
        tolerance: float,
        *,
        duration: float | None = None,
        discard: float | None = None,
    ):
        if not 0 < tolerance < 1:
            raise ValueError(f"`tolerance` must lie between 0 and 1, got {tolerance}.")
        self.neuron, self.target, self.tolerance = neuron, target, tolerance
        wanted, left_out = simulated_time(neuron, target)
        self.discard = left_out if discard is None else discard
        self.duration = wanted if duration is None else duration

    @property
    def limits(self) -> Float[np.ndarray, " 3"]:
        """How far each of the features' logarithms may be off."""
        limits = np.full(3, np.log1p(self.tolerance))
        if int(self.target.label) == BURSTING:
            half_a_spike = 0.5 / float(self.target.spikes_per_burst)
            limits[SPIKES_PER_BURST] = np.log1p(max(self.tolerance, half_a_spike))
        return limits

    def simulate(
        self,
        g: Float[np.ndarray, "cells channels"],
        *,
        dt: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Run:
        """Simulates members under the current that their recipe names."""
        return simulate_by_recipe(
            self.neuron,
            g,
            duration=self.duration,
            discard=self.discard,
            dt=dt,
            on_progress=on_progress,
        )

    def judge(self, run: Run) -> Verdict:
        """Compares what was simulated with the target."""
        parts = [
            self._compare(run.spike_times[start : start + BATCH])
            for start in range(0, max(1, len(run.spike_times)), BATCH)
        ]
        features, errors, valid = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        known = (features.label == int(self.target.label)) & np.isfinite(errors).all(1)
        score = np.where(known, np.max(np.abs(errors) / self.limits, axis=1), np.inf)
        return Verdict(features, errors, run.succeeded & valid, score)

    def _compare(self, times: Float[np.ndarray, "cells spikes"]):
        # Padded to a number of rows that is compiled for once.
        num = len(times)
        padded = np.pad(times, ((0, num and BATCH - num), (0, 0)), mode="edge")
        features = spike_features(padded)
        errors = feature_errors(features, self.target)
        valid = is_valid(features, self.target, self.tolerance)
        return jax.tree.map(lambda x: np.asarray(x)[:num], (features, errors, valid))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if trials == 0:
        return 0.0, 1.0
    z, share = 1.96, successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = z / (1 + z**2 / trials)
    half = spread * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(0, middle - half)), float(min(1, middle + half))
