"""What operators are trained on and scored by; trained ones are in another file."""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from operators import blank, FAMILY, knowing, measured_as, SINGLE, SMALL

import dicjax.operator.train as fitting
from dicjax._core.progress import Stage
from dicjax.cli import main
from dicjax.operator.checkpoint import load_operator, operator_config, save_operator
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.families import Family
from dicjax.operator.model import Operator
from dicjax.operator.prediction import respond
from dicjax.operator.scores import DURATION, EVERY, score, START, STOP
from dicjax.operator.training import (
    CHANGE,
    currents,
    LOUDEST,
    make_pool,
    members_of,
    NOISE_MEMORY,
    operator_loss,
    SAMPLED,
    SAMPLES,
    segment,
    SILENT,
    train_operator,
)
from dicjax.sweeps import read_config, run_sweep


SHORT = OperatorTraining(num_steps=4, batch_size=16, pool=16)
NUM = 24


@pytest.fixture(scope="module")
def members():
    return members_of(FAMILY.sample(jr.key(0), NUM), measured_as(NUM))


@pytest.fixture(scope="module")
def pool_of_64(members):
    return eqx.filter_jit(make_pool)(jr.key(1), SINGLE.neuron, members, 64)


@pytest.fixture(scope="module")
def segmented(members, pool_of_64):
    """The pool after a segment, and samples of that."""
    return segment(jr.key(5), SINGLE, pool_of_64, members)


# Currents and trajectories


@pytest.fixture(scope="module")
def pool(members):
    return eqx.filter_jit(make_pool)(jr.key(0), SINGLE.neuron, members, 256)


def _currents(members, pool, loudness, num):
    """Currents of a pool over `num` segments, once its start is forgotten."""
    everyone = jnp.full(len(pool.number), loudness, jnp.float32)
    pool = dataclasses.replace(pool, loudness=everyone)
    compiled, parts = eqx.filter_jit(currents), []
    for i in range(2 * num):
        pool, I = compiled(jr.key(i), pool, members)
        parts.append(np.asarray(I))
    return np.concatenate(parts[num:])


def test_currents_are_steps_and_silence(members, pool):
    I = _currents(members, pool, 0.0, 20)
    assert I.shape == (20 * SAMPLES, 256)
    threshold, low, high = (
        np.asarray(x[pool.number])
        for x in (members.threshold, members.low, members.high)
    )
    assert np.all(low < 0) and np.all(threshold < high)
    assert np.all((I == 0) | (np.clip(I, low, high) == I))
    assert np.mean(threshold < I) > 0.3 and np.mean(I < 0) > 0.1
    assert abs(np.mean(I == 0) - SILENT) < 0.04
    # From silence to silence nothing is seen to change.
    every = SAMPLED / np.mean(np.diff(I, axis=0) != 0)
    assert every == pytest.approx(CHANGE / (1 - SILENT**2), rel=0.15)


def test_currents_are_as_noisy_as_they_are_loud(members, pool):
    assert 0.4 < np.mean(np.asarray(pool.loudness) > 0) < 0.6
    assert 0.9 * LOUDEST < pool.loudness.max() <= LOUDEST
    noise = _currents(members, pool, LOUDEST, 20) - _currents(members, pool, 0.0, 20)
    noise = noise / (LOUDEST * np.asarray(members.threshold)[pool.number])
    assert noise.std() == pytest.approx(1, rel=0.1)
    later = np.mean(noise[10:] * noise[:-10]) / noise.var()
    assert later == pytest.approx(np.exp(-10 * SAMPLED / NOISE_MEMORY), abs=0.05)


