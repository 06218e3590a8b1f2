import elephant.spike_train_dissimilarity as dissimilarity
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quantities as pq
import scipy.stats
from hypothesis import given
from test_spikes import (
    batch,
    burster,
    bursting,
    metronome,
    neo_train,
    paused,
    poisson,
    seeds,
    tonic,
    WIDTH,
)

from dicjax.distances import (
    isi_wasserstein,
    van_rossum_distance,
    victor_purpura_distance,
)
from dicjax.spikes import pad_trains


PAIRS = ((tonic, bursting), (poisson, poisson), (bursting, paused))


def pair(kinds, seed=11):
    rng = np.random.default_rng(seed)
    return [kind(rng) for kind in kinds]


@pytest.mark.parametrize("kinds", PAIRS)
@pytest.mark.parametrize("tau", (1.0, 100.0))
def test_van_rossum_distance_agrees_with_elephant(kinds, tau):
    a, b = pair(kinds)
    theirs = dissimilarity.van_rossum_distance(
        [neo_train(a), neo_train(b)], time_constant=tau * pq.ms
    )[0, 1]
    ours = van_rossum_distance(*pad_trains([a, b], WIDTH), tau)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("kinds", PAIRS)
@pytest.mark.parametrize("cost", (0.0, 0.003, 0.1))
def test_victor_purpura_distance_agrees_with_elephant(kinds, cost):
    a, b = pair(kinds)
    theirs = dissimilarity.victor_purpura_distance(
        [neo_train(a), neo_train(b)], cost_factor=cost / pq.ms
    )[0, 1]
    ours = victor_purpura_distance(*pad_trains([a, b], WIDTH), cost)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("kinds", PAIRS)
def test_wasserstein_distance_agrees_with_scipy(kinds):
    a, b = pair(kinds)
    theirs = scipy.stats.wasserstein_distance(np.diff(a), np.diff(b))
    ours = isi_wasserstein(*pad_trains([a, b], WIDTH))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


DISTANCES = (
    lambda a, b: van_rossum_distance(a, b, 30.0),
    lambda a, b: victor_purpura_distance(a, b, 0.01),
    isi_wasserstein,
)


@pytest.mark.parametrize("distance", DISTANCES)
@given(seed=seeds)
def test_distances_are_metrics(distance, seed):
    rng = np.random.default_rng(seed)
    a, b, c = pad_trains([bursting(rng), poisson(rng), tonic(rng)], WIDTH)
    assert distance(a, a) == 0
    assert distance(a, b) > 0
    np.testing.assert_allclose(distance(a, b), distance(b, a), rtol=1e-12)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_of_a_batch_are_those_of_its_pairs(distance):
    a = jnp.asarray(pad_trains([t for t in batch() if t.size > 1], WIDTH))
    b = jnp.roll(a, 1, axis=0)
    alone = jnp.stack([distance(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(jax.vmap(distance)(a, b), alone, rtol=1e-9)


def test_distance_from_an_empty_train_counts_spikes():
    empty = np.full(WIDTH, np.inf)
    one = pad_trains([np.array([12.0])], WIDTH)[0]
    many = pad_trains([burster()], WIDTH)[0]
    assert van_rossum_distance(one, empty, 10.0) == 1
    assert victor_purpura_distance(many, empty, 0.1) == burster().size
    assert van_rossum_distance(empty, empty, 10.0) == 0
    assert jnp.isnan(isi_wasserstein(many, empty))
    assert jnp.isnan(isi_wasserstein(one[:1], one[:1]))


def test_slopes_of_the_van_rossum_distance_are_finite():
    a, b = jnp.asarray(pad_trains([burster(), metronome(100.0)], WIDTH))
    for same in (a, b):
        slopes = jax.grad(van_rossum_distance, argnums=(0, 2))(a, same, 20.0)
        assert all(jnp.all(jnp.isfinite(slope)) for slope in slopes)


def test_padding_never_changes_a_distance():
    kept = batch()
    a, b = kept[0], kept[2]
    for distance in (
        lambda a, b: van_rossum_distance(a, b, 50.0),
        lambda a, b: victor_purpura_distance(a, b, 0.02),
        isi_wasserstein,
    ):
        expected = distance(a, b)
        padded = distance(*pad_trains([a, b], 3 * WIDTH))
        np.testing.assert_allclose(padded, expected, rtol=1e-9)
