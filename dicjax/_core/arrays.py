"""Arrays as fields of modules: of one type, and for one cell or for many."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, TYPE_CHECKING, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


Tree = TypeVar("Tree")
Scalar = Float[Array, ""]
"""A number of one cell. Functions of scalars are mapped over many cells."""
AnyArray = Array | np.ndarray

# None of a value that was not asked for. Who asked for it need not check for None.
if TYPE_CHECKING:
    OrNone = Any
else:
    OrNone = None


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


def leading_shape(tree: PyTree, ranks: list[int], owner: str) -> tuple[int, ...]:
    """The shape of the cells that leaves have values for; () if all share them.

    `ranks` are the axes that each leaf has for one cell. Raises `ValueError` if two
    leaves of `owner` do not fit.
    """
    pairs = zip(jax.tree.leaves(tree), ranks, strict=True)
    shapes = {np.shape(leaf)[: np.ndim(leaf) - rank] for leaf, rank in pairs}
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = ", ".join(str(shape) for shape in sorted(shapes) if shape)
        raise ValueError(
            f"{owner} has values for cells of shapes {listed}: give them equal shapes, "
            "or such that broadcast."
        ) from None


def in_one_row(tree: Tree, ranks: list[int], shape: tuple[int, ...]) -> Tree:
    """The tree for cells of this shape, whose leading axes become one.

    Leaves that all cells share stay as they are.
    """

    def flat(leaf, rank):
        if np.ndim(leaf) == rank:
            return leaf
        own = leaf.shape[leaf.ndim - rank :]
        return jnp.broadcast_to(leaf, (*shape, *own)).reshape(-1, *own)

    return _with_leaves(tree, ranks, flat)


def leading_axes(tree: PyTree, ranks: list[int]) -> PyTree:
    """The axes for `vmap` over cells: 0 for leaves that differ by cell, else None."""
    axis = lambda leaf, rank: 0 if np.ndim(leaf) > rank else None
    return _with_leaves(tree, ranks, axis)


def of_cells(tree: Tree, ranks: list[int], cells: Any) -> Tree:
    """The leaves of these cells, of a tree for cells in a row."""
    own = lambda leaf, rank: leaf[cells] if np.ndim(leaf) > rank else leaf
    return _with_leaves(tree, ranks, own)


def _with_leaves(tree: Any, ranks: list[int], new: Callable[[Any, int], Any]) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(leaves, ranks, strict=True)
    return jax.tree.unflatten(treedef, list(itertools.starmap(new, pairs)))
