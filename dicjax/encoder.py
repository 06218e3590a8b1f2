"""The attention encoder: a spike train in, a posterior over its DICs out.

It sees arrays only: spike times (ms) padded with infinity, and for a model the range
of (g_s, g_u) it was trained on.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from dicjax.config import EncoderConfig
from dicjax.gating import strong
from dicjax.spikes import LABELS


NUM_FEATURES = 4  # mean ISI, period, intra-burst ISI, spikes per burst; logarithms
NUM_DRAWS = 4096  # by which means and regions are computed
MARGIN = 0.05  # of the range of DICs, added on either side


def tokens(
    spike_times: Float[Array, " spikes"],
) -> tuple[Float[Array, "intervals 2"], Bool[Array, " intervals"]]:
    """Logarithms of a train's intervals and their changes, and which are there."""
    known = jnp.isfinite(spike_times[1:])
    times = jnp.where(jnp.isfinite(spike_times), spike_times, 0)
    # Jitter may swap two spikes: an interval is read as its size.
    isi = jnp.where(known, jnp.abs(jnp.diff(times)), 0)
    log_isi = jnp.log1p(isi)
    both = jnp.concatenate([jnp.zeros(1, bool), known[1:] & known[:-1]])
    change = jnp.diff(log_isi, prepend=log_isi[:1])
    return jnp.stack([log_isi, jnp.where(both, change, 0)], axis=-1), known


class Block(eqx.Module):
    """Self-attention and a two-layer network, each on normalised input and added."""

    norm_attention: eqx.nn.LayerNorm
    query_key_value: eqx.nn.Linear
    output: eqx.nn.Linear
    norm_mlp: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, *, key: Key[Array, ""]):
        keys = jr.split(key, 4)
        self.norm_attention = eqx.nn.LayerNorm(width)
        self.query_key_value = eqx.nn.Linear(width, 3 * width, key=keys[0])
        self.output = eqx.nn.Linear(width, width, key=keys[1])
        self.norm_mlp = eqx.nn.LayerNorm(width)
        self.up = eqx.nn.Linear(width, 2 * width, key=keys[2])
        self.down = eqx.nn.Linear(2 * width, width, key=keys[3])
        self.num_heads = num_heads

    def __call__(
        self, x: Float[Array, "spikes width"], known: Bool[Array, " spikes"]
    ) -> Float[Array, "spikes width"]:
        """Updates every token of one train."""
        h = jax.vmap(self.norm_attention)(x)
        qkv = jax.vmap(self.query_key_value)(h)
        q, k, v = jnp.split(qkv.reshape(len(x), self.num_heads, -1), 3, axis=-1)
        attended = jax.nn.dot_product_attention(q, k, v, mask=known[None, None, :])
        x = x + jax.vmap(self.output)(attended.reshape(len(x), -1))
        h = jax.vmap(self.norm_mlp)(x)
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(h)))


class Reading(eqx.Module):
    """What the encoder says of one train, before it is read as a posterior."""

    weights: Float[Array, "*cells components"]  # logarithms
    means: Float[Array, "*cells components 2"]
    factors: Float[Array, "*cells components 2 2"]  # Cholesky factors
    labels: Float[Array, "*cells 4"]  # logits
    features: Float[Array, "*cells 4"]  # logarithms
    latent: Float[Array, "*cells latent"]


