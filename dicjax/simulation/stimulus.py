"""Applied currents, in µA/cm² over ms."""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dicjax._core import (
    check_concrete,
    in_one_row,
    is_traced,
    leading_axes,
    leading_shape,
    of_cells,
    Scalar,
    strong,
)
from dicjax.neurons import State


INSTANT = 1e-3  # ms over which the current of an instant is averaged
SAMPLES_PER_CYCLE = 20  # time steps in the shortest period of a chirp
Current = Scalar | Callable[[State], Scalar]
"""µA/cm² of a cell, or a function that gives them for the state that the cell is in."""


class AbstractStimulus(eqx.Module):
    """A current applied to every cell, in µA/cm².

    Where a field allows one value per cell, it takes an array with the leading axes of
    the population. Stimuli add up: `Step(5.0) + NoisyCurrent(key, sigma=3.0)`.
    """

    @property
    def duration(self) -> float:
        """How long the stimulus is defined for, in ms."""
        return math.inf

    @property
    def longest_step(self) -> float:
        """The longest time step, in ms, that still resolves the stimulus."""
        return math.inf

    @property
    def edges(self) -> tuple[Array, ...]:
        """Times (ms), of one cell, at which it jumps or bends."""
        return ()

    @abstractmethod
    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        """Prepares what `average` needs for `reach` ms from `whole` ms on."""

    @abstractmethod
    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Current:
        """The mean current from `t` to `t + h`, in ms after the prepared time."""

    def __call__(self, t: Scalar) -> Current:
        """The current at `t` ms."""
        t = jnp.asarray(t)
        whole = jnp.floor(t)
        prepared = self.prepare(whole.astype(jnp.int32), INSTANT)
        return self.average(prepared, t - whole, jnp.asarray(INSTANT, t.dtype))

    def seeded(self, members: Int[Array, " lanes"]) -> "AbstractStimulus":
        """The stimulus with the random numbers of these cells."""
        del members
        return self

    def ranks(self) -> list[int]:
        """The number of axes that every leaf has for one cell."""
        ranks = []
        for field in dataclasses.fields(self):
            if not field.metadata.get("static", False):
                leaves = jax.tree.leaves(getattr(self, field.name))
                ranks += [field.metadata.get("rank", 0)] * len(leaves)
        return ranks

    def __add__(self, other: "AbstractStimulus") -> "Together":
        return Together((self, other))


def cell_shape(stimulus: AbstractStimulus) -> tuple[int, ...]:
    """The shape of the cells that a stimulus has values for; () if all share them.

    Raises `ValueError` if two of its values do not fit.
    """
    return leading_shape(stimulus, stimulus.ranks(), type(stimulus).__name__)


def per_cell(stimulus: AbstractStimulus, shape: tuple[int, ...]) -> AbstractStimulus:
    """Flattens the leading axes of a population of this shape into one.

    Leaves that all cells share stay as they are.
    """
    return in_one_row(stimulus, stimulus.ranks(), shape)


def for_members(
    stimulus: AbstractStimulus, members: Int[Array, " lanes"]
) -> AbstractStimulus:
    """The part of a `per_cell` stimulus that these cells receive."""
    return of_cells(stimulus, stimulus.ranks(), members).seeded(members)


def cell_axes(stimulus: AbstractStimulus) -> PyTree:
    """The axes for `vmap` over cells: 0 for leaves that differ by cell, else None."""
    return leading_axes(stimulus, stimulus.ranks())


class Together(AbstractStimulus):
    """The sum of several stimuli."""

    parts: tuple[AbstractStimulus, ...]

    @property
    def duration(self) -> float:
        return min(part.duration for part in self.parts)

    @property
    def longest_step(self) -> float:
        return min(part.longest_step for part in self.parts)

    @property
    def edges(self) -> tuple[Array, ...]:
        return tuple(edge for part in self.parts for edge in part.edges)

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        return tuple(part.prepare(whole, reach) for part in self.parts)

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Current:
        pairs = zip(self.parts, prepared, strict=True)
        currents = [part.average(own, t, h) for part, own in pairs]
        at = lambda y: _total([x(y) if callable(x) else x for x in currents])
        return at if any(map(callable, currents)) else at(None)

    def seeded(self, members: Int[Array, " lanes"]) -> "Together":
        return Together(tuple(part.seeded(members) for part in self.parts))

    def ranks(self) -> list[int]:
        return [rank for part in self.parts for rank in part.ranks()]


