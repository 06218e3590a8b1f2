"""Trains of pulses."""

import equinox as eqx
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dicjax._core import Scalar, strong
from dicjax.simulation.stimulus import AbstractStimulus


class PulseTrain(AbstractStimulus):
    """`num` pulses of `amplitude` (µA/cm²) that are `width` long, from `start` on.

    A pulse begins every `period` (all times in ms), after the last one has ended. All
    but `num` may differ from cell to cell.
    """

    amplitude: Float[Array, "*cells"] = eqx.field(converter=strong)
    width: Float[Array, "*cells"] = eqx.field(converter=strong)
    period: Float[Array, "*cells"] = eqx.field(converter=strong)
    start: Float[Array, "*cells"] = eqx.field(converter=strong)
    num: int = eqx.field(static=True)

    def __check_init__(self):
        if self.num < 1:
            raise ValueError(f"`num` must be at least 1 pulse, got {self.num}.")
        times = self.width, self.period
        if any(isinstance(x, jax.core.Tracer) for x in times):
            return
        width, period = np.asarray(self.width), np.asarray(self.period)
        if not (np.all(width > 0) and np.all(width <= period)):
            raise ValueError(
                f"Pulses must be over 0 ms long and no longer than their `period` of "
                f"{period} ms, got a `width` of {width} ms."
            )

    @property
    def edges(self) -> tuple[Array, ...]:
        begins = self.start + self.period * jnp.arange(self.num, dtype=self.start.dtype)
        return begins, begins + self.width

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        """The time since the last pulse that began by then, and the pulses from it."""
        del reach
        since = whole.astype(self.start.dtype) - self.start
        past = jnp.clip(jnp.floor(since / self.period), 0, self.num)
        return since - past * self.period, self.num - past

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        """The exact mean, also where edges fall within the time step."""
        since, left = prepared

        def covered(x: Scalar) -> Scalar:
            begun = jnp.clip(jnp.floor(x / self.period), 0, left)
            rest = jnp.clip(x - begun * self.period, 0, self.width)
            return begun * self.width + jnp.where(begun < left, rest, 0)

        share = (covered(since + t + h) - covered(since + t)) / h
        return self.amplitude * jnp.clip(share, 0, 1)
