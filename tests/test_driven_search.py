import jax
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.generation.config import GenerateConfig
from dicjax.populations import draw_drives, drive_at, HIGHEST, LOWEST
from dicjax.populations.correction import corrected_children, expected_misses, Known
from dicjax.spikes import agreement_with


@pytest.fixture(scope="module")
def irregular():
    isi = np.random.default_rng(5).gamma(3, 100 / 3, 600)
    return dj.SpikeTrain(np.cumsum(isi))


@pytest.fixture(scope="module")
def generated(irregular):
    config = GenerateConfig(candidates_per_round=128, budget=8000)
    with jax.enable_x64(False):
        return dj.generate(
            jr.key(0), irregular, model="stg-prinz", num=2, config=config
        )


def test_an_irregular_train_gets_members_with_a_drive(generated, irregular):
    assert dj.LABELS[int(generated.target.label)] == "irregular"
    assert generated.num_accepted == 2 and generated.accepted.all()
    drive = generated.drive
    assert drive.sigma.shape == (2,) and np.all(drive.sigma > 0)
    # It was judged on twice a hundred intervals, on which nothing was selected.
    span = generated.duration - generated.discard
    assert span == pytest.approx(200 * float(generated.target.mean_isi), rel=0.01)
    agreement = agreement_with(irregular, span, 0.1)
    assert agreement.compare(generated.spike_times).agrees.all()
    assert np.all(generated.distribution_distance <= agreement.furthest * 1.01)


def test_members_with_a_drive_vary_like_the_recording_under_any_noise(generated):
    neuron, drive = generated.neuron, generated.drive
    run = dj.simulate(
        neuron,
        generated.g,
        generated.duration,
        discard=generated.discard,
        dt=neuron.required_recipe.dt / 4,
        stimulus=drive.stimulus(jr.key(77)),
    )
    features = dj.spike_features(run.spike_times)
    target = generated.target
    np.testing.assert_allclose(features.mean_isi, float(target.mean_isi), rtol=0.3)
    np.testing.assert_allclose(features.cv, float(target.cv), rtol=0.35)
    # Without it, they fire otherwise.
    alone = dj.simulate(neuron, generated.g, generated.duration, discard=2000.0)
    agreement = agreement_with(generated.train, generated.duration - 2000.0, 0.1)
    assert not agreement.compare(alone.spike_times).agrees.any()


def test_a_report_says_what_drives_members(generated):
    words = generated.report()
    assert "or as far as its own stretches differ" in words
    assert "Their input fluctuates around" in words
    num_valid = int(generated.valid_anew.sum())
    assert f"On one more run with other noise, {num_valid} of 2 " in words


def test_drives_are_drawn_within_bounds_and_read_back():
    drawn = draw_drives(jr.key(0), 4000)
    assert np.all((drawn >= LOWEST) & (drawn <= HIGHEST))
    drive = drive_at(drawn, current=2.0)
    np.testing.assert_allclose(drive.mean, drawn[:, 0] + 2, rtol=1e-6)
    np.testing.assert_allclose(np.log(drive.slow_tau), drawn[:, 3], rtol=1e-5)
    steady = drive.slow_sigma < 0.011
    assert steady.mean() == pytest.approx(0.4, abs=0.03)


def noisy(seed, num=1500, noise=0.1):
    """Members whose two features follow their coordinates, but for noise."""
    rng = np.random.default_rng(seed)
    log_g = rng.normal(size=(num, 5)).astype(np.float32)
    slopes = rng.normal(size=(5, 2))
    misses = 0.3 * log_g @ slopes + noise * rng.normal(size=(num, 2))
    return Known(log_g, misses.astype(np.float32), np.ones(num, bool)), 0.3 * slopes


def test_what_members_miss_on_average_is_known_better_than_what_one_missed():
    known, slopes = noisy(0)
    true = known.log_g[:200] @ slopes
    expected = expected_misses(known, known.log_g[:200])
    own = np.sqrt(np.mean((known.misses[:200] - true) ** 2))
    assert np.sqrt(np.mean((expected - true) ** 2)) < 0.5 * own


def test_children_of_noisy_members_come_nearer_than_those_of_lucky_ones():
    known, slopes = noisy(1)
    bounds = np.array([[-5.0] * 5, [5.0] * 5], np.float32)
    spread = np.float32(0.3)

    def off(is_noisy):
        born = corrected_children(
            jr.key(0), known.padded(), bounds, spread, 256, is_noisy=is_noisy
        )
        return np.sqrt(np.mean((np.asarray(born) @ slopes) ** 2))

    assert off(True) < 0.8 * off(False)
