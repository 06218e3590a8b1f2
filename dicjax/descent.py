"""How small networks are fitted to tables in memory; encoders train in `training`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from dicjax.config import DensityConfig, EmulatorConfig


AVERAGED = 0.998  # decay of the moving average of weights
WARM_UP = 200  # steps


def descend(
    network: PyTree,
    learned: PyTree,
    loss: Callable[..., Float[Array, ""]],
    rows: tuple[np.ndarray, ...],
    weights: Float[np.ndarray, " rows"],
    config: DensityConfig | EmulatorConfig,
    *,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Any:
    """Fits a network to rows of a table, by Adam along a cosine.

    **Arguments:**

    - `network`: where to start; `learned`: which of its leaves may change.
    - `loss`: of the network and a batch of every table in `rows`.
    - `weights`: how often each row is drawn.
    - `config`: how many steps, of how many rows, and how fast.
    - `on_progress`: called with (step, number of steps, loss), now and then.

    **Returns:**

    The network with a moving average of its weights.
    """
    odds = np.cumsum(weights)
    average = network
    state = _optimiser(config).init(eqx.filter(network, learned))
    rng = np.random.default_rng(0)  # of the host's order of batches
    for step in range(config.num_steps):
        drawn = np.searchsorted(odds, rng.random(config.batch_size) * odds[-1])
        network, average, state, value = _step(
            network,
            average,
            state,
            tuple(table[drawn] for table in rows),
            jnp.asarray(step, jnp.float32),
            learned,
            loss,
            config,
        )
        if on_progress is not None and step % 100 == 0:
            on_progress(step, config.num_steps, float(value))
    return average


@eqx.filter_jit(donate="none")
def _step(network, average, state, batch, step, learned, loss, config):
    changing, fixed = eqx.partition(network, learned)
    value, gradient = eqx.filter_value_and_grad(
        lambda changing: loss(eqx.combine(changing, fixed), *batch)
    )(changing)
    updates, state = _optimiser(config).update(gradient, state, changing)
    changing = eqx.apply_updates(changing, updates)
    # An average over few steps at first, so that it soon forgets the start.
    decay = jnp.minimum(AVERAGED, (1 + step) / (10 + step))
    before = eqx.filter(average, learned)
    now = jax.tree.map(lambda a, e: decay * a + (1 - decay) * e, before, changing)
    return eqx.combine(changing, fixed), eqx.combine(now, fixed), state, value


def _optimiser(config: DensityConfig | EmulatorConfig) -> optax.GradientTransformation:
    steps = config.num_steps
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(WARM_UP, steps // 10 + 1), steps
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
