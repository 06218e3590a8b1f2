import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from operators import as_dtype, blank, exact, FAMILY, numbered

import dicjax as dj
from dicjax.operator.characteristics import at_rest, from_coordinates, NAMES
from dicjax.operator.families import Family
from dicjax.operator.model import REMEMBERED
from dicjax.operator.prediction import feature_ranges, respond


NEURON = FAMILY.neuron
CELLS = FAMILY.sample(jr.key(0), 3).astype(float)
DURATION = 240  # ms
LENGTHS = (
    2,
    REMEMBERED,
    pytest.param(2 * REMEMBERED + 1, marks=pytest.mark.slow),
)


@pytest.fixture(scope="module")
def operator():
    return blank()


@pytest.fixture(scope="module")
def features(operator):
    values = np.array(from_coordinates(operator.library[:3], NAMES))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def rest():
    return np.asarray(at_rest(FAMILY, CELLS)[0])


@pytest.fixture(scope="module")
def known(rest):
    return numbered(rest)


@pytest.fixture(scope="module")
def knowing(rest):
    return exact(FAMILY, CELLS, rest)


@pytest.fixture(scope="module")
def noisy():
    """Steps and noise that make all of `CELLS` fire, constant within every ms."""
    rng = np.random.default_rng(0)
    steps = np.repeat(rng.uniform(-0.5, 3, DURATION // 30), 30)
    noise = rng.normal(0, 0.4, (3, DURATION))
    return steps * np.array([[0.7], [1.0], [2.0]]) + noise


def _waveform(per_ms):
    """The same current for the simulator, whose samples are joined by lines."""
    every = 0.0125
    num = round(1 / every)
    values = np.repeat(per_ms, num, axis=1)
    values = np.concatenate([values, values[:, -1:]], axis=1)
    # Half-way on the edge, the integral is the same.
    edges = np.arange(num, values.shape[1] - 1, num)
    values[:, edges] = (values[:, edges] + values[:, edges - 1]) / 2
    return dj.Waveform(values, every)


@pytest.fixture(scope="module")
def simulated(noisy, rest):
    """What `CELLS` do, by the simulator, at every ms."""
    run = dj.simulate(
        NEURON,
        CELLS,
        float(DURATION),
        dt=0.0125,
        stimulus=_waveform(noisy),
        V0=rest,
        save_every=1.0,
    )
    assert run.V is not None and np.all(run.num_spikes >= 3)
    return np.concatenate([rest[:, None], run.V], axis=1)[:, :DURATION]


def _rms(x):
    return np.sqrt(np.mean(np.square(np.asarray(x)), axis=-1))


# What it computes


@pytest.fixture(scope="module")
def by_step(rest, known, noisy):
    """What an operator that knows `CELLS` answers, by its step in ms."""
    steps = (0.05, 0.025, 0.0125, 0.003125)
    answer = lambda step: np.asarray(
        respond(exact(FAMILY, CELLS, rest, step), noisy, known, every=1.0).V
    )
    return {step: answer(step) for step in steps}


@pytest.mark.slow
def test_an_operator_that_knows_cells_answers_as_they_do(by_step, simulated):
    coarse, middle, fine = (
        _rms(by_step[step] - simulated) for step in (0.05, 0.025, 0.0125)
    )
    # Of traces with several spikes of 90 mV: their times are right to some µs.
    assert np.all(fine < 0.1)
    assert np.all(middle < coarse / 3) and np.all(fine < middle)


def test_errors_go_with_the_square_of_the_step(by_step):
    errors = [_rms(by_step[step] - by_step[0.003125]) for step in (0.05, 0.025, 0.0125)]
    for coarse, fine in itertools.pairwise(errors):
        assert np.all((coarse / fine > 3.4) & (coarse / fine < 5))


@pytest.mark.slow
def test_an_operator_of_cells_with_calcium_follows_it():
    stg = dj.stg()
    around = {name: (0.8 * x, 1.25 * x) for name, x in stg.defaults or ()}
    family = Family("crab", stg, around, hold=-1.0)
    g = family.sample(jr.key(0), 3).astype(float)
    rest, Ca = at_rest(family, g)
    steps = np.random.default_rng(0).uniform(-3, 12, (3, 10))
    per_ms = np.repeat(steps, DURATION // 10, axis=1)
    run = dj.simulate(
        stg,
        g,
        float(DURATION),
        dt=0.0125,
        stimulus=dj.Step(family.hold) + _waveform(per_ms),
        V0=rest,
        Ca0=Ca,
        save_every=1.0,
    )
    assert run.V is not None and np.all(run.num_spikes >= 10)
    truth = np.concatenate([rest[:, None], run.V], axis=1)[:, :DURATION]
    operator = exact(family, g, rest, 0.0125)
    answer = respond(operator, per_ms, numbered(rest), every=1.0)
    assert np.all(_rms(answer.V - truth) < 3)
    assert np.all(answer.memory.Ca > 50 * Ca)  # spikes let it in
    start = operator.start(jnp.asarray(rest), jnp.asarray(g))
    np.testing.assert_allclose(start.Ca, Ca, rtol=1e-4)


def test_silence_keeps_cells_at_rest(knowing, known, rest):
    for operator in (knowing, as_dtype(jnp.float32, knowing)):
        answer = respond(operator, np.zeros((3, DURATION)), known, every=0.5)
        assert np.abs(np.asarray(answer.V) - rest[:, None]).max() < 0.2


def test_a_small_current_deflects_by_ohms_law(knowing, known, rest):
    # Until slow gates follow: leak, and what is open at rest.
    I, capacitance = -0.05, float(NEURON.capacitance)
    V = np.asarray(respond(knowing, np.full(20, I), known, every=0.1).V)
    np.testing.assert_allclose(
        V[:, 1] - V[:, 0], I * 0.1 / capacitance, rtol=0.05, atol=1e-4
    )


def test_answers_do_not_depend_on_how_the_current_is_sampled(rest, known):
    operator = exact(FAMILY, CELLS, rest, 0.05)
    per_ms = np.random.default_rng(1).normal(1.5, 1.5, DURATION)
    expected = np.asarray(respond(operator, per_ms, known, every=1.0).V)
    assert expected.max() > 0
    for every, num in ((0.5, 2), (0.05, 20)):
        V = respond(operator, np.repeat(per_ms, num), known, every=every).V
        np.testing.assert_allclose(V[:, ::num], expected, atol=1e-6)
    # Samples that the step does not divide are answered in shorter steps.
    V = respond(operator, np.repeat(per_ms, 8), known, every=0.125).V
    assert np.all(_rms(V[:, ::8] - expected) < 1)
    # So are samples that are shorter.
    coarse = exact(FAMILY, CELLS, rest, 0.1)
    V = respond(coarse, np.repeat(per_ms, 20), known, every=0.05).V
    np.testing.assert_allclose(V[:, ::20], expected, atol=1e-6)


def test_the_past_does_not_depend_on_the_future(knowing, known, noisy):
    before = np.asarray(respond(knowing, noisy, known, every=0.5).V)
    for n in (0, 63, 64, 100, DURATION - 2):
        other = noisy.copy()
        other[:, n:] += 5.0
        after = np.asarray(respond(knowing, other, known, every=0.5).V)
        np.testing.assert_array_equal(after[:, : n + 1], before[:, : n + 1])
        assert np.all(after[:, n + 1] > before[:, n + 1])


@pytest.mark.parametrize("n", LENGTHS)
def test_a_response_continues_from_its_memory(knowing, known, noisy, n):
    whole = respond(knowing, noisy, known, every=0.5)
    first = respond(knowing, noisy[:, :n], known, every=0.5)
    second = respond(knowing, noisy[:, n:], known, every=0.5, memory=first.memory)
    V = np.concatenate([first.V, second.V], axis=1)
    np.testing.assert_allclose(V, whole.V, atol=1e-7)
    np.testing.assert_array_equal(second.V[:, 0], first.memory.V)
    for ours, theirs in zip(
        jax.tree.leaves(second.memory), jax.tree.leaves(whole.memory), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_neurons_answer_alike_alone_and_among_others(knowing, known, noisy):
    together = respond(knowing, noisy, known, every=0.5)
    for i in range(3):
        alone = respond(knowing, noisy[i], known[i], every=0.5)
        assert alone.V.shape == (DURATION,) and alone.memory.V.shape == ()
        np.testing.assert_allclose(alone.V, together.V[i], atol=1e-7)


def test_leading_axes_of_currents_and_features_are_broadcast(knowing, known, noisy):
    both = respond(knowing, noisy[:2], known[:, None], every=0.5)
    assert both.V.shape == (3, 2, DURATION) and both.memory.V.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = respond(knowing, noisy[j], known[i], every=0.5)
            np.testing.assert_allclose(both.V[i, j], alone.V, atol=1e-7)
    going_on = respond(
        knowing, noisy[:2], known[:, None], every=0.5, memory=both.memory
    )
    np.testing.assert_array_equal(going_on.V[..., 0], both.memory.V)


def test_strong_currents_leave_potentials_finite(knowing, known):
    strength = np.array([[-20.0], [20.0], [100.0]])
    I = np.where(np.arange(DURATION) < DURATION / 2, strength, 0)
    for features in (known, known[::-1]):
        assert np.isfinite(respond(knowing, I, features, every=0.5).V).all()


# How it is used


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("other", (np.float32, np.float64))
def test_an_operator_answers_in_its_own_precision(operator, features, dtype, other):
    current = np.linspace(0, 1, 80)
    expected = respond(operator, current.astype(np.float32), features, every=0.25)
    found = respond(operator, current.astype(dtype), features.astype(other), every=0.25)
    assert found.V.dtype == found.memory.units.dtype == jnp.float32
    np.testing.assert_allclose(found.V, expected.V, atol=1e-3)
    double = as_dtype(jnp.float64, operator)
    found = respond(double, current.astype(dtype), features.astype(other), every=0.25)
    assert found.V.dtype == jnp.float64
    np.testing.assert_allclose(found.V, expected.V, atol=0.02)


def test_the_time_between_samples_may_be_any_number(operator, features):
    current = np.ones(70, np.float32)
    expected = respond(operator, current, features, every=0.5).V
    ts = np.arange(70) / 2
    V = respond(operator, current, features, every=ts[1] - ts[0]).V
    np.testing.assert_array_equal(V, expected)


def test_responses_are_the_same_within_transformations(operator, features):
    current = jnp.linspace(0, 1, 80, dtype=jnp.float32)
    features = jnp.asarray(features)
    answer = lambda current, features: (
        respond(operator, current, features, every=0.25).V
    )
    expected = answer(current, features)
    for V in (
        jax.jit(answer)(current, features),
        jax.vmap(answer, (None, 0))(current, features),
        jax.jit(jax.vmap(answer))(jnp.tile(current, (3, 1)), features),
        jax.jit(lambda current: answer(current, features))(current),
    ):
        np.testing.assert_allclose(V, expected, atol=1e-3)


def test_no_neurons_give_no_potentials(operator, features):
    V = respond(operator, np.zeros(80), features[:0], every=0.25).V
    assert V.shape == (0, 80)


def test_gradients_are_those_of_finite_differences(operator, features):
    # Below threshold, over more samples than are remembered.
    operator = as_dtype(jnp.float64, operator)
    features = jnp.asarray(features[0], jnp.float64)
    num = 2 * REMEMBERED + 5
    current = 0.3 + 0.2 * jnp.sin(jnp.linspace(0, 20, num))

    def last(current, features):
        return respond(operator, current, features, every=0.5).V[-1]

    assert float(last(current, features)) < -50
    compiled = jax.jit(last)
    by_current, by_features = jax.jit(jax.grad(last, (0, 1)))(current, features)
    for i in (0, 1, REMEMBERED, num - 2):
        h = 1e-6
        up, down = (compiled(current.at[i].add(x), features) for x in (h, -h))
        np.testing.assert_allclose(by_current[i], (up - down) / (2 * h), rtol=1e-3)
    assert by_current[-1] == 0  # which the last potential does not know yet
    for i in range(len(features)):
        h = 1e-6 * abs(features[i])
        up, down = (compiled(current, features.at[i].add(x)) for x in (h, -h))
        slope = (up - down) / (2 * h)
        np.testing.assert_allclose(by_features[i], slope, rtol=1e-3, atol=1e-6)
        assert by_features[i] != 0


def _changed(features, name, value):
    features = np.array(features)
    features[1, NAMES.index(name)] = value
    return features


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(current=np.r_[1.0, np.nan, 1.0]), r"`current`.* \(1,\)"),
        (dict(current=np.r_[1.0, np.inf]), r"`current`.* \(1,\)"),
        (dict(current=np.ones(1)), r"`current`.* \(1,\)"),
        (dict(every=0.0), "`every`.* 0.0"),
        (dict(every=-0.1), "`every`.* -0.1"),
        (dict(every=5.0), "`every`.* 5.0"),
        (dict(every=np.nan), "`every`.* nan"),
        (dict(features=np.ones((3, 4))), r"`features`.* \(3, 4\)"),
        (dict(rest=np.nan), "rest .* nan"),
        (dict(width=np.inf), "width .* inf"),
        (dict(rest=-7.0), "rest .* -7"),
        (dict(threshold=200.0), "threshold .* 200"),
        (dict(gain=-5.0), "gain .* -5"),
    ],
)
def test_what_makes_no_sense_is_refused(operator, features, change, message):
    asked = {"current": np.ones(3, np.float32), "features": features, "every": 0.5}
    for name, value in change.items():
        if name in NAMES:
            asked["features"] = _changed(features, name, value)
        else:
            asked[name] = value
    as_single = lambda x: np.asarray(x, np.float32)
    current, features = map(as_single, (asked["current"], asked["features"]))
    with pytest.raises(ValueError, match=message):
        respond(operator, current, features, every=asked["every"])


def test_memory_of_other_neurons_is_refused(operator, features):
    current = np.ones(3, np.float32)
    memory = respond(operator, current, features[:2], every=0.5).memory
    with pytest.raises(ValueError, match=r"`memory`.* \(2,\).* \(3,\)"):
        respond(operator, current, features, every=0.5, memory=memory)


def test_features_of_the_library_and_a_little_beyond_are_known(operator):
    low, high = feature_ranges(operator)
    library = np.asarray(from_coordinates(operator.library, NAMES))
    assert np.all((low < library.min(axis=0)) & (high > library.max(axis=0)))
    current = np.ones(3, np.float32)
    for edge in (low, high):
        inside = (0.999 * edge + 0.001 * library.mean(axis=0)).astype(np.float32)
        assert np.isfinite(respond(operator, current, inside, every=0.5).V).all()
