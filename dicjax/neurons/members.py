"""Neurons whose numbers differ between members of a population.

Every number of a neuron may be an array with the axes of a population in front. How
many axes a number has of itself is what the field that holds it declares.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from dicjax._core import in_one_row, leading_axes, leading_shape, of_cells
from dicjax.neurons.neuron import Neuron


def member_shape(neuron: Neuron) -> tuple[int, ...]:
    """The shape of the population whose members' numbers a neuron holds.

    It is () if all numbers are shared. Raises `ValueError` if two numbers do not fit.
    """
    return leading_shape(neuron, ranks(neuron), neuron.name)


def by_member(neuron: Neuron, shape: tuple[int, ...]) -> Neuron:
    """The neuron of members of this shape, whose axes become one.

    Numbers that all members share stay as they are.
    """
    return in_one_row(neuron, ranks(neuron), shape)


def of_members(neuron: Neuron, members: Any) -> Neuron:
    """The neuron of some members (indices), of one for members in a row."""
    return of_cells(neuron, ranks(neuron), members)


def member_axes(neuron: Neuron) -> PyTree:
    """The axes for `vmap` over members: 0 for numbers that differ, else None."""
    return leading_axes(neuron, ranks(neuron))


def varying(neuron: Neuron) -> list[bool]:
    """Whether members differ in each number of a neuron, in the order of its leaves."""
    pairs = zip(jax.tree.leaves(neuron), ranks(neuron), strict=True)
    return [np.ndim(leaf) > rank for leaf, rank in pairs]


def ranks(tree: Any) -> list[int]:
    """How many axes every leaf has for one member."""
    return list(_ranks(tree, None))


def _ranks(tree: Any, hint: Any) -> Iterator[int]:
    if isinstance(tree, eqx.Module):
        for field in dataclasses.fields(tree):
            if not field.metadata.get("static", False):
                yield from _ranks(getattr(tree, field.name), field.type)
    elif isinstance(tree, tuple | list):
        for part in tree:
            yield from _ranks(part, hint)
    else:
        for leaf in jax.tree.leaves(tree):
            declared = _declared_rank(hint)
            # What declares nothing is shared.
            own = np.ndim(leaf)
            yield own if declared is None else min(declared, own)


def _declared_rank(hint: Any) -> int | None:
    """The number of axes that an annotation of jaxtyping gives to an array."""
    if isinstance(getattr(hint, "dim_str", None), str):
        axes = hint.dim_str.split()
        return None if any(x[0] in "*." for x in axes) else len(axes)
    found = map(_declared_rank, typing.get_args(hint))
    return next((rank for rank in found if rank is not None), None)
