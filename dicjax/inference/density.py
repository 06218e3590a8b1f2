r"""A density of the conductances that dynamic input conductances leave free.

Given what a train looks like and its (g_s, g_u), conductances follow one another: each
is distributed as a mixture of Gaussians whose weights, means and widths a network makes
of those before it. Coordinates are logits of shares of each conductance's bound, so
that no draw leaves its range; the two left out are solved for, so that every draw has
exactly the DICs that are given. It is an autoregressive flow whose transformations
are the distribution functions of mixtures.

??? cite "Reference"

    Papamakarios, Pavlakou & Murray (2017). *Masked autoregressive flow for density
    estimation.* NeurIPS; the mixtures are those of Bishop (1994), *Mixture density
    networks*.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from dicjax._core import AnyArray, fit_network, in_float32, Progress, strong
from dicjax.inference.config import DensityConfig
from dicjax.spikes import LABELS


Context = Float[Array, " context"]
Coordinates = Float[Array, " free"]
EDGE = 1e-4  # of a bound: what is nearer to 0 or to the bound counts as this near
NARROWEST = 0.02  # width of a Gaussian, of the spread of its coordinate


class Density(eqx.Module):
    """Draws free conductances of members that fire in a given way.

    - `free`: positions in `g` of the conductances drawn; `solved`: of the other two.
    - `bounds`: of every conductance, in mS/cm².
    - `center`, `scale`: of the coordinates; `context_center`, `context_scale`: of what
        they are conditioned on; `start`: where solving for the others starts.
    """

    trunk: eqx.nn.Linear
    first: tuple[eqx.nn.Linear, ...]
    second: tuple[eqx.nn.Linear, ...]
    mixture: tuple[eqx.nn.Linear, ...]
    bounds: Float[Array, " channels"] = eqx.field(converter=strong)
    start: Float[Array, " channels"] = eqx.field(converter=strong)
    center: Float[Array, " free"] = eqx.field(converter=strong)
    scale: Float[Array, " free"] = eqx.field(converter=strong)
    context_center: Float[Array, " context"] = eqx.field(converter=strong)
    context_scale: Float[Array, " context"] = eqx.field(converter=strong)
    free: tuple[int, ...] = eqx.field(static=True)
    config: DensityConfig = eqx.field(static=True)

    def __init__(
        self,
        config: DensityConfig,
        free: tuple[int, ...],
        num_channels: int,
        num_context: int,
        *,
        key: Key[Array, ""],
    ):
        keys = iter(jr.split(key, 1 + 3 * len(free)))
        width, size = config.width, 3 * config.num_components
        linear = lambda *sizes: eqx.nn.Linear(*sizes, key=next(keys))
        self.trunk = linear(num_context, width)
        self.first = tuple(linear(width + i, width) for i in range(len(free)))
        self.second = tuple(linear(width, width) for _ in free)
        self.mixture = tuple(linear(width, size) for _ in free)
        self.free, self.config = free, config
        self.bounds = self.start = strong(np.ones(num_channels))
        self.center = strong(np.zeros(len(free)))
        self.scale = strong(np.ones(len(free)))
        self.context_center = strong(np.zeros(num_context))
        self.context_scale = strong(np.ones(num_context))

    def log_prob(self, z: Coordinates, context: Context) -> Float[Array, ""]:
        """Log density of scaled coordinates, given a scaled context."""
        h = jax.nn.silu(self.trunk(context))
        total = jnp.zeros((), z.dtype)
        for i in range(len(self.free)):
            weights, means, widths = self._mixture(i, h, z[:i])
            x = (z[i] - means) / widths
            each = weights - jnp.log(widths) - 0.5 * x**2
            log_2pi = jnp.log(2 * jnp.pi).astype(z.dtype)
            total += jax.scipy.special.logsumexp(each) - 0.5 * log_2pi
        return total

    def draw(self, key: Key[Array, ""], context: Context) -> Coordinates:
        """Draws scaled coordinates, given a scaled context."""
        h = jax.nn.silu(self.trunk(context))
        z = jnp.zeros(0, h.dtype)
        for i in range(len(self.free)):
            which, normal = jr.split(jr.fold_in(key, i))
            weights, means, widths = self._mixture(i, h, z)
            j = jr.categorical(which, weights)
            new = means[j] + widths[j] * jr.normal(normal, (), h.dtype)
            z = jnp.append(z, new)
        return z

    def _mixture(self, i, h, before):
        x = jax.nn.silu(self.first[i](jnp.concatenate([h, before])))
        x = jax.nn.silu(self.second[i](x))
        weights, means, widths = jnp.split(self.mixture[i](x), 3)
        start = jnp.linspace(-1.5, 1.5, len(means), dtype=x.dtype)
        widths = NARROWEST + jax.nn.softplus(widths)
        return jax.nn.log_softmax(weights), means + start, widths

    def coordinates(
        self, g: Float[Array, "cells channels"]
    ) -> Float[Array, "cells free"]:
        """Scaled coordinates of the free conductances of cells."""
        free = jnp.array(self.free)
        share = jnp.clip(g[:, free] / self.bounds[free][None], EDGE, 1 - EDGE)
        z = jnp.log(share) - jnp.log1p(-share)
        return (z - self.center[None]) / self.scale[None]

    def conductances(
        self, z: Float[Array, "cells free"]
    ) -> Float[Array, "cells channels"]:
        """Cells of these coordinates; those to be solved for are at their start."""
        free = jnp.array(self.free)
        share = jax.nn.sigmoid(z * self.scale[None] + self.center[None])
        # What counted as at its edge was as good as none.
        share = jnp.where(share < 2 * EDGE, 0, share)
        g = jnp.broadcast_to(self.start, (len(z), len(self.start)))
        return g.at[:, free].set(share * self.bounds[free][None])


def contexts(
    latent: Float[np.ndarray, "cells latent"],
    features: Float[AnyArray, "cells 7"],
    labels: Int[AnyArray, " cells"],
    dics: Float[AnyArray, "cells 2"],
) -> Float[np.ndarray, "cells context"]:
    """What conductances are conditioned on: the encoder's summary of a train, its
    features (logarithms) and pattern as they are measured, and (g_s, g_u)."""
    known = np.isfinite(features)
    pattern = np.eye(len(LABELS))[np.asarray(labels)]
    rows = (latent, np.where(known, features, 0), known, pattern, dics)
    return np.concatenate(rows, axis=1).astype(np.float32)


@eqx.filter_jit
def sample_density(
    density: Density, key: Key[Array, ""], context: Float[Array, "cells context"]
) -> Float[Array, "cells channels"]:
    """Draws one cell per row of (unscaled) contexts."""
    scaled = (context - density.context_center[None]) / density.context_scale[None]
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(len(context)))
    return density.conductances(jax.vmap(density.draw)(keys, scaled))


def train_density(
    key: Key[Array, ""],
    g: Float[np.ndarray, "cells channels"],
    context: Float[np.ndarray, "cells context"],
    weights: Float[np.ndarray, " cells"],
    bounds: Float[np.ndarray, " channels"],
    solved: tuple[int, int],
    config: DensityConfig,
    *,
    on_progress: Progress | None = None,
) -> tuple[Density, float]:
    """Fits a density to members and what is known of their trains.

    `context` has rows of `contexts`. `weights` says how often each member is drawn, and
    `solved` which two conductances are left out. With the density comes its mean log
    density per member, on a tenth kept apart.
    """
    free = tuple(i for i in range(g.shape[1]) if i not in solved)
    density = Density(config, free, g.shape[1], context.shape[1], key=key)
    density = _scaled(density, g, context, bounds)
    z = np.asarray(density.coordinates(jnp.asarray(g, jnp.float32)))
    center, scale = map(np.asarray, (density.context_center, density.context_scale))
    context = (context - center) / scale
    apart = np.arange(len(z)) % 10 == 0
    density = fit_network(
        density,
        _fixed,
        _mean_loss,
        (z[~apart], context[~apart]),
        weights[~apart],
        config,
        on_progress=on_progress,
    )
    rows = np.flatnonzero(apart)[:4096]
    return density, -float(eqx.filter_jit(_mean_loss)(density, z[rows], context[rows]))


def _scaled(density, g, context, bounds):
    start = np.exp(np.mean(np.log(np.maximum(g, EDGE * bounds)), axis=0))
    center, spread = context.mean(axis=0), np.maximum(context.std(axis=0), 1e-3)
    measured = tuple(jnp.asarray(x) for x in (bounds, start, center, spread))
    density = in_float32(eqx.tree_at(lambda d: _fixed(d)[:4], density, measured))
    z = np.asarray(density.coordinates(jnp.asarray(g, jnp.float32)))
    center, spread = z.mean(axis=0), np.maximum(z.std(axis=0), 1e-3)
    measured = jnp.asarray(center), jnp.asarray(spread)
    return eqx.tree_at(lambda d: _fixed(d)[4:], density, measured)


def _fixed(d: Density):
    return d.bounds, d.start, d.context_center, d.context_scale, d.center, d.scale


def _mean_loss(density, z, context):
    return -jnp.mean(jax.vmap(density.log_prob)(z, context))
