"""When a neuron fires like another: how far features are off, and may be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dicjax.spikes.features import Features, features_of
from dicjax.spikes.patterns import BURSTING, IRREGULAR, SILENT
from dicjax.spikes.trains import as_train, Scalar, SpikeTrain


@eqx.filter_jit
def feature_errors(features: Features, target: Features) -> Float[Array, "*cells 3"]:
    """Signed errors of members in the three features that the target's regime has.

    Each is $\\ln(\\text{feature} / \\text{target})$ of: the mean ISI, for tonic targets
    (and two zeros); burst period, intra-burst ISI and spikes per burst, for bursting
    ones; mean ISI and its first and third quartile, for irregular ones. Silent targets
    have nothing to miss.

    **Arguments:**

    - `features`: of members, as [`dicjax.spike_features`][] measures them.
    - `target`: features of what they should fire like, one for all members or one for
        each.

    **Returns:**

    Three errors of every member, nan where it lacks the feature.
    """
    target = _spread(target, features)

    def coordinates(x):
        bursts = (x.period, x.intra_burst_isi, x.spikes_per_burst)
        others = (x.mean_isi, x.isi_quartiles[..., 0], x.isi_quartiles[..., 2])
        bursts, others = jnp.stack(bursts, -1), jnp.stack(others, -1)
        return jnp.where(target.label[..., None] == BURSTING, bursts, others)

    errors = _log_ratio(coordinates(features), coordinates(target))
    is_compared = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]], dtype=bool)
    return jnp.where(jnp.asarray(is_compared)[target.label], errors, 0)


@jax.jit
def is_valid(
    features: Features, target: Features, tolerance: float | Scalar
) -> Bool[Array, "*cells"]:
    """Whether members fire like the target, within the relative `tolerance` $t$.

    They have its label, and $|\\ln(\\text{feature} / \\text{target})| \\le \\ln(1 + t)$
    for every feature of that regime: mean ISI (tonic); burst period and intra-burst
    ISI, with spikes per burst within $\\max(0.5, t n)$ (bursting); mean ISI and the
    three quartiles of the ISIs (irregular).

    **Arguments:**

    - `features`: of members, as [`dicjax.spike_features`][] measures them.
    - `target`: features of what they should fire like, one for all members or one for
        each.
    - `tolerance`: how far a feature may be off, as a share.

    **Returns:**

    True for every member that does.
    """
    target = _spread(target, features)
    tolerance = jnp.asarray(tolerance, features.rate.dtype)
    limit = jnp.log1p(tolerance)
    within = jnp.abs(feature_errors(features, target)) <= limit
    quartiles = (jnp.asarray(x.isi_quartiles) for x in (features, target))
    quartiles = jnp.abs(_log_ratio(*quartiles))
    num_off = jnp.abs(features.spikes_per_burst - target.spikes_per_burst)
    num_within = num_off <= jnp.maximum(0.5, tolerance * target.spikes_per_burst)
    return (
        (features.label == target.label)
        & jnp.all(within[..., :2], axis=-1)
        & jnp.where(target.label == BURSTING, num_within, within[..., 2])
        & ((quartiles[..., 1] <= limit) | (target.label != IRREGULAR))
    )


def _spread(target: Features, features: Features) -> Features:
    return jax.tree.map(
        lambda t, x: jnp.broadcast_to(t, x.shape).astype(x.dtype), target, features
    )


def _log_ratio(x: Float[Array, "..."], target: Float[Array, "..."]):
    # Masked before the logarithm, so that gradients of defined entries stay finite.
    defined = (x > 0) & (target > 0)
    ratio = jnp.where(defined, x, 1) / jnp.where(defined, target, 1)
    return jnp.where(defined, jnp.log(ratio), jnp.nan)


def as_target(target: Features | SpikeTrain | Float[np.ndarray, " spikes"]) -> Features:
    """Features of a target that may also be given as a train (ms).

    Raises `ValueError` where there is nothing to fire like.
    """
    if not isinstance(target, Features):
        target = features_of(as_train(target))
    if int(target.label) == SILENT:
        raise ValueError(
            "The target is silent: there is nothing to fire like. Give one that fires."
        )
    return target
