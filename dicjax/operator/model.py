r"""A neural operator: currents and features of a neuron in, its potential out.

A network, the branch, reads interpretable features of a neuron (its rest, its F-I
curve, the shape of its spikes; see [`dicjax.characterise`][]) as sinusoids scaled in
frequency and in amplitude, and sets the amplitudes $a$ of

$$C \dot V = I - \sum_k a_k \prod_j z_j^{p_{kj}} D_k(V), \qquad
\dot z_j = r_j(V) \, (z^\infty_j(V) - z_j)$$

whose latent units $z$ form a selective state-space layer: the potential decides how
fast each of them forgets. The curves $D$, $r$ and $z^\infty$ are held on a grid of
potentials. They start from the kinetics of the operator's family and are corrected
through time, so that long steps are as good as short ones.

The operator is causal, takes currents of any shape, length and sampling step, and
continues where it stopped. It is exact between spikes, where it is decided whether a
neuron fires, and where operators without such structure drift.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Key

from dicjax._core import in_float32, strong, strong_pair
from dicjax.neurons import Calcium, GatedChannel, Neuron
from dicjax.operator.config import OperatorConfig
from dicjax.operator.families import Family


LOWEST, HIGHEST, SPACING = -140.0, 90.0, 0.25  # mV, the grid of potentials
NUM_NODES = round((HIGHEST - LOWEST) / SPACING) + 1
REMEMBERED = 64  # samples between the states that a gradient keeps
LEAST = 1e-6  # open part below which logits end
WIDEST = 3.0  # standard deviations of log amplitudes that the branch reaches

LEVELS = (0.01, 1000.0, 97)  # µM: lowest, highest and number of levels of calcium
SETTLING = 40  # rounds in which calcium at rest is found

Table = Float[Array, "levels nodes columns"]


class Memory(eqx.Module):
    """Where a response stopped, with units and calcium (µM) half a step behind `V`."""

    V: Float[Array, "*cells"]
    units: Float[Array, "*cells units"]
    Ca: Float[Array, "*cells"]


class Curves(eqx.Module):
    """Curves over potentials of a family, on the grid, and their learned corrections.

    Of families with calcium they are held at many levels of it.

    - `logit_open`, `log_rate`: of latent units; rates are per ms.
    - `drive`: current of a unit of amplitude, all open, in µA/cm².
    - `correction`: of logits, of logarithms of rates and of drives, at a few knots.
    """

    logit_open: Float[Array, "levels nodes units"] = eqx.field(converter=strong)
    log_rate: Float[Array, "levels nodes units"] = eqx.field(converter=strong)
    drive: Float[Array, "levels nodes terms"] = eqx.field(converter=strong)
    correction: Float[Array, "knots columns"] = eqx.field(converter=strong)

    @property
    def num_units(self) -> int:
        """How many latent units there are."""
        return self.logit_open.shape[-1]

    def table(self) -> Table:
        """Open part, rate and drive at every node, and what each gains to the next."""
        num, num_knots = self.num_units, len(self.correction)
        at = jnp.linspace(0, num_knots - 1, NUM_NODES).astype(self.correction.dtype)
        i, part = _place(at, num_knots)
        correction = _between(self.correction, i, part[:, None])[None]
        logit, log_rate, log_drive = jnp.split(correction, (num, 2 * num), axis=2)
        opened = jax.nn.sigmoid(self.logit_open + logit)
        rate, drive = jnp.exp(self.log_rate + log_rate), self.drive * jnp.exp(log_drive)
        values = jnp.concatenate([opened, rate, drive], axis=2)
        return jnp.concatenate([values[:, :-1], jnp.diff(values, axis=1)], axis=2)


class Branch(eqx.Module):
    """From coordinates of a neuron's features to the amplitudes of its membrane.

    - `center`, `spread`: of the coordinates.
    - `amplitude_center`, `amplitude_spread`: of logarithms of amplitudes.
    """

    first: eqx.nn.Linear
    hidden: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    center: Float[Array, " features"]
    spread: Float[Array, " features"]
    amplitude_center: Float[Array, " terms"]
    amplitude_spread: Float[Array, " terms"]
    num_frequencies: int = eqx.field(static=True)

    def __init__(
        self,
        config: OperatorConfig,
        x: Float[np.ndarray, "members features"],
        log_g: Float[np.ndarray, "members terms"],
        *,
        key: Key[Array, ""],
    ):
        first, *hidden, last = jr.split(key, config.num_layers + 1)
        width = config.width
        embedded = x.shape[1] * (1 + 2 * config.num_frequencies)
        self.first = eqx.nn.Linear(embedded, width, key=first)
        self.hidden = tuple(eqx.nn.Linear(width, width, key=k) for k in hidden)
        self.last = eqx.nn.Linear(width, log_g.shape[1], key=last)
        self.center, self.spread = strong_pair((x.mean(0), x.std(0)))
        amplitudes = strong_pair((log_g.mean(0), log_g.std(0)))
        self.amplitude_center, self.amplitude_spread = amplitudes
        self.num_frequencies = config.num_frequencies

    def __call__(self, x: Float[Array, " features"]) -> Float[Array, " terms"]:
        """Logarithms of amplitudes."""
        h = jax.nn.silu(self.first(self.embed(x)))
        for layer in self.hidden:
            h = h + jax.nn.silu(layer(h))
        out = WIDEST * jnp.tanh(self.last(h) / WIDEST)
        return self.amplitude_center + self.amplitude_spread * out

    def embed(self, x: Float[Array, " features"]) -> Float[Array, " embedded"]:
        """Sinusoids whose frequency, and of every second whose amplitude, is `x`."""
        p = (x - self.center) / (2 * self.spread)
        phases = [math.pi / 2 * 2**k * p for k in range(self.num_frequencies)]
        waves = [wave for x in phases for wave in (jnp.sin(x), p * jnp.cos(x))]
        return jnp.concatenate([p, *waves])


class Operator(eqx.Module):
    """A trained operator; [`dicjax.respond`][] applies it.

    - `branch`: from features to amplitudes.
    - `curves`: of the latent units and of the terms of the membrane.
    - `capacitance`: in µF/cm².
    - `library`: coordinates of the features of members it was trained on.
    - `calcium`: the pool that units may depend on, if there is one.
    - `family`: its name; `hold`: a current (µA/cm²) that all its neurons receive.
    - `names`: of the features, in the order of their coordinates.
    - `terms`: names of the terms of the membrane.
    - `powers`: of every latent unit (columns) in every term (rows).
    - `step`: the longest time step, in ms.
    """

    branch: Branch
    curves: Curves
    capacitance: Float[Array, ""] = eqx.field(converter=strong)
    library: Float[Array, "members features"] = eqx.field(converter=strong)
    calcium: Calcium | None
    family: str = eqx.field(static=True)
    hold: float = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    terms: tuple[str, ...] = eqx.field(static=True)
    powers: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    step: float = eqx.field(static=True)

    def amplitudes(
        self, x: Float[Array, "*cells features"]
    ) -> Float[Array, "*cells terms"]:
        """Amplitudes of the membrane, in mS/cm², from coordinates of features."""
        return jnp.exp(jnp.vectorize(self.branch, signature="(f)->(t)")(x))

    def start(
        self, V: Float[Array, "*cells"], a: Float[Array, "*cells terms"]
    ) -> Memory:
        """Rest at these potentials (mV), of neurons with these amplitudes."""
        table, num = self.curves.table(), self.curves.num_units

        def one(V, a):
            def settle(_, Ca):
                values, _ = _look(table, V, Ca)
                I = self._open(a, values[:num]) * values[2 * num :]
                return (Ca + self._reached(I)) / 2

            Ca = jnp.zeros_like(V)
            if self.calcium is not None:
                Ca = jax.lax.fori_loop(0, SETTLING, settle, Ca + self.calcium.baseline)
            return _look(table, V, Ca)[0][:num], Ca

        units, Ca = jnp.vectorize(one, signature="(),(t)->(u),()")(V, a)
        return Memory(V, units, Ca)

    def _open(self, a, units):
        return a * jnp.stack([_product(units, row) for row in self.powers])

    def _reached(self, I: Float[Array, " terms"]) -> Float[Array, ""]:
        """The calcium (µM) that these currents lead to."""
        assert self.calcium is not None
        inward = sum(I[self.terms.index(name)] for name in self.calcium.sources)
        return jnp.maximum(self.calcium.baseline - self.calcium.influx * inward, 0)


def advance(
    operator: Operator,
    table: Table,
    a: Float[Array, " terms"],
    memory: Memory,
    I: Float[Array, ""],
    h: Float[Array, ""],
    correction: Float[Array, "knots curves"] | None = None,
) -> Memory:
    """One cell, `h` ms later, by the staggered midpoint rule.

    Units relax at frozen potential, then the potential at frozen units. A `correction`
    that is learned is the one in the table: it changes no value, but takes the
    gradient, which would else be as large as the table in every step.
    """
    num = operator.curves.num_units
    values, gains = _look(table, memory.V, memory.Ca)
    if correction is not None:
        values, gains = _learning(values, gains, correction, memory.V, num)
    reached, rate, drive = values[:num], values[num : 2 * num], values[2 * num :]
    units = memory.units + (reached - memory.units) * h * rate / (1 + h * rate / 2)
    open_part = operator._open(a, units)
    currents = open_part * drive
    Ca = memory.Ca
    if operator.calcium is not None:
        part = h / operator.calcium.time_constant
        Ca = Ca + (operator._reached(currents) - Ca) * part / (1 + part / 2)
    slope = jnp.sum(open_part * gains[2 * num :]) / (SPACING * operator.capacitance)
    net = I + operator.hold - jnp.sum(currents)
    rate_of_V = net / operator.capacitance
    V = memory.V + h * rate_of_V / (1 + jnp.maximum(h * slope, -1) / 2)
    return Memory(V, units, Ca)


def follow(
    operator: Operator,
    a: Float[Array, "cells terms"],
    memory: Memory,
    I: Float[Array, "samples cells"],
    h: Float[Array, ""],
    num_steps: int,
) -> tuple[Memory, Float[Array, "cells samples"]]:
    """Where cells stop, and potentials (mV) at the start of every sample.

    A sample takes `num_steps` steps of `h` ms. A gradient keeps one state in
    `REMEMBERED` samples and computes the others again.
    """
    table = operator.curves.table()
    each = jax.vmap(lambda a, m, I: advance(operator, table, a, m, I, h))

    def sample(memory, I):
        new = jax.lax.fori_loop(0, num_steps, lambda _, m: each(a, m, I), memory)
        return new, memory.V

    @jax.checkpoint
    def block(memory, I):
        return jax.lax.scan(sample, memory, I)

    whole = len(I) // REMEMBERED * REMEMBERED
    blocks = I[:whole].reshape(whole // REMEMBERED, REMEMBERED, I.shape[1])
    memory, V = jax.lax.scan(block, memory, blocks)
    memory, rest = jax.lax.scan(sample, memory, I[whole:])
    return memory, jnp.concatenate([V.reshape(whole, I.shape[1]), rest]).T


def _look(table: Table, V: Float[Array, ""], Ca: Float[Array, ""]):
    """Values of all curves at a potential, and their gains between its nodes."""
    i, part = _place((V - LOWEST) / SPACING, NUM_NODES)
    if len(table) == 1:
        row = table[0, i]
    else:
        low, high, num = LEVELS
        span = math.log(high / low) / (num - 1)
        j, above = _place(jnp.log(jnp.maximum(Ca, low) / low) / span, num)
        row = (1 - above) * table[j, i] + above * table[j + 1, i]
    values, gains = jnp.split(row, 2)
    return values + part * gains, gains


def _learning(values, gains, correction, V, num):
    """Values and gains as they are, with derivatives with respect to corrections."""
    num_knots = len(correction)
    share = (jax.lax.stop_gradient(V) - LOWEST) / (HIGHEST - LOWEST)
    i, part = _place(share * (num_knots - 1), num_knots)
    zero = lambda x: x - jax.lax.stop_gradient(x)
    change = zero(_between(correction, i, part))
    logit, log_rate, log_drive = jnp.split(change, (num, 2 * num))
    opened, rate, drive = jnp.split(values, (num, 2 * num))
    opened = opened + opened * (1 - opened) * logit
    changed = opened, rate * (1 + log_rate), drive * (1 + log_drive)
    steps = (HIGHEST - LOWEST) / SPACING / (num_knots - 1)  # nodes between knots
    rise = (correction[i + 1] - correction[i])[2 * num :] / steps
    slopes = gains[2 * num :] * (1 + log_drive) + drive * zero(rise)
    return jnp.concatenate(changed), jnp.concatenate([gains[: 2 * num], slopes])


def _place(x: Float[Array, "*at"], num: int):
    """Between which of `num` nodes `x` lies, and how far it is beyond the first."""
    i = jnp.clip(jnp.nan_to_num(jax.lax.stop_gradient(x)), 0, num - 2)
    i = i.astype(jnp.int32)
    return i, x - i.astype(x.dtype)


def _between(rows: Float[Array, "nodes columns"], i, part):
    return (1 - part) * rows[i] + part * rows[i + 1]


def _product(units: Float[Array, " units"], powers: tuple[int, ...]):
    product = jnp.ones((), units.dtype)
    for j, power in enumerate(powers):
        if power:
            product = product * units[j] ** power
    return product


def untrained(
    key: Key[Array, ""],
    config: OperatorConfig,
    family: Family,
    names: tuple[str, ...],
    x: Float[np.ndarray, "members features"],
    g: Float[np.ndarray, "members channels"],
) -> Operator:
    """An operator with the curves of a family, whose branch has yet to learn.

    Members have features of these `names`, with coordinates `x`, and conductances `g`.
    """
    neuron = family.neuron
    calcium = neuron.calcium
    if calcium is not None:  # as fast as it is at the neuron's temperature
        (time_constant,) = neuron.slowed((calcium.time_constant,))
        calcium = dataclasses.replace(calcium, time_constant=time_constant)
    powers = _powers(family)
    operator = Operator(
        branch=Branch(config, x, np.log(g), key=key),
        curves=_curves(neuron, len(powers[0]), config.num_knots),
        capacitance=neuron.capacitance,
        library=x,
        calcium=calcium,
        family=family.name,
        hold=family.hold,
        names=names,
        terms=neuron.channel_names,
        powers=powers,
        step=config.step,
    )
    return in_float32(operator)


def _powers(family: Family) -> tuple[tuple[int, ...], ...]:
    exponents = []
    for channel in family.neuron.channels:
        if not isinstance(channel, GatedChannel):
            raise ValueError(
                f"Operators are of families whose channels have gates; {channel.name} "
                f"of {family.name} has a kinetic scheme."
            )
        exponents.append([[gate.exponent for gate in channel.gates]])
    powers = np.asarray(scipy.linalg.block_diag(*exponents), int)
    return tuple(map(tuple, powers.tolist()))


def _curves(neuron: Neuron, num_units: int, num_knots: int) -> Curves:
    neuron = neuron.with_dtype(jnp.dtype(jnp.float32))
    V = jnp.linspace(LOWEST, HIGHEST, NUM_NODES, dtype=jnp.float32)
    opened = (jnp.ones((), jnp.float32),) * num_units
    levels = neuron.initial_Ca[None]
    if neuron.calcium is not None:
        levels = jnp.geomspace(*LEVELS, dtype=jnp.float32)

    def at(V, Ca):
        return (
            jnp.stack(neuron.steady_gates(V, Ca)),
            1 / jnp.stack(neuron.time_constants(V, Ca)),
            jnp.stack(neuron.unit_currents(V, opened, Ca)),
        )

    over_V = jax.vmap(at, (0, None))
    reached, rate, drive = jax.vmap(over_V, (None, 0))(V, levels)
    reached = jnp.clip(reached, LEAST, 1 - LEAST)
    return Curves(
        logit_open=jnp.log(reached / (1 - reached)),
        log_rate=jnp.log(rate),
        drive=drive,
        correction=np.zeros((num_knots, 2 * num_units + drive.shape[-1])),
    )
