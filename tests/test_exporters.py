import csv
import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dicjax.neurons import curves as gating
from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import AbstractCurve, Constant, Gate, Sigmoid
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Neuron
from dicjax.output.exporters import (
    export_brian2,
    export_jaxley,
    export_neuroml,
    export_neuron,
)
from dicjax.output.exporters.equations import identifiers


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


class Square(GatedChannel):
    """A channel whose gates are no linear equations."""

    def derivatives(self, V, states, Ca):
        gates = zip(self.gates, states, strict=True)
        return tuple(
            (gate.steady_state(V, Ca) ** 2 - x**2) / gate.time_constant(V, Ca)
            for gate, x in gates
        )


SIGMOID = Sigmoid(-30.0, -7.0)
SCRIPTS = pytest.mark.parametrize(
    "export", (export_neuron, export_brian2, export_jaxley, export_neuroml)
)


def leaky(*channels, name="cell", **options):
    leak = GatedChannel("leak", reversal=-60.0)
    scales = (Constant(0.5), Constant(3.0), None)
    return Neuron(name, (*channels, leak), scales, -50.0, **options)


def gated(name="Na", steady: AbstractCurve = SIGMOID, kind=GatedChannel):
    return kind(name, (Gate(2, steady, Constant(5.0)),), reversal=50.0)


def mechanism(folder):
    (path,) = (folder / "mod").iterdir()
    return path.read_text()


def written(folder):
    """What an export says of the model, wherever it says it."""
    paths = (x for x in sorted(folder.rglob("*")) if x.suffix in (".mod", ".py"))
    return "\n".join(path.read_text() for path in paths)


ODD = ("H", "A", "h", "Na+", "K-1", "K_1", "K_10", "exp", "STATE", "if", "Ca", "Σ", "2")


def test_names_become_different_identifiers():
    found = identifiers(("K-1", "K_1", "K_10", "K 1", "h", "H"))
    assert len(set(found)) == 6
    assert all(re.fullmatch(r"\w+", name, re.ASCII) for name in found)
    # NMODL gives every state `x` an `x0`.
    assert not {f"{name}0" for name in found} & set(found)


def test_odd_names_are_legal_in_the_mechanism(tmp_path):
    neuron = leaky(*(gated(name) for name in ODD), name="exp 1")
    export_neuron(neuron, np.ones(len(ODD) + 1), tmp_path)
    (path,) = (tmp_path / "mod").iterdir()
    assert path.name == "dicjax_exp_1.mod"
    text = path.read_text()
    names = re.findall(r"^    (\w+)(?: \(.*\))?$", text.split("ASSIGNED")[1], re.M)
    assert len(names) == len(set(names)) > 4 * len(ODD)
    assert all(name.isascii() and not name[0].isdigit() for name in names)


