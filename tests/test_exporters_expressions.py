import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from test_exporters import Bumpy, gated, leaky, SIGMOID

from dicjax.neurons import curves as gating
from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import AbstractCurve, Constant, Sigmoid
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Neuron, State
from dicjax.output.exporters.equations import Equation, equations
from dicjax.output.exporters.expressions import (
    affine,
    apply,
    assignments,
    constant,
    FUNCTIONS,
    substitute,
    Syntax,
    variable,
)
from dicjax.output.exporters.tracing import trace, UnsupportedOperation


PYTHON = Syntax(
    functions={
        **FUNCTIONS,
        "abs": "abs",
        "max": "max",
        "min": "min",
        "not": "not_",
        "select": "where",
    },
)


class Erf(AbstractCurve):
    """A curve that few languages know."""

    def __call__(self, V, Ca):
        del Ca
        return 0.5 + 0.5 * jax.scipy.special.erf(V / 20)


RISING = gating.Exponential(-40.0, 20.0, 0.3)
CURVES = (
    Constant(3.3),
    gating.Exponential(-65.0, -18.0, 4.0),
    gating.Linoid(-40.0, 10.0, 1.0),
    Sigmoid(-25.5, -5.29),
    Sigmoid(-28.3, -19.2, 7.2, -6.4),
    gating.Bell((-27.0, 10.0), (-70.0, -13.0), 1.4, 7.0),
    gating.MagnesiumBlock(1.4, 10.0, 12.5),
    gating.CalciumSaturation(3.0),
    gating.Nernst(3000.0, 283.15),
    gating.GoldmanHodgkinKatz(2000.0, 309.15),
    gating.Product((SIGMOID, RISING)),
    gating.Sum((SIGMOID, RISING, Constant(1.0))),
    gating.Power(SIGMOID, 3),
    gating.Power(RISING, 0.7),
    gating.Scaled(SIGMOID, 2.5),
    gating.OpenFraction(RISING, SIGMOID),
    gating.Relaxation(RISING, SIGMOID),
    Bumpy(-35.0),
)
FUNCTIONS = {
    **{name: getattr(np, name) for name in ("exp", "log", "expm1", "log1p", "tanh")},
    **{name: getattr(np, name) for name in ("sinh", "cosh", "sin", "cos", "sqrt")},
    "where": lambda is_true, yes, no: yes if is_true else no,
    "not_": lambda x: not x,
}


def evaluated(statements, **values):
    """The variables that statements give in Python."""
    scope = {**FUNCTIONS, **{k: np.float64(x) for k, x in values.items()}}
    with np.errstate(all="ignore"):
        for name, text in statements:
            scope[name] = eval(text, {}, scope)
    return scope


def run_python(outputs, **values):
    """What expressions give in Python."""
    scope = evaluated(assignments(outputs, PYTHON), **values)
    return [float(scope[name]) for name in outputs]


def test_every_curve_that_ships_is_tried():
    is_curve = lambda x: inspect.isclass(x) and issubclass(x, AbstractCurve)
    shipped = {x for _, x in inspect.getmembers(gating, is_curve)} - {AbstractCurve}
    assert shipped <= {type(curve) for curve in CURVES}


@functools.cache
def compiled(index):
    return jax.jit(lambda V, Ca: CURVES[index](V, Ca))


@functools.cache
def written(index):
    return assignments({"y": trace(CURVES[index], "V", "Ca")}, PYTHON)


@pytest.mark.parametrize(
    "index", range(len(CURVES)), ids=[type(x).__name__ for x in CURVES]
)
@given(V=st.floats(-150, 100), Ca=st.floats(0, 1000))
@example(V=-40.0, Ca=0.0)
@example(V=0.0, Ca=0.05)
def test_written_curves_have_the_values_of_the_curve(index, V, Ca):
    actual = evaluated(written(index), V=V, Ca=Ca)["y"]
    expected = float(compiled(index)(V, Ca))
    assert actual == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_equations_of_every_model_are_its_vector_field(model):
    neuron = MODELS[model]()
    written = equations(neuron)
    names = [x.name for x in written.states if x.name != "Ca"]
    currents = {f"I_{c}": x for c, x in written.currents.items()}
    rates = {f"d_{x.name}": x.rate for x in written.states}
    field = lambda y, g: neuron.vector_field(jnp.zeros(()), y, g, None)
    rng = np.random.default_rng(0)
    for _ in range(5):
        V, Ca = rng.uniform(-90, 40), rng.uniform(0, 90)
        gates, g = rng.uniform(0, 1, len(names)), rng.uniform(0, 9, len(currents))
        expected = field(
            State(*jax.tree.map(jnp.asarray, (V, tuple(gates), Ca))), jnp.asarray(g)
        )
        values = dict(zip(names, gates, strict=True), v=V, Ca=Ca)
        values |= {
            f"g_{c}": x for c, x in zip(written.channels.values(), g, strict=True)
        }
        np.testing.assert_allclose(
            run_python(rates, **values),
            [*expected.gates, expected.Ca][: len(rates)],
            rtol=1e-11,
            atol=1e-12,
        )
        I = g * run_python(currents, **values)
        dV = -I.sum() / float(neuron.capacitance)
        assert dV == pytest.approx(float(expected.V), abs=1e-12 * np.abs(I).sum())


