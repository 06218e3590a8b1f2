"""What a declaration is refused for, at once and in a sentence."""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import dicjax as dj
from dicjax.neurons.evaluation import on_grid
from dicjax.neurons.kinetics import check_kinetics, GLANCE


OPENING, SLOW = dj.Sigmoid(-30.0, -6.0), dj.Constant(5.0)
LEAK = dj.GatedChannel("leak", reversal=-50.0)
SCALES = dj.Constant(1.0), SLOW, dj.Constant(100.0)
V = GLANCE[:, None]
untyped: Any = dj  # for what type checkers refuse


def evaluated(curve: dj.AbstractCurve, *Ca: float) -> np.ndarray:
    values = on_grid(curve, V, np.array([Ca]))
    assert values is not None
    return values


def with_tau(tau: Any, **changes: Any) -> dj.Neuron:
    gates = dj.Gate(4, OPENING, SLOW), dj.Gate(3, OPENING, tau)
    channel = dj.GatedChannel("Na", gates, reversal=50.0)
    how = {"timescales": SCALES, "V_ref": -50.0} | changes
    return dj.Neuron("mine", (channel, LEAK), **how)


def refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    # Where annotations of neurons are checked, they refuse it first.
    if not isinstance(caught.value, jaxtyping.TypeCheckError):
        assert re.search(words, str(caught.value))


class Table(dj.AbstractCurve):
    """Not elementwise: a table that is interpolated."""

    values: jax.Array

    def __call__(self, V, Ca):
        return jnp.interp(V, jnp.linspace(-150.0, 100.0, 26), self.values)


# Time constants


@pytest.mark.parametrize(
    ("tau", "words"),
    [
        (
            dj.Constant(-3.0),
            r"Gate 2 \(power 3\) of channel Na .* -3 ms at V = -120 mV",
        ),
        (dj.Constant(0.0), "of 0 ms .*what opens at once is a `factor`"),
        (dj.Sigmoid(-40.0, -5.0, 3.7, -8.0), r"of -\S+ ms at V = -40 mV"),
        (Table(jnp.linspace(8.05, -4.45, 26)), r"of -\S+ ms at V = 12 mV"),
    ],
)
def test_a_time_constant_that_is_not_positive_somewhere_is_refused(tau, words):
    with pytest.raises(ValueError, match=words):
        with_tau(tau)


def test_rates_that_close_faster_than_nothing_are_refused():
    gate = dj.RateGate(1, dj.Exponential(-40.0, 10.0), dj.Constant(-0.5))
    with pytest.raises(ValueError, match=r"Gate 1 \(power 1\) of channel Kd"):
        channel = dj.GatedChannel("Kd", (gate,), reversal=-80.0)
        dj.Neuron("mine", (channel, LEAK), SCALES, -50.0)


def test_calcium_is_varied_where_there_is_any():
    tau = dj.Sum((dj.Constant(5.0), dj.Scaled(dj.CalciumSaturation(50.0), -6.0)))
    with_tau(tau)
    pool = dj.Calcium(("Na",), influx=1.0, baseline=0.1, time_constant=20.0)
    with pytest.raises(ValueError, match=r"-0\.\d+ ms at V = -120 mV and Ca = 1000 µM"):
        with_tau(tau, calcium=pool)


@pytest.mark.parametrize("name", dj.MODELS)
def test_time_constants_are_those_that_jax_computes(name):
    neuron = dj.MODELS[name]()
    at = (jnp.asarray(x.ravel()) for x in np.broadcast_arrays(V, [[0.05, 10.0]]))
    gates = [x for c in neuron.channels for x in getattr(c, "gates", ())]
    curves = [tau for x in gates for tau in (x.time_constant, x.steady_state)]
    every = jax.vmap(lambda V, Ca: [curve(V, Ca) for curve in curves])
    expected = jax.jit(every)(*at)
    for curve, values in zip(curves, expected, strict=True):
        found = evaluated(curve, 0.05, 10.0).ravel()
        np.testing.assert_allclose(found, values, rtol=1e-10)


def test_a_table_is_evaluated_too():
    itself = Table(jnp.linspace(-150.0, 100.0, 26))
    np.testing.assert_allclose(evaluated(itself, 0.1), V, atol=1e-9)


def test_a_look_at_a_neuron_takes_a_moment():
    neuron = dj.stg()
    start = time.perf_counter()
    for _ in range(20):
        check_kinetics(neuron)
    assert (time.perf_counter() - start) / 20 < 0.05  # measured: 2 ms


# Timescales


def test_timescales_in_the_wrong_order_are_refused():
    fast, slow, ultraslow = SCALES
    for wrong, words in (
        ((slow, fast, ultraslow), "The fast timescale of mine .* slow one|5 and 1 ms"),
        ((fast, ultraslow, slow), "100 and 5 ms at V = -80 mV"),
        ((slow, fast, None), "5 and 1 ms"),
    ):
        with pytest.raises(ValueError, match=words):
            with_tau(SLOW, timescales=wrong)
    with_tau(SLOW, timescales=(slow, slow, None))
    with pytest.raises(ValueError, match="slow timescale of mine .* -1 ms"):
        with_tau(SLOW, timescales=(fast, dj.Constant(-1.0), None))
    refused(lambda: with_tau(SLOW, timescales=(fast, slow)), "three curves")


