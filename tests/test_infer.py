import numpy as np
import pytest
from tests.runs import dicjax, EXAMPLE, example_train, write_csv

import dicjax as dj
from dicjax.generation.generate import checkpoint_for, suit, warnings_about
from dicjax.inference.checkpoint import load_checkpoint, shipped_checkpoint
from dicjax.inference.encoder import PRIORS
from dicjax.spikes.features import features_of
from dicjax.spikes.trains import as_train


def test_what_ships_is_read_once():
    assert checkpoint_for("stg") is checkpoint_for("stg") is not checkpoint_for("da")


def test_infer_and_features_print_tables(capsys):
    assert dicjax("infer", EXAMPLE) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert '"g_s"' in header
    assert "stg-prinz" in row
    assert row.endswith("true")
    assert all(len(x) <= 13 for x in row.split(",")[1:])
    assert dicjax("features", EXAMPLE) == 0
    assert "bursting" in capsys.readouterr().out


def test_infer_says_which_trains_it_does_not_know(tmp_path, capsys):
    rng = np.random.default_rng(0)
    poisson = np.cumsum(3 + rng.exponential(60, 400))
    assert dicjax("infer", write_csv(tmp_path / "poisson.csv", list(poisson))) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith("false")
    assert "Note: poisson is unlike anything the encoder knows" in err


def test_a_posterior_is_over_the_neurons_that_are_asked_for(capsys):
    example = example_train()
    slow = {
        prior: np.asarray(dj.infer([example], "stg-prinz", prior=prior).median)
        for prior in PRIORS
    }
    # The recipe of this model draws from its box, and so the two are one.
    assert np.array_equal(slow["recipe"], slow["box"])
    assert not np.array_equal(slow["box"], slow["any"])
    tonic = np.arange(1.0, 80.0) * 90.0
    recipe, box = (
        np.asarray(dj.infer([tonic], "stg", prior=prior).interval(0.9))
        for prior in ("recipe", "box")
    )
    # Spikes tell little of a tonic neuron's g_s: what is said leans on the prior.
    assert abs(recipe - box).max() > 2
    assert dicjax("infer", EXAMPLE, "--prior", "box") == 0
    assert "stg-prinz" in capsys.readouterr().out
    with pytest.raises(ValueError, match="narrow"):
        dj.infer([example], prior="narrow")


def test_short_trains_are_refused_by_the_api():
    with pytest.raises(ValueError, match="10"):
        dj.infer([np.arange(5.0)])
    with pytest.raises(ValueError):
        dj.infer([])


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("stg_crab_A_baseline_LP", "stg-prinz"),
        ("stg_crab_A_baseline_PD", "stg-prinz"),
        ("stg_crab_B_baseline_LP", "stg-prinz"),
        ("stg_crab_A_baseline_tonic_unit_IN9", "stg-prinz"),
    ],
)
def test_crab_recordings_are_within_reach_of_the_slow_model(data, file, model):
    (train,) = dj.read_spike_trains(data / "recordings" / f"{file}.csv")
    loaded = load_checkpoint(shipped_checkpoint(model), model)
    assert loaded.library.distance(features_of(train)) < 1.3


def test_the_slow_model_is_chosen_for_a_slow_crab_rhythm(data):
    recording = data / "recordings" / "stg_crab_B_baseline_LP.csv"
    (train,) = dj.read_spike_trains(recording)
    assert suit(train) == "stg-prinz"


def test_merged_cells_and_drift_are_pointed_out(data):
    (train,) = dj.read_spike_trains(data / "recordings" / "stg_crab_A_baseline_PD.csv")
    assert any("merged" in x for x in _warnings(train, "stg-prinz"))
    steady = as_train(np.arange(1, 100) * 100.0)
    assert _warnings(steady, "stg") == []
    drifting = as_train(np.cumsum(np.linspace(50, 120, 100)))
    assert any("rate" in x for x in _warnings(drifting, "stg"))


def _warnings(train, model):
    return warnings_about(train, dj.infer([train], model))


@pytest.mark.parametrize(
    ("file", "known"),
    [
        ("stg_crab_A_baseline_LP", True),
        ("stg_crab_B_baseline_LP", True),
        ("stg_crab_A_baseline_PD", False),  # two cells
        ("retinal_ganglion_cell_low_light", False),
        ("retinal_ganglion_cell_high_light", False),
    ],
)
def test_recordings_unlike_the_model_are_flagged(data, file, known):
    (train,) = dj.read_spike_trains(data / "recordings" / f"{file}.csv")
    posterior = dj.infer([train], "stg-prinz")
    assert posterior.in_distribution.tolist() == [known]
