"""Curves of potential and calcium, and gates made of them."""

import functools
import operator
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from dicjax._core import optional, Scalar, strong, strong_pair


BOLTZMANN = 8.6174e-5  # V/K, Boltzmann's constant over the elementary charge


class AbstractCurve(eqx.Module):
    """A smooth function of the membrane potential (mV) and of calcium (µM)."""

    @abstractmethod
    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        """Evaluates the curve for one cell."""


def check_curves(owner: str, **curves: Any) -> None:
    """Raises `TypeError` unless these arguments of `owner` are (tuples of) curves."""
    for name, value in curves.items():
        several = isinstance(value, (tuple, list))
        for i, curve in enumerate(value if several else (value,)):
            if not isinstance(curve, AbstractCurve):
                place = f"`{name}[{i}]`" if several else f"`{name}`"
                raise TypeError(
                    f"{place} of {owner} must be a curve, {_instead(curve)}."
                )


def _instead(given: Any) -> str:
    is_number = isinstance(given, (int, float, np.ndarray, np.generic, jax.Array))
    if not is_number or np.ndim(given):
        return f"got {given!r}; use one of dicjax, or a subclass of `AbstractCurve`"
    if isinstance(given, jax.core.Tracer):
        return "got a traced number; write `dicjax.Constant(...)` around it"
    return f"got {float(given):g}; write `dicjax.Constant({float(given)})`"


class Constant(AbstractCurve):
    """A curve that is `value` everywhere."""

    value: Scalar = eqx.field(converter=strong)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del Ca
        return jnp.broadcast_to(self.value, jnp.shape(V))


class Exponential(AbstractCurve):
    """`amplitude * exp((V - midpoint) / width)`; `midpoint` and `width` in mV."""

    midpoint: Scalar = eqx.field(converter=strong)
    width: Scalar = eqx.field(converter=strong)
    amplitude: Scalar = eqx.field(converter=strong, default=1.0)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del Ca
        return self.amplitude * jnp.exp((V - self.midpoint) * (1 / self.width))


class Linoid(AbstractCurve):
    """`amplitude * x / (1 - exp(-x))` with `x = (V - midpoint) / width`, in mV.

    This is a rate of Hodgkin and Huxley. It is linear on one side of the midpoint and
    exponential on the other. At the midpoint it is `amplitude`, without a singularity.
    """

    midpoint: Scalar = eqx.field(converter=strong)
    width: Scalar = eqx.field(converter=strong)
    amplitude: Scalar = eqx.field(converter=strong, default=1.0)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del Ca
        return self.amplitude * linoid((V - self.midpoint) * (1 / self.width))


def linoid(x: Scalar) -> Scalar:
    """`x / (1 - exp(-x))`, with finite and accurate derivatives everywhere."""
    small = jnp.abs(x) < 0.25
    # The modulus avoids overflow; 1 in place of small values avoids 0 / 0.
    size = jnp.where(small, 1, jnp.abs(x))
    decay = jnp.exp(-size)
    far = jnp.maximum(x, 0) + size * decay / (1 - decay)
    series = jnp.zeros_like(x)
    for divisor in (47900160, -1209600, 30240, -720, 12):
        series = (series + 1 / divisor) * x * x
    return jnp.where(small, 1 + x / 2 + series, far)


class Sigmoid(AbstractCurve):
    """`offset + amplitude / (1 + exp((V - midpoint) / width))`, all in mV.

    Without `offset` and `amplitude` it lies between 0 and 1.
    """

    midpoint: Scalar = eqx.field(converter=strong)
    width: Scalar = eqx.field(converter=strong)
    offset: Scalar | None = eqx.field(converter=optional, default=None)
    amplitude: Scalar | None = eqx.field(converter=optional, default=None)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del Ca
        # Unlike `1 / (1 + exp)`, `sigmoid` has finite gradients far from the midpoint.
        y = jax.nn.sigmoid((self.midpoint - V) * (1 / self.width))
        y = y if self.amplitude is None else self.amplitude * y
        return y if self.offset is None else self.offset + y


