"""Responses to steps of current, as a target of refinement."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Real

from dicjax._core import counted, in_batches, listed
from dicjax.neurons import Neuron, of_members
from dicjax.populations.evaluation import (
    check_given,
    Conditions,
    conditions_for,
    Verdict,
    Window,
)
from dicjax.populations.refinement.targets import (
    AbstractTarget,
    check_no_times,
    Outcome,
    root_mean_square,
)
from dicjax.simulation import AbstractStimulus, simulate, Step
from dicjax.spikes import step_response, StepResponse


FEATURES = tuple(field.name for field in dataclasses.fields(StepResponse))
AFTER = 10.0  # ms after a step, in which its last spike ends
LARGE = 10.0  # limits that an error counts as large from
AT_ONCE = 256  # traces that are measured at once


@dataclasses.dataclass(frozen=True, eq=False)
class StepFeatures(AbstractTarget):
    """Features of responses to steps of current, as a target of [`dicjax.refine`][].

    Every member is simulated under each step, and its responses are measured as
    [`dicjax.step_response`][] does. Features that the target lacks under a step, such
    as the latency where it is silent, are not compared there. A member that lacks one
    that the target has is not comparable, as one of another firing pattern.

    - `current`: of each step, in µA/cm². Steps take the place of the recipe's current.
        A `stimulus` of `refine` is added.
    - `response`: the target's, with one value of every feature for each step.
    - `start`, `stop`: when steps begin and end, in ms from the start of the simulation.
    - `limits`: how far features may be off, by their names and in their own units, such
        as `{"rate": 3.0, "width": 0.1}`. These are compared, and no others.
    - `every`: time between samples of the potential, in ms.

    Raises `ValueError` if there are not as many responses as currents, if a limit is
    not positive or names no feature, or if nothing is left to compare.
    """

    current: Real[ArrayLike, "..."]
    response: StepResponse
    start: float
    stop: float
    limits: Mapping[str, float]
    every: float = 0.1
    tolerance: ClassVar[float] = 1.0
    comparable: ClassVar[str] = "have the features of the target"

    def __post_init__(self):
        current = np.asarray(self.current, float)
        object.__setattr__(self, "current", current)
        if current.ndim != 1 or not np.isfinite(current).all() or not current.size:
            raise ValueError(f"`current` must be a row of µA/cm², got {self.current}.")
        if not 0 < self.start < self.stop:
            raise ValueError(
                "A step must begin after 0 ms, so that there is a rest before it, and "
                f"end later, got {self.start} to {self.stop} ms."
            )
        if not 0 < self.every < self.start:
            raise ValueError(
                f"`every` must lie between 0 ms and the start of the step, got "
                f"{self.every}."
            )
        unknown = [repr(name) for name in self.limits if name not in FEATURES]
        if unknown or not self.limits:
            raise ValueError(
                f"`limits` must name features among {FEATURES}, got "
                f"{listed(unknown or ['none'])}."
            )
        for name, limit in self.limits.items():
            if not 0 < limit < np.inf:
                raise ValueError(f"The limit of {name} must be positive, got {limit}.")
            shape = np.shape(getattr(self.response, name))
            if shape != current.shape:
                raise ValueError(
                    f"`response` must have {counted(len(current), 'value')} of {name}, "
                    f"one for each current, got shape {shape}."
                )
        if not self._has.any():
            raise ValueError(
                f"The target has no value of {listed(list(self.limits))}: give limits "
                "of features that it has."
            )

    def _values(self, response: StepResponse) -> np.ndarray:
        """Values of the features that have limits, in columns."""
        columns = [np.asarray(getattr(response, x), float) for x in self.limits]
        return np.stack(columns, axis=-1)

    @property
    def _has(self) -> np.ndarray:
        """Which features, of steps in rows, are compared."""
        return np.isfinite(self._values(self.response))

    @property
    def claim(self) -> str:
        return "respond to steps like the target"

    @property
    def large(self) -> float:
        return LARGE * math.sqrt(self._has.sum())

    def conditions(self, neuron, duration, discard, dt, stimulus) -> Conditions:
        check_no_times("Steps", duration=duration, discard=discard)
        check_given(neuron, dt=dt)
        how = conditions_for(neuron, Window(self.stop + AFTER, 0.0), dt=dt)
        return how._replace(stimulus=stimulus)

    def evaluate(self, neuron: Neuron, g, conditions) -> Outcome:
        (duration, _), dt, stimulus = conditions
        current = np.asarray(self.current)
        members = np.repeat(np.arange(len(g)), len(current))
        step: AbstractStimulus = Step(np.tile(current, len(g)), self.start, self.stop)
        run = simulate(
            of_members(neuron, members),
            g[members],
            duration,
            dt=dt,
            stimulus=step if stimulus is None else step + stimulus,
            save_every=self.every,
        )
        # The first sample is one interval after the start.
        during = self.start - self.every, self.stop - self.every
        levels: Any = neuron.spike_levels
        measure = lambda V: step_response(jnp.asarray(V), self.every, *during, **levels)
        by_step = lambda x: np.asarray(x).reshape(len(g), len(current), *x.shape[1:])
        response = jax.tree.map(by_step, in_batches(measure, run.V, size=AT_ONCE))
        off = (self._values(response) - self._values(self.response))[:, self._has]
        limits = np.broadcast_to(np.array(list(self.limits.values())), self._has.shape)
        # In units of what is allowed: features have units of their own.
        errors = off / limits[self._has]
        ran = np.all(by_step(run.succeeded), axis=1)
        is_comparable = ran & np.all(np.isfinite(errors), axis=1)
        score = np.where(is_comparable, root_mean_square(errors), np.inf)
        verdict = Verdict(
            response,
            errors,
            np.ones_like(errors),
            ran,
            np.any(by_step(run.fell_short), axis=1),
            is_comparable & np.all(np.abs(errors) <= 1, axis=1),
            score,
        )
        return Outcome(by_step(run.spike_times), verdict)
