"""Cells that differ in conductances, kinetics, stimuli or starts, side by side."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dicjax._core import AnyArray, cast_floats, leading_axes, of_cells, Scalar
from dicjax.neurons import by_member, member_shape, Neuron, ranks
from dicjax.simulation.noise import with_noise_of
from dicjax.simulation.stimulus import (
    AbstractStimulus,
    cell_shape,
    Current,
    per_cell,
)


class Cell(eqx.Module):
    """What makes a cell fire, or cells in a row.

    - `neuron`: the model.
    - `g`: the maximal conductance of every channel, in mS/cm².
    - `stimulus`: the applied current, if any.

    Numbers have an axis of cells where these differ.
    """

    neuron: Neuron
    g: tuple[Float[AnyArray, "*cells"], ...]
    stimulus: AbstractStimulus | None

    def ranks(self) -> list[int]:
        """The number of axes that every leaf has for one cell."""
        applied = [] if self.stimulus is None else self.stimulus.ranks()
        return [*ranks(self.neuron), *(0 for _ in self.g), *applied]

    def axes(self) -> "Cell":
        """The axes for `vmap` over cells: 0 for numbers that differ, else None."""
        return leading_axes(self, self.ranks())

    def parted(self) -> tuple["Cell", "Cell"]:
        """The numbers in which cells differ, and those that they share."""
        leaves, treedef = jax.tree.flatten(self)
        pairs = zip(leaves, self.ranks(), strict=True)
        differs = [np.ndim(leaf) > rank for leaf, rank in pairs]
        return eqx.partition(self, jax.tree.unflatten(treedef, differs))

    def of_rows(self, rows: Int[np.ndarray, " rows"]) -> "Cell":
        """These cells of a row, any number of times. Each keeps its noise."""
        stimulus = self.stimulus
        if stimulus is not None:
            stimulus = with_noise_of(stimulus, len(self.g[0]))
        cell = Cell(self.neuron, self.g, stimulus)
        return of_cells(cell, cell.ranks(), rows)

    def current(self, t: Scalar) -> Current:
        """The applied current of one cell at `t` ms."""
        return jnp.zeros_like(t) if self.stimulus is None else self.stimulus(t)


class Numbers(NamedTuple):
    """Some numbers of cells, to be moved a little.

    - `places`: where they are among the leaves of a `Cell`.
    - `are_log`: whether they are moved in steps of their logarithms.
    """

    places: tuple[int, ...]
    are_log: bool = False

    def sizes(self, cell: Cell) -> Float[Array, "*cells numbers"]:
        """What steps of the numbers are relative to, and slopes are compared by.

        That is the magnitude of a number, or one if it is zero; one of logarithms.
        """
        leaves, shape = jax.tree.leaves(cell), np.shape(cell.g[0])
        own = (jnp.broadcast_to(leaves[place], shape) for place in self.places)
        values = jnp.stack(list(own), axis=-1)
        is_relative = (values != 0) & (not self.are_log)
        return jnp.where(is_relative, jnp.abs(values), jnp.ones_like(values))

    def moved(self, cell: Cell, by: Float[AnyArray, "*cells numbers"]) -> Cell:
        """The cell with `by` added to the numbers, or to their logarithms."""
        leaves, treedef = jax.tree.flatten(cell)
        exp = np.exp if isinstance(by, np.ndarray) else jnp.exp
        for i, place in enumerate(self.places):
            x, step = leaves[place], by[..., i]
            leaves[place] = x * exp(step) if self.are_log else x + step
        return jax.tree.unflatten(treedef, leaves)


def log_conductances(cell: Cell) -> Numbers:
    """The logarithms of all conductances."""
    first = len(jax.tree.leaves(cell.neuron))
    return Numbers(tuple(range(first, first + len(cell.g))), are_log=True)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Stands for a number of a cell while a function picks some."""

    index: int


def _has_places(tree: Any) -> bool:
    return all(isinstance(x, _Place) for x in jax.tree.leaves(tree))


def picked(cell: Cell, where: Callable[[Cell], Any]) -> Numbers:
    """The numbers that a function of a cell picks, as of `equinox.tree_at`.

    Raises `ValueError` if it picks none, or what is no single floating-point number.
    """
    named, treedef = jax.tree.flatten_with_path(cell)
    try:
        found = where(jax.tree.unflatten(treedef, map(_Place, range(len(named)))))
    except TypeError as error:
        raise ValueError(
            f"`where` must return numbers of the cell as they are, but {error}."
        ) from error
    nodes = found if isinstance(found, tuple | list) else (found,)
    picks = jax.tree.leaves(nodes)
    odd = [x for x in (*nodes, *picks) if x is None or not _has_places(x)]
    if odd or not picks:
        raise ValueError(
            f"`where` picks {odd[0] if odd else 'nothing'}, but must pick numbers of "
            "the cell that have slopes, such as `cell.neuron.capacitance`."
        )
    places, own = tuple(place.index for place in picks), cell.ranks()
    for place in places:
        path, leaf = named[place]
        name = f"`where` picks `cell{jax.tree_util.keystr(path)}`, "
        if own[place] or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"{name}of {leaf.dtype} with {own[place]} axes for each cell, but only "
                "single floating-point numbers have slopes: leave it out."
            )
        if not np.isfinite(leaf).all():
            raise ValueError(
                f"{name}which is {np.asarray(leaf).min()}, but only finite numbers "
                "have slopes: leave it out, or give it a finite value."
            )
    return Numbers(places)


class Cells(NamedTuple):
    """Cells in a row, and the axes that they came in.

    All numbers have the type of `g`, as JAX has it. Numbers of the neuron and of the
    stimulus have an axis of cells where these differ.
    """

    shape: tuple[int, ...]
    neuron: Neuron
    g: Float[AnyArray, "cells channels"]
    stimulus: AbstractStimulus | None

    @property
    def row(self) -> Cell:
        """The cells as one `Cell`, with separate conductances."""
        return Cell(self.neuron, tuple(self.g.T), self.stimulus)


def in_a_row(
    neuron: Neuron,
    g: Float[AnyArray, "*cells channels"],
    stimulus: AbstractStimulus | None,
    **starts: Any,
) -> Cells:
    """Broadcasts conductances, the neuron's numbers, the stimulus and `starts`.

    Raises `ValueError` if these are for other numbers of cells.
    """
    neuron = jax.tree.map(jnp.asarray, neuron)  # also what NumPy has put there
    g = g.astype(jax.dtypes.canonicalize_dtype(g.dtype))
    shapes = {"`g`": g.shape[:-1], neuron.name: member_shape(neuron)}
    if stimulus is not None:
        shapes[type(stimulus).__name__] = cell_shape(stimulus)
    shapes |= {f"`{name}`": np.shape(x) for name, x in starts.items()}
    try:
        shape = np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = " and ".join(f"{x} for {name}" for name, x in shapes.items() if x)
        raise ValueError(
            f"Cells have other shapes: {listed}. Give equal leading axes, or such that "
            "broadcast."
        ) from None
    if stimulus is not None:
        stimulus = cast_floats(per_cell(stimulus, shape), g.dtype)
    numpy = jnp if isinstance(g, jax.Array) else np
    return Cells(
        shape=shape,
        neuron=by_member(cast_floats(neuron, g.dtype), shape),
        g=numpy.broadcast_to(g, (*shape, g.shape[-1])).reshape(-1, g.shape[-1]),
        stimulus=stimulus,
    )
