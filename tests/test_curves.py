import decimal
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from dicjax._core import strong
from dicjax.neurons.curves import (
    Bell,
    BOLTZMANN,
    CalciumSaturation,
    Constant,
    Exponential,
    Gate,
    GoldmanHodgkinKatz,
    Linoid,
    linoid,
    MagnesiumBlock,
    Nernst,
    Power,
    Product,
    RateGate,
    Scaled,
    Sigmoid,
    Sum,
)
from dicjax.neurons.models import MODELS


DTYPES = ("float32", "float64")
# What is finite in single precision mostly is so in double.
MOSTLY_SINGLE = pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in DTYPES}
# Where linear rates divide 0 by 0, and where the dopamine neuron did so with a pole.
SINGULAR = (
    -55.0,
    -45.7,
    -43.2,
    -42.0,
    -41.2,
    -40.0,
    -38.72724,
    -38.70987,
    -29.7,
    -27.0,
)
potentials = st.floats(-150, 100, width=32)
concentrations = st.floats(0, 1000, width=32)
NUM = 64  # points that are evaluated at once
EDGES = np.array([(-150, 0), (100, 0), (-150, 1000), (100, 1000)], np.float32).T


@functools.cache
def kinetics(name, dtype):
    neuron = MODELS[name]().with_dtype(jnp.dtype(dtype))

    def values(V, Ca):
        x = neuron.steady_gates(V, Ca)
        return x, neuron.time_constants(V, Ca), neuron.unit_currents(V, x, Ca)

    one = lambda V, Ca: (*values(V, Ca), jax.jacfwd(values, (0, 1))(V, Ca))
    return jax.jit(jax.vmap(one))


def points(elements):
    return arrays(np.float32, NUM - EDGES.shape[1], elements=elements)


@MOSTLY_SINGLE
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10)
@given(V=points(potentials), Ca=points(concentrations))
def test_kinetics_are_finite_and_physical_everywhere(name, dtype, V, Ca):
    check_kinetics(name, dtype, np.append(V, EDGES[0]), np.append(Ca, EDGES[1]))


@MOSTLY_SINGLE
@pytest.mark.parametrize("name", MODELS)
def test_kinetics_are_as_good_where_rates_divide_zero_by_zero(name, dtype):
    at = np.array(SINGULAR, dtype)
    beside = [np.nextafter(at, np.asarray(far, dtype)) for far in (-1e3, 1e3)]
    V = np.resize(np.concatenate([at, *beside]), NUM)
    check_kinetics(name, dtype, V, np.full(NUM, 0.05))


def check_kinetics(name, dtype, V, Ca):
    out = kinetics(name, dtype)(jnp.asarray(V, dtype), jnp.asarray(Ca, dtype))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(out)]
    assert {(leaf.dtype, leaf.shape) for leaf in leaves} == {(np.dtype(dtype), (NUM,))}
    gates, time_constants = (np.stack(values) for values in out[:2])
    forced = np.isinf(time_constants)  # a scheme that is declared ultraslow
    assert forced.sum() == NUM * (name == "da")
    assert np.isfinite(leaves).sum() == NUM * len(leaves) - forced.sum()
    # Connor's own fit of one activation exceeds 1 by a little.
    highest = 1.03 if name == "connor-stevens" else 1
    assert ((gates >= 0) & (gates <= highest)).all()
    assert ((time_constants > 0) & ((time_constants < 1e5) | forced)).all()


def test_a_sigmoid_is_half_open_at_its_midpoint_and_stays_smooth_far_from_it():
    curve = Sigmoid(-25.0, -5.0, 1.0, 4.0)
    at = lambda V: curve(jnp.asarray(V), jnp.asarray(0.0))
    assert at(-25.0) == 3.0
    assert at(-30.0) == pytest.approx(1 + 4 / (1 + np.e))
    assert at(-1e6) == 1 and at(1e6) == 5
    slope = jax.grad(at)
    assert np.isfinite([slope(V) for V in (-1e6, -25.0, 1e6)]).all()


