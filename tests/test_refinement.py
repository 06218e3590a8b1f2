import functools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.dics.conductances import dynamic_input_conductances
from dicjax.dics.sampling import compensate
from dicjax.populations.neuromodulation import path
from dicjax.populations.refinement import refine
from dicjax.spikes.features import features_of


STG = dj.stg()
TARGETS = {"tonic": (5.0, 4.0), "bursting": (-8.0, 8.0)}
FLOAT = jnp.dtype("float32")


def train_of(g):
    run = dj.simulate(STG, g[None], 6000.0, discard=3000.0)
    return run.spike_times[0, : run.num_spikes[0]].astype(float)


@functools.cache
def population(label, num=32, seed=0):
    return compensate(jr.key(seed), STG, TARGETS[label], num=num, dtype=FLOAT).g


@functools.cache
def example(label):
    return train_of(population(label, 1, seed=7)[0])


@functools.cache
def refined_in_two_rounds(label, keep_dics):
    g = population(label)
    return refine(STG, g, example(label), keep_dics=keep_dics, max_rounds=2)


@pytest.mark.parametrize(
    "label, keep_dics",
    [
        pytest.param("tonic", False, marks=pytest.mark.slow),
        pytest.param("bursting", True, marks=pytest.mark.slow),
        pytest.param("tonic", True, marks=pytest.mark.slow),
        pytest.param("bursting", False, marks=pytest.mark.slow),
    ],
)
def test_equal_input_conductances_become_equal_firing_in_two_rounds(label, keep_dics):
    train, g = example(label), population(label)
    refined = refined_in_two_rounds(label, keep_dics)
    assert refined.valid_before.mean() < 0.8
    assert refined.valid.mean() >= {"tonic": 0.97, "bursting": 0.85}[label]
    again = dj.simulate(
        STG, refined.g, refined.duration, discard=3000.0, dt=STG.required_recipe.dt / 2
    )
    fired = dj.spike_features(again.spike_times)
    target = features_of(dj.SpikeTrain(np.asarray(train)))
    valid = np.asarray(dj.is_valid(fired, target, 0.1))
    np.testing.assert_array_equal(valid, refined.valid)
    dics = lambda g: np.asarray(dynamic_input_conductances(STG, np.float64(g), -51.0))
    moved = np.abs(dics(refined.g) - dics(g))[:, 1:].max(axis=1)
    assert moved.max() < 5e-3 if keep_dics else moved.max() > 0.05


@pytest.mark.parametrize(
    "label, keep_dics",
    [
        pytest.param("bursting", True, marks=pytest.mark.slow),
        pytest.param("tonic", False, marks=pytest.mark.slow),
        pytest.param("bursting", False, marks=pytest.mark.slow),
    ],
)
def test_no_member_gets_worse_and_valid_ones_are_left_alone(label, keep_dics):
    g, refined = population(label), refined_in_two_rounds(label, keep_dics)
    assert np.all(refined.score <= refined.score_before)
    assert np.all(refined.valid >= refined.valid_before)
    same = refined.valid_before
    np.testing.assert_array_equal(refined.g[same], g[same])
    before, between, after = refined.shares
    assert before == pytest.approx(same.mean())
    assert after == pytest.approx(refined.valid.mean())
    # As given, and in each round all that are still invalid.
    num_simulated = len(g) * (1 + (1 - before) + (1 - between))
    assert refined.num_simulated == pytest.approx(num_simulated)


@pytest.mark.slow
def test_a_single_member_is_refined_by_its_own_derivatives():
    train = example("tonic")
    mine = population("tonic", 1, seed=3) * np.float32(1.0)
    mine[:, STG.index("CaS")[0]] *= 1.5
    refined = refine(STG, mine, train, estimator="autodiff")
    assert not refined.valid_before[0] and refined.valid[0]
    assert "1 of 1 members fire like the target" in str(refined)
    assert refined.num_slopes > 0


@pytest.mark.slow
def test_members_without_derivatives_stay_as_they_are():
    is_leak = np.array(STG.channel_names) == "leak"
    silent = population("tonic", 1) * is_leak.astype(np.float32)
    target = example("tonic")
    found = refine(STG, silent, target, estimator="autodiff", keep_dics=True)
    assert not found.valid.any()
    np.testing.assert_array_equal(found.g, silent)


@pytest.mark.slow
def test_members_of_another_pattern_find_it():
    g = np.concatenate([population("tonic", 32), population("bursting", 8)])
    refined = refine(STG, g, example("tonic"), max_rounds=4)
    assert np.isinf(refined.score_before[32:]).all()
    assert np.isfinite(refined.score[32:]).mean() > 0.5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"estimator": "adam"}, "`estimator`.*'adam'"),
        ({"tolerance": 0.0}, "`tolerance`.*0.0"),
        ({"g": np.full((2, 8), np.nan, np.float32)}, "nan"),
        ({"g": np.ones((4, 8), np.float32)}, "20 .*autodiff"),
    ],
)
def test_bad_requests_are_refused_with_the_remedy(change, message):
    train = np.arange(1, 60) * 80.0
    settings = {"g": np.ones((2, 8), np.float32), **change}
    with pytest.raises(ValueError, match=message):
        refine(STG, settings.pop("g"), train, **settings)


def test_a_silent_target_is_refused():
    silent = dj.spike_features(np.array([5.0]))
    with pytest.raises(ValueError, match="silent"):
        refine(STG, np.ones((2, 8), np.float32), silent)


# Paths


@pytest.mark.slow
def test_a_population_is_led_from_tonic_firing_to_bursting():
    start = compensate(jr.key(0), STG, (5.0, 4.0), num=32, dtype=FLOAT)
    targets = [(5.0, 4.0), (-5.0, 4.0)]
    free = ("CaS", "A")
    found = path(STG, start, targets, through=free, correct=False)
    assert [dj.LABELS[i] for i in found.pattern] == ["tonic", "bursting"]
    assert (found.status == 0).all() and found.g.shape == (2, 32, 8)
    for g, target in zip(found.g, targets, strict=True):
        dics = dynamic_input_conductances(STG, np.float64(g), -51.0)[:, 1:]
        np.testing.assert_allclose(dics, np.tile(target, (32, 1)), atol=5e-3)
    fixed = [i for i in range(8) if i not in STG.index(*free)]
    np.testing.assert_array_equal(found.g[:, :, fixed], found.g[:1, :, fixed][[0] * 2])
    corrected = path(STG, start, targets, through=free)
    assert corrected.valid.mean() > 0.95 > found.valid.mean()
    assert np.all(corrected.valid >= corrected.valid_before)
    dics = dynamic_input_conductances(STG, np.float64(corrected.g[1]), -51.0)[:, 1:]
    np.testing.assert_allclose(dics, np.tile((-5.0, 4.0), (32, 1)), atol=5e-3)
    num = (corrected.valid & (corrected.status == 0)).all(axis=0).sum()
    assert str(corrected).splitlines()[-1].startswith(f"{num} ")


@pytest.mark.slow
def test_waypoints_out_of_reach_and_other_mistakes_say_so():
    start = compensate(jr.key(0), STG, (5.0, 4.0), num=8, dtype=FLOAT)
    with pytest.raises(ValueError, match=r"Waypoint 1, \(500, 4\)"):
        path(STG, start, [(500.0, 4.0)], through=("CaS", "H"))
    with pytest.raises(ValueError, match="1 .* 2 "):
        path(STG, start, [(5.0, 4.0)], expected=[np.arange(1, 50) * 9.0] * 2)
