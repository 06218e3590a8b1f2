import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dicjax.populations.correction import corrected_children, Known


NUM, CHANNELS = 1000, 8
BOUNDS = jnp.asarray([[-8.0] * CHANNELS, [8.0] * CHANNELS])


def _population(seed=0):
    return np.random.default_rng(seed).normal(size=(NUM, CHANNELS)) * 0.5


def _born(log_g, misses, usable=None, spread=0.7, num=256, stride=np.inf):
    usable = np.ones(len(log_g), bool) if usable is None else usable
    return np.asarray(
        corrected_children(
            jr.key(0),
            Known(jnp.asarray(log_g), jnp.asarray(misses), jnp.asarray(usable)),
            BOUNDS,
            jnp.asarray(spread),
            num,
            float(stride),
        )
    )


def test_where_features_are_linear_children_hit_the_target():
    A = np.random.default_rng(1).normal(size=(CHANNELS, 3))
    log_g = _population()
    born = _born(log_g, log_g @ A - 1.0)
    before = np.abs(log_g @ A - 1.0).max(axis=1)
    after = np.abs(born @ A - 1.0).max(axis=1)
    assert np.median(after) < 0.05 * np.median(before)


def test_children_differ_along_what_features_do_not_feel():
    A = np.zeros((CHANNELS, 3))
    A[:3] = np.eye(3)
    log_g = _population()
    born = _born(log_g, log_g @ A)
    assert born[:, :3].std(axis=0).max() < 0.2
    assert born[:, 3:].std(axis=0).min() > 0.4


def test_a_curved_feature_is_followed_locally():
    def miss(log_g):
        value = np.sin(log_g[:, :1]) + 0.5 * log_g[:, 1:2] ** 2 + log_g[:, 2:3]
        return np.concatenate([value - 0.5, np.zeros((len(log_g), 2))], axis=1)

    log_g = _population()
    born = _born(log_g, miss(log_g), spread=0.3)
    parents = np.sort(np.abs(miss(log_g)[:, 0]))[:192]
    assert np.median(np.abs(miss(born)[:, 0])) < 0.15
    # Resampling around the same parents without correction is worse.
    rng = np.random.default_rng(3)
    near = log_g[np.argsort(np.abs(miss(log_g)[:, 0]))[:192]]
    plain = near[rng.integers(0, 192, 256)] + 0.3 * near.std(axis=0) * rng.normal(
        size=(256, CHANNELS)
    )
    assert len(parents) == 192
    assert np.median(np.abs(miss(born)[:, 0])) < np.median(np.abs(miss(plain)[:, 0]))


def test_unusable_members_have_no_children_and_no_say():
    log_g = _population()
    usable = np.arange(NUM) % 2 == 0
    misses = log_g[:, :3].copy()
    clean = _born(log_g, misses, usable)
    misses[~usable] = np.nan
    log_g[~usable, 5] = 7.0
    assert np.allclose(_born(log_g, misses, usable), clean)


def test_children_stay_within_bounds():
    log_g = _population()
    born = _born(log_g, log_g[:, :3] - 20.0)
    assert np.all((born >= -8.0) & (born <= 8.0))


@pytest.mark.parametrize("num_usable", [1, 3, 50])
def test_few_usable_members_suffice(num_usable):
    log_g = _population()
    born = _born(log_g, log_g[:, :3], np.arange(NUM) < num_usable)
    assert np.isfinite(born).all()


def test_far_from_the_target_a_correction_goes_part_of_the_way():
    log_g = _population()
    misses = log_g[:, :3] + 5.0
    parents = np.sort(misses.max(axis=1))[:192]
    born = _born(log_g, misses, spread=1e-6, stride=0.3)
    left = (born[:, :3] + 5.0).max(axis=1)
    assert parents.min() - 0.5 < left.min()
    assert left.mean() < parents.mean() - 0.1
