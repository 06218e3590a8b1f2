"""Fine-tuning an operator on one feature of its answers.

The feature is measured on the operator's own answer, through time and differentiably,
and compared with the feature in the simulation. Amplitudes stay near to where they
were, so that everything else stays as good as it was.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key

from dicjax._core import descend, finite_adam, Progress, renamed
from dicjax.operator.families import find_family
from dicjax.operator.model import follow, Operator
from dicjax.operator.training import is_learned, Members
from dicjax.spikes import step_response


Feature = Literal["sag", "width", "height"]
SIZES = {"sag": 0.02, "width": 0.05, "height": 1.0}  # errors that count as one (mV, ms)
DEFLECTION = -20.0  # mV, of cells whose sag is measured
BEFORE, STEP = 2.0, {"sag": 500.0, "width": 60.0, "height": 60.0}  # ms
FINER = 4  # steps of the reference in one of the operator
HELD = 10.0  # weight of amplitudes staying where they were
BATCH = 64
LEARNING_RATE = 2e-4


def tune(
    key: Key[Array, ""],
    operator: Operator,
    members: Members,
    feature: Feature,
    num_steps: int,
    *,
    on_progress: Progress | None = None,
) -> Operator:
    """The operator with a branch that makes a feature come out better."""
    learned, rest = eqx.partition(operator, is_learned(operator))

    def draw(i: int) -> Members:
        return members[jr.randint(jr.fold_in(key, i), (BATCH,), 0, len(members.g))]

    def loss(weights, fixed, some):
        start, rest = fixed
        return tuning_loss(eqx.combine(weights, rest), start, some, feature)

    weights = descend(
        learned,
        (operator, rest),
        loss,
        draw,
        finite_adam(LEARNING_RATE, num_steps),
        num_steps=num_steps,
        on_progress=renamed(on_progress, "tuning"),
    )
    return eqx.combine(weights, rest)


@eqx.filter_jit
def feature_errors(
    operator: Operator, members: Members, feature: str
) -> Float[Array, " members"]:
    """A feature minus the same feature in the simulation; nan if it is not defined."""
    ours, theirs = _measured(operator, operator.amplitudes(members.x), members, feature)
    return ours - theirs


def _measured(operator, a, members, feature):
    correction = lambda o: o.curves.correction
    exact = eqx.tree_at(correction, operator, replace_fn=jnp.zeros_like)
    ours = _feature(operator, a, members, feature, 1)
    theirs = _feature(exact, members.g, members, feature, FINER)
    return ours, jax.lax.stop_gradient(theirs)


def _feature(operator, a, members, feature, num_steps):
    """The feature of every member under its step, with so many steps in a sample."""
    of = lambda name: members.x[:, operator.names.index(name)]
    rest, every, stop = of("rest"), operator.step, BEFORE + STEP[feature]
    # At rest, the current that was found to deflect by so much, or fires briskly.
    strong = (members.threshold + members.high) / 2
    amplitude = DEFLECTION / jnp.exp(of("resistance")) if feature == "sag" else strong
    times = jnp.arange(round(stop / every), dtype=rest.dtype) * every
    current = jnp.where(times[:, None] >= BEFORE, amplitude[None], 0)
    h = jnp.asarray(every / num_steps, rest.dtype)
    _, V = follow(operator, a, operator.start(rest, a), current, h, num_steps)
    levels = find_family(operator.family).neuron.spike_levels
    response = step_response(V, every, BEFORE, stop, max_spikes=2, **levels)
    return getattr(response, feature)


def tuning_loss(
    tuned: Operator, start: Operator, members: Members, feature: Feature
) -> Float[Array, ""]:
    """Errors of a feature, and how far amplitudes are from where they started."""
    a, before = tuned.amplitudes(members.x), start.amplitudes(members.x)
    spread = start.branch.amplitude_spread[None]
    ours, theirs = _measured(tuned, a, members, feature)
    away = (ours - theirs) / SIZES[feature]
    away = jnp.where(jnp.isfinite(away), away, 0)
    # Beyond a few, errors count by their size, or the worst would decide alone.
    miss = jnp.mean(jnp.sqrt(1 + away**2) - 1)
    moved = jnp.mean(((jnp.log(a) - jnp.log(before)) / spread) ** 2)
    return miss + HELD * moved
