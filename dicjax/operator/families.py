"""Families of neurons: one biology, and ranges of its conductances.

An operator learns from currents into members of a family. They are silent without
current, so that the current alone decides when they fire.
"""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from dicjax.neurons import cortical, Neuron, stg


STG_FOLD = 1.7  # up and down, conductances of the stomatogastric family
Ranges = tuple[tuple[str, tuple[float, float]], ...]


def _by_name(ranges: Mapping[str, tuple[float, float]] | Ranges) -> Ranges:
    return tuple(dict(ranges).items())


class Family(eqx.Module):
    """A model with ranges of its conductances, which are uniform in logarithms.

    - `name`: what files and the command line call it.
    - `neuron`: the model.
    - `ranges`: lowest and highest conductance (mS/cm²) of every channel.
    - `hold`: a current (µA/cm²) that keeps members silent, which all others add to.
    - `with_dics`: whether dynamic input conductances are among their features.
    """

    name: str = eqx.field(static=True)
    neuron: Neuron
    ranges: Ranges = eqx.field(static=True, converter=_by_name)
    hold: float = eqx.field(static=True, default=0.0)
    with_dics: bool = eqx.field(static=True, default=False)

    @property
    def bounds(self) -> np.ndarray:
        """Lowest and highest conductances, in the order of `g`."""
        ranges = dict(self.ranges)
        return np.array([ranges[name] for name in self.neuron.channel_names]).T

    def sample(self, key: Key[Array, ""], num: int) -> Float[np.ndarray, "num _"]:
        """Conductances (mS/cm²) of `num` candidates; some may not be silent."""
        low, high = jnp.asarray(np.log(self.bounds), jnp.float32)
        u = jr.uniform(key, (num, len(low)), jnp.float32)
        return np.asarray(jnp.exp(low[None] + u * (high - low)[None]))


def cortical_family() -> Family:
    """Cortical cells in a slice at room temperature.

    From regular firing to adapting, bursting and rebounding ones, with spikes 1.4 to
    4.2 ms wide, as in young animals.
    """
    ranges = {
        "Na": (8.0, 90.0),
        "Kd": (0.5, 15.0),
        "M": (0.005, 0.6),
        "CaL": (0.001, 0.1),
        "CaT": (0.01, 0.5),
        "H": (0.001, 0.05),
        "leak": (0.015, 0.12),
    }
    return Family("cortical", cortical().at(22.0), ranges)


def stg_family() -> Family:
    """Stomatogastric neurons with so much leak that they are silent by themselves.

    A small hyperpolarising current holds them where they all begin alike: neurons that
    fire by themselves have no phase that a current would decide.
    """
    quiet = {
        "Na": 800.0,
        "Kd": 90.0,
        "CaT": 1.0,
        "CaS": 1.0,
        "KCa": 60.0,
        "A": 80.0,
        "H": 0.05,
        "leak": 0.2,
    }
    ranges = {name: (x / STG_FOLD, x * STG_FOLD) for name, x in quiet.items()}
    return Family("stg", stg(), ranges, hold=-0.5, with_dics=True)


FAMILIES = {"cortical": cortical_family, "stg": stg_family}
"""Makers of the families of cells that operators can learn, by name."""


def find_family(name: str) -> Family:
    """The family of this name; a `ValueError` where there is none."""
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"There is no family {name!r}; choose one of {known}.")
    return FAMILIES[name]()