def test_a_bell_falls_on_both_of_its_flanks():
    curve = Bell((-27.0, 10.0), (-70.0, -13.0), 1.4, 7.0)
    V = jnp.linspace(-150.0, 100.0, 251)
    tau = np.asarray(jax.vmap(curve, (0, None))(V, jnp.asarray(0.0)))
    peak = np.argmax(tau)
    assert 0 < peak < len(tau) - 1
    assert (np.diff(tau[: peak + 1]) > 0).all() and (np.diff(tau[peak:]) < 0).all()
    assert tau[-1] == pytest.approx(1.4, abs=1e-3)


def test_the_nernst_potential_vanishes_between_equal_concentrations():
    nernst = Nernst(outside=3000.0, temperature=283.15)
    E = lambda Ca: float(nernst(jnp.asarray(0.0), jnp.asarray(Ca)))
    assert E(3000.0) == 0
    # One decade is ln(10) kT/2e, 28 mV at 10 °C.
    assert E(0.3) - E(3.0) == pytest.approx(28.09, abs=0.01)
    assert np.isfinite(E(0.0)) and E(-1.0) == E(0.0)


def test_negative_calcium_opens_nothing():
    curve = CalciumSaturation(3.0)
    at = lambda Ca: float(curve(jnp.asarray(0.0), jnp.asarray(Ca)))
    assert at(3.0) == 0.5
    assert at(-2.9) == at(0.0) == 0


def test_products_and_scalings_multiply_their_curves():
    a, b = Sigmoid(-20.0, 5.0), CalciumSaturation(3.0)
    at = jnp.asarray(-22.0), jnp.asarray(1.5)
    assert Product((a, b))(*at) == a(*at) * b(*at)
    assert Scaled(a, 2.5)(*at) == 2.5 * a(*at)


def exact_linoid(x):
    """The function and its first two derivatives, to fifty digits."""
    x = decimal.Decimal(x)
    if x == 0:
        return 1.0, 0.5, 1 / 6
    e = (-x).exp()
    y = x / (1 - e)
    dy = y * (1 - e * y) / x
    ddy = (dy * (1 - e * y) + y * (e * y - e * dy) - dy) / x
    return float(y), float(dy), float(ddy)


@jax.jit
def linoid_and_slopes(x):
    slope = jax.grad(linoid)
    return linoid(x), slope(x), jax.grad(slope)(x)


@pytest.mark.parametrize("dtype", DTYPES)
@given(x=st.floats(-80, 80, width=32))
@example(x=0.0)
@example(x=1e-30)
@example(x=-1e-8)
@example(x=0.25)
@example(x=-0.24999)
def test_linear_rates_are_accurate_with_their_derivatives(dtype, x):
    at = jnp.asarray(x, dtype)
    values = np.array(linoid_and_slopes(at), np.float64)
    with decimal.localcontext(prec=400):
        expected = exact_linoid(float(at))
    np.testing.assert_allclose(values[:2], expected[:2], rtol=40 * EPS[dtype])
    np.testing.assert_allclose(values[2], expected[2], atol=200 * EPS[dtype])


@pytest.mark.parametrize("x", (-1e4, 1e4))
def test_linear_rates_stay_finite_far_away(x):
    at = jnp.asarray(x, jnp.float32)
    value, slope = jax.value_and_grad(linoid)(at)
    assert (value, slope) == (max(x, 0.0), float(x > 0))


def at(curve, V=0.0, Ca=0.0):
    return float(curve(jnp.asarray(V), jnp.asarray(Ca)))


def test_rates_have_their_amplitude_at_the_midpoint():
    assert at(Linoid(-40.0, 10.0, 3.0), -40.0) == 3
    assert at(Linoid(-40.0, -5.0, 3.0), -70.0) == pytest.approx(18 / (1 - np.exp(-6)))
    assert at(Exponential(-65.0, -20.0, 0.07), -65.0) == 0.07
    assert at(Exponential(-65.0, -20.0, 0.07), -45.0) == pytest.approx(0.07 / np.e)


def test_what_is_left_out_of_a_curve_is_neutral():
    V, Ca = jnp.linspace(-150.0, 100.0, 1001), jnp.zeros(1001)
    plain, full = Sigmoid(-20.0, 5.0), Sigmoid(-20.0, 5.0, 0.0, 1.0)
    flanks = (-27.0, 10.0), (-70.0, -13.0)
    bells = Bell(*flanks, amplitude=7.0), Bell(*flanks, 0.0, 7.0)
    for without, neutral in ((plain, full), bells):
        own, other = (jax.vmap(curve)(V, Ca) for curve in (without, neutral))
        np.testing.assert_array_equal(own, other)
    assert len(jax.tree.leaves(plain)) == 2 and len(jax.tree.leaves(full)) == 4


