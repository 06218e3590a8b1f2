import numpy as np
import pytest
import scipy.stats
from made_trains import bursting, tonic

import dicjax as dj
from dicjax.spikes import agreement_with, distribution_distance, log_isi_quantiles
from dicjax.spikes.patterns import LABELS, PATTERNS


def train_of(intervals):
    return dj.SpikeTrain(np.concatenate([[0.0], np.cumsum(intervals)]))


def poisson(seed, num=600, mean=200.0):
    return np.random.default_rng(seed).exponential(mean, num)


def gamma(seed, num=600, mean=100.0):
    return np.random.default_rng(seed).gamma(3, mean / 3, num)


def rows(intervals, num):
    times = np.cumsum(intervals.reshape(-1, num), axis=1)
    return np.concatenate([np.zeros((len(times), 1)), times], axis=1)


@pytest.mark.parametrize("kind", (poisson, gamma))
def test_most_trains_of_the_same_process_agree_and_few_of_others(kind):
    train = train_of(kind(0))
    mean = float(np.mean(train.intervals))
    agreement = agreement_with(train, 100 * mean, 0.1)
    same = agreement.compare(rows(kind(1, 100 * 200), 100))
    assert same.agrees.mean() > 0.7
    other = gamma if kind is poisson else poisson
    different = agreement.compare(rows(other(1, 100 * 200, mean), 100))
    assert different.agrees.mean() < 0.2
    slower = agreement.compare(rows(1.6 * kind(1, 100 * 200), 100))
    assert slower.agrees.mean() < 0.05


def test_limits_shrink_with_the_time_that_members_are_simulated_for():
    train = train_of(poisson(0, 6000))
    short, long = (agreement_with(train, span, 0.1) for span in (10_000.0, 100_000.0))
    which = long.limits > np.log1p(0.1) * 1.01
    assert which.any()
    assert np.all(long.limits[which] < 0.6 * short.limits[which])
    assert long.furthest < 0.6 * short.furthest


def test_a_regular_train_is_compared_within_the_tolerance_asked_for():
    for tolerance in (0.05, 0.2):
        rng = np.random.default_rng(0)
        train = train_of(100 + 0.1 * rng.standard_normal(200))
        agreement = agreement_with(train, 2000.0, tolerance)
        own = agreement.limits[: len(agreement.names)]
        np.testing.assert_allclose(own, np.log1p(tolerance), rtol=1e-6)
        assert agreement.furthest < 0.01


def test_features_of_every_pattern_are_compared_by_name():
    made = {
        "tonic": tonic(np.random.default_rng(0)),
        "bursting": bursting(np.random.default_rng(0)),
        "irregular": np.cumsum(poisson(0)),
    }
    for name, times in made.items():
        train = dj.SpikeTrain(times)
        agreement = agreement_with(train, train.duration / 4, 0.1)
        assert LABELS[agreement.label] == name
        pattern = PATTERNS[agreement.label]
        wanted = [x.name for x in (*pattern.compared, *pattern.varied)]
        assert list(agreement.names) == wanted
        own = agreement.compare(train.times[None])
        assert own.agrees.all()
        np.testing.assert_allclose(own.errors, 0, atol=1e-4)


def test_what_a_recording_varies_by_is_allowed_in_silence_at_no_time():
    agreement = agreement_with(train_of(poisson(0)), 20_000.0, 0.1)
    silent = agreement.compare(np.full((3, 4), np.inf))
    assert not silent.agrees.any()
    assert not agreement.patterns[LABELS.index("silent")]


@pytest.mark.parametrize("seed", range(3))
def test_distances_of_distributions_are_those_of_wasserstein(seed):
    rng = np.random.default_rng(seed)
    a, b = np.exp(rng.normal(4, 0.5, 3000)), np.exp(rng.normal(4.2, 0.8, 3000))
    quantiles = [log_isi_quantiles(np.cumsum(x)[None])[0] for x in (a, b)]
    theirs = scipy.stats.wasserstein_distance(np.log(a[1:]), np.log(b[1:]))
    assert float(distribution_distance(*quantiles)) == pytest.approx(theirs, rel=0.06)


def test_quantiles_of_short_and_empty_trains_are_defined_as_far_as_they_can_be():
    times = np.array([[0.0, 5.0, np.inf], [0.0, np.inf, np.inf], [0.0, 1.0, 8.0]])
    q = np.asarray(log_isi_quantiles(times))
    np.testing.assert_allclose(np.exp(q[0]), 5.0, rtol=1e-6)
    assert np.isnan(q[1]).all()
    np.testing.assert_allclose(np.exp(q[2, [0, -1]]), (1, 7), rtol=1e-6)
    alone = [log_isi_quantiles(row) for row in times]
    np.testing.assert_array_equal(alone, q)
