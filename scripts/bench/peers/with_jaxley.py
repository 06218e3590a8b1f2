"""Jaxley: one channel for the whole membrane, neurons side by side by `vmap`."""

import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scripts.bench.peers import liu
from scripts.bench.peers.task import crossings, Result, Run, Task


jaxley: Any = importlib.import_module("jaxley")
channels: Any = importlib.import_module("jaxley.channels")
solver_gate: Any = importlib.import_module("jaxley.solver_gate")

VECTORS: dict[str, str | bool] = {"xla_cpu_prefer_vector_width": "512"}
MEMBRANE = compile(liu.TOTAL_CURRENT, "current", "eval")
RELAXATIONS = {
    x: (compile(inf, x, "eval"), compile(tau, x, "eval"))
    for x, (inf, tau) in liu.STATES.items()
}


class Membrane(channels.Channel):
    """All currents, and calcium with them."""

    def __init__(self):
        self.current_is_in_mA_per_cm2 = True
        super().__init__("stg")
        self.channel_params = {f"g_{name}": 0.0 for name in liu.CHANNELS}
        self.channel_states = {x: 0.0 for x in liu.GATES} | {"Ca": liu.INITIAL_CA}
        self.current_name = "i_stg"

    def update_states(self, states, dt, v, params):
        known = {"exp": jnp.exp, "v": v, **states, **params}
        relax = solver_gate.exponential_euler
        return {
            x: relax(states[x], dt, eval(inf, known), eval(tau, known))
            for x, (inf, tau) in RELAXATIONS.items()
        }

    def compute_current(self, states, v, params):
        return 1e-3 * eval(MEMBRANE, {"exp": jnp.exp, "v": v, **states, **params})

    def init_state(self, states, v, params, delta_t):
        known = {"exp": jnp.exp, "v": v, "Ca": liu.INITIAL_CA}
        return {x: eval(RELAXATIONS[x][0], known) for x in liu.GATES}


def build(task: Task) -> Run:
    """Compiles for the very arrays that are then integrated, for 512-bit vectors.

    So does dicjax, unasked; Jaxley gains up to a fifth from it.
    """
    jax.config.update("jax_enable_x64", task.dtype == "float64")
    jax.config.update("jax_platforms", "cpu")
    cell = _cell()

    def potential(g):
        state = None
        for i, name in enumerate(liu.CHANNELS):
            state = cell.data_set(f"g_{name}", g[i], state)
        return jaxley.integrate(
            cell,
            param_state=state,
            delta_t=task.dt,
            t_max=task.duration,
            solver=task.method,
        )[0]

    g = jnp.asarray(task.g, task.dtype)
    compiled = jax.jit(jax.vmap(potential)).lower(g).compile(VECTORS)

    def run() -> Result:
        V = jax.block_until_ready(compiled(g))
        return Result(lambda: _spikes(np.asarray(V), task.dt))

    return run


def _cell():
    cell = jaxley.Cell()
    cell.insert(Membrane())
    cell.set("v", liu.INITIAL_V)
    cell.set("capacitance", 1.0)
    # Currents are per area, so that its value does not matter.
    cell.set("length", 100 / math.sqrt(math.pi))
    cell.set("radius", 50 / math.sqrt(math.pi))
    cell.init_states()
    cell.record("v", verbose=False)
    return cell


def _spikes(V: np.ndarray, dt: float) -> list[np.ndarray]:
    ts = dt * np.arange(V.shape[1])
    return [crossings(ts, x.astype(float)) for x in V]
