"""How small networks are fitted to tables in memory; encoders train in `training`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree


AVERAGED = 0.998  # decay of the moving average of weights
WARM_UP = 200  # steps


def descend(
    network: PyTree,
    learned: PyTree,
    loss: Callable[..., Float[Array, ""]],
    rows: tuple[np.ndarray, ...],
    weights: Float[np.ndarray, " rows"],
    *,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Any:
    """Fits a network to rows of a table, by Adam along a cosine.

    **Arguments:**

    - `network`: where to start; `learned`: which of its leaves may change.
    - `loss`: of the network and a batch of every table in `rows`.
    - `weights`: how often each row is drawn.
    - `num_steps`, `batch_size`: how many steps, each of how many rows.
    - `learning_rate`: the highest, after a warm-up.
    - `on_progress`: called with (step, number of steps, loss), now and then.

    **Returns:**

    The network with a moving average of its weights.
    """
    odds = np.cumsum(weights)
    average = network
    optimiser = _optimiser(num_steps, learning_rate)
    state = optimiser.init(eqx.filter(network, learned))
    rng = np.random.default_rng(0)  # of the host's order of batches
    for step in range(num_steps):
        drawn = np.searchsorted(odds, rng.random(batch_size) * odds[-1])
        network, average, state, value = _step(
            network,
            average,
            state,
            tuple(table[drawn] for table in rows),
            jnp.asarray(step, jnp.float32),
            learned,
            loss,
            optimiser,
        )
        if on_progress is not None and step % 100 == 0:
            on_progress(step, num_steps, float(value))
    return average


@eqx.filter_jit(donate="none")
def _step(network, average, state, batch, step, learned, loss, optimiser):
    changing, fixed = eqx.partition(network, learned)
    value, gradient = eqx.filter_value_and_grad(
        lambda changing: loss(eqx.combine(changing, fixed), *batch)
    )(changing)
    updates, state = optimiser.update(gradient, state, changing)
    changing = eqx.apply_updates(changing, updates)
    # An average over few steps at first, so that it soon forgets the start.
    decay = jnp.minimum(AVERAGED, (1 + step) / (10 + step))
    before = eqx.filter(average, learned)
    now = jax.tree.map(lambda a, e: decay * a + (1 - decay) * e, before, changing)
    return eqx.combine(changing, fixed), eqx.combine(now, fixed), state, value


def _optimiser(steps: int, learning_rate: float) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(WARM_UP, steps // 10 + 1), steps
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
