import itertools
import json
import os
import pathlib
import re
import shutil

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import dicjax as dj
from dicjax._core.store import Busy
from dicjax.inference import find_neuron
from dicjax.inference.dataset import COLUMNS, default_sources, make_dataset
from dicjax.inference.dataset_store import to_table
from dicjax.operator.families import find_family
from dicjax.operator.train import characterise_members
from dicjax.sweeps import (
    read_config,
    read_sweep,
    run_sweep,
    standing,
    swept_dataset,
    swept_library,
)
from dicjax.sweeps.batches import Batches
from dicjax.sweeps.config import SimulateJob
from dicjax.sweeps.inputs import read_inputs
from dicjax.sweeps.plan import make_plan, read_plan
from dicjax.sweeps.simulating import members_per_part, Simulating
from dicjax.sweeps.tasks import work_through


EXAMPLE = pathlib.Path(__file__).parents[1] / "examples/slow_burster.csv"
SIMULATE = """
job = "simulate"
model = "stg"
seed = 3
shard = 24
save = ["dics", "spikes"]

[members]
sampler = "box"
num = 60

[simulation]
duration = 300
discard = 100
noise = 0.5
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="sweep.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    (folder / "sweep.toml").write_text(SIMULATE)
    out = folder / "out"
    run_sweep(read_config(folder / "sweep.toml"), out)
    return out


def contents(out):
    return {path.name: path.read_bytes() for path in (out / "parts").iterdir()}


def rows(out, name="member"):
    return read_sweep(out).to_table().sort_by(name)


def test_a_sweep_holds_what_simulate_gives(swept):
    table = rows(swept)
    assert table["member"].to_pylist() == list(range(60))
    neuron = dj.stg()
    g = np.stack([table[f"g_{x}"].to_numpy() for x in neuron.channel_names], axis=1)
    config = read_plan(swept).config
    assert isinstance(config, SimulateJob)
    key, noise_key = jax.random.split(jax.random.key(3))
    drawn = np.asarray(dj.sample(key, neuron, 60), np.float32)
    np.testing.assert_array_equal(g, drawn)
    noise = dj.NoisyCurrent(noise_key, 0.5, 0.0)
    dt = neuron.required_recipe.dt
    run = dj.simulate(neuron, g, 300.0, discard=100.0, dt=dt, stimulus=noise)
    assert table["num_spikes"].to_pylist() == run.num_spikes.tolist()
    fired = [x[np.isfinite(x)].tolist() for x in run.spike_times]
    assert table["spike_times"].to_pylist() == fired
    features = dj.spike_features(run.spike_times)
    rates = np.asarray(features.rate, np.float32)
    np.testing.assert_allclose(
        table["rate"].to_numpy(zero_copy_only=False), rates, rtol=1e-5
    )
    dics = np.asarray(dj.dynamic_input_conductances(neuron, g, neuron.V_ref))
    np.testing.assert_allclose(table["g_s"].to_numpy(), dics[:, 1], rtol=1e-4)


def test_neither_parts_nor_shares_change_a_member(swept, write):
    text = SIMULATE.replace("shard = 24", "shard = 30")
    config = read_config(write(text))
    other = write(text).parent / "other"
    for i in (1, 0):
        found = run_sweep(config, other, share=(i, 2))
        assert found.is_complete == (i == 0)
    assert rows(other).equals(rows(swept))


def test_neither_batches_nor_company_change_a_part(swept):
    plan = read_plan(swept)
    assert isinstance(plan.job, Simulating)
    plan.job.batches.largest = 16  # parts are computed together, in batches across them
    finishes = plan.job.compute(plan.spans, None)
    for i, finish in enumerate(finishes):
        table, counts = finish()
        assert table.equals(pq.read_table(plan.store.path(i)))
        assert counts["members"] == len(table)


def test_what_is_done_is_left_alone_and_what_is_missing_comes_back(swept, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    before = contents(out)
    (out / "parts/part-000001.parquet").unlink()
    kept = (out / "parts/part-000000.parquet").stat().st_mtime_ns
    assert standing(out).done == 2
    found = run_sweep(read_plan(out).config, out)
    assert found.is_complete and contents(out) == before
    assert (out / "parts/part-000000.parquet").stat().st_mtime_ns == kept


@pytest.mark.parametrize("damage", ["cut", "bit", "foreign", "other", "empty", "lines"])
def test_a_damaged_part_is_made_again(swept, tmp_path, damage):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    before = contents(out)
    path = out / "parts/part-000001.parquet"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-9])
    elif damage == "bit":
        path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    elif damage == "foreign":
        pq.write_table(pa.table({"member": [1, 2, 3]}), path)
    elif damage == "other":
        path.write_bytes(before["part-000000.parquet"])
    elif damage == "lines":
        (lines,) = (out / "manifest").iterdir()
        lines.write_bytes(lines.read_bytes()[:-99])
    else:
        path.write_bytes(b"")
    assert not standing(out, check=True).is_complete
    run_sweep(read_plan(out).config, out)
    assert contents(out) == before


def test_memory_that_runs_out_halves_the_batch():
    sizes = []

    def short(first, num):
        sizes.append(num)
        if num > 5:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return list(range(first, first + num))

    assert sum(Batches(24).run(short, 50), []) == list(range(50))
    assert sizes[:4] == [24, 12, 6, 3] and max(sizes[4:]) <= 3


@pytest.mark.parametrize("error", (ValueError, MemoryError))
def test_what_smaller_batches_cannot_mend_is_raised(error):
    def failing(first, num):
        raise error

    with pytest.raises(error):
        Batches(4).run(failing, 8)


class Failing:
    """A job that fails for several parts together, and for the last part alone."""

    at_once = 3

    def __init__(self, job):
        self.job, self.stages, self.shard = job, job.stages, job.shard
        self.calls = []

    def compute(self, spans, on_progress):
        self.calls.append(len(spans))
        if len(spans) > 1 or spans[0].first == 48:
            raise RuntimeError("a device fell off the bus\nand more")
        return self.job.compute(spans, on_progress)


def test_parts_that_fail_together_are_computed_alone(swept, tmp_path):
    plan = make_plan(read_plan(swept).config, tmp_path / "out")
    job = Failing(plan.job)
    outcomes = dict(work_through(plan, job, [range(3)]))
    assert job.calls == [3, 1, 1, 1]
    assert outcomes[2] == "RuntimeError: a device fell off the bus"
    assert contents(plan.folder).items() < contents(swept).items()
    assert run_sweep(plan.config, plan.folder).is_complete
    assert contents(plan.folder) == contents(swept)


def test_parts_that_fail_are_tried_again_and_reported_and_the_rest_is_done(
    swept, tmp_path
):
    out = tmp_path / "out"
    plan = make_plan(read_plan(swept).config, out)
    plan.store.path(2).mkdir(parents=True)  # where a file should be
    found = run_sweep(plan.config, out, retries=1)
    assert [row["shard"] for row in plan.store.rows() if "error" in row] == [2, 2]
    assert (found.done, found.num_parts, list(found.failed)) == (2, 3, [2])
    assert f"part 2 failed: {found.failed[2]}" in str(found)


class Lost:
    """Workers that die one after the other."""

    num_workers = 1
    num_lost = 0

    def run(self, folder, groups, on_progress):
        for shard in itertools.chain(*groups):
            self.num_lost += 1
            yield shard, "its worker was lost"


def test_a_sweep_that_only_fails_gives_up(write):
    path = write(SIMULATE.replace("shard = 24", "shard = 1"))
    workers = Lost()
    found = run_sweep(read_config(path), path.parent / "out", executor=workers)
    assert workers.num_lost == 10 and found.done == 0


def test_two_at_once_are_refused_but_for_other_shares(write):
    path = write(SIMULATE)
    out = path.parent / "out"
    config = read_config(path)
    store = make_plan(config, out).store
    with store.locked():
        for share in (None, (0, 2)):
            with pytest.raises(Busy, match=str(os.getpid())):
                run_sweep(config, out, share=share)
    with store.locked((0, 2)):
        for share in (None, (0, 2)):
            with pytest.raises(Busy):
                run_sweep(config, out, share=share)
        run_sweep(config, out, share=(1, 2))
    assert run_sweep(config, out).is_complete


def test_a_folder_of_another_sweep_or_of_something_else_is_refused(
    swept, write, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    config = read_config(write(SIMULATE.replace("num = 60", "num = 59")))
    with pytest.raises(ValueError, match=r"members\.num"):
        run_sweep(config, out)
    plan = json.loads((out / "sweep.json").read_text())
    plan["versions"]["jax"] = "0.0.1"
    (out / "sweep.json").write_text(json.dumps(plan))
    config = read_plan(out).config
    with pytest.raises(ValueError, match=r"jax 0\.0\.1"):
        run_sweep(config, out)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="photos"):
        run_sweep(config, tmp_path / "photos")
    with pytest.raises(ValueError, match=r"sweep\.json"):
        standing(tmp_path)


def test_a_finished_sweep_is_extended_by_what_is_new(swept, write, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    shutil.copytree(swept, out)
    kept = (out / "parts/part-000000.parquet").stat().st_mtime_ns
    config = read_config(write(SIMULATE.replace("num = 60", "num = 75")))
    assert run_sweep(config, out).done_units == 75
    assert (out / "parts/part-000000.parquet").stat().st_mtime_ns == kept
    run_sweep(config, whole)
    assert rows(out).equals(rows(whole))
    before = contents(out)
    assert run_sweep(config, out).is_complete and contents(out) == before
    (tmp_path / "out/parts/part-000002.parquet").unlink()
    assert run_sweep(config, out).is_complete and contents(out) == before


def test_a_part_that_lacks_new_units_counts_as_missing(swept, write, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    config = read_config(write(SIMULATE.replace("num = 60", "num = 70")))
    plan = make_plan(config, out)
    assert [*plan.done(range(3))] == [0, 1]
    with pytest.raises(ValueError, match="1 of 3 parts"):
        plan.rows(range(3))


def test_a_table_that_grew_extends_its_sweep_and_another_is_refused(
    swept, write, tmp_path
):
    table, out = rows(swept), tmp_path / "out"
    names = [f"g_{x}" for x in dj.stg().channel_names]
    text = SIMULATE.replace('sampler = "box"\nnum = 60', 'table = "models.parquet"')

    def run(some):
        pq.write_table(some.select(names), tmp_path / "models.parquet")
        return run_sweep(read_config(write(text)), out)

    assert run(table.slice(0, 30)).done_units == 30
    assert run(table).done_units == 60
    assert rows(out).equals(rows(swept))
    with pytest.raises(ValueError, match="inputs differ"):
        run(table.slice(1))


def test_new_recordings_and_tolerances_come_after_the_targets_that_were_there(
    write, tmp_path
):
    def targets(*names, tolerances):
        for name in names:
            shutil.copyfile(EXAMPLE, tmp_path / name)
        section = f"recordings = {[*names]}\ntolerances = {tolerances}"
        text = f'job = "generate"\n[targets]\nmodels = ["stg"]\n{section}'
        plan = make_plan(read_config(write(text)), tmp_path / "out")
        table = pq.read_table(plan.inputs["targets"])
        return [(x["recording"], x["tolerance"]) for x in table.to_pylist()]

    before = targets("b.csv", tolerances=[0.1])
    grown = targets("a.csv", "b.csv", tolerances=[0.05, 0.1])
    assert grown[:1] == before == [("b.csv", 0.1)]
    assert {*grown[1:]} == {("a.csv", 0.1), ("a.csv", 0.05), ("b.csv", 0.05)}
    assert targets("a.csv", "b.csv", tolerances=[0.05, 0.1]) == grown
    with pytest.raises(ValueError, match="differ"):
        targets("a.csv", tolerances=[0.1])


def test_only_the_window_of_recordings_has_to_be_sound(write, tmp_path):
    def targets(**trains):
        lines = [f"{unit},{t}" for unit, times in trains.items() for t in times]
        (tmp_path / "cell.csv").write_text("\n".join(["unit,time_ms", *lines]))
        text = 'job = "generate"\n[targets]\nmodels = ["stg"]\nwindow = [0, 20000]\n'
        config = read_config(write(text + 'recordings = ["cell.csv"]'))
        return read_inputs(config)["targets"].to_pylist()

    times = np.arange(1, 301) * 90.0
    (cell,) = targets(a=[*times, 5e4, 4e4])
    assert cell["spike_times"] == times[times <= 2e4].tolist()
    with pytest.warns(UserWarning, match="Left out.*Nothing was recorded from 0"):
        first, second = targets(a=times, b=times + 3e4)
    assert first["spike_times"] == cell["spike_times"]
    assert (second["unit_id"], second["spike_times"]) == ("b", None)
    bad = [*times, 5e4, 4e4]  # only outside of the window
    with pytest.warns(UserWarning, match="Left out.*unit [bc]"):
        first, second, third = targets(a=bad, b=times + 3e4, c=times[::-1])
    assert first["spike_times"] == cell["spike_times"]
    assert "Nothing was recorded" in second["refused"]
    assert "out of order" in third["refused"]


@pytest.mark.parametrize(
    "text, grows",
    (
        ('job = "operator"\nfamily = "stg"\nnum = 2048', True),
        ('job = "operator"\nfamily = "stg"\nnum = 2000', True),
        ('job = "operator"\nfamily = "stg"\nshard = 500\nnum = 2000', False),
        ('job = "dataset"\nmodel = "stg"\nnum = 2000', False),
    ),
)
def test_a_sweep_grows_only_where_its_parts_stay_the_same(write, tmp_path, text, grows):
    make_plan(read_config(write(text)), tmp_path / "out")
    config = read_config(write(re.sub("num = .*", "num = 3000", text)))
    if grows:
        assert make_plan(config, tmp_path / "out").num_units == 3000
    else:
        with pytest.raises(ValueError, match="num"):
            make_plan(config, tmp_path / "out")


def test_a_stranger_among_the_parts_is_named(swept, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    pq.write_table(pa.table({"member": [1]}), out / "parts/part-000099.parquet")
    with pytest.raises(ValueError, match=r"part-000099\.parquet"):
        run_sweep(read_plan(out).config, out)


def test_members_of_a_table_are_simulated_as_they_are(swept, write, tmp_path):
    table = rows(swept)
    names = [f"g_{x}" for x in dj.stg().channel_names]
    pq.write_table(table.select(names), tmp_path / "models.parquet")
    text = SIMULATE.replace('sampler = "box"\nnum = 60', 'table = "models.parquet"')
    config = read_config(write(text))
    run_sweep(config, tmp_path / "out")
    # The same seeds too: noise goes by the number of a member.
    assert rows(tmp_path / "out").equals(table)
    (tmp_path / "models.parquet").unlink()
    shutil.rmtree(tmp_path / "out/parts")  # the sweep has a copy
    plan = read_plan(tmp_path / "out")
    list(work_through(plan, plan.job, [range(3)]))
    assert rows(tmp_path / "out").equals(table)


def test_drawn_by_the_recipe_members_have_the_input_conductances_it_asks_for(write):
    text = SIMULATE.replace('"box"', '"recipe"').replace("num = 60", "num = 30")
    path = write(text)
    run_sweep(read_config(path), path.parent / "out")
    table = rows(path.parent / "out")
    recipe = dj.stg().required_recipe
    assert 25 <= len(table) <= 30
    for name, (low, high) in (("g_s", recipe.g_s), ("g_u", recipe.g_u)):
        values = table[name].to_numpy()
        assert (values > low - 0.01).all() and (values < high + 0.01).all()


SHORT = """
import dataclasses
import dicjax as dj