class Bell(AbstractCurve):
    """`offset + amplitude / (exp((V - a) / b) + exp((V - c) / d))`.

    This is the usual bell-shaped time constant. `left = (a, b)` and `right = (c, d)`,
    in mV, are its exponential flanks; `b` and `d` have opposite signs. Without `offset`
    it falls to 0 on both sides.
    """

    left: tuple[Scalar, Scalar] = eqx.field(converter=strong_pair)
    right: tuple[Scalar, Scalar] = eqx.field(converter=strong_pair)
    offset: Scalar | None = eqx.field(converter=optional, default=None)
    amplitude: Scalar = eqx.field(converter=strong, default=1.0)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del Ca
        x = (V - self.left[0]) * (1 / self.left[1])
        y = (V - self.right[0]) * (1 / self.right[1])
        bell = self.amplitude / (jnp.exp(x) + jnp.exp(y))
        return bell if self.offset is None else self.offset + bell


class MagnesiumBlock(AbstractCurve):
    """`1 / (1 + magnesium / half * exp(-V / width))`, the magnesium block of NMDA.

    `magnesium` (the concentration outside) and `half` are in mM, `width` in mV.
    """

    magnesium: Scalar = eqx.field(converter=strong)
    half: Scalar = eqx.field(converter=strong)
    width: Scalar = eqx.field(converter=strong)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del Ca
        return jax.nn.sigmoid(V / self.width - jnp.log(self.magnesium / self.half))


class CalciumSaturation(AbstractCurve):
    """`Ca / (Ca + half)`, with `half` in µM; negative calcium counts as zero."""

    half: Scalar = eqx.field(converter=strong)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del V
        Ca = jnp.maximum(Ca, 0)
        return Ca / (Ca + self.half)


class Nernst(AbstractCurve):
    r"""The Nernst potential of calcium, $1000\,k T / z \cdot \ln(Ca_o / Ca)$, in mV.

    `outside` is in µM and `temperature` in K. Calcium below `floor` (µM) counts as
    `floor`, because the logarithm is infinite at zero.
    """

    outside: Scalar = eqx.field(converter=strong)
    temperature: Scalar = eqx.field(converter=strong)
    valence: Scalar = eqx.field(converter=strong, default=2.0)
    floor: Scalar = eqx.field(converter=strong, default=1e-4)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        del V
        volts = BOLTZMANN * self.temperature / self.valence
        return 1000 * volts * jnp.log(self.outside / jnp.maximum(Ca, self.floor))


class GoldmanHodgkinKatz(AbstractCurve):
    r"""The driving force of an ion that diffuses through its channel, in mV.

    With $\xi = z V / 1000\,k T$ ($k$ in V/K) it is
    $V \cdot (c_i / c_o - e^{-\xi}) / (1 - e^{-\xi})$. It is nearly $V$ far below zero
    and $V c_i / c_o$ far above. A permeability $P$ corresponds to a conductance of
    $P z^2 F^2 c_o / R T$, which is the slope of the current far below zero.

    - `outside`: $c_o$, in µM.
    - `temperature`: in K.
    - `valence`: $z$.
    - `inside`: $c_i$, in µM; by default the cell's calcium.
    """

    outside: Scalar = eqx.field(converter=strong)
    temperature: Scalar = eqx.field(converter=strong)
    valence: Scalar = eqx.field(converter=strong, default=2.0)
    inside: Scalar | None = eqx.field(converter=optional, default=None)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        unit = 1000 * BOLTZMANN * self.temperature / self.valence
        inside = jnp.maximum(Ca, 0) if self.inside is None else self.inside
        x = V / unit
        return unit * (inside / self.outside * linoid(x) - linoid(-x))


class Product(AbstractCurve):
    """The product of several curves."""

    factors: tuple[AbstractCurve, ...]

    def __check_init__(self):
        check_curves("a `Product`", factors=tuple(self.factors))

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        return functools.reduce(operator.mul, (x(V, Ca) for x in self.factors))


