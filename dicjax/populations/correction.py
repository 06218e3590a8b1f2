r"""Ensemble correction: moving members that miss towards the features of a target.

What a change of conductances does to a train's features is read off the population
itself: around each parent, features are regressed on log conductances over the members
nearest to it, which gives a local Jacobian $J$ with no derivative through the
simulation. A child is its parent, displaced at random by $\epsilon$ and corrected:

$\Delta = \epsilon + J^\top (J J^\top + \lambda I)^{-1} (r - J \epsilon)$,

where $r$ is what the parent misses. To first order it hits the target, and it differs
from its parent along everything that the features do not feel.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from dicjax._core import padded, solve
from dicjax.populations.evaluation import Verdict


NUM_PARENTS = 192  # nearest to the target, from which children descend
NUM_LOCAL = 150  # members that shape each Jacobian
MAX_KNOWN = 4096  # members that corrections learn from
BATCH = 256  # rows of members whose slopes are compiled for
RIDGE = 1e-2
FURTHEST = 3.0  # standard deviations a child may be from its parent, per channel


class Known(eqx.Module):
    """Members whose activity is known, as corrections learn from them.

    - `log_g`: logarithms of their conductances.
    - `misses`: ln(feature / target) of each; zero for features that do not matter.
    - `usable`: those with the target's firing pattern and all of its features.
    """

    log_g: Float[Array | np.ndarray, "cells channels"]
    misses: Float[Array | np.ndarray, "cells features"]
    usable: Bool[Array | np.ndarray, " cells"]

    def padded(self) -> "Known":
        """With unusable members up to `MAX_KNOWN`: one program serves any number."""
        return jax.tree.map(lambda x: jnp.asarray(padded(x, MAX_KNOWN, 0.0)), self)


class Slopes(NamedTuple):
    """Slopes of features by logarithms of conductances in units of `scale`.

    - `longest`: step of any channel, in units of `scale`, for which they hold.
    """

    values: Float[np.ndarray, "cells 4 channels"]
    scale: Float[np.ndarray, " channels"]
    longest: float


def update_known(
    known: Known | None,
    log_g: Float[np.ndarray, "cells channels"],
    verdict: Verdict,
    unit: float | None = None,
) -> Known:
    """Adds members that were judged, and keeps those nearest to the target.

    Where there is a `unit`, every miss is in the largest that is allowed, times it.
    """
    usable = np.isfinite(verdict.score)
    errors = verdict.errors
    if unit is not None:
        errors = unit * errors / np.where(verdict.limits > 0, verdict.limits, 1)
    misses = np.where(usable[:, None], errors, 0).astype(log_g.dtype)
    new = Known(log_g, misses, usable)
    if known is not None:
        new = jax.tree.map(lambda *x: np.concatenate(x), new, known)
    distance = np.where(new.usable, np.abs(new.misses).max(axis=1), np.inf)
    nearest = np.argsort(distance, kind="stable")[:MAX_KNOWN]
    return jax.tree.map(lambda x: x[nearest], new)


@eqx.filter_jit
def corrected_children(
    key: Key[Array, ""],
    known: Known,
    bounds: Float[Array, "2 channels"],
    spread: Float[Array, ""],
    num: int,
    stride: float = float("inf"),
    is_noisy: bool = False,
) -> Float[Array, "{num} channels"]:
    """Logarithms of conductances of children of the members nearest to the target.

    They are displaced at random by `spread` standard deviations of these members, and
    kept within `bounds`. At most a `stride` of a miss, as ln(feature / target), is
    corrected at once: far from the target a Jacobian holds for part of the way only.

    Where features are noisy, a parent misses what members around it miss on average,
    and those are parents of which that is least.
    """
    nearest, is_parent, scale = _nearest(known)
    if is_noisy:
        at = known.log_g[nearest]
        expected = jnp.max(jnp.abs(_expected(known, at, scale)), axis=1)
        order = jnp.argsort(jnp.where(is_parent, expected, jnp.inf))
        best = order[: NUM_PARENTS // 2]
        nearest, is_parent = nearest[best], is_parent[best]
    pick, draw = jr.split(key)
    weights = is_parent.astype(scale.dtype)
    parents = jr.choice(pick, nearest, (num,), p=weights / jnp.sum(weights))
    noise = spread * jr.normal(draw, (num, len(scale)), scale.dtype)
    log_g, usable = known.log_g, known.usable
    misses = jnp.where(usable[:, None], known.misses, 0)

    def one_child(parent, noise):
        away = (log_g - log_g[parent][None]) / scale[None]
        offset, J = _local_fit(away, misses - misses[parent][None], usable)
        missed = misses[parent] + offset if is_noisy else misses[parent]
        furthest = jnp.max(jnp.abs(missed)) + 1e-6
        left = -missed * jnp.minimum(1, stride / furthest) - J @ noise
        gram = J @ J.T + RIDGE * jnp.eye(len(J), dtype=J.dtype)
        step = noise + J.T @ solve(gram, left)
        return log_g[parent] + scale * jnp.clip(step, -FURTHEST, FURTHEST)

    # In batches, since every child weighs every member.
    born = jax.lax.map(lambda x: one_child(*x), (parents, noise), batch_size=64)
    return jnp.clip(born, bounds[:1], bounds[1:])


def expected_misses(
    known: Known, log_g: Float[np.ndarray, "cells channels"]
) -> Float[np.ndarray, "cells features"]:
    """What members miss on average over those around them."""
    num_rows = -(-len(log_g) // BATCH) * BATCH
    at = jnp.asarray(padded(log_g, num_rows))
    return np.asarray(_expected_of(known.padded(), at))[: len(log_g)]


@eqx.filter_jit
def _expected_of(known, at):
    return _expected(known, at, _nearest(known)[2])


def _expected(known, at, scale):
    misses = jnp.where(known.usable[:, None], known.misses, 0)

    def one(at):
        away = (known.log_g - at[None]) / scale[None]
        return _local_fit(away, misses, known.usable)[0]

    return jax.lax.map(one, at, batch_size=64)


def local_slopes(known: Known, log_g: Float[np.ndarray, "cells channels"]) -> Slopes:
    """Slopes around members, estimated from similar ones that are known.

    Their scale is one standard deviation of those that are nearest to the target.
    """
    num_rows = -(-len(log_g) // BATCH) * BATCH
    slopes, scale = _local_slopes(known.padded(), jnp.asarray(padded(log_g, num_rows)))
    return Slopes(np.array(slopes)[: len(log_g)], np.asarray(scale), longest=3.0)


@eqx.filter_jit
def _local_slopes(known, log_g):
    _, _, scale = _nearest(known)
    misses = jnp.where(known.usable[:, None], known.misses, 0)

    def one(at):
        away = (known.log_g - at[None]) / scale[None]
        return _local_fit(away, misses, known.usable)[1]

    return jax.lax.map(one, log_g, batch_size=64), scale


def _nearest(known):
    """Members nearest to the target, which of them are usable, and their spread."""
    error = jnp.max(jnp.abs(known.misses), axis=1)
    nearest = jnp.argsort(jnp.where(known.usable, error, jnp.inf))[:NUM_PARENTS]
    is_parent, log_g = known.usable[nearest], known.log_g[nearest]
    count = jnp.maximum(jnp.sum(is_parent), 2).astype(log_g.dtype)
    mean = jnp.sum(jnp.where(is_parent[:, None], log_g, 0), axis=0) / count
    square = jnp.where(is_parent[:, None], (log_g - mean[None]) ** 2, 0)
    # Never so small that nothing could move.
    scale = jnp.maximum(jnp.sqrt(jnp.sum(square, axis=0) / count), 0.05)
    return nearest, is_parent, scale


def _local_fit(away, change, usable):
    """Ridge regression of `change` on `away`, by weights that fall with distance.

    Returns the change at no distance, and the Jacobian.
    """
    distance = jnp.where(usable, jnp.sum(away**2, axis=1), jnp.inf)
    reach = jnp.sort(distance)[NUM_LOCAL]
    furthest = jnp.max(jnp.where(usable, distance, 0))
    reach = jnp.where(jnp.isfinite(reach), reach, furthest)
    weight = jnp.where(usable, jnp.exp(-distance / (0.5 * reach + 1e-6)), 0)
    # Features that fire far off say little of the slope near the target.
    weight = weight / (1 + jnp.sum(change**2, axis=1))
    X = jnp.concatenate([jnp.ones_like(away[:, :1]), away], axis=1)
    ridge = RIDGE * jnp.sum(weight) * jnp.eye(X.shape[1], dtype=X.dtype)
    left = (X * weight[:, None]).T @ X + ridge.at[0, 0].set(1e-6)
    right = (X * weight[:, None]).T @ change
    fit = solve(left, right)
    return fit[0], fit[1:].T
