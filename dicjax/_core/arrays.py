"""Arrays as fields of modules: of one type whatever they were given as."""

import functools
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


Tree = TypeVar("Tree")
Scalar = Float[Array, ""]
"""A number of one cell. Functions of scalars are mapped over many cells."""


def strong(x: Any) -> Array:
    """Converts to a strongly typed floating-point array, so that no value retraces."""
    x = jnp.asarray(x)
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else float
    return jnp.asarray(x, jnp.dtype(jax.dtypes.canonicalize_dtype(dtype)))


def optional(x: Any) -> Array | None:
    """As `strong`, where the array may be left out."""
    return None if x is None else strong(x)


def cast_floats(tree: Tree, dtype: Any) -> Tree:
    """The tree with all floating-point arrays in `dtype`."""
    cast = lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x
    return jax.tree.map(cast, tree)


def strong_pair(pair: Any) -> tuple[Array, Array]:
    """Two arrays, each as by `strong`."""
    first, second = pair
    return strong(first), strong(second)


def in_float32(tree: Tree) -> Tree:
    """A tree whose floating-point arrays are in single precision."""
    return cast_floats(tree, jnp.float32)


def varying_with(tree: Tree, *others: Any) -> Tree:
    """The tree, with arrays that vary among devices, in `jax.shard_map`, as others do.

    What a loop carries has to do so from its start. Values stay as they are.
    """
    numbers = filter(eqx.is_inexact_array, jax.tree.leaves(others))
    flags = [jnp.isnan(x).reshape(-1)[0] for x in numbers if x.size]
    flag = functools.reduce(jnp.logical_or, flags, jnp.zeros((), bool))
    return jax.tree.map(lambda x: jnp.where(flag, x, x), tree)