class Sum(AbstractCurve):
    """The sum of several curves."""

    terms: tuple[AbstractCurve, ...]

    def __check_init__(self):
        check_curves("a `Sum`", terms=tuple(self.terms))

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        return functools.reduce(operator.add, (x(V, Ca) for x in self.terms))


class Power(AbstractCurve):
    """A curve raised to a fixed power."""

    curve: AbstractCurve
    exponent: int | float = eqx.field(static=True)

    def __check_init__(self):
        check_curves("a `Power`", curve=self.curve)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        return jnp.power(self.curve(V, Ca), self.exponent)


class Scaled(AbstractCurve):
    """A curve times a constant, such as a temperature factor."""

    curve: AbstractCurve
    factor: Scalar = eqx.field(converter=strong)

    def __check_init__(self):
        check_curves("a `Scaled`", curve=self.curve)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        return self.factor * self.curve(V, Ca)


class OpenFraction(AbstractCurve):
    """`alpha / (alpha + beta)`: the steady state of rates of opening and closing."""

    alpha: AbstractCurve
    beta: AbstractCurve

    def __check_init__(self):
        check_curves("an `OpenFraction`", alpha=self.alpha, beta=self.beta)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        alpha, beta = self.alpha(V, Ca), self.beta(V, Ca)
        return alpha / (alpha + beta)


class Relaxation(AbstractCurve):
    """`1 / (alpha + beta)`: the time constant (ms) of rates (per ms)."""

    alpha: AbstractCurve
    beta: AbstractCurve

    def __check_init__(self):
        check_curves("a `Relaxation`", alpha=self.alpha, beta=self.beta)

    def __call__(self, V: Scalar, Ca: Scalar) -> Scalar:
        return 1 / (self.alpha(V, Ca) + self.beta(V, Ca))


class AbstractGate(eqx.Module):
    r"""A gating variable, $\dot x = (x_\infty - x) / \tau_x$, raised to a power.

    - `exponent`: the power, a positive integer.
    - `steady_state`: $x_\infty$, between 0 and 1.
    - `time_constant`: $\tau_x$, in ms.
    """

    exponent: eqx.AbstractVar[int]
    steady_state: eqx.AbstractVar[AbstractCurve]
    time_constant: eqx.AbstractVar[AbstractCurve]

    def __check_init__(self):
        if self.exponent < 1:
            raise ValueError(
                f"A gate's exponent must be a positive integer, got {self.exponent}."
            )

    @abstractmethod
    def kinetics(self, V: Scalar, Ca: Scalar) -> tuple[Scalar, Scalar]:
        """Steady state and time constant (ms) together."""


class Gate(AbstractGate):
    """A gate with a given steady state and time constant."""

    exponent: int = eqx.field(static=True)
    steady_state: AbstractCurve
    time_constant: AbstractCurve

    def kinetics(self, V: Scalar, Ca: Scalar) -> tuple[Scalar, Scalar]:
        return self.steady_state(V, Ca), self.time_constant(V, Ca)


class RateGate(AbstractGate):
    r"""A gate with given rates of opening, `alpha`, and closing, `beta`, per ms.

    $\dot x = \alpha (1 - x) - \beta x$.
    """

    exponent: int = eqx.field(static=True)
    alpha: AbstractCurve
    beta: AbstractCurve

    def __init__(self, exponent: int, alpha: AbstractCurve, beta: AbstractCurve):
        self.exponent, self.alpha, self.beta = exponent, alpha, beta

    @property
    def steady_state(self) -> AbstractCurve:
        """The fraction open in equilibrium."""
        return OpenFraction(self.alpha, self.beta)

    @property
    def time_constant(self) -> AbstractCurve:
        """The time constant of the approach to equilibrium, in ms."""
        return Relaxation(self.alpha, self.beta)

    def kinetics(self, V: Scalar, Ca: Scalar) -> tuple[Scalar, Scalar]:
        """Steady state and time constant (ms), from one evaluation of the rates."""
        alpha, beta = self.alpha(V, Ca), self.beta(V, Ca)
        return alpha / (alpha + beta), 1 / (alpha + beta)
