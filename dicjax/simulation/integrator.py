r"""Our integrator: second-order staggered implicit-midpoint splitting.

A conductance-based model has three parts: gates, calcium and potential. While the
other parts are held fixed, each part is (nearly) linear and relaxes towards an
equilibrium, so that the implicit midpoint rule advances it without iteration. A
symmetric composition (gates half a step, calcium half, potential whole, calcium half,
gates half) is a method of second order.

Exact relaxation of the parts, through exponentials, is less accurate. A part that is
faster than the step then follows the other parts with a lag of half a step. The
midpoint rule follows them without bias.

Each step may have its own length without loss of order. The half step of the gates at
the end of one step and the half step at the start of the next see the same potential.
They are taken as one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from dicjax._core import Scalar
from dicjax.neurons import Neuron, State


REFERENCE_SLOPE = 16.0  # mV/ms at which a step is `dt` long
FINEST, LONGEST = 4, 8  # steps are at least `dt / FINEST`, at most `LONGEST * dt`


def relax_gates(neuron: Neuron, y: State, h: Scalar) -> State:
    """Advances every gate by `h` ms at fixed potential and calcium."""
    return State(V=y.V, gates=neuron.relax(y.V, y.gates, y.Ca, h), Ca=y.Ca)


def relax_membrane(
    neuron: Neuron,
    y: State,
    g: PyTree,
    h: Scalar,
    I_ext: Scalar | Callable | None,
) -> State:
    """Advances potential and calcium by `h` ms at fixed gates, symmetrically.

    `I_ext` is the applied current in µA/cm², or a function that gives it for a state.
    """
    y = relax_calcium(neuron, y, g, h / 2)

    def dV(V: Scalar) -> Scalar:
        I = neuron.total_current(V, y.gates, y.Ca, g)
        if callable(I_ext):
            I = I - I_ext(State(V=V, gates=y.gates, Ca=y.Ca))
        elif I_ext is not None:
            I = I - I_ext
        return -I / neuron.capacitance

    y = State(V=_relax(dV, y.V, h), gates=y.gates, Ca=y.Ca)
    return relax_calcium(neuron, y, g, h / 2)


def relax_calcium(neuron: Neuron, y: State, g: PyTree, h: Scalar) -> State:
    """Advances calcium by `h` ms at fixed potential and gates."""
    if neuron.calcium is None:
        return y
    rate = lambda Ca: neuron.calcium_rate(y.V, y.gates, Ca, g)
    return State(V=y.V, gates=y.gates, Ca=_relax(rate, y.Ca, h))


def _relax(rate: Callable[[Scalar], Scalar], x: Scalar, h: Scalar) -> Scalar:
    # This is the midpoint rule where `rate` is affine in `x`, and of second order
    # elsewhere. The tangent is one; Triton fails on a constant that is negated later.
    one = jnp.where(x == x, jnp.ones_like(x), 1)
    f, slope = jax.jvp(rate, (x,), (one,))
    # Only instantaneous curves make a slope positive, and then it is small.
    return x + h * f / (1 - jnp.minimum(h * slope, 1) / 2)


def next_step(dV: Scalar, h: Scalar, dt: Scalar, longest: Scalar) -> Scalar:
    """Returns the length (ms) of the next step.

    The last step took `h` ms and changed the potential by `dV` mV. The next one is
    proportional to the inverse square root of the potential's slope. Among powers from
    1/3 to 1, this one took the fewest steps for a given error of firing periods. The
    step is `dt` at 16 mV/ms, and between `dt / 4` and `8 dt` elsewhere. It is never
    longer than `longest`, nor than twice the last one.
    """
    slope = jnp.abs(dV) / h
    wanted = dt * jax.lax.rsqrt(slope * (1 / REFERENCE_SLOPE) + 1e-6)
    return jnp.clip(
        jnp.minimum(wanted, 2 * h), dt / FINEST, jnp.minimum(LONGEST * dt, longest)
    )
