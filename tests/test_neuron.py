import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray

from dicjax.dics.conductances import dynamic_input_conductances, threshold
from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import Constant, Gate, Sigmoid
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Calcium, Neuron, root, State, Temperature


# The tables of Liu et al. (1998) and Prinz et al. (2003), in plain numpy. Other tests
# take them as the truth, so nothing here comes from the package.
# S(V; A, B, C, D) = A + B / (1 + exp((V + D) / C)), in mV, ms, µM, mS/cm².

CHANNELS = ("Na", "Kd", "CaT", "CaS", "KCa", "A", "H", "leak")
M_NA, H_NA, M_KD, M_CAT, H_CAT, M_CAS, H_CAS, M_KCA, M_A, H_A, M_H = range(11)
STEADY = np.array(
    [  # C, D
        (-5.29, 25.5),
        (5.18, 48.9),
        (-11.8, 12.3),
        (-7.2, 27.1),
        (5.5, 32.1),
        (-8.1, 33),
        (6.2, 60),
        (-12.6, 28.3),
        (-8.7, 27.2),
        (4.9, 56.9),
        (6, 70),
    ]
).T
TIME_CONSTANTS = np.array(
    [  # A, B, C, D
        (1.32, -1.26, -25, 120),
        (0, 0.67, -10, 62.9),
        (7.2, -6.4, -19.2, 28.3),
        (21.7, -21.3, -20.5, 68.1),
        (105, -89.8, -16.9, 55),
        (0, 1, 1, 0),  # m_CaS, a bell
        (0, 1, 1, 0),  # h_CaS, a bell
        (90.3, -75.1, -22.7, 46),
        (11.6, -10.4, -15.2, 32.9),
        (38.6, -29.2, -26.5, 38.9),
        (272, 1499, -8.73, 42.2),
    ]
).T
FIRST_GATE = np.array([M_NA, M_KD, M_CAT, M_CAS, M_KCA, M_A, M_H])
EXPONENT = np.array([3, 4, 3, 3, 4, 3, 1])
INACTIVATED = [0, 2, 3, 5]  # Na, CaT, CaS, A
INACTIVATION = [H_NA, H_CAT, H_CAS, H_A]
POOLS = {"stg": (0.94, 0.05, 20.0), "stg-prinz": (9.39, 0.05, 200.0)}
BOXES = {
    "stg": np.array([8000, 350, 12, 50, 250, 600, 0.7, 0.02]),
    "stg-prinz": np.array([500, 125, 12.5, 10, 25, 50, 0.05, 0.05]),
}


def steady_gates(model, V, Ca):
    C, D = STEADY
    x = 1 / (1 + np.exp((V + D) / C))
    x[M_KCA] *= Ca / (Ca + 3)
    if model == "stg-prinz":
        x[M_H] = 1 / (1 + np.exp((V + 75) / 5.5))
    return x


def time_constants(model, V):
    A, B, C, D = TIME_CONSTANTS
    tau = A + B / (1 + np.exp((V + D) / C))
    tau[H_NA] *= 1.5 + 1 / (1 + np.exp((V + 34.9) / 3.6))
    tau[M_CAS] = 1.4 + 7 / (np.exp((V + 27) / 10) + np.exp(-(V + 70) / 13))
    tau[H_CAS] = 60 + 150 / (np.exp((V + 55) / 9) + np.exp(-(V + 65) / 16))
    if model == "stg-prinz":
        tau = 2 * tau
        tau[M_H] = 2 / (np.exp(-(V + 169.7) / 11.6) + np.exp((V - 26.7) / 14.3))
    return tau


def channel_currents(model, V, x, Ca, g):
    E_Ca = 80.0
    if model == "stg-prinz":
        E_Ca = 500 * 8.6174e-5 * 283.15 * np.log(3000 / Ca)
    E = np.array([50, -80, E_Ca, E_Ca, -80, -80, -20, -50])
    p = np.ones(8)
    p[:7] = x[FIRST_GATE] ** EXPONENT
    p[INACTIVATED] *= x[INACTIVATION]
    return g * p * (V - E)


