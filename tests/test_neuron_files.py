import dataclasses
import pathlib
import sys
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import pytest

from dicjax.neurons.channels import (
    AbstractChannel,
    GatedChannel,
    MarkovChannel,
    Transition,
)
from dicjax.neurons.curves import AbstractCurve, Constant, Exponential, Gate, Sigmoid
from dicjax.neurons.declarations import check_neuron, check_recipe, load_neuron
from dicjax.neurons.models import hodgkin_huxley, MODELS, stg
from dicjax.neurons.neuron import Calcium, Neuron, Temperature


LEAK = GatedChannel("leak", reversal=-50.0)
OPENING = Sigmoid(-30.0, -6.0)
DECLARED = """
import dicjax as dj

leak = dj.GatedChannel("leak", reversal=-50.0)
tau = dj.Constant(5.0)
gate = dj.Gate(4, dj.Sigmoid(-12.0, -11.0), tau)
"""
NEURON = """dj.Neuron(
    name="mine",
    channels=(dj.GatedChannel("Kd", (gate,), reversal=-80.0), leak),
    timescales=(tau, tau, None),
    V_ref=-50.0,
)
"""


class Pole(AbstractCurve):
    def __call__(self, V, Ca):
        return 1 / (V + 40)


class OfCalcium(AbstractCurve):
    def __call__(self, V, Ca):
        return 50 - Ca


class NotJax(AbstractCurve):
    def __call__(self, V, Ca):
        return float(V)


def with_channels(*channels: AbstractChannel, **changes: Any) -> Neuron:
    return Neuron(
        "mine", channels, (Constant(1.0), Constant(5.0), None), -50.0, **changes
    )


def with_gate(steady: AbstractCurve, tau: AbstractCurve, **changes: Any) -> Neuron:
    first = Gate(4, OPENING, Constant(5.0))
    channel = GatedChannel("Na", (first, Gate(3, steady, tau)), reversal=50.0)
    return with_channels(channel, LEAK, **changes)


def with_recipe(**changes: Any) -> Neuron:
    neuron = stg()
    assert neuron.recipe is not None
    recipe = dataclasses.replace(neuron.recipe, **changes)
    return dataclasses.replace(neuron, recipe=recipe)


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> pathlib.Path:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


# Neurons


@pytest.mark.parametrize("name", MODELS)
def test_the_models_that_ship_are_physical_and_their_recipes_consistent(name):
    neuron = MODELS[name]()
    check_neuron(neuron)
    if neuron.recipe is not None:
        check_recipe(neuron)


@pytest.mark.parametrize(
    "steady, tau, message",
    (
        (
            OPENING,
            Sigmoid(-40.0, -1.0, 3.7, -8.0),
            r"Gate 2 \(power 3\) of channel Na has a time constant of -0.\d+ ms at V = "
            r"-40 mV; it must be finite and positive",
        ),
        (OPENING, Pole(), r"Gate 2 .* time constant of -\S+ ms at V = -120 mV"),
        (OPENING, Constant(0.0), "time constant of 0 ms .* at once is a `factor`"),
        (OPENING, Constant(float("inf")), "a time constant of inf ms"),
        (
            Sigmoid(-30.0, -6.0, amplitude=1.2),
            Constant(5.0),
            r"Gate 2 \(power 3\) of channel Na has a steady state of 1.05\d* at V = "
            r"-\S+ mV; it must lie within 0 and 1",
        ),
        (Pole(), Constant(5.0), "Gate 2 .* has a steady state of"),
        (NotJax(), Constant(5.0), "Channel Na cannot be evaluated .*`jax.numpy`"),
    ),
)
def test_an_unphysical_gate_is_named(steady, tau, message):
    with pytest.raises(ValueError, match=message):
        check_neuron(with_gate(steady, tau))


def test_gates_are_looked_at_over_calcium_where_there_is_any():
    calcium = Calcium(("Na",), influx=1.0, baseline=0.1, time_constant=20.0)
    check_neuron(with_gate(OPENING, OfCalcium()))
    with pytest.raises(ValueError, match="of -50 ms at V = -120 mV and Ca = 100 µM;"):
        check_neuron(with_gate(OPENING, OfCalcium(), calcium=calcium))


