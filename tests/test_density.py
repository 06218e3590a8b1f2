import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dicjax.inference.config import DensityConfig
from dicjax.inference.density import contexts, Density, sample_density, train_density


SMALL = DensityConfig(width=24, num_components=4, num_steps=400, batch_size=128)
CONTEXT = jnp.array([0.3, -1.0, 0.5])


@pytest.fixture(scope="module")
def density():
    return Density(SMALL, (0, 2), 4, 3, key=jr.key(0))


@eqx.filter_jit
def densities(density, low, high):
    """On a grid of the two coordinates, and the area of a cell of it."""
    axis = jnp.linspace(low, high, 241)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = jnp.exp(jax.vmap(lambda z: density.log_prob(z, CONTEXT))(grid))
    return values, (axis[1] - axis[0]) ** 2


def test_a_density_integrates_to_one(density):
    values, area = densities(density, jnp.array(-12.0), jnp.array(12.0))
    assert np.isclose(np.sum(values) * area, 1, atol=0.01)


def test_draws_have_the_density_claimed(density):
    draw = lambda key: density.draw(key, CONTEXT)
    z = np.asarray(jax.jit(jax.vmap(draw))(jr.split(jr.key(1), 8000)))
    # A box's share of draws is the density's integral over the box.
    inside = ((z > -1) & (z < 1)).all(axis=1)
    values, _ = densities(density, jnp.array(-1.0), jnp.array(1.0))
    assert np.isclose(np.mean(inside), 4 * np.mean(values), atol=0.03)


def test_conductances_come_back_from_their_coordinates(density):
    g = jnp.asarray(np.random.default_rng(0).uniform(0.01, 0.99, (6, 4)))
    back = density.conductances(density.coordinates(g))
    assert jnp.allclose(back[:, jnp.array([0, 2])], g[:, jnp.array([0, 2])])
    assert jnp.allclose(back[:, 1], density.start[1])


def test_contexts_hold_zeros_where_a_feature_is_unknown():
    features = np.full((2, 7), np.nan)
    features[0] = np.arange(7)
    rows = contexts(np.ones((2, 3)), features, np.array([1, 2]), np.zeros((2, 2)))
    assert np.isfinite(rows).all()
    assert rows.shape == (2, 3 + 7 + 7 + 4 + 2)
    assert rows[0, 3:10].tolist() == list(range(7))
    assert not rows[1, 3:17].any()


@pytest.mark.slow
def test_training_finds_how_conductances_hang_together():
    # The third conductance is twice the first; the second and fourth are solved for.
    rng = np.random.default_rng(0)
    g = rng.uniform(0.05, 0.45, (4000, 4)).astype(np.float32)
    g[:, 2] = 2 * g[:, 0]
    context = rng.normal(size=(4000, 3)).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        density, log_prob = train_density(
            jr.key(0),
            g,
            context,
            np.ones(4000),
            np.ones(4, np.float32),
            (1, 3),
            SMALL,
        )
    assert log_prob > -2.0  # independent coordinates would give -2.8
    drawn = np.asarray(
        sample_density(density, jr.key(2), jnp.zeros((2000, 3), jnp.float32))
    )
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1] > 0.98
    assert abs(np.median(drawn[:, 2] / drawn[:, 0]) - 2) < 0.1
    assert drawn[:, 0].std() > 0.08
