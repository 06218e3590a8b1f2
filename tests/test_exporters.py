import csv
import importlib.util
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from dicjax import gating
from dicjax.channels import GatedChannel
from dicjax.exporters import export_neuron
from dicjax.exporters.equations import Equation, equations, identifiers
from dicjax.exporters.expressions import (
    affine,
    apply,
    assignments,
    constant,
    PYTHON,
    substitute,
    variable,
    variables,
)
from dicjax.exporters.tracing import trace, UnsupportedOperation
from dicjax.gating import AbstractCurve, Constant, Gate, Sigmoid
from dicjax.models import MODELS
from dicjax.neuron import Neuron, State
from dicjax.population import compensate
from dicjax.simulation import simulate


class Bumpy(AbstractCurve):
    """A curve with a bit of everything."""

    center: float

    def __call__(self, V, Ca):
        x = (V - self.center) / jnp.array([12.0, 30.0])
        bumps = jnp.array([[1.0, 0.5], [0.0, 2.0]]) @ jnp.exp(-(x**2))
        series = jnp.polyval(jnp.array([0.1, -0.2, 0.3]), jnp.tanh(V / 50))
        growth = jnp.where(V > 0, jnp.log1p(jnp.abs(V)), -jnp.expm1(V / 20))
        calcium = jnp.sqrt(jnp.clip(Ca, 0.1, 50.0)) * jax.nn.softplus(-V / 30)
        branch = jax.lax.cond(V < -20, lambda V: V / 9, lambda V: 1 - V / 8, V)
        is_odd = (V > -50) & ~(V > 10) | (V < -80)
        waves = jnp.where(is_odd, jnp.sin(V / 9) - jnp.cosh(x[1]) / 99, jnp.cos(V / 9))
        slow = waves + calcium + branch**2
        return 4 + jnp.sum(bumps) + series**2 + 0.1 * growth + slow


class Erf(AbstractCurve):
    """A curve that few languages know."""

    def __call__(self, V, Ca):
        del Ca
        return 0.5 + 0.5 * jax.scipy.special.erf(V / 20)


class Square(GatedChannel):
    """A channel whose gates are no linear equations."""

    def derivatives(self, V, states, Ca):
        gates = zip(self.gates, states, strict=True)
        return tuple(
            (gate.steady_state(V, Ca) ** 2 - x**2) / gate.time_constant(V, Ca)
            for gate, x in gates
        )


SIGMOID, RISING = Sigmoid(-30.0, -7.0), gating.Exponential(-40.0, 20.0, 0.3)
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


def run_python(outputs, **values):
    """What the statements of expressions give in Python."""
    scope = {**FUNCTIONS, **{k: np.float64(x) for k, x in values.items()}}
    with np.errstate(all="ignore"):
        for name, text in assignments(outputs, PYTHON):
            scope[name] = eval(text, {}, scope)
    return [float(scope[name]) for name in outputs]


def leaky(*channels, name="cell", **options):
    leak = GatedChannel("leak", reversal=-60.0)
    scales = (Constant(0.5), Constant(3.0), None)
    return Neuron(name, (*channels, leak), scales, -50.0, **options)


def gated(name="Na", steady: AbstractCurve = SIGMOID, kind=GatedChannel):
    return kind(name, (Gate(2, steady, Constant(5.0)),), reversal=50.0)


def mechanism(folder):
    (path,) = (folder / "mod").iterdir()
    return path.read_text()


# Expressions


def test_every_curve_that_ships_is_tried():
    is_curve = lambda x: inspect.isclass(x) and issubclass(x, AbstractCurve)
    shipped = {x for _, x in inspect.getmembers(gating, is_curve)} - {AbstractCurve}
    assert shipped <= {type(curve) for curve in CURVES}


