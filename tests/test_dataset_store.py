import dataclasses

import numpy as np
import pytest

from dicjax.inference.dataset import COLUMNS, Dataset, Source
from dicjax.inference.dataset_store import (
    from_table,
    neuron_hash,
    simulate_dataset,
    to_table,
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
def test_members_come_back_from_a_table(num):
    names = stg().channel_names
    shard = _shard(num)
    _same(from_table(to_table(shard, names), names, {"diverged": 2}), shard)


def test_simulation_goes_on_where_it_was_stopped(neuron, tmp_path):
    whole = simulate_dataset(neuron, SOURCES, seed=3)

    def stop(stage, done, total):
        if done > 40:  # in the second source
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(neuron, SOURCES, seed=3, folder=tmp_path, on_progress=stop)
    (first,) = tmp_path.rglob("*.parquet")
    written = first.stat().st_mtime_ns
    _same(simulate_dataset(neuron, SOURCES, seed=3, folder=tmp_path), whole)
    assert first.stat().st_mtime_ns == written
    second = first.with_name("part-000001.parquet")
    content = second.read_bytes()
    second.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    _same(simulate_dataset(neuron, SOURCES, seed=3, folder=tmp_path), whole)
    assert second.read_bytes() == content
    assert first.stat().st_mtime_ns == written


@pytest.mark.slow
def test_data_sets_whose_members_differ_are_kept_apart(neuron, tmp_path):
    few = (Source("box", 4),)
    other = dataclasses.replace(
        neuron, recipe=dataclasses.replace(neuron.required_recipe, duration=900.0)
    )
    plans = ((neuron, few, 0), (neuron, few, 1), (neuron, SOURCES[:1], 0))
    for cell, sources, seed in (*plans, (other, few, 0)):
        simulate_dataset(cell, sources, seed=seed, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_neurons_that_differ_in_a_number_have_other_hashes(neuron):
    assert neuron_hash(stg()) == neuron_hash(stg())
    assert len({neuron_hash(n) for n in (stg(), neuron, stg_prinz())}) == 3
