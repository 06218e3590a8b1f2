import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, strategies as st

import dicjax as dj
from dicjax.operator.characteristics import (
    are_logarithms,
    at_rest,
    BEFORE,
    characterise,
    COUNTS,
    CURRENTS,
    DT,
    FEATURES,
    from_coordinates,
    NAMES,
    SMALL,
    STEP,
    to_coordinates,
)
from dicjax.operator.families import find_family


FAMILY = find_family("cortical")
NEURON = FAMILY.neuron
DRAWN = slice(0, 4)
LITTLE_H, MUCH_H, SPONTANEOUS, NO_SODIUM, BRAKED = range(4, 9)


def _cell(**conductances: float) -> np.ndarray:
    """The middle of the family, but for these."""
    g = np.sqrt(np.prod(FAMILY.bounds, axis=0)).astype(np.float32)
    g[list(NEURON.index(*conductances))] = list(conductances.values())
    return g


CELLS = np.concatenate(
    [
        FAMILY.sample(jr.key(0), 4),
        np.stack(
            [
                _cell(H=0.001),
                _cell(H=0.016),
                _cell(H=1.0, M=0.001, leak=0.01),
                _cell(Na=0.01),
                _cell(M=1.2),
            ]
        ),
    ]
)


@pytest.fixture(scope="module")
def rounds():
    return []


@pytest.fixture(scope="module")
def measured(rounds):
    return characterise(FAMILY, CELLS, on_progress=lambda *x: rounds.append(x))


def _spikes_in_a_second(g, amplitude):
    run = dj.simulate(
        NEURON,
        g,
        BEFORE + STEP + 50.0,
        dt=DT,
        stimulus=dj.Step(amplitude, BEFORE, BEFORE + STEP),
        V0=at_rest(FAMILY, g.reshape(-1, g.shape[-1]))[0].reshape(g.shape[:-1]),
    )
    during = (run.spike_times >= BEFORE) & (run.spike_times < BEFORE + STEP)
    return during.sum(axis=-1)


def _current_after(g, rest, V, time=np.inf):
    """What a cell carries (µA/cm²) `time` ms after a jump from rest to `V` (mV)."""
    as_array = lambda x: jnp.asarray(x, jnp.float64)
    rest, V, Ca = as_array(rest), as_array(V), as_array(0)
    gates = tuple(
        last + (first - last) * jnp.exp(-time / tau)
        for first, last, tau in zip(
            NEURON.steady_gates(rest, Ca),
            NEURON.steady_gates(V, Ca),
            NEURON.time_constants(V, Ca),
            strict=True,
        )
    )
    return float(NEURON.total_current(V, gates, Ca, as_array(g)))


def test_members_of_a_family_lie_within_its_ranges_evenly_in_logarithms():
    low, high = FAMILY.bounds
    g = FAMILY.sample(jr.key(1), 4000)
    u = np.log(g / low) / np.log(high / low)
    assert np.all((u > -1e-6) & (u < 1 + 1e-6))
    np.testing.assert_allclose(u.mean(axis=0), 1 / 2, atol=0.02)
    np.testing.assert_allclose(u.std(axis=0), 1 / np.sqrt(12), atol=0.02)
    np.testing.assert_allclose(np.corrcoef(u.T) - np.eye(len(low)), 0, atol=0.06)


def test_an_unknown_family_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'thalamic'.* cortical"):
        find_family("thalamic")


@pytest.mark.parametrize("which", range(len(COUNTS)))
def test_cells_fire_so_often_from_the_measured_current_on(measured, which):
    threshold, gain, high_gain = (
        np.asarray(measured[name][DRAWN], float)
        for name in ("threshold", "gain", "high_gain")
    )
    middle = threshold + (COUNTS[1] - COUNTS[0]) / gain
    highest = middle + (COUNTS[2] - COUNTS[1]) / high_gain
    current = (threshold, middle, highest)[which]
    around = current[:, None] * np.array([[0.999, 1.001]])
    g = np.repeat(CELLS[DRAWN, None], 2, axis=1)
    fewer, enough = _spikes_in_a_second(g, around.astype(np.float32)).T
    assert np.all(fewer < COUNTS[which])
    assert np.all(enough >= COUNTS[which])