def test_kinetic_schemes_are_held_to_their_rates():
    def scheme(rate: AbstractCurve, tau: float) -> Neuron:
        steps = (
            Transition("closed", "open", rate),
            Transition("open", "closed", Exponential(-50.0, -20.0)),
        )
        states = "closed", "open"
        return with_channels(
            MarkovChannel("ERG", states, steps, ("open",), tau, reversal=-85.0), LEAK
        )

    check_neuron(scheme(Exponential(-50.0, 20.0), float("inf")))
    # An occupancy that cannot be is found before the rate that caused it.
    with pytest.raises(ValueError, match="State open of channel ERG has a steady"):
        check_neuron(scheme(Constant(-0.1), 10.0))
    with pytest.raises(ValueError, match="The scheme of channel ERG has a time const"):
        check_neuron(scheme(Constant(1.0), -10.0))
    with pytest.raises(ValueError, match="Passage from closed to open .* -1e-20 per"):
        check_neuron(scheme(Constant(-1e-20), 10.0))


def test_currents_must_be_finite():
    blocked = GatedChannel("B", reversal=-80.0, factor=Pole())
    with pytest.raises(ValueError, match=r"Channel B has a current of -?inf .* -40 mV"):
        check_neuron(with_channels(blocked, LEAK))


def test_a_neuron_needs_a_leak():
    gated = GatedChannel("Kd", (Gate(4, OPENING, Constant(5.0)),), reversal=-80.0)
    instantaneous = GatedChannel("leak", reversal=-80.0, factor=OPENING)
    with pytest.raises(ValueError, match=r"mine has no leak, only \('Kd', 'leak'\)"):
        check_neuron(with_channels(gated, instantaneous))


@pytest.mark.parametrize(
    "changes, message",
    (
        ({"capacitance": 0.0}, "The capacitance of mine is 0 µF/cm²; give a positive"),
        ({"normaliser": -0.1}, "The normaliser of mine is -0.1 mS/cm²"),
        ({"temperature": Temperature(20.0, 10.0, -1.0)}, "temperature factor of mine"),
        (
            {"calcium": Calcium(("Na",), 1.0, 0.1, -20.0)},
            "The time constant of calcium of mine is -20 ms",
        ),
    ),
)
def test_constants_must_be_positive(changes, message):
    with pytest.raises(ValueError, match=message):
        check_neuron(with_gate(OPENING, Constant(5.0), **changes))


def test_single_precision_passes_too():
    check_neuron(stg().with_dtype(jnp.dtype(jnp.float32)))


# Recipes


@pytest.mark.parametrize(
    "changes, message",
    (
        ({"ranges": {"X": (0.0, 1.0)}}, "`ranges` in the recipe of stg names 'X'"),
        ({"pairs": (("always", ("A", "X")),)}, "`pairs` in .* names 'X'"),
        ({"solved": ("A", "X")}, "`solved` in .* names 'X'"),
        ({"seed_channels": ("A", "H", "X")}, "`seed_channels` in .* names 'X'"),
        ({"box": {"X": 1.0}}, "`box` in .* names 'X'"),
        ({"box": {"Na": 8000.0}}, "`box` in the recipe of stg lacks Kd; give its"),
        ({"ranges": {"Kd": (2.0, 1.0)}}, "draw Kd from 2 to 1 mS/cm²"),
        ({"ranges": {"Kd": (-1.0, 1.0)}}, "draw Kd from -1 to 1"),
        ({"ranges": {"Kd": (0.0, 2000.0)}}, "draw Kd .* within 0 and 1050"),
        ({"ranges": {}}, "is `scaled_by_leak`, but its range of leak is 0 to 0"),
        ({"g_s": (1.0, 1.0)}, "`g_s` in the recipe of stg ranges from 1 to 1"),
        ({"g_u": (0.0, float("inf"))}, "`g_u` in .* from 0 to inf"),
        ({"pairs": ()}, "`pairs` in .* the last rule be"),
        ({"pairs": (("g_u < 0", ("A", "H")),)}, "`pairs` in .* the last rule be"),
        ({"pairs": (("always", ("A", "A")),)}, "solves for .* two different channels"),
        ({"solved": ("A", "A")}, "solves for .* two different channels"),
        ({"seed_channels": ("A", "H")}, "three different `seed_channels`"),
        ({"discard": 6000.0}, "simulates 6000 ms and discards 6000"),
        ({"dt": 0.0}, "steps by `dt` = 0 ms"),
        ({"current": float("nan")}, "applies nan µA/cm²"),
        ({"noise": (1.0, -1.0)}, "`noise` of -1 µA/cm²"),
    ),
)
def test_an_inconsistent_recipe_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        check_recipe(with_recipe(**changes))


