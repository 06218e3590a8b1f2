import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from dicjax.gating import (
    Bell,
    CalciumSaturation,
    Gate,
    Nernst,
    Product,
    Scaled,
    Sigmoid,
    strong,
)
from dicjax.models import MODELS


DTYPES = ("float32", "float64")
potentials = st.floats(-150, 100, width=32)
concentrations = st.floats(0, 1000, width=32)


@functools.cache
def kinetics(name, dtype):
    neuron = MODELS[name]().with_dtype(jnp.dtype(dtype))

    def values(V, Ca):
        x = neuron.steady_gates(V, Ca)
        return x, neuron.time_constants(V, Ca), neuron.unit_currents(V, x, Ca)

    return jax.jit(lambda V, Ca: (*values(V, Ca), jax.jacfwd(values, (0, 1))(V, Ca)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
@given(V=potentials, Ca=concentrations)
@example(V=-150.0, Ca=0.0)
@example(V=100.0, Ca=0.0)
@example(V=-150.0, Ca=1000.0)
@example(V=100.0, Ca=1000.0)
def test_kinetics_are_finite_and_physical_everywhere(name, dtype, V, Ca):
    out = kinetics(name, dtype)(jnp.asarray(V, dtype), jnp.asarray(Ca, dtype))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(out)]
    assert {leaf.dtype for leaf in leaves} == {np.dtype(dtype)}
    assert np.isfinite(leaves).all()
    gates, time_constants = (np.stack(values) for values in out[:2])
    assert ((gates >= 0) & (gates <= 1)).all()
    assert ((time_constants > 0) & (time_constants < 1e5)).all()


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


@pytest.mark.parametrize("exponent", (0, -1))
def test_a_gate_without_particles_is_refused(exponent):
    with pytest.raises(ValueError, match=f"exponent.*positive.*{exponent}"):
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
