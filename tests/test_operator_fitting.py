"""Operators from their training to the command line, on a small one made here."""

import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.cli import main
from dicjax.inference.checkpoint import shipped_checkpoint
from dicjax.operator.characteristics import characterise
from dicjax.operator.checkpoint import load_operator, operator_header, save_operator
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.curve_correction import correct_curves, FINE, window_loss, windows
from dicjax.operator.families import find_family
from dicjax.operator.model import advance
from dicjax.operator.scores import EVERY, make_trial, score, simulate_steps
from dicjax.operator.train import (
    characterise_members,
    fit_to,
    test_operator as scores_of,
)
from dicjax.operator.training import (
    make_pool,
    members_of,
    operator_loss,
    segment,
    train_operator,
)
from dicjax.operator.tuning import feature_errors, tune


FAMILY = find_family("cortical")
# Optax's schedules promote integers.
LENIENT = lambda: jax.numpy_dtype_promotion("standard")
CONFIG = OperatorConfig(width=64, num_layers=3)
TRAINING = OperatorTraining(
    members=96,
    num_steps=320,
    batch_size=32,
    pool=128,
    num_corrections=6,
    learning_rate=4e-3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def library(folder):
    return characterise_members(FAMILY, TRAINING.members, 0, folder=folder / "data")


@pytest.fixture(scope="module")
def operator(library):
    silent = lambda stage, done, total: None
    with LENIENT():
        return fit_to(FAMILY, library, CONFIG, TRAINING, on_progress=silent)


@pytest.fixture(scope="module")
def saved(folder, operator):
    path = folder / "small"
    save_operator(path, operator, CONFIG, {"scores": {}})
    return path


@pytest.fixture(scope="module")
def members(library):
    return members_of(library.seen.g, library.seen.measured)


def fresh_loss(operator, members):
    """The loss on samples that no training has seen."""
    neuron = FAMILY.neuron.with_dtype(jnp.dtype("float32"))
    family = eqx.tree_at(lambda f: f.neuron, FAMILY, neuron)
    pool = make_pool(jr.key(7), neuron, members, 64)
    for i in range(2):
        pool, _ = segment(jr.key(i), family, pool, members)
    who = pool.number
    _, samples = segment(jr.key(2), family, pool, members)
    parts = (members.x[who], members.g[who], members.threshold[who], samples)
    return float(operator_loss(operator, *parts))


def test_training_brings_membranes_near_to_the_simulated_ones(operator, members):
    start = eqx.tree_at(
        lambda o: (o.branch.last.weight, o.branch.last.bias),
        operator,
        replace_fn=jnp.zeros_like,
    )
    assert fresh_loss(operator, members) < 0.5 * fresh_loss(start, members)


@pytest.fixture
def lenient():
    with LENIENT():
        yield


@pytest.mark.usefixtures("lenient")
def test_a_training_that_was_stopped_goes_on_with_the_same_weights(
    operator, members, tmp_path
):
    training = OperatorTraining(num_steps=32, batch_size=32, pool=64)

    class Stopped(Exception):
        pass

    def stop(stage, done, total):
        if done >= total // 2:
            raise Stopped

    whole = train_operator(operator, FAMILY, members, training)
    kept = {"folder": tmp_path, "save_every": 1}
    with pytest.raises(Stopped):
        train_operator(operator, FAMILY, members, training, **kept, on_progress=stop)
    again = train_operator(operator, FAMILY, members, training, folder=tmp_path)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    other = OperatorTraining(num_steps=32, batch_size=32, pool=64, seed=1)
    with pytest.raises(ValueError, match="state of another training"):
        train_operator(operator, FAMILY, members, other, folder=tmp_path)


@pytest.mark.usefixtures("lenient")
def test_corrected_curves_follow_finer_steps(operator, members):
    plain = eqx.tree_at(
        lambda o: o.curves.correction, operator, replace_fn=jnp.zeros_like
    )
    training = OperatorTraining(num_corrections=60)
    corrected = correct_curves(jr.key(0), plain, members, training)
    window = windows(jr.key(99), plain, plain.curves.table(), members)
    before = window_loss(plain.curves.correction, plain, window)
    after = window_loss(corrected.curves.correction, plain, window)
    assert after < 0.7 * before


@pytest.mark.usefixtures("lenient")
def test_corrections_have_the_gradient_that_goes_through_the_table(operator, members):
    shape = operator.curves.correction.shape
    correction = 0.1 * jr.normal(jr.key(5), shape, jnp.float32)
    window = windows(jr.key(98), operator, operator.curves.table(), members)
    window = jax.tree.map(lambda x: x[:8], window)
    window = eqx.tree_at(lambda w: w.V, window, window.V[:, :60])
    h = jnp.float32(operator.step)

    def through_the_table(correction):
        curves = eqx.tree_at(lambda c: c.correction, operator.curves, correction)
        table = curves.table()

        def one(a, I, memory):
            def step(memory, _):
                new = advance(operator, table, a, memory, I, h)
                return new, new.V

            return jax.lax.scan(step, memory, length=60)[1]

        V = jax.vmap(one)(window.a, window.I, window.memory)
        return jnp.mean(jnp.sqrt(1 + ((V - window.V) / FINE) ** 2) - 1)

    loss, ours = jax.value_and_grad(window_loss)(correction, operator, window)
    other, theirs = jax.value_and_grad(through_the_table)(correction)
    np.testing.assert_allclose(loss, other, rtol=1e-4)
    assert np.abs(theirs).max() > 1e-3
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)


