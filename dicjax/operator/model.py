r"""A neural operator: the current a neuron receives and what is known of it in, its
potential out.

A network, the branch, reads interpretable features of a neuron (where it rests, where
its F-I curve lies, how its spikes look; [`dicjax.characterisation`][] lists them) as
sinusoids scaled in frequency and in amplitude, and sets the amplitudes $a$ of

$$C \dot V = I - \sum_k a_k \prod_j z_j^{p_{kj}} D_k(V), \qquad
\dot z_j = r_j(V) \, (z^\infty_j(V) - z_j)$$

whose latent units $z$ form a selective state-space layer: the potential decides how
fast each of them forgets. The curves $D$, $r$ and $z^\infty$ are held on a grid of
potentials. They start from the kinetics of the family that the operator is trained on
and are corrected through time, so that long steps are as good as short ones.

So built it is causal, takes currents of any shape, length and sampling step, or none,
and goes on where it stopped. It is exact where exactness decides whether a neuron
fires: between spikes, where operators without such structure drift.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from dicjax._core import strong
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
    """Where a response stopped: potential (mV), latent units and calcium (µM).

    Units and calcium are half a step behind the potential.
    """

    V: Float[Array, "*cells"]
    units: Float[Array, "*cells units"]
    Ca: Float[Array, "*cells"]


class Curves(eqx.Module):
    """Curves over potentials of a family, on the grid, and their learned corrections.

    Of families with calcium they are held at many levels of it.

    - `logit_open`, `log_rate`: of latent units, without and per ms.
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
        num = self.num_units
        at = jnp.linspace(0, len(self.correction) - 1, NUM_NODES)
        at = at.astype(self.correction.dtype)
        knot = jnp.clip(at.astype(jnp.int32), 0, len(self.correction) - 2)
        part = (at - knot.astype(at.dtype))[:, None]
        below, above = self.correction[knot], self.correction[knot + 1]
        correction = ((1 - part) * below + part * above)[None]
        logit, log_rate, log_drive = jnp.split(correction, (num, 2 * num), axis=2)
        values = jnp.concatenate(
            [
                jax.nn.sigmoid(self.logit_open + logit),
                jnp.exp(self.log_rate + log_rate),
                self.drive * jnp.exp(log_drive),
            ],
            axis=2,
        )
        gains = jnp.diff(values, axis=1)
        return jnp.concatenate([values[:, :-1], gains], axis=2)


