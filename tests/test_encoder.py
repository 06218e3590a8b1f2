import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dicjax.config import EncoderConfig
from dicjax.encoder import Encoder, infer_dics, Posterior, read, tokens, windows


SMALL = EncoderConfig(
    width=16, num_heads=2, num_blocks=1, latent=8, max_spikes=32, num_windows=3
)
RANGES = ((-20.0, 20.0), (0.0, 20.0))


@pytest.fixture(scope="module")
def encoder():
    made = Encoder(SMALL, *RANGES, key=jr.key(0))
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        made,
    )


def _train(num, width=32, seed=0):
    rng = np.random.default_rng(seed)
    row = np.full(width, np.inf, np.float32)
    row[:num] = np.cumsum(rng.gamma(4, 20, num))
    return row


def _gaussian(mean, factor):
    return Posterior(
        weights=jnp.zeros((1, 1)),
        means=jnp.asarray(mean)[None, None],
        factors=jnp.asarray(factor)[None, None],
        low=jnp.array([-20.0, 0.0]),
        high=jnp.array([20.0, 20.0]),
        ranks=jnp.linspace(0, 1, 101),
    )


def test_tokens_are_logarithms_of_intervals_and_their_changes():
    times = jnp.array([5.0, 15.0, 45.0, jnp.inf])
    x, known = tokens(times)
    assert known.tolist() == [True, True, False]
    assert jnp.allclose(x[:2, 0], jnp.log1p(jnp.array([10.0, 30.0])))
    assert jnp.allclose(x[:2, 1], jnp.array([0.0, jnp.log(31.0 / 11.0)]))
    assert jnp.all(x[2] == 0)


def test_padding_does_not_change_what_is_read(encoder):
    short, long = _train(12, 16), _train(12, 32)
    a = read(encoder, jnp.asarray(short[None]))
    b = read(encoder, jnp.asarray(long[None]))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.allclose(x, y, atol=1e-5)


def test_a_batch_reads_as_its_trains_do_alone(encoder):
    trains = jnp.stack([_train(n, seed=n) for n in (5, 20, 32)])
    together = read(encoder, trains)
    for i in range(3):
        alone = read(encoder, trains[i : i + 1])
        assert jnp.allclose(together.means[i], alone.means[0], atol=1e-5)


def test_a_train_of_one_spike_is_read_without_nan(encoder):
    reading = read(encoder, jnp.asarray(_train(1)[None]))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(reading))


def test_time_of_day_does_not_matter(encoder):
    train = _train(20)
    a = infer_dics(encoder, [train[:20]], np.linspace(0, 1, 101))
    b = infer_dics(encoder, [train[:20] + 1000], np.linspace(0, 1, 101))
    assert jnp.allclose(a.means, b.means, atol=1e-4)


def test_windows_cover_a_long_train_from_end_to_end():
    times = np.cumsum(np.full(100, 10.0))
    rows = windows(times, SMALL)
    assert rows.shape == (3, 32)
    assert np.allclose(rows[:, 0], 0)
    assert np.isfinite(rows).all()
    assert np.allclose(np.diff(rows, axis=1), 10.0)


@pytest.mark.parametrize(
    ("mean", "factor"),
    [
        ([0.0, 0.0], [[0.5, 0.0], [0.2, 0.3]]),
        ([2.0, -3.0], [[1.5, 0.0], [-1.0, 1.0]]),
    ],
)
def test_a_posterior_integrates_to_one(mean, factor):
    posterior = _gaussian(mean, factor)
    s = jnp.linspace(-20, 20, 801)
    u = jnp.linspace(0, 20, 801)
    grid = jnp.stack(jnp.meshgrid(s, u), axis=-1).reshape(1, -1, 2)
    density = jnp.exp(posterior.log_prob(grid))
    total = jnp.sum(density) * (s[1] - s[0]) * (u[1] - u[0])
    assert jnp.allclose(total, 1, atol=0.02)


def test_draws_stay_in_range_and_have_the_density_claimed():
    posterior = _gaussian([0.5, -0.5], [[0.7, 0.0], [0.5, 0.4]])
    draws = posterior.sample(jr.key(1), 20_000)[0]
    assert jnp.all((draws > posterior.low[None]) & (draws < posterior.high[None]))
    # A box's share of draws is the density's integral over the box.
    low, high = jnp.array([0.0, 7.0]), jnp.array([8.0, 12.0])
    share = jnp.mean(((draws > low[None]) & (draws < high[None])).all(axis=1))
    axes = [jnp.linspace(a, b, 201) for a, b in zip(low, high, strict=True)]
    grid = jnp.stack(jnp.meshgrid(*axes), axis=-1).reshape(1, -1, 2)
    area = jnp.prod(high - low)
    integral = jnp.mean(jnp.exp(posterior.log_prob(grid))) * area
    assert np.isclose(share, integral, atol=0.02)


def test_a_region_holds_the_share_of_draws_it_says():
    posterior = _gaussian([0.5, -0.5], [[0.7, 0.0], [0.5, 0.4]])
    draws = posterior.sample(jr.key(2), 10_000)
    densities = np.asarray(posterior.log_prob(draws))[0]
    for level in (0.5, 0.9):
        region = posterior.region(level)
        assert abs(np.mean(densities >= float(region.floor[0])) - level) < 0.03
        for i in range(5):
            inside = bool(region.contains(draws[:, i])[0])
            assert inside == (densities[i] >= float(region.floor[0]))


def test_intervals_widen_with_their_level_and_hold_the_mean():
    posterior = _gaussian([0.5, -0.5], [[0.7, 0.0], [0.5, 0.4]])
    narrow, wide = posterior.interval(0.5)[0], posterior.interval(0.9)[0]
    assert jnp.all(wide[:, 0] < narrow[:, 0])
    assert jnp.all(narrow[:, 1] < wide[:, 1])
    mean = posterior.mean[0]
    assert jnp.all((wide[:, 0] < mean) & (mean < wide[:, 1]))


def test_calibration_widens_regions_of_an_overconfident_posterior():
    sure = _gaussian([0.0, 0.0], [[0.5, 0.0], [0.0, 0.5]])
    # Only half of the truths were found where nine tenths should have been.
    ranks = jnp.interp(
        jnp.linspace(0, 1, 101), jnp.array([0, 0.9, 1.0]), jnp.array([0, 0.5, 1.0])
    )
    humble = Posterior(
        sure.weights, sure.means, sure.factors, sure.low, sure.high, ranks
    )
    assert float(humble.region(0.5).floor[0]) < float(sure.region(0.5).floor[0])
