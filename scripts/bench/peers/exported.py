"""Jaxley with a model that dicjax exports, so that kinetics are the same."""

import importlib
import importlib.util
import pathlib
import tempfile
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import dicjax as dj


def is_installed() -> bool:
    """Whether there is a Jaxley to compare with."""
    return importlib.util.find_spec("jaxley") is not None


def potentials_by_jaxley(
    neuron: dj.Neuron,
    duration: float,
    dt: float,
    current: float = 0.0,
    checkpoints: list[int] | None = None,
) -> Callable[[jax.Array], jax.Array]:
    """A function from conductances of one cell (mS/cm²) to its potentials (mV).

    Steps are `dt` ms long, by Jaxley's default solver. `current` is in µA/cm². Of
    gradients, `checkpoints` says how many steps are kept together, as Jaxley takes it.
    """
    jaxley: Any = importlib.import_module("jaxley")
    with tempfile.TemporaryDirectory() as folder:
        dj.export_jaxley(neuron, np.ones((1, len(neuron.channels))), folder)
        spec = importlib.util.spec_from_file_location(
            "exported_to_jaxley", pathlib.Path(folder) / "run.py"
        )
        assert spec is not None and spec.loader is not None
        exported: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(exported)
    options = types.SimpleNamespace(
        duration=duration, dt=dt, start=0.0, stop=duration, current=current
    )
    cell = exported.build(options)

    def potentials(g: jax.Array) -> jax.Array:
        state = None
        for i, name in enumerate(exported.CONDUCTANCES.values()):
            state = cell.data_set(name, g[i], state)
        how = {"param_state": state, "delta_t": dt, "checkpoint_lengths": checkpoints}
        return jaxley.integrate(cell, **how)[0]

    return potentials
