"""Predictions from the simulator, from tables, and from given amplitudes."""

import dataclasses
import types
from collections.abc import Iterator
from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dicjax.operator import Characteristics, Family, Operator, respond
from dicjax.operator.scores import draw_amplitudes, EVERY, simulate_steps, Trial
from scripts.bench.operator.common import Traces


STEPS = (0.025, 0.05, 0.1, 0.2, 0.4)  # ms


def trivial(V: Traces) -> dict[str, Traces]:
    """Predictions made from the true potentials, each of which lacks one thing."""
    return {
        "never fires: truth, at most -40 mV": np.minimum(V, -40.0),
        "truth, one sample late": np.concatenate([V[:, :1], V[:, :-1]], axis=1),
        "mean of the truth": np.broadcast_to(V.mean(axis=1, keepdims=True), V.shape),
    }


def amplitudes_at(
    part: Float[np.ndarray, "*cells"], measured: Characteristics
) -> Float[np.ndarray, " cells"]:
    """Currents (µA/cm²) at a part, 0 to 1, of the range that trials draw from."""
    given = types.SimpleNamespace(random=lambda num: np.broadcast_to(part, num))
    return draw_amplitudes(cast(np.random.Generator, given), measured)


def coarser(family: Family, trial: Trial) -> Iterator[tuple[float, Traces]]:
    """The simulator with longer steps (ms), as far as it takes them."""
    for dt in STEPS:
        try:
            yield dt, simulate_steps(family, trial.g, trial.amplitude, dt)
        except ValueError as error:
            print(error)


def look_up(family: Family, trial: Trial, num: int) -> Traces:
    """The same member at the nearest of `num` currents, as a table would have it."""
    measured = Characteristics(trial.features, np.ones(len(trial.g), bool))
    low, high = (amplitudes_at(np.array(x), measured) for x in (0.0, 1.0))
    part = (trial.amplitude - low) / (high - low)
    nearest = np.clip(np.round(part * (num - 1)), 0, num - 1) / (num - 1)
    return simulate_steps(family, trial.g, amplitudes_at(nearest, measured))


class WithAmplitudes(Operator):
    """An operator whose amplitudes are given, whatever its features."""

    a: Float[Array, "*cells terms"]

    def amplitudes(self, x: Float[Array, "*cells features"]) -> Array:
        del x
        return self.a


def predict_with_amplitudes(operator: Operator, a, trial: Trial) -> Traces:
    """Potentials that the operator's steps give for amplitudes (mS/cm²)."""
    own = {f.name: getattr(operator, f.name) for f in dataclasses.fields(operator)}
    given = WithAmplitudes(**own, a=jnp.asarray(a))
    return np.asarray(respond(given, trial.current, trial.features, every=EVERY).V)