def _total(currents: list[Scalar]) -> Scalar:
    first, *rest = currents
    return sum(rest, first)


class InjectedConductance(AbstractStimulus):
    """A conductance that a dynamic clamp injects, $G(t) (E - V)$.

    - `conductance`: $G$, a stimulus in mS/cm² in place of µA/cm², such as
        `Step(0.5, 100.0, 200.0)`.
    - `reversal`: $E$, in mV. It may differ from cell to cell.
    """

    conductance: AbstractStimulus
    reversal: Float[Array, "*cells"] = eqx.field(converter=strong)

    @property
    def duration(self) -> float:
        return self.conductance.duration

    @property
    def longest_step(self) -> float:
        return self.conductance.longest_step

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        return self.conductance.prepare(whole, reach)

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Current:
        G = self.conductance.average(prepared, t, h)
        if callable(G):
            return lambda y: G(y) * (self.reversal - y.V)
        return lambda y: G * (self.reversal - y.V)

    def seeded(self, members: Int[Array, " lanes"]) -> "InjectedConductance":
        return InjectedConductance(self.conductance.seeded(members), self.reversal)

    def ranks(self) -> list[int]:
        return [*self.conductance.ranks(), 0]


class Injected(AbstractStimulus):
    """A current that a function of time (ms) and [`dicjax.State`][] gives, in µA/cm².

    The numbers of an `eqx.Module` with a `__call__` are data; those in a plain function
    are constants of the compiled program.
    """

    arrays: PyTree
    rule: Any = eqx.field(static=True)

    def __init__(self, current: Callable[..., Any]):
        self.arrays, self.rule = eqx.partition(current, eqx.is_array)

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        del reach
        return whole

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Current:
        current = eqx.combine(self.arrays, self.rule)
        middle = prepared.astype(t.dtype) + t + h / 2
        return lambda y: jnp.asarray(current(middle, y), y.V.dtype)

    def ranks(self) -> list[int]:
        """All cells share all numbers."""
        return [x.ndim for x in jax.tree.leaves(self.arrays)]


def as_stimulus(current: Any) -> AbstractStimulus | None:
    """A stimulus, of a function too. Raises `TypeError` if it is neither."""
    if current is None or isinstance(current, AbstractStimulus):
        return current
    if not callable(current):
        raise TypeError(
            "A stimulus must be one of dicjax, such as `Step(2.0)`, or a function of "
            f"time and state, got {current!r}."
        )
    return Injected(current)


class Step(AbstractStimulus):
    """A current of `amplitude` (µA/cm²) from `start` to `stop` (ms), otherwise none.

    All three may differ from cell to cell.
    """

    amplitude: Float[Array, "*cells"] = eqx.field(converter=strong)
    start: Float[Array, "*cells"] = eqx.field(converter=strong, default=0.0)
    stop: Float[Array, "*cells"] = eqx.field(converter=strong, default=jnp.inf)

    @property
    def edges(self) -> tuple[Array, ...]:
        return self.start, self.stop

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        del reach
        now = whole.astype(self.start.dtype)
        return self.start - now, self.stop - now

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        """The exact mean, also where an edge falls within the time step."""
        start, stop = prepared
        covered = jnp.minimum(t + h, stop) - jnp.maximum(t, start)
        return self.amplitude * jnp.clip(covered / h, 0, 1)


def applied(current: float) -> Step | None:
    """Returns a constant `current` (µA/cm²) as a stimulus, or None if it is zero."""
    return Step(current) if current else None


