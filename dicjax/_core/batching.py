"""Arrays brought to few sizes, since programs are compiled for each size."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def compiled_size(num: int, least: int = 1) -> int:
    """The smallest power of two that is at least `num` and `least`."""
    return 1 << (max(num, least, 1) - 1).bit_length()


def padded(x: np.ndarray, num: int, fill: float | bool | None = None) -> np.ndarray:
    """`x` with rows up to `num`: its last row again, or rows of `fill`."""
    missing = ((0, num - len(x)), *((0, 0),) * (x.ndim - 1))
    if fill is not None:
        return np.pad(x, missing, constant_values=fill)
    return np.pad(x, missing, mode="edge")


def widened(rows: np.ndarray, width: int, fill: float = np.inf) -> np.ndarray:
    """Rows with columns of `fill` up to `width`, as trains are padded."""
    missing = (*((0, 0),) * (rows.ndim - 1), (0, width - rows.shape[-1]))
    return np.pad(rows, missing, constant_values=fill)


def stacked(rows: list[np.ndarray], fill: float = np.inf) -> np.ndarray:
    """Tables of rows one below the other, as wide as the widest of them."""
    width = max(x.shape[1] for x in rows)
    return np.concatenate([widened(x, width, fill) for x in rows])


def batches(arrays: PyTree, size: int) -> Iterator[tuple[PyTree, int]]:
    """Rows of a tree of arrays, `size` at a time, and how many of them are its own.

    The last row fills up the last batch. Of no rows there is no batch.
    """
    num = len(jax.tree.leaves(arrays)[0])
    for start in range(0, num, size):
        take = slice(start, start + size)
        part = jax.tree.map(lambda x, take=take: np.asarray(x)[take], arrays)
        yield jax.tree.map(lambda x: padded(x, size), part), min(size, num - start)


def in_batches(function: Callable[..., PyTree], *arrays: PyTree, size: int) -> Any:
    """What a compiled function returns for rows, given `size` rows at a time.

    Every result is on the host, and has a row for each row that was given.
    """
    results = [
        jax.tree.map(lambda x, own=own: np.asarray(x)[:own], function(*part))
        for part, own in batches(arrays, size)
    ]
    if not results:
        shapes = jax.eval_shape(function, *jax.tree.map(jnp.asarray, arrays))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return jax.tree.map(lambda *x: np.concatenate(x), *results)
