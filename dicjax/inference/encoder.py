"""The attention encoder: a spike train in, a posterior over its DICs out.

It sees arrays only: spike times (ms) padded with infinity, and for a model the ranges
of DICs it was trained on.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from dicjax._core import AnyArray, strong
from dicjax.inference.config import EncoderConfig
from dicjax.spikes import COMPARED, LABELS


MARGIN = 0.05  # of the range of DICs, added on either side
# Which neurons a posterior is over: those that the model's recipe draws, those uniform
# over its Monte-Carlo box, or all that were simulated, rare activities enriched.
PRIORS = ("recipe", "box", "any")
LOWEST_FREQUENCY = 0.25  # of the sinusoids of an interval, per unit of scaled logarithm


class Mixture(NamedTuple):
    """Gaussians over two numbers: log weights, means and Cholesky factors."""

    weights: Float[AnyArray, "*cells components"]
    means: Float[AnyArray, "*cells components 2"]
    factors: Float[AnyArray, "*cells components 2 2"]

    def log_prob(self, u: Float[Array, " 2"]) -> Float[Array, ""]:
        """Log density; of the first number alone where the second is nan."""
        # Forward substitution by hand: the factors are 2 x 2 and lower triangular.
        factors = self.factors
        both = jnp.isfinite(u[1])
        d = jnp.where(jnp.isfinite(u), u, 0)[None] - self.means
        x = d[:, 0] / factors[:, 0, 0]
        y = (d[:, 1] - factors[:, 1, 0] * x) / factors[:, 1, 1]
        log_2pi = jnp.log(2 * jnp.pi).astype(u.dtype)
        first = -jnp.log(factors[:, 0, 0]) - 0.5 * x**2 - 0.5 * log_2pi
        second = -jnp.log(factors[:, 1, 1]) - 0.5 * y**2 - 0.5 * log_2pi
        each = self.weights + first + jnp.where(both, second, 0)
        return jax.scipy.special.logsumexp(each)


def intervals(
    spike_times: Float[Array, " spikes"],
) -> tuple[Float[Array, " intervals"], Bool[Array, " intervals"]]:
    """Logarithms log(1 + ISI/ms) of a train's intervals, and which are there."""
    known = jnp.isfinite(spike_times[1:])
    times = jnp.where(jnp.isfinite(spike_times), spike_times, 0)
    # Jitter may swap two spikes: an interval is read as its size.
    return jnp.where(known, jnp.log1p(jnp.abs(jnp.diff(times))), 0), known


def tokens(
    log_isi: Float[Array, " intervals"],
    known: Bool[Array, " intervals"],
    radius: int,
    num_frequencies: int,
) -> Float[Array, "intervals inputs"]:
    """What attention sees of each interval: itself, finely, and its neighbours.

    `log_isi` is scaled to order one. Differences of a percent between intervals tell
    conductances apart, so every interval also comes as sinusoids of ever higher
    frequency; its neighbours come in order, with a one where there is a neighbour.
    """
    present = known.astype(log_isi.dtype)
    x = log_isi * present
    pairs = jnp.pad(jnp.stack([x, present], axis=-1), ((radius, radius), (0, 0)))
    around = np.arange(len(x))[:, None] + np.arange(2 * radius + 1)
    near = pairs[around].reshape(len(x), -1)
    angle = 2 * jnp.pi * LOWEST_FREQUENCY * x
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    waves = []
    for _ in range(num_frequencies):
        waves += [sine, cosine]
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine**2  # twice the angle
    return jnp.concatenate([near, jnp.stack(waves, axis=-1)], axis=1)