def field(t, y, model, g):
    """Derivatives of V, the eleven gates in table order, and calcium."""
    V, x, Ca = y[0], y[1:12], y[12]
    influx, baseline, tau_Ca = POOLS[model]
    I = channel_currents(model, V, x, Ca, g)
    dy = np.empty(13)
    dy[0] = -I.sum()
    dy[1:12] = (steady_gates(model, V, Ca) - x) / time_constants(model, V)
    dy[12] = (-influx * (I[2] + I[3]) - Ca + baseline) / tau_Ca
    return dy


def zero_of(f, low, high) -> Any:
    return scipy.optimize.brentq(f, low, high, xtol=1e-15)


def steady_calcium(model, V, g):
    influx, baseline, _ = POOLS[model]

    def imbalance(Ca):
        I = channel_currents(model, V, steady_gates(model, V, Ca), Ca, g)
        return Ca - baseline + influx * (I[2] + I[3])

    if model == "stg":  # its calcium currents do not depend on calcium
        return -imbalance(0.0)
    return zero_of(imbalance, 1e-4, 3000.0)


def steady_current(model, V, g):
    Ca = steady_calcium(model, V, g)
    return channel_currents(model, V, steady_gates(model, V, Ca), Ca, g).sum()


def random_cells(model, num, seed=0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.02, 1, (num, 8)) * BOXES[model]


def test_a_classic_value_of_the_reference_itself():
    # At rest the sodium gate is closed and the potassium current pulls towards -80 mV.
    x = steady_gates("stg", -70.0, 0.05)
    assert x[M_NA] == pytest.approx(2.2211e-4, rel=1e-3)
    assert x[M_H] == 0.5
    assert time_constants("stg", -70.0)[M_KD] == pytest.approx(6.545, rel=1e-3)


@pytest.mark.parametrize("model", BOXES)
def test_the_vector_field_is_that_of_the_published_tables(model):
    rng = np.random.default_rng(1)
    num = 64
    V, Ca = rng.uniform(-85, 45, num), np.exp(rng.uniform(-4, 4, num))
    gates, g = rng.uniform(0, 1, (num, 11)), random_cells(model, num)
    expected = np.stack(
        [field(0.0, np.r_[V[i], gates[i], Ca[i]], model, g[i]) for i in range(num)]
    )
    y = State(V=jnp.asarray(V), gates=tuple(jnp.asarray(gates.T)), Ca=jnp.asarray(Ca))
    neuron = MODELS[model]()
    one = lambda y, g: neuron.vector_field(jnp.asarray(0.0), y, g, None)
    dy = jax.jit(jax.vmap(one))(y, jnp.asarray(g))
    actual = np.stack((dy.V, *dy.gates, dy.Ca), axis=-1)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("model", BOXES)
def test_an_applied_current_depolarises(model):
    neuron = MODELS[model]()
    g = jnp.asarray(random_cells(model, 1)[0])
    dV = lambda I: neuron.vector_field(jnp.asarray(0.0), neuron.initial_state(), g, I).V
    difference = dV(jnp.asarray(3.0)) - dV(None)
    assert difference == pytest.approx(3.0, rel=1e-9)  # µA/cm² over 1 µF/cm²


@pytest.mark.parametrize("model", BOXES)
def test_gates_start_in_equilibrium(model):
    neuron = MODELS[model]()
    y = neuron.initial_state()
    V, Ca = {"stg": (-70.0, 0.5), "stg-prinz": (-60.0, 0.05)}[model]
    assert (y.V, y.Ca) == (V, Ca)
    np.testing.assert_allclose(y.gates, steady_gates(model, V, Ca), rtol=1e-12)


