import csv

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_neuron import BOXES, CHANNELS, random_cells, steady_current

from dicjax.dics.conductances import (
    dynamic_input_conductances,
    normaliser,
    sensitivity,
    steady_state_slope,
    threshold,
)
from dicjax.neurons.curves import Scaled
from dicjax.neurons.models import MODELS


SLOW = pytest.mark.slow
# The other model adds little to these, and takes long to compile.
MOSTLY_STG = pytest.mark.parametrize(
    "model", ["stg", pytest.param("stg-prinz", marks=SLOW)]
)
NUM = 40
NEURONS = {name: MODELS[name]() for name in BOXES}
POTENTIALS = np.linspace(-75.0, 20.0, NUM)


def cells(model):
    return random_cells(model, NUM)


def rows(*arrays):
    return zip(*map(np.asarray, arrays), strict=True)


@jax.jit
def slopes(neuron, g, V):
    return jax.vmap(lambda g, V: steady_state_slope(neuron, g, V))(g, V)


@pytest.fixture(scope="module", params=BOXES)
def model(request):
    return request.param


@pytest.fixture(scope="module")
def published(data):
    path = data / "published_populations" / "stg_julia_dics_at_vth.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    columns = lambda *names: np.array([[float(row[n]) for n in names] for row in rows])
    g = columns(*(f"g_{name}" for name in CHANNELS))
    assert g.shape == (2500, 8)
    return g, columns("V_th_grid_mV")[:, 0], columns("g_f", "g_s", "g_u")


# Dynamic input conductances


def test_conductances_sum_to_the_slope_of_the_steady_state_current(model):
    # Fast + slow + ultraslow is everything the membrane does once it has settled,
    # whatever the timescales are.
    neuron, g, h = NEURONS[model], cells(model), 1e-4
    dics = dynamic_input_conductances(neuron, g, POTENTIALS)
    for total, V, cell in rows(dics.sum(-1), POTENTIALS, g):
        rise = steady_current(model, V + h, cell) - steady_current(model, V - h, cell)
        scale = cell[7] if model == "stg" else 0.01  # mS/cm²
        assert float(total) == pytest.approx(rise / (2 * h * scale), rel=1e-5)


def test_the_slope_is_that_of_the_independent_current(model):
    neuron, g, h = NEURONS[model], cells(model), 1e-4
    for actual, V, cell in rows(slopes(neuron, g, POTENTIALS), POTENTIALS, g):
        rise = steady_current(model, V + h, cell) - steady_current(model, V - h, cell)
        assert float(actual) == pytest.approx(rise / (2 * h), rel=1e-5)


def test_published_conductances_are_reproduced_for_2500_neurons(published):
    g, V, expected = published
    actual = dynamic_input_conductances(
        NEURONS["stg"], g, V, calcium_weight="ultraslow"
    )
    error = np.abs(actual - expected) / np.maximum(1, np.abs(expected))
    assert error.max() <= 1e-10


def test_the_weight_of_calcium_moves_conductance_between_timescales_only(published):
    g, V, _ = published
    g, V = g[:NUM], V[:NUM]
    weighted = dynamic_input_conductances(NEURONS["stg"], g, V)
    forced = dynamic_input_conductances(
        NEURONS["stg"], g, V, calcium_weight="ultraslow"
    )
    np.testing.assert_allclose(weighted.sum(-1), forced.sum(-1), rtol=1e-12)
    assert 1e-4 < np.abs(np.subtract(weighted, forced)).max() < 0.1


def test_sensitivities_times_conductances_are_the_input_conductances(model):
    neuron, g = NEURONS[model], cells(model)

    def by_sensitivity(g, V):
        return sensitivity(neuron, g, V) @ g / normaliser(neuron, g)

    actual = jax.jit(jax.vmap(by_sensitivity))(g, POTENTIALS)
    expected = dynamic_input_conductances(neuron, g, POTENTIALS)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def slowed(neuron, factor):
    slower = lambda curve: Scaled(curve, factor)
    gate = lambda x: eqx.tree_at(lambda x: x.time_constant, x, replace_fn=slower)
    channel = lambda c: eqx.tree_at(lambda c: c.gates, c, tuple(map(gate, c.gates)))
    return eqx.tree_at(
        lambda n: (n.channels, n.timescales, n.calcium.time_constant),
        neuron,
        (
            tuple(map(channel, neuron.channels)),
            tuple(map(slower, neuron.timescales)),
            factor * neuron.calcium.time_constant,
        ),
    )


@MOSTLY_STG
def test_a_common_factor_on_all_time_constants_changes_nothing(model):
    neuron, g = NEURONS[model], cells(model)
    slow = slowed(neuron, 3.0)
    at = jnp.asarray(-40.0), jnp.asarray(1.0)
    assert slow.time_constants(*at)[3] == 3 * neuron.time_constants(*at)[3]
    np.testing.assert_allclose(
        dynamic_input_conductances(slow, g, POTENTIALS),
        dynamic_input_conductances(neuron, g, POTENTIALS),
        rtol=1e-10,
        atol=1e-10,
    )


def test_the_time_constant_of_a_variable_decides_where_its_conductance_goes():
    # Of sodium alone, activation is as fast as the fast timescale itself.
    neuron, V = NEURONS["stg"], -40.0
    S = np.asarray(jax.jit(sensitivity)(neuron, cells("stg")[0], V))
    share = lambda name: S[:, CHANNELS.index(name)]
    assert share("Na")[0] < 0 < share("Na")[1:].sum()
    fast, slow, ultraslow = share("Kd")
    assert fast > 0 and slow > 0 and ultraslow == 0  # instant driving force, m_Kd
    fast, slow, ultraslow = share("H")
    assert fast > 0 and slow == 0 and ultraslow > 0
    np.testing.assert_allclose(share("leak"), [1, 0, 0])


