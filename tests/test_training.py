import dataclasses
import json

import jax
import numpy as np
import pytest

from dicjax.inference.calibration import calibrate, evaluate, HeldOut, plain_calibration
from dicjax.inference.config import EncoderConfig, TrainingConfig
from dicjax.inference.dataset import Dataset, joined, SAMPLERS
from dicjax.inference.encoder import PRIORS
from dicjax.inference.posterior import posterior_of, read_trains
from dicjax.inference.training import batch_of, learnable, new_encoder, train_encoder
from dicjax.spikes.patterns import LABELS


CONFIG = EncoderConfig(
    width=16, radius=2, num_slots=2, latent=8, hidden=32, num_components=3
)
RANGES = ((-1.0, 1.0), (-1.0, 1.0))
# One length of stretches: for every other one, another program is compiled.
BRIEF = TrainingConfig(crops=(24,), crop_shares=(1.0,))
SHORT = dataclasses.replace(BRIEF, num_steps=30, batch_size=16, save_every=10)


def toy(num, seed, sampler="recipe"):
    # g_s is the logarithm of the interval and g_u is noise: what can be learned is
    # known, and so is what cannot. Only the prior tells the sign of g_u.
    rng = np.random.default_rng(seed)
    dics = rng.uniform(-1, 1, (num, 3)).astype(np.float32)
    if sampler == "box":
        dics[:, 2] = -1 + 0.2 * dics[:, 2]
    steps = np.arange(1, 41)
    times = 100 * np.exp(dics[:, 1:2]) * steps
    return Dataset(
        g=np.ones((num, 8), np.float32),
        dics=dics,
        V_th=np.where(np.arange(num) % 4, -50 + dics[:, 1], np.nan).astype(np.float32),
        sigma=np.zeros(num, np.float32),
        sampler=np.full(num, SAMPLERS.index(sampler), np.int8),
        spike_times=times.astype(np.float32),
    )


def _train(training, folder=None, data=None, **kwargs):
    known = batch_of(learnable(toy(2000, 0) if data is None else data))
    encoder = new_encoder(known, *RANGES, CONFIG, training.seed)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        return train_encoder(encoder, known, training, folder=folder, **kwargs)


def _rows(data):
    return [row for row in data.spike_times], data.dics[:, 1:]


def test_training_learns_what_trains_tell_and_is_unsure_of_the_rest():
    training = dataclasses.replace(
        BRIEF, num_steps=400, batch_size=64, learning_rate=5e-3
    )
    trained = _train(training)
    assert trained.losses[-50:].mean() < trained.losses[:50].mean() - 0.5
    encoder = trained.encoder
    trains, dics = _rows(toy(1000, 1))
    labels = np.full(len(dics), LABELS.index("tonic"))
    calibration = calibrate(encoder, {"any": HeldOut(trains, dics, labels)}, trains)
    trains, dics = _rows(toy(1000, 2))
    table = evaluate(encoder, calibration, trains, dics, labels)["tonic"]
    assert table["num"] == 1000
    assert table["mae_g_s"] < 0.15
    # Half of the mean distance between a point and the middle of its range.
    assert 0.4 < table["mae_g_u"] < 0.6
    assert table["width_90_g_u"] > 1.4
    for level in (50, 80, 90, 95):
        assert abs(table[f"coverage_{level}"] - level / 100) < 0.05
    assert table["label"] > 0.95
    assert table["flagged"] < 0.1


def test_the_prior_asked_for_is_the_one_that_answers():
    data = joined([toy(1000, 0), toy(1000, 1, "box")])
    training = dataclasses.replace(
        BRIEF, num_steps=300, batch_size=64, learning_rate=5e-3
    )
    encoder = _train(training, data=data).encoder
    trains, _ = _rows(toy(100, 2))
    labels = np.full(100, LABELS.index("tonic"))
    medians = {}
    for prior in PRIORS:
        ranks = plain_calibration().ranks_of(prior, labels)
        posterior = posterior_of(encoder, read_trains(encoder, trains, prior), ranks)
        medians[prior] = np.mean(np.asarray(posterior.median)[:, 1])
    # Of uniform numbers, of those around the lower end, and of half of each.
    assert abs(medians["recipe"]) < 0.25
    assert medians["box"] < -0.75
    assert medians["box"] + 0.1 < medians["any"] < medians["recipe"] - 0.1


def test_a_rare_pattern_takes_its_calibration_from_the_widest_prior():
    encoder = new_encoder(batch_of(toy(400, 0)), *RANGES, CONFIG, 0)
    trains, dics = _rows(toy(600, 1))
    labels = np.repeat([LABELS.index("tonic"), LABELS.index("bursting")], 300)
    few = HeldOut(trains[:310], dics[:310], labels[:310].copy())
    few.labels[290:] = LABELS.index("bursting")
    calibration = calibrate(
        encoder, {"any": HeldOut(trains, dics, labels), "recipe": few}, trains
    )
    one, other = (PRIORS.index(name) for name in ("recipe", "any"))
    tonic, bursting = (LABELS.index(name) for name in ("tonic", "bursting"))
    ranks = calibration.ranks
    assert not np.array_equal(ranks[one, tonic], ranks[other, tonic])
    assert np.array_equal(ranks[one, bursting], ranks[other, bursting])
    assert np.array_equal(ranks[PRIORS.index("box")], ranks[other])


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    whole = _train(SHORT, tmp_path / "whole")

    def kill(stage, step, total):
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(SHORT, tmp_path / "run", on_progress=kill)
    steps = []
    again = _train(
        SHORT,
        tmp_path / "run",
        on_progress=lambda stage, step, total: steps.append(step),
    )
    assert steps[0] == 11
    assert np.array_equal(again.losses, whole.losses)
    assert np.array_equal(again.validation, whole.validation)
    for x, y in zip(
        jax.tree.leaves(again.encoder), jax.tree.leaves(whole.encoder), strict=True
    ):
        assert np.array_equal(x, y)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30]


def test_the_state_of_another_run_is_refused(tmp_path):
    _train(SHORT, tmp_path)
    with pytest.raises(ValueError, match="state of another training"):
        _train(dataclasses.replace(SHORT, num_steps=20), tmp_path)


def test_validation_members_are_never_learned_from():
    # Members kept apart hold nan: one of them in a batch would spoil the loss.
    known = batch_of(toy(400, 0))
    slow = np.array(known.slow)
    slow[::20] = np.nan
    spoiled = dataclasses.replace(known, slow=slow)
    encoder = new_encoder(known, *RANGES, CONFIG, 0)
    with jax.numpy_dtype_promotion("standard"):
        trained = train_encoder(encoder, spoiled, SHORT)
    assert np.isfinite(trained.losses).all()
