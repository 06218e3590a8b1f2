import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dicjax.dics.conductances import dynamic_input_conductances, threshold
from dicjax.inference.dataset import (
    COLUMNS,
    Dataset,
    default_sources,
    joined,
    make_dataset,
    rarity,
    SAMPLERS,
    Source,
    test_sources as sources_of_tests,
)
from dicjax.neurons.models import da, stg, stg_prinz
from dicjax.spikes.features import spike_features


SOURCES = (
    Source("box", 48),
    Source("rare", 48),
    Source("box", 48, sigma=3.0),
    Source("gamma", 48),
)


@pytest.fixture(scope="module")
def neuron():
    short = dataclasses.replace(
        stg().required_recipe, duration=1200.0, discard=200.0, dt=0.1
    )
    return dataclasses.replace(stg(), recipe=short)


@pytest.fixture(scope="module")
def dataset(neuron):
    return make_dataset(jr.key(0), neuron, SOURCES)


@pytest.mark.parametrize("make", [stg, stg_prinz, da])
def test_default_sources_add_up_and_a_third_is_noisy(make):
    sources = default_sources(make(), 300_000)
    assert abs(sum(source.num for source in sources) - 300_000) < 10
    noisy = sum(source.num for source in sources if source.sigma)
    assert abs(noisy - 100_000) < 10
    assert sources[0].sampler != "rare"


def test_tests_are_drawn_as_the_recipe_says_and_from_the_box():
    names = [(s.sampler, s.num, s.sigma) for s in sources_of_tests(stg(), 100)]
    assert names == [
        ("recipe", 100, 0.0),
        ("recipe", 50, 3.0),
        ("recipe", 50, 5.0),
        ("box", 50, 0.0),
    ]
    assert [s.sampler for s in sources_of_tests(stg_prinz(), 100)] == ["box"] * 3


@pytest.mark.slow
def test_members_carry_the_dics_and_thresholds_of_their_conductances(neuron, dataset):
    dics = dynamic_input_conductances(neuron, dataset.g, neuron.V_ref)
    assert np.allclose(dics, dataset.dics, rtol=1e-3, atol=1e-3)
    assert np.allclose(
        threshold(neuron, dataset.g).V, dataset.V_th, atol=0.02, equal_nan=True
    )
    low, high = np.transpose((neuron.required_recipe.g_s, neuron.required_recipe.g_u))
    slow = dataset.dics[:, 1:]
    assert np.all((slow >= low - 1e-3) & (slow <= high + 1e-3))
    assert set(np.unique(dataset.sigma)) == {0.0, 3.0}
    assert set(dataset.sampler) == {SAMPLERS.index(x) for x in ("box", "rare", "gamma")}


def test_what_is_left_out_is_counted(neuron, dataset):
    asked = sum(source.num for source in SOURCES)
    assert len(dataset) + sum(dataset.num_left_out.values()) == asked
    assert set(dataset.num_left_out) <= {
        "outside the range of DICs",
        "diverged",
        "overflowed",
    }
    crowded = dataclasses.replace(neuron.required_recipe, g_s=(-1.0, 1.0))
    few = make_dataset(
        jr.key(0), dataclasses.replace(neuron, recipe=crowded), (Source("box", 48),)
    )
    assert few.num_left_out["outside the range of DICs"] == 48 - len(few) > 0


@pytest.mark.slow
def test_the_size_of_shards_changes_nothing(neuron, dataset):
    other = make_dataset(jr.key(0), neuron, SOURCES, shard_size=32)
    for name in COLUMNS[:-1]:
        assert np.array_equal(
            getattr(other, name), getattr(dataset, name), equal_nan=True
        )
    known = np.isfinite(dataset.spike_times)
    assert np.array_equal(known, np.isfinite(other.spike_times))
    # Beyond round-off, which differs with the number of lanes.
    assert np.allclose(other.spike_times[known], dataset.spike_times[known], atol=0.5)
    assert np.mean(other.spike_times[known] == dataset.spike_times[known]) > 0.9


def _regular(interval, num=100):
    return interval * np.arange(1, num + 1)


def _members(trains):
    num = len(trains)
    return Dataset(
        g=np.ones((num, 8)),
        dics=np.zeros((num, 3)),
        V_th=np.zeros(num),
        sigma=np.zeros(num),
        sampler=np.zeros(num, np.int8),
        spike_times=np.stack(trains),
    )


@pytest.mark.parametrize(("num", "room"), [(0, 10), (1, 1), (7, 40), (2100, 300)])
def test_spike_features_are_those_of_each_whoever_is_beside(num, room):
    rng = np.random.default_rng(room)
    trains = np.sort(rng.uniform(0, 1e4, (num, room)), axis=1)
    num_spikes = rng.integers(0, room + 1, num)
    trains[np.arange(room) >= num_spikes[:, None]] = np.inf
    found = jax.tree.map(np.asarray, spike_features(trains))
    assert found.num_spikes.tolist() == num_spikes.tolist()
    if num:
        expected = jax.tree.leaves(spike_features(jnp.asarray(trains)))
        for one, other in zip(jax.tree.leaves(found), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)
        some = slice(num // 3, num // 3 + 5)
        alone = jax.tree.leaves(spike_features(trains[some]))
        for one, other in zip(jax.tree.leaves(found), alone, strict=True):
            np.testing.assert_array_equal(one[some], other)


def test_rare_activity_weighs_more():
    members = _members([_regular(50.0)] * 30 + [_regular(400.0)])
    weights = rarity(members)
    assert np.isclose(weights.sum(), 1)
    assert np.isclose(weights[-1], weights[:-1].sum())


def test_members_that_are_all_silent_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="give it a `current`"):
        rarity(_members([np.full(20, np.inf)] * 3))


def test_joined_parts_keep_their_rows_and_their_counts():
    a, b = _members([_regular(50.0, 30)]), _members([_regular(70.0, 60)] * 2)
    a = dataclasses.replace(a, num_left_out={"diverged": 1})
    b = dataclasses.replace(b, num_left_out={"diverged": 2, "overflowed": 4})
    both = joined([a, b])
    assert both.spike_times.shape == (3, 60)
    assert np.isinf(both.spike_times[0, 30:]).all()
    assert both.num_left_out == {"diverged": 3, "overflowed": 4}
