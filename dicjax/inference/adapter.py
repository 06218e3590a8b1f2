"""Low-rank adapters: an encoder of one model, turned to another by few numbers.

Every weight matrix becomes `base + up @ down`. `up` starts from zero, so that an
adapter that was just attached changes nothing, to the last bit.

??? cite "Reference"

    Hu et al. (2022). *LoRA: low-rank adaptation of large language models.* ICLR.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PyTree

from dicjax.inference.encoder import Encoder, Scales


class LowRank(eqx.Module):
    """A weight matrix that stays as it is, and what is added to it."""

    base: Float[Array, "out in"]
    up: Float[Array, "out rank"]
    down: Float[Array, "rank in"]

    def merged(self) -> Float[Array, "out in"]:
        """The matrix with what was added."""
        return self.base + self.up @ self.down


def _is_low_rank(x) -> bool:
    return isinstance(x, LowRank)


def attach(key: Key[Array, ""], encoder: Encoder, rank: int) -> Encoder:
    """The same encoder with an adapter on every weight matrix.

    A matrix no larger than `rank` in one direction gets as many ranks as that.
    """
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1, got {rank}.")
    leaves, structure = jax.tree.flatten(encoder)
    adapted = []
    for number, leaf in enumerate(leaves):
        if not eqx.is_inexact_array(leaf) or leaf.ndim != 2:
            adapted.append(leaf)
            continue
        out, inside = leaf.shape
        r = min(rank, out, inside)
        noise = jr.normal(jr.fold_in(key, number), (r, inside), leaf.dtype)
        up, down = jnp.zeros((out, r), leaf.dtype), noise / inside**0.5
        adapted.append(LowRank(leaf, up, down.astype(leaf.dtype)))
    return jax.tree.unflatten(structure, adapted)


def merge(encoder: Encoder) -> Encoder:
    """An ordinary encoder that reads as the adapted one does."""
    return _map_adapted(LowRank.merged, encoder)


def learned(encoder: Encoder) -> PyTree:
    """Which leaves training may change: all but scales, and bases under an adapter."""

    def of(x):
        if _is_low_rank(x):
            return jax.tree.unflatten(jax.tree.structure(x), (False, True, True))
        if isinstance(x, Scales):
            return jax.tree.map(lambda _: False, x)
        return eqx.is_inexact_array(x)

    own = lambda x: _is_low_rank(x) or isinstance(x, Scales)
    return jax.tree.map(of, encoder, is_leaf=own)


def adapter(encoder: Encoder) -> Encoder:
    """What has to be kept of an adapted encoder: everything but the bases."""
    without = lambda x: eqx.tree_at(lambda w: w.base, x, None)
    return _map_adapted(without, encoder)


def combine(kept: Encoder, base: Encoder) -> Encoder:
    """An ordinary encoder of what `adapter` kept and of its base.

    Raises `ValueError` where the two do not fit.
    """
    frame = jax.tree.structure(kept, is_leaf=_is_low_rank)
    if frame != jax.tree.structure(base):
        raise ValueError("The adapter belongs to an encoder of another shape.")
    return _combined(kept, base)


@eqx.filter_jit  # at once: each shape of its own would take a compilation
def _combined(kept: Encoder, base: Encoder) -> Encoder:
    join = lambda own, weight: weight + own.up @ own.down
    return _map_adapted(join, kept, base)


def _map_adapted(function: Callable, encoder: Encoder, *others: Encoder) -> Encoder:
    """What a function returns in the place of each adapted weight matrix."""
    one = lambda x, *rest: function(x, *rest) if _is_low_rank(x) else x
    return jax.tree.map(one, encoder, *others, is_leaf=_is_low_rank)