class Encoder(eqx.Module):
    """Attention over intervals, attention pooling, and heads.

    - `low`, `high`: the range of (g_s, g_u) that posteriors live on.
    - `center`, `scale`: of the tokens, so that what attention sees is of order one.
    """

    embed: eqx.nn.Linear
    blocks: tuple[Block, ...]
    pool: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    to_latent: eqx.nn.Linear
    hidden: eqx.nn.Linear
    posterior: eqx.nn.Linear
    labels: eqx.nn.Linear
    features: eqx.nn.Linear
    low: Float[Array, " 2"] = eqx.field(converter=strong)
    high: Float[Array, " 2"] = eqx.field(converter=strong)
    center: Float[Array, " 2"] = eqx.field(converter=strong)
    scale: Float[Array, " 2"] = eqx.field(converter=strong)
    config: EncoderConfig = eqx.field(static=True)

    def __init__(
        self,
        config: EncoderConfig,
        g_s: tuple[float, float],
        g_u: tuple[float, float],
        center=(4.0, 0.0),
        scale=(1.5, 1.5),
        *,
        key: Key[Array, ""],
    ):
        keys = jr.split(key, 7)
        width, latent = config.width, config.latent
        self.embed = eqx.nn.Linear(2, width, key=keys[0])
        self.blocks = tuple(
            Block(width, config.num_heads, key=k)
            for k in jr.split(keys[1], config.num_blocks)
        )
        self.pool = eqx.nn.Linear(width, config.num_heads, key=keys[2])
        self.norm = eqx.nn.LayerNorm(config.num_heads * width)
        self.to_latent = eqx.nn.Linear(config.num_heads * width, latent, key=keys[3])
        self.hidden = eqx.nn.Linear(latent, width, key=keys[4])
        self.posterior = eqx.nn.Linear(width, 6 * config.num_components, key=keys[5])
        self.labels = eqx.nn.Linear(latent, len(LABELS), key=keys[6])
        self.features = eqx.nn.Linear(latent, NUM_FEATURES, key=jr.fold_in(key, 7))
        ranges = np.array([g_s, g_u])
        margin = MARGIN * (ranges[:, 1] - ranges[:, 0])
        self.low = strong(ranges[:, 0] - margin)
        self.high = strong(ranges[:, 1] + margin)
        self.center, self.scale = center, scale
        self.config = config

    def __call__(self, spike_times: Float[Array, " spikes"]) -> Reading:
        """Reads one train of at most `config.max_spikes` spikes."""
        x, known = tokens(spike_times)
        x = jax.vmap(self.embed)((x - self.center[None]) / self.scale[None])
        x = x + _positions(len(x), self.config.width).astype(x.dtype)
        for block in self.blocks:
            x = block(x, known)
        scores = jax.vmap(self.pool)(x)
        scores = jnp.where(known[:, None], scores, -jnp.inf)
        # A train without intervals has nothing to attend to: weigh all alike.
        scores = jnp.where(known.any(), scores, 0)
        pooled = jax.nn.softmax(scores, axis=0).T @ x
        latent = self.to_latent(self.norm(pooled.reshape(-1)))
        weights, means, factors = self._mixture(latent)
        return Reading(
            weights=weights,
            means=means,
            factors=factors,
            labels=self.labels(latent),
            features=self.features(latent),
            latent=latent,
        )

    def _mixture(self, latent):
        raw = self.posterior(jax.nn.gelu(self.hidden(latent)))
        raw = raw.reshape(self.config.num_components, 6)
        # Spread-out starts, so that components do not learn the same thing.
        start = jnp.linspace(-1.5, 1.5, len(raw), dtype=raw.dtype)
        means = raw[:, 1:3] + jnp.stack([start, jnp.zeros_like(start)], axis=-1)
        a, b = (0.02 + jax.nn.softplus(raw[:, i]) for i in (3, 4))
        rows = [jnp.stack([a, jnp.zeros_like(a)], -1), jnp.stack([raw[:, 5], b], -1)]
        return jax.nn.log_softmax(raw[:, 0]), means, jnp.stack(rows, axis=-2)


def _positions(length: int, width: int) -> Float[Array, "spikes width"]:
    rates = np.exp(-np.log(1000.0) * np.arange(width // 2) / (width // 2))
    angles = np.arange(length)[:, None] * rates[None]
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


class Posterior(eqx.Module):
    """A posterior over (g_s, g_u) for each of several trains.

    A mixture of Gaussians with full covariance in the logits of the range `low` to
    `high`, so that no draw falls outside of what the encoder was trained on.

    - `ranks`: calibration; the share of held-out truths that lie in a region of each
        nominal level, from which regions take the level that covers what it says.
    - `distance`: how far (as a factor in a feature) the train is from those the encoder
        was trained on; nan where that was not asked.
    """

    weights: Float[Array, "cells components"]
    means: Float[Array, "cells components 2"]
    factors: Float[Array, "cells components 2 2"]
    low: Float[Array, " 2"]
    high: Float[Array, " 2"]
    ranks: Float[Array, " levels"]
    distance: Float[np.ndarray, " cells"] | None = None
    max_distance: float = eqx.field(static=True, default=float("inf"))

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "cells {num} 2"]:
        """Draws `num` pairs (g_s, g_u) for every train."""
        return _sample(self, key, num)

    def log_prob(self, dics: Float[ArrayLike, "cells points 2"]) -> Array:
        """Log density at `dics`, per unit of g_s and g_u."""
        return _log_prob(self, jnp.asarray(dics))

    @property
    def mean(self) -> Float[Array, "cells 2"]:
        """The posterior mean of (g_s, g_u)."""
        return jnp.mean(self.sample(jr.key(0), NUM_DRAWS), axis=1)

    def interval(self, level: float = 0.9) -> Float[Array, "cells 2 2"]:
        """Central intervals of g_s and of g_u, each holding `level` of the draws."""
        draws = self.sample(jr.key(0), NUM_DRAWS)
        edges = jnp.array([(1 - level) / 2, (1 + level) / 2], draws.dtype)
        return jnp.moveaxis(jnp.quantile(draws, edges, axis=1), 0, -1)

    def region(self, level: float = 0.9) -> "Region":
        """The calibrated region of highest density that covers `level` of truths."""
        ranks = jnp.asarray(self.ranks)
        grid = jnp.linspace(0, 1, len(ranks), dtype=ranks.dtype)
        nominal = jnp.interp(jnp.asarray(level, ranks.dtype), ranks, grid)
        draws = self.sample(jr.key(0), NUM_DRAWS)
        densities = self.log_prob(draws)
        floor = jnp.quantile(densities, 1 - nominal.astype(densities.dtype), axis=1)
        return Region(self, floor)

    @property
    def in_distribution(self) -> Bool[np.ndarray, " cells"]:
        """Whether each train resembles what the encoder was trained on."""
        if self.distance is None:
            return np.ones(len(self.weights), bool)
        return np.asarray(self.distance) <= self.max_distance


class Region(eqx.Module):
    """Where a posterior is at least as dense as `floor` (its logarithm)."""

    posterior: Posterior
    floor: Float[Array, " cells"]

    def contains(self, dics: Float[ArrayLike, "cells 2"]) -> Bool[Array, " cells"]:
        """Whether the region of each train holds its (g_s, g_u)."""
        dics = jnp.asarray(dics, self.floor.dtype)
        inside = self.posterior.log_prob(dics[:, None])[:, 0]
        return inside >= self.floor


@eqx.filter_jit
def _sample(posterior, key, num):
    def one(key, weights, means, factors):
        which, normal = jr.split(key)
        component = jr.categorical(which, weights, shape=(num,))
        noise = jr.normal(normal, (num, 2), means.dtype)
        return means[component] + jnp.einsum("nij,nj->ni", factors[component], noise)

    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(len(posterior.weights)))
    u = jax.vmap(one)(keys, posterior.weights, posterior.means, posterior.factors)
    low, high = posterior.low[None, None], posterior.high[None, None]
    return low + (high - low) * jax.nn.sigmoid(u)


