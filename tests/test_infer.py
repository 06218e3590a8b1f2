import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_trains import bursting, poisson, tonic
from runs import dicjax, EXAMPLE, example_train, write_csv

import dicjax as dj
from dicjax.generation.generate import checkpoint_for, suit, warnings_about
from dicjax.inference.checkpoint import load_checkpoint, shipped_checkpoint
from dicjax.inference.encoder import PRIORS
from dicjax.spikes.features import features_of, spike_features
from dicjax.spikes.patterns import TONIC
from dicjax.spikes.trains import as_train, pad_trains, SpikeTrain


trains_module = sys.modules["dicjax.spikes.trains"]


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


def trains_of_every_kind(num):
    rng = np.random.default_rng(0)
    kinds = bursting, poisson, tonic
    made = [kinds[i % 3](rng, int(rng.integers(8, 40))) for i in range(num)]
    return [x for x in made if len(x) >= 10]


def test_many_trains_are_read_as_each_is_alone(monkeypatch):
    times = trains_of_every_kind(20)
    assert min(map(len, times)) < 24 < 96 < max(map(len, times))
    together = dj.infer(times, prior="recipe")
    alone = [dj.infer([x], prior="recipe") for x in times]
    for i, one in enumerate(alone):
        size = one.weights.shape[1]
        assert np.isneginf(together.weights[i, size:]).all()
        for name in ("weights", "means", "factors"):
            many = np.asarray(getattr(together, name))[i, :size]
            np.testing.assert_allclose(many, getattr(one, name)[0], atol=1e-4)
        for name in ("distance", "anomaly", "ranks", "in_distribution"):
            many = np.asarray(getattr(together, name))[i]
            np.testing.assert_allclose(many, getattr(one, name)[0], 1e-5, 1e-5)
    # However few are laid end to end at once.
    monkeypatch.setattr(trains_module, "AT_ONCE", 300)
    pieces = dj.infer(times, prior="recipe")
    for one, other in zip(
        jax.tree.leaves(pieces), jax.tree.leaves(together), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_distances_are_those_to_the_third_nearest_member_of_the_pattern():
    library = checkpoint_for("stg").library
    times = trains_of_every_kind(12)
    found = library.distances(spike_features(times))
    for distance, train in zip(found, times, strict=True):
        target = features_of(as_train(train))
        third = np.exp(np.sort(library.errors(target))[2])
        np.testing.assert_allclose([distance, library.distance(target)], third, 1e-5)
    assert len({int(features_of(as_train(x)).label) for x in times}) == 3
    few = dataclasses.replace(
        library,
        **{
            name: getattr(library, name)[library.labels == TONIC][:2]
            for name in ("g", "labels", "features")
        },
    )
    features = spike_features(times)
    is_tonic = np.asarray(features.label) == TONIC
    # Of two members the second is taken, and of other patterns there is none.
    assert (np.isfinite(few.distances(features)) == is_tonic).all()


def test_what_simulations_return_is_read_like_the_trains_in_it():
    times = [x[:30] for x in trains_of_every_kind(4)]
    rows = pad_trains(times, 32)
    ran = np.ones(len(rows), bool)
    run = dj.Run(rows, np.isfinite(rows).sum(1), ran, ~ran, ~ran)
    expected = jax.tree.leaves(dj.infer(times))
    forms = (
        run,
        rows,
        jnp.asarray(rows),
        rows[:, None],
        [SpikeTrain(x) for x in times],
    )
    for form in forms:
        found = jax.tree.leaves(dj.infer(form))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    one = dj.Run(
        rows[0], np.array(30), np.array(True), np.array(False), np.array(False)
    )
    assert dj.infer(one).weights.shape[0] == 1
    np.testing.assert_array_equal(as_train(one).times, times[0])
    assert "Posterior: 1 train" in repr(dj.infer(one))


def test_short_trains_are_refused_by_the_api():
    with pytest.raises(ValueError, match="it takes 5"):
        dj.infer([np.arange(4.0)])
    with pytest.raises(ValueError):
        dj.infer([])
    with pytest.raises(ValueError, match="train 1"):
        dj.infer(np.stack([np.arange(1.0, 20.0), np.r_[np.arange(4.0), [np.inf] * 15]]))


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
