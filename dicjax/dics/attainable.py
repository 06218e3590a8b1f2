"""What dynamic input conductances a model can have at all."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from dicjax._core import check_targets, described, on_host
from dicjax.dics.compensation import Bounds, nearest_reachable
from dicjax.dics.conductances import dynamic_input_conductances
from dicjax.dics.sampling import least_conductances, sample, with_bounds
from dicjax.neurons import Neuron


NUM_STARTS = 64  # from which the nearest reachable point is looked for
CLOSE = 0.01  # distance of DICs that counts as reached


class Reach(eqx.Module):
    """The point nearest to a target that a model can reach.

    - `target`: as asked for; `dics`: (g_f, g_s, g_u) of the nearest point.
    - `distance`: between them, over what the target names.
    - `g`: conductances (mS/cm²) of a member there.
    - `at_bounds`: names of the channels that are at a bound.
    - `V`: the potential, in mV.
    """

    target: Float[np.ndarray, " dics"]
    dics: Float[np.ndarray, " 3"]
    distance: float
    g: Float[np.ndarray, " channels"]
    at_bounds: tuple[str, ...]
    V: float
    model: str

    @property
    def reachable(self) -> bool:
        """Whether the target itself can be reached."""
        return self.distance <= CLOSE

    def __repr__(self) -> str:
        return described(self, self.__str__)

    def __str__(self) -> str:
        show = lambda x: "(" + ", ".join(f"{v:.4g}" for v in x) + ")"
        names = ("g_f", "g_s", "g_u")[3 - len(self.target) :]
        what = f"({', '.join(names)}) = {show(self.target)} at {self.V:g} mV"
        if self.reachable:
            return f"{what} is within reach of {self.model}."
        return (
            f"{what} is out of reach of {self.model}: the nearest point is "
            f"{show(self.dics[3 - len(self.target) :])}, a distance of "
            f"{self.distance:.3g} away, at the bounds of {', '.join(self.at_bounds)}."
        )


@on_host()
def reach(
    neuron: Neuron,
    target: Float[np.ndarray, " dics"] | Sequence[float],
    *,
    V: float | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Reach:
    """Whether a model can have given DICs at all, and how near it comes if not.

    All conductances move within their bounds, from many starts.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `target`: (g_s, g_u), or (g_f, g_s, g_u).
    - `V`: the potential, in mV; `neuron.V_ref` if not given.
    - `bounds`: (lowest, highest) conductance by channel, in mS/cm². By default from
        zero to as large as a search lets them get; a leak that DICs are divided by,
        from the least that the recipe draws, since without it any DIC could be had.

    **Returns:**

    A [`dicjax.Reach`][]; printed, it is a sentence.

    **Raises:**

    - `ValueError`: if the target is not two or three finite numbers, or bounds are bad.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    rows = check_targets(target, 1, 1)
    dtype = jnp.zeros(()).dtype
    neuron = neuron.with_dtype(dtype)
    least, most = least_conductances(neuron), neuron.bounds
    if isinstance(neuron.normaliser, str):
        leak = list(neuron.index(neuron.normaliser))
        least[leak] = np.maximum(least[leak], 0.05 * most[leak])
    low, high = with_bounds(neuron, bounds, least, most)
    limits = Bounds(jnp.asarray(low, dtype), jnp.asarray(high, dtype))
    starts = sample(jr.key(0), neuron, NUM_STARTS, dtype=dtype)
    V = float(neuron.V_ref) if V is None else V
    wanted = jnp.asarray(rows[0, 0], dtype)
    g, distance = _nearest(neuron, starts, jnp.asarray(V, dtype), wanted, limits)
    best = int(jnp.argmin(distance))
    g = np.asarray(g[best])
    low, high = np.asarray(limits.low), np.asarray(limits.high)
    at_bound = np.minimum(g - low, high - g) <= 1e-6 * (high - low)
    return Reach(
        target=rows[0, 0],
        dics=np.asarray(dynamic_input_conductances(neuron, g, V)),
        distance=float(distance[best]),
        g=g,
        at_bounds=tuple(np.array(neuron.channel_names)[at_bound].tolist()),
        V=V,
        model=neuron.name,
    )


@eqx.filter_jit
def _nearest(neuron, starts, V, target, bounds):
    one = lambda g: nearest_reachable(neuron, g, V, target, bounds)
    return jax.vmap(one)(starts)
