import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from dicjax.populations.diversity import (
    coverage,
    entropy_dimension,
    participation_ratio,
)


NUM, CHANNELS = 200, 6
DIMENSIONS = (participation_ratio, entropy_dimension)
seeds = st.integers(0, 2**32 - 1)
units = st.lists(st.floats(1e-6, 1e6), min_size=CHANNELS, max_size=CHANNELS)


def population(seed, num=NUM, channels=CHANNELS):
    """Log-normal members, correlated at random."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(num, channels)) @ rng.normal(size=(channels, channels))
    return np.exp(0.5 * mixed)


# Dimensions


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_members_on_a_line_vary_in_one_direction(dimension):
    along = np.linspace(-1, 1, 50)[:, None]
    g = np.exp(along * np.array([0.5, -1.0, 2.0, 0.1]))
    assert dimension(g) == pytest.approx(1.0)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_independent_conductances_vary_in_as_many_directions_as_there_are(dimension):
    # All corners of a cube are exactly uncorrelated.
    corners = np.stack(np.meshgrid(*[[1.0, 3.0]] * 5), axis=-1).reshape(-1, 5)
    assert dimension(corners) == pytest.approx(5.0)
    large = np.exp(np.random.default_rng(0).normal(size=(20_000, 8)))
    assert dimension(large) == pytest.approx(8.0, rel=1e-2)


def test_two_groups_of_equal_channels_are_two_directions():
    a, b = np.meshgrid([1.0, 2.0], [1.0, 5.0])
    g = np.stack([a, a, b, b], axis=-1).reshape(-1, 4)
    assert participation_ratio(g) == pytest.approx(2.0)
    assert entropy_dimension(g) == pytest.approx(2.0)


@given(seed=seeds)
def test_entropy_takes_more_notice_of_small_directions(seed):
    g = population(seed)
    ratio, entropy = participation_ratio(g), entropy_dimension(g)
    assert 1 <= ratio <= entropy + 1e-9 <= CHANNELS + 1e-6


@given(seed=seeds, unit=units)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_dimensions_depend_on_no_unit_and_no_order(dimension, seed, unit):
    g = population(seed)
    rng = np.random.default_rng(seed)
    assert dimension(g * np.array(unit)) == pytest.approx(dimension(g), rel=1e-9)
    shuffled = rng.permuted(np.arange(NUM))
    assert dimension(g[shuffled]) == pytest.approx(dimension(g), rel=1e-9)
    channels = rng.permuted(np.arange(CHANNELS))
    assert dimension(g[:, channels]) == pytest.approx(dimension(g), rel=1e-9)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("constant", (0.0, 0.1, 7.3))
def test_channels_that_do_not_vary_do_not_count(dimension, constant):
    g = population(3)
    more = np.insert(g, 2, constant, axis=1)
    assert dimension(more) == pytest.approx(dimension(g), rel=1e-12)
    assert dimension(np.full((10, 4), constant)) == 0.0
    alone = np.full((10, 3), constant)
    alone[:, 1] = np.arange(1, 11)
    assert dimension(alone) == pytest.approx(1.0)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_diversity_of_fewer_than_three_members_is_not_defined(dimension):
    assert all(math.isnan(dimension(population(0)[:num])) for num in range(3))
    assert dimension(population(0)[:3]) > 1


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_single_precision_gives_the_same_dimension(dimension):
    g = population(4)
    assert dimension(g.astype(np.float32)) == pytest.approx(dimension(g), rel=1e-5)


def test_what_is_below_a_thousandth_of_the_largest_counts_as_none():
    g = population(5)
    g[:, 0] = np.where(np.arange(NUM) % 2, 1.0, 1e-3)
    lower = g.copy()
    lower[:, 0] = np.where(np.arange(NUM) % 2, 1.0, 0.0)
    assert participation_ratio(lower) == pytest.approx(participation_ratio(g))


# Coverage


def test_a_population_covers_itself_and_nothing_far_away():
    g = population(0)
    assert coverage(g, g) == 1.0
    assert coverage(g, g * 1e3) == 0.0


def test_half_of_two_groups_covers_half():
    g = population(0) ** 0.1
    both = np.concatenate([g, 30 * g[:, ::-1]])
    assert coverage(both, g) == coverage(both, 30 * g[:, ::-1]) == 0.5


def test_another_draw_of_the_same_covers_what_theory_says():
    # All but those whose five nearest of both populations are five of their own.
    shares = [coverage(population(7, 2000), g) for g in _draws_like(7, 2000)]
    assert np.mean(shares) == pytest.approx(1 - 2.0**-5, abs=0.01)


def _draws_like(seed, num):
    mixing = np.random.default_rng(seed)
    mixing.normal(size=(num, CHANNELS))
    matrix = mixing.normal(size=(CHANNELS, CHANNELS))
    for other in range(1, 5):
        rng = np.random.default_rng((seed, other))
        yield np.exp(0.5 * rng.normal(size=(num, CHANNELS)) @ matrix)


def test_more_neighbours_cover_more():
    g, other = population(0), population(0)[::7] * 1.3
    shares = [coverage(g, other, neighbours) for neighbours in (1, 3, 5, 20, 500)]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 1.0


@given(seed=seeds, unit=units)
def test_coverage_depends_on_no_unit_and_no_order(seed, unit):
    reference, generated = population(seed), population(seed + 1, 50)
    share = coverage(reference, generated)
    unit = np.array(unit)
    assert coverage(reference * unit, generated * unit) == share
    rng = np.random.default_rng(seed)
    order, other = rng.permuted(np.arange(NUM)), rng.permuted(np.arange(50))
    assert coverage(reference[order], generated[other]) == share
    channels = rng.permuted(np.arange(CHANNELS))
    assert coverage(reference[:, channels], generated[:, channels]) == share


def test_coverage_leaves_out_what_the_reference_holds_constant():
    g, other = population(0), population(1)
    fixed = np.insert(g, 3, 0.1, axis=1)
    assert coverage(fixed, np.insert(other, 3, 9.0, axis=1)) == coverage(g, other)
    assert coverage(fixed, fixed) == 1.0


def test_small_populations_are_covered_as_far_as_that_is_defined():
    g = population(0)
    assert math.isnan(coverage(g[:2], g))
    assert math.isnan(coverage(g[:0], g))
    assert math.isnan(coverage(np.ones((10, 3)), np.ones((10, 3))))
    assert coverage(g[:3], g[:3]) == 1.0
    assert coverage(g, g[:0]) == 0.0
    assert 0 < coverage(g, g[:1]) < 0.1


def test_populations_of_different_models_are_not_compared():
    with pytest.raises(ValueError, match="6 .* 5"):
        coverage(population(0), population(0)[:, :5])
    with pytest.raises(ValueError, match="`num_neighbours`.*0"):
        coverage(population(0), population(0), 0)