def test_at_rest_currents_cancel():
    rest = at_rest(FAMILY, CELLS[DRAWN].astype(float))[0]
    for g, V in zip(CELLS[DRAWN], rest, strict=True):
        below, above = (_current_after(g, V, V + off) for off in (-1e-3, 1e-3))
        assert below < 0 < above  # and the cell returns there


def test_a_holding_current_moves_rest_to_where_it_is_carried():
    held = dataclasses.replace(FAMILY, hold=-0.2)
    rest = at_rest(held, CELLS[DRAWN].astype(float))[0]
    assert np.all(rest < at_rest(FAMILY, CELLS[DRAWN])[0] - 1)
    for g, V in zip(CELLS[DRAWN], rest, strict=True):
        np.testing.assert_allclose(_current_after(g, V, V), -0.2, atol=1e-4)


def test_cells_stay_where_they_rest_when_simulated_from_there(measured):
    rest = at_rest(FAMILY, CELLS[DRAWN])[0]
    np.testing.assert_allclose(measured["rest"][DRAWN], rest, atol=0.02)
    stay, move = (
        dj.simulate(NEURON, CELLS[DRAWN], 50.0, dt=DT, V0=V0, save_every=0.1)
        for V0 in (rest, rest + np.linspace(3, 8, 4, dtype=np.float32))
    )
    assert stay.V is not None and move.V is not None
    assert np.abs(stay.V - rest[:, None]).max() < 0.02
    # Each starts at its own potential, with gates that are settled there.
    away = move.V[:, 0] - rest
    assert np.all(np.abs(away - np.linspace(3, 8, 4)) < 0.15)


def test_resistance_is_that_of_the_membrane_held_at_the_same_deflection(measured):
    # The chord of the I-V curve, which bends within 4 mV, as the last tenth of a step
    # sees it: H opens so slowly there that it takes seconds to settle.
    for i in range(4):
        rest = float(measured["rest"][i])
        carried = _current_after(CELLS[i], rest, rest + SMALL, 0.95 * STEP)
        chord = SMALL / carried
        np.testing.assert_allclose(measured["resistance"][i], chord, rtol=0.03)


def test_what_hyperpolarisation_opens_makes_cells_sag_and_rebound(measured):
    for name in ("sag", "rebound", "rest"):
        assert measured[name][MUCH_H] > measured[name][LITTLE_H] + 0.05
    assert measured["resistance"][MUCH_H] < 0.9 * measured["resistance"][LITTLE_H]


def test_drawn_cells_are_complete_and_have_all_features(measured):
    assert measured.is_complete[:SPONTANEOUS].all()
    assert measured.values.shape == (len(CELLS), len(FEATURES))
    assert np.isfinite(measured.values[measured.is_complete]).all()


def test_spikes_are_as_a_trace_at_fifteen_hertz_shows_them(measured):
    i = 1
    middle = measured["threshold"][i] + 10 / measured["gain"][i]
    run = dj.simulate(
        NEURON,
        CELLS[i],
        BEFORE + STEP + 50,
        dt=DT / 4,
        stimulus=dj.Step(middle, BEFORE, BEFORE + STEP),
        V0=at_rest(FAMILY, CELLS[i : i + 1])[0][0],
        save_every=0.025,
    )
    times = run.spike_times[np.isfinite(run.spike_times)]
    latency = times[0] - BEFORE
    np.testing.assert_allclose(measured["latency"][i], latency, rtol=0.02)
    assert run.V is not None and run.ts is not None
    between = run.V[(run.ts > times[0]) & (run.ts < times[-1])]
    np.testing.assert_allclose(measured["depth"][i], between.min(), atol=0.5)
    peak = run.V.max()
    onset = measured["height"][i]
    assert 5 < peak < 60 and -65 < peak - onset < -35  # where sodium takes over
    half = peak - onset / 2
    share = np.sum(half < run.V) * 0.025 / len(times)  # ms above half, per spike
    np.testing.assert_allclose(measured["width"][i], share, rtol=0.05)