def test_members_kept_in_a_folder_are_not_simulated_again(library, folder):
    def never(stage, done, total):
        raise AssertionError("simulated again")

    again = characterise_members(
        FAMILY, TRAINING.members, 0, folder=folder / "data", on_progress=never
    )
    np.testing.assert_array_equal(again.measured.values, library.measured.values)
    seen, unseen = (set(map(tuple, x.g)) for x in (library.seen, library.unseen))
    assert seen and unseen and not seen & unseen


@pytest.mark.usefixtures("lenient")
def test_tuning_brings_a_feature_nearer(operator, members):
    tuned = tune(jr.key(0), operator, members, "sag", 30)
    error = lambda o: np.nanmedian(np.abs(feature_errors(o, members, "sag")))
    assert error(tuned) < error(operator)


def test_scores_tell_what_is_wrong_with_a_prediction(library):
    g, measured = library.g[:6], library.measured
    amplitude = (measured["threshold"][:6] * 1.5).astype(np.float32)
    truth = simulate_steps(FAMILY, g, amplitude)
    perfect = score(truth, truth)
    assert perfect.centred_l2 == perfect.spike_count == perfect.missed == 0
    assert perfect.matched == 1
    late = score(np.roll(truth, 5, axis=1), truth)
    assert late.timing == pytest.approx(5 * EVERY)
    assert late.spike_count == 0 < late.centred_l2
    silent = score(np.full_like(truth, -70.0), truth)
    assert silent.missed == silent.spike_count == 1


def test_scores_are_of_seen_and_unseen_members(operator, library):
    scores = scores_of(operator, FAMILY, library, 0)
    assert scores["seen"].num == len(library.seen)
    assert scores["unseen"].num == len(library.unseen)
    assert 0 < scores["seen"].spike_count < 0.6


# On disk


def test_an_operator_comes_back_as_it_was(operator, saved):
    loaded = load_operator(saved, family="cortical")
    for a, b in zip(jax.tree.leaves(operator), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (loaded.names, loaded.powers) == (operator.names, operator.powers)
    assert operator_header(saved)["num_parameters"] > 10_000


def test_what_ships_is_small_and_says_how_well_it_does():
    header = operator_header("cortical")
    seen, unseen = (header["scores"][name] for name in ("seen", "unseen"))
    assert seen["spike_count"] < 0.02 and seen["missed"] < 0.02
    assert unseen["spike_count"] < 0.04 and unseen["width"] < 0.1
    assert load_operator().family == "cortical"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: (path / "header.json").unlink(), "There is no operator"),
        (
            lambda path: (path / "operator" / "extra").write_text("x"),
            "damaged: its files are not those",
        ),
        (
            lambda path: (path / "header.json").write_text(
                (path / "header.json").read_text().replace("cortical", "other")
            ),
            "was edited",
        ),
    ],
)
def test_damaged_operators_are_refused(saved, tmp_path, spoil, message):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    spoil(copy)
    with pytest.raises(ValueError, match=message):
        load_operator(copy)


def test_other_checkpoints_and_families_are_refused(saved):
    with pytest.raises(ValueError, match="of the family 'cortical', not of 'stg'"):
        load_operator(saved, family="stg")
    with pytest.raises(ValueError, match="holds a dicjax-encoder"):
        load_operator(shipped_checkpoint("stg"))
    with pytest.raises(ValueError, match="There is no operator 'squid'"):
        load_operator("squid")


# At the command line


def run(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["operator", *map(str, args)])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def drawn(saved, tmp_path, capsys):
    path = tmp_path / "neurons.csv"
    measured = ("--measured", "rest=-72", "threshold=1.5")
    named = ("--operator", saved, "--neurons", 5, "--out", path)
    assert run(capsys, "ensemble", *measured, *named)[0] == 0
    return path