def test_members_do_what_an_operator_that_knows_them_does(
    members, pool_of_64, segmented
):
    # The simulation that is learned from, beside the operator's own steps.
    pool, (after, samples) = pool_of_64, segmented
    _, I = eqx.filter_jit(currents)(jr.split(jr.key(5), 3)[0], pool, members)
    assert samples.unit.shape == (64, SAMPLES, 7) and samples.net.shape == (64, SAMPLES)
    short = blank(NUM, dataclasses.replace(SMALL, step=0.025))
    operator = knowing(short, members.x, members.g)
    a = members.g[pool.number]
    start = eqx.filter_jit(Operator.start)(operator, pool.y.V, a)
    features = measured_as(NUM).values[np.asarray(pool.number)]
    answer = respond(operator, I.T, features, every=SAMPLED, memory=start)
    same = np.asarray(after.loudness == pool.loudness)
    stays = same & np.asarray(after.number == pool.number)
    assert 40 < stays.sum() < 64  # some start over
    away = np.abs(np.asarray(answer.memory.V - after.y.V))[stays]
    assert np.median(away) < 0.05 and np.quantile(away, 0.9) < 1.5
    fresh = np.asarray(after.y.V)[~stays]
    assert np.all(fresh == float(SINGLE.neuron.initial_V))
    # The net current is what moves the potential.
    V = np.asarray(answer.V)[:, 1:]
    slope = (V[:, 2:] - V[:, :-2]) / (2 * SAMPLED)
    net = np.asarray(samples.net)[:, 1 : 1 + slope.shape[1]]
    near = np.abs(slope) < 1
    assert np.corrcoef(slope[near], net[near])[0, 1] > 0.9


def test_the_loss_is_nothing_where_amplitudes_are_those_of_members(
    members, pool_of_64, segmented
):
    operator, (_, samples) = blank(NUM), segmented

    @eqx.filter_jit
    def loss(factor, samples):
        off = knowing(operator, members.x, members.g * factor)
        return operator_loss(off, members[pool_of_64.number], samples)

    factors = np.array([1.0, 1.01, 1.03, 1.1], np.float32)
    none, little, more, most = (loss(factor, samples) for factor in factors)
    assert none < 1e-6
    assert 1e-4 < little < more < most
    # Where no current passes, only the supervised part counts.
    silent = dataclasses.replace(samples, unit=jnp.zeros_like(samples.unit))
    spread = np.asarray(operator.branch.amplitude_spread)
    expected = 0.1 * np.mean((np.log(1.1) / spread) ** 2)
    np.testing.assert_allclose(loss(factors[-1], silent), expected, rtol=1e-3)


# Settings that do not fit


@pytest.fixture
def lenient():
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        yield


class Stopped(Exception):
    """A training that was stopped."""


