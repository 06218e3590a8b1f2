"""When a neuron fires like another: how far features are off, and may be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dicjax._core import AnyArray, Scalar
from dicjax.spikes.features import Features
from dicjax.spikes.patterns import columns_of, COMPARED, LABELS, NUM_COMPARED
from dicjax.spikes.trains import Errors


# For each pattern, where the features it is compared by stand in `COMPARED`; -1 where
# it has fewer than others.
COLUMNS = np.array(
    [(*columns_of(i), *(-1,) * NUM_COMPARED)[:NUM_COMPARED] for i in range(len(LABELS))]
)
SLACK = np.array([feature.slack for feature in COMPARED])
ROUNDING = 1e-5  # so that a count exactly at its limit is within
LARGEST_SHARE = 0.99  # that a count may be lower


@eqx.filter_jit
def feature_errors(features: Features, target: Features) -> Float[Array, "*cells 4"]:
    """Signed errors in the features that the target's pattern is compared by.

    Each is $\\ln(\\text{feature} / \\text{target})$: of the mean ISI for tonic targets;
    of burst period, intra-burst ISI and spikes per burst for bursting ones; of the
    mean ISI and the three quartiles of the ISI for irregular ones. Where a pattern has
    fewer than four, the rest is zero. Silent targets have nothing to miss.

    **Arguments:**

    - `features`: of neurons, as [`dicjax.spike_features`][] measures them.
    - `target`: features of what they should fire like, one for all neurons or one for
        each.

    **Returns:**

    Four errors of every neuron, nan where it lacks the feature.
    """
    return compared_errors(_compared(jnp, features), target)


@eqx.filter_jit
def compared_errors(
    values: Float[AnyArray, "*cells features"], target: Features
) -> Float[Array, "*cells 4"]:
    """As `feature_errors`, of neurons whose features are in the order of `COMPARED`."""
    values = jnp.asarray(values)
    wanted = jnp.broadcast_to(_compared(jnp, target).astype(values.dtype), values.shape)
    # Masked before the logarithm, so that gradients of defined entries stay finite.
    defined = (values > 0) & (wanted > 0)
    ratio = jnp.where(defined, values, 1) / jnp.where(defined, wanted, 1)
    errors = jnp.where(defined, jnp.log(ratio), jnp.nan)
    label = jnp.broadcast_to(target.label, values.shape[:-1])
    return _of_pattern(jnp, errors, label, 0)


def error_limits(errors: Errors, target: Features, tolerance: float | Scalar) -> Errors:
    """How far each error may be off, on the side on which it is.

    That is $\\ln(1 + t)$ for a relative tolerance $t$. Spikes per burst may be off by
    half a spike or by $t$ of the target, whichever is more, on either side.

    `errors` and `target` are as in [`dicjax.feature_errors`][]. Limits have the shape
    of `errors`; they are on the host where these are, in float64.
    """
    xp = np if isinstance(errors, np.ndarray) else jnp
    dtype = np.dtype(float) if xp is np else errors.dtype
    values = _of_pattern(xp, _compared(xp, target), target.label, 1).astype(dtype)
    slack = _of_pattern(xp, xp.asarray(SLACK, dtype), target.label, 0)
    share = xp.maximum(xp.asarray(tolerance, dtype), slack / values)
    # A count may be off by as much below as above, a time by as large a ratio.
    below = -xp.log1p(-xp.minimum(share, LARGEST_SHARE))
    limits = xp.where((slack > 0) & (errors < 0), below, xp.log1p(share))
    limits = xp.where(slack > 0, limits * (1 + ROUNDING), limits)
    return xp.broadcast_to(limits, errors.shape)


@jax.jit
def is_valid(
    features: Features, target: Features, tolerance: float | Scalar
) -> Bool[Array, "*cells"]:
    """Whether neurons fire like the target, within the relative `tolerance` $t$.

    They have its label, and $|\\ln(\\text{feature} / \\text{target})| \\le \\ln(1 + t)$
    for every feature of that pattern: mean ISI (tonic); burst period and intra-burst
    ISI, with spikes per burst within $\\max(0.5, t n)$ (bursting); mean ISI and the
    three quartiles of the ISIs (irregular).

    **Arguments:**

    - `features`: of neurons, as [`dicjax.spike_features`][] measures them.
    - `target`: features of what they should fire like, one for all neurons or one for
        each.
    - `tolerance`: how far a feature may be off, as a share.

    **Returns:**

    True for every neuron that does.
    """
    target = jax.tree.map(
        lambda t, x: jnp.broadcast_to(t, x.shape).astype(x.dtype), target, features
    )
    errors = feature_errors(features, target)
    limits = error_limits(errors, target, tolerance)
    is_near = jnp.all(jnp.abs(errors) <= limits, axis=-1)
    return (features.label == target.label) & is_near


def _compared(xp, features: Features) -> Float[AnyArray, "*cells features"]:
    return xp.stack([xp.asarray(x.read(features)) for x in COMPARED], axis=-1)


def _of_pattern(xp, values, label, fill: int):
    """Of values in the order of `COMPARED`, those that each target is compared by."""
    columns = xp.asarray(COLUMNS)[xp.asarray(label)]
    values = xp.broadcast_to(values, (*columns.shape[:-1], len(COMPARED)))
    taken = xp.take_along_axis(values, xp.maximum(columns, 0), axis=-1)
    return xp.where(columns >= 0, taken, xp.asarray(fill, values.dtype))
