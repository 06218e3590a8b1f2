"""Operators from their training to recorded cells, on a small one made here."""

import pathlib
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from operators import FAMILY, SINGLE

import dicjax as dj
from dicjax._core import Swept
from dicjax.inference.checkpoint import shipped_checkpoint
from dicjax.operator.characteristics import characterise, COUNTS, from_coordinates
from dicjax.operator.checkpoint import load_operator, operator_header
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.families import find_family
from dicjax.operator.scores import EVERY, make_trial, score
from dicjax.operator.train import characterise_members, fit_operator
from dicjax.operator.training import make_pool, operator_loss, segment
from dicjax.operator.tuning import feature_errors, tune


SHIPPED = pathlib.Path(__file__).parents[1] / "checkpoints" / "operators" / "cortical"
NUM = 16
CONFIG = OperatorConfig(width=32, num_layers=1)
TRAINING = OperatorTraining(
    num_steps=160, batch_size=32, pool=64, num_corrections=1, learning_rate=4e-3
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def library(folder):
    return characterise_members(FAMILY, NUM, 0, folder=folder / "data")


@pytest.fixture(scope="module")
def reported():
    return []


@pytest.fixture(scope="module")
def scores(folder, library, reported):
    characterised = Swept(NUM, 0, lambda: library)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        return fit_operator(
            FAMILY,
            folder / "small",
            config=CONFIG,
            training=TRAINING,
            characterised=characterised,
            on_progress=lambda *x: reported.append(x),
        )


@pytest.fixture(scope="module")
def saved(folder, scores):
    return folder / "small"


@pytest.fixture(scope="module")
def operator(saved):
    return load_operator(saved)


@pytest.fixture(scope="module")
def members(library):
    return library.seen.members


@eqx.filter_jit
def fresh_loss(operator, members):
    """The loss on samples that no training has seen."""
    pool = make_pool(jr.key(7), SINGLE.neuron, members, TRAINING.pool)
    pool, _ = segment(jr.key(0), SINGLE, pool, members)
    _, samples = segment(jr.key(1), SINGLE, pool, members)
    return operator_loss(operator, members[pool.number], samples)


@pytest.mark.slow
def test_training_brings_membranes_near_to_the_simulated_ones(operator, members):
    start = eqx.tree_at(
        lambda o: (o.branch.last.weight, o.branch.last.bias),
        operator,
        replace_fn=jnp.zeros_like,
    )
    assert fresh_loss(operator, members) < 0.5 * fresh_loss(start, members)


@pytest.mark.slow
def test_progress_is_reported_stage_by_stage(scores, reported):
    names = [stage.name for stage, _, _ in reported]
    assert list(dict.fromkeys(names)) == ["correcting_curves", "training", "testing"]
    for name, num in (("correcting_curves", 1), ("training", TRAINING.num_steps)):
        steps = [x[1:] for x in reported if x[0].name == name]
        assert steps[-1] == (num, num) and steps == sorted(steps)


@pytest.mark.slow
def test_members_kept_in_a_folder_are_not_simulated_again(library, folder):
    def never(stage, done, total):
        raise AssertionError("simulated again")

    again = characterise_members(
        FAMILY, NUM, 0, folder=folder / "data", on_progress=never
    )
    np.testing.assert_array_equal(again.measured.values, library.measured.values)
    seen, unseen = (set(map(tuple, x.g)) for x in (library.seen, library.unseen))
    assert seen and unseen and not seen & unseen


@pytest.mark.slow
def test_tuning_brings_a_feature_nearer(operator, members):
    with jax.numpy_dtype_promotion("standard"):
        tuned = tune(jr.key(0), operator, members, "width", 4)
    error = lambda o: np.nanmean(np.abs(feature_errors(o, members, "width")))
    assert error(tuned) < error(operator)


@pytest.mark.slow
def test_scores_are_of_seen_and_unseen_members(scores, library):
    assert scores["seen"].num == len(library.seen)
    assert scores["unseen"].num == len(library.unseen)
    assert 0 < scores["seen"].spike_count < 0.6


# On disk


@pytest.mark.slow
def test_an_operator_is_kept_with_its_training_and_scores(saved, scores):
    header = operator_header(saved)
    assert header["num_parameters"] > 1000
    assert header["training"]["members"] == NUM
    assert header["scores"]["seen"]["num"] == scores["seen"].num
    assert load_operator(saved, family="cortical").family == "cortical"


def test_what_ships_is_small_and_says_how_well_it_does():
    header = operator_header("cortical")
    seen, unseen = (header["scores"][name] for name in ("seen", "unseen"))
    assert seen["spike_count"] < 0.02 and seen["missed"] < 0.02
    assert unseen["spike_count"] < 0.04 and unseen["width"] < 0.1
    assert load_operator().family == "cortical"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: (path / "header.json").unlink(), "copy"),
        (
            lambda path: (path / "operator" / "extra").write_text("x"),
            "damaged",
        ),
        (
            lambda path: (path / "header.json").write_text(
                (path / "header.json").read_text().replace("cortical", "other")
            ),
            "was edited",
        ),
    ],
)
def test_damaged_operators_are_refused(tmp_path, spoil, message):
    copy = tmp_path / "copy"
    shutil.copytree(SHIPPED, copy)
    spoil(copy)
    with pytest.raises(ValueError, match=message):
        load_operator(copy)


