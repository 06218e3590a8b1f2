"""What tests of operators share: features, members, and operators that know them."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from dicjax.operator.characteristics import Characteristics, NAMES, to_coordinates
from dicjax.operator.config import OperatorConfig
from dicjax.operator.families import Family, find_family
from dicjax.operator.model import Operator, untrained


FAMILY = find_family("cortical")
SMALL = OperatorConfig(width=8, num_layers=2)
RANGES = {
    "rest": (-76, -70),
    "resistance": (10, 40),
    "sag": (0.01, 0.2),
    "threshold": (0.5, 2),
    "gain": (10, 80),
    "high_gain": (10, 50),
    "adaptation": (0.01, 0.1),
    "latency": (5, 80),
    "height": (80, 100),
    "width": (2, 4),
    "depth": (-90, -60),
    "rebound": (0.5, 5),
}


def as_dtype(dtype, tree):
    """A tree with floating-point numbers of another precision."""
    is_float = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)


SINGLE = dataclasses.replace(FAMILY, neuron=as_dtype(jnp.float32, FAMILY.neuron))


def measured_as(num: int, seed: int = 0) -> Characteristics:
    """What cells might have been measured as; a fifth of them is not complete."""
    low, high = np.array([RANGES[name] for name in NAMES], float).T
    values = np.random.default_rng(seed).uniform(low, high, (num, len(NAMES)))
    return Characteristics(values.astype(np.float32), np.arange(num) % 5 > 0)


def blank(
    num: int = 24, config: OperatorConfig = SMALL, family: Family = FAMILY
) -> Operator:
    """An operator that has learned nothing, of `num` members."""
    x = np.asarray(to_coordinates(measured_as(num).values))
    g = family.sample(jr.key(0), num)
    return untrained(jr.key(1), config, family, NAMES, x, g)


class Known(eqx.Module):
    """A branch that has the conductances of some members by heart."""

    x: Array
    log_g: Array
    amplitude_spread: Array

    def __call__(self, x: Array) -> Array:
        away = jnp.sum((self.x - x[None]) ** 2, axis=1)
        return self.log_g[jnp.argmin(away)]


def knowing(operator: Operator, x, g) -> Operator:
    """The operator with the conductances `g` of members with coordinates `x`."""
    spread = operator.branch.amplitude_spread
    known = Known(jnp.asarray(x), jnp.log(jnp.asarray(g)), spread)
    return eqx.tree_at(lambda o: o.branch, operator, known)


def numbered(rest):
    """Features by which cells are distinguished: their rest and a number."""
    return np.stack([rest, np.arange(float(len(rest)))], axis=1)


def exact(family: Family, g, rest, step: float = 0.1) -> Operator:
    """An operator that knows these cells by their numbers, in double precision."""
    x, config = numbered(rest), dataclasses.replace(SMALL, step=step)
    operator = untrained(jr.key(0), config, family, ("rest", "sag"), x, g)
    return knowing(as_dtype(jnp.float64, operator), x, g)
