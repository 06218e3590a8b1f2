import dataclasses
import functools

import jax
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.generation.candidates import (
    Candidates,
    choose_source,
    first_candidates,
    least_crowded,
)
from dicjax.generation.config import GenerateConfig
from dicjax.generation.delivery import certificate_of, most_diverse, stopped
from dicjax.generation.search import certify_found, remember, search, wants_more
from dicjax.generation.state import initial_state, Makeup, NearMisses, Problem
from dicjax.inference.checkpoint import load_checkpoint, shipped_checkpoint
from dicjax.populations.diversity import participation_ratio
from dicjax.populations.evaluation import evaluate, window_for
from dicjax.spikes.target import as_target


KEY = jr.key(1)
SMALL = GenerateConfig(candidates_per_round=96)
TARGETS = {"tonic": (5.0, 4.0), "bursting": (-8.0, 8.0)}


def test_the_least_crowded_are_those_with_room_around_them():
    rng = np.random.default_rng(0)
    crowd = 0.01 * rng.normal(size=(80, 3))
    apart = 3 * rng.normal(size=(20, 3)) + 10
    taken = least_crowded(np.concatenate([crowd, apart]), 20)
    assert taken.tolist() == list(range(80, 100))
    assert least_crowded(crowd, 100).tolist() == list(range(80))


def _problem(times, num):
    """The search for members of "stg" that fire like a train."""
    loaded = load_checkpoint(shipped_checkpoint("stg"), "stg")
    target = as_target(dj.SpikeTrain(times))
    latent = np.zeros(loaded.encoder.config.latent, np.float32)
    posterior = dj.infer([times], "stg")
    return Problem(loaded, target, posterior, latent, num, SMALL)


def _example(num, label="tonic"):
    """A search for members that fire like one, and its conductances."""
    problem, own = _example_of(label)
    return dataclasses.replace(problem, num_wanted=num), own.copy()


@functools.cache
def _example_of(label):
    neuron = dj.stg()
    own = dj.compensate(jr.key(4), neuron, TARGETS[label], num=1)
    run = dj.simulate(neuron, own.g, 6000.0, discard=3000.0, dt=0.05)
    times = run.spike_times[0, : run.num_spikes[0]].astype(float)
    return _problem(times, 1), own.g.astype(np.float32)


def undriven(g):
    return Makeup(g, np.zeros((len(g), 0), np.float32))


def quiet(stage, done, total):
    del stage, done, total


def test_a_search_that_found_nothing_has_nothing_to_certify():
    problem, reported = _problem(np.arange(1.0, 100.0) * 60.0, 3), []
    state = initial_state(problem)
    report = lambda *how_far: reported.append(how_far)
    assert certify_found(KEY, problem, state, report) is state
    members = most_diverse(problem, state)
    assert certificate_of(jr.key(0), problem, members, report) is None
    assert not reported


