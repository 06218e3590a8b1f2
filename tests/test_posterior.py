import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import random_encoder

from dicjax.inference.config import EncoderConfig
from dicjax.inference.posterior import Posterior, posterior_of, read_trains, windows
from dicjax.spikes.trains import pad_trains


SMALL = EncoderConfig(
    width=16, num_slots=2, latent=8, hidden=16, max_spikes=32, num_windows=3
)
PLAIN = np.linspace(0, 1, 101)


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(SMALL)


def _train(num, seed=0):
    return np.cumsum(np.random.default_rng(seed).gamma(4, 20, num))


def _gaussian(mean, factor, ranks=PLAIN):
    return Posterior(
        weights=jnp.zeros((1, 1)),
        means=jnp.asarray(mean)[None, None],
        factors=jnp.asarray(factor)[None, None],
        low=jnp.array([-20.0, 0.0]),
        high=jnp.array([20.0, 20.0]),
        ranks=jnp.asarray(ranks)[None],
    )


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
    factor = [[0.5, 0.0], [0.0, 0.5]]
    sure = _gaussian([0.0, 0.0], factor)
    # Only half of the truths were found where nine tenths should have been.
    ranks = np.interp(PLAIN, [0, 0.9, 1.0], [0, 0.5, 1.0])
    humble = _gaussian([0.0, 0.0], factor, ranks)
    assert float(humble.region(0.5).floor[0]) < float(sure.region(0.5).floor[0])


def test_the_median_errs_least():
    posterior = _gaussian([1.5, -1.0], [[1.5, 0.0], [0.5, 1.0]])
    draws = np.asarray(posterior.sample(jr.key(5), 8000))[0]
    error = lambda at: np.abs(draws - np.asarray(at)[0]).mean(axis=0)
    assert (error(posterior.median) <= error(posterior.mean) + 0.01).all()


def test_a_train_is_in_distribution_where_nothing_speaks_against_it():
    posterior = _gaussian([0.0, 0.0], [[0.5, 0.0], [0.0, 0.5]])
    assert posterior.in_distribution.tolist() == [True]
    far = dataclasses.replace(posterior, distance=np.array([2.0]), max_distance=1.6)
    assert far.in_distribution.tolist() == [False]
    odd = dataclasses.replace(posterior, anomaly=np.array([0.1]), max_anomaly=0.0)
    assert odd.in_distribution.tolist() == [False]


def test_windows_cover_a_long_train_from_end_to_end():
    owner, begins = windows(np.array([100, 32, 0, 33]), 32, 3)
    assert owner.tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert begins.tolist() == [0, 34, 68, 0, 0, 0, 0, 1]


def test_time_of_day_does_not_matter(encoder):
    train = _train(20)
    a, b = (read_trains(encoder, [x]) for x in (train, train + 1e6))
    assert np.allclose(a.slow.means, b.slow.means, atol=1e-3)


def test_trains_read_together_are_read_as_they_are_alone(encoder):
    trains = [_train(n, seed=n) for n in (12, 30, 100, 33)]
    together = read_trains(encoder, trains)
    padded = read_trains(encoder, pad_trains(trains))
    for one, other in zip(
        jax.tree.leaves(together), jax.tree.leaves(padded), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    for i, train in enumerate(trains):
        alone = read_trains(encoder, [train])
        assert np.allclose(together.latent[i], alone.latent[0], atol=1e-4)
        weights, own = together.slow.weights[i], alone.slow.weights[0]
        assert np.allclose(weights[: len(own)], own, atol=1e-4)
        assert (weights[len(own) :] == -np.inf).all()


def test_a_long_train_is_as_uncertain_as_its_windows(encoder):
    times = _train(100)
    whole = posterior_of(encoder, read_trains(encoder, [times]), PLAIN[None])
    _, begins = windows(np.array([100]), SMALL.max_spikes, SMALL.num_windows)
    parts = [times[first : first + SMALL.max_spikes] for first in begins]
    single = posterior_of(
        encoder, read_trains(encoder, parts), np.tile(PLAIN, (len(parts), 1))
    )
    point = jnp.array([[[3.0, 4.0]]])
    densities = jnp.exp(single.log_prob(jnp.tile(point, (len(parts), 1, 1))))
    expected = jnp.mean(densities)
    assert jnp.allclose(jnp.exp(whole.log_prob(point))[0, 0], expected, rtol=1e-3)


def test_a_posterior_over_the_threshold_comes_along(encoder):
    posterior = posterior_of(encoder, read_trains(encoder, [_train(20)]), PLAIN[None])
    assert posterior.fast is not None
    g_f, V_th = np.asarray(posterior.fast.mean)[0]
    assert -64.0 < g_f < 24.0
    assert -84.0 < V_th < 4.0