@pytest.mark.usefixtures("lenient")
def test_a_folder_goes_on_with_the_training_it_was_begun_with(members, tmp_path):
    train = functools.partial(train_operator, blank(), FAMILY, members)
    steps = []

    def note(stage, done, total):
        assert (stage.name, total) == ("training", SHORT.num_steps)
        steps.append(done)
        if len(steps) == 1:
            raise Stopped

    kept = {"folder": tmp_path, "save_every": 1, "on_progress": note}
    whole = train(SHORT)
    with pytest.raises(Stopped):
        train(SHORT, **kept)
    again = train(SHORT, **kept)
    assert steps == [2, 4]  # the first half was done
    once_more = train(SHORT, **kept)
    assert len(steps) == 2  # all of it was
    for other in (again, once_more):
        pairs = zip(jax.tree.leaves(whole), jax.tree.leaves(other), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    for change in ({"num_steps": 8}, {"seed": 1}):
        with pytest.raises(ValueError, match=tmp_path.name):
            train(dataclasses.replace(SHORT, **change), folder=tmp_path)
    wider = blank(config=OperatorConfig(width=12, num_layers=2))
    with pytest.raises(ValueError, match=tmp_path.name):
        train_operator(wider, FAMILY, members, SHORT, folder=tmp_path)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("pool, batch_size", [(16, 64), (16, 7)])
def test_batches_that_a_pool_does_not_divide_into_are_refused(
    members, pool, batch_size
):
    training = OperatorTraining(num_steps=4, pool=pool, batch_size=batch_size)
    with pytest.raises(ValueError, match="batch_size"):
        train_operator(blank(), FAMILY, members, training)


# Libraries


@pytest.fixture
def characterised(monkeypatch):
    """Sizes of the parts that were characterised, by what stands in for that."""
    sizes = []

    def characterise(family, g, *, on_progress):
        sizes.append(len(g))
        on_progress(Stage("characterising"), 1, 1)
        return measured_as(len(g), seed=int(1e6 * g[0, 0]))

    monkeypatch.setattr(fitting, "characterise", characterise)
    return sizes


def _make(folder, seed=0, num=100):
    return fitting.characterise_members(FAMILY, num, seed, at_once=40, folder=folder)


def test_a_library_is_made_of_parts_that_are_kept(characterised, tmp_path):
    library = _make(tmp_path)
    assert characterised == [40, 40, 20]
    assert len(library) == 80 and library.measured.is_complete.all()
    again = _make(tmp_path)
    assert len(characterised) == 3
    parts = sorted(tmp_path.glob("*.npz"))
    assert len(parts) == 3
    parts[1].unlink()
    once_more = _make(tmp_path)
    assert characterised[3:] == [40]
    for other in (again, once_more):
        np.testing.assert_array_equal(other.g, library.g)
        np.testing.assert_array_equal(other.measured.values, library.measured.values)


def test_parts_of_other_members_are_made_again(characterised, tmp_path):
    library = _make(tmp_path)
    part = sorted(tmp_path.glob("*.npz"))[0]
    with np.load(part) as file:
        arrays = dict(file)
    np.savez(part, **(arrays | {"g": 2 * arrays["g"]}))
    again = _make(tmp_path)
    assert characterised[3:] == [40]
    np.testing.assert_array_equal(again.g, library.g)
    assert not np.array_equal(_make(tmp_path, seed=1).g, library.g)
    assert characterised[4:] == [40, 40, 20]


def test_members_apart_are_never_learned_from(characterised, tmp_path):
    library = _make(None)
    seen, unseen = library.seen, library.unseen
    assert len(seen) + len(unseen) == len(library) and len(unseen) == 5
    of = lambda part: {g.tobytes() for g in part.g}
    assert not of(seen) & of(unseen)
    for part in (seen, unseen):
        i = [of(library[[j]]) <= of(part) for j in range(len(library))]
        np.testing.assert_array_equal(part.measured.values, library.measured.values[i])


# Scores


def _trace(times, height=40.0):
    """Triangles of 2 ms, at these times after the onset of a step that depolarises."""
    t = EVERY * np.arange(round(DURATION / EVERY) + 1)
    V = np.where((t >= START) & (t < STOP), -58.0, -60.0)
    for time in times:
        away = np.abs(t - START - time)
        V = np.maximum(V, height - (height + 60) * away)
    return V


@pytest.fixture(scope="module")
def truth():
    return np.stack([_trace((50, 150, 300, 400)), _trace((100, 200)), _trace(())])


def test_the_truth_is_its_own_perfect_prediction(truth):
    scores = score(truth, truth)
    assert scores.num == 3 and scores.matched == 1
    for name, value in dataclasses.asdict(scores).items():
        assert name in ("num", "matched") or value == 0, name


def test_a_late_prediction_is_late_by_what_it_is(truth):
    for shift, matched in ((1.0, 1.0), (1.9, 1.0), (5.0, 0.0)):
        late = np.roll(truth, round(shift / EVERY), axis=1)
        scores = score(late, truth)
        np.testing.assert_allclose(scores.timing, shift, rtol=1e-5)
        np.testing.assert_allclose(scores.latency, shift, rtol=1e-2)
        assert scores.matched == matched
        assert scores.spike_count == scores.wrong_count == scores.missed == 0


def test_missed_and_added_spikes_are_counted(truth):
    missing = np.stack([_trace((50, 150, 300)), truth[1], truth[2]])
    scores = score(missing, truth)
    np.testing.assert_allclose(scores.spike_count, 1 / 6)
    np.testing.assert_allclose(scores.wrong_count, 1 / 3)
    np.testing.assert_allclose(scores.matched, 2 * 5 / (5 + 6))
    assert scores.missed == scores.false == 0
    firing = np.stack([truth[0], truth[1], _trace((250,))])
    scores = score(firing, truth)
    assert scores.false == 1 and scores.missed == 0
    np.testing.assert_allclose(scores.spike_count, 1 / 6)


def test_a_silent_prediction_misses_all(truth):
    scores = score(np.repeat(truth[2:], 3, axis=0), truth)
    assert scores.missed == scores.spike_count == 1
    assert scores.matched == scores.false == scores.steady == 0
    assert np.isnan(scores.timing) and np.isnan(scores.width)


def test_smaller_spikes_are_smaller(truth):
    small = np.stack([_trace((50, 150, 300, 400), 30.0), truth[1] - 2, truth[2] + 1.5])
    scores = score(small, truth)
    assert 0 < scores.height < 0.15 and scores.spike_count == 0
    np.testing.assert_allclose(scores.steady, 1.5, atol=1e-3)


@pytest.mark.parametrize("which", (slice(0, 2), slice(2, 3)))
def test_traces_that_all_fire_or_are_all_silent_have_scores(truth, which):
    scores = score(truth[which], truth[which])
    assert scores.spike_count == scores.centred_l2 == 0 or np.isnan(scores.centred_l2)
    assert np.isnan(scores.false) == (which.start == 0)
    assert np.isnan(scores.missed) == (which.start == 2)


def test_what_diverged_is_scored_all_the_same(truth):
    wild = truth.copy()
    wild[0, 3000:] = np.nan
    scores = score(wild, truth)
    assert np.isfinite(scores.centred_l2_mean) and scores.spike_count > 0
    assert START < STOP < DURATION


# On disk


def test_an_older_operator_is_replaced_whole(tmp_path):
    path = tmp_path / "operator"
    save_operator(path, blank(), SMALL, {"scores": {}})
    wide = OperatorConfig(width=12, num_layers=3, step=0.05)
    save_operator(path, blank(config=wide), wide, {})
    assert operator_config(path) == wide
    loaded = load_operator(path)
    assert loaded.step == 0.05
    pairs = itertools.zip_longest(*map(jax.tree.leaves, (loaded, blank(config=wide))))
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)
    assert [x.name for x in tmp_path.iterdir()] == ["operator"]


