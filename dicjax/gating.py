"""Curves of voltage and calcium, and the gates made of them."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def strong(x: Any) -> Array:
    """Converts to a strongly typed floating-point array, so that no value retraces."""
    x = jnp.asarray(x)
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else float
    return jnp.asarray(x, jnp.dtype(jax.dtypes.canonicalize_dtype(dtype)))


class AbstractCurve(eqx.Module):
    """A smooth function of the membrane potential (mV) and of calcium (µM)."""

    @abstractmethod
    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        """Evaluates the curve for one cell."""


class Constant(AbstractCurve):
    """The same `value` everywhere."""

    value: Float[Array, ""] = eqx.field(converter=strong)

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del Ca
        return jnp.broadcast_to(self.value, jnp.shape(V))


class Sigmoid(AbstractCurve):
    """`offset + amplitude / (1 + exp((V - midpoint) / width))`, all in mV."""

    midpoint: Float[Array, ""] = eqx.field(converter=strong)
    width: Float[Array, ""] = eqx.field(converter=strong)
    offset: Float[Array, ""] = eqx.field(converter=strong, default=0.0)
    amplitude: Float[Array, ""] = eqx.field(converter=strong, default=1.0)

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del Ca
        # `sigmoid`, not `1 / (1 + exp)`: its gradient stays finite far from midpoint.
        x = (self.midpoint - V) * (1 / self.width)
        return self.offset + self.amplitude * jax.nn.sigmoid(x)


class Bell(AbstractCurve):
    """`offset + amplitude / (exp((V - a) / b) + exp((V - c) / d))`.

    The usual bell of a time constant: `left = (a, b)` and `right = (c, d)`, in mV, are
    the two exponential flanks, so `b` and `d` have opposite signs.
    """

    left: Float[Array, " 2"] = eqx.field(converter=strong)
    right: Float[Array, " 2"] = eqx.field(converter=strong)
    offset: Float[Array, ""] = eqx.field(converter=strong, default=0.0)
    amplitude: Float[Array, ""] = eqx.field(converter=strong, default=1.0)

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del Ca
        x = (V - self.left[0]) * (1 / self.left[1])
        y = (V - self.right[0]) * (1 / self.right[1])
        return self.offset + self.amplitude / (jnp.exp(x) + jnp.exp(y))


class CalciumSaturation(AbstractCurve):
    """`Ca / (Ca + half)`, with `half` in µM; no calcium below zero is seen."""

    half: Float[Array, ""] = eqx.field(converter=strong)

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del V
        Ca = jnp.maximum(Ca, 0)
        return Ca / (Ca + self.half)


class Nernst(AbstractCurve):
    r"""The Nernst potential of calcium, $1000\,k T / z \cdot \ln(Ca_o / Ca)$, in mV.

    `outside` is in µM and `temperature` in K; inside calcium is read no lower than
    `floor` (µM), since the logarithm has no value at zero.
    """

    outside: Float[Array, ""] = eqx.field(converter=strong)
    temperature: Float[Array, ""] = eqx.field(converter=strong)
    valence: Float[Array, ""] = eqx.field(converter=strong, default=2.0)
    floor: Float[Array, ""] = eqx.field(converter=strong, default=1e-4)

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del V
        volts = 8.6174e-5 * self.temperature / self.valence  # k/e in V/K
        return 1000 * volts * jnp.log(self.outside / jnp.maximum(Ca, self.floor))


class Product(AbstractCurve):
    """The product of several curves."""

    factors: tuple[AbstractCurve, ...]

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        first, *rest = (factor(V, Ca) for factor in self.factors)
        for factor in rest:
            first = first * factor
        return first


class Scaled(AbstractCurve):
    """A curve times a constant, such as a kinetic (temperature) factor."""

    curve: AbstractCurve
    factor: Float[Array, ""] = eqx.field(converter=strong)

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        return self.factor * self.curve(V, Ca)


class Gate(eqx.Module):
    r"""A gating variable, $\dot x = (x_\infty - x) / \tau_x$, raised to a power.

    - `exponent`: how many such particles must be open, a positive integer.
    - `steady_state`: $x_\infty$, between 0 and 1.
    - `time_constant`: $\tau_x$, in ms.
    """

    exponent: int = eqx.field(static=True)
    steady_state: AbstractCurve
    time_constant: AbstractCurve

    def __check_init__(self):
        if self.exponent < 1:
            raise ValueError(
                f"A gate's exponent must be a positive integer, got {self.exponent}."
            )
