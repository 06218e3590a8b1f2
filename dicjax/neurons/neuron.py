"""Neurons: fixed biology; maximal conductances are data that functions take.

Units everywhere: mV, ms, µM, mS/cm², µA/cm², µF/cm². Code in this file is for one cell.
Public functions take leading axes and `vmap` over them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, ScalarLike

from dicjax._core import cast_floats, Scalar, strong, varying_with
from dicjax.neurons.channels import AbstractChannel, States
from dicjax.neurons.curves import AbstractCurve
from dicjax.neurons.kinetics import check_kinetics
from dicjax.neurons.recipe import Recipe


MAX_STEPS = 50  # of Newton's method


class State(eqx.Module):
    """The state of cells: potential (mV), gates in channel order, calcium (µM)."""

    V: Float[Array, "*cells"]
    gates: tuple[Float[Array, "*cells"], ...]
    Ca: Float[Array, "*cells"]


class Calcium(eqx.Module):
    r"""A calcium pool, $\tau \dot{Ca} = -\alpha \sum I - Ca + \beta$.

    - `sources`: names of the channels whose currents enter the pool.
    - `influx`: $\alpha$, in µM per µA/cm².
    - `baseline`: $\beta$, in µM.
    - `time_constant`: $\tau$, in ms.
    """

    sources: tuple[str, ...] = eqx.field(static=True)
    influx: Scalar = eqx.field(converter=strong)
    baseline: Scalar = eqx.field(converter=strong)
    time_constant: Scalar = eqx.field(converter=strong)


class Temperature(eqx.Module):
    r"""A common factor $q_{10}^{(T - T_0) / 10}$ on the speed of all kinetics.

    - `celsius`: the temperature $T$ of the neuron, in °C.
    - `reference`: the temperature $T_0$ of the declared kinetics, in °C.
    - `q10`: the factor for every 10 °C.
    """

    celsius: Scalar = eqx.field(converter=strong)
    reference: Scalar = eqx.field(converter=strong)
    q10: Scalar = eqx.field(converter=strong)

    @property
    def speed(self) -> Scalar:
        """The factor on all rates."""
        return self.q10 ** ((self.celsius - self.reference) / 10)


Defaults = tuple[tuple[str, float], ...]


def _by_name(conductances: Mapping[str, float] | Defaults | None) -> Defaults | None:
    return None if conductances is None else tuple(dict(conductances).items())


class Neuron(eqx.Module):
    r"""A conductance-based model, $C \dot V = I - \sum_c g_c p_c(V, x, Ca) (V - E_c)$.

    - `name`: its name in files and on the command line.
    - `channels`: its channels. Conductances are in the same order everywhere.
    - `timescales`: the fast, slow and ultraslow reference time constants (ms), which
        divide dynamic input conductances into timescales.
    - `V_ref`: the potential of published targets, in mV.
    - `normaliser`: dynamic input conductances are divided by this conductance: the name
        of a channel, or a number in mS/cm².
    - `calcium`: its calcium pool, if it has one.
    - `capacitance`: $C$, in µF/cm².
    - `initial_V`, `initial_Ca`: initial potential (mV) and calcium (µM) of simulations;
        gates start in equilibrium.
    - `V_spike`, `V_rearm`: a spike is an upward crossing of the first potential (mV)
        that a later fall below the second confirms. Lower both for a neuron whose
        spikes stay below 10 mV, such as -20 and -30 mV.
    - `temperature`: a common factor on the speed of all kinetics, if any.
    - `defaults`: published maximal conductances (mS/cm²) by channel, if any.
    - `recipe`: how populations of it are drawn.
    """

    name: str = eqx.field(static=True)
    channels: tuple[AbstractChannel, ...]
    timescales: tuple[AbstractCurve, AbstractCurve, AbstractCurve | None]
    V_ref: Scalar = eqx.field(converter=strong)
    normaliser: str | float = eqx.field(static=True, default="leak")
    calcium: Calcium | None = None
    capacitance: Scalar = eqx.field(converter=strong, default=1.0)
    initial_V: Scalar = eqx.field(converter=strong, default=-70.0)
    initial_Ca: Scalar = eqx.field(converter=strong, default=0.05)
    temperature: Temperature | None = None
    defaults: Defaults | None = eqx.field(static=True, converter=_by_name, default=None)
    recipe: Recipe | None = eqx.field(static=True, default=None)
    V_spike: Scalar = eqx.field(converter=strong, default=10.0)
    V_rearm: Scalar = eqx.field(converter=strong, default=0.0)

    def __check_init__(self):
        self._check_levels()
        names = self.channel_names
        if len(set(names)) != len(names):
            raise ValueError(f"Channel names must differ, got {names}.")
        self.index(*(self.calcium.sources if self.calcium is not None else ()))
        if isinstance(self.normaliser, str):
            self.index(self.normaliser)
        if self.recipe is not None:
            self.recipe.check_names(self.name, names)
        if self.defaults is not None and set(dict(self.defaults)) != set(names):
            raise ValueError(
                f"Default conductances of {self.name} must be those of {names}, got "
                f"{tuple(dict(self.defaults))}."
            )
        check_kinetics(self)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels, in the order of `g`."""
        return tuple(channel.name for channel in self.channels)

    @property
    def default_g(self) -> Float[Array, " channels"]:
        """Published conductances, in mS/cm²; raises `ValueError` if there are none."""
        if self.defaults is None:
            raise self._lack("default conductances", "some")
        values = dict(self.defaults)
        return jnp.array([float(values[name]) for name in self.channel_names])

    @property
    def required_recipe(self) -> Recipe:
        """The recipe; raises `ValueError` if the model has none."""
        if self.recipe is None:
            raise self._lack("recipe for populations", "one")
        return self.recipe

    @property
    def box(self) -> np.ndarray:
        """Upper bounds of Monte-Carlo sampling, in the order of `g`."""
        return np.array([self.required_recipe.box[name] for name in self.channel_names])

    @property
    def bounds(self) -> np.ndarray:
        """Upper bounds of conductances in a search, in the order of `g`."""
        # Published recipes that do not draw from the box go far beyond it.
        return self.box * (1 if self.required_recipe.bounded else 3)

    @property
    def spike_levels(self) -> dict[str, Scalar]:
        """`V_spike` and `V_rearm`, for functions that look for spikes in potentials."""
        return {"V_spike": self.V_spike, "V_rearm": self.V_rearm}

    def index(self, *names: str) -> tuple[int, ...]:
        """Positions in `g` of the channels named `names`."""
        for name in names:
            if name not in self.channel_names:
                raise ValueError(
                    f"{self.name} has no channel {name!r}, only {self.channel_names}."
                )
        return tuple(self.channel_names.index(name) for name in names)

    def with_dtype(self, dtype: jnp.dtype) -> "Neuron":
        """Returns the neuron with every constant in `dtype`."""
        return cast_floats(self, dtype)

    def at(self, celsius: ScalarLike) -> "Neuron":
        """Returns the neuron at another temperature, in °C."""
        if self.temperature is None:
            raise self._lack("temperature", "a `Temperature`")
        temperature = dataclasses.replace(self.temperature, celsius=celsius)
        return dataclasses.replace(self, temperature=temperature)

    def _check_levels(self) -> None:
        levels = self.V_spike, self.V_rearm
        if any(isinstance(x, jax.core.Tracer) for x in levels):
            return
        up, down = np.broadcast_arrays(*levels)
        bad = ~(np.isfinite(up) & np.isfinite(down) & (down < up))
        if bad.any():
            up, down = up[bad][0], down[bad][0]
            raise ValueError(
                f"`V_rearm` of {self.name} is {down:g} mV and `V_spike` {up:g} mV, but "
                "a spike crosses `V_spike` and then falls below `V_rearm`: give finite "
                "potentials, `V_rearm` below `V_spike`."
            )

    def _lack(self, what: str, remedy: str) -> ValueError:
        return ValueError(f"{self.name} has no {what}; give its `Neuron` {remedy}.")

    def _with_states(self, states: States) -> Iterator[tuple[AbstractChannel, States]]:
        start = 0
        for channel in self.channels:
            stop = start + channel.num_states
            yield channel, states[start:stop]
            start = stop

    def unit_currents(self, V: Scalar, gates: States, Ca: Scalar) -> States:
        """Currents of one mS/cm² of every channel, in µA/cm², outward positive."""
        own = self._with_states(gates)
        return tuple(channel.current(V, states, Ca) for channel, states in own)

    def total_current(self, V: Scalar, gates: States, Ca: Scalar, g: PyTree) -> Scalar:
        """The membrane current of a cell with conductances `g`, in µA/cm²."""
        unit = self.unit_currents(V, gates, Ca)
        return sum((g[i] * I for i, I in enumerate(unit)), jnp.zeros_like(V))

    def calcium_current(
        self, V: Scalar, gates: States, Ca: Scalar, g: PyTree
    ) -> Scalar:
        """The current that enters the calcium pool, in µA/cm²."""
        if self.calcium is None:
            return jnp.zeros_like(V)
        unit = self.unit_currents(V, gates, Ca)
        sources = self.index(*self.calcium.sources)
        return sum((g[i] * unit[i] for i in sources), jnp.zeros_like(V))

    def calcium_rate(self, V: Scalar, gates: States, Ca: Scalar, g: PyTree) -> Scalar:
        """dCa/dt in µM/ms; zero if the model has no calcium."""
        pool = self.calcium
        if pool is None:
            return jnp.zeros_like(V)
        inflow = -(pool.influx * self.calcium_current(V, gates, Ca, g))
        rate = (inflow - Ca + pool.baseline) / pool.time_constant
        return rate if self.temperature is None else self.temperature.speed * rate

    def steady_gates(self, V: Scalar, Ca: Scalar) -> States:
        """All gates in equilibrium at `V` and `Ca`, in channel order."""
        steady = (x.steady_states((V,) * x.num_variables, Ca) for x in self.channels)
        return tuple(itertools.chain(*steady))

    def time_constants(self, V: Scalar, Ca: Scalar) -> States:
        """Time constants of all gates and kinetic schemes, in ms."""
        tau = (channel.time_constants(V, Ca) for channel in self.channels)
        return self.slowed(itertools.chain(*tau))

    def reference_time_constants(self, V: Scalar, Ca: Scalar) -> States:
        """The two or three reference time constants (ms) of the timescales."""
        return self.slowed(curve(V, Ca) for curve in self.timescales if curve)

    def slowed(self, time_constants: Iterable[Scalar]) -> States:
        """Converts declared time constants (ms) to the neuron's temperature."""
        if self.temperature is None:
            return tuple(time_constants)
        speed = self.temperature.speed
        return tuple(tau / speed for tau in time_constants)

    def relax(self, V: Scalar, gates: States, Ca: Scalar, h: Scalar) -> States:
        """All gates after `h` ms at fixed potential and calcium."""
        h = h if self.temperature is None else self.temperature.speed * h
        own = self._with_states(gates)
        relaxed = (channel.relax(V, states, Ca, h) for channel, states in own)
        return tuple(itertools.chain(*relaxed))

    def vector_field(
        self, t: Scalar, y: State, g: PyTree, I_ext: Scalar | None
    ) -> State:
        """Time derivatives of the state, per ms, with an applied `I_ext` (µA/cm²)."""
        del t
        I = self.total_current(y.V, y.gates, y.Ca, g)
        I = I if I_ext is None else I - I_ext
        own = self._with_states(y.gates)
        rates = itertools.chain.from_iterable(
            channel.derivatives(y.V, states, y.Ca) for channel, states in own
        )
        if self.temperature is not None:
            speed = self.temperature.speed
            rates = (speed * rate for rate in rates)
        Ca = self.calcium_rate(y.V, y.gates, y.Ca, g)
        return State(V=-I / self.capacitance, gates=tuple(rates), Ca=Ca)

    def initial_state(self, V: Scalar | None = None, Ca: Scalar | None = None) -> State:
        """The state at `V` (mV) and `Ca` (µM), with gates in equilibrium.

        Potential and calcium are by default those at which simulations start.
        """
        V = self.initial_V if V is None else V
        Ca = self.initial_Ca if Ca is None else Ca
        return State(V=V, gates=self.steady_gates(V, Ca), Ca=Ca)

    def steady_calcium(self, V: Scalar, g: PyTree) -> Scalar:
        """Calcium (µM) of a cell that is held at `V` until it has settled.

        If the reversal potential of calcium depends on its concentration, the balance
        is implicit. It increases with calcium, so that Newton's method finds its root.
        """
        pool = self.calcium
        if pool is None:
            return jnp.zeros_like(V)
        (tau,) = self.slowed((pool.time_constant,))

        def imbalance(Ca: Scalar) -> Scalar:
            gates = self.steady_gates(V, Ca)
            return -self.calcium_rate(V, gates, Ca, g) * tau

        start = varying_with(jnp.broadcast_to(pool.baseline, jnp.shape(V)), self, V, g)
        return root(imbalance, start)


def root(residual: Callable[[Scalar], Scalar], guess: Scalar) -> Scalar:
    """A zero of a scalar function by Newton's method, differentiable to any order.

    Derivatives follow from the implicit function theorem, with respect to all that the
    function depends on. No iteration is differentiated.
    """

    def search(residual: Callable[[Scalar], Scalar], start: Scalar) -> Scalar:
        @jax.jit  # so that it is traced once
        def newton(x: Scalar) -> Scalar:
            value, slope = jax.jvp(residual, (x,), (jnp.ones_like(x),))
            return x - value / slope

        def moving(carry):
            x, step, count = carry
            eps = jnp.finfo(x.dtype).eps
            return (jnp.abs(step) > 4 * eps * (1 + jnp.abs(x))) & (count < MAX_STEPS)

        def iterate(carry):
            x, _, count = carry
            new = newton(x)
            return new, new - x, count + 1

        first = newton(start)
        begun = first, first - start, jnp.zeros_like(start)
        x, _, _ = jax.lax.while_loop(moving, iterate, begun)
        return newton(x)

    divide = lambda linear, y: y / linear(jnp.ones_like(y))
    return jax.lax.custom_root(residual, jax.lax.stop_gradient(guess), search, divide)
