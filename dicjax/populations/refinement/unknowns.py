"""What members may change: their conductances, and numbers of the neuron.

Numbers, such as the midpoint of a gate, get a value for each member. They move in units
of how far each may go, so that they stand beside logarithms of conductances.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from dicjax._core import counted
from dicjax.neurons import Neuron, varying
from dicjax.simulation import Cell, picked


class Numbers(NamedTuple):
    """Numbers of a neuron that members change.

    - `leaves`: where they stand among all numbers of the neuron; `names`: in words.
    - `given`: their values at first, in units of their own.
    - `reach`: how far from these each may move, in the same units.
    """

    leaves: tuple[int, ...]
    names: tuple[str, ...]
    given: Float[np.ndarray, "cells numbers"]
    reach: Float[np.ndarray, " numbers"]


def find_numbers(
    neuron: Neuron,
    where: Callable[[Cell], Any] | None,
    reach: ArrayLike | tuple[float, ...] | None,
    num_members: int,
) -> Numbers:
    """Finds the numbers that `where` picks, of a neuron for members in a row.

    Raises `ValueError` if it picks other things, or if `reach` does not go with them.
    """
    if where is None:
        if reach is not None:
            raise ValueError(
                f"`reach` of {reach} says how far numbers may move, but none are "
                "named: give `where` too, such as lambda cell: cell.neuron.capacitance."
            )
        return Numbers((), (), np.zeros((num_members, 0)), np.zeros(0))
    leaves = _leaves(neuron, where)
    paths = jax.tree_util.tree_flatten_with_path(neuron)[0]
    names = tuple(jax.tree_util.keystr(paths[i][0]).lstrip(".") for i in leaves)
    if reach is None:
        raise ValueError(
            f"How far may {', '.join(names)} move? Give `reach`, one distance for each "
            "in its own units."
        )
    far = np.asarray(reach, float)
    if far.shape not in ((), (len(leaves),)):
        raise ValueError(
            f"`reach` must hold {counted(len(leaves), 'distance')}, one for each of "
            f"{', '.join(names)}, got shape {far.shape}."
        )
    if not (np.isfinite(far) & (far > 0)).all():
        raise ValueError(f"`reach` must hold positive distances, got {reach}.")
    values = [np.asarray(paths[i][1], float) for i in leaves]
    given = np.stack([np.broadcast_to(x, num_members) for x in values], axis=1)
    numbers = Numbers(leaves, names, given, np.broadcast_to(far, len(leaves)))
    of_each = varying(with_numbers(neuron, leaves, given))
    shared = [x for x, i in zip(names, leaves, strict=True) if not of_each[i]]
    if shared:
        raise ValueError(
            f"{shared[0]} cannot differ between members: annotate the field that holds "
            'it as Float[Array, ""].'
        )
    return numbers


def _leaves(neuron: Neuron, where: Callable[[Cell], Any]) -> tuple[int, ...]:
    """Places of the numbers that `where` picks, among those of the neuron."""
    leaves = picked(Cell(neuron, (), None), where).places
    if max(Counter(leaves).values()) > 1:
        raise ValueError(
            f"`where` must pick every number once, but its {len(leaves)} are only "
            f"{len(set(leaves))} numbers."
        )
    return leaves


def with_numbers(
    neuron: Neuron, leaves: tuple[int, ...], values: Float[np.ndarray, "cells numbers"]
) -> Neuron:
    """The neuron of members that have these numbers."""
    return _changed(neuron, leaves, values, lambda _, new: new)


def moved(
    neuron: Neuron, leaves: tuple[int, ...], by: Float[Array, "cells numbers"]
) -> Neuron:
    """The neuron of members whose numbers differ by so much."""
    return _changed(neuron, leaves, by, lambda old, step: old + step)


def _changed(neuron, leaves, columns, change: Callable[[Any, Any], Any]) -> Neuron:
    own, structure = jax.tree.flatten(neuron)
    for i, column in zip(leaves, columns.T, strict=True):
        own[i] = change(own[i], jnp.asarray(column, own[i].dtype))
    return jax.tree.unflatten(structure, own)