def test_an_operator_of_a_family_that_is_not_known_is_refused(tmp_path):
    family = Family("crab", FAMILY.neuron, FAMILY.ranges)
    save_operator(tmp_path / "crab", blank(family=family), SMALL, {})
    with pytest.raises(ValueError, match="crab"):
        load_operator(tmp_path / "crab")


# All of it


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
def test_an_operator_is_trained_and_tuned_at_the_command_line(tmp_path, capsys):
    def run(*args):
        with pytest.raises(SystemExit) as stopped:
            main(["operator", *map(str, args)])
        return int(stopped.value.code or 0), *capsys.readouterr()

    data = ("--data", tmp_path / "data")
    shape = ("--operator.width", 16, "--operator.num-layers", 2)
    training = {"members": 64, "num-steps": 64, "num-corrections": 2}
    training |= {"pool": 64, "batch-size": 32}
    settings = [x for k, v in training.items() for x in (f"--training.{k}", v)]
    train = ("train", "cortical", *data, *shape, *settings, "--out", tmp_path / "one")
    status, said, _ = run(*train)
    assert status == 0 and "seen members" in said and "unseen members" in said
    status, _, err = run(*train)
    assert status == 2 and "exists already" in err

    config = tmp_path / "sweep.toml"
    config.write_text('job = "operator"\nfamily = "cortical"\nnum = 64\n')
    run_sweep(read_config(config), tmp_path / "swept")
    where = ("--sweep", tmp_path / "swept", "--out", tmp_path / "again")
    status, _, err = run("train", "cortical", *shape, *settings, *where)
    assert status == 0, err
    one, again = (load_operator(tmp_path / name) for name in ("one", "again"))
    leaves = map(jax.tree.leaves, (one, again))
    for x, y in zip(*leaves, strict=True):
        np.testing.assert_array_equal(x, y)

    tune = ("tune", "width", "--operator", tmp_path / "one", *data)
    how = ("--members", 64, "--num-steps", 3, "--out", tmp_path / "two")
    status, said, err = run(*tune, *how)
    assert status == 0, err
    assert "Median error of width" in said
    two = load_operator(tmp_path / "two")
    assert operator_config(tmp_path / "two") == operator_config(tmp_path / "one")
    assert not np.array_equal(one.branch.last.weight, two.branch.last.weight)
    np.testing.assert_array_equal(one.library, two.library)
