"""Posteriors over dynamic input conductances, and how trains are read into them."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from dicjax._core import counted, described, OrNone
from dicjax.inference.encoder import Encoder, Mixture, PRIORS, read, Reading
from dicjax.spikes import (
    end_to_end,
    ENOUGH_SPIKES,
    Ragged,
    rows_of,
    SpikeTrain,
    times_of,
)


NUM_DRAWS = 4096  # by which means and regions are computed
LENGTHS = (24, 48, 96)  # spikes that are compiled for; short trains are cheaper
ROWS = (8, 64, 256)  # windows read at once that are compiled for


class Posterior(eqx.Module):
    """A posterior over two numbers, (g_s, g_u), for each of several trains.

    A mixture of Gaussians with full covariance in the logits of the range `low` to
    `high`, so that no draw falls outside of what the encoder was trained on.

    - `ranks`: calibration; for each train the share of held-out truths that lie in a
        region of each nominal level, from which regions take the level that covers
        what it says.
    - `distance`: how far (as a factor in a feature) the train is from those the encoder
        was trained on; nan if it was not computed.
    - `anomaly`: how much more likely (as a logarithm) than not the train is none of a
        single neuron of the model.
    - `fast`: the same for (g_f, V_th), as far as the model defines them.
    """

    weights: Float[Array, "cells components"]
    means: Float[Array, "cells components 2"]
    factors: Float[Array, "cells components 2 2"]
    low: Float[Array, " 2"]
    high: Float[Array, " 2"]
    ranks: Float[Array, "cells levels"]
    distance: Float[np.ndarray, " cells"] | None = None
    anomaly: Float[np.ndarray, " cells"] | None = None
    fast: "Posterior | OrNone" = None
    max_distance: float = eqx.field(static=True, default=float("inf"))
    max_anomaly: float = eqx.field(static=True, default=float("inf"))

    def __repr__(self) -> str:
        return described(self, lambda: counted(len(self.weights), "train"))

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "cells {num} 2"]:
        """Draws `num` pairs (g_s, g_u) for every train."""
        return _sample(self, key, num)

    def log_prob(self, dics: Float[ArrayLike, "cells points 2"]) -> Array:
        """Log density at `dics`, per unit of g_s and g_u."""
        return _log_prob(self, jnp.asarray(dics, self.means.dtype))

    @property
    def mean(self) -> Float[Array, "cells 2"]:
        """The posterior mean of (g_s, g_u)."""
        return jnp.mean(self.sample(jr.key(0), NUM_DRAWS), axis=1)

    @property
    def median(self) -> Float[Array, "cells 2"]:
        """The medians of g_s and of g_u: the estimate of least absolute error."""
        return jnp.median(self.sample(jr.key(0), NUM_DRAWS), axis=1)

    def interval(self, level: float = 0.9) -> Float[Array, "cells 2 2"]:
        """Central intervals of g_s and of g_u, each holding `level` of the draws."""
        draws = self.sample(jr.key(0), NUM_DRAWS)
        edges = jnp.array([(1 - level) / 2, (1 + level) / 2], draws.dtype)
        return jnp.moveaxis(jnp.quantile(draws, edges, axis=1), 0, -1)

    def region(self, level: float = 0.9) -> "Region":
        """The calibrated region of highest density that covers `level` of truths."""
        ranks = jnp.asarray(self.ranks)
        grid = jnp.linspace(0, 1, ranks.shape[1], dtype=ranks.dtype)
        at = jnp.asarray(level, ranks.dtype)
        nominal = jax.vmap(lambda row: jnp.interp(at, row, grid))(ranks)
        draws = self.sample(jr.key(0), NUM_DRAWS)
        densities = self.log_prob(draws)
        quantile = lambda row, level: jnp.quantile(row, 1 - level.astype(row.dtype))
        return Region(self, jax.vmap(quantile)(densities, nominal))

    @property
    def in_distribution(self) -> Bool[np.ndarray, " cells"]:
        """Whether each train resembles what the encoder was trained on."""
        inside = np.ones(len(self.weights), bool)
        if self.distance is not None:
            inside &= np.asarray(self.distance) <= self.max_distance
        if self.anomaly is not None:
            inside &= np.asarray(self.anomaly) <= self.max_anomaly
        return inside


class Region(eqx.Module):
    """Where a posterior is at least as dense as `floor` (its logarithm)."""

    posterior: Posterior
    floor: Float[Array, " cells"]

    def __repr__(self) -> str:
        return described(self)

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
        density = jax.vmap(Mixture(weights, means, factors).log_prob)(u)
        return jnp.where(inside, density - log_slope, -jnp.inf)

    return jax.vmap(one)(posterior.weights, posterior.means, posterior.factors, dics)


def windows(
    counts: Int[np.ndarray, " trains"], max_spikes: int, num_windows: int
) -> tuple[Int[np.ndarray, " windows"], Int[np.ndarray, " windows"]]:
    """Evenly spaced stretches of trains, each short enough to be read at once.

    The train of each window, and the number of the spike that it begins with. A train
    of at most `max_spikes` is one window.
    """
    is_long = counts > max_spikes
    owner = np.repeat(np.arange(len(counts)), np.where(is_long, num_windows, 1))
    begins = np.zeros(len(owner), int)
    evenly = np.linspace(0, counts[is_long] - max_spikes, num_windows, axis=1)
    begins[is_long[owner]] = evenly.astype(int).ravel()
    return owner, begins


def stretches_of(
    trains: Ragged, max_spikes: int, num_windows: int
) -> tuple[Int[np.ndarray, " windows"], Int[np.ndarray, " windows"], np.ndarray]:
    """At most `num_windows` stretches to read of each train, none across a pause of
    the recording: the train of each, its first spike, and how many spikes it has."""
    counts = trains.counts
    if trains.is_fresh is None:
        owner, begins = windows(counts, max_spikes, num_windows)
        return owner, begins, np.minimum(counts[owner], max_spikes)
    found = []
    for i, (start, count) in enumerate(zip(trains.starts, counts, strict=True)):
        breaks = np.flatnonzero(trains.is_fresh[start : start + count])
        edges = np.concatenate([[0], breaks, [count]])
        sizes = np.diff(edges)
        # So few spikes tell little; one stretch at least must be read.
        keep = sizes >= min(ENOUGH_SPIKES, sizes.max())
        part, begins = windows(sizes[keep], max_spikes, num_windows)
        rows = np.stack(
            [
                np.full(len(part), i),
                edges[:-1][keep][part] + begins,
                np.minimum(sizes[keep][part], max_spikes),
            ]
        )
        few = min(len(part), num_windows)
        found.append(rows[:, np.linspace(0, len(part) - 1, few).astype(int)])
    owner, begins, sizes = np.concatenate(found, axis=1)
    return owner, begins, sizes


def read_trains(encoder: Encoder, trains: Any, prior: str = "any") -> Reading:
    """Reads trains (ms) of any lengths; arrays come back on the host, a row per train.

    A train that is longer than the encoder reads at once, or that was observed with
    pauses, is read in windows, whose posteriors are averaged: stretches of one neuron's
    train do not count as independent evidence. What is no density (label, features,
    latent, anomaly) is averaged as it is.
    """
    config = encoder.config
    trains = [trains] if isinstance(trains, SpikeTrain) else times_of(trains)
    pieces = functools.partial(end_to_end, trains, in_order=False)
    is_whole = lambda x: x.is_fresh is None and x.counts.max() <= config.max_spikes
    slots = 1 if all(map(is_whole, pieces())) else config.num_windows
    index = PRIORS.index(prior)
    parts = [_read_piece(encoder, piece, index, slots) for piece in pieces()]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _read_piece(encoder: Encoder, trains: Ragged, prior: int, slots: int) -> Reading:
    config = encoder.config
    sizes = config.max_spikes, config.num_windows
    owner, begins, counts = stretches_of(trains, *sizes)
    stretches = Ragged(trains.times, trains.starts[owner] + begins, counts)
    if slots == 1:
        return _read_by_length(encoder, stretches, prior)
    # Windows of a train that is hardly too long are often the same: they are read once.
    is_new = np.append(True, (np.diff(owner) > 0) | (np.diff(begins) != 0))
    distinct = Ragged(trains.times, stretches.starts[is_new], counts[is_new])
    read_once = _read_by_length(encoder, distinct, prior)
    rows = jax.tree.map(lambda x: x[np.cumsum(is_new) - 1], read_once)
    count = np.bincount(owner)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)

    def side_by_side(x, fill):
        all_of = np.full((len(count), slots, *x.shape[1:]), fill, x.dtype)
        all_of[owner, slot] = x
        return all_of.reshape(len(count), -1, *x.shape[2:])

    def mixed(mixture):
        share = np.log(count[owner]).astype(mixture.weights.dtype)[:, None]
        return Mixture(
            side_by_side(mixture.weights - share, -np.inf),
            # Where there is no window any number will do that is no nan.
            side_by_side(mixture.means, 0),
            side_by_side(mixture.factors, np.eye(2)),
        )

    def mean(x):
        total = np.zeros((len(count), *x.shape[1:]), x.dtype)
        np.add.at(total, owner, x)
        return total / count.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)

    plain = (mean(x) for x in (rows.labels, rows.features, rows.anomaly, rows.latent))
    return Reading(mixed(rows.slow), mixed(rows.fast), *plain)


def _read_by_length(encoder: Encoder, stretches: Ragged, prior: int) -> Reading:
    lengths = [x for x in LENGTHS if x < encoder.config.max_spikes]
    lengths = np.array([*lengths, encoder.config.max_spikes])
    which = np.searchsorted(lengths, stretches.counts)
    times = stretches.times.astype(np.float64)
    first = np.append(times, 0)[stretches.starts]
    order, parts = [], []
    for bucket, length in enumerate(lengths.tolist()):
        members = np.flatnonzero(which == bucket)
        for start in range(0, len(members), ROWS[-1]):
            part = members[start : start + ROWS[-1]]
            num_rows = next(rows for rows in ROWS if rows >= len(part))
            rows = np.full((num_rows, length), np.inf, np.float32)
            own = rows_of(times, stretches.starts[part], stretches.counts[part], length)
            rows[: len(part)] = own - first[part, None]
            reading = read(encoder, jnp.asarray(rows), jnp.asarray(prior, jnp.int32))
            own = jax.tree.map(lambda x, n=len(part): np.asarray(x)[:n], reading)
            parts.append(own)
            order.append(part)
    place = np.argsort(np.concatenate(order))
    return jax.tree.map(lambda *x: np.concatenate(x)[place], *parts)


def posterior_of(
    encoder: Encoder, reading: Reading, ranks: Float[np.ndarray, "cells levels"]
) -> Posterior:
    """The posteriors that a reading of several trains describes."""
    scales = encoder.scales
    plain = np.broadcast_to(np.linspace(0, 1, ranks.shape[1]), ranks.shape)

    def over(mixture, low, high, ranks):
        weights, means, factors = map(jnp.asarray, mixture)
        ranks = jnp.asarray(ranks, low.dtype)
        return Posterior(weights, means, factors, low, high, ranks)

    slow = over(reading.slow, scales.low, scales.high, ranks)
    fast = over(reading.fast, scales.fast_low, scales.fast_high, plain)
    return dataclasses.replace(slow, anomaly=np.asarray(reading.anomaly), fast=fast)