def test_magnesium_blocks_half_of_the_channels_where_its_terms_balance():
    block = MagnesiumBlock(1.4, 10.0, 12.5)
    assert at(block, 12.5 * np.log(0.14)) == pytest.approx(0.5)
    assert at(block, -60.0) == pytest.approx(1 / (1 + 1.4 * np.exp(0.08 * 60) / 10))
    assert at(MagnesiumBlock(0.0, 10.0, 12.5), -60.0) == 1


def ghk(V, inside, outside, unit):
    x = V / unit
    return V * (inside / outside - np.exp(-x)) / (1 - np.exp(-x))


@jax.jit
def force_and_slope(V, Ca):
    curve = GoldmanHodgkinKatz(outside=2000.0, temperature=309.0)
    curve = jax.tree.map(lambda x: x.astype(V.dtype), curve)
    return jax.value_and_grad(curve)(V, Ca)


@pytest.mark.parametrize("dtype", DTYPES)
@given(V=potentials, Ca=concentrations)
def test_diffusion_drives_ions_as_goldman_hodgkin_and_katz_say(dtype, V, Ca):
    force, slope = force_and_slope(jnp.asarray(V, dtype), jnp.asarray(Ca, dtype))
    unit = 1000 * BOLTZMANN * 309 / 2
    if abs(V) > 1e-3:
        expected = ghk(float(V), float(Ca), 2000.0, unit)
        assert float(force) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert 0 < slope < 1.0001


def test_diffusion_stops_at_the_nernst_potential_and_is_ohmic_far_below_zero():
    curve = GoldmanHodgkinKatz(outside=3000.0, temperature=283.15)
    nernst = Nernst(outside=3000.0, temperature=283.15)
    assert at(curve, at(nernst, Ca=0.3), Ca=0.3) == pytest.approx(0, abs=1e-12)
    assert at(curve, 0.0, Ca=3000.0) == 0
    assert at(curve, -400.0, Ca=0.3) == pytest.approx(-400)
    fixed = GoldmanHodgkinKatz(145e3, 309.0, valence=1.0, inside=10e3)
    unit = 1000 * BOLTZMANN * 309
    assert at(fixed, unit * np.log(14.5)) == pytest.approx(0, abs=1e-12)


def test_sums_and_powers_are_those_of_their_curves():
    a, b = Sigmoid(-20.0, 5.0), CalciumSaturation(3.0)
    where = -22.0, 1.5
    assert at(Sum((a, b, b)), *where) == at(a, *where) + 2 * at(b, *where)
    assert at(Power(a, 3), *where) == pytest.approx(at(a, *where) ** 3)
    assert at(Power(a, 1 / 3), *where) == pytest.approx(at(a, *where) ** (1 / 3))
    assert jax.grad(Power(b, 2), 1)(jnp.asarray(0.0), jnp.asarray(0.0)) == 0


def test_rates_of_opening_and_closing_make_a_gate():
    gate = RateGate(3, Constant(0.6), Constant(0.2))
    assert at(gate.steady_state) == pytest.approx(0.75)
    assert at(gate.time_constant) == pytest.approx(1.25)
    with pytest.raises(ValueError, match="exponent.* 0"):
        RateGate(0, Constant(0.6), Constant(0.2))


@pytest.mark.parametrize("exponent", (0, -1))
def test_a_gate_without_particles_is_refused(exponent):
    with pytest.raises(ValueError, match=f"exponent.* {exponent}"):
        Gate(exponent, Sigmoid(-20.0, 5.0), Sigmoid(-20.0, 5.0))


def test_constants_are_strongly_typed_so_that_no_value_retraces():
    for value in (1, 1.0, np.float32(1), jnp.asarray(1.0)):
        assert not strong(value).weak_type
    assert strong(1).dtype == jnp.float64
    assert strong(np.float32(1)).dtype == jnp.float32

    @jax.jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def evaluate(curve, V):
        return curve(V, V)

    for midpoint in (-20, -25.0, np.float64(-30)):
        evaluate(Sigmoid(midpoint, 5.0), jnp.asarray(0.0))
