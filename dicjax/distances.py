"""Distances between spike trains, given in ms and padded with infinity."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from dicjax.spikes import intervals, safe_sqrt


Train = Float[ArrayLike, " _"]
Row = Float[Array, " _"]
Scalar = Float[Array, ""]


@jax.jit
def van_rossum_distance(a: Train, b: Train, tau: float | Scalar) -> Scalar:
    """Distance of two trains (ms) after each spike became an exponential of `tau` ms.

    $D^2 = \\frac{2}{\\tau} \\int (f_a - f_b)^2 dt$ with $f(t) = \\sum_{t_i < t}
    e^{-(t - t_i) / \\tau}$: one spike more is one. van Rossum (2001), Neural Comput.
    13(4); the norm is that of Houghton & Kreuz (2012), Network 23(1).
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    sign = jnp.concatenate((jnp.ones_like(a), -jnp.ones_like(b)))
    times, sign = jax.lax.sort((jnp.concatenate((a, b)), sign), num_keys=1)
    times = jnp.append(times, jnp.inf)
    is_spike = jnp.isfinite(times)
    waits = jnp.where(is_spike[1:], jnp.diff(jnp.where(is_spike, times, 0)), 0)
    decays = jnp.where(is_spike[1:], jnp.exp(-waits / tau), 0)  # by the next spike
    jumps = jnp.where(is_spike[:-1], sign, 0)

    def then(earlier, later):
        return earlier[0] * later[0], earlier[1] * later[0] + later[1]

    _, apart = jax.lax.associative_scan(then, (jnp.roll(decays, 1), jumps))
    return safe_sqrt(jnp.sum(apart**2 * (1 - decays**2)))


@jax.jit
def victor_purpura_distance(a: Train, b: Train, cost: float | Scalar) -> Scalar:
    """Cheapest edit of one train (ms) into the other: `cost` is that of moving by a ms.

    To add or delete a spike costs one. Victor & Purpura (1996), J. Neurophysiol. 76(2).
    """
    a, b = jnp.asarray(a), jnp.asarray(b)

    # Matching two spikes saves deleting one and adding the other. The best savings
    # follow row by row, each row by one running maximum.
    def row(savings, time):
        both = jnp.isfinite(time) & jnp.isfinite(b)
        moved = jnp.abs(jnp.where(both, time, 0) - jnp.where(both, b, 0))
        saved = jnp.where(both, jnp.maximum(2 - cost * moved, 0), 0)
        matched = jnp.maximum(savings[1:], savings[:-1] + saved)
        return savings.at[1:].set(jax.lax.cummax(matched)), None

    savings, _ = jax.lax.scan(row, jnp.zeros(b.size + 1, jnp.result_type(a, b)), a)
    num_spikes = jnp.sum(jnp.isfinite(a)) + jnp.sum(jnp.isfinite(b))
    return num_spikes.astype(savings.dtype) - savings[-1]


def isi_wasserstein(a: Train, b: Train) -> Scalar:
    """Wasserstein-1 distance (ms) between the ISIs of two trains (ms)."""
    return _wasserstein(intervals(a)[0], intervals(b)[0])


@eqx.filter_jit
def _wasserstein(a: Row, b: Row) -> Scalar:
    isi = jnp.concatenate((a, b))
    owner = jnp.concatenate((jnp.ones_like(a), -jnp.ones_like(b)))
    # Padding becomes intervals of zero length that belong to neither train.
    known = jnp.isfinite(isi)
    isi, owner = jnp.where(known, isi, 0), jnp.where(known, owner, 0)
    isi, owner = jax.lax.sort((isi, owner), num_keys=1)

    num_a = jnp.sum(owner > 0, dtype=isi.dtype)
    num_b = jnp.sum(owner < 0, dtype=isi.dtype)
    of_a = jnp.cumsum(owner > 0, dtype=isi.dtype)
    of_b = jnp.cumsum(owner < 0, dtype=isi.dtype)
    apart = jnp.abs(of_a * num_b - of_b * num_a)[:-1]
    return jnp.sum(apart * jnp.diff(isi)) / (num_a * num_b)
