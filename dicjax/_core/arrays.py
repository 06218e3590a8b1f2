"""Arrays as fields of modules: of one type whatever they were given as."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


Tree = TypeVar("Tree")


def strong(x: Any) -> Array:
    """Converts to a strongly typed floating-point array, so that no value retraces."""
    x = jnp.asarray(x)
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else float
    return jnp.asarray(x, jnp.dtype(jax.dtypes.canonicalize_dtype(dtype)))


def optional(x: Any) -> Array | None:
    """As `strong`, where the array may be left out."""
    return None if x is None else strong(x)


def strong_pair(pair: Any) -> tuple[Array, Array]:
    """Two arrays, each as by `strong`."""
    first, second = pair
    return strong(first), strong(second)


def in_float32(tree: Tree) -> Tree:
    """A tree whose floating-point arrays are in single precision."""
    is_float = eqx.is_inexact_array
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_float(x) else x, tree)
