"""Ion channels: states, kinetics, and current per unit of maximal conductance.

Every kind of channel defines its own states and how they evolve. Neurons use nothing
else. States are separate scalars, which vectorise over cells.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

import equinox as eqx
import jax.numpy as jnp

from dicjax._core import Scalar
from dicjax.neurons.curves import (
    AbstractCurve,
    AbstractGate,
    check_curves,
    Constant,
    Gate,
    RateGate,
)


States = tuple[Scalar, ...]
Entries = dict[tuple[int, int], Scalar]  # of a sparse matrix


def as_curve(value: float | AbstractCurve) -> AbstractCurve:
    """Converts a number to a constant curve; returns anything else as it is."""
    if isinstance(value, AbstractCurve):
        return value
    try:
        return Constant(value)
    except (TypeError, ValueError):
        return cast(AbstractCurve, value)  # which its channel refuses


def as_optional_curve(value: float | AbstractCurve | None) -> AbstractCurve | None:
    """As `as_curve`, but returns None for None."""
    return None if value is None else as_curve(value)


class AbstractChannel(eqx.Module):
    r"""A channel with current $g \cdot p(x) \cdot f(V, Ca) \cdot (V - E)$.

    - `name`: its name in tables, figures and reports.
    - `reversal`: $E$, in mV: a number, or a curve such as [`dicjax.Nernst`][].
    - `driving_force`: a curve, in mV, in place of $V - E$, such as
        [`dicjax.GoldmanHodgkinKatz`][].
    - `factor`: $f$, a curve that opens or blocks it instantaneously; 1 by default.
    """

    name: eqx.AbstractVar[str]
    reversal: eqx.AbstractVar[AbstractCurve | None]
    driving_force: eqx.AbstractVar[AbstractCurve | None]
    factor: eqx.AbstractVar[AbstractCurve | None]

    def __check_init__(self):
        if (self.reversal is None) == (self.driving_force is None):
            raise ValueError(
                f"{self.name} must have either a reversal potential or a driving force."
            )
        optional = {
            "reversal": self.reversal,
            "driving_force": self.driving_force,
            "factor": self.factor,
        }
        given = {k: curve for k, curve in optional.items() if curve is not None}
        check_curves(f"channel {self.name}", **given)

    @property
    @abstractmethod
    def num_states(self) -> int:
        """The number of scalars in its state."""

    @property
    @abstractmethod
    def num_variables(self) -> int:
        """The number of time constants: one per gate, or one for a scheme."""

    @abstractmethod
    def steady_states(self, V: States, Ca: Scalar) -> States:
        """States in equilibrium; `V` has a potential for each variable."""

    @abstractmethod
    def time_constants(self, V: Scalar, Ca: Scalar) -> States:
        """The time constant of every variable, in ms."""

    @abstractmethod
    def derivatives(self, V: Scalar, states: States, Ca: Scalar) -> States:
        """Time derivatives of the states, per ms."""

    @abstractmethod
    def relax(self, V: Scalar, states: States, Ca: Scalar, h: Scalar) -> States:
        """The states after `h` ms at fixed potential and calcium."""

    @abstractmethod
    def current(self, V: Scalar, states: States, Ca: Scalar) -> Scalar:
        """The current of one mS/cm² of this channel, in µA/cm², outward positive."""


def _open_current(channel: AbstractChannel, V, Ca) -> Scalar:
    """The current when every gate is open, per mS/cm²."""
    if channel.driving_force is not None:
        current = channel.driving_force(V, Ca)
    else:
        assert channel.reversal is not None
        current = V - channel.reversal(V, Ca)
    return current if channel.factor is None else current * channel.factor(V, Ca)


class GatedChannel(AbstractChannel):
    """A channel with independent gates, whose open fraction is their product.

    - `gates`: its gates; a leak has none.

    [`dicjax.AbstractChannel`][] explains the other fields.
    """

    name: str = eqx.field(static=True)
    gates: tuple[AbstractGate, ...] = ()
    reversal: AbstractCurve | None = eqx.field(
        converter=as_optional_curve, kw_only=True, default=None
    )
    driving_force: AbstractCurve | None = eqx.field(kw_only=True, default=None)
    factor: AbstractCurve | None = eqx.field(kw_only=True, default=None)

    def __check_init__(self):
        if not isinstance(self.gates, (tuple, list)):
            raise TypeError(
                f"`gates` of channel {self.name} must be a tuple, got "
                f"{type(self.gates).__name__}; write `(gate,)` for a single gate."
            )
        for i, gate in enumerate(self.gates, 1):
            who = f"gate {i} of channel {self.name}"
            match gate:
                case Gate(steady_state=steady, time_constant=tau):
                    check_curves(who, steady_state=steady, time_constant=tau)
                case RateGate(alpha=alpha, beta=beta):
                    check_curves(who, alpha=alpha, beta=beta)

    @property
    def num_states(self) -> int:
        return len(self.gates)

    @property
    def num_variables(self) -> int:
        return len(self.gates)

    def steady_states(self, V: States, Ca: Scalar) -> States:
        pairs = zip(self.gates, V, strict=True)
        return tuple(gate.steady_state(at, Ca) for gate, at in pairs)

    def time_constants(self, V: Scalar, Ca: Scalar) -> States:
        return tuple(gate.time_constant(V, Ca) for gate in self.gates)

    def derivatives(self, V: Scalar, states: States, Ca: Scalar) -> States:
        rates = []
        for gate, x in zip(self.gates, states, strict=True):
            steady, tau = gate.kinetics(V, Ca)
            rates.append((steady - x) / tau)
        return tuple(rates)

    def relax(self, V: Scalar, states: States, Ca: Scalar, h: Scalar) -> States:
        """The gates after `h` ms at fixed potential and calcium, by the midpoint rule.

        A gate much faster than `h` overshoots its steady state by less than it was off,
        and follows a moving steady state without bias. It may leave the unit interval
        slightly: to prevent that would cost as much as the whole step.
        """
        relaxed = []
        for gate, x in zip(self.gates, states, strict=True):
            steady, tau = gate.kinetics(V, Ca)
            relaxed.append(x + (steady - x) * (h / (tau + h / 2)))
        return tuple(relaxed)

    def current(self, V: Scalar, states: States, Ca: Scalar) -> Scalar:
        current = _open_current(self, V, Ca)
        for gate, x in zip(self.gates, states, strict=True):
            current = current * jnp.power(x, gate.exponent)
        return current


class Transition(eqx.Module):
    """A transition from the state `source` to the state `target` at `rate`, per ms."""

    source: str = eqx.field(static=True)
    target: str = eqx.field(static=True)
    rate: AbstractCurve

    def __check_init__(self):
        if self.source == self.target:
            raise ValueError(f"A transition must leave its state {self.source!r}.")
        which = f"the transition from {self.source} to {self.target}"
        check_curves(which, rate=self.rate)


class MarkovChannel(AbstractChannel):
    """A channel with a linear kinetic (Markov) scheme.

    Occupancies add up to one, so that the first state is not integrated.

    - `kinetic_states`: names of the states, at least two.
    - `transitions`: transitions between them; every state must be reachable from every
        other one.
    - `open_states`: the states in which it conducts.
    - `time_constant`: its time constant (ms) for dynamic input conductances, because a
        scheme does not have a single one. Infinity means ultraslow.

    [`dicjax.AbstractChannel`][] explains the other fields.
    """

    name: str = eqx.field(static=True)
    kinetic_states: tuple[str, ...] = eqx.field(static=True)
    transitions: tuple[Transition, ...]
    open_states: tuple[str, ...] = eqx.field(static=True)
    time_constant: AbstractCurve = eqx.field(converter=as_curve)
    reversal: AbstractCurve | None = eqx.field(
        converter=as_optional_curve, kw_only=True, default=None
    )
    driving_force: AbstractCurve | None = eqx.field(kw_only=True, default=None)
    factor: AbstractCurve | None = eqx.field(kw_only=True, default=None)

    def __check_init__(self):
        names = self.kinetic_states
        check_curves(f"channel {self.name}", time_constant=self.time_constant)
        if len(set(names)) != len(names) or len(names) < 2:
            raise ValueError(
                f"{self.name} needs two or more states of different names, got {names}."
            )
        if not self.open_states:
            raise ValueError(f"{self.name} needs a state in which it is open.")
        ends = [end for t in self.transitions for end in (t.source, t.target)]
        for name in (*ends, *self.open_states):
            if name not in names:
                raise ValueError(f"{self.name} has no state {name!r}, only {names}.")
        for name in names:
            reached = _reached(name, self.transitions)
            if reached != set(names):
                missing = ", ".join(sorted(set(names) - reached))
                raise ValueError(f"{self.name} cannot pass from {name} to {missing}.")

    @property
    def num_states(self) -> int:
        """One less than there are states: the first follows from the others."""
        return len(self.kinetic_states) - 1

    @property
    def num_variables(self) -> int:
        return 1

    def steady_states(self, V: States, Ca: Scalar) -> States:
        return _equilibrium(self._rates(V[0], Ca), self.num_states)

    def time_constants(self, V: Scalar, Ca: Scalar) -> States:
        return (self.time_constant(V, Ca),)

    def derivatives(self, V: Scalar, states: States, Ca: Scalar) -> States:
        return self._flow(self._rates(V, Ca), states)

    def relax(self, V: Scalar, states: States, Ca: Scalar, h: Scalar) -> States:
        """The states after `h` ms at fixed potential and calcium, to second order.

        The deviation `d` from equilibrium follows the Padé approximant
        `(1 - hA + (hA)² / 2) d(h) = d(0)`. Unlike the midpoint rule, this settles in
        steps of any length. Schemes may have rates much faster than a step resolves.
        """
        rates = self._rates(V, Ca)
        A = {at: h * rate for at, rate in self._generator(rates).items()}
        M = {(i, i): jnp.ones_like(V) for i in range(self.num_states)}
        moved = [h * change for change in self._flow(rates, states)]
        right = list(moved)
        for (i, k), rate in A.items():
            right[i] = right[i] - rate * moved[k] / 2
            _add(M, (i, k), -rate)
            for j in range(self.num_states):
                if (k, j) in A:
                    _add(M, (i, j), rate * A[k, j] / 2)
        return tuple(x + d for x, d in zip(states, _solve(M, right), strict=True))

    def current(self, V: Scalar, states: States, Ca: Scalar) -> Scalar:
        x = (1 - _sum(states), *states)
        is_open = [x[self.kinetic_states.index(name)] for name in self.open_states]
        return _sum(is_open) * _open_current(self, V, Ca)

    def _rates(self, V, Ca) -> Entries:
        rates: Entries = {}
        position = self.kinetic_states.index
        for t in self.transitions:
            _add(rates, (position(t.source), position(t.target)), t.rate(V, Ca))
        return rates

    def _flow(self, rates: Entries, states: States) -> States:
        x = (1 - _sum(states), *states)
        change: Entries = {}
        for (i, j), rate in rates.items():
            _add(change, (i, 0), -rate * x[i])
            _add(change, (j, 0), rate * x[i])
        return tuple(change[i, 0] for i in range(1, len(x)))

    def _generator(self, rates: Entries) -> Entries:
        """The matrix of the deviations of all states but the first."""
        A: Entries = {}
        others = range(1, len(self.kinetic_states))
        for (i, j), rate in rates.items():
            # The first state holds one minus all others.
            for k, share in [(k, -rate) for k in others] if i == 0 else [(i, rate)]:
                if i != 0:
                    _add(A, (i - 1, k - 1), -share)
                if j != 0:
                    _add(A, (j - 1, k - 1), share)
        return A


def _equilibrium(rates: Entries, num_states: int) -> States:
    """Occupancies in equilibrium of all states but the first."""
    # Elimination without subtractions (Grassmann, Taksar & Heyman 1985), so that small
    # occupancies keep their digits.
    q = dict(rates)
    for k in range(num_states, 0, -1):
        into = [i for i in range(k) if (i, k) in q]
        out = [j for j in range(k) if (k, j) in q]
        leaving = _sum([q[k, j] for j in out])
        for i in into:
            q[i, k] = q[i, k] / leaving
            for j in out:
                if i != j:
                    _add(q, (i, j), q[i, k] * q[k, j])
    weights = [jnp.ones_like(next(iter(rates.values())))]
    for k in range(1, num_states + 1):
        weights.append(_sum([weights[i] * q[i, k] for i in range(k) if (i, k) in q]))
    total = _sum(weights)
    return tuple(weight / total for weight in weights[1:])


def _add(entries: Entries, at: tuple[int, int], value: Scalar) -> None:
    entries[at] = entries[at] + value if at in entries else value


def _sum(values: Sequence[Scalar]) -> Scalar:
    return sum(values[1:], values[0])


def _reached(start: str, transitions: tuple[Transition, ...]) -> set[str]:
    reached, size = {start}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {t.target for t in transitions if t.source in reached}
    return reached


def _solve(M: Entries, b: list[Scalar]) -> list[Scalar]:
    """Solves `M x = b` by elimination of scalars, without pivots."""
    M, b, n = dict(M), list(b), len(b)
    for k in range(n):
        for i in range(k + 1, n):
            if (i, k) not in M:
                continue
            ratio = M[i, k] / M[k, k]
            b[i] = b[i] - ratio * b[k]
            for j in range(k + 1, n):
                if (k, j) in M:
                    _add(M, (i, j), -ratio * M[k, j])
    for k in range(n - 1, -1, -1):
        for j in range(k + 1, n):
            if (k, j) in M:
                b[k] = b[k] - M[k, j] * b[j]
        b[k] = b[k] / M[k, k]
    return b