class Ramp(AbstractStimulus):
    """A current that changes linearly from `first` to `last` (µA/cm²).

    It is `first` until `start` and `last` from `stop` on (ms). All four may differ from
    cell to cell.
    """

    first: Float[Array, "*cells"] = eqx.field(converter=strong)
    last: Float[Array, "*cells"] = eqx.field(converter=strong)
    start: Float[Array, "*cells"] = eqx.field(converter=strong)
    stop: Float[Array, "*cells"] = eqx.field(converter=strong)

    @property
    def edges(self) -> tuple[Array, ...]:
        return self.start, self.stop

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        del reach
        return self.start - whole.astype(self.start.dtype)

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        part = (t + h / 2 - prepared) / (self.stop - self.start)
        return self.first + (self.last - self.first) * jnp.clip(part, 0, 1)


class Chirp(AbstractStimulus):
    """A sine of `amplitude` (µA/cm²) whose frequency rises linearly.

    The frequency is `low` Hz at 0 ms and `high` Hz from `rise` ms on. `amplitude` may
    differ from cell to cell.
    """

    amplitude: Float[Array, "*cells"] = eqx.field(converter=strong)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    rise: float = eqx.field(static=True)

    def __check_init__(self):
        check_concrete("Chirp", low=self.low, high=self.high, rise=self.rise)

    @property
    def longest_step(self) -> float:
        """A twentieth of the shortest period, in ms."""
        return 1000 / max(self.low, self.high) / SAMPLES_PER_CYCLE

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        del reach
        return whole.astype(self.amplitude.dtype)

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        t = prepared + t + h / 2
        rising = jnp.minimum(t, self.rise)
        # The integral of the frequency, in cycles.
        swept = self.low + (self.high - self.low) * rising / (2 * self.rise)
        cycles = (swept * rising + self.high * (t - rising)) / 1000
        return self.amplitude * jnp.sin(2 * jnp.pi * (cycles - jnp.floor(cycles)))


class Waveform(AbstractStimulus):
    """Any current, given by `values` (µA/cm²) every `every` ms from 0 on.

    Between samples, the current is interpolated linearly. `values` is one row for all
    cells, or one row per cell.
    """

    values: Float[Array, "*cells samples"] = eqx.field(
        converter=strong, metadata={"rank": 1}
    )
    every: float = eqx.field(static=True)

    def __check_init__(self):
        check_concrete("Waveform", every=self.every)
        if not self.every > 0:
            raise ValueError(
                f"Samples must be more than 0 ms apart, got every={self.every}."
            )
        values = self.values
        if is_traced(values):
            return
        if values.ndim == 0 or values.shape[-1] < 2:
            raise ValueError(
                f"A waveform needs at least two samples, got shape {values.shape}."
            )
        bad = np.argwhere(~np.isfinite(np.asarray(values)))
        if len(bad):
            where = tuple(bad[0].tolist())
            raise ValueError(f"A waveform must be finite, but sample {where} is not.")

    @property
    def duration(self) -> float:
        return (self.values.shape[-1] - 1) * self.every

    @property
    def longest_step(self) -> float:
        return self.every

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        """The last sample before `whole`, and the part of an interval since."""
        del reach
        # Integers and remainders, because one float would lose digits at late times.
        per_ms = np.float64(1 / self.every)
        if per_ms == round(per_ms):
            return whole * int(per_ms), jnp.zeros((), self.values.dtype)
        at = whole.astype(self.values.dtype) / self.every
        first = jnp.floor(at)
        return first.astype(jnp.int32), at - first

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        first, ahead = prepared
        position = ahead + (t + h / 2) / self.every
        whole = jnp.floor(position)
        part = position - whole
        last = self.values.shape[-1] - 1
        i = first + whole.astype(first.dtype)
        sample = lambda i: self.values[jnp.clip(i, 0, last)]
        before, after = sample(i), sample(i + 1)
        return before + part * (after - before)
