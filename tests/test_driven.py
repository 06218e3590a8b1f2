"""Members with a drive wherever a population goes."""

import dataclasses
import json

import jax
import numpy as np
import pyarrow as pa
import pytest
from driven import DISCARD, make_driven
from pyarrow import csv, parquet

from dicjax.output.driven import DRIVE_COLUMNS
from dicjax.output.frames import to_dataframe
from dicjax.output.population_files import read_models, write_population
from dicjax.output.saved_population import read_population
from dicjax.simulation.noise import Drive
from dicjax.simulation.simulate import simulate
from dicjax.spikes.features import spike_features
from test_tables import make_generated


@pytest.fixture(scope="module")
def driven():
    return make_driven()


@pytest.fixture
def folder(driven, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    write_population(driven, folder)
    return folder


def test_the_members_of_these_tests_fire_irregularly(driven):
    assert 2 < driven.num_accepted < len(driven.g)
    assert (driven.features.cv[driven.accepted] > 0.3).all()


@pytest.mark.parametrize("name", ("", "models.parquet", "models.csv"))
def test_a_drive_survives_to_the_last_bit(driven, folder, name):
    found = read_population(folder / name).drive
    assert found is not None
    for field in dataclasses.fields(Drive):
        expected = getattr(driven.drive, field.name)
        np.testing.assert_array_equal(getattr(found, field.name), expected)


def test_a_table_of_members_without_a_drive_is_as_before(tmp_path):
    write_population(make_generated(), tmp_path)
    assert read_population(tmp_path).drive is None
    columns = set(csv.read_csv(tmp_path / "models.csv").column_names)
    assert not columns & {*DRIVE_COLUMNS, "distribution_distance"}
    about = json.loads((tmp_path / "manifest.json").read_text())
    assert not {"drive", "agreement"} & {*about}


def test_every_column_of_a_drive_says_its_unit_and_meaning(folder):
    schema = parquet.read_schema(folder / "models.parquet")
    text = (folder / "README.txt").read_text()
    for name in (*DRIVE_COLUMNS, "distribution_distance"):
        about = schema.field(name).metadata
        assert about[b"meaning"] and about[b"unit"]
        assert any(line.split()[:1] == [name] for line in text.splitlines())
    assert schema.field("I_sigma").metadata[b"unit"] == b"uA/cm2"
    assert "noise made from a seed" in " ".join(text.split())
    table = to_dataframe(read_population(folder))
    assert table.attrs["units"]["I_slow_tau"] == "ms"


def test_distances_of_distributions_are_those_that_members_are_judged_by(
    driven, folder
):
    distances = csv.read_csv(folder / "models.csv")["distribution_distance"].to_numpy()
    compared = driven.agreement.compare(driven.spike_times)
    np.testing.assert_allclose(distances, compared.distance, rtol=1e-5)
    assert (distances[driven.accepted] <= driven.agreement.furthest).all()


def test_the_manifest_says_how_members_are_judged(driven, folder):
    about = json.loads((folder / "manifest.json").read_text())
    agreement = about["agreement"]
    assert agreement["pattern"] == "irregular" in agreement["patterns"]
    assert list(agreement["limits"]) == list(driven.agreement.names)
    assert agreement["furthest"] == pytest.approx(driven.agreement.furthest)
    assert about["drive"]["seed"] == 0
    # All that decides is in the folder.
    assert min(agreement["limits"].values()) >= np.log(1.1) - 1e-6


def test_members_that_are_read_back_fire_with_the_same_statistics(driven, folder):
    population = read_population(folder).take(driven.accepted)
    _, g = read_models(folder)
    stimulus = population.drive.stimulus(jax.random.key(5), population.members)
    run = simulate(
        driven.neuron,
        np.float32(g[driven.accepted]),
        20_000.0 + DISCARD,
        discard=DISCARD,
        stimulus=stimulus,
    )
    again, first = spike_features(run.spike_times), driven.features
    np.testing.assert_allclose(again.rate, first.rate[driven.accepted], rtol=0.2)
    np.testing.assert_allclose(again.cv, first.cv[driven.accepted], rtol=0.3)
    alone = population.take([1])
    one = simulate(
        driven.neuron,
        np.float32(g[alone.members]),
        6000.0,
        stimulus=alone.drive.stimulus(jax.random.key(5), alone.members),
    )
    # The noise belongs to the member, wherever it is simulated.
    both = simulate(
        driven.neuron,
        np.float32(g[population.members]),
        6000.0,
        stimulus=stimulus,
    )
    num = int(one.num_spikes[0])
    assert num > 20
    np.testing.assert_allclose(
        one.spike_times[0, :num], both.spike_times[1, :num], atol=0.1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda x: x.drop_columns("I_tau"), "lacks I_tau: give all numbers"),
        (lambda x: _with(x, "I_sigma", -1.0), "I_sigma is -1.0 in row 0"),
        (lambda x: _with(x, "I_slow_tau", 0.0), "I_slow_tau is 0.0 in row 0"),
        (lambda x: _with(x, "I_mean", float("inf")), "I_mean is inf in row 0"),
        (lambda x: _with(x, "I_mean", "much"), "I_mean is much in row 0"),
    ),
)
def test_what_can_be_no_drive_is_refused_in_a_sentence(folder, change, message):
    path = folder / "models.parquet"
    parquet.write_table(change(parquet.read_table(path)), path)
    with pytest.raises(ValueError, match=message) as error:
        _ = read_population(folder).drive
    assert "\n" not in str(error.value)


def _with(table: pa.Table, name: str, value) -> pa.Table:
    column = [value, *table[name].to_pylist()[1:]]
    column = [str(x) for x in column] if isinstance(value, str) else column
    return table.set_column(table.column_names.index(name), name, pa.array(column))