@pytest.mark.parametrize(
    "intervals, spans",
    [
        (np.full(60, 500.0), 20 * 500.0),
        (np.tile([100.0, 200.0, 350.0, 550.0], 20), 100 * 300.0),
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


def test_no_more_members_are_certified_than_are_wanted():
    problem, own = _example(4)
    found = np.repeat(own, 20, axis=0) * (1 + 1e-4 * np.arange(20)[:, None])
    before = initial_state(problem)._replace(found=undriven(found.astype(np.float32)))
    assert before.num_expected == 20 and before.num_certified == 0
    reported = set()
    report = lambda stage, *how_far: reported.add((stage.name, *how_far))
    state = certify_found(KEY, problem, before, report)
    assert state.num_certified == 5 and len(state.found.g) == 15  # one to spare
    assert state.num_uncertified == 0 and state.survival == 1
    assert reported == {("halving_the_time_step", 4, 4)}  # again and again
    assert certify_found(KEY, problem, state, report) is state
    assert before.num_certified == 0 and len(before.found.g) == 20


def test_members_that_are_invalid_at_half_the_step_are_replaced():
    problem, own = _example(4)
    found = np.concatenate([np.zeros((6, own.shape[1]), "f4"), own, own, own])
    state = initial_state(problem)._replace(found=undriven(found))
    state = certify_found(KEY, problem, state, quiet)
    assert state.num_certified == 3 and state.num_uncertified == 6
    assert len(state.found.g) == 0 and state.survival == 0.4
    assert np.all(state.certified.makeup.g == own)


def test_an_error_in_a_later_round_loses_nothing_that_was_found():
    problem, own = _example(4)
    state = initial_state(problem)._replace(found=undriven(own))

    def failing(stage, *how_far):
        raise MemoryError(stage.name)

    after, is_interrupted, failure = search(KEY, problem, failing, state)
    assert isinstance(failure, MemoryError) and not is_interrupted
    assert after.num_certified == 1
    assert "MemoryError" in stopped(failure) and "found" in stopped(failure)
    nothing = initial_state(problem)
    with pytest.raises(MemoryError):
        search(KEY, problem, failing, nothing)


def _tried(problem, state, g):
    """The state after these candidates were simulated."""
    run, verdict = evaluate(problem.neuron, g, problem.target, problem.window)
    candidates = Candidates("correction", undriven(g), np.zeros(len(g), int))
    return remember(problem, state, candidates, run, verdict)


def test_only_the_nearest_of_what_missed_stay_in_memory():
    problem, own = _example(3)
    state, A = initial_state(problem), problem.neuron.index("A")[0]
    for number in range(2):
        g = np.repeat(own, 8, axis=0)
        g[:, A] *= np.exp(0.1 * np.arange(number, 16, 2))
        state = _tried(problem, state, g)
    (g, _), times, distance = state.nearest
    assert len(distance) == 3 and list(distance) == sorted(distance)
    assert times.base is None and g.base is None
    changes = np.log(g[:, A] / own[0, A])
    np.testing.assert_allclose(changes, 0.1 * (len(state.found.g) + np.arange(3)), 1e-4)


def test_a_round_changes_only_the_state_that_it_returns():
    problem, own = _example(3)
    before = initial_state(problem)
    after = _tried(problem, before, own)
    assert [round.num_valid for round in after.rounds] == [1]
    assert after.shares == {"correction": 1.0}
    assert np.array_equal(after.found.g, own)
    assert not before.rounds and not before.shares and not len(before.found.g)
    # Corrections learn from it, too.
    is_own = lambda known: (known.log_g == problem.log_g(own)).all(axis=1)
    assert is_own(after.known).sum() == is_own(before.known).sum() + 1


def test_sources_are_chosen_by_the_share_that_was_valid():
    problem, own = _example(4)
    state = initial_state(problem)
    assert choose_source(problem, state) == "posterior"
    state = state._replace(shares={"posterior": 0.3})
    assert choose_source(problem, state) == "posterior"  # too few near misses to refine
    state = state._replace(shares={"posterior": 0.01})
    assert choose_source(problem, state) == "correction"
    g = np.repeat(own, 8, axis=0)
    g[:, problem.neuron.index("A")[0]] *= np.exp(0.2 * np.arange(8))
    missed = _tried(problem, state, g).near_misses
    assert 0 < len(missed.score) < 8
    assert list(missed.score) == sorted(missed.score) and missed.score[0] > 1
    many = NearMisses(*(np.repeat(x, 300, axis=0) for x in missed))
    state = state._replace(near_misses=many)
    assert choose_source(problem, state) == "refinement"
    state = state._replace(shares={"posterior": 0.01, "refinement": 0.02})
    assert choose_source(problem, state) == "correction"


def test_a_surplus_is_sought_only_where_it_is_cheap():
    problem, own = _example(4)
    state = initial_state(problem)._replace(found=undriven(np.repeat(own, 5, axis=0)))
    assert wants_more(problem, state._replace(shares={"posterior": 0.5}))
    assert not wants_more(problem, state._replace(shares={"correction": 0.1}))


@pytest.mark.slow
@pytest.mark.parametrize("label", ("tonic", "bursting"))
def test_first_candidates_are_valid_and_diverse_before_any_is_simulated(label):
    problem, _ = _example(1, label)
    neuron, target = problem.neuron, problem.target
    assert dj.LABELS[target.label] == label
    g = first_candidates(jr.key(0), problem)
    assert np.all((g >= 0) & (g <= 1.001 * neuron.bounds))
    duration, discard = problem.window
    fired = dj.simulate(neuron, g, duration, discard=discard, dt=0.05)
    features = dj.spike_features(fired.spike_times)
    valid = np.asarray(target.is_valid(features))
    assert valid.mean() > 0.7
    assert participation_ratio(g[valid]) > 3
    again = first_candidates(jr.key(0), problem)
    other = first_candidates(jax.random.key(1), problem)
    assert np.array_equal(g, again)
    assert not np.array_equal(g, other[: len(g)])
