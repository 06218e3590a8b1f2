"""A neuron as named equations, traced from any channels."""

import dataclasses
import re
from collections import Counter

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dicjax.neurons import AbstractCurve, Neuron, State
from dicjax.output.exporters.expressions import (
    affine,
    constant,
    Expression,
    is_constant,
    substitute,
    variable,
)
from dicjax.output.exporters.tracing import trace, UnsupportedOperation


V, CALCIUM = "v", "Ca"
Named = dict[str, Expression]  # by a variable, or by a channel


@dataclasses.dataclass(frozen=True)
class Equation:
    """The equation of one state.

    - `name`: the state's variable: `x1_Na` is the first of channel Na, `Ca` calcium.
    - `owner`: the channel it belongs to; empty for calcium.
    - `rate`: its time derivative, per ms.
    - `initial`: its initial value; for gates it may depend on `v` and `Ca`.
    """

    name: str
    owner: str
    rate: Expression
    initial: Expression

    @property
    def relaxation(self) -> tuple[Expression, Expression] | None:
        """`(inf, tau)` with `rate = (inf - x) / tau`; `None` if that is impossible.

        Terms that are not linear in the state, such as the current through a calcium
        channel, may remain in `inf`.
        """
        rate, speed = self.rate, constant(1.0)
        if rate.op == "mul" and rate.args[0].op == "constant":  # a temperature
            speed, rate = rate.args
        if rate.op == "div" and self.name not in rate.args[1].variables:
            inf, slope = affine(rate.args[0], self.name)
            if is_constant(slope, -1):
                return inf, rate.args[1] / speed
        offset, slope = affine(rate, self.name)
        if is_constant(slope, 0):
            return None
        return offset / -slope, constant(1.0) / (-slope * speed)

    @property
    def parts(self) -> Named:
        """Parts of the rate by name: its `inf` and `tau`, or the `rate` itself."""
        return {self._part(what): x for what, x in self._terms.items()}

    def written(self, relaxing: str, other: str) -> str:
        """A format with names put in: of the state, `x`, and of its parts."""
        names = {what: self._part(what) for what in self._terms}
        return (relaxing if self.relaxation else other).format(x=self.name, **names)

    @property
    def meaning(self) -> str:
        if self.name == CALCIUM:
            return "calcium, in uM"
        return f"a state of {self.owner or 'the cell'}"

    @property
    def _terms(self) -> Named:
        if self.relaxation is None:
            return {"rate": self.rate}
        return dict(zip(("inf", "tau"), self.relaxation, strict=True))

    def _part(self, what: str) -> str:
        return f"Ca_{what}" if self.name == CALCIUM else what + self.name[1:]


@dataclasses.dataclass(frozen=True)
class Equations:
    """A neuron in the variables `v`, `g_Na` and so on, and its `states`.

    Units are as in [`dicjax.Neuron`][].

    - `channels`: channel names as part of a variable, by channel name.
    - `currents`: the current of one mS/cm² of each channel, by channel name.
    - `states`: all states but the potential.
    """

    channels: dict[str, str]
    currents: Named
    states: tuple[Equation, ...]

    @property
    def gates(self) -> Named:
        """Initial values of all states but calcium."""
        return {x.name: x.initial for x in self.states if x.name != CALCIUM}

    @property
    def parts(self) -> Named:
        return {k: part for state in self.states for k, part in state.parts.items()}

    def currents_of(self, current: str, conductance: str) -> Named:
        """The current of each channel, for variables with these prefixes."""
        return {
            f"{current}_{c}": variable(f"{conductance}_{c}") * self.currents[name]
            for name, c in self.channels.items()
        }

    @property
    def expressions(self) -> list[Expression]:
        moving = (x for state in self.states for x in (state.rate, state.initial))
        return [*self.currents.values(), *moving]

    @property
    def calcium_is_fixed(self) -> bool:
        """Whether something depends on calcium while no equation changes calcium."""
        is_moved = any(x.name == CALCIUM for x in self.states)
        return not is_moved and any(CALCIUM in x.variables for x in self.expressions)


