"""Spikes of a potential that is being integrated: the one rule for running steps.

It is the rule of `dicjax.spikes`, which looks at whole traces: `mark_spikes` finds
spikes, and `mark_shortfalls` upstrokes that fell short of one.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from dicjax._core import Scalar
from dicjax.neurons import Neuron
from dicjax.spikes import is_upstroke, shortfall_level


class Detected(NamedTuple):
    """What a step shows.

    - `pending`: when the potential last crossed `V_spike` upwards without having fallen
        below `V_rearm` since, in ms; infinite where there is no such crossing, and
        minus infinite after an upstroke that has not reached `V_spike` yet.
    - `is_spike`: whether this step confirms a spike.
    - `is_shortfall`: whether the potential fell again after such an upstroke.
    - `time`: of the spike, in ms; minus infinity of a shortfall.
    """

    pending: Scalar
    time: Scalar
    is_spike: Bool[Array, ""]
    is_shortfall: Bool[Array, ""]


def detect_spike(
    neuron: Neuron, before: Scalar, after: Scalar, t: Scalar, h: Scalar, pending: Scalar
) -> Detected:
    """Looks for a spike in a step of `h` ms from `t` on.

    - `neuron`: whose levels make a spike.
    - `before`, `after`: the potential at both ends of the step, in mV.
    - `pending`: as the step before left it; infinite before the first step.
    """
    V_spike, level = neuron.V_spike, shortfall_level(neuron.V_rearm)
    # Below the level, nothing is pending.
    rises = (before < level) & (after >= level) & is_upstroke(before, after, h)
    crosses = (before < V_spike) & (after >= V_spike) & jnp.isinf(pending)
    crossing = t + h * (V_spike - before) / (after - before)
    time = jnp.where(crosses, crossing, jnp.where(rises, -jnp.inf, pending))
    is_spike = (after < neuron.V_rearm) & jnp.isfinite(time)
    is_below = after < level
    return Detected(
        pending=jnp.where(is_spike | is_below, jnp.inf, time),
        time=time,
        is_spike=is_spike,
        is_shortfall=is_below & (time == -jnp.inf),
    )
