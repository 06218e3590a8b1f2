"""Spikes of a potential that is being integrated: the one rule for running steps.

It is the rule of `dicjax.spikes.mark_spikes`, which looks at whole traces.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from dicjax._core import Scalar
from dicjax.spikes import SPIKE_DOWN, SPIKE_UP


def detect_spike(
    before: Scalar, after: Scalar, t: Scalar, h: Scalar, pending: Scalar
) -> tuple[Scalar, Bool[Array, ""], Scalar]:
    """Looks for a spike in a step of `h` ms from `t` on.

    - `before`, `after`: the potential at both ends of the step, in mV.
    - `pending`: when it last crossed 10 mV upwards without having fallen below 0 mV
        since, in ms; infinite where there is no such crossing.

    Returns the new `pending`, whether this step confirms a spike, and the spike's time
    in ms, which means nothing without one.
    """
    crosses = (before < SPIKE_UP) & (after >= SPIKE_UP) & jnp.isinf(pending)
    time = jnp.where(crosses, t + h * (SPIKE_UP - before) / (after - before), pending)
    is_confirmed = (after < SPIKE_DOWN) & jnp.isfinite(time)
    return jnp.where(is_confirmed, jnp.inf, time), is_confirmed, time