@pytest.mark.parametrize("curve", CURVES, ids=lambda x: type(x).__name__)
@given(V=st.floats(-150, 100), Ca=st.floats(0, 1000))
@example(V=-40.0, Ca=0.0)
@example(V=0.0, Ca=0.05)
def test_written_curves_have_the_values_of_the_curve(curve, V, Ca):
    (actual,) = run_python({"y": trace(curve, "V", "Ca")}, V=V, Ca=Ca)
    expected = float(curve(jnp.asarray(V), jnp.asarray(Ca)))
    assert actual == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_equations_of_every_model_are_its_vector_field(model):
    neuron = MODELS[model]()
    written = equations(neuron, "Python")
    names = [x.name for x in written.states if x.name != "Ca"]
    currents = {f"I_{c}": x for c, x in written.currents.items()}
    rates = {f"d_{x.name}": x.rate for x in written.states}
    field = jax.jit(lambda y, g: neuron.vector_field(jnp.zeros(()), y, g, None))
    rng = np.random.default_rng(0)
    for _ in range(20):
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
    for at in (0.7, 1.3):
        actual = run_python({f"y_{i}": y for i, y in enumerate(written)}, x=at)
        expected = np.asarray(function(jnp.asarray(at))).reshape(-1)
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


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="constant inf"):
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
    assert variables(a) == {"x", "y"} and b is constant(0.0)
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
    where = r"'odd'.*NMODL.*Erf at `channels\[1\].gates\[0\].steady_state`.*`erf`"
    with pytest.raises(ValueError, match=where):
        equations(neuron, "NMODL")


def test_currents_that_are_not_shares_of_conductances_are_refused():
    class Saturating(Neuron):
        def total_current(self, V, gates, Ca, g):
            return jnp.tanh(super().total_current(V, gates, Ca, g))

    leak, scales = GatedChannel("leak", reversal=-60.0), (Constant(0.5), Constant(3.0))
    neuron = Saturating("odd", (leak,), (*scales, None), -50.0)
    with pytest.raises(ValueError, match="not a sum of conductances"):
        equations(neuron, "NMODL")


# Files

ODD = ("H", "A", "h", "Na+", "K-1", "K_1", "K_10", "exp", "STATE", "if", "Ca", "Σ", "2")


def test_names_become_different_identifiers():
    found = identifiers(("K-1", "K_1", "K_10", "K 1", "h", "H"))
    assert len(set(found)) == 6
    assert all(re.fullmatch(r"\w+", name, re.ASCII) for name in found)
    # NMODL gives every state `x` an `x0`.
    assert not {f"{name}0" for name in found} & set(found)


