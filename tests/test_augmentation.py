import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dicjax.inference.augmentation import augment, MIN_CROP
from dicjax.inference.config import TrainingConfig


HALF = jnp.float32(0.5)
CLEAN = TrainingConfig(
    max_jitter=0.0, max_missed=0.0, max_spurious=0.0, max_drift=0.0, anomalies=0.0
)


def _bursts(num=60):
    isi = np.tile([200.0, 8.0, 9.0, 11.0], num)
    return np.cumsum(isi).astype(np.float32)


def _intervals(out):
    return np.diff(np.where(np.isfinite(out), out, np.nan), axis=1)


def _batch(rows=64, width=256):
    times = np.full((rows, width), np.inf, np.float32)
    times[:, :240] = _bursts()[:240]
    return jnp.asarray(times)


@settings(max_examples=20)
@given(
    num=st.integers(10, 120),
    length=st.sampled_from((24,)),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_stretch_is_sorted_starts_at_zero_and_holds_spikes(num, length, seed):
    rng = np.random.default_rng(seed)
    times = np.full((4, 120), np.inf, np.float32)
    times[:, :num] = np.cumsum(rng.gamma(2, 30, (4, num)), axis=1)
    out, _ = augment(jr.key(seed), jnp.asarray(times), TrainingConfig(), length, HALF)
    out = np.asarray(out)
    assert out.shape == (4, length)
    assert (out[:, 0] == 0).all()
    assert not np.isnan(out).any()
    known = np.isfinite(out)
    assert (np.diff(known.astype(int), axis=1) <= 0).all()  # padding comes last
    assert all((np.diff(row[np.isfinite(row)]) >= 0).all() for row in out)


def test_without_flaws_a_stretch_is_a_stretch_of_the_train():
    out, odd = augment(jr.key(0), _batch(), CLEAN, 48, HALF)
    assert not odd.any()
    intervals = np.tile([200.0, 8.0, 9.0, 11.0], 20)
    for row in np.asarray(out):
        own = np.diff(row[np.isfinite(row)])
        assert len(own) >= MIN_CROP - 1
        starts = [i for i in range(4) if np.allclose(intervals[i : i + len(own)], own)]
        assert len(starts) == 1


def test_half_of_the_trains_stay_clean():
    training = TrainingConfig(anomalies=0.0)
    out, _ = augment(jr.key(1), _batch(400), training, 48, HALF)
    isi = _intervals(np.asarray(out))
    known = np.isfinite(isi)
    clean = np.isin(np.round(isi, 1), (200.0, 8.0, 9.0, 11.0)) | ~known
    assert 0.4 < clean.all(axis=1).mean() < 0.6


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_share_of_anomalies_is_what_was_asked_for(share):
    training = TrainingConfig(anomalies=share)
    _, odd = augment(jr.key(2), _batch(), training, 48, HALF)
    assert float(jnp.mean(odd)) == share


def test_anomalies_break_the_order_of_bursts():
    training = TrainingConfig(
        max_jitter=0.0, max_missed=0.0, max_spurious=0.0, max_drift=0.0, anomalies=1.0
    )
    out, odd = augment(jr.key(3), _batch(256), training, 48, HALF)
    assert odd.all()
    out = np.asarray(out)
    isi = _intervals(out)
    strange = np.isfinite(isi) & ~np.isin(np.round(isi, 1), (200.0, 8.0, 9.0, 11.0))
    enough = np.isfinite(out).sum(axis=1) >= 12
    assert strange[enough].any(axis=1).mean() > 0.95


def test_augmentation_depends_on_its_key_alone():
    a = augment(jr.key(4), _batch(), TrainingConfig(), 24, HALF)[0]
    b = jax.jit(lambda x: augment(jr.key(4), x, TrainingConfig(), 24, HALF)[0])(
        _batch()
    )
    assert jnp.allclose(a, b, atol=1e-2)
    c = augment(jr.key(5), _batch(), TrainingConfig(), 24, HALF)[0]
    assert not jnp.allclose(a, c, atol=1e-2)