def test_a_drawn_ensemble_is_predicted(saved, drawn, tmp_path, capsys):
    out = tmp_path / "predicted"
    status, said, _ = run(
        capsys, "predict", drawn, "--operator", saved, "--step", 3, "--out", out
    )
    assert status == 0 and "5 neurons, 600 ms" in said
    with np.load(out / "traces.npz") as file:
        V = file["voltage_mV"]
        assert V.shape == (5, 6000) and np.isfinite(V).all()
        np.testing.assert_allclose(V[:, 0], -72, atol=1e-3)
    assert (out / "traces.png").stat().st_size > 5000


def test_features_are_listed_with_units(saved, capsys):
    status, said, _ = run(capsys, "ensemble", "--list", "--operator", saved)
    assert status == 0 and "threshold" in said and "µA/cm²" in said


def test_a_current_of_ones_own_is_read_and_checked(saved, drawn, tmp_path, capsys):
    current = tmp_path / "current.csv"
    rows = [f"{t:g},{0.5 * (t > 5)}" for t in np.arange(0, 20, 0.5)]
    predict = ("predict", drawn, "--operator", saved, "--current", current, "--out")
    current.write_text("\n".join(["time_ms,current", *rows]))
    assert run(capsys, *predict, tmp_path / "one")[0] == 0
    current.write_text("\n".join(["time_ms,current", *rows[:9], *rows[12:]]))
    status, _, said = run(capsys, *predict, tmp_path / "two")
    assert status == 2 and "not evenly sampled after 4 ms" in said
    current.write_text("\n".join(["t,i", *rows]))
    status, _, said = run(capsys, *predict, tmp_path / "three")
    assert status == 2 and "time_ms and current" in said


def test_bad_input_is_a_sentence(saved, drawn, tmp_path, capsys):
    cut = tmp_path / "cut.csv"
    lines = [line.split(",", 1)[1] for line in drawn.read_text().splitlines()]
    cut.write_text("\n".join(lines))
    status, _, said = run(
        capsys, "predict", cut, "--operator", saved, "--out", tmp_path / "x"
    )
    assert status == 2 and "has no column rest" in said
    named = ("--operator", saved, "--out", tmp_path / "y.csv")
    status, _, said = run(capsys, "ensemble", "--measured", "rest", *named)
    assert status == 2 and "name=value" in said
    assert "Traceback" not in said


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
        save="traces",
        save_every=0.25,
    ).V
    assert V is not None
    ts = 0.25 * np.arange(V.shape[1])
    on = (ts >= 100) & (ts < 1200)
    path = folder / "recording.npz"
    current = 100 * density[:, None] * on  # pA of 100 pF
    np.savez(path, time_ms=ts, current_pA=current, voltage_mV=V)
    return path


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


def test_a_recorded_cell_is_compared(recording, saved, tmp_path, capsys):
    out = tmp_path / "compared"
    how = ("--operator", saved, "--use", 1, 3, "--neurons", 4, "--out", out)
    status, said, _ = run(capsys, "compare", recording, *how)
    assert status == 0 and "2 sweeps predicted" in said
    about = json.loads((out / "manifest.json").read_text())
    assert about["used_sweeps"] == [1, 3] and "threshold" in about["measured"]
    assert (out / "comparison.png").stat().st_size > 20_000
    rows = (out / "comparison.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * 6
    status, _, said = run(capsys, "compare", recording, *how)
    assert status == 2 and "--overwrite" in said


def test_sweeps_that_are_not_there_cannot_be_used(recording):
    sweeps = dj.read_sweeps(recording)
    steps = dj.find_steps(sweeps)
    with pytest.raises(ValueError, match="has sweeps 0 to 3"):
        dj.measure_cell(sweeps, steps, 100.0, use=[7])
    with pytest.raises(ValueError, match="an F-I curve needs two"):
        dj.measure_cell(sweeps, steps, 100.0, use=[0, 1])
    with pytest.raises(ValueError, match="must be positive pF"):
        dj.measure_cell(sweeps, steps, 0.0)


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
        num=16,
    )
    recorded = compared.recorded.num_spikes
    assert recorded.tolist() == [8, 9, 11, 13, 15, 18, 21, 24, 27, 30]
    median = np.median(compared.predicted.num_spikes, axis=0)
    off = np.abs(median - recorded)[~compared.is_used].sum()
    assert off < 0.35 * recorded[~compared.is_used].sum()


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
    silent = dj.respond(operator, np.zeros(2000), trial.features[0], every=EVERY)
    assert np.ptp(np.asarray(silent.V)) < 0.5
