import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_encoder

from dicjax.inference.config import EncoderConfig
from dicjax.inference.encoder import (
    intervals,
    Mixture,
    PRIORS,
    read,
    to_logits,
    tokens,
)


ANY = jnp.asarray(PRIORS.index("any"), jnp.int32)
SMALL = EncoderConfig(
    width=16, num_slots=2, num_heads=2, latent=8, hidden=16, max_spikes=32
)


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(SMALL)


def _train(num, width=32, seed=0):
    rng = np.random.default_rng(seed)
    row = np.full(width, np.inf, np.float32)
    row[:num] = np.cumsum(rng.gamma(4, 20, num))
    return row


def test_intervals_are_logarithms_and_padding_is_none():
    log_isi, known = intervals(jnp.array([5.0, 15.0, 45.0, jnp.inf]))
    assert known.tolist() == [True, True, False]
    assert jnp.allclose(log_isi, jnp.array([jnp.log(11.0), jnp.log(31.0), 0.0]))


def test_tokens_show_neighbours_in_order_and_sinusoids_of_twice_the_frequency():
    log_isi = jnp.array([0.1, 0.2, 0.3, 0.0])
    known = jnp.array([True, True, True, False])
    x = tokens(log_isi, known, 1, 3)
    assert x.shape == (4, 2 * 3 + 2 * 3)
    values, present = x[:, 0:6:2], x[:, 1:6:2]
    assert jnp.allclose(values[1], jnp.array([0.1, 0.2, 0.3]))
    assert present[0].tolist() == [0, 1, 1]
    assert present[2].tolist() == [1, 1, 0]
    angles = 0.5 * jnp.pi * log_isi[:3, None] * jnp.array([[1.0, 2.0, 4.0]])
    assert jnp.allclose(x[:3, 6::2], jnp.sin(angles))
    assert jnp.allclose(x[:3, 7::2], jnp.cos(angles))


def test_padding_does_not_change_what_is_read(encoder):
    short, long = _train(12, 16), _train(12, 32)
    a = read(encoder, jnp.asarray(short[None]), ANY)
    b = read(encoder, jnp.asarray(long[None]), ANY)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.allclose(x, y, atol=1e-5)


def test_a_batch_reads_as_its_trains_do_alone(encoder):
    trains = jnp.stack([_train(n, seed=n) for n in (5, 20, 32)])
    together = read(encoder, trains, ANY)
    for i in range(3):
        alone = read(encoder, trains[i : i + 1], ANY)
        assert jnp.allclose(together.slow.means[i], alone.slow.means[0], atol=1e-5)


def test_every_interval_is_attended_to(encoder):
    times = jnp.asarray(_train(32))
    slope = jax.jit(jax.jacrev(lambda t: encoder(t, ANY).latent))(times)
    assert (jnp.abs(slope).max(axis=0) > 0).all()


@pytest.mark.parametrize("num", [0, 1, 2])
def test_a_train_of_next_to_nothing_is_read_without_nan(encoder, num):
    reading = read(encoder, jnp.asarray(_train(num)[None]), ANY)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(reading))


def test_a_missing_threshold_leaves_the_density_of_the_rest():
    weights = jnp.log(jnp.array([0.3, 0.7]))
    means = jnp.array([[0.5, -1.0], [-0.5, 2.0]])
    factors = jnp.array([[[0.8, 0.0], [0.3, 0.5]], [[1.2, 0.0], [-0.4, 0.7]]])
    log_prob = jax.jit(jax.vmap(Mixture(weights, means, factors).log_prob))
    grid = jnp.append(jnp.linspace(-9, 9, 2001), jnp.nan)
    densities = log_prob(jnp.stack([jnp.full_like(grid, 0.2), grid], axis=1))
    both, alone = densities[:-1], densities[-1]
    total = jnp.sum(jnp.exp(both)) * (grid[1] - grid[0])
    assert jnp.allclose(jnp.exp(alone), total, rtol=1e-4)


def test_logits_are_finite_at_and_beyond_the_ends_of_a_range():
    x = jnp.array([[-100.0, 0.0], [100.0, 20.0], [0.0, 10.0]])
    u = to_logits(x, jnp.array([[-20.0, 0.0]]), jnp.array([[20.0, 20.0]]))
    assert jnp.isfinite(u).all()
    assert jnp.allclose(u[2], 0)
    assert (u[0] < 0).all()
    assert (u[1] > 0).all()
