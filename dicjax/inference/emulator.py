r"""An emulator: predicts how a member fires from its conductances, in microseconds.

A small network learns from simulated members how conductances make firing patterns and
features. It is right within a few percent for most members, which is enough to choose
and to correct candidates before any of them is simulated; whether a member is valid,
simulation alone decides.

For every feature it predicts a Laplace distribution, so that it knows where it knows
little: next to a bifurcation, where a spike is added to a burst.

Being differentiable, it also says how conductances have to change for a member to fire
like a recording: `polish` takes Gauss-Newton steps of least change, which keep what the
features do not feel, and so keep members apart.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from dicjax._core import fit_network, in_float32, least_change, Progress, strong
from dicjax.inference.config import EmulatorConfig
from dicjax.inference.library import log_features
from dicjax.spikes import columns_of, COMPARED, LABELS, NUM_COMPARED, Target


FLOOR = 1e-3  # of a channel's bound: what counts as none of it
NARROWEST = 3e-3  # of ln(feature): no network is surer than this
NUM_STEPS = 6  # of Gauss and Newton
RIDGE = 1e-2
# What one step takes at most: of ln(feature / target), of a log probability.
STRIDES = (*(0.3,) * len(COMPARED), 3.0)
LONGEST = 1.0  # step, in standard deviations of log conductances


def log_conductances(
    g: Float[np.ndarray, "cells channels"], bounds: Float[np.ndarray, " channels"]
) -> Float[np.ndarray, "cells channels"]:
    """Logarithms of conductances (mS/cm²), a thousandth of their bounds at least."""
    return np.log(np.maximum(g, FLOOR * bounds)).astype(np.float32)


class Guess(eqx.Module):
    """What a member probably fires like.

    - `labels`: log probabilities of the firing patterns.
    - `features`: logarithms, as a library holds them; `spread`: their Laplace scales.
    """

    labels: Float[Array, "*cells 4"]
    features: Float[Array, "*cells 7"]
    spread: Float[Array, "*cells 7"]


class Emulator(eqx.Module):
    """A network from log conductances to firing patterns and features.

    - `bounds`: of every conductance, in mS/cm².
    - `center`, `scale`: of log conductances; `feature_center`, `feature_scale`: of
        logarithms of features.
    """

    layers: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    bounds: Float[Array, " channels"] = eqx.field(converter=strong)
    center: Float[Array, " channels"] = eqx.field(converter=strong)
    scale: Float[Array, " channels"] = eqx.field(converter=strong)
    feature_center: Float[Array, " 7"] = eqx.field(converter=strong)
    feature_scale: Float[Array, " 7"] = eqx.field(converter=strong)
    config: EmulatorConfig = eqx.field(static=True)

    def __init__(
        self, config: EmulatorConfig, num_channels: int, *, key: Key[Array, ""]
    ):
        *keys, last = jr.split(key, config.num_layers + 1)
        widths = (config.width,) * config.num_layers
        sizes = zip((num_channels, *widths[1:]), widths, keys, strict=True)
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in sizes)
        size = len(LABELS) + 2 * len(COMPARED)
        self.last = eqx.nn.Linear(config.width, size, key=last)
        self.bounds = self.scale = strong(np.ones(num_channels))
        self.center = strong(np.zeros(num_channels))
        self.feature_center = strong(np.zeros(len(COMPARED)))
        self.feature_scale = strong(np.ones(len(COMPARED)))
        self.config = config

    def __call__(self, log_g: Float[Array, " channels"]) -> Guess:
        """Guesses what one member fires like, from logarithms of its conductances."""
        lowest = jnp.log(FLOOR * self.bounds)
        x = (jnp.maximum(log_g, lowest) - self.center) / self.scale
        first, *rest = self.layers
        x = jax.nn.silu(first(x))
        for layer in rest:
            x = x + jax.nn.silu(layer(x))
        ends = len(LABELS), len(LABELS) + len(COMPARED)
        labels, means, widths = jnp.split(self.last(x), ends)
        return Guess(
            jax.nn.log_softmax(labels),
            self.feature_center + self.feature_scale * means,
            NARROWEST + self.feature_scale * jax.nn.softplus(widths - 2),
        )


def train_emulator(
    key: Key[Array, ""],
    g: Float[np.ndarray, "cells channels"],
    labels: Int[np.ndarray, " cells"],
    features: Float[np.ndarray, "cells 7"],
    weights: Float[np.ndarray, " cells"],
    bounds: Float[np.ndarray, " channels"],
    config: EmulatorConfig,
    *,
    on_progress: Progress | None = None,
) -> Emulator:
    """Fits an emulator to members simulated without noise.

    `features` are logarithms, nan where undefined; `weights` are odds of being drawn.
    """
    log_g, known = log_conductances(g, bounds), np.ma.masked_invalid(features)
    scales = (
        bounds,
        log_g.mean(axis=0),
        np.maximum(log_g.std(axis=0), 1e-3),
        known.mean(axis=0).filled(0),
        np.maximum(known.std(axis=0).filled(0), 1e-3),
    )
    emulator = Emulator(config, g.shape[1], key=key)
    emulator = eqx.tree_at(_fixed, emulator, tuple(map(jnp.asarray, scales)))
    return fit_network(
        in_float32(emulator),
        _fixed,
        emulator_loss,
        (log_g, labels, features),
        weights,
        config,
        on_progress=on_progress,
    )


def _fixed(e: Emulator):
    return e.bounds, e.center, e.scale, e.feature_center, e.feature_scale


def emulator_loss(
    emulator: Emulator,
    log_g: Float[Array | np.ndarray, "cells channels"],
    labels: Int[Array | np.ndarray, " cells"],
    features: Float[Array | np.ndarray, "cells 7"],
) -> Float[Array, ""]:
    """Mean negative log likelihood of members: of patterns, and of known features."""
    predicted = jax.vmap(emulator)(jnp.asarray(log_g))
    label = optax.softmax_cross_entropy_with_integer_labels(predicted.labels, labels)
    known = jnp.isfinite(features)
    away = jnp.where(known, jnp.where(known, features, 0) - predicted.features, 0)
    each = jnp.abs(away) / predicted.spread + jnp.log(2 * predicted.spread)
    return jnp.mean(label) + jnp.mean(jnp.where(known, each, 0))


class Goal(eqx.Module):
    """What candidates should fire like.

    - `label`: the firing pattern; `features`: logarithms, zero where undefined.
    - `below`, `above`: how far each feature may be off to either side.
    - `decisive`: one for features by which the pattern is compared, else zero.
    """

    label: Int[Array, ""]
    features: Float[Array, " 7"]
    below: Float[Array, " 7"]
    above: Float[Array, " 7"]
    decisive: Float[Array, " 7"]


def goal(target: Target) -> Goal:
    """The goal of firing like a target, within its tolerance."""
    columns = list(columns_of(target.label))
    off = np.ones(NUM_COMPARED)
    row = log_features(jax.tree.map(lambda x: x[None], target.features))[0]

    def spread_out(compared):
        everything = np.zeros(len(COMPARED))
        everything[columns] = compared[: len(columns)]
        return jnp.asarray(everything, jnp.float32)

    return Goal(
        jnp.asarray(target.label, jnp.int32),
        spread_out(row[columns]),
        spread_out(target.limits(-off)),
        spread_out(target.limits(off)),
        spread_out(np.ones(len(columns))),
    )


@eqx.filter_jit
def polish(
    emulator: Emulator,
    log_g: Float[Array, "cells channels"],
    goal: Goal,
    bounds: Float[Array, "2 channels"],
) -> tuple[Float[Array, "cells channels"], Float[Array, " cells"]]:
    """Moves members towards a goal, as far as the emulator knows the way.

    Returns logarithms of their new conductances, within `bounds`, and the probability
    that each is valid.
    """
    strides = jnp.array(STRIDES, log_g.dtype)

    def miss(log_g):
        predicted = emulator(log_g)
        # Being of the right pattern is one more thing to reach.
        away = (predicted.features - goal.features) * goal.decisive
        return jnp.append(away, predicted.labels[goal.label])

    def step(log_g, _):
        missed = jnp.clip(miss(log_g), -strides, strides)
        J = jax.jacrev(miss)(log_g) * emulator.scale[None]
        move = least_change(J, missed, RIDGE)
        size = jnp.sqrt(jnp.sum(move**2))
        move = move * jnp.minimum(1, LONGEST / (size + 1e-6))
        return jnp.clip(log_g + emulator.scale * move, bounds[0], bounds[1]), None

    def one(log_g):
        log_g, _ = jax.lax.scan(step, log_g, None, length=NUM_STEPS)
        return log_g, _chance(emulator(log_g), goal)

    return jax.vmap(one)(log_g)


def _chance(predicted: Guess, goal: Goal) -> Float[Array, ""]:
    """How probably a member is valid, given what the emulator predicts of it."""
    away = predicted.features - goal.features
    low, high = (x / predicted.spread for x in (-goal.below - away, goal.above - away))
    below = lambda x: 0.5 * jnp.exp(jnp.minimum(x, 0))
    share = lambda x: jnp.where(x < 0, below(x), 1 - below(-x))
    inside = share(high) - share(low)
    within = jnp.prod(jnp.where(goal.decisive > 0, inside, 1))
    return jnp.exp(predicted.labels[goal.label]) * within