class Block(eqx.Module):
    """Self-attention and a two-layer network, each on normalised input and added."""

    norm_attention: eqx.nn.RMSNorm
    query_key_value: eqx.nn.Linear
    output: eqx.nn.Linear
    norm_mlp: eqx.nn.RMSNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, *, key: Key[Array, ""]):
        keys = jr.split(key, 4)
        self.norm_attention = eqx.nn.RMSNorm(width)
        self.query_key_value = eqx.nn.Linear(width, 3 * width, key=keys[0])
        self.output = eqx.nn.Linear(width, width, key=keys[1])
        self.norm_mlp = eqx.nn.RMSNorm(width)
        self.up = eqx.nn.Linear(width, 2 * width, key=keys[2])
        self.down = eqx.nn.Linear(2 * width, width, key=keys[3])
        self.num_heads = num_heads

    def __call__(self, x: Float[Array, "slots width"]) -> Float[Array, "slots width"]:
        """Updates every slot of one train."""
        h = jax.vmap(self.norm_attention)(x)
        qkv = jax.vmap(self.query_key_value)(h)
        q, k, v = jnp.split(qkv.reshape(len(x), self.num_heads, -1), 3, axis=-1)
        # Few slots: sums of products fuse, where many tiny matrix products do not.
        scores = jnp.sum(q[:, None] * k[None], axis=-1) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(scores.astype(x.dtype), axis=1)
        attended = jnp.sum(weights[..., None] * v[None], axis=1)
        x = x + jax.vmap(self.output)(attended.reshape(len(x), -1))
        h = jax.vmap(self.norm_mlp)(x)
        return x + jax.vmap(self.down)(jax.nn.silu(jax.vmap(self.up)(h)))


class Reading(eqx.Module):
    """What the encoder says of one train, before it is read as a posterior.

    - `slow`, `fast`: of (g_s, g_u) and of (g_f, V_th), in logits of their ranges.
    - `labels`: logits of the firing patterns; `features`: logarithms.
    - `anomaly`: logit of being no train of one neuron of the model.
    """

    slow: Mixture
    fast: Mixture
    labels: Float[AnyArray, "*cells 4"]
    features: Float[AnyArray, "*cells 7"]
    anomaly: Float[AnyArray, "*cells"]
    latent: Float[AnyArray, "*cells latent"]


class Scales(eqx.Module):
    """Numbers of a model that are measured, not learned.

    - `low`, `high`: the range of (g_s, g_u) that posteriors live on.
    - `fast_low`, `fast_high`: the range of (g_f, V_th).
    - `center`, `scale`: of log intervals, so that what attention sees is of order one.
    """

    low: Float[Array, " 2"] = eqx.field(converter=strong)
    high: Float[Array, " 2"] = eqx.field(converter=strong)
    fast_low: Float[Array, " 2"] = eqx.field(converter=strong)
    fast_high: Float[Array, " 2"] = eqx.field(converter=strong)
    center: Float[Array, ""] = eqx.field(converter=strong)
    scale: Float[Array, ""] = eqx.field(converter=strong)


def make_scales(
    g_s: tuple[float, float],
    g_u: tuple[float, float],
    g_f: tuple[float, float] = (-60.0, 20.0),
    V_th: tuple[float, float] = (-80.0, 0.0),
    center: float = 4.0,
    scale: float = 1.5,
) -> Scales:
    """Scales for these ranges, with a margin on either side of each."""
    low, high = np.transpose((g_s, g_u, g_f, V_th))
    margin = MARGIN * (high - low)
    low, high = low - margin, high + margin
    return Scales(low[:2], high[:2], low[2:], high[2:], center, scale)


