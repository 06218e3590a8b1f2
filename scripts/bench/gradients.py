"""What derivatives of trajectories cost, and how exact they are."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Literal

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from scripts.bench.peers.exported import is_installed, potentials_by_jaxley
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.stg_members import stg_members


EVERY = 1.0  # ms between the potentials of a loss
EXACT = 20.0  # ms over which derivatives are compared with differences
CURRENT = 10.0  # µA/cm² into the neurons that Jaxley has too
JAXLEY_DT = 0.025  # ms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradients(Benchmark):
    """Potentials of STG neurons and the gradient of their mean square, side by side.

    Throughput is in simulated seconds of all neurons per CPU second. `solve` is beside
    `simulate` for values, and beside `diffeqsolve` of a `Membrane` for gradients, which
    takes fixed steps of a quarter of `dt` to follow spikes as closely. Errors of
    gradients are those against central differences in float64.

    Hodgkin-Huxley neurons that fire in a constant current are measured beside Jaxley,
    which has the same kinetics, fixed steps of 0.025 ms, and keeps about as many states
    as there are steps between two of them.
    """

    num: tuple[int, ...] = (1, 64)
    """Neurons."""
    duration: float = 1000.0
    """Simulated time, in ms."""
    dt: float = 0.05
    """The time step, in ms."""
    rounds: int = 3
    """Measurements of each."""
    diffrax: bool = True
    """Whether to measure `diffeqsolve` too."""
    models: tuple[Literal["stg", "hodgkin-huxley"], ...] = ("stg", "hodgkin-huxley")
    """Neurons to measure; the second beside Jaxley."""

    def measure(self) -> Iterator[Measurement]:
        """Measures values, gradients, and the errors of gradients."""
        if "stg" in self.models:
            yield from self._of_stg()
        if "hodgkin-huxley" in self.models:
            yield from self._beside_jaxley()

    def _of_stg(self) -> Iterator[Measurement]:
        neuron, ts = dj.stg(), np.arange(EVERY, self.duration, EVERY)
        for num in self.num:
            g = jnp.asarray(stg_members(2 * num, 0, "float32")[:num])

            def solved(g):
                return dj.solve(neuron, g, ts, dt=self.dt).V

            def simulated(g):
                end, dt = self.duration, self.dt
                return dj.simulate(neuron, g, end, dt=dt, save_every=EVERY).V

            loss = lambda g: jnp.mean(solved(g) ** 2)
            calls = {
                ("values", "simulate"): lambda g=g: simulated(g),
                ("values", "solve"): _compiled(solved, g),
                ("gradients", "solve"): _compiled(jax.value_and_grad(loss), g),
            }
            if self.diffrax:
                other = jax.value_and_grad(lambda g: self._by_diffrax(neuron, g, ts))
                calls["gradients", "diffeqsolve"] = _compiled(other, g)
            for (table, of), call in calls.items():
                yield from self._throughput(table, of, num, call)
        g, make = stg_members(4, 0, "float64")[0], self._loss_of_solve(neuron)
        yield from _errors("errors of gradients", {}, g, make)

    def _throughput(self, table, of, num, call) -> Iterator[Measurement]:
        first, later = _cpu_seconds(call, self.rounds)
        work = num * self.duration / 1000
        columns = {
            ("first call", "CPU-s"): first,
            ("throughput", "neuron-s/CPU-s"): [work / x for x in later],
        }
        yield from row(table, {"of": of, "neurons": num}, columns)

    def _beside_jaxley(self) -> Iterator[Measurement]:
        title, spread = "Hodgkin-Huxley", np.random.default_rng(0)
        neuron, current = dj.hodgkin_huxley(), dj.Step(CURRENT)
        default = np.asarray(neuron.default_g)
        losses = {"solve": self._loss_of_solve(neuron, current)}
        if is_installed():
            losses["Jaxley"] = _loss_of_jaxley
        else:
            yield Measurement(title, {"of": "Jaxley"}, note="not installed")
        for num in self.num:
            rows = default * spread.uniform(0.9, 1.1, (num, len(default)))
            g = jnp.asarray(rows, jnp.float32)
            for of, make in losses.items():
                both = jax.value_and_grad(_mean_over_cells(make(self.duration)))
                yield from self._throughput(title, of, num, _compiled(both, g))
        for of, make in losses.items():
            table = f"{title}, errors of gradients"
            yield from _errors(table, {"of": of}, default, make)

    def _loss_of_solve(self, neuron, stimulus=None) -> Callable:
        def make(duration: float) -> Callable:
            ts, dt = np.arange(EVERY, duration, EVERY), self.dt
            V = lambda g: dj.solve(neuron, g, ts, stimulus=stimulus, dt=dt).V
            return lambda g: jnp.mean(V(g) ** 2)

        return make

    def _by_diffrax(self, neuron, g, ts):
        def one(g):
            return dfx.diffeqsolve(
                dfx.ODETerm(dj.Membrane(neuron)),  # pyright: ignore
                dj.StaggeredMidpoint(),
                0.0,
                self.duration,
                self.dt / 4,
                neuron.initial_state(),
                args=g,
                saveat=dfx.SaveAt(ts=jnp.asarray(ts, g.dtype), fn=lambda t, y, _: y.V),
                max_steps=round(4 * self.duration / self.dt) + 16,
                throw=False,
            ).ys

        V = jax.vmap(one)(g)
        assert V is not None  # saved at `ts`
        return jnp.mean(V**2)


def _loss_of_jaxley(duration: float) -> Callable:
    # Twice the root of the steps is kept, and all else computed once more.
    kept = math.ceil(math.sqrt(duration / JAXLEY_DT)) + 1
    how = {"current": CURRENT, "checkpoints": [kept, kept]}
    V = potentials_by_jaxley(dj.hodgkin_huxley(), duration, JAXLEY_DT, **how)
    every = round(EVERY / JAXLEY_DT)
    return lambda g: jnp.mean(V(g)[every : round(duration / JAXLEY_DT) : every] ** 2)


def _mean_over_cells(loss: Callable) -> Callable:
    return lambda g: jnp.mean(jax.vmap(loss)(g))


def _errors(table, case, g: np.ndarray, make: Callable) -> Iterator[Measurement]:
    """Errors of the gradient of a loss of one cell, in two precisions.

    `make` gives the loss over a time in ms. Jaxley computes in double precision where
    JAX can, and keeps arrays, so that there is a loss for each precision.
    """
    with jax.enable_x64(True):
        loss = make(EXACT)
        g = np.asarray(g, np.float64)
        compiled = jax.jit(loss)
        steps = 1e-7 * np.diag(g)  # beyond, step lengths change their rule
        differences = [
            float(compiled(jnp.asarray(g + x)) - compiled(jnp.asarray(g - x)))
            for x in steps
        ]
        expected = np.array(differences) / (2 * np.diag(steps))
        found = {"float64": np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(g)))}
    single, loss = jnp.asarray(g, jnp.float32), make(EXACT)
    found["float32"] = np.asarray(jax.jit(jax.grad(loss))(single), float)
    for dtype, gradient in found.items():
        error = np.abs((gradient - expected) * g).max() / np.abs(expected * g).max()
        columns = {("largest error", "of largest slope"): float(error)}
        yield from row(table, {**case, "dtype": dtype}, columns)


def _compiled(function: Callable, g) -> Callable[[], object]:
    compiled = jax.jit(function)
    return lambda: compiled(g)


def _cpu_seconds(call: Callable[[], object], rounds: int) -> tuple[float, list[float]]:
    """CPU seconds of the first call, which compiles, and of later ones."""
    seconds = []
    for _ in range(rounds + 1):
        began = time.process_time()
        jax.block_until_ready(call())
        seconds.append(time.process_time() - began)
    return seconds[0], seconds[1:]
