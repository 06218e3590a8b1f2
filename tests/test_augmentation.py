import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dicjax.inference.augmentation import augment, MIN_CROP
from dicjax.inference.config import TrainingConfig


ROWS, LENGTH = 64, 48
# A program is compiled for each of these.
USUAL = TrainingConfig(anomalies=0.25)
CLEAN = TrainingConfig(
    max_jitter=0.0, max_missed=0.0, max_spurious=0.0, max_drift=0.0, anomalies=0.0
)
_compiled = eqx.filter_jit(augment)


def augmented(seed, times, training=USUAL):
    found = _compiled(jr.key(seed), times, training, LENGTH, jnp.float32(0.5))
    return [np.asarray(x) for x in found]


def _bursts():
    """Trains of 240 spikes each, padded."""
    times = np.full((ROWS, 256), np.inf, np.float32)
    times[:, :240] = np.cumsum(np.tile([200.0, 8.0, 9.0, 11.0], 60))
    return times


def _is_of_a_burst(out):
    """Which intervals are intervals of the bursts, or padding."""
    isi = np.diff(np.where(np.isfinite(out), out, np.nan), axis=1)
    return np.isin(np.round(isi, 1), (200.0, 8.0, 9.0, 11.0)) | np.isnan(isi)


@settings(max_examples=20)
@given(num=st.integers(10, 256), seed=st.integers(0, 2**31 - 1))
def test_a_stretch_is_sorted_starts_at_zero_and_holds_spikes(num, seed):
    rng = np.random.default_rng(seed)
    times = np.full((ROWS, 256), np.inf, np.float32)
    times[:, :num] = np.cumsum(rng.gamma(2, 30, (ROWS, num)), axis=1)
    out, _ = augmented(seed, times)
    assert out.shape == (ROWS, LENGTH)
    assert (out[:, 0] == 0).all()
    assert not np.isnan(out).any()
    known = np.isfinite(out)
    assert (np.diff(known.astype(int), axis=1) <= 0).all()  # padding comes last
    assert all((np.diff(row[np.isfinite(row)]) >= 0).all() for row in out)


def test_without_flaws_a_stretch_is_a_stretch_of_the_train():
    out, odd = augmented(0, _bursts(), CLEAN)
    assert not odd.any()
    intervals = np.tile([200.0, 8.0, 9.0, 11.0], 20)
    for row in out:
        own = np.diff(row[np.isfinite(row)])
        assert len(own) >= MIN_CROP - 1
        starts = [i for i in range(4) if np.allclose(intervals[i : i + len(own)], own)]
        assert len(starts) == 1


def test_half_of_the_trains_stay_clean():
    draws = [augmented(seed, _bursts()) for seed in range(8)]
    out = np.concatenate([out[~odd] for out, odd in draws])
    assert 0.4 < _is_of_a_burst(out).all(axis=1).mean() < 0.6


@pytest.mark.parametrize("training", [CLEAN, USUAL])
def test_the_share_of_anomalies_is_what_was_asked_for(training):
    _, odd = augmented(2, _bursts(), training)
    assert np.mean(odd) == training.anomalies


def test_anomalies_break_the_order_of_bursts():
    # Of trains with other flaws alone, half stay as they are.
    draws = [augmented(seed, _bursts()) for seed in range(16)]
    out = np.concatenate([out[odd] for out, odd in draws])
    enough = np.isfinite(out).sum(axis=1) >= 12
    assert (~_is_of_a_burst(out))[enough].any(axis=1).mean() > 0.95


def test_augmentation_depends_on_its_key_alone():
    a, b, c = (augmented(seed, _bursts())[0] for seed in (4, 4, 5))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