class Encoder(eqx.Module):
    """Intervals in their neighbourhood, attention over them, and heads.

    Every interval is embedded together with its neighbours; learned queries attend to
    all of them, each with weights of its own, and fill a few slots, which then attend
    to one another. Work grows with the number of spikes, not with its square. What is
    said of the summary depends on the prior asked for; the summary does not.
    """

    embed: eqx.nn.Linear
    mix: eqx.nn.Linear
    queries: eqx.nn.Linear
    blocks: tuple[Block, ...]
    norm: eqx.nn.RMSNorm
    to_latent: eqx.nn.Linear
    hidden: tuple[eqx.nn.Linear, eqx.nn.Linear]
    priors: Float[Array, "priors hidden"]
    slow: eqx.nn.Linear
    fast: eqx.nn.Linear
    labels: eqx.nn.Linear
    features: eqx.nn.Linear
    anomaly: eqx.nn.Linear
    scales: Scales
    config: EncoderConfig = eqx.field(static=True)

    def __init__(self, config: EncoderConfig, scales: Scales, *, key: Key[Array, ""]):
        keys = iter(jr.split(key, 13))
        width, latent, hidden = config.width, config.latent, config.hidden
        linear = lambda *sizes: eqx.nn.Linear(*sizes, key=next(keys))
        inputs = 2 * (2 * config.radius + 1) + 2 * config.num_frequencies
        self.embed = linear(inputs, width)
        self.mix = linear(width, width)
        self.queries = linear(width, config.num_slots)
        block_keys = jr.split(next(keys), config.num_blocks)
        self.blocks = tuple(Block(width, config.num_heads, key=k) for k in block_keys)
        self.norm = eqx.nn.RMSNorm(config.num_slots * width)
        self.to_latent = linear(config.num_slots * width, latent)
        self.hidden = (linear(latent, hidden), linear(hidden, hidden))
        self.priors = jr.normal(next(keys), (len(PRIORS), hidden))
        self.slow = linear(hidden, 6 * config.num_components)
        self.fast = linear(hidden, 6 * config.num_components)
        self.labels = linear(latent, len(LABELS))
        self.features = linear(hidden, len(COMPARED))
        self.anomaly = linear(hidden, 1)
        self.scales = scales
        self.config = config

    def __call__(
        self, spike_times: Float[Array, " spikes"], prior: Int[Array, ""]
    ) -> Reading:
        """Reads one train of at most `config.max_spikes`; `prior` indexes `PRIORS`."""
        log_isi, known = intervals(spike_times)
        dtype = self.embed.weight.dtype
        log_isi = ((log_isi - self.scales.center) / self.scales.scale).astype(dtype)
        x = tokens(log_isi, known, self.config.radius, self.config.num_frequencies)
        x = jax.nn.silu(jax.vmap(self.embed)(x))
        # What queries see is mixed, and so are the slots. Mixing is linear and weights
        # add up to one: it is left to the few slots. Biases shift all scores alike.
        scores = x @ (self.queries.weight @ self.mix.weight).T
        # A train without intervals has nothing to attend to: weigh all alike.
        seen = known | ~known.any()
        weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf), axis=0)
        slots = jax.vmap(self.mix)(weights.T @ x)
        for block in self.blocks:
            slots = block(slots)
        latent = self.to_latent(self.norm(slots.reshape(-1)))
        first, second = self.hidden
        h = jax.nn.silu(first(latent) + self.priors[prior])
        h = jax.nn.silu(second(h))
        return Reading(
            slow=_mixture(self.slow(h)),
            fast=_mixture(self.fast(h)),
            labels=self.labels(latent),
            features=self.features(h),
            anomaly=self.anomaly(h)[0],
            latent=latent,
        )


def _mixture(raw: Float[Array, " numbers"]) -> Mixture:
    raw = raw.reshape(-1, 6)
    # Spread-out starts, so that components do not learn the same thing.
    start = jnp.linspace(-1.5, 1.5, len(raw), dtype=raw.dtype)
    means = raw[:, 1:3] + jnp.stack([start, jnp.zeros_like(start)], axis=-1)
    a, b = (0.01 + jax.nn.softplus(raw[:, i]) for i in (3, 4))
    rows = [jnp.stack([a, jnp.zeros_like(a)], -1), jnp.stack([raw[:, 5], b], -1)]
    return Mixture(jax.nn.log_softmax(raw[:, 0]), means, jnp.stack(rows, axis=-2))


def to_logits(
    x: Float[AnyArray, "*points 2"],
    low: Float[Array, "*#points 2"],
    high: Float[Array, "*#points 2"],
) -> Float[Array, "*points 2"]:
    """Where in a range values lie, as logits; what lies outside is at an end."""
    share = (x - low) / (high - low)
    share = jnp.clip(share, 1e-4, 1 - 1e-4)
    return jnp.log(share) - jnp.log1p(-share)


@eqx.filter_jit
def read(
    encoder: Encoder, spike_times: Float[Array, "cells spikes"], prior: Int[Array, ""]
) -> Reading:
    """Reads a batch of trains no longer than the encoder's limit, under one prior."""
    return jax.vmap(encoder, (0, None))(spike_times, prior)