def test_without_a_third_timescale_all_that_is_not_fast_is_slow():
    neuron, g = NEURONS["stg"], cells("stg")
    fast, slow, _ = neuron.timescales
    two = eqx.tree_at(lambda n: n.timescales, neuron, (fast, slow, None))
    dics = dynamic_input_conductances(two, g, POTENTIALS)
    three = dynamic_input_conductances(neuron, g, POTENTIALS)
    np.testing.assert_allclose(dics[:, 0], three[:, 0])
    np.testing.assert_allclose(dics[:, 1], three[:, 1:].sum(-1), rtol=1e-8)
    assert (dics[:, 2] == 0).all()


@MOSTLY_STG
def test_single_precision_comes_close_to_double(model):
    neuron, g = NEURONS[model], cells(model)
    double = np.asarray(dynamic_input_conductances(neuron, g, POTENTIALS))
    g = g.astype(np.float32)
    single = np.asarray(dynamic_input_conductances(neuron, g, POTENTIALS))
    assert single.dtype == np.float32
    scale = np.maximum(1, np.abs(double).max(-1, keepdims=True))
    assert (np.abs(single - double) / scale).max() < 1e-4


def test_one_potential_serves_all_cells_and_leading_axes_lead_the_result(model):
    neuron, g = NEURONS[model], cells(model)
    flat = dynamic_input_conductances(neuron, g, -50.0)
    grid = dynamic_input_conductances(neuron, g.reshape(5, 8, 8), -50.0)
    assert grid.shape == (5, 8, 3)
    np.testing.assert_array_equal(grid.reshape(NUM, 3), flat)


# Threshold


def test_published_thresholds_lie_on_the_next_point_of_their_grid(published):
    g, V, _ = (column[::62][:NUM] for column in published)
    found = jax.tree.map(np.asarray, threshold(NEURONS["stg"], g))
    assert (found.status == 0).all()
    assert np.abs(found.V - V).max() <= 0.0101
    assert (found.V <= V + 1e-9).all()


@MOSTLY_STG
def test_at_threshold_the_slope_falls_through_zero(model):
    neuron, g = NEURONS[model], cells(model)
    found = threshold(neuron, g)
    ok = np.asarray(found.status == 0)
    assert ok.sum() > NUM / 2
    own = np.asarray(found.V)
    at = lambda V: np.asarray(slopes(neuron, g, np.where(ok, V, -50.0)))[ok]
    assert (np.abs(at(own)) < 1e-9 * np.sum(g)).all()
    assert (at(own - 1e-3) > 0).all() and (at(own + 1e-3) < 0).all()
    for V in np.arange(-80.0, -40.0, 2.5):  # and the first time it does so
        lower = ok & (own > V)
        assert (at(np.full(NUM, V))[lower[ok]] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("differentiate", (jax.jacfwd, jax.jacrev))
@pytest.mark.parametrize("model", ("stg", "stg-prinz"))
def test_derivatives_of_the_threshold_are_those_of_finite_differences(
    model, differentiate
):
    neuron, g = NEURONS[model], cells(model)
    g = g[np.flatnonzero(np.asarray(threshold(neuron, g).status) == 0)[0]]
    derivatives = jax.jit(differentiate(lambda g: threshold(neuron, g[None]).V[0]))(g)
    moved = np.tile(g, (NUM, 1))
    moved[:16] += np.concatenate([np.diag(1e-4 * g), -np.diag(1e-4 * g)])
    up, down = np.asarray(threshold(neuron, moved).V)[:16].reshape(2, 8)
    np.testing.assert_allclose(derivatives, (up - down) / (2e-4 * g), rtol=1e-4)


def test_a_leak_alone_has_no_threshold():
    g = np.tile(np.array([0.0] * 7 + [0.01]), (NUM, 1))
    found = threshold(NEURONS["stg"], g)
    assert {found.names[i] for i in np.asarray(found.status)} == {"none"}
    assert np.isnan(found.V).all()


def test_a_slope_that_is_negative_from_the_start_says_so():
    g = cells("stg")
    g[1] = np.where(np.arange(8) == CHANNELS.index("Na"), 100.0, 0.0)
    found = threshold(NEURONS["stg"], g)
    names = [found.names[i] for i in np.asarray(found.status)]
    assert names[1] == "starts negative" and np.isnan(found.V[1])
    others = threshold(NEURONS["stg"], cells("stg"))
    np.testing.assert_array_equal(found.V[2:], others.V[2:])


@MOSTLY_STG
def test_the_threshold_of_single_precision_comes_close_to_double(model):
    neuron, g = NEURONS[model], cells(model)
    double, single = threshold(neuron, g), threshold(neuron, g.astype("f4"))
    assert single.V.dtype == jnp.float32
    np.testing.assert_array_equal(double.status, single.status)
    np.testing.assert_allclose(double.V, single.V, atol=0.01)


# The boundary


@pytest.mark.parametrize("door", (threshold, dynamic_input_conductances))
def test_bad_conductances_are_named_by_channel_and_cell(door):
    g = cells("stg")
    g[4, 2] = -0.5
    at = () if door is threshold else (-50.0,)
    with pytest.raises(ValueError, match=r"CaT is -0.5 mS/cm² in cell \(4,\)"):
        door(NEURONS["stg"], g, *at)
    with pytest.raises(ValueError, match=r"`g`.*\(40, 7\)"):
        door(NEURONS["stg"], g[:, :7], *at)