def test_odd_names_are_kept_in_the_table_and_legal_in_the_mechanism(tmp_path):
    neuron = leaky(*(gated(name) for name in ODD), name="exp 1")
    export_neuron(neuron, np.ones(len(ODD) + 1), tmp_path)
    (path,) = (tmp_path / "mod").iterdir()
    assert path.name == "dicjax_exp_1.mod"
    text = path.read_text()
    names = re.findall(r"^    (\w+)(?: \(.*\))?$", text.split("ASSIGNED")[1], re.M)
    assert len(names) == len(set(names)) > 4 * len(ODD)
    assert all(name.isascii() and not name[0].isdigit() for name in names)
    with open(tmp_path / "conductances.csv", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header == [f"g_{name}" for name in (*ODD, "leak")]
    scope = {}
    script = (tmp_path / "run.py").read_text()
    (table,) = re.findall(r"CONDUCTANCES = \{.*?\}", script, re.S)
    exec(table, scope)
    assert list(scope["CONDUCTANCES"]) == header


@pytest.mark.parametrize("model", MODELS)
def test_every_model_can_be_exported(model, tmp_path):
    neuron = MODELS[model]()
    g = np.linspace(0.1, 1 / 3, 2 * len(neuron.channels)).reshape(2, -1)
    export_neuron(neuron, g, tmp_path)
    table = np.loadtxt(tmp_path / "conductances.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table, g)
    compile((tmp_path / "run.py").read_text(), "run.py", "exec")
    text = mechanism(tmp_path)
    assert "METHOD cnexp" in text
    assert len(re.findall(r"' = \(\w+ - \w+\)/\w+$", text, re.M)) == text.count("' = ")
    assert max(map(len, text.splitlines())) < 140
    assert f"gbar_{neuron.channel_names[0]}" in (tmp_path / "README.txt").read_text()


def test_capacitance_start_and_temperature_are_those_of_the_model(tmp_path):
    cell = leaky(gated(), capacitance=2.5, initial_V=-71.5)
    export_neuron(cell, np.ones(2), tmp_path / "cell")
    script = (tmp_path / "cell" / "run.py").read_text()
    assert "soma.cm = 2.5" in script and "finitialize(-71.5)" in script
    axon = MODELS["hodgkin-huxley"]()
    warm = eqx.tree_at(lambda n: n.temperature.celsius, axon, jnp.asarray(16.3))
    for name, neuron in (("cold", axon), ("warm", warm)):
        export_neuron(neuron, np.ones(3), tmp_path / name)
    assert mechanism(tmp_path / "warm") == re.sub(
        r"tau(\w+) = 1/(\w+)", r"tau\1 = 1/\2/3", mechanism(tmp_path / "cold")
    )


def test_the_current_of_a_recipe_is_applied_unless_told_otherwise(tmp_path):
    for model, current in (("pospischil-ib", None), ("stg", 0.0)):
        neuron = MODELS[model]()
        current = neuron.required_recipe.current if current is None else current
        export_neuron(neuron, neuron.default_g, tmp_path)
        script = (tmp_path / "run.py").read_text()
        assert f'"--current", type=float, default={current}' in script
        assert ("made to fire under" in (tmp_path / "README.txt").read_text()) == (
            current > 0
        )


def test_calcium_without_a_pool_stays_where_it_starts(tmp_path):
    channel = gated("KCa", steady=gating.CalciumSaturation(3.0))
    export_neuron(leaky(channel, initial_Ca=0.7), np.ones(2), tmp_path)
    text = mechanism(tmp_path)
    assert "    Ca = 0.7 (uM)\n" in text and "\n    Ca' " not in text


def test_states_that_are_not_linear_take_newtons_method(tmp_path):
    export_neuron(leaky(gated(kind=Square)), np.ones(2), tmp_path)
    assert "METHOD derivimplicit" in mechanism(tmp_path)


def test_single_precision_is_written_as_it_was_declared(tmp_path):
    for dtype in (jnp.float32, jnp.float64):
        neuron = MODELS["stg-prinz"]().with_dtype(jnp.dtype(dtype))
        export_neuron(neuron, np.ones(8), tmp_path / jnp.dtype(dtype).name)
    assert mechanism(tmp_path / "float32") == mechanism(tmp_path / "float64")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    neuron = leaky(gated())
    export_neuron(neuron, np.ones(2), tmp_path)
    before = {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
    write = pathlib.Path.write_text

    def fail(path, text, **options):
        write(path, text[:50], **options)
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        export_neuron(neuron, 2 * np.ones(2), tmp_path)
    after = {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
    assert after == before


def test_conductances_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"last axis of 2"):
        export_neuron(leaky(gated()), np.ones(3), tmp_path / "new")
    with pytest.raises(ValueError, match=r"Na is -1.0 mS/cm²"):
        export_neuron(leaky(gated()), np.array([-1.0, 1.0]), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# NEURON itself

BIN = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))


@pytest.fixture
def run_neuron(tmp_path):
    """Exports cells, runs them in NEURON and gives the spike times of each."""
    if importlib.util.find_spec("neuron") is None:
        pytest.skip("NEURON is not installed: pip install neuron")
    for tool in ("nrnivmodl", "g++", "make"):
        if shutil.which(tool, path=BIN) is None:
            pytest.skip(f"{tool}, which compiles mechanisms, is not installed")

    def run(neuron, g, *options):
        export_neuron(neuron, g, tmp_path)
        for command in (
            ["nrnivmodl", "mod"],
            [sys.executable, "run.py", "--tolerance", "1e-8", *map(str, options)],
        ):
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "PATH": BIN},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        rows = np.loadtxt(tmp_path / "spikes.csv", delimiter=",", skiprows=1, ndmin=2)
        return [rows[rows[:, 0] == i, 1] for i in range(len(np.atleast_2d(g)))]

    return run


def reference(neuron, g, duration, I_ext=None):
    """Upward crossings of 10 mV, by an adaptive solver at a tight tolerance."""
    current = I_ext or (lambda t: jnp.zeros(()))
    field = lambda t, y, g: neuron.vector_field(t, y, g, current(t))
    ts = 0.02 * np.arange(1, round(duration / 0.02))
    V = dfx.diffeqsolve(
        dfx.ODETerm(field),
        dfx.Tsit5(),
        0.0,
        duration,
        0.01,
        neuron.initial_state(),
        args=jnp.asarray(g),
        saveat=dfx.SaveAt(ts=jnp.asarray(ts), fn=lambda t, y, args: y.V),
        stepsize_controller=dfx.PIDController(rtol=1e-8, atol=1e-8),
        max_steps=None,
    ).ys
    V = np.asarray(V)
    (up,) = np.nonzero((V[:-1] < 10) & (V[1:] >= 10))
    return ts[up] + 0.02 * (10 - V[up]) / (V[up + 1] - V[up])


def assert_same_times(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.1)  # ms


def step(current, start):
    return lambda t: jnp.where(t >= start, current, 0.0)


STEPS = {
    "hodgkin-huxley": 10.0,
    "connor-stevens": 10.0,
    "pospischil-rs": 2.0,
    "pospischil-fs": 6.0,
    "pospischil-ib": 1.0,
    "pospischil-lts": 1.0,
    "da": 5.0,
}  # µA/cm²


@pytest.mark.slow
@pytest.mark.parametrize("model", STEPS)
def test_neuron_fires_as_we_do_under_a_step_of_current(model, run_neuron):
    neuron, current = MODELS[model](), STEPS[model]
    g = neuron.default_g
    options = ("--duration", 200, "--current", current, "--start", 20)
    (actual,) = run_neuron(neuron, g, *options)
    expected = reference(neuron, g, 200.0, step(current, 20.0))
    assert len(actual) > 3
    assert_same_times(actual, expected)


@pytest.mark.slow
def test_neuron_fires_as_the_stomatogastric_neuron_does(run_neuron):
    neuron = MODELS["stg"]()
    targets = np.repeat([[5.0, 4.0], [15.0, 8.0], [-8.0, 4.0], [-4.0, 8.0]], 2, 0)
    g = compensate(jr.key(0), neuron, targets).g
    run = simulate(neuron, g, 200.0, dt=0.005)
    cells = run_neuron(neuron, g, "--duration", 200)
    for cell, actual in enumerate(cells):
        expected = run.spike_times[cell][: run.num_spikes[cell]]
        # We report a spike once it is over.
        assert 3 < len(expected) <= len(actual) <= len(expected) + 1
        assert_same_times(actual[: len(expected)], expected)


@pytest.mark.slow
def test_neuron_follows_calcium_and_its_nernst_potential(run_neuron):
    neuron = MODELS["stg-prinz"]()
    g = np.array([200.0, 75.0, 5.0, 4.0, 10.0, 30.0, 0.05, 0.03])
    (actual,) = run_neuron(neuron, g, "--duration", 250)
    expected = reference(neuron, g, 250.0)
    assert len(actual) > 3
    assert_same_times(actual, expected)


@pytest.mark.slow
def test_neuron_runs_what_users_declare(run_neuron):
    # Odd names and curves, equations that are not linear, another capacitance.
    odd = gated("exp", steady=gating.Scaled(Bumpy(-35.0), 0.01))
    odd = eqx.tree_at(lambda c: c.reversal, odd, Constant(-60.0))
    square = gated("K-1", steady=Sigmoid(-20.0, -9.0), kind=Square)
    square = eqx.tree_at(lambda c: c.reversal, square, Constant(-80.0))
    sodium = MODELS["hodgkin-huxley"]().channels[0]
    neuron = leaky(sodium, square, odd, name="a b", capacitance=1.5)
    g = np.array([120.0, 30.0, 0.5, 0.3])
    options = ("--duration", 200, "--current", 20.0, "--start", 20)
    (actual,) = run_neuron(neuron, g, *options)
    expected = reference(neuron, g, 200.0, step(20.0, 20.0))
    assert len(actual) > 3
    assert_same_times(actual, expected)


@pytest.mark.slow
def test_fixed_steps_converge_to_adaptive_ones(run_neuron):
    neuron = MODELS["hodgkin-huxley"]()
    options = ("--duration", 200, "--current", 10, "--start", 20)
    run = lambda *more: run_neuron(neuron, neuron.default_g, *options, *more)[0]
    exact, coarse, fine = run(), run("--dt", 0.02), run("--dt", 0.002)
    error = lambda times: np.abs(times - exact).max()
    assert len(exact) > 3 and error(coarse) < 2
    assert error(fine) < 0.2 * error(coarse)
