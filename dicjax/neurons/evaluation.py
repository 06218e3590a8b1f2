"""Curves evaluated by numpy at many potentials at once, for which nothing is compiled.

Neurons are declared often, and compiling their curves for a glance at them would take
longer than all else. A curve is traced once for every form of it, and never compiled
unless it does more than elementwise arithmetic.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from dicjax.neurons.curves import AbstractCurve


CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")
CALLS = (*CALLS, "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
"""Primitives of JAX that call another function."""
NAMED = ("exp", "log", "expm1", "log1p", "tanh", "sinh", "cosh", "sin", "cos", "sqrt")
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in NAMED},
    "neg": np.negative,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    **{name: getattr(np, f"logical_{name}") for name in ("and", "or", "not")},
}
"""Primitives of JAX that are functions of numpy."""
_OTHERS: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": lambda x, **_: x,  # of a scalar, to a scalar
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "convert_element_type": lambda x, new_dtype, **_: np.asarray(x, new_dtype),
    "copy": lambda x: x,
    "exp2": lambda x, **_: np.exp2(x),
    "integer_pow": lambda x, y: np.power(x, y),
    "logistic": lambda x, **_: 1 / (1 + np.exp(-x)),
    "rsqrt": lambda x, **_: 1 / np.sqrt(x),
    "select_n": lambda which, no, yes: np.where(which, yes, no),
    "square": np.square,
    "stop_gradient": lambda x: x,
}


def on_grid(curve: AbstractCurve, V: np.ndarray, Ca: np.ndarray) -> np.ndarray | None:
    """The curve at potentials (mV) and calcium (µM), which are broadcast.

    None if its numbers are traced or those of several neurons, or if it cannot be
    evaluated.
    """
    shape = np.broadcast_shapes(V.shape, Ca.shape)
    leaves, structure = jax.tree.flatten(curve)
    if not all(map(_is_concrete, leaves)):
        return None
    try:
        kinds = tuple((np.shape(x), _dtype(x)) for x in leaves)
        traced = _traced(structure, kinds)
        if traced.out_avals[0].shape:
            return None
        with np.errstate(all="ignore"):
            (values,) = _evaluated(traced, [*map(np.asarray, leaves), V, Ca])
    except _NotElementwise:
        flat = (jnp.asarray(x.ravel()) for x in np.broadcast_arrays(V, Ca))
        values = np.asarray(_compiled(curve, *flat)).reshape(shape)
    except Exception:
        return None
    return np.broadcast_to(values, shape)


class _NotElementwise(Exception):
    """A curve does more than elementwise arithmetic."""


def _is_concrete(leaf: Any) -> bool:
    is_number = isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float))
    return is_number and not isinstance(leaf, jax.core.Tracer)


def _dtype(leaf: Any) -> np.dtype:
    dtype = np.asarray(leaf).dtype
    # All floats alike, as they are in a simulation.
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return jax.dtypes.canonicalize_dtype(float if is_float else dtype)


@functools.lru_cache(maxsize=512)
def _traced(structure: Any, kinds: tuple) -> ClosedJaxpr:
    leaves = [jax.ShapeDtypeStruct(*x) for x in kinds]
    scalar = jax.ShapeDtypeStruct((), jax.dtypes.canonicalize_dtype(float))
    call = lambda leaves, V, Ca: jax.tree.unflatten(structure, leaves)(V, Ca)
    return jax.make_jaxpr(call)(leaves, scalar, scalar)


@eqx.filter_jit
def _compiled(curve: AbstractCurve, V: jax.Array, Ca: jax.Array) -> jax.Array:
    return jax.vmap(curve)(V, Ca)


def _evaluated(jaxpr: ClosedJaxpr | Jaxpr, args: Sequence[Any]) -> list[Any]:
    consts: Sequence[Any] = ()
    if isinstance(jaxpr, ClosedJaxpr):
        jaxpr, consts = jaxpr.jaxpr, jaxpr.consts
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    read = lambda x: x.val if isinstance(x, Literal) else values[x]
    for eqn in jaxpr.eqns:
        results = _applied(eqn, [read(x) for x in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _applied(eqn: JaxprEqn, args: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        inner = "call_jaxpr" if "call_jaxpr" in params else "jaxpr"
        return _evaluated(params[inner], args)
    avals: list[Any] = [x.aval for x in eqn.outvars]
    is_scalar = not any(aval.shape for aval in avals)
    if is_scalar and name in ELEMENTWISE:
        return [ELEMENTWISE[name](*args)]
    if is_scalar and name in _OTHERS:
        return [_OTHERS[name](*args, **params)]
    raise _NotElementwise
