"""Cells that differ in conductances, kinetics, stimuli or starts, side by side."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dicjax._core import cast_floats
from dicjax.neurons import by_member, member_shape, Neuron
from dicjax.simulation.stimulus import AbstractStimulus, cell_shape, per_cell
from dicjax.spikes import AnyArray


class Cells(NamedTuple):
    """Cells in a row, and the axes that they came in.

    All numbers have the type of `g`. Numbers of the neuron and of the stimulus have an
    axis of cells where these differ.
    """

    shape: tuple[int, ...]
    neuron: Neuron
    g: Float[AnyArray, "cells channels"]
    stimulus: AbstractStimulus | None


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
