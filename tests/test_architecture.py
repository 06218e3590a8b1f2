"""Imports point downward: a module imports only from layers below its own."""

import ast
import pathlib
import re

import pytest

import dicjax


PACKAGE = pathlib.Path(dicjax.__file__).parent
LAYERS = (
    ("_checks", "recipe", "config", "linear", "storage", "remedies", "progress"),
    ("processes", "sharding"),
    ("gating", "descent"),
    ("channels", "stimulus"),
    ("neuron",),
    ("models",),
    ("stepping",),
    ("solvers",),
    ("engine",),
    ("kernel",),
    ("scheduling",),
    ("reference",),
    ("simulation", "spikes", "dic", "neuron_files", "electrophysiology"),
    ("families", "current_clamp", "anomalies", "columns", "swept"),
    ("characterisation",),
    ("operator",),
    ("response", "ensemble", "operator_training"),
    ("comparison", "operator_curves", "operator_scores", "operator_tuning"),
    ("operator_tables",),
    ("operator_checkpoint",),
    ("operator_fitting",),
    ("compensation", "diversity"),
    ("population", "readers", "encoder", "atlas", "distances", "correction"),
    ("emulator", "polytope", "trial", "cycle", "reach"),
    ("slopes", "robustness", "explanation"),
    ("dataset", "density", "lora", "posterior", "augmentation"),
    ("calibration", "shards", "result", "refinement"),
    ("paths",),
    ("training", "checkpoint", "tables", "plots"),
    ("search", "fitting", "stored"),
    ("pipeline", "report", "exporters"),
    ("sweeps",),
    ("__init__",),
    ("app",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _layer(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    own = {name.split(".")[1] for name in names if name.startswith("dicjax.")}
    return own - {_layer(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_downward(path):
    layer = _layer(path)
    assert layer in LEVEL, f"{layer} has no layer: give it one in this test"
    for name in _imported(path):
        assert LEVEL[name] < LEVEL[layer], f"{layer} imports {name}, which is above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_nothing_waits_for_workers_of_the_pool_it_runs_on(path):
    # As LAPACK and transforms do, for ever if there are two at once on two cores.
    waiting = r"jnp\.linalg\.(?!norm)|jax\.scipy\.linalg|jnp\.fft"
    assert not re.search(waiting, path.read_text()), "see dicjax/linear.py"


def test_learning_sees_arrays_only():
    biology = {"neuron", "models", "population", "simulation"}
    assert not _imported(PACKAGE / "encoder.py") & biology


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_only_the_doors_print_or_configure(path):
    # A process that a sweep starts comes in by a door of its own.
    if _layer(path) == "cli" or path.stem == "workers":
        return
    text = path.read_text()
    assert "print(" not in text
    assert "os.environ" not in text
    assert "jax.config.update" not in text