@pytest.mark.parametrize("model", BOXES)
def test_steady_calcium_balances_influx_and_decay(model):
    neuron = MODELS[model]()
    V, g = np.linspace(-100.0, 60.0, 64), random_cells(model, 64, seed=2)
    Ca = jax.jit(jax.vmap(neuron.steady_calcium))(jnp.asarray(V), jnp.asarray(g))
    expected = [steady_calcium(model, *at) for at in zip(V, g, strict=True)]
    np.testing.assert_allclose(Ca, expected, rtol=1e-10)


def test_without_a_calcium_pool_calcium_stays_where_it_is():
    neuron = Neuron("passive", (LEAK,), (Constant(1.0), Constant(2.0), None), -50.0)
    y, g = neuron.initial_state(), jnp.ones(1)
    assert neuron.steady_calcium(y.V, g) == 0
    assert neuron.vector_field(jnp.asarray(0.0), y, g, None).Ca == 0


MODES = {"forward": jax.jacfwd, "reverse": jax.jacrev}


@pytest.mark.parametrize("second", MODES)
@pytest.mark.parametrize("others", MODES)
@pytest.mark.parametrize(
    "residual, solution",
    (
        (lambda x, p: jnp.log(x) - p, np.full(4, np.exp(1.7))),
        (lambda x, p: jnp.exp(x) - p, [np.log(1.7), 1 / 1.7, -(1.7**-2), 2 * 1.7**-3]),
    ),
    ids=("exponential", "logarithm"),
)
def test_a_root_carries_exact_derivatives_up_to_the_third(
    residual, solution, others, second
):
    f = lambda p: root(lambda x: residual(x, p), jnp.ones_like(p))
    df = MODES[others](f)
    d2f = MODES[second](df)
    d3f = MODES[others](d2f)
    values = jax.jit(lambda p: (f(p), df(p), d2f(p), d3f(p)))(jnp.asarray(1.7))
    np.testing.assert_allclose(values, solution, rtol=1e-12)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_a_root_is_found_to_the_rounding_of_its_dtype(dtype):
    p = jnp.asarray(1.7, dtype)
    x = root(lambda x: x * x * x + x - p, jnp.ones_like(p))
    assert x.dtype == dtype
    exact = zero_of(lambda x: x**3 + x - float(p), 0, 2)
    assert abs(float(x) - exact) < 2 * jnp.finfo(dtype).eps


def test_a_neuron_of_any_precision_computes_in_it():
    neuron = MODELS["stg"]().with_dtype(jnp.dtype("float32"))
    leaves = jax.tree.leaves(eqx.filter(neuron, eqx.is_array))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    g = jnp.ones(8, jnp.float32)
    dy = neuron.vector_field(jnp.zeros((), "float32"), neuron.initial_state(), g, None)
    assert {leaf.dtype for leaf in jax.tree.leaves(dy)} == {jnp.dtype("float32")}


# Temperature


def at_twenty(neuron, q10=2.0):
    """The same with all kinetics twice as fast, declared 10 °C lower."""
    return at_ten(neuron, q10).at(20.0)


def at_ten(neuron, q10=2.0):
    return dataclasses.replace(neuron, temperature=Temperature(10.0, 10.0, q10))


@pytest.mark.parametrize(
    "model", (pytest.param("stg-prinz", marks=pytest.mark.slow), "da")
)
def test_temperature_leaves_input_conductances_and_threshold_alone(model):
    neuron = MODELS[model]()
    g, cold, warm = neuron.default_g, at_ten(neuron), at_twenty(neuron)
    at = neuron.V_ref, jnp.asarray(0.5)
    for declared, slow, fast in zip(
        *(n.time_constants(*at) for n in (neuron, cold, warm)), strict=True
    ):
        assert float(declared) == float(slow) == 2 * float(fast)
    np.testing.assert_allclose(
        dynamic_input_conductances(warm, g, float(neuron.V_ref)),
        dynamic_input_conductances(cold, g, float(neuron.V_ref)),
        rtol=1e-10,
    )
    warm_V, V = (float(threshold(n, g).V) for n in (warm, cold))
    assert warm_V == pytest.approx(V, abs=1e-9)
    steady_calcium = jax.jit(lambda neuron, V: neuron.steady_calcium(V, g))
    for V in (-70.0, -40.0):
        np.testing.assert_allclose(
            steady_calcium(warm, V), steady_calcium(cold, V), rtol=1e-12
        )


