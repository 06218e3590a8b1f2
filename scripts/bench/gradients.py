"""What derivatives of trajectories cost, and how exact they are."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.stg_members import stg_members


EVERY = 1.0  # ms between the potentials of a loss
EXACT = 20.0  # ms over which derivatives are compared with differences


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradients(Benchmark):
    """Potentials of STG neurons and the gradient of their mean square, side by side.

    Throughput is in simulated seconds of all neurons per CPU second. `solve` is beside
    `simulate` for values, and beside `diffeqsolve` of a `Membrane` for gradients, which
    takes fixed steps of a quarter of `dt` to follow spikes as closely. Errors of
    gradients are those against central differences in float64.
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

    def measure(self) -> Iterator[Measurement]:
        """Measures values, gradients, and the errors of gradients."""
        neuron, ts = dj.stg(), np.arange(EVERY, self.duration, EVERY)
        for num in self.num:
            g = jnp.asarray(stg_members(2 * num, 0, "float32")[:num])

            def solved(g):
                return dj.solve(neuron, g, ts, dt=self.dt).V

            def simulated(g):
                how = {"save": "traces", "save_every": EVERY, "dt": self.dt}
                return dj.simulate(neuron, g, self.duration, **how).V

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
                first, later = _cpu_seconds(call, self.rounds)
                work = num * self.duration / 1000
                columns = {
                    ("first call", "CPU-s"): first,
                    ("throughput", "neuron-s/CPU-s"): [work / x for x in later],
                }
                yield from row(table, {"of": of, "neurons": num}, columns)
        yield from self._errors(neuron)

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

    def _errors(self, neuron) -> Iterator[Measurement]:
        ts = np.arange(EVERY, EXACT, EVERY)
        with jax.enable_x64(True):
            g = stg_members(4, 0, "float64")[0]

            def loss(g):
                return jnp.mean(dj.solve(neuron, g, ts, dt=self.dt).V ** 2)

            compiled = jax.jit(loss)
            steps = 1e-7 * np.diag(g)  # beyond, step lengths change their rule
            differences = [
                float(compiled(jnp.asarray(g + x)) - compiled(jnp.asarray(g - x)))
                for x in steps
            ]
            expected = np.array(differences) / (2 * np.diag(steps))
            found = {"float64": np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(g)))}
            single = jnp.asarray(g, jnp.float32)
            found["float32"] = np.asarray(jax.jit(jax.grad(loss))(single), float)
        for dtype, gradient in found.items():
            error = np.abs((gradient - expected) * g).max() / np.abs(expected * g).max()
            columns = {("largest error", "of largest slope"): float(error)}
            yield from row("errors of gradients", {"dtype": dtype}, columns)


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
