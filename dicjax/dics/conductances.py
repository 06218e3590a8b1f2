r"""Dynamic input conductances (DICs), the threshold, and their sensitivities.

Held at $V$, each variable of a neuron adds its share to the slope of the steady-state
current: $\partial I/\partial x \cdot dx_\infty/dV$. Its time constant says on which
timescale, fast, slow or ultraslow, that share is felt. All of it comes by automatic
differentiation, so it holds for any declared neuron.

??? cite "Reference"

    Drion, Franci, Dethier & Sepulchre (2015). *Dynamic input conductances shape
    neuronal spiking.* eNeuro 2(1). Fyon, Franci, Sacré & Drion (2024). *Dimensionality
    reduction of neuronal degeneracy reveals two interfering physiological mechanisms.*
    PNAS Nexus 3(10).
"""

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from dicjax._core import described, HasConductances, jax_conductances_of, Scalar
from dicjax.neurons import Neuron, root


CalciumWeight = Literal["time_constant", "ultraslow"]

THRESHOLD_STATUS = ("ok", "none", "starts negative")
LOWEST, HIGHEST, SPACING = -80.0, 0.0, 0.5  # mV scanned for a threshold


def dynamic_input_conductances(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    V: Float[ArrayLike, "*#cells"] | float,
    *,
    calcium_weight: CalciumWeight = "time_constant",
) -> Float[Array, "*cells 3"]:
    """The fast, slow and ultraslow input conductances of every cell at `V`.

    They sum to the slope of the steady-state I-V curve, in units of the neuron's
    normaliser (its leak, unless the model says otherwise).

    **Arguments:**

    - `neuron`: the model.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.
    - `V`: potentials, in mV, one or one per cell.
    - `calcium_weight`: whether what acts through calcium is weighted by calcium's time
        constant (Brandoit 2025) or counted as ultraslow (Fyon 2024).

    **Returns:**

    DICs in the order (fast, slow, ultraslow), dimensionless.

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron`.
    """
    g = jax_conductances_of(neuron, g)
    V = jnp.broadcast_to(jnp.asarray(V, g.dtype), g.shape[:-1])
    neuron, flat = neuron.with_dtype(g.dtype), g.reshape(-1, g.shape[-1])
    dics = _dics(neuron, flat, V.reshape(-1), calcium_weight)
    return dics.reshape(*g.shape[:-1], 3)


def sensitivity(
    neuron: Neuron,
    g: Float[Array, " channels"],
    V: Scalar,
    *,
    calcium_weight: CalciumWeight = "time_constant",
) -> Float[Array, "3 channels"]:
    """What one mS/cm² of each channel adds to each input conductance of one cell.

    `sensitivity(...) @ g` are the DICs before normalisation. The matrix depends on `g`
    only through steady-state calcium.

    **Arguments:**

    - `neuron`: the model.
    - `g`: maximal conductances of one cell, in mS/cm², ordered as
        `neuron.channel_names`; to be mapped over many by `jax.vmap`.
    - `V`: the potential, in mV.
    - `calcium_weight`: as in [`dicjax.dynamic_input_conductances`][].

    **Returns:**

    A row each for the fast, the slow and the ultraslow input conductance, a column for
    every channel; dimensionless.
    """
    slopes, weights = _slopes_and_weights(neuron, g, V, calcium_weight, total=False)
    return weights.T @ slopes


def dics_of_one_cell(
    neuron: Neuron,
    g: Float[Array, " channels"],
    V: Scalar,
    calcium_weight: CalciumWeight = "time_constant",
) -> Float[Array, " 3"]:
    """[`dicjax.dynamic_input_conductances`][] of one cell, unchecked, to compose."""
    slopes, weights = _slopes_and_weights(neuron, g, V, calcium_weight, total=True)
    return slopes @ weights / normaliser(neuron, g)


def normaliser(neuron: Neuron, g: Float[Array, " channels"]) -> Scalar:
    """The conductance (mS/cm²) that DICs of one cell are divided by."""
    if isinstance(neuron.normaliser, str):
        return g[neuron.index(neuron.normaliser)[0]]
    return jnp.asarray(neuron.normaliser, g.dtype)


@eqx.filter_jit
def _dics(neuron, g, V, calcium_weight):
    return jax.vmap(lambda g, V: dics_of_one_cell(neuron, g, V, calcium_weight))(g, V)


def _slopes_and_weights(neuron, g, V, calcium_weight, *, total):
    """Slopes through each variable, and how each is shared among the timescales.

    Rows are the potential itself, every gate or kinetic scheme, and calcium. Each sees
    its own copy of the potential, so that one differentiation separates them. With
    `total`, slopes of the whole current (rows,); else of every channel's unit current
    (rows, channels).
    """
    num_variables = sum(channel.num_variables for channel in neuron.channels)

    def currents(copies: Float[Array, " rows"]):
        V_instant, *V_variables, V_Ca = copies
        Ca = neuron.steady_calcium(V_Ca, g)
        own, gates = iter(V_variables), []
        for channel in neuron.channels:
            V_channel = tuple(itertools.islice(own, channel.num_variables))
            gates.extend(channel.steady_states(V_channel, Ca))
        unit = jnp.stack(neuron.unit_currents(V_instant, tuple(gates), Ca))
        return unit @ g if total else unit

    copies = jnp.full(num_variables + 2, V)
    slopes = jax.grad(currents)(copies) if total else jax.jacrev(currents)(copies).T
    return slopes, _timescale_weights(neuron, g, V, calcium_weight)