@pytest.mark.parametrize(
    "function",
    (
        lambda x: jnp.zeros(3, float).at[1].set(x)[jnp.array([1, 2])],
        lambda x: jnp.concatenate([jnp.stack([x, 2 * x]), jnp.ones(1)])[::-1],
        lambda x: jnp.prod(jnp.broadcast_to(x, (2, 3)), axis=1),
        lambda x: jnp.max(jnp.array([1.0, 3.0]) * x) - jnp.min(jnp.ones((2, 2)) * x),
        lambda x: jnp.eye(2)[0] * x + jnp.arange(2.0),
        lambda x: jnp.array([[1.0, 2.0], [3.0, 4.0]]).T @ jnp.stack([x, -x]),
        lambda x: jnp.cumsum(jnp.ones(3)) * jax.lax.rsqrt(x) + jnp.exp2(x),
        lambda x: jax.lax.scan(lambda c, y: (c * x + y, c), x, jnp.ones(3))[1],
        lambda x: jnp.sinc(x) + jnp.log10(x) + jnp.cosh(x) - jnp.sinh(x) ** -2,
        lambda x: jnp.where((x > 1) | ~(x < 0.5), jnp.square(x) ** 0.3, x),
        lambda x: 3 - (x - (2 - x)) - x / (x * (x / 2)) * (x / x) - (-x) ** 2,
        lambda x: -(-2 - x) * -0.5 / -(x - 4) + (-x - 1) - -3 * x,
        lambda x: jax.checkpoint(jnp.tanh)(x) * jax.jit(jnp.cos)(x),
        lambda x: jax.grad(lambda x: jnp.sin(x) ** 3)(x),
    ),
)
def test_functions_of_arrays_become_scalars(function):
    written = np.asarray(trace(function, "x"), object).reshape(-1)
    compiled = jax.jit(function)
    for at in (0.7, 1.3):
        actual = run_python({f"y_{i}": y for i, y in enumerate(written)}, x=at)
        expected = np.asarray(compiled(at)).reshape(-1)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_constants_fold_and_idle_operations_vanish():
    x, number = variable("x"), lambda value: constant(value)
    assert apply("exp", number(0.0)) is number(1.0)
    assert number(2.0) * (number(3.0) + number(-3.0)) is number(0.0)
    assert x * number(1.0) + number(0.0) is x
    minus = -x
    assert -minus is x
    assert x - minus is x + x
    assert number(-1.0) * x is minus
    assert constant(np.float32(0.1)) is number(0.1)


def test_nothing_is_infinite():
    to_line = lambda x: jnp.where(jnp.abs(x) == jnp.inf, 0.0, 2 * x)
    assert trace(to_line, "x") is trace(lambda x: 2 * x, "x")


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="inf"):
        assignments({"y": trace(lambda x: jnp.where(x > 0, x, jnp.inf), "x")}, PYTHON)


def test_what_is_shared_is_written_once():
    shared = lambda x: jnp.exp(jnp.sin(x)) + 1
    written = trace(lambda x: (shared(x) * x, shared(x) / x), "x")
    statements = assignments(dict(zip("ab", written, strict=True)), PYTHON)
    text = "\n".join(f"{name} = {text}" for name, text in statements)
    assert text.count("exp") == 1
    assert [name for name, _ in statements] == ["u1", "a", "b"]
    known = assignments({"a": written[0]}, PYTHON, known={written[0]: "z"})
    assert known == [("a", "z")]


def test_long_expressions_are_split():
    x = trace(lambda x: sum(jnp.sin(x * i) for i in range(1, 40)), "x")
    statements = assignments({"y": x}, PYTHON)
    assert all(len(text) < 150 for _, text in statements)
    (actual,) = run_python({"y": x}, x=0.3)
    assert actual == pytest.approx(sum(np.sin(0.3 * i) for i in range(1, 40)))


def test_affine_expressions_are_taken_apart():
    x, y = variable("x"), variable("y")
    a, b = affine((y - x * y) / constant(2.0), "x")
    assert run_python({"a": a, "b": b}, x=9.0, y=3.0) == [1.5, -1.5]
    a, b = affine(x * x + y, "x")
    assert a.variables == {"x", "y"} and b is constant(0.0)
    assert substitute(x * y, {"y": constant(1.0)}) is x


def test_rates_become_relaxations_where_they_can():
    x, V = variable("x"), variable("v")
    relaxation = lambda rate: Equation("x", "Na", rate, x).relaxation
    opening, closing = apply("exp", V), apply("exp", -V)
    assert relaxation((opening - x) / closing) == (opening, closing)
    assert relaxation(constant(4.0) * ((opening - x) / closing)) == (
        opening,
        closing / constant(4.0),
    )
    scheme = opening * (constant(1.0) - x) - closing * x
    found = relaxation(scheme)
    assert found is not None
    values = run_python(dict(zip(("inf", "tau"), found, strict=True)), v=0.3, x=0.9)
    total = np.exp(0.3) + np.exp(-0.3)
    np.testing.assert_allclose(values, (np.exp(0.3) / total, 1 / total))
    assert relaxation((opening - x * x) / closing) is None


def test_operations_without_a_counterpart_are_named_with_their_curve():
    with pytest.raises(UnsupportedOperation, match="`erf`"):
        trace(Erf(), "V", "Ca")
    with pytest.raises(UnsupportedOperation, match="while"):
        trace(lambda x: jax.lax.while_loop(lambda x: x < 9, lambda x: 2 * x, x), "x")
    neuron = leaky(gated("Na"), gated("Kd", steady=Erf()), name="odd")
    where = r"'odd'.*Erf at `channels\[1\].gates\[0\].steady_state`.*`erf`"
    with pytest.raises(ValueError, match=where):
        equations(neuron)


def test_currents_that_are_not_shares_of_conductances_are_refused():
    class Saturating(Neuron):
        def total_current(self, V, gates, Ca, g):
            return jnp.tanh(super().total_current(V, gates, Ca, g))

    leak, scales = GatedChannel("leak", reversal=-60.0), (Constant(0.5), Constant(3.0))
    neuron = Saturating("odd", (leak,), (*scales, None), -50.0)
    with pytest.raises(ValueError, match="'odd'"):
        equations(neuron)