def test_timescales_may_cross_at_some_potentials():
    crossing = dj.Bell((-169.7, -11.6), (26.7, 14.3), amplitude=2.0)
    assert evaluated(crossing, 0.1).min() < 1
    with_tau(SLOW, timescales=(dj.Constant(1.0), crossing, None))


# Numbers in place of curves


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: untyped.GatedChannel(
                "Na", (untyped.Gate(3, OPENING, 5),), reversal=50.0
            ),
            r"`time_constant` of gate 1 of channel Na .*`dicjax.Constant\(5.0\)`",
        ),
        (
            lambda: untyped.GatedChannel(
                "Na", (untyped.Gate(3, 0.5, SLOW),), reversal=50.0
            ),
            r"`steady_state` of gate 1 of channel Na .*`dicjax.Constant\(0.5\)`",
        ),
        (
            lambda: untyped.GatedChannel(
                "Kd", (untyped.RateGate(4, SLOW, jnp.asarray(2.0)),), reversal=-80.0
            ),
            r"`beta` of gate 1 of channel Kd .*`dicjax.Constant\(2.0\)`",
        ),
        (
            lambda: untyped.GatedChannel("Ca", driving_force=80.0),
            r"`driving_force` of channel Ca .*`dicjax.Constant\(80.0\)`",
        ),
        (
            lambda: untyped.GatedChannel("B", reversal=0.0, factor=np.float32(0.5)),
            r"`factor` of channel B .*`dicjax.Constant\(0.5\)`",
        ),
        (
            lambda: untyped.GatedChannel("B", reversal="a lot"),
            "`reversal` of channel B must be a curve, got 'a lot'; use one of dicjax",
        ),
        (
            lambda: untyped.GatedChannel(
                "B", untyped.Gate(1, OPENING, SLOW), reversal=0.0
            ),
            r"`gates` of channel B .*write `\(gate,\)`",
        ),
        (
            lambda: untyped.Transition("shut", "open", 3.0),
            r"`rate` of the transition from shut to open .*Constant\(3.0\)`",
        ),
        (
            lambda: with_tau(SLOW, timescales=(SCALES[0], 5.0, None)),
            r"`timescales\[1\]` of mine .*`dicjax.Constant\(5.0\)`",
        ),
        (lambda: untyped.Product((OPENING, 2.0)), r"`factors\[1\]` of a `Product`"),
        (lambda: untyped.Sum((2.0, OPENING)), r"`terms\[0\]` of a `Sum`"),
        (lambda: untyped.Power(2.0, 3), "`curve` of a `Power`"),
        (lambda: untyped.Scaled(2.0, 3.0), "`curve` of a `Scaled`"),
        (lambda: untyped.Relaxation(2.0, OPENING), "`alpha` of a `Relaxation`"),
        (lambda: untyped.OpenFraction(OPENING, 2.0), "`beta` of an `OpenFraction`"),
    ],
)
def test_a_number_in_place_of_a_curve_is_named_with_its_remedy(make, words):
    refused(make, words)


def test_a_reversal_potential_may_be_a_number():
    leak = untyped.GatedChannel("leak", reversal=-60.0)
    assert isinstance(leak.reversal, dj.Constant)
    assert float(leak.reversal.value) == -60.0


# Under transformations


def test_what_is_traced_is_not_looked_at():
    def slope(tau):
        neuron = with_tau(dj.Constant(tau), capacitance=tau)
        return neuron.time_constants(neuron.initial_V, neuron.initial_Ca)[1]

    bad = jnp.asarray(-2.0)
    assert float(jax.jit(slope)(bad)) == -2.0
    np.testing.assert_array_equal(jax.vmap(slope)(jnp.array([3.0, -2.0])), [3.0, -2.0])
    assert float(jax.grad(slope)(bad)) == 1.0


def test_what_is_not_traced_is_looked_at_while_the_rest_is():
    negative = dj.Constant(-1.0)
    with pytest.raises(ValueError, match="Gate 2"):
        jax.jit(lambda C: with_tau(negative, capacitance=C).V_ref)(1.0)


def test_neurons_may_be_changed_and_stacked():
    neuron = with_tau(SLOW)
    where = lambda n: n.channels[0].gates[1].time_constant.value
    odd = eqx.tree_at(where, neuron, jnp.asarray(-1.0))
    with pytest.raises(ValueError, match="Gate 2"):
        dataclasses.replace(odd, V_ref=-40.0)
    make = lambda tau: with_tau(dj.Constant(tau))
    stacked = eqx.filter_vmap(make)(jnp.array([1.0, 2.0]))
    again = dataclasses.replace(stacked, V_ref=jnp.array([-40.0, -50.0]))
    np.testing.assert_array_equal(where(again), [1.0, 2.0])
    single = dataclasses.replace(
        neuron.with_dtype(jnp.dtype(jnp.float32)), capacitance=np.float32(2.0)
    )
    assert where(single).dtype == jnp.float32
