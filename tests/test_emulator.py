import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.inference.checkpoint import load_checkpoint, shipped_checkpoint
from dicjax.inference.config import EmulatorConfig
from dicjax.inference.emulator import (
    emulator_loss,
    goal,
    log_conductances,
    polish,
    train_emulator,
)
from dicjax.inference.library import log_features
from dicjax.spikes.features import features_of
from dicjax.spikes.patterns import BURSTING, TONIC
from dicjax.spikes.target import as_target, Target
from dicjax.spikes.trains import SpikeTrain


SMALL = EmulatorConfig(width=32, num_layers=3, num_steps=600, batch_size=256)
BOUNDS = np.full(4, 10.0, np.float32)
LIMITS = np.log(np.array([1e-3 * BOUNDS, BOUNDS])).astype(np.float32)
NOISE = 0.03


def _members(num, seed):
    # The mean interval is the product of two conductances, within some noise; a large
    # third one makes bursts, and the fourth does nothing.
    rng = np.random.default_rng(seed)
    g = np.exp(rng.uniform(-1.5, 1.5, (num, 4))).astype(np.float32)
    labels = np.where(g[:, 2] > 1.0, BURSTING, TONIC).astype(np.int32)
    mean_isi = np.log(g[:, 0] * g[:, 1]) + rng.laplace(0, NOISE, num)
    features = np.full((num, 7), np.nan, np.float32)
    features[:, 0] = mean_isi
    return g, labels, features


@pytest.fixture(scope="module")
def emulator():
    g, labels, features = _members(4000, 0)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        return train_emulator(
            jr.key(0), g, labels, features, np.ones(len(g)), BOUNDS, SMALL
        )


@pytest.mark.slow
def test_an_emulator_learns_what_conductances_do(emulator):
    g, labels, features = _members(1000, 1)
    log_g = log_conductances(g, BOUNDS)
    predicted = jax.jit(jax.vmap(emulator))(log_g)
    sure = np.abs(log_g[:, 2]) > 0.2
    found = np.argmax(np.asarray(predicted.labels), axis=1)
    assert np.mean(found[sure] == labels[sure]) > 0.98
    away = np.abs(np.asarray(predicted.features)[:, 0] - features[:, 0])
    assert np.median(away) < 2 * NOISE
    # A Laplace distribution of this width, one feature of seven, and certain patterns.
    least = (1 + np.log(2 * NOISE)) / 7
    loss = float(eqx.filter_jit(emulator_loss)(emulator, log_g, labels, features))
    assert least < loss < least + 0.1


def _tonic_target(log_mean_isi):
    metronome = features_of(SpikeTrain(100.0 * np.arange(1, 30)))
    isi = np.asarray(np.exp(log_mean_isi))
    return Target(eqx.tree_at(lambda f: f.mean_isi, metronome, isi), 0.1)


def test_polished_members_reach_the_goal_and_keep_what_it_does_not_feel(emulator):
    g, _, _ = _members(500, 2)
    log_g = log_conductances(g, BOUNDS)
    aim = goal(_tonic_target(0.5))
    new, chance = map(
        np.asarray, polish(emulator, jnp.asarray(log_g), aim, jnp.asarray(LIMITS))
    )
    near = np.abs(log_g[:, 0] + log_g[:, 1] - 0.5) < 1.5
    missed = np.abs(new[:, 0] + new[:, 1] - 0.5)[near]
    assert np.median(missed) < 0.06
    assert np.median(np.abs(new - log_g)[near, 3]) < 0.05
    assert np.mean(new[near, 2] < 0) > 0.95
    # As valid as the noise lets them be, which is what they are said to be.
    expected = 1 - np.exp(-np.log(1.1) / NOISE)
    assert abs(np.median(chance[near]) - expected) < 0.1


def test_the_chance_of_being_valid_is_as_often_so(emulator):
    g, labels, features = _members(4000, 3)
    aim = goal(_tonic_target(0.0))
    log_g = jnp.asarray(log_conductances(g, BOUNDS))
    # Bounds that hold every member where it is.
    one = lambda x: polish(emulator, x[None], aim, jnp.stack([x, x]))[1][0]
    chance = np.asarray(jax.vmap(one)(log_g))
    valid = (labels == TONIC) & (np.abs(features[:, 0]) <= np.log(1.1))
    assert abs(np.mean(valid) - np.mean(chance)) < 0.01
    likely = chance > 0.5
    assert abs(valid[likely].mean() - chance[likely].mean()) < 0.1


def test_members_stay_within_bounds(emulator):
    g, _, _ = _members(500, 4)
    log_g = jnp.asarray(log_conductances(g, BOUNDS))
    aim = goal(_tonic_target(30.0))  # which nothing reaches
    new, chance = map(np.asarray, polish(emulator, log_g, aim, jnp.asarray(LIMITS)))
    assert np.all((new >= LIMITS[0]) & (new <= LIMITS[1]))
    assert np.all(chance < 0.01)


@pytest.mark.parametrize("spikes", [2.0, 4.0, 12.0])
def test_limits_are_those_that_validity_is_judged_by(spikes):
    train = np.cumsum(np.tile([5.0] * (round(spikes) - 1) + [200.0], 20))
    target = as_target(train, 0.1)
    aim = goal(target)
    for side, limit in ((-1, aim.below[3]), (1, aim.above[3])):
        for share in (0.0, 0.95, 1.05):
            member = jax.tree.map(lambda x: x[None], target.features)
            more = member.spikes_per_burst * np.exp(side * share * float(limit))
            member = eqx.tree_at(lambda f: f.spikes_per_burst, member, more)
            assert bool(target.is_valid(member)[0]) == (share < 1)


def assert_knows(loaded, g, labels, features):
    """That the emulator knows what neurons with these conductances fire like."""
    log_g = jnp.asarray(log_conductances(g, loaded.neuron.bounds))
    predicted = jax.jit(jax.vmap(loaded.emulator))(log_g)
    found = np.argmax(np.asarray(predicted.labels), axis=1)
    assert np.mean(found == labels) > 0.9
    away = np.abs(np.asarray(predicted.features) - features)
    assert np.median(away[labels == TONIC, 0]) < 0.02
    for column, most in ((1, 0.03), (2, 0.03), (3, 0.1)):
        assert np.nanmedian(away[labels == BURSTING, column]) < most


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(shipped_checkpoint("stg"), "stg")


def test_the_emulator_that_ships_knows_the_members_that_ship(shipped):
    some = jax.tree.map(lambda x: x[:400], shipped.library)
    assert_knows(shipped, some.g, some.labels, some.features)


@pytest.mark.slow
def test_the_emulator_that_ships_knows_what_neurons_fire_like(shipped):
    neuron = shipped.neuron
    targets = np.random.default_rng(5).uniform([-20, 0], [20, 20], (80, 2))
    population = dj.compensate(jr.key(5), neuron, targets)
    g = population.g[population.status == 0].astype(np.float32)
    run = dj.simulate(neuron, g, 4000.0, discard=2000.0, dt=0.05)
    features = dj.spike_features(run.spike_times)
    assert_knows(shipped, g, np.asarray(features.label), log_features(features))