base = dj.stg()
recipe = dataclasses.replace(base.required_recipe, duration=600.0, discard=200.0)
neuron = dataclasses.replace(base, recipe=recipe)
"""


@pytest.mark.slow
def test_a_dataset_is_that_of_the_function(tmp_path, write):
    short, _ = find_neuron(str(write(SHORT, "short.py")))
    path = write('job = "dataset"\nmodel = "short.py"\nnum = 48\nseed = 5\nshard = 8')
    found = run_sweep(read_config(path), tmp_path / "out")
    assert found.is_complete
    sources = default_sources(short, 48)
    made = make_dataset(jax.random.key(5), short, sources, shard_size=8)
    expected = to_table(made, short.channel_names)
    got = read_sweep(tmp_path / "out").to_table()
    assert got["spike_times"].to_pylist() == expected["spike_times"].to_pylist()
    for name in set(got.column_names) - {"spike_times"}:
        np.testing.assert_array_equal(got[name].to_numpy(), expected[name].to_numpy())
    assert found.counts["members"] == len(made)
    learned = swept_dataset(tmp_path / "out", short)
    read = learned.read()
    assert (learned.num, learned.seed) == (48, 5)
    for field in COLUMNS[:-1]:
        np.testing.assert_array_equal(getattr(read, field), getattr(made, field))
    padding = made.spike_times.shape[1] - read.spike_times.shape[1]
    padded = np.pad(read.spike_times, ((0, 0), (0, padding)), constant_values=np.inf)
    np.testing.assert_array_equal(padded, made.spike_times)
    assert read.num_left_out == made.num_left_out
    with pytest.raises(ValueError, match="short.py"):
        swept_dataset(tmp_path / "out", dj.stg())
    with pytest.raises(ValueError, match="'dataset'.*'operator'"):
        swept_library(tmp_path / "out", find_family("cortical"))
    path = tmp_path / "out/parts/part-000002.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    with pytest.raises(ValueError, match="^1 of"):
        learned.read()
    path.unlink()
    with pytest.raises(ValueError, match="^1 of"):
        swept_dataset(tmp_path / "out", short)


@pytest.mark.slow
def test_characterised_members_are_those_of_the_family(tmp_path, write):
    head = 'job = "operator"\nfamily = "cortical"\nseed = 2\n'
    run_sweep(read_config(write(head + "num = 6\nshard = 3")), tmp_path / "out")
    table = rows(tmp_path / "out")
    family = find_family("cortical")
    g = family.sample(jax.random.fold_in(jax.random.key(2), 0), 6)
    np.testing.assert_array_equal(table["g_Na"].to_numpy(), g[:, 0])
    library = characterise_members(family, 6, 2)
    assert sum(table["is_complete"].to_pylist()) == len(library.g)
    learned = swept_library(tmp_path / "out", family)
    read = learned.read()
    assert (learned.num, learned.seed) == (6, 2)
    assert read.measured.names == library.measured.names
    np.testing.assert_array_equal(read.g, library.g)
    np.testing.assert_array_equal(read.measured.values, library.measured.values)
    with pytest.raises(ValueError, match="cortical"):
        swept_library(tmp_path / "out", find_family("stg"))


@given(st.integers(1, 10**10))
@settings(deadline=None)
def test_parts_are_neither_few_nor_many(num):
    parts = -(-num // members_per_part(num))
    assert parts <= 32_768
    assert parts >= min(33, -(-num // 1024))


BAD = [
    ('job = "simulat"', "line 2: .*'simulat'.*simulate"),
    ('model = "stgg"', "line 3: model = 'stgg'"),
    ("num = 0", r"line 10: members\.num = 0"),
    ("nmu = 5", r"line 10: members\.nmu .*did you mean num"),
    ("duration = 6", r"line 13: simulation\.duration = 6"),
    ("discard = 400", "line 12: simulation: discard, 400 ms"),
    ('noise = "0.5 nA"', r"line 15: simulation\.noise = '0.5 nA'"),
    ("shard = 2.5", r"line 5: shard = 2\.5"),
    ('save = ["traces"]', "line 6: save = 'traces'"),
    ('sampler = "latin"', r"line 9: members\.sampler = 'latin'"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[x for x, _ in BAD])
def test_what_is_wrong_is_reported_with_its_line(write, line, message):
    key = line.split(" = ")[0].replace("nmu", "num")
    lines = [line if x.split(" = ")[0] == key else x for x in SIMULATE.splitlines()]
    with pytest.raises(ValueError, match=message):
        read_config(write("\n".join(lines)))


def test_files_that_are_missing_are_reported_before_anything_is_done(write, tmp_path):
    text = 'job = "generate"\n[targets]\nrecordings = ["nowhere/*.csv"]\n'
    with pytest.raises(ValueError, match=r"line 3: targets\.recordings: .*nowhere"):
        read_config(write(text))
    (tmp_path / "cell.csv").write_text("spike_time_ms\n1\n")
    text = text.replace("nowhere/*", "cell") + 'models = ["auto", "squid"]\n'
    with pytest.raises(ValueError, match=r"line 4: targets\.models = 'squid'"):
        read_config(write(text))
    text = SIMULATE.replace('sampler = "box"\nnum = 60', 'table = "no.parquet"')
    with pytest.raises(ValueError, match=r"line 9: members\.table.*no\.parquet"):
        read_config(write(text))
    with pytest.raises(ValueError, match=r"sweep\.toml"):
        read_config(write("job = simulate"))
    with pytest.raises(ValueError, match=r"none\.toml"):
        read_config(tmp_path / "none.toml")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    shutil.copy(EXAMPLE, folder / "cell.csv")
    header = "spike_time_ms\n"
    fast = header + "\n".join(f"{3.3 * i:.3f}" for i in range(1, 300))
    (folder / "fast.csv").write_text(fast)
    (folder / "short.csv").write_text(header + "1\n2\n3\n")
    (folder / "sweep.toml").write_text(
        'job = "generate"\nseed = 1\n[targets]\nrecordings = ["*.csv"]\nunit = "ms"\n'
        'tolerances = [0.2]\nmodels = ["stg-prinz"]\n[search]\nmembers = 8\n'
        "candidates_per_round = 32\n"
    )
    with pytest.warns(UserWarning, match=r"short\.csv"):
        found = run_sweep(read_config(folder / "sweep.toml"), folder / "out")
    return folder, found


@pytest.mark.slow
def test_every_recording_gets_its_population_or_the_reason_why_not(generated):
    folder, found = generated
    assert found.counts["targets"] == 3 and found.counts["refused"] == 2
    assert found.counts["complete"] == 1
    table = rows(folder / "out", "target").to_pylist()
    cell, *refused = [[x for x in table if x["target"] == i] for i in range(3)]
    assert {(x["recording"], x["tolerance"]) for x in cell} == {("cell.csv", 0.2)}
    assert sum(x["accepted"] for x in cell) == 8
    assert [x["member"] for x in cell] == list(range(8))
    assert max(x["distance"] for x in cell) <= np.log(1 / 0.8)
    assert all(x["g_Na"] > 0 for x in cell)
    reasons = ("outside what stg-prinz can do", "short.csv has too few spikes")
    for (row,), reason in zip(refused, reasons, strict=True):
        assert reason in row["refused"] and row["member"] is None


@pytest.mark.slow
def test_members_are_refined_and_tried_in_parts(generated, tmp_path):
    folder, _ = generated
    table = rows(folder / "out", "target").slice(0, 8)
    names = [f"g_{x}" for x in dj.stg_prinz().channel_names]
    g = table.select(names).to_pandas()
    moved = pd.concat([g * scale for scale in (0.97, 1.01, 1.03)])
    moved.to_parquet(tmp_path / "models.parquet")
    shutil.copy(folder / "cell.csv", tmp_path)
    common = (
        'model = "stg-prinz"\nshard = 24\n[members]\ntable = "models.parquet"\n'
        '[target]\nrecording = "cell.csv"\nunit = "ms"\n'
    )
    text = 'job = "refine"\n' + common + "[refinement]\nmax_rounds = 1\n"
    (tmp_path / "refine.toml").write_text(text)
    found = run_sweep(read_config(tmp_path / "refine.toml"), tmp_path / "refined")
    assert found.is_complete
    refined = rows(tmp_path / "refined")
    assert sum(refined["valid"].to_pylist()) >= sum(refined["valid_before"].to_pylist())
    text = 'job = "robustness"\naxes = ["step", "current"]\n' + common
    (tmp_path / "try.toml").write_text(text)
    run_sweep(read_config(tmp_path / "try.toml"), tmp_path / "tried")
    tried = rows(tmp_path / "tried")
    assert len(tried) == 24 and len(tried.column_names) == 1 + len(names) + 3 + 1
    share = tried["robustness"].to_numpy()
    assert ((share >= 0) & (share <= 1)).all()
