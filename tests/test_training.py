import dataclasses
import json

import jax
import numpy as np
import pytest

from dicjax.inference.calibration import calibrate, evaluate, plain_calibration
from dicjax.inference.config import EncoderConfig, TrainingConfig
from dicjax.inference.dataset import batch_of, Dataset, joined, SAMPLERS
from dicjax.inference.encoder import PRIORS
from dicjax.inference.posterior import posterior_of, read_trains
from dicjax.inference.training import new_encoder, train_encoder
from dicjax.spikes.patterns import BURSTING, TONIC


CONFIG = EncoderConfig(
    width=16, radius=2, num_slots=2, latent=8, hidden=32, num_components=3
)
RANGES = ((-1.0, 1.0), (-1.0, 1.0))
# One length of stretches and one configuration: another program is compiled for others.
LEARN = TrainingConfig(
    num_steps=200,
    batch_size=64,
    learning_rate=5e-3,
    crops=(24,),
    crop_shares=(1.0,),
    save_every=50,
)


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


@pytest.fixture(scope="module")
def known():
    """Members of two priors."""
    return batch_of(joined([toy(1000, 0), toy(1000, 1, "box")]))


def train(known, training=LEARN, **kwargs):
    encoder = new_encoder(known, *RANGES, CONFIG, training.seed)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        return train_encoder(encoder, known, training, **kwargs)


@pytest.fixture(scope="module")
def trained(known):
    return train(known)


@pytest.mark.slow
def test_training_learns_what_trains_tell_and_is_unsure_of_the_rest(trained):
    assert trained.losses[-50:].mean() < trained.losses[:50].mean() - 0.5
    encoder = trained.encoder
    held_out = batch_of(toy(500, 2))
    drawn = {"any": held_out, "recipe": held_out}
    calibration = calibrate(encoder, drawn, held_out.spike_times)
    table = evaluate(encoder, calibration, batch_of(toy(500, 3)), "recipe")["tonic"]
    assert table["num"] == 500
    assert table["mae_g_s"] < 0.15
    # Half of the mean distance between a point and the middle of its range.
    assert 0.4 < table["mae_g_u"] < 0.6
    assert table["width_90_g_u"] > 1.4
    for level in (50, 80, 90, 95):
        assert abs(table[f"coverage_{level}"] - level / 100) < 0.07
    assert table["label"] > 0.95
    assert table["flagged"] < 0.1


@pytest.mark.slow
def test_the_prior_asked_for_is_the_one_that_answers(trained):
    encoder = trained.encoder
    trains = list(toy(64, 2).spike_times)
    labels = np.full(64, TONIC)
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
    members = batch_of(toy(500, 1))
    labels = np.repeat([TONIC, BURSTING], 250).astype(np.int32)
    everyone = dataclasses.replace(members, labels=labels)
    few = everyone[np.arange(260)]
    calibration = calibrate(
        encoder, {"any": everyone, "recipe": few}, members.spike_times[:64]
    )
    one, other = (PRIORS.index(name) for name in ("recipe", "any"))
    ranks = calibration.ranks
    assert not np.array_equal(ranks[one, TONIC], ranks[other, TONIC])
    assert np.array_equal(ranks[one, BURSTING], ranks[other, BURSTING])
    assert np.array_equal(ranks[PRIORS.index("box")], ranks[other])


def stop_at(last, losses):
    """A callback that notes losses and stops a training after some step."""

    def note(stage, step, total):
        losses[step] = stage.loss
        if step == last:
            raise KeyboardInterrupt

    return note


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(known, trained, tmp_path):
    losses = {}
    with pytest.raises(KeyboardInterrupt):
        train(known, folder=tmp_path, on_progress=stop_at(70, losses))
    losses.clear()
    again = train(known, folder=tmp_path, on_progress=stop_at(None, losses))
    assert min(losses) == 51
    assert np.array_equal(again.losses, trained.losses)
    assert np.array_equal(again.validation, trained.validation)
    for x, y in zip(
        jax.tree.leaves(again.encoder), jax.tree.leaves(trained.encoder), strict=True
    ):
        assert np.array_equal(x, y)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(50, 201, 50))
    with pytest.raises(ValueError, match=tmp_path.name):
        train(known, dataclasses.replace(LEARN, num_steps=20), folder=tmp_path)


@pytest.mark.parametrize("first, apart", [(0, True), (1, False)])
def test_every_twentieth_member_is_never_learned_from(known, first, apart):
    # Features so far off that one of them in a batch makes the loss infinite.
    features = np.array(known.features)
    features[first::20] = 1e38
    losses = {}
    with pytest.raises(KeyboardInterrupt):
        spoiled = dataclasses.replace(known, features=features)
        train(spoiled, on_progress=stop_at(20, losses))
    assert len(losses) == 20
    assert np.isfinite(list(losses.values())).all() == apart