@eqx.filter_jit
def _log_prob(posterior, dics):
    def one(weights, means, factors, dics):
        share = (dics - posterior.low[None]) / (posterior.high - posterior.low)[None]
        inside = ((share > 0) & (share < 1)).all(axis=-1)
        share = jnp.clip(share, 1e-6, 1 - 1e-6)
        u = jnp.log(share) - jnp.log1p(-share)
        width = (posterior.high - posterior.low)[None]
        log_slope = jnp.sum(jnp.log(share * (1 - share) * width), axis=-1)
        density = jax.vmap(lambda u: mixture_log_prob(weights, means, factors, u))(u)
        return jnp.where(inside, density - log_slope, -jnp.inf)

    return jax.vmap(one)(posterior.weights, posterior.means, posterior.factors, dics)


def mixture_log_prob(
    weights: Float[Array, " components"],
    means: Float[Array, "components 2"],
    factors: Float[Array, "components 2 2"],
    u: Float[Array, " 2"],
) -> Float[Array, ""]:
    """Log density of a mixture of Gaussians given by Cholesky factors."""
    # Forward substitution by hand: the factors are 2 x 2 and lower triangular.
    d = u[None] - means
    x = d[:, 0] / factors[:, 0, 0]
    y = (d[:, 1] - factors[:, 1, 0] * x) / factors[:, 1, 1]
    log_det = jnp.log(factors[:, 0, 0]) + jnp.log(factors[:, 1, 1])
    each = weights - log_det - 0.5 * (x**2 + y**2) - jnp.log(2 * jnp.pi).astype(u.dtype)
    return jax.scipy.special.logsumexp(each)


@eqx.filter_jit
def read(encoder: Encoder, spike_times: Float[Array, "cells spikes"]) -> Reading:
    """Reads a batch of trains no longer than the encoder's limit."""
    return jax.vmap(encoder)(spike_times)


def windows(
    times: Float[np.ndarray, " spikes"], config: EncoderConfig
) -> Float[np.ndarray, "windows read"]:
    """Evenly spaced stretches of a train, each short enough to be read at once."""
    length = config.max_spikes
    starts = np.linspace(0, max(0, len(times) - length), config.num_windows)
    rows = np.full((config.num_windows, length), np.inf, np.float32)
    for row, start in zip(rows, starts.astype(int), strict=True):
        stretch = times[start : start + length]
        row[: len(stretch)] = stretch - stretch[0] if len(stretch) else stretch
    return rows


def infer_dics(
    encoder: Encoder,
    trains: list[Float[np.ndarray, " spikes"]],
    ranks: Float[np.ndarray, " levels"],
) -> Posterior:
    """Posteriors over (g_s, g_u) of several trains (ms), whatever their lengths.

    A train longer than the encoder reads at once is read in windows, whose posteriors
    are averaged: stretches of one neuron's train do not count as independent evidence.
    """
    stacked = np.concatenate([windows(times, encoder.config) for times in trains])
    reading = read(encoder, jnp.asarray(stacked))
    num, count = len(trains), encoder.config.num_windows
    pool = lambda x: x.reshape(num, -1, *x.shape[2:])
    return Posterior(
        weights=pool(reading.weights) - np.log(count).astype(np.float32),
        means=pool(reading.means),
        factors=pool(reading.factors),
        low=encoder.low,
        high=encoder.high,
        ranks=jnp.asarray(ranks, encoder.low.dtype),
    )
