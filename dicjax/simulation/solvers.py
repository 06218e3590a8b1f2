"""Our integrator as a diffrax solver, and the vector field that all solvers take."""

from collections.abc import Callable
from typing import cast, ClassVar

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Shaped

from dicjax._core import Scalar
from dicjax.neurons import Neuron, State
from dicjax.simulation.integrator import relax_gates, relax_membrane
from dicjax.simulation.stimulus import Current


class Membrane(eqx.Module):
    """The vector field of a `Neuron`, for `diffrax.ODETerm`; `args` is `g`.

    `I_ext(t)` is the applied current, in µA/cm² at ms: a stimulus such as
    [`dicjax.Step`][], or a function.
    """

    neuron: Neuron
    I_ext: Callable[[Scalar], Current] | None = None

    def __call__(self, t: Scalar, y: State, args: PyTree) -> State:
        _check_conductances(self.neuron, args)
        I = None if self.I_ext is None else self.I_ext(t)
        I = I(y) if callable(I) else I
        return self.neuron.vector_field(t, y, args, I)


class StaggeredMidpoint(dfx.AbstractSolver):
    """Our staggered implicit-midpoint integrator, for `diffrax.diffeqsolve`.

    It takes an `ODETerm` of a [`dicjax.Membrane`][]. [`dicjax.simulate`][] integrates
    populations faster, because it merges the two half steps of the gates.
    """

    term_structure: ClassVar = dfx.ODETerm
    interpolation_cls: ClassVar = dfx.LocalLinearInterpolation

    def order(self, terms: dfx.AbstractTerm) -> int:
        """Returns the order of convergence."""
        del terms
        return 2

    def init(self, terms, t0, t1, y0, args) -> None:
        """Returns nothing: steps carry no solver state."""
        del terms, t0, t1, y0, args

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """Takes one symmetric step from `t0` to `t1`."""
        del solver_state, made_jump
        membrane, direction = _unwrapped(terms)
        h = jnp.asarray(direction * (t1 - t0))
        I = None
        if membrane.I_ext is not None:
            I = membrane.I_ext(jnp.asarray(direction * (t0 + t1) / 2))
        _check_conductances(membrane.neuron, args)
        y1 = relax_gates(membrane.neuron, y0, h / 2)
        y1 = relax_membrane(membrane.neuron, y1, args, h, I)
        y1 = relax_gates(membrane.neuron, y1, h / 2)
        return y1, None, {"y0": y0, "y1": y1}, None, dfx.RESULTS.successful

    def func(self, terms, t0, y0, args) -> State:
        """Returns the vector field, from which diffrax chooses a first step."""
        return terms.vf(t0, y0, args)


def _unwrapped(terms) -> tuple[Membrane, Shaped[Array, ""] | int]:
    # Diffrax wraps terms, and runs backwards by negating times.
    direction = 1
    while not isinstance(terms, dfx.ODETerm):
        terms, direction = terms.term, direction * terms.direction
    return cast(Membrane, terms.vector_field), direction


def _check_conductances(neuron: Neuron, g: PyTree) -> None:
    num = len(neuron.channels)
    if len(g) != num:
        raise ValueError(
            f"`args` must be the {num} maximal conductances {neuron.channel_names} of "
            f"{neuron.name}, got {len(g)}."
        )