def test_a_cell_that_fires_by_itself_is_not_complete(measured):
    run = dj.simulate(NEURON, CELLS[SPONTANEOUS], 2000.0, dt=DT)
    assert run.num_spikes > 3
    # It has all features: nothing but that it is not silent speaks against it.
    assert np.isfinite(measured.values[SPONTANEOUS]).all()
    assert not measured.is_complete[SPONTANEOUS]


def test_a_cell_without_sodium_is_not_complete(measured):
    assert np.isnan(measured["depth"][NO_SODIUM])
    assert measured["threshold"][NO_SODIUM] > 0.99 * CURRENTS[1]
    assert not measured.is_complete[NO_SODIUM]


def test_a_cell_that_cannot_fire_forty_times_is_not_complete(measured):
    currents = np.geomspace(2.0, CURRENTS[1], 12, dtype=np.float32)
    counts = _spikes_in_a_second(np.tile(CELLS[BRAKED], (12, 1)), currents)
    assert COUNTS[0] <= counts.max() < COUNTS[2]
    assert not measured.is_complete[BRAKED]


@pytest.mark.slow
def test_members_of_a_population_are_measured_alike_whatever_the_others_are(measured):
    rows = np.arange(len(CELLS) + 1) % 2
    status = (np.arange(len(rows)) == 4).astype(np.int32)  # of one that is left out
    none = np.zeros(len(rows))
    g = CELLS[rows].astype(float)
    population = dj.Population(g, np.zeros((len(rows), 2)), status, none, status)
    found = characterise(FAMILY, population)
    x, expected = (to_coordinates(m.values) for m in (found, measured))
    assert len(x) == len(CELLS) and found.is_complete.all()
    for i in range(2):
        own = np.asarray(x)[rows[status == 0] == i]
        np.testing.assert_array_equal(own, np.broadcast_to(own[0], own.shape))
        # Currents are found to 0.01 %, and gains from differences of these.
        np.testing.assert_allclose(own[0], expected[i], rtol=1e-4, atol=1e-3)


def test_bad_conductances_are_refused():
    with pytest.raises(ValueError, match="Na is -1.0"):
        characterise(FAMILY, CELLS * np.array([-1 / CELLS[0, 0], *[1] * 6]))
    with pytest.raises(ValueError, match=r"\(9, 3\)"):
        characterise(FAMILY, CELLS[:, :3])


def test_progress_is_reported_to_the_end(measured, rounds):
    stages, done, totals = zip(*rounds, strict=True)
    assert {stage.name for stage in stages} == {"characterising"}
    assert list(done) == list(range(1, totals[0] + 1)) and set(totals) == {totals[0]}


def test_every_feature_is_explained_with_its_unit():
    assert len(set(NAMES)) == len(NAMES)
    without = {feature.name for feature in FEATURES if not feature.unit}
    assert without == {"sag", "adaptation"}  # ratios
    assert all(len(feature.meaning) > 10 for feature in FEATURES)
    # What is compared by its logarithm has a unit to lose, and no sign.
    assert not any(f.is_log for f in FEATURES if not f.unit or f.unit == "mV")


def test_features_are_had_by_name(measured):
    for i, name in enumerate(NAMES):
        np.testing.assert_array_equal(measured[name], measured.values[:, i])


@given(st.lists(st.floats(1e-6, 1e6), min_size=12, max_size=12))
def test_coordinates_lead_back_to_features(values):
    features = np.asarray(values)
    x = to_coordinates(features)
    np.testing.assert_allclose(from_coordinates(x), features, rtol=1e-10)
    is_log = np.array(are_logarithms(NAMES))
    np.testing.assert_allclose(x[is_log], np.log(features[is_log]), rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(x)[~is_log], features[~is_log])


def test_coordinates_of_some_features_are_those_of_their_names():
    names = ("width", "rest")
    values = jnp.array([[[2.0, -70.0], [3.0, -65.0]]])
    x = to_coordinates(values, names)
    np.testing.assert_allclose(x[..., 0], np.log(values[..., 0]))
    np.testing.assert_array_equal(x[..., 1], values[..., 1])
    slopes = jax.grad(lambda x: from_coordinates(x, names).sum())(x)
    np.testing.assert_allclose(slopes[..., 0], values[..., 0])
