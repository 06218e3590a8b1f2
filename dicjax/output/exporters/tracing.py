"""Converts functions of JAX to scalar expressions, through their jaxprs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.typing import DTypeLike
from jaxtyping import PyTree

from dicjax.neurons import CALLS
from dicjax.output.exporters.expressions import (
    apply,
    constant,
    Expression,
    FOLD,
    operation,
    variable,
)


REDUCTIONS = {"reduce_sum": "add", "reduce_prod": "mul"}
REDUCTIONS |= {"reduce_max": "max", "reduce_min": "min"}
# Operations that only rearrange values, and the arguments that are indices.
MOVES: dict[str, range] = {
    **dict.fromkeys(("broadcast_in_dim", "reshape", "squeeze"), range(0)),
    **dict.fromkeys(("transpose", "slice", "concatenate", "stack", "rev"), range(0)),
    "gather": range(1, 2),
    "scatter": range(1, 2),
    "dynamic_slice": range(1, 99),
    "dynamic_update_slice": range(2, 99),
}


def _select(which: Expression, no: Expression, yes: Expression) -> Expression:
    return apply("select", which, yes, no)


SCALARS: dict[str, Callable[..., Expression]] = {
    **{op: operation(op) for op in FOLD if op != "select"},
    "add_any": operation("add"),
    "integer_pow": lambda x, y, **_: apply("pow", x, constant(y)),
    "square": lambda x: apply("pow", x, constant(2)),
    "exp2": lambda x, **_: apply("pow", constant(2.0), x),
    "rsqrt": lambda x, **_: constant(1.0) / apply("sqrt", x),
    "logistic": lambda x, **_: constant(1.0) / (constant(1.0) + apply("exp", -x)),
    "select_n": _select,
    "clamp": lambda low, x, high: apply("min", apply("max", x, low), high),
    "copy": lambda x: x,
    "stop_gradient": lambda x: x,
}


class UnsupportedOperation(ValueError):
    """A function uses an operation that cannot be written as scalar expressions."""

    def __init__(self, primitive: str):
        super().__init__(f"the operation `{primitive}` cannot be exported")
        self.primitive = primitive


def trace(
    function: Callable[..., PyTree], *args: PyTree, dtype: DTypeLike = float
) -> PyTree:
    """A function of scalars, as expressions.

    `function` maps pytrees of scalars of `dtype` to one, without effects. The leaves of
    `args` are expressions or names of variables. Single-precision constants are read as
    the shortest decimals that they print as. The result has a bare expression for every
    scalar, and an object array of them for every array. Raises `UnsupportedOperation`
    if something has no scalar form, such as a loop.
    """
    leaves, structure = jax.tree.flatten(args)
    scalars = structure.unflatten([jnp.zeros((), dtype)] * len(leaves))
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*scalars)
    given = [variable(x) if isinstance(x, str) else x for x in leaves]
    outputs = _inlined(closed, [_array(x) for x in given])
    results = [x.item() if x.ndim == 0 else x for x in outputs]
    return jax.tree.unflatten(jax.tree.structure(shape), results)


def _array(x: Any) -> np.ndarray:
    x = np.asarray(x)
    out = np.empty(x.shape, object)
    for at in np.ndindex(x.shape):
        out[at] = x[at] if isinstance(x[at], Expression) else constant(x[at])
    return out


def _inlined(jaxpr: ClosedJaxpr | Jaxpr, args: list[np.ndarray]) -> list[np.ndarray]:
    consts: Sequence[Any] = ()
    if isinstance(jaxpr, ClosedJaxpr):
        jaxpr, consts = jaxpr.jaxpr, jaxpr.consts
    values: dict[Any, np.ndarray] = {}
    values.update(zip(jaxpr.constvars, map(_array, consts), strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    read = lambda x: _array(x.val) if isinstance(x, Literal) else values[x]
    for eqn in jaxpr.eqns:
        outputs = _equation(eqn, [read(x) for x in eqn.invars])
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _equation(eqn: JaxprEqn, args: list[np.ndarray]) -> list[np.ndarray]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        inner = "call_jaxpr" if "call_jaxpr" in params else "jaxpr"
        return _inlined(params[inner], args)
    if name == "cond" and len(params["branches"]) == 2:
        cases = [_inlined(branch, args[1:]) for branch in params["branches"]]
        return [_elementwise(_select, args[0], *x) for x in zip(*cases, strict=True)]
    if name == "scan":
        return _unrolled(eqn, args)
    ends: list[Any] = [*eqn.invars[:1], *eqn.outvars]
    kinds = [np.dtype(x.aval.dtype).kind for x in ends]
    if name == "convert_element_type" and (kinds[0] == "b" or kinds[1] == "f"):
        return args  # changes no number, up to rounding
    if {*kinds} & {*"iu"}:
        return _computed(eqn, args)
    if name in MOVES:
        return [_moved(eqn, args)]
    if name in REDUCTIONS:
        return [_reduced(REDUCTIONS[name], args[0], params["axes"])]
    if name == "dot_general" and not any(params["dimension_numbers"][1]):
        return [np.asarray(np.tensordot(*args, axes=params["dimension_numbers"][0]))]
    if name in SCALARS:
        return [_elementwise(lambda *x: SCALARS[name](*x, **params), *args)]
    return _computed(eqn, args)


def _unrolled(eqn: JaxprEqn, args: list[np.ndarray]) -> list[np.ndarray]:
    jaxpr, length = eqn.params["jaxpr"], eqn.params["length"]
    # JAX 0.11 renames the parameters that hold these counts. In all versions, scanned
    # and stacked arrays have one axis more outside the loop than inside.
    num_carry = sum(map(_same_rank, eqn.outvars, jaxpr.out_avals))
    num_xs = len(args) - sum(map(_same_rank, eqn.invars, jaxpr.in_avals))
    num_consts = len(args) - num_carry - num_xs
    consts, xs = args[:num_consts], args[num_consts + num_carry :]
    carry, rows = args[num_consts : num_consts + num_carry], []
    for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
        out = _inlined(jaxpr, [*consts, *carry, *(_array(x[i]) for x in xs)])
        carry = out[:num_carry]
        rows.append(out[num_carry:])
    rows = rows[::-1] if eqn.params["reverse"] else rows
    return [*carry, *(np.stack(ys) for ys in zip(*rows, strict=True))]


def _same_rank(outside: Any, inside: Any) -> bool:
    return outside.aval.ndim == inside.ndim


def _elementwise(rule: Callable[..., Expression], *args: np.ndarray) -> np.ndarray:
    return np.asarray(np.frompyfunc(rule, len(args), 1)(*args), object)


def _reduced(op: str, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    for axis in sorted(axes, reverse=True):
        parts = [_array(part) for part in np.moveaxis(x, axis, 0)]
        x = functools.reduce(functools.partial(_elementwise, operation(op)), parts)
    return x


def _moved(eqn: JaxprEqn, args: list[np.ndarray]) -> np.ndarray:
    """The result of an operation that only rearranges, which is applied to indices."""
    indices, shown, elements = MOVES[eqn.primitive.name], [], []
    for i, arg in enumerate(args):
        if i in indices:
            shown.append(_numbers(eqn, i, arg))
        else:
            places = len(elements) + np.arange(arg.size).reshape(arg.shape)
            shown.append(jnp.asarray(places, jnp.float32))
            elements.extend(arg.flat)
    places = np.asarray(eqn.primitive.bind(*shown, **eqn.params))
    at = lambda place: constant(np.nan) if np.isnan(place) else elements[int(place)]
    return _elementwise(at, places)


def _computed(eqn: JaxprEqn, args: list[np.ndarray]) -> list[np.ndarray]:
    numbers = [_numbers(eqn, i, arg) for i, arg in enumerate(args)]
    outputs = eqn.primitive.bind(*numbers, **eqn.params)
    outputs = outputs if eqn.primitive.multiple_results else [outputs]
    return [_array(x) for x in outputs]


def _numbers(eqn: JaxprEqn, i: int, arg: np.ndarray) -> jax.Array:
    """The `i`-th argument of an operation, which must be constant."""
    x: Any = eqn.invars[i]
    if any(x.op != "constant" for x in arg.flat):
        raise UnsupportedOperation(eqn.primitive.name)
    values = np.array([x.value for x in arg.flat]).reshape(arg.shape)
    return jnp.asarray(values, x.aval.dtype)