def test_other_checkpoints_and_families_are_refused():
    with pytest.raises(ValueError, match="'cortical'.* 'stg'"):
        load_operator(SHIPPED, family="stg")
    with pytest.raises(ValueError, match="dicjax-encoder"):
        load_operator(shipped_checkpoint("stg"))
    with pytest.raises(ValueError, match="'squid'"):
        load_operator("squid")


# Recorded cells


@pytest.fixture(scope="module")
def recording(folder, library):
    """A simulated cell as it might have been recorded, of 100 pF."""
    g, threshold = library.g[:1], library.measured["threshold"][0]
    gain = library.measured["gain"][0]
    density = np.array([-0.3 * threshold, *(threshold + np.array([1, 6, 11]) / gain)])
    neuron = FAMILY.neuron
    step = dj.Step(density.astype(np.float32), 100.0, 1200.0)
    rest = float(library.measured["rest"][0])
    V = dj.simulate(
        neuron,
        np.repeat(g, 4, axis=0),
        1300.0,
        dt=0.025,
        V0=rest,
        stimulus=step,
        save_every=0.25,
    ).V
    assert V is not None
    ts = 0.25 * np.arange(V.shape[1])
    on = (ts >= 100) & (ts < 1200)
    path = folder / "recording.npz"
    current = 100 * density[:, None] * on  # pA of 100 pF
    np.savez(path, time_ms=ts, current_pA=current, voltage_mV=V)
    return path


@pytest.mark.slow
def test_a_simulated_cell_is_measured_as_its_model_is(recording, library):
    sweeps = dj.read_sweeps(recording)
    found = dj.measure_cell(sweeps, dj.find_steps(sweeps), 100.0)
    of_model = {x: float(library.measured[x][0]) for x in found}
    assert found["rest"] == pytest.approx(of_model["rest"], abs=0.1)
    assert found["threshold"] == pytest.approx(of_model["threshold"], rel=0.03)
    assert found["gain"] == pytest.approx(of_model["gain"], rel=0.1)
    assert found["width"] == pytest.approx(of_model["width"], rel=0.05)
    assert found["height"] == pytest.approx(of_model["height"], abs=3)
    assert "sag" not in found and "rebound" not in found


@pytest.mark.slow
def test_an_ensemble_around_a_recorded_cell_fires_nearly_like_it(data):
    cell = data / "current_clamp" / "C010302A1_IDRest.npz"
    small = dj.read_sweeps(data / "current_clamp" / "C010302A1_IRrest.npz")
    passive = dj.passive_membrane(small, dj.find_steps(small))
    sweeps = dj.read_sweeps(cell)
    compared = dj.compare(
        jr.key(0),
        dj.load_operator("cortical"),
        sweeps,
        dj.find_steps(sweeps),
        passive.capacitance,
        resistance=passive.resistance,
        use=[0, 3, 6, 9],
        num=8,
    )
    recorded = compared.recorded.num_spikes
    assert recorded.tolist() == [8, 9, 11, 13, 15, 18, 21, 24, 27, 30]
    median = np.median(compared.predicted.num_spikes, axis=0)
    off = np.abs(median - recorded)[~compared.is_used].sum()
    assert off < 0.35 * recorded[~compared.is_used].sum()


@pytest.mark.parametrize(
    "name", ("cortical", pytest.param("stg", marks=pytest.mark.slow))
)
def test_cells_of_shipped_operators_have_the_f_i_curves_that_they_are_given(name):
    operator = dj.load_operator(name)
    features = np.asarray(from_coordinates(operator.library[:3], operator.names))
    rest, threshold, gain, high_gain = (
        features[:, operator.names.index(name)]
        for name in ("rest", "threshold", "gain", "high_gain")
    )
    few, some, many = COUNTS
    middle = threshold + (some - few) / gain
    highest = middle + (many - some) / high_gain
    steps = np.stack([np.zeros(3), threshold, middle, highest])
    current = np.repeat(steps[..., None], 10_000, axis=-1)  # a second
    V = np.asarray(dj.respond(operator, current, features, every=EVERY).V)
    assert np.abs(V[0] - rest[:, None]).max() < 0.1
    counts = np.sum((V[..., 1:] >= 0) & (V[..., :-1] < 0), axis=-1)
    assert np.abs(counts - np.array([[0], [few], [some], [many]])).max() <= 1


@pytest.mark.slow
def test_the_shipped_stomatogastric_operator_answers_as_the_simulator_does():
    operator = dj.load_operator("stg")
    assert operator.names[-3:] == ("g_f", "g_s", "g_u")
    family = find_family("stg")
    g = family.sample(jr.key(123), 6)
    measured = characterise(family, g)
    assert measured.is_complete.all()
    trial = make_trial(5, family, g, measured)
    answer = dj.respond(
        operator, trial.current, trial.features, every=EVERY, out_of_range="try"
    )
    found = score(np.asarray(answer.V), trial.V)
    assert found.spike_count < 0.05 and found.missed == found.false == 0