@SCRIPTS
def test_odd_names_are_kept_in_the_table(export, tmp_path):
    neuron = leaky(*(gated(name) for name in ODD), name="exp 1")
    export(neuron, np.ones(len(ODD) + 1), tmp_path)
    with open(tmp_path / "conductances.csv", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header == ["member", *(f"g_{name}" for name in (*ODD, "leak"))]
    scope = {}
    script = (tmp_path / "run.py").read_text()
    (table,) = re.findall(r"CONDUCTANCES = \{.*?\}", script, re.S)
    exec(table, scope)
    assert list(scope["CONDUCTANCES"]) == header[1:]
    names = set(scope["CONDUCTANCES"].values())
    assert len(names) == len(ODD) + 1 and all(map(str.isidentifier, names))


# Cells of the cortex differ in numbers and in one channel.
ALIKE = {"pospischil-rs", "pospischil-fs", "pospischil-lts"}
EXPORTS = [
    pytest.param(export, name, marks=pytest.mark.slow)
    if name in ALIKE and export is not export_neuron
    else (export, name)
    for export in (export_neuron, export_brian2, export_jaxley, export_neuroml)
    for name in MODELS
]


@pytest.mark.parametrize("export, model", EXPORTS)
def test_every_model_can_be_exported(model, export, tmp_path):
    neuron = MODELS[model]()
    g = np.linspace(0.1, 1 / 3, 2 * len(neuron.channels)).reshape(2, -1)
    export(neuron, g, tmp_path, members=(7, 3))
    table = np.loadtxt(tmp_path / "conductances.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table, np.column_stack([(7, 3), g]))
    script, readme = (tmp_path / "run.py").read_text(), tmp_path / "README.txt"
    compile(script, "run.py", "exec")
    assert "\n\n\n\n" not in script
    assert f"_{neuron.channel_names[0]}  conductance of" in readme.read_text()
    assert max(map(len, readme.read_text().splitlines())) < 100
    if export is export_neuron:
        check_exact_steps(mechanism(tmp_path))


def check_exact_steps(text):
    assert "METHOD cnexp" in text
    assert len(re.findall(r"' = \(\w+ - \w+\)/\w+$", text, re.M)) == text.count("' = ")
    assert max(map(len, text.splitlines())) < 140


def test_capacitance_start_and_temperature_are_those_of_the_model(tmp_path):
    cell = leaky(gated(), capacitance=2.5, initial_V=-71.5)
    export_neuron(cell, np.ones(2), tmp_path / "cell")
    script = (tmp_path / "cell" / "run.py").read_text()
    assert "soma.cm = 2.5" in script and "finitialize(-71.5)" in script
    for export, texts in (
        (export_brian2, ("membrane)/(2.5*ms)", '"v": -71.5')),
        (export_jaxley, ('"capacitance", 2.5', 'cell.set("v", -71.5)')),
    ):
        export(cell, np.ones(2), tmp_path / "cell")
        script = (tmp_path / "cell" / "run.py").read_text()
        assert all(text in script for text in texts)
    axon = MODELS["hodgkin-huxley"]()
    warm = eqx.tree_at(lambda n: n.temperature.celsius, axon, jnp.asarray(16.3))
    for name, neuron in (("cold", axon), ("warm", warm)):
        export_neuron(neuron, np.ones(3), tmp_path / name)
    assert mechanism(tmp_path / "warm") == re.sub(
        r"tau(\w+) = 1/(\w+)", r"tau\1 = 1/\2/3", mechanism(tmp_path / "cold")
    )


@SCRIPTS
def test_the_current_of_a_recipe_is_applied_by_default(export, tmp_path):
    for model, current in (("pospischil-ib", None), ("stg", 0.0)):
        neuron = MODELS[model]()
        current = neuron.required_recipe.current if current is None else current
        export(neuron, neuron.default_g, tmp_path)
        script = (tmp_path / "run.py").read_text()
        assert f'"--current", type=float, default={current}' in script
        readme = (tmp_path / "README.txt").read_text()
        assert ("`--current`" in readme) == (current > 0)


def test_calcium_without_a_pool_stays_where_it_starts(tmp_path):
    channel = gated("KCa", steady=gating.CalciumSaturation(3.0))
    export_neuron(leaky(channel, initial_Ca=0.7), np.ones(2), tmp_path)
    text = mechanism(tmp_path)
    assert "    Ca = 0.7 (uM)\n" in text and "\n    Ca' " not in text
    for export, text in ((export_brian2, "Ca : 1 (constant)"), (export_jaxley, "")):
        export(leaky(channel, initial_Ca=0.7), np.ones(2), tmp_path)
        script = (tmp_path / "run.py").read_text()
        assert text in script and '"Ca": 0.7,' in script


def test_states_that_are_not_linear_take_newtons_method(tmp_path):
    export_neuron(leaky(gated(kind=Square)), np.ones(2), tmp_path)
    assert "METHOD derivimplicit" in mechanism(tmp_path)


@SCRIPTS
def test_single_precision_is_written_as_it_was_declared(export, tmp_path):
    for dtype in (jnp.float32, jnp.float64):
        neuron = MODELS["stg-prinz"]().with_dtype(jnp.dtype(dtype))
        export(neuron, np.ones(8), tmp_path / jnp.dtype(dtype).name)
    assert written(tmp_path / "float32") == written(tmp_path / "float64")


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


@SCRIPTS
def test_cells_that_cannot_be_are_refused(export, tmp_path):
    neuron = leaky(gated())
    with pytest.raises(ValueError, match=r"\(3,\)"):
        export(neuron, np.ones(3), tmp_path / "new")
    with pytest.raises(ValueError, match="-1.0"):
        export(neuron, np.array([-1.0, 1.0]), tmp_path / "new")
    for members in ((0,), (1, 1), (0, 1, 2)):
        with pytest.raises(ValueError, match="`members`"):
            export(neuron, np.ones((2, 2)), tmp_path / "new", members=members)
    assert not (tmp_path / "new").exists()