def _timescale_weights(neuron, g, V, calcium_weight) -> Float[Array, "rows 3"]:
    Ca = neuron.steady_calcium(V, g)
    fast, slow, *ultraslow = neuron.reference_time_constants(V, Ca)
    tau_Ca = jnp.full_like(V, jnp.inf)
    if neuron.calcium is not None and calcium_weight == "time_constant":
        (tau_Ca,) = neuron.slowed((neuron.calcium.time_constant,))
    tau = jnp.stack((jnp.zeros_like(V), *neuron.time_constants(V, Ca), tau_Ca))
    w_fs = _share_of_faster(tau, fast, slow)
    # Without a third timescale, all that is not fast is slow.
    w_su = _share_of_faster(tau, slow, *ultraslow) if ultraslow else jnp.ones_like(tau)
    return jnp.stack((w_fs, w_su - w_fs, 1 - w_su), axis=-1)


def _share_of_faster(tau, faster, slower):
    # Time constants of zero and infinity are clipped, for finite logarithms.
    tiny = jnp.finfo(tau.dtype).tiny
    log_tau = jnp.log(jnp.clip(tau, tiny, 1 / tiny))
    share = (jnp.log(slower) - log_tau) / (jnp.log(slower) - jnp.log(faster))
    return jnp.clip(share, 0, 1)


class Threshold(eqx.Module):
    """`V` in mV (nan where there is none) and `status`, an index into `names`."""

    V: Float[Array, "*cells"]
    status: Int[Array, "*cells"]
    names: tuple[str, ...] = eqx.field(static=True, default=THRESHOLD_STATUS)

    def __repr__(self) -> str:
        return described(self)


def threshold(
    neuron: Neuron, g: Float[ArrayLike, "*cells channels"] | HasConductances
) -> Threshold:
    """Each cell's own threshold: where its steady-state I-V curve first stops rising.

    The lowest potential between -80 and 0 mV at which the total input conductance
    falls through zero. Differentiable in `g` and in the biology, through the implicit
    function theorem.

    **Arguments:**

    - `neuron`: the model.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.

    **Returns:**

    A [`dicjax.Threshold`][]: "ok"; "none" where the slope never falls through zero;
    "starts negative" where it is already negative at -80 mV (`V` is then the next
    fall through zero, if any).

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron`.
    """
    g = jax_conductances_of(neuron, g)
    V, status = thresholds(neuron.with_dtype(g.dtype), g.reshape(-1, g.shape[-1]))
    return Threshold(V.reshape(g.shape[:-1]), status.reshape(g.shape[:-1]))


@eqx.filter_jit
def thresholds(
    neuron: Neuron, g: Float[Array, "cells channels"]
) -> tuple[Float[Array, " cells"], Int[Array, " cells"]]:
    """[`dicjax.threshold`][] of cells whose conductances may be anything."""
    one = lambda g: _threshold_of_one_cell(neuron, g)
    return jax.lax.map(one, g, batch_size=1024)  # the scan needs a grid per cell


def steady_state_slope(
    neuron: Neuron, g: Float[Array, " channels"], V: Scalar
) -> Scalar:
    """Slope of the steady-state I-V curve of one cell at `V`, in mS/cm²."""

    def steady_current(V: Scalar) -> Scalar:
        Ca = neuron.steady_calcium(V, g)
        return neuron.total_current(V, neuron.steady_gates(V, Ca), Ca, g)

    return jax.jvp(steady_current, (V,), (jnp.ones_like(V),))[1]


def _threshold_of_one_cell(neuron, g):
    slope = jax.jit(lambda V: steady_state_slope(neuron, g, V))  # traced once
    grid = jnp.arange(LOWEST, HIGHEST + SPACING, SPACING, dtype=g.dtype)
    slopes = jax.lax.stop_gradient(jax.vmap(slope)(grid))
    falls = (slopes[:-1] > 0) & (slopes[1:] <= 0)
    first = jnp.argmax(falls)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = jax.lax.stop_gradient(slope(middle)) > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, 12, halve, (grid[first], grid[first + 1]))
    # Where nothing falls through zero there is no root to polish: keep the guess.
    target = lambda V: jnp.where(falls.any(), slope(V), V - low)
    V = jnp.where(falls.any(), root(target, (low + high) / 2), jnp.nan)
    status = jnp.where(slopes[0] <= 0, 2, jnp.where(falls.any(), 0, 1))
    return V, status
