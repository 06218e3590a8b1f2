"""Ensembles of neurons for an operator: what was measured, and what goes with it.

A recording never shows all features of a cell. The others are drawn from members of the
family that resemble the cell, and follow the measured features by regression over their
neighbours (as Beaumont, Zhang & Balding, 2002, adjust simulations to an observation).
"""

import warnings
from collections.abc import Collection, Mapping

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.spatial
from jaxtyping import Array, Float, Key

from dicjax._core import on_host, Within
from dicjax.operator.characteristics import BY_NAME, from_coordinates
from dicjax.operator.model import Operator


NEIGHBOURS = 400  # members that resemble the cell
MIXED = 12  # of a member's neighbours, between which ensembles fill in
FAR = 2.0  # times as far as members are from one another: beyond the family
RIDGE = 1e-2
PLAUSIBLE = {
    "mV": Within(-200, 200, "mV"),
    "kΩ·cm²": Within(0, 1e6, "kΩ·cm²"),
    "µA/cm²": Within(-1e4, 1e4, "µA/cm²"),
    "Hz·cm²/µA": Within(0, 1e6, "Hz·cm²/µA"),
    "ms": Within(0, 1e6, "ms"),
    "": Within(-1e4, 1e4),
}
"""Limits of what can be measured in a neuron, by its unit; beyond, a unit is wrong."""


@on_host()
def draw_ensemble(
    key: Key[Array, ""],
    operator: Operator,
    measured: Mapping[str, float],
    num: int = 200,
    *,
    spread: float = 0.0,
    pinned: Collection[str] | None = None,
) -> Float[np.ndarray, "num features"]:
    """Features of neurons that resemble a cell in its measured features.

    Warns where the cell lies outside of the family. Neurons are then drawn at the
    family's edge, and are predicted less well.

    **Arguments:**

    - `key`: the randomness of the ensemble.
    - `operator`: of [`dicjax.load_operator`][].
    - `measured`: features by name, in the units of `operator.names`; without any, the
        whole family is sampled.
    - `num`: how many neurons to draw.
    - `spread`: how far drawn neurons stray from what was measured, as a share of how
        much it varies in the family.
    - `pinned`: which of the measured features drawn neurons have exactly, but for
        `spread`; all by default. The others only choose which members they resemble.

    **Returns:**

    One row per neuron, for [`dicjax.respond`][].

    **Raises:**

    - `ValueError`: if a name is unknown, or a value not finite, or not positive where
        it must be, or far from all that neurons of the family have, or `num` below 1,
        or `spread` is not a finite number from 0 on.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    if num < 1:
        raise ValueError(f"An ensemble needs one neuron at least, got {num} neurons.")
    if not 0 <= spread < np.inf:
        raise ValueError(f"`spread` must be a finite number from 0 on, got {spread}.")
    names = operator.names
    wanted = _coordinates(operator, measured)
    library = np.asarray(operator.library)
    scale = library.std(axis=0)
    known = np.isfinite(wanted)
    distance = _distance(library, wanted, known, scale)
    if known.any() and distance.min() > FAR * _typical(library, known, scale):
        nearest = library[distance.argmin()]
        worst = np.where(known, np.abs(nearest - wanted) / scale, 0).argmax()
        value = from_coordinates(nearest, names)[worst]
        warnings.warn(
            f"No neuron of the family {operator.family!r} is like this one: the "
            f"nearest has a {names[worst]} of {float(value):.4g}, not "
            f"{measured[names[worst]]:.4g}. What is drawn extrapolates.",
            stacklevel=3,
        )
    order = np.argsort(distance)[: NEIGHBOURS if known.any() else len(library)]
    if pinned is not None:
        known = known & np.isin(np.arange(len(names)), _indices(operator, pinned))
    x = _drawn(key, library[order], wanted, known, scale, num, spread)
    x = np.where(known, x, np.clip(x, library.min(axis=0), library.max(axis=0)))
    return np.asarray(from_coordinates(x, names))


def _coordinates(operator: Operator, measured: Mapping[str, float]) -> np.ndarray:
    wanted = np.full(len(operator.names), np.nan)
    for i, value in zip(_indices(operator, measured), measured.values(), strict=True):
        is_log = BY_NAME[operator.names[i]].is_log
        if not np.isfinite(value) or (is_log and value <= 0):
            raise ValueError(
                f"{operator.names[i]} is {value}, but must be a "
                f"{'positive ' * is_log}number: leave out what was not measured."
            )
        limits = PLAUSIBLE.get(BY_NAME[operator.names[i]].unit, Within())
        if not limits.holds(value):
            raise ValueError(
                f"{operator.names[i]} is {value:g}, but no neuron has that: it must be "
                f"{limits}. Check its unit."
            )
        wanted[i] = np.log(value) if is_log else value
    return wanted


def _indices(operator: Operator, names: Collection[str]) -> list[int]:
    for name in names:
        if name not in operator.names:
            raise ValueError(
                f"The operator {operator.family!r} knows no feature {name!r}, only "
                f"{', '.join(operator.names)}."
            )
    return [operator.names.index(name) for name in names]


def _distance(library, wanted, known, scale):
    return np.linalg.norm(np.where(known, (library - wanted) / scale, 0), axis=1)


def _typical(library, known, scale) -> float:
    """At most how far members are from their nearest ones in these features."""
    z = (library / scale)[:, known]
    some = z[:: max(1, len(z) // 200)]
    nearest = scipy.spatial.KDTree(z).query(some, 2)[0][:, 1]
    return float(np.quantile(nearest, 0.99))


def _drawn(key, members, wanted, known, scale, num, spread):
    keys = jr.split(key, 4)
    z = (members - members.mean(axis=0)) / scale
    # Between a member and one of those next to it.
    first = np.asarray(jr.randint(keys[0], (num,), 0, len(members)))
    num_near = min(MIXED, len(members))
    found = scipy.spatial.KDTree(z).query(z[first], num_near)[1]
    nearest = np.reshape(found, (num, num_near))
    choice = np.asarray(jr.randint(keys[1], (num,), 0, num_near))
    second = nearest[np.arange(num), choice]
    part = np.asarray(jr.uniform(keys[2], (num, 1), jnp.float32))
    x = members[first] + part * (members[second] - members[first])
    # What was measured takes its place, and the rest follows.
    Z, rest = z[:, known], z[:, ~known]
    gram = Z.T @ Z + RIDGE * len(members) * np.eye(Z.shape[1])
    slopes = np.linalg.solve(gram, Z.T @ rest)
    stray = spread * np.asarray(jr.normal(keys[3], (num, Z.shape[1]), jnp.float32))
    move = (wanted - x)[:, known] / scale[known] + stray
    x[:, known] += scale[known] * move
    x[:, ~known] += scale[~known] * (move @ slopes)
    return x
