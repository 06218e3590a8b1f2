import warnings

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.operator.characteristics import from_coordinates, to_coordinates
from dicjax.operator.config import OperatorConfig
from dicjax.operator.families import find_family
from dicjax.operator.model import untrained


# Of these, width goes with the logarithm of resistance, and sag with nothing.
NAMES = ("rest", "resistance", "width", "sag")
REST, RESISTANCE, WIDTH, SAG = range(4)
NOISE = 0.1
NUM = 2000


@pytest.fixture(scope="module")
def library():
    """Coordinates of members: log width is twice log resistance, but for noise."""
    rng = np.random.default_rng(0)
    resistance = rng.uniform(2.5, 3.5, NUM)
    width = 2 * resistance - 5 + NOISE * rng.standard_normal(NUM)
    rest, sag = rng.uniform(-75, -65, NUM), rng.uniform(0, 0.3, NUM)
    return np.stack([rest, resistance, width, sag], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def operator(library):
    family = find_family("cortical")
    config = OperatorConfig(width=8, num_layers=1)
    g = family.sample(jr.key(0), NUM)
    return untrained(jr.key(0), config, family, NAMES, library, g)


def _drawn(operator, measured, num=500, **options):
    """Coordinates of an ensemble."""
    features = dj.draw_ensemble(jr.key(1), operator, measured, num, **options)
    assert features.shape == (num, len(NAMES)) and np.isfinite(features).all()
    return np.asarray(to_coordinates(features, NAMES))


def test_what_was_measured_comes_back_exactly(operator):
    measured = {"resistance": 21.3, "rest": -70.5}
    features = dj.draw_ensemble(jr.key(1), operator, measured, 50)
    np.testing.assert_allclose(features[:, RESISTANCE], 21.3, rtol=1e-5)
    np.testing.assert_allclose(features[:, REST], -70.5, rtol=1e-5)


@pytest.mark.parametrize("resistance", (2.7, 3.0, 3.4))
def test_what_was_not_measured_follows(operator, resistance):
    x = _drawn(operator, {"resistance": np.exp(resistance)})
    np.testing.assert_allclose(x[:, WIDTH].mean(), 2 * resistance - 5, atol=0.05)
    # As uncertain as it is among members that resist as much: no less, no more.
    assert 0.7 * NOISE < x[:, WIDTH].std() < 1.2 * NOISE
    # What has nothing to do with it stays what it is in the family.
    np.testing.assert_allclose(x[:, SAG].mean(), 0.15, atol=0.015)
    np.testing.assert_allclose(x[:, SAG].std(), 0.3 / np.sqrt(12), rtol=0.15)


def test_a_measured_effect_constrains_its_cause(operator):
    x = _drawn(operator, {"width": np.exp(1.0)})
    np.testing.assert_allclose(x[:, RESISTANCE].mean(), 3.0, atol=0.03)
    assert x[:, RESISTANCE].std() < 0.7 * NOISE  # half of it: twice as steep


def test_without_measurements_the_whole_family_is_sampled(operator, library):
    x = _drawn(operator, {}, 3000)
    spread = library.std(axis=0)
    np.testing.assert_allclose(
        x.mean(axis=0) / spread, library.mean(axis=0) / spread, atol=0.1
    )
    found, expected = (np.cov((v / spread).T) for v in (x, library))
    np.testing.assert_allclose(found, expected, atol=0.15)
    # Between members, not on them.
    away = np.abs((x[:100, None] - library[None]) / spread).max(axis=-1).min(axis=1)
    assert np.mean(away > 1e-3) > 0.8


def test_drawn_neurons_lie_within_the_family(operator, library):
    low, high = library.min(axis=0), library.max(axis=0)
    for measured in ({}, {"resistance": float(np.exp(high[RESISTANCE]))}):
        x = _drawn(operator, measured, spread=0.2 if measured else 0.0)
        for i in (REST, WIDTH, SAG):
            assert np.all((x[:, i] > low[i] - 1e-4) & (x[:, i] < high[i] + 1e-4))


def test_neurons_stray_from_what_was_measured_as_far_as_asked(operator, library):
    measured = {"resistance": np.exp(3.0), "rest": -70.0}
    x = _drawn(operator, measured, 1000, spread=0.2)
    for i, value in ((RESISTANCE, 3.0), (REST, -70.0)):
        share = (x[:, i] - value) / library[:, i].std()
        np.testing.assert_allclose(share.std(), 0.2, rtol=0.1)
        assert abs(share.mean()) < 0.03
    # What follows from it follows.
    slope = np.polyfit(x[:, RESISTANCE], x[:, WIDTH], 1)[0]
    np.testing.assert_allclose(slope, 2, atol=0.3)


def test_features_that_are_not_pinned_only_choose_whom_neurons_resemble(operator):
    measured = {"resistance": np.exp(3.0), "rest": -70.0}
    x = _drawn(operator, measured, pinned=("rest",))
    np.testing.assert_allclose(x[:, REST], -70.0, rtol=1e-5)
    assert 0.01 < x[:, RESISTANCE].std() < 0.15
    np.testing.assert_allclose(x[:, RESISTANCE].mean(), 3.0, atol=0.05)


def test_the_same_key_draws_the_same_neurons(operator):
    draw = lambda key: dj.draw_ensemble(key, operator, {"rest": -70.0}, 20)
    np.testing.assert_array_equal(draw(jr.key(3)), draw(jr.key(3)))
    assert np.all(draw(jr.key(3))[:, SAG] != draw(jr.key(4))[:, SAG])


def test_an_ensemble_is_answered_for(operator):
    features = dj.draw_ensemble(jr.key(1), operator, {"resistance": 21.3}, 8)
    V = dj.respond(operator, np.zeros(70, np.float32), features, every=0.5).V
    assert V.shape == (8, 70) and jnp.isfinite(V).all()


def test_a_cell_within_the_family_is_drawn_without_a_warning(operator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dj.draw_ensemble(jr.key(1), operator, {"resistance": 21.3, "width": 2.5}, 5)


@pytest.mark.parametrize(
    "measured, message",
    [
        ({"rest": -40.0}, "rest of -65.* -40"),
        # Each is common, but not together.
        (
            {"resistance": np.exp(2.6), "width": np.exp(1.9)},
            "'cortical'",
        ),
    ],
)
def test_a_cell_beyond_the_family_is_warned_of(operator, measured, message):
    with pytest.warns(UserWarning, match=message):
        features = dj.draw_ensemble(jr.key(1), operator, measured, 5)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    "measured, message",
    [
        ({"colour": 1.0}, "'colour'.* rest, resistance, width, sag"),
        ({"rest": np.nan}, "rest is nan"),
        ({"sag": np.inf}, "sag is inf"),
        ({"width": 0.0}, "width is 0.0.* positive"),
        ({"resistance": -3.0}, "resistance is -3.0.* positive"),
    ],
)
def test_what_cannot_be_measured_is_refused(operator, measured, message):
    with pytest.raises(ValueError, match=message):
        dj.draw_ensemble(jr.key(1), operator, measured, 5)


def test_features_can_be_pinned_only_if_they_were_measured(operator):
    with pytest.raises(ValueError, match="colour"):
        dj.draw_ensemble(jr.key(1), operator, {"rest": -70.0}, 5, pinned=("colour",))


def test_a_small_library_will_do():
    family = find_family("cortical")
    x = np.stack([np.linspace(-75, -65, 5), np.linspace(0, 0.1, 5)], axis=1)
    operator = untrained(
        jr.key(0),
        OperatorConfig(width=8, num_layers=1),
        family,
        ("rest", "sag"),
        x.astype(np.float32),
        family.sample(jr.key(0), 5),
    )
    features = dj.draw_ensemble(jr.key(1), operator, {"rest": -71.0}, 10)
    np.testing.assert_allclose(features[:, 0], -71, rtol=1e-5)
    assert np.all((features[:, 1] > -0.01) & (features[:, 1] < 0.11))


def test_coordinates_are_not_features(operator, library):
    # What is drawn comes in units: widths in ms, not their logarithms.
    features = dj.draw_ensemble(jr.key(1), operator, {}, 50)
    low, high = (
        np.asarray(from_coordinates(edge, NAMES))
        for edge in (library.min(axis=0), library.max(axis=0))
    )
    assert np.all((features >= low * (1 - 1e-5) - 1e-5) | (low < 0))
    assert np.all(features[:, RESISTANCE] > 10) and high[RESISTANCE] > 30
    assert features.dtype == np.float32