def test_every_bound_of_the_box_is_positive():
    recipe = stg().required_recipe
    with pytest.raises(ValueError, match="bounds A by 0 mS/cm²; give a positive"):
        check_recipe(with_recipe(box={**recipe.box, "A": 0.0}))


def test_a_recipe_is_wanted_and_a_channel_called_leak():
    with pytest.raises(ValueError, match="hodgkin-huxley has no recipe"):
        check_recipe(hodgkin_huxley())
    neuron = eqx.tree_at(
        lambda n: n.channels[-1], stg(), GatedChannel("L", reversal=-50.0)
    )
    recipe = neuron.required_recipe
    ranges = {k: v for k, v in recipe.ranges.items() if k != "leak"}
    box = {"L" if k == "leak" else k: v for k, v in recipe.box.items()}
    recipe = dataclasses.replace(recipe, ranges=ranges, box=box)
    changes = {"defaults": None, "normaliser": 0.01, "recipe": recipe}
    with pytest.raises(ValueError, match="no channel called 'leak'.*call its leak so"):
        check_recipe(dataclasses.replace(neuron, **changes))


def test_names_in_a_recipe_are_checked_when_a_neuron_is_declared():
    with pytest.raises(ValueError, match="'X', which is no channel of it"):
        with_recipe(solved=("A", "X"))


# Files


@pytest.mark.parametrize(
    "end", (f"neuron = {NEURON}", f"def neuron():\n    return {NEURON}")
)
def test_a_file_declares_a_neuron_or_a_function_that_returns_one(written, end):
    path = written(DECLARED + end)
    neuron = load_neuron(path)
    assert neuron.name == "mine" and neuron.channel_names == ("Kd", "leak")
    assert list(path.parent.iterdir()) == [path]  # and leaves nothing beside


def test_a_file_is_read_anew_each_time(written):
    load_neuron(written(DECLARED + f"neuron = {NEURON}"))
    again = load_neuron(
        written(DECLARED + f"neuron = {NEURON}".replace("mine", "ours"))
    )
    assert again.name == "ours"


def test_a_file_may_define_curves_of_its_own(written):
    own = """
import jax.numpy as jnp
from jaxtyping import Array, Float

class Bump(dj.AbstractCurve):
    width: float

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]):
        return 1 + jnp.exp(-((V / self.width) ** 2))

gate = dj.Gate(4, dj.Sigmoid(-12.0, -11.0), Bump(20.0))
"""
    assert load_neuron(written(f"{DECLARED}{own}neuron = {NEURON}")).name == "mine"


@pytest.mark.parametrize(
    "text, message",
    (
        ("x = 1\ny = = 2\n", r"mine.py cannot be run: SyntaxError in line 2: inv"),
        ("x = 1\n\n1 / 0\n", "ZeroDivisionError in line 3: division by zero; correct"),
        ("import no_such_module\n", "ModuleNotFoundError in line 1: No module named"),
        ("import sys\nsys.exit(3)\n", "SystemExit in line 2: 3"),
        ("def neuron():\n    raise KeyError\n", "KeyError in line 2; correct it"),
        ("def neuron(x):\n    return x\n", "TypeError: .*missing 1 required"),
        (
            DECLARED + 'neuron = dj.GatedChannel("x", reversal="a lot")\n',
            "cannot be run: .* in line 7",
        ),
        ("x = 1\n", "mine.py defines no `neuron`; end it with"),
        ("neuron = 3\n", "is or returns int; make it a `dicjax.Neuron`"),
        ("def neuron():\n    pass\n", "is or returns NoneType; make it"),
        (
            DECLARED + f"gate = dj.Gate(1, gate.steady_state, dj.Constant(-3.0))\n"
            f"neuron = {NEURON}",
            r"Gate 1 \(power 1\) of channel Kd has a time constant of -3 ms at V =",
        ),
    ),
)
def test_a_file_that_declares_none_is_refused_in_one_sentence(written, text, message):
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=message) as caught:
        load_neuron(written(text))
    assert "\n" not in str(caught.value)
    assert not [name for name in set(sys.modules) - modules if "neuron_file_" in name]


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "absent.py", tmp_path):
        with pytest.raises(ValueError, match=f"no file {path}; give a Python file"):
            load_neuron(path)
