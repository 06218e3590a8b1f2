"""When a train is valid: how far its features may be from those of a target."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from made_trains import (
    burster,
    features_of,
    KINDS,
    metronome,
    poisson,
    tonic,
    trains,
    WIDTH,
)

from dicjax.spikes.features import spike_features
from dicjax.spikes.patterns import LABELS, PATTERNS
from dicjax.spikes.target import Target
from dicjax.spikes.trains import pad_trains
from dicjax.spikes.validity import feature_errors, is_valid


@jax.jit
@jax.grad
def slope_of_error(times, target):
    return jnp.nansum(feature_errors(spike_features(times), target) ** 2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_errors_are_finite_for_every_regime(kind):
    times = jnp.asarray(pad_trains([kind(np.random.default_rng(5))], WIDTH)[0])
    for target in (metronome(90.0), burster(), poisson(np.random.default_rng(6))):
        target = features_of(target)
        slope = slope_of_error(times, target)
        if jnp.sum(jnp.isfinite(times)) > 2:
            assert jnp.all(jnp.isfinite(slope))


def with_fields(features, **changes):
    changes = {k: jnp.asarray(v) for k, v in changes.items()}
    return dataclasses.replace(features, **changes)


@pytest.mark.parametrize("edge", (1.1, 1 / 1.1))
def test_tonic_members_are_valid_up_to_the_tolerance(edge):
    target = features_of(metronome(100.0))
    inside, outside = 100 * edge ** (1 - 1e-6), 100 * edge ** (1 + 1e-6)
    assert is_valid(features_of(metronome(inside)), target, 0.1)
    assert not is_valid(features_of(metronome(outside)), target, 0.1)
    assert is_valid(features_of(metronome(outside)), target, 0.11)


@pytest.mark.parametrize("field", ("period", "intra_burst_isi"))
@pytest.mark.parametrize("edge", (1.1, 1 / 1.1))
def test_bursting_members_are_valid_up_to_the_tolerance(field, edge):
    target = features_of(burster())
    for power, valid in ((1 - 1e-6, True), (1 + 1e-6, False)):
        changed = {field: getattr(target, field) * edge**power}
        assert is_valid(with_fields(target, **changed), target, 0.1) == valid


@pytest.mark.parametrize(
    ("spikes", "member", "tolerance", "valid"),
    (
        (4.0, 4.5, 0.1, True),  # half a spike is always allowed
        (4.0, 4.51, 0.1, False),
        (4.0, 3.5, 0.0, True),
        (10.0, 11.0, 0.1, True),  # and so is the tolerance
        (10.0, 8.99, 0.1, False),
    ),
)
def test_spikes_per_burst_may_miss_by_half_or_by_the_tolerance(
    spikes, member, tolerance, valid
):
    target = with_fields(features_of(burster()), spikes_per_burst=spikes)
    features = with_fields(target, spikes_per_burst=member)
    assert is_valid(features, target, tolerance) == valid


@pytest.mark.parametrize("quartile", (0, 1, 2))
def test_irregular_members_must_match_the_mean_and_every_quartile(quartile):
    target = features_of(poisson(np.random.default_rng(0)))
    assert is_valid(target, target, 0.0)
    for factor, valid in ((1.099, True), (1.101, False)):
        quartiles = jnp.asarray(target.isi_quartiles).at[quartile].multiply(factor)
        features = with_fields(target, isi_quartiles=quartiles)
        assert is_valid(features, target, 0.1) == valid
    off = with_fields(target, mean_isi=1.101 * target.mean_isi)
    assert not is_valid(off, target, 0.1)


def test_a_different_label_is_never_valid():
    rng = np.random.default_rng(0)
    different = [np.array([]), tonic(rng), burster(), poisson(rng)]
    members = spike_features(pad_trains(different, WIDTH))
    assert members.label.tolist() == [0, 1, 2, 3]
    for i in range(4):
        target = jax.tree.map(lambda x, i=i: x[i], members)
        assert is_valid(members, target, 100.0).tolist() == [j == i for j in range(4)]


def test_errors_are_log_ratios_of_the_regime_of_the_target():
    steady, bursts = metronome(100.0), burster(1000.0, 5, 20.0)
    members = spike_features(
        pad_trains([metronome(110.0), burster(900.0, 4, 21.0)], WIDTH)
    )
    errors = feature_errors(members, features_of(steady))
    mean_isi = np.asarray(members.mean_isi)
    np.testing.assert_allclose(errors[:, 0], np.log(mean_isi / 100))
    np.testing.assert_array_equal(errors[:, 1:], 0)

    missing, errors = feature_errors(members, features_of(bursts))
    assert jnp.all(jnp.isnan(missing[:3])) and missing[3] == 0
    np.testing.assert_allclose(errors, [*np.log([0.9, 21 / 20, 4 / 5]), 0])

    irregular = features_of(poisson(np.random.default_rng(0)))
    expected = np.log(110 / np.array([irregular.mean_isi, *irregular.isi_quartiles]))
    errors = np.asarray(feature_errors(members, irregular)[0])
    np.testing.assert_allclose(errors, expected)

    silent = features_of(np.array([]))
    np.testing.assert_array_equal(feature_errors(members, silent), 0)


def target_of(times, tolerance=0.1):
    return Target(features_of(times), tolerance)


@given(
    times=trains(),
    aims=trains(),
    tolerance=st.floats(0.01, 0.9),
    factor=st.floats(0.4, 2.5),
)
@example(np.cumsum([5.0, 5, 90] * 9), np.cumsum([5.0, 90] * 9), 0.1, 1.0)
def test_errors_are_within_limits_if_and_only_if_a_train_is_valid(
    times, aims, tolerance, factor
):
    target = target_of(aims, tolerance)
    for near in (times, factor * np.asarray(aims), np.asarray(aims)[::2]):
        features = features_of(near)
        errors = np.asarray(target.errors(features))
        within = (np.abs(errors) <= target.limits(errors)).all()
        alike = int(features.label) == target.label
        assert bool(target.is_valid(features)) == (within and alike)


@pytest.mark.parametrize("pattern", PATTERNS, ids=LABELS)
def test_every_feature_a_pattern_is_compared_by_can_make_a_train_invalid(pattern):
    trains = {
        "silent": np.array([]),
        "tonic": metronome(100.0),
        "bursting": burster(),
        "irregular": poisson(np.random.default_rng(0)),
    }
    target = target_of(trains[pattern.name])
    assert target.pattern == pattern and target.is_valid(target.features)
    for place, feature in enumerate(pattern.compared):
        for factor in (0.8, 1.3):
            changed = with_feature(target.features, feature, factor)
            off = np.abs(np.asarray(target.errors(changed)))
            assert np.argmax(off) == place and not target.is_valid(changed)


def with_feature(features, feature, factor):
    """Features of which one is multiplied, wherever it is held."""
    for name in (x.name for x in dataclasses.fields(features)):
        value = np.asarray(getattr(features, name))
        if value.dtype.kind != "f":
            continue
        for part in np.ndindex(value.shape):
            changed = value.copy()
            changed[part] *= factor
            found = dataclasses.replace(features, **{name: jnp.asarray(changed)})
            if feature.read(found) == factor * feature.read(features):
                return found
    raise AssertionError(feature.name)


def test_a_float64_target_does_not_change_the_type_of_float32_members():
    target = features_of(burster())
    members = features_of(burster(), np.float32)
    assert feature_errors(members, target).dtype == jnp.float32
    assert is_valid(members, target, 0.01)
