"""Correcting the curves of an operator through time, so that long steps are exact.

Within a spike the potential moves by tens of mV in one long step, and every spike comes
a little early or late. Smooth corrections of the curves, common to all members of a
family, make up for that. They are learned from windows with spikes, in which the
operator's trajectories are compared with trajectories of short steps.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key

from dicjax._core import descend, finite_adam, Progress
from dicjax.operator.config import OperatorTraining
from dicjax.operator.model import advance, Memory, Operator
from dicjax.operator.training import Members


FINER = 8  # steps of the reference in one of the operator
WINDOW = 40.0  # ms
WARM_UP = (5.0, 80.0)  # ms between rest and a window
LOWEST = 0.9  # of the threshold
FINE = 2.0  # mV: misses far beyond count by their size, not their square
BATCH = 256
LEARNING_RATE = 3e-3


class Window(eqx.Module):
    """Amplitudes, current and state of members, and their potentials from there on."""

    a: Float[Array, "cells terms"]
    I: Float[Array, " cells"]
    memory: Memory
    V: Float[Array, "cells samples"]


def correct_curves(
    key: Key[Array, ""],
    operator: Operator,
    members: Members,
    training: OperatorTraining,
    *,
    batch_size: int = BATCH,
    on_progress: Progress | None = None,
) -> Operator:
    """The operator with curves that suit its own time step."""
    exact = operator.curves.table()
    num_steps = training.num_corrections
    correction = descend(
        operator.curves.correction,
        operator,
        window_loss,
        lambda i: windows(jr.fold_in(key, i), operator, exact, members, batch_size),
        finite_adam(LEARNING_RATE, num_steps),
        num_steps=num_steps,
        on_progress=on_progress,
    )
    return eqx.tree_at(lambda o: o.curves.correction, operator, correction)


@eqx.filter_jit
def windows(
    key: Key[Array, ""], operator: Operator, exact: Array, members: Members, num: int
) -> Window:
    """What members do under steps of current, in fine steps through `exact` curves."""
    keys = jr.split(key, 3)
    some = members[jr.randint(keys[0], (num,), 0, len(members.g))]
    a, low = some.g, LOWEST * some.threshold
    I = low + (some.high - low) * jr.uniform(keys[1], (num,), a.dtype)
    shortest, longest = WARM_UP
    warm_up = jr.uniform(keys[2], (num,), a.dtype, shortest, longest)
    num_before = (warm_up / operator.step).astype(jnp.int32)
    h = jnp.asarray(operator.step / FINER, a.dtype)

    def one(a, I, memory, num_before):
        def fine(memory, _):
            new = advance(operator, exact, a, memory, I, h)
            return new, memory.units

        def step(memory):
            memory, units = jax.lax.scan(fine, memory, length=FINER)
            # Where units of the longer step are: half of it behind the potential.
            return memory, units[FINER // 2]

        def before(_, carry):
            return step(carry[0])

        memory, units = jax.lax.fori_loop(0, num_before, before, (memory, memory.units))
        sample = lambda memory, _: (lambda new: (new, new.V))(step(memory)[0])
        _, V = jax.lax.scan(sample, memory, length=round(WINDOW / operator.step))
        return Memory(memory.V, units, memory.Ca), V

    rest = operator.start(some.x[:, operator.names.index("rest")], a)
    memory, V = jax.vmap(one)(a, I, rest, num_before)
    return Window(a, I, memory, V)


def window_loss(
    correction: Float[Array, "knots columns"], operator: Operator, window: Window
) -> Float[Array, ""]:
    """How far the operator strays from the potentials of windows."""
    corrected = eqx.tree_at(lambda o: o.curves.correction, operator, correction)
    table = jax.lax.stop_gradient(corrected.curves.table())
    h = jnp.asarray(operator.step, window.V.dtype)

    def one(a, I, memory):
        @jax.checkpoint
        def step(memory, _):
            new = advance(operator, table, a, memory, I, h, correction)
            return new, new.V

        return jax.lax.scan(step, memory, length=window.V.shape[1])[1]

    V = jax.vmap(one)(window.a, window.I, window.memory)
    away = jnp.where(jnp.isfinite(V), (V - window.V) / FINE, 1e2)
    return jnp.mean(jnp.sqrt(1 + away**2) - 1)
