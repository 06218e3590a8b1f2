import dataclasses

import jax
import jax.random as jr
import numpy as np
import pytest

from dicjax.config import EncoderConfig, TrainingConfig
from dicjax.dataset import (
    Dataset,
    default_sources,
    load_dataset,
    make_dataset,
    rarity,
    save_dataset,
    Source,
)
from dicjax.dic import dynamic_input_conductances
from dicjax.models import stg, stg_prinz
from dicjax.spikes import LABELS, spike_features
from dicjax.training import evaluate, train_encoder


@pytest.fixture(scope="module")
def neuron():
    short = dataclasses.replace(
        stg().required_recipe, duration=1200.0, discard=200.0, dt=0.1
    )
    return dataclasses.replace(stg(), recipe=short)


@pytest.fixture(scope="module")
def dataset(neuron):
    sources = (Source("box", 48), Source("rare", 16), Source("box", 16, sigma=3.0))
    return make_dataset(jr.key(0), neuron, sources)


@pytest.mark.parametrize("make", [stg, stg_prinz])
def test_default_sources_add_up_and_half_are_noisy(make):
    sources = default_sources(make(), 100_000)
    assert abs(sum(source.num for source in sources) - 100_000) < 10
    noisy = sum(source.num for source in sources if source.sigma)
    assert abs(noisy - 50_000) < 10
    assert sources[0].sampler != "rare"


def test_members_carry_the_dics_of_their_conductances(neuron, dataset):
    dics = dynamic_input_conductances(neuron, dataset.g, neuron.V_ref)
    assert np.allclose(np.asarray(dics)[:, 1:], dataset.dics, atol=1e-3)
    low, high = np.transpose((neuron.required_recipe.g_s, neuron.required_recipe.g_u))
    assert np.all((dataset.dics >= low) & (dataset.dics <= high))
    assert set(np.unique(dataset.sigma)) == {0.0, 3.0}


def test_the_same_key_makes_the_same_members(neuron, dataset):
    again = make_dataset(jr.key(0), neuron, (Source("box", 48),))
    assert np.array_equal(again.g, dataset.g[: len(again)])
    fired = np.isfinite(again.spike_times)
    width = min(again.spike_times.shape[1], dataset.spike_times.shape[1])
    assert fired.any()
    assert np.array_equal(
        again.spike_times[:, :width], dataset.spike_times[: len(again), :width]
    )


def test_a_data_set_comes_back_from_disk(neuron, dataset, tmp_path):
    path = tmp_path / "members.parquet"
    save_dataset(dataset, path, neuron)
    back = load_dataset(path, neuron)
    assert np.array_equal(back.g, dataset.g)
    assert np.array_equal(back.dics, dataset.dics)
    width = back.spike_times.shape[1]
    assert np.array_equal(back.spike_times, dataset.spike_times[:, :width])
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="holds members of stg, not of stg-prinz"):
        load_dataset(path, stg_prinz())


def _regular(interval, num=100):
    return interval * np.arange(1, num + 1)


def test_rare_activity_weighs_more():
    trains = [_regular(50.0)] * 30 + [_regular(400.0)]
    members = Dataset(
        np.ones((31, 8)), np.zeros((31, 2)), np.zeros(31), np.stack(trains)
    )
    weights = rarity(members)
    assert np.isclose(weights.sum(), 1)
    assert np.isclose(weights[-1], weights[:-1].sum())


def _toy(num, seed):
    # g_s is the logarithm of the interval and g_u is noise: what can be learned is
    # known, and so is what cannot.
    rng = np.random.default_rng(seed)
    g_s, g_u = rng.uniform(-1, 1, num), rng.uniform(-1, 1, num)
    trains = np.stack([_regular(100 * np.exp(x), 40) for x in g_s])
    dics = np.stack([g_s, g_u], axis=1).astype(np.float32)
    return Dataset(
        np.ones((num, 8)), dics, np.zeros(num, np.float32), trains.astype(np.float32)
    )


def test_training_learns_what_trains_tell_and_is_unsure_of_the_rest():
    config = EncoderConfig(width=16, num_heads=2, num_blocks=1, latent=8, max_spikes=48)
    training = TrainingConfig(num_steps=300, batch_size=32, learning_rate=3e-3)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        trained = train_encoder(
            _toy(2000, 0), (-1.0, 1.0), (-1.0, 1.0), config, training
        )
    assert trained.losses[-50:].mean() < trained.losses[:50].mean() - 0.5
    test = _toy(300, 1)
    table = evaluate(trained.encoder, trained.ranks, test)["tonic"]
    assert table["num"] == 300
    assert table["mae_g_s"] < 0.2
    # Half of the mean distance between a point and the middle of its range.
    assert 0.4 < table["mae_g_u"] < 0.6
    assert abs(table["coverage_90"] - 0.9) < 0.08
    labels = np.asarray(spike_features(test.spike_times).label)
    assert set(labels) == {LABELS.index("tonic")}
