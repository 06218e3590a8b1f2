"""Which channels make the input conductances of a population what they are."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from dicjax._core import HasConductances, jax_conductances_of, listed, on_host, spread
from dicjax.dics import DICS, normaliser, sensitivity
from dicjax.neurons import Neuron


TIMESCALES = ("Fast", "Slow", "Ultraslow")
NEGLIGIBLE = 0.01  # of all that channels add and take away: not worth a word
NUM_NAMED = 3  # channels that a sentence names at most


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """Which channel contributes how much to each input conductance of each member.

    - `channel_names`: in the order of the last axis of `shares`.
    - `V`: the potential of each member that this is at, in mV.
    - `shares`: in units of the model's normaliser; they add up to the DICs. nan where
        `V` is, and where the normaliser is zero.
    """

    channel_names: tuple[str, ...]
    V: Float[np.ndarray, " cells"]
    shares: Float[np.ndarray, "cells 3 channels"]

    @property
    def dics(self) -> Float[np.ndarray, "cells 3"]:
        """(g_f, g_s, g_u) of every member."""
        return self.shares.sum(axis=-1)

    def quantiles(self, *levels: float) -> Float[np.ndarray, "levels 3 sums"]:
        """Quantiles over members of every share and, in the last column, of the DICs.

        Members without finite shares are left out.
        """
        rows = np.concatenate([self.shares, self.dics[..., None]], axis=-1)
        known = np.isfinite(rows).all(axis=(1, 2))
        if not known.any():
            raise ValueError(
                "No member has finite shares: give a potential at which one has, such "
                "as the model's `V_ref`, and members whose normaliser is not zero."
            )
        return np.quantile(rows[known], levels, axis=0)

    def __str__(self) -> str:
        quantiles = self.quantiles(0.5, 0.05, 0.95)
        known = self.V[np.isfinite(self.V)]
        low, high = known.min(), known.max()
        at = f"{low:g} mV" if low == high else f"{low:.1f} to {high:.1f} mV"
        lines = [f"Input conductances at {at}: medians (5 to 95 % of members)."]
        names = [f"{x}, {dic}" for x, dic in zip(TIMESCALES, DICS, strict=True)]
        for name, of_dic in zip(names, np.moveaxis(quantiles, 1, 0), strict=True):
            lines.append(_dic_in_words(name, self.channel_names, of_dic.T))
        return "\n".join(lines)


@on_host(
    "call it outside of them, and where JAX should trace or differentiate use "
    "`dicjax.sensitivity`"
)
def attribute(
    neuron: Neuron,
    g: Float[ArrayLike, "cells channels"] | HasConductances,
    V: Float[ArrayLike, "..."] | float | None = None,
) -> Attribution:
    r"""Divides the input conductances of every member among its channels.

    The share of channel $i$ in input conductance $k$ is $S_{ki}(V; g)\, g_i$ over the
    model's normaliser, with the sensitivity $S$ of the theory. Effects of calcium count
    for the channel that calcium opens, not for the one that carries it.

    **Arguments:**

    - `neuron`: the model.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.
    - `V`: potential, in mV: one for all or one per member, such as
        [`dicjax.threshold`][]`(neuron, g).V`, with nan where there is none. By default
        `neuron.V_ref`.

    **Raises:**

    - `ValueError`: if `g` does not match the channels of `neuron`, or `V` the members.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    g = np.asarray(jax_conductances_of(neuron, g))
    potentials = np.asarray(neuron.V_ref if V is None else V, g.dtype)
    if potentials.shape not in ((), g.shape[:-1]):
        raise ValueError(
            f"`V` must be one potential or one for each of {len(g)} members, got shape "
            f"{potentials.shape}."
        )
    is_nan = potentials.ndim == 0 and np.isnan(potentials)
    if is_nan or np.isinf(potentials).any():
        raise ValueError(f"`V` must be finite, in mV, got {V}.")
    V = np.broadcast_to(potentials, g.shape[:-1])
    shares = _shares(neuron.with_dtype(g.dtype), jnp.asarray(g), jnp.asarray(V))
    return Attribution(neuron.channel_names, np.array(V), np.asarray(shares))


@eqx.filter_jit
def _shares(neuron, g, V) -> Float[Array, "cells 3 channels"]:
    def one_cell(g: Float[Array, " channels"], V: Float[Array, ""]):
        unit = normaliser(neuron, g)
        return sensitivity(neuron, g, V) * g[None] / jnp.where(unit > 0, unit, jnp.nan)

    return jax.vmap(one_cell)(g, V)


def _dic_in_words(name, channels, quantiles) -> str:
    """A sentence about one DIC; rows are (median, 5 %, 95 %) of shares and the sum."""
    *shares, total = quantiles
    medians = np.array([share[0] for share in shares])
    sentence = f"{name} = {spread(*total)}"
    if not np.any(medians):
        return f"{sentence}: no channel contributes."
    most = int(np.argmax(np.abs(medians)))
    sentence += f". {channels[most]} contributes most, {spread(*shares[most])}; "
    limit = -NEGLIGIBLE * np.abs(medians).sum()
    negative = [int(i) for i in np.argsort(medians) if medians[i] < limit]
    # A conductance that stays positive is only held down.
    does = "makes it negative" if total[0] < 0 else "pulls it down"
    if not negative:
        return sentence + f"no channel {does}."
    if negative == [most]:
        return sentence + f"it is the only one that {does}."
    size = lambda i: f" {spread(*shares[i])}" if i != most else ""
    named = [channels[i] + size(i) for i in negative[:NUM_NAMED]]
    does = "made negative" if total[0] < 0 else "pulled down"
    return sentence + f"{does} by {listed(named)}."