class Branch(eqx.Module):
    """From features of a neuron to the amplitudes of its membrane.

    - `center`, `spread`: of the features, which come as coordinates.
    - `amplitude_center`, `amplitude_spread`: of logarithms of amplitudes.
    """

    first: eqx.nn.Linear
    hidden: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    center: Float[Array, " features"] = eqx.field(converter=strong)
    spread: Float[Array, " features"] = eqx.field(converter=strong)
    amplitude_center: Float[Array, " terms"] = eqx.field(converter=strong)
    amplitude_spread: Float[Array, " terms"] = eqx.field(converter=strong)
    num_frequencies: int = eqx.field(static=True)

    def __init__(
        self,
        config: OperatorConfig,
        num_features: int,
        num_terms: int,
        *,
        key: Key[Array, ""],
    ):
        keys = jr.split(key, config.num_layers + 1)
        width = config.width
        embedded = num_features * (1 + 2 * config.num_frequencies)
        self.first = eqx.nn.Linear(embedded, width, key=keys[0])
        self.hidden = tuple(
            eqx.nn.Linear(width, width, key=k) for k in keys[1 : config.num_layers]
        )
        self.last = eqx.nn.Linear(width, num_terms, key=keys[-1])
        self.center = strong(np.zeros(num_features))
        self.spread = strong(np.ones(num_features))
        self.amplitude_center = strong(np.zeros(num_terms))
        self.amplitude_spread = strong(np.ones(num_terms))
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
    - `family`: the name of the family.
    - `hold`: a current (µA/cm²) that all neurons receive besides.
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
                Ca = Ca + self.calcium.baseline
                Ca = jax.lax.fori_loop(0, SETTLING, settle, Ca)
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
    """One cell, `h` ms later: units relax at frozen potential, and it at frozen units.

    By the staggered midpoint rule, as populations are integrated; second order in
    `h`.

    `correction` is that in the table, where it is learned: it changes no value, but
    takes the gradient, which would else be as large as the table in every step.
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


def _look(table: Table, V: Float[Array, ""], Ca: Float[Array, ""]):
    """Values of all curves at a potential, and their gains between its nodes."""
    i, part = _place((V - LOWEST) / SPACING, NUM_NODES)
    if len(table) == 1:
        row = table[0, i]
    else:
        low, high, num = LEVELS
        span = math.log(high / low) / (num - 1)
        level = jnp.log(jnp.maximum(Ca, low) / low) / span
        j, above = _place(level, num)
        row = (1 - above) * table[j, i] + above * table[j + 1, i]
    values, gains = jnp.split(row, 2)
    return values + part * gains, gains


def _learning(values, gains, correction, V, num):
    """Values and gains as they are, with derivatives with respect to corrections."""
    num_knots = len(correction)
    share = (jax.lax.stop_gradient(V) - LOWEST) / (HIGHEST - LOWEST)
    i, part = _place(share * (num_knots - 1), num_knots)
    here = (1 - part) * correction[i] + part * correction[i + 1]
    logit, log_rate, log_drive = jnp.split(
        here - jax.lax.stop_gradient(here), (num, 2 * num)
    )
    opened, rate, drive = jnp.split(values, (num, 2 * num))
    values = jnp.concatenate(
        [
            opened + opened * (1 - opened) * logit,
            rate * (1 + log_rate),
            drive * (1 + log_drive),
        ]
    )
    steps = (HIGHEST - LOWEST) / SPACING / (num_knots - 1)  # nodes between knots
    rise = (correction[i + 1] - correction[i])[2 * num :] / steps
    slopes = gains[2 * num :] * (1 + log_drive)
    slopes = slopes + drive * (rise - jax.lax.stop_gradient(rise))
    return values, jnp.concatenate([gains[: 2 * num], slopes])


def _place(x: Float[Array, ""], num: int):
    """Between which of `num` nodes `x` lies, and how far it is beyond the first."""
    i = jnp.clip(jnp.nan_to_num(jax.lax.stop_gradient(x)), 0, num - 2)
    i = i.astype(jnp.int32)
    return i, x - i.astype(x.dtype)


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

    **Arguments:**

    - `names`: of the features.
    - `x`: coordinates of the features of its members.
    - `g`: their conductances, in mS/cm².
    """
    neuron = family.neuron
    log_g = np.log(g)
    branch = Branch(config, x.shape[1], g.shape[1], key=key)
    fields = lambda b: (
        b.center,
        b.spread,
        b.amplitude_center,
        b.amplitude_spread,
    )
    scales = (x.mean(0), x.std(0), log_g.mean(0), log_g.std(0))
    branch = eqx.tree_at(fields, branch, tuple(strong(s) for s in scales))
    operator = Operator(
        branch=branch,
        curves=_curves(family, config),
        capacitance=neuron.capacitance,
        library=x,
        calcium=_calcium(neuron),
        family=family.name,
        hold=family.hold,
        names=names,
        terms=neuron.channel_names,
        powers=_powers(family),
        step=config.step,
    )
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf,
        operator,
    )


def _calcium(neuron: Neuron) -> Calcium | None:
    """The pool, as fast as it is at the neuron's temperature."""
    pool = neuron.calcium
    if pool is None:
        return None
    (time_constant,) = neuron.slowed((pool.time_constant,))
    return dataclasses.replace(pool, time_constant=time_constant)


def _powers(family: Family) -> tuple[tuple[int, ...], ...]:
    channels = family.neuron.channels
    num = sum(channel.num_states for channel in channels)
    rows, first = [], 0
    for channel in channels:
        if not isinstance(channel, GatedChannel):
            raise ValueError(
                f"Operators are of families whose channels have gates; {channel.name} "
                f"of {family.name} has a kinetic scheme."
            )
        row = [0] * num
        for i, gate in enumerate(channel.gates):
            row[first + i] = gate.exponent
        rows.append(tuple(row))
        first += channel.num_states
    return tuple(rows)


def _curves(family: Family, config: OperatorConfig) -> Curves:
    neuron = family.neuron.with_dtype(jnp.dtype(jnp.float32))
    V = jnp.linspace(LOWEST, HIGHEST, NUM_NODES, dtype=jnp.float32)
    one = jnp.ones((), jnp.float32)
    levels = neuron.initial_Ca[None]
    if neuron.calcium is not None:
        levels = jnp.geomspace(*LEVELS, dtype=jnp.float32)

    def at(V, Ca):
        opened = (one,) * sum(channel.num_states for channel in neuron.channels)
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
        correction=np.zeros(
            (config.num_knots, 2 * reached.shape[-1] + drive.shape[-1])
        ),
    )
