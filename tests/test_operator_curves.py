"""Curves of operators that are corrected for long steps."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from operators import blank, FAMILY, measured_as, SMALL

from dicjax.operator.characteristics import at_rest
from dicjax.operator.config import OperatorTraining
from dicjax.operator.curve_correction import (
    correct_curves,
    FINE,
    window_loss,
    windows,
)
from dicjax.operator.model import advance
from dicjax.operator.training import members_of


NUM = 24
COARSE = dataclasses.replace(SMALL, step=0.4)  # ms, so long that errors are large


@pytest.fixture(scope="module")
def members():
    """Members at their own rest, most of which fire in windows."""
    g, measured = FAMILY.sample(jr.key(0), NUM), measured_as(NUM)
    values = measured.values.copy()
    values[:, measured.names.index("rest")] = at_rest(FAMILY, g)[0]
    values[:, measured.names.index("threshold")] = 1.2
    return members_of(g, dataclasses.replace(measured, values=values))


@pytest.fixture(scope="module")
def operator():
    return blank(NUM, COARSE)


@pytest.fixture(scope="module")
def window(operator, members):
    return windows(jr.key(98), operator, operator.curves.table(), members, 32)


@pytest.mark.slow
def test_corrected_curves_follow_finer_steps(operator, members, window):
    assert np.mean(np.asarray(window.V).max(axis=1) > 0) > 0.5
    training = OperatorTraining(num_corrections=20)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        corrected = correct_curves(
            jr.key(0), operator, members, training, batch_size=32
        )
    loss = eqx.filter_jit(window_loss)
    before, after = (
        loss(o.curves.correction, operator, window) for o in (operator, corrected)
    )
    assert after < 0.6 * before


def test_corrections_have_the_gradient_that_goes_through_the_table(operator, window):
    operator = dataclasses.replace(operator, step=0.1)
    shape = operator.curves.correction.shape
    correction = 0.1 * jr.normal(jr.key(5), shape, jnp.float32)
    window = jax.tree.map(lambda x: x[:8], window)
    window = eqx.tree_at(lambda w: w.V, window, window.V[:, :60])
    h = jnp.float32(operator.step)

    def through_the_table(correction):
        curves = eqx.tree_at(lambda c: c.correction, operator.curves, correction)
        table = curves.table()

        def one(a, I, memory):
            def step(memory, _):
                new = advance(operator, table, a, memory, I, h)
                return new, new.V

            return jax.lax.scan(step, memory, length=60)[1]

        V = jax.vmap(one)(window.a, window.I, window.memory)
        return jnp.mean(jnp.sqrt(1 + ((V - window.V) / FINE) ** 2) - 1)

    own = lambda correction: window_loss(correction, operator, window)
    loss, ours = jax.jit(jax.value_and_grad(own))(correction)
    other, theirs = jax.jit(jax.value_and_grad(through_the_table))(correction)
    np.testing.assert_allclose(loss, other, rtol=1e-4)
    assert np.abs(theirs).max() > 1e-3
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)