def equations(neuron: Neuron) -> Equations:
    """The equations of any neuron.

    Raises `ValueError` if it uses an operation that has no scalar form, which is named,
    or if its current is not a sum of conductances times currents.
    """
    names, starts = neuron.channel_names, _starts(neuron)
    channels = dict(zip(names, identifiers(names), strict=True))
    gates = [f"x[{i}]" for i in range(len(starts))]
    try:
        total, rates, calcium = _rates(neuron, channels, gates)
    except UnsupportedOperation as error:
        raise ValueError(_complaint(neuron, error)) from error
    currents = _currents(neuron, channels, total)
    owners = _owners(currents, dict(zip(gates, rates, strict=True)))
    final = _gate_names(owners, channels)
    renamed = {old: variable(new) for old, new in final.items()}
    states = [
        Equation(final[x], owners[x], substitute(rate, renamed), initial)
        for x, rate, initial in zip(gates, rates, starts, strict=True)
    ]
    if neuron.calcium is not None:
        rate = substitute(calcium, renamed)
        states.append(Equation(CALCIUM, "", rate, number(neuron.initial_state().Ca)))
    return Equations(
        channels=channels,
        currents={name: substitute(x, renamed) for name, x in currents.items()},
        states=tuple(states),
    )


def identifiers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Different names that are valid identifiers after a prefix."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        # NMODL defines a variable `x0` for every state `x`.
        while {plain, plain + "0", plain.removesuffix("0")} & set(found):
            plain += "_"
        found.append(plain)
    return tuple(found)


def _rates(neuron: Neuron, channels: dict[str, str], gates: list[str]):
    """The current of the membrane and the rates of gates and calcium."""

    def field(V, x, Ca, g):
        y = neuron.vector_field(jnp.zeros_like(V), State(V, x, Ca), g, None)
        return -neuron.capacitance * y.V, y.gates, y.Ca

    g = tuple(f"g_{name}" for name in channels.values())
    return trace(field, V, tuple(gates), CALCIUM, g, dtype=neuron.initial_V.dtype)


def _starts(neuron: Neuron) -> tuple[Expression, ...]:
    """Initial values of gates, if possible as functions of `v` and `Ca`."""

    def gates(V, Ca):
        at = lambda n: (n.initial_V, n.initial_Ca)
        return eqx.tree_at(at, neuron, (V, Ca)).initial_state().gates

    try:
        return trace(gates, V, CALCIUM, dtype=neuron.initial_V.dtype)
    except UnsupportedOperation:
        return tuple(map(number, neuron.initial_state().gates))


def number(x: Float[Array, ""]) -> Expression:
    """The value of an array, as it was declared."""
    return constant(np.asarray(x).reshape(1)[0])


def _currents(neuron: Neuron, channels: dict[str, str], total: Expression) -> Named:
    """The current per unit of each conductance; the total current is linear in them."""
    currents = {}
    for channel, name in channels.items():
        total, currents[channel] = affine(total, f"g_{name}")
    involved = set().union(*(x.variables for x in (total, *currents.values())))
    if not is_constant(total, 0) or involved & {f"g_{x}" for x in channels.values()}:
        raise ValueError(
            f"The current of the model {neuron.name!r} is not a sum of conductances "
            "times currents, so an export cannot separate its channels."
        )
    return currents


def _owners(currents: Named, rates: Named) -> dict[str, str]:
    """The channel of each gate: its current depends on the gate, directly or not."""
    owners = {
        gate: next((c for c, I in currents.items() if gate in I.variables), "")
        for gate in rates
    }
    for _ in rates:
        for gate, rate in rates.items():
            for other in rate.variables & owners.keys():
                owners[other] = owners[other] or owners[gate]
    return owners


def _gate_names(owners: dict[str, str], channels: dict[str, str]) -> dict[str, str]:
    names, count = {}, Counter()
    for gate, owner in owners.items():
        count[owner] += 1
        names[gate] = f"x{count[owner]}_{channels[owner]}" if owner else f"x{count['']}"
    return names


def _complaint(neuron: Neuron, error: UnsupportedOperation) -> str:
    is_curve = lambda x: isinstance(x, AbstractCurve)
    leaves, _ = jax.tree_util.tree_flatten_with_path(neuron, is_leaf=is_curve)
    where = "its vector field"
    for path, curve in leaves:
        try:
            if is_curve(curve):
                trace(curve, V, CALCIUM, dtype=neuron.initial_V.dtype)
        except UnsupportedOperation as inner:
            place = jax.tree_util.keystr(path).removeprefix(".")
            where, error = f"its curve {type(curve).__name__} at `{place}`", inner
            break
    return (
        f"The model {neuron.name!r} cannot be exported: {where} uses the operation "
        f"`{error.primitive}` of JAX, which exports do not write."
    )
