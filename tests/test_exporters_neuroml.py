"""NeuroML: what its file states, read by an evaluator of its own."""

import re
import xml.etree.ElementTree as ET

import jax.numpy as jnp
import numpy as np
import pytest
from test_exporters import Bumpy, gated, leaky, Square

from dicjax.neurons import curves
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import State
from dicjax.output.exporters import export_neuroml


NS = "{http://www.neuroml.org/schema/neuroml2}"
WORDS = {
    **{f".{old}.": f" {new} " for old, new in (("lt", "<"), ("leq", "<="))},
    **{f".{old}.": f" {new} " for old, new in (("gt", ">"), ("geq", ">="))},
    **{f".{old}.": f" {new} " for old, new in (("eq", "=="), ("neq", "!="))},
    **{".and.": " and ", ".or.": " or ", "^": "**"},
}
FUNCTIONS = {name: getattr(np, name) for name in ("exp", "tanh", "sinh", "cosh", "abs")}
FUNCTIONS |= {"ln": np.log, "sin": np.sin, "cos": np.cos, "sqrt": np.sqrt}


def computed(text: str, names: dict[str, float]) -> float | bool:
    for old, new in WORDS.items():
        text = text.replace(old, new)
    return eval(text, {"__builtins__": {}}, FUNCTIONS | names)


def value(text: str, names: dict[str, float]) -> float:
    """A number, which LEMS does not take a condition for."""
    assert not re.search(r"\.[a-z]+\.", text)
    return float(computed(text, names))


def condition(text: str, names: dict[str, float]) -> bool:
    """Comparisons of numbers, and what joins them."""
    for term in re.split(r"\.and\.|\.or\.", text):
        assert len(re.findall(r"\.[a-z]+\.", term)) == 1
    found = computed(text, names)
    assert isinstance(found, bool | np.bool)
    return bool(found)


def component(folder) -> ET.Element:
    (path,) = folder.glob("*.cell.nml")
    found = ET.parse(path).getroot().find(f"{NS}ComponentType")
    assert found is not None
    return found


def rates(kind: ET.Element, V: float, states, g, applied: float) -> dict[str, float]:
    """Time derivatives, in units of mV and ms, as a reader of LEMS computes them."""
    names = {"potential": V, "t": 1.0, "start": 0.0, "stop": 2.0, "applied": applied}
    names |= {"MV": 1.0, "MS": 1.0, "G": 1.0, "UA": 1.0, **states, **g}
    dynamics = kind.find(f"{NS}Dynamics")
    assert dynamics is not None
    for x in kind.findall(f"{NS}Constant"):
        names.setdefault(x.attrib["name"], 0.0)
    for x in dynamics:
        if x.tag == f"{NS}DerivedVariable":
            names[x.attrib["name"]] = value(x.attrib["value"], names)
        if x.tag == f"{NS}ConditionalDerivedVariable":
            cases = (y.attrib for y in x)
            holds = lambda y: "condition" not in y or condition(y["condition"], names)
            names[x.attrib["name"]] = value(next(filter(holds, cases))["value"], names)
    found = dynamics.findall(f"{NS}TimeDerivative")
    return {x.attrib["variable"]: value(x.attrib["value"], names) for x in found}


def odd():
    """Curves of users, equations that are not linear, and another capacitance."""
    bumpy = gated("exp", steady=curves.Scaled(Bumpy(-35.0), 0.01))
    square = gated("K-1", steady=curves.Sigmoid(-20.0, -9.0), kind=Square)
    return leaky(square, bumpy, name="a b", capacitance=1.5)


class Stepwise(curves.AbstractCurve):
    """A curve in which conditions are added, chosen, and joined to a constant."""

    def __call__(self, V, Ca):
        is_low, is_high = V < -40, V > 0
        steps = is_low.astype(V.dtype) + 2.0 * is_high.astype(V.dtype)
        chosen = jnp.where(Ca > 2, is_low, is_high & True)
        denied = ~jnp.where(V > -20, chosen, Ca > V**2) | (V < -80)
        return 1.5 + steps + jnp.where(chosen, V / 90, 0.5) + jnp.where(denied, 0.2, Ca)


def stepwise():
    return leaky(gated("x", steady=curves.Scaled(Stepwise(), 0.01)))


NEURONS = {**MODELS, "odd": odd, "stepwise": stepwise}


@pytest.mark.parametrize("name", NEURONS)
def test_the_file_states_the_equations_of_the_neuron(name, tmp_path):
    neuron, rng = NEURONS[name](), np.random.default_rng(0)
    g = rng.uniform(0.1, 5.0, len(neuron.channels))
    export_neuroml(neuron, g, tmp_path)
    kind = component(tmp_path)
    own = [x.attrib["name"] for x in kind.findall(f"{NS}Parameter")][: len(g)]
    shown = [x.attrib["name"] for x in kind.findall(f"{NS}Exposure")]
    gates = [x for x in shown if x != "Ca"]
    for V in rng.uniform(-90.0, 40.0, 20):
        x, Ca = rng.uniform(0.05, 0.95, len(gates)), rng.uniform(0.1, 5.0)
        y = State(jnp.asarray(V), tuple(map(jnp.asarray, x)), jnp.asarray(Ca))
        expected = neuron.vector_field(
            jnp.zeros(()), y, jnp.asarray(g), jnp.asarray(1.5)
        )
        states = dict(zip(gates, x, strict=True)) | {"Ca": Ca}
        found = rates(kind, V, states, dict(zip(own, g, strict=True)), 1.5)
        wanted = {
            "potential": expected.V,
            **dict(zip(gates, expected.gates, strict=True)),
        }
        if neuron.calcium is not None:
            wanted["Ca"] = expected.Ca
        assert found.keys() == wanted.keys()
        for state, rate in found.items():
            assert rate == pytest.approx(float(wanted[state]), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", NEURONS)
def test_the_file_is_neuroml(name, tmp_path):
    utils = pytest.importorskip("neuroml.utils")
    neuron = NEURONS[name]()
    export_neuroml(neuron, np.ones(len(neuron.channels)), tmp_path)
    (path,) = tmp_path.glob("*.cell.nml")
    utils.validate_neuroml2(str(path))
    kind = component(tmp_path)
    assert re.fullmatch(r"dicjax_\w+", kind.attrib["name"])
