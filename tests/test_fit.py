import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dicjax._core.fit import clipped, descend, finite_adam, keep_state, kept_state


def _miss(weights, goal, batch):
    return jnp.sum((weights - goal) ** 2) * (1 + 0 * batch)


def _fitted(batch, optimiser=None, **kwargs):
    optimiser = optimiser or clipped(optax.adam(0.1))
    draw = lambda i: jnp.asarray(batch if i == 3 else 0.0)
    fixed = (jnp.ones(2), _miss, draw, optimiser)
    with jax.numpy_dtype_promotion("standard"):  # Adam promotes integers
        return descend(jnp.zeros(2), *fixed, num_steps=300, **kwargs)


def test_descent_finds_the_least_loss_and_reports_the_way():
    steps = []
    note = lambda stage, step, total: steps.append((step, stage.loss))
    np.testing.assert_allclose(
        _fitted(0.0, every=100, on_progress=note), [1, 1], atol=1e-3
    )
    assert [step for step, _ in steps] == [100, 200, 300]
    assert steps[-1][1] < 1e-3


def test_the_moving_average_follows_the_weights():
    np.testing.assert_allclose(_fitted(0.0, averaged=0.9), [1, 1], atol=1e-2)
    behind = _fitted(0.0, averaged=0.999)
    assert (behind < _fitted(0.0, averaged=0.9)).all()


def test_a_gradient_that_is_not_finite_does_not_spoil_the_weights():
    assert np.isfinite(_fitted(jnp.nan, finite_adam(0.1, 300))).all()


def test_a_state_comes_back_with_what_is_known_of_it(tmp_path):
    arrays = (jnp.arange(3.0), None, np.ones(2, np.float32))
    assert kept_state(tmp_path, "a", arrays) is None
    keep_state(tmp_path, "a", arrays, {"step": 7})
    like = (jnp.zeros(3), None, np.zeros(2, np.float32))
    kept = kept_state(tmp_path, "a", like)
    assert kept is not None and kept.about == {"step": 7}
    np.testing.assert_array_equal(kept.arrays[0], arrays[0])
    np.testing.assert_array_equal(kept.arrays[2], arrays[2])
    for settings, other in (("b", like), ("a", (jnp.zeros(4), *like[1:]))):
        with pytest.raises(ValueError, match="state of another training"):
            kept_state(tmp_path, settings, other)
