import jax
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.generation.config import GenerateConfig
from dicjax.generation.search import _least_crowded, Search
from dicjax.inference.checkpoint import load_checkpoint, shipped_checkpoint
from dicjax.populations.diversity import participation_ratio
from dicjax.populations.evaluation import window_for
from dicjax.spikes.target import as_target


TARGETS = {"tonic": (5.0, 4.0), "bursting": (-8.0, 8.0)}


def test_the_least_crowded_are_those_with_room_around_them():
    rng = np.random.default_rng(0)
    crowd = 0.01 * rng.normal(size=(80, 3))
    apart = 3 * rng.normal(size=(20, 3)) + 10
    taken = _least_crowded(np.concatenate([crowd, apart]), 20)
    assert taken.tolist() == list(range(80, 100))
    assert _least_crowded(crowd, 100).tolist() == list(range(80))


def test_a_search_that_found_nothing_has_nothing_to_certify():
    loaded = load_checkpoint(shipped_checkpoint("stg"), "stg")
    target = as_target(dj.SpikeTrain(np.arange(1.0, 100.0) * 60.0))
    latent, said = np.zeros(loaded.encoder.config.latent, np.float32), []
    report = lambda *args: said.append(args)
    search = Search(loaded, latent, target, GenerateConfig(), report, 3)
    assert search.certify(jr.key(0)) is None
    assert not said and not search.interrupted


@pytest.mark.parametrize(
    "intervals, spans",
    [
        (np.full(60, 500.0), 20 * 500.0),
        (np.tile([100.0, 200.0, 350.0, 550.0], 20), 40 * 300.0),
        (np.tile([20.0, 20.0, 960.0], 20), 12 * 1000.0),
        (np.full(60, 5.0), 2000.0),  # no less
        (np.full(60, 9000.0), 60_000.0),  # no more
    ],
)
def test_members_are_simulated_for_as_long_as_a_pattern_needs(intervals, spans):
    neuron = dj.stg()
    target = as_target(dj.SpikeTrain(np.cumsum(intervals)))
    duration, discard = window_for(neuron, target)
    assert discard == neuron.required_recipe.discard
    np.testing.assert_allclose(duration - discard, spans, rtol=0.01)


def _search(num, report=lambda *args: None):
    loaded = load_checkpoint(shipped_checkpoint("stg"), "stg")
    own = dj.compensate(jr.key(4), loaded.neuron, TARGETS["tonic"], num=1)
    run = dj.simulate(loaded.neuron, own.g, 6000.0, discard=3000.0, dt=0.05)
    target = as_target(dj.SpikeTrain(run.spike_times[0, : run.num_spikes[0]]))
    latent = np.zeros(loaded.encoder.config.latent, np.float32)
    search = Search(loaded, latent, target, GenerateConfig(), report, num)
    return search, own.g.astype(np.float32)


def test_no_more_members_are_certified_than_are_wanted():
    said = []
    search, own = _search(4, lambda *args: said.append(args))
    search.found = np.repeat(own, 20, axis=0) * (1 + 1e-4 * np.arange(20)[:, None])
    assert search.num_promised == 20 and search.num_valid == 0
    search._certify()
    assert search.num_valid == 5 and len(search.found) == 15  # one to spare
    assert search.num_uncertified == 0 and search.survival == 1
    assert set(said) == {("halving the time step", 4, 4)}  # said again and again
    search._certify()
    assert search.num_valid == 5


def test_members_that_do_not_stand_half_the_step_are_replaced():
    search, own = _search(4)
    search.found = np.concatenate([np.zeros((6, own.shape[1]), "f4"), own, own, own])
    search._certify()
    assert search.num_valid == 3 and search.num_uncertified == 6
    assert len(search.found) == 0 and search.survival == 0.4
    (g, *more) = [g for g, _ in search.valid if len(g)]
    assert all(np.all(g == own) for g in (g, *more))


def test_only_the_nearest_of_what_missed_stay_in_memory():
    search, own = _search(3)
    A = search.neuron.index("A")[0]
    for number in range(2):
        g = np.repeat(own, 8, axis=0)
        g[:, A] *= np.exp(0.1 * np.arange(number, 16, 2))
        search._try(f"round {number}", g)
    size, g, times = zip(*search.missed, strict=True)
    assert len(size) == 3 and list(size) == sorted(size)
    assert all(x.base is None for x in times)
    changes = np.log(np.stack(g)[:, A] / own[0, A])
    np.testing.assert_allclose(changes, 0.1 * (len(search.found) + np.arange(3)), 1e-4)


@pytest.mark.parametrize("label", TARGETS)
def test_first_candidates_are_valid_and_diverse_before_any_is_simulated(label):
    loaded = load_checkpoint(shipped_checkpoint("stg"), "stg")
    neuron = loaded.neuron
    own = dj.compensate(jr.key(4), neuron, TARGETS[label], num=1)
    run = dj.simulate(neuron, own.g, 6000.0, discard=3000.0, dt=0.05)
    times = run.spike_times[0, : run.num_spikes[0]].astype(float)
    target = as_target(dj.SpikeTrain(times))
    assert dj.LABELS[target.label] == label
    posterior = dj.infer([times], "stg")
    latent = np.zeros(loaded.encoder.config.latent, np.float32)
    quiet = lambda stage, done, total: None
    search = Search(loaded, latent, target, GenerateConfig(), quiet, 1)
    g = search.first_candidates(jr.key(0), posterior)
    assert np.all((g >= 0) & (g <= 1.001 * neuron.bounds))
    duration, discard = window_for(neuron, target)
    fired = dj.simulate(neuron, g[::4], duration, discard=discard, dt=0.05)
    features = dj.spike_features(fired.spike_times)
    valid = np.asarray(target.is_valid(features))
    assert valid.mean() > 0.7
    assert participation_ratio(g[::4][valid]) > 3
    again = search.first_candidates(jr.key(0), posterior)
    other = search.first_candidates(jax.random.key(1), posterior)
    assert np.array_equal(g, again)
    assert not np.array_equal(g, other[: len(g)])