@pytest.mark.parametrize("model", ("stg", "da"))
def test_with_capacitance_temperature_only_changes_the_speed_of_time(model):
    neuron = MODELS[model]()
    g, warm = neuron.default_g, at_twenty(neuron)
    warm = dataclasses.replace(warm, capacitance=neuron.capacitance / 2)
    y = neuron.initial_state()
    y = State(V=y.V + 20, gates=tuple(x / 2 for x in y.gates), Ca=y.Ca)
    slow, fast = (n.vector_field(jnp.asarray(0.0), y, g, None) for n in (neuron, warm))
    for a, b in zip(jax.tree.leaves(slow), jax.tree.leaves(fast), strict=True):
        assert 2 * float(a) == pytest.approx(float(b), rel=1e-12)
    h = jnp.asarray(0.05)
    for a, b in zip(
        neuron.relax(y.V, y.gates, y.Ca, h),
        warm.relax(y.V, y.gates, y.Ca, h / 2),
        strict=True,
    ):
        assert float(a) == float(b)


def test_a_neuron_without_temperature_says_how_to_have_one():
    with pytest.raises(ValueError, match="stg .*`Temperature`"):
        MODELS["stg"]().at(20.0)
    squid = MODELS["hodgkin-huxley"]()
    warm = squid.at(16.3)
    assert warm.temperature is not None
    assert float(warm.temperature.speed) == pytest.approx(3)
    assert squid.at(6.3).initial_state() == squid.initial_state()


# Declarations


LEAK = GatedChannel("leak", reversal=-50.0)
NA = GatedChannel("Na", (Gate(3, Sigmoid(-25.5, -5.29), Constant(1.0)),), reversal=50.0)
SCALES = (Constant(1.0), Constant(10.0), None)


@pytest.mark.parametrize(
    "channels, options, message",
    (
        ((LEAK, NA, LEAK), {}, "leak.*leak"),
        ((NA,), {}, "'leak'.*Na"),
        ((NA, LEAK), {"normaliser": "Kd"}, "'Kd'"),
        (
            (NA, LEAK),
            {"calcium": Calcium(("CaT",), 1.0, 0.05, 20.0)},
            "'CaT'",
        ),
        ((NA, LEAK), {"defaults": {"Na": 1.0}}, "'Na', 'leak'"),
    ),
)
def test_a_declaration_that_contradicts_itself_is_refused(channels, options, message):
    with pytest.raises(ValueError, match=message):
        Neuron("odd", channels, SCALES, -50.0, **options)


def test_channels_are_found_by_name_and_unknown_ones_are_named():
    neuron = MODELS["stg"]()
    assert neuron.channel_names == CHANNELS
    assert neuron.index("leak", "Na") == (7, 0)
    with pytest.raises(ValueError, match="stg .* 'Nap'.*KCa"):
        neuron.index("Na", "Nap")


def test_a_neuron_without_published_conductances_says_so():
    neuron = Neuron("odd", (NA, LEAK), SCALES, -50.0)
    with pytest.raises(ValueError, match="odd .* default"):
        _ = neuron.default_g
    given = dataclasses.replace(neuron, defaults={"leak": 0.1, "Na": 120.0})
    assert given.default_g.tolist() == [120.0, 0.1]
    assert dataclasses.replace(given, V_ref=-40.0).defaults == given.defaults


def test_a_channel_needs_as_many_gate_values_as_it_has_gates():
    with pytest.raises(ValueError):
        NA.current(jnp.asarray(0.0), (), jnp.asarray(0.0))
