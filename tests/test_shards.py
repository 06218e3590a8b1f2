import dataclasses
import json

import jax.random as jr
import numpy as np
import pytest

from dicjax.inference.dataset import COLUMNS, Dataset, Source
from dicjax.inference.dataset_store import (
    load_dataset,
    neuron_hash,
    Shards,
    simulate_dataset,
)
from dicjax.neurons.models import stg, stg_prinz


SOURCES = (Source("box", 40), Source("box", 24, sigma=3.0))


@pytest.fixture(scope="module")
def neuron():
    short = dataclasses.replace(
        stg().required_recipe, duration=700.0, discard=200.0, dt=0.1
    )
    return dataclasses.replace(stg(), recipe=short)


def _shard(num, seed=0):
    rng = np.random.default_rng(seed)
    times = np.full((num, 9), np.inf, np.float32)
    for i, row in enumerate(times):
        row[: i % 9] = np.cumsum(rng.uniform(1, 50, i % 9))
    return Dataset(
        g=rng.uniform(size=(num, 8)).astype(np.float32),
        dics=rng.normal(size=(num, 3)).astype(np.float32),
        V_th=np.where(np.arange(num) % 3, -50.0, np.nan).astype(np.float32),
        sigma=np.zeros(num, np.float32),
        sampler=np.zeros(num, np.int8),
        spike_times=times,
        num_left_out={"diverged": 2},
    )


def _same(a, b):
    for name in COLUMNS[:-1]:
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
    width = min(a.spike_times.shape[1], b.spike_times.shape[1])
    assert np.array_equal(a.spike_times[:, :width], b.spike_times[:, :width])
    assert not np.isfinite(a.spike_times[:, width:]).any()
    assert not np.isfinite(b.spike_times[:, width:]).any()
    assert a.num_left_out == b.num_left_out


@pytest.mark.parametrize("num", [0, 1, 20])
def test_a_shard_comes_back_from_disk(tmp_path, num):
    shards = Shards(tmp_path, stg(), SOURCES, 0)
    shards.save(1, 64, _shard(num))
    back = shards.load(1, 64)
    assert back is not None
    _same(back, _shard(num))
    assert shards.load(1, 0) is None
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_or_foreign_shard_is_made_again(tmp_path):
    shards = Shards(tmp_path / "a", stg(), SOURCES, 0)
    shards.save(0, 0, _shard(20))
    (path,) = (tmp_path / "a").glob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert shards.load(0, 0) is None
    path.write_bytes(whole)
    assert shards.load(0, 0) is not None
    other = Shards(tmp_path / "b", stg(), SOURCES, 1)
    (tmp_path / "b" / path.name).write_bytes(whole)
    assert other.load(0, 0) is None


def test_a_folder_of_another_plan_is_refused(tmp_path):
    Shards(tmp_path, stg(), SOURCES, 0)
    Shards(tmp_path, stg(), SOURCES, 0)
    with pytest.raises(ValueError, match="another plan .other seed."):
        Shards(tmp_path, stg(), SOURCES, 1)
    with pytest.raises(ValueError, match="other model, neuron_hash"):
        Shards(tmp_path, stg_prinz(), SOURCES, 0)


def test_simulation_goes_on_where_it_was_stopped(neuron, tmp_path):
    whole = simulate_dataset(neuron, SOURCES, seed=3, folder=tmp_path / "whole")

    def stop(done, total):
        if done > 40:  # in the second source
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(
            neuron, SOURCES, seed=3, folder=tmp_path / "part", on_progress=stop
        )
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").glob("*.p*t")}
    assert len(done) == 1
    again = simulate_dataset(neuron, SOURCES, seed=3, folder=tmp_path / "part")
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    _same(again, whole)
    _same(load_dataset(tmp_path / "part", neuron), whole)


def test_data_of_another_neuron_are_refused(neuron, tmp_path):
    shards = Shards(tmp_path, neuron, SOURCES, 0)
    with pytest.raises(ValueError, match="holds no simulated data"):
        load_dataset(tmp_path, neuron)
    shards.save(0, 0, _shard(3))
    with pytest.raises(ValueError, match="not of stg as it is declared now"):
        load_dataset(tmp_path, stg())
    with pytest.raises(ValueError, match="not a folder of simulated data"):
        load_dataset(tmp_path / "nowhere", neuron)


def test_a_plan_says_what_was_simulated(tmp_path):
    Shards(tmp_path, stg(), SOURCES, 5)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["model"] == "stg"
    assert plan["seed"] == 5
    assert plan["sources"][1] == {"sampler": "box", "num": 24, "sigma": 3.0}


def test_neurons_that_differ_in_a_number_have_other_hashes(neuron):
    assert neuron_hash(stg()) == neuron_hash(stg())
    assert len({neuron_hash(n) for n in (stg(), neuron, stg_prinz())}) == 3
    assert jr.key(0).shape == ()
