import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import random_encoder

from dicjax.inference.adapter import adapter, attach, combine, learned, LowRank, merge
from dicjax.inference.config import EncoderConfig
from dicjax.inference.encoder import PRIORS, read


ANY = jnp.asarray(PRIORS.index("any"), jnp.int32)
CONFIG = EncoderConfig(width=16, num_slots=2, latent=8, hidden=16, max_spikes=32)


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(CONFIG)


@pytest.fixture(scope="module")
def trains():
    gaps = np.random.default_rng(0).gamma(4, 20, (5, 32))
    return jnp.asarray(np.cumsum(gaps, axis=1), jnp.float32)


def _moved(encoder):
    """An adapter that was trained: every `up` away from zero."""
    move = lambda x: (
        eqx.tree_at(lambda w: w.up, x, x.up + jnp.float32(0.1))
        if isinstance(x, LowRank)
        else x
    )
    return jax.tree.map(move, encoder, is_leaf=lambda x: isinstance(x, LowRank))


def test_an_adapter_just_attached_changes_nothing_to_the_last_bit(encoder, trains):
    adapted = merge(attach(jr.key(1), encoder, 4))
    before, after = read(encoder, trains, ANY), read(adapted, trains, ANY)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.array_equal(x, y)


def test_bases_and_scales_are_not_learned_and_all_else_is(encoder):
    adapted = attach(jr.key(1), encoder, 4)
    changing, fixed = eqx.partition(adapted, learned(adapted))
    assert changing.embed.weight.base is None
    assert changing.embed.weight.up is not None
    assert changing.embed.bias is not None
    assert fixed.embed.weight.base is not None
    assert changing.scales.low is None
    plain = learned(encoder)
    assert plain.embed.weight is True


def test_what_is_kept_of_an_adapter_is_small_and_makes_it_whole_again(encoder, trains):
    adapted = _moved(attach(jr.key(1), encoder, 4))
    kept = adapter(adapted)
    num = lambda tree: sum(x.size for x in jax.tree.leaves(tree) if eqx.is_array(x))
    assert num(kept) < num(encoder)
    whole = combine(kept, encoder)
    expected, found = read(merge(adapted), trains, ANY), read(whole, trains, ANY)
    assert not np.array_equal(read(encoder, trains, ANY).slow.means, found.slow.means)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert np.array_equal(x, y)


def test_an_adapter_of_another_shape_is_refused(encoder):
    wide = EncoderConfig(width=16, num_slots=2, num_blocks=2, latent=8, hidden=16)
    other = random_encoder(wide)
    with pytest.raises(ValueError, match="another shape"):
        combine(adapter(attach(jr.key(1), other, 4)), encoder)


def test_a_rank_of_nothing_is_refused(encoder):
    with pytest.raises(ValueError, match="`rank` must be at least 1, got 0"):
        attach(jr.key(1), encoder, 0)
