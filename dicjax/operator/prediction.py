"""Applying a neural operator: currents and features in, potentials out."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from dicjax._core import described, is_traced, untraced
from dicjax.operator.characteristics import are_logarithms, to_coordinates
from dicjax.operator.model import follow, Memory, Operator


SLOWEST_SAMPLING = 1.0  # ms; what is longer is probably not in ms
MARGIN = 0.5  # standard deviations beyond the library that are still let pass


class Response(eqx.Module):
    """What an operator answers.

    - `V`: potentials (mV) at the start of every sample of the current.
    - `memory`: where it stopped; continue from there with `respond(..., memory=...)`.
    """

    V: Float[Array, "*cells samples"]
    memory: Memory

    def __repr__(self) -> str:
        return described(self)


@untraced("every")
def respond(
    operator: Operator,
    current: Float[ArrayLike, "*#cells samples"],
    features: Float[ArrayLike, "*#cells features"],
    *,
    every: float,
    memory: Memory | None = None,
    out_of_range: Literal["refuse", "try"] = "refuse",
) -> Response:
    """The potential of neurons that receive a current.

    The current may have any shape and length. The potential never depends on
    the future of the current. Responses can be differentiated by features and currents.

    **Arguments:**

    - `operator`: of [`dicjax.load_operator`][].
    - `current`: in µA/cm², constant for `every` ms from each sample on. One row per
        neuron, or one for all.
    - `features`: of every neuron, ordered as `operator.names` and in their units;
        [`dicjax.draw_ensemble`][] draws what was not measured.
    - `every`: ms between samples, at most 1.
    - `memory`: where an earlier response stopped; at rest if not given.
    - `out_of_range`: what to do with features outside the range of the family.

    **Raises:**

    - `ValueError`: if currents or features are not finite, if features lie outside of
        what the operator was trained on, or if shapes or `every` do not make sense.
    - `TypeError`: if `every` is traced.
    """
    every = float(every)
    # The operator sets the precision of the computation.
    dtype = operator.library.dtype
    current = jnp.asarray(current).astype(dtype)
    features = jnp.asarray(features).astype(dtype)
    _check_current(current, every)
    _check_features(operator, features, out_of_range)
    cells = np.broadcast_shapes(current.shape[:-1], features.shape[:-1])
    if memory is not None and memory.V.shape != cells:
        raise ValueError(
            f"`memory` is of cells of shape {memory.V.shape}, but current and features "
            f"are of {cells}: continue with the same neurons."
        )
    return _respond(operator, current, features, every, memory)


@eqx.filter_jit
def _respond(operator, current, features, every, memory):
    cells = np.broadcast_shapes(current.shape[:-1], features.shape[:-1])
    a = operator.amplitudes(to_coordinates(features, operator.names))
    if memory is None:
        rest = features[..., operator.names.index("rest")]
        memory = operator.start(rest, a)

    flat = lambda x, *kept: jnp.broadcast_to(x, (*cells, *kept)).reshape(-1, *kept)
    num_samples, num_units = current.shape[-1], memory.units.shape[-1]
    memory = Memory(flat(memory.V), flat(memory.units, num_units), flat(memory.Ca))
    num_steps = math.ceil(every / operator.step - 1e-9)
    h = jnp.asarray(every / num_steps, current.dtype)
    I = flat(current, num_samples).T
    memory, V = follow(operator, flat(a, a.shape[-1]), memory, I, h, num_steps)
    back = lambda x: x.reshape(*cells, *x.shape[1:])
    return Response(back(V), jax.tree.map(back, memory))


def sampled_step(
    amplitude: float | Float[np.ndarray, "cells 1"],
    start: float,
    stop: float,
    num: int,
    every: float,
) -> Float[np.ndarray, "*cells samples"]:
    """A current (µA/cm²) of `num` samples that is on from `start` to `stop` (ms)."""
    ts = every * np.arange(num)
    on = (ts >= start - 1e-6) & (ts < stop - 1e-6)
    return (amplitude * on).astype(np.float32)


def _check_current(current: Array, every: float) -> None:
    if current.ndim == 0 or current.shape[-1] < 2:
        needed = "`current` needs at least two samples to answer to"
        raise ValueError(f"{needed}, got shape {current.shape}.")
    if not 0 < every <= SLOWEST_SAMPLING:
        raise ValueError(
            f"`every` must be the ms between samples, above 0 and at most "
            f"{SLOWEST_SAMPLING:g}, got {every}: sample the current more finely, or "
            "give its step in ms."
        )
    if is_traced(current):
        return
    bad = np.argwhere(~np.isfinite(np.asarray(current)))
    if len(bad):
        raise ValueError(
            "`current` must be finite, but sample "
            f"{tuple(int(i) for i in bad[0])} is not ({len(bad)} such in all): cut it "
            "out or fill it in."
        )


def _check_features(operator: Operator, features: Array, out_of_range: str) -> None:
    names = operator.names
    if features.ndim == 0 or features.shape[-1] != len(names):
        raise ValueError(
            f"`features` must have a last axis of {len(names)}, {', '.join(names)}, "
            f"got shape {features.shape}."
        )
    if is_traced((features, operator.library)):
        return
    flat = np.asarray(features).reshape(-1, len(names))
    missing = np.argwhere(~np.isfinite(flat))
    if len(missing):
        cell, i = missing[0]
        raise ValueError(
            f"`features` must be known, but {names[i]} of neuron {cell} is "
            f"{flat[cell, i]}: draw it from what is with `dicjax.draw_ensemble`."
        )
    if out_of_range == "try":
        return
    low, high = feature_ranges(operator)
    outside = np.argwhere((flat < low) | (flat > high))
    if len(outside):
        cell, i = outside[0]
        raise ValueError(
            f"{names[i]} of neuron {cell} is {flat[cell, i]:.4g}, but the operator "
            f"{operator.family!r} knows {low[i]:.4g} to {high[i]:.4g} only "
            f"({len(outside)} such values in all): check units, train an operator of "
            'another family, or pass `out_of_range="try"`.'
        )


def feature_ranges(operator: Operator) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest features that are answered for, in their units."""
    library = np.asarray(operator.library)
    margin = MARGIN * library.std(axis=0)
    edges = np.stack([library.min(axis=0) - margin, library.max(axis=0) + margin])
    # By NumPy, so that nothing is traced where a caller compiles.
    is_log = np.array(are_logarithms(operator.names))
    edges[:, is_log] = np.exp(edges[:, is_log])
    low, high = edges
    return low, high
