import csv
import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest

import dicjax as dj
from dicjax._core.progress import Stage
from dicjax.cli import main
from dicjax.generation.generate import checkpoint_for, suit, warnings_about
from dicjax.generation.result import count_failures
from dicjax.inference.checkpoint import load_checkpoint, shipped_checkpoint
from dicjax.inference.encoder import PRIORS
from dicjax.output.population_files import read_models
from dicjax.populations.evaluation import judge, Verdict, wilson
from dicjax.spikes.features import features_of
from dicjax.spikes.target import as_target
from dicjax.spikes.trains import as_train, pad_trains


EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "slow_burster.csv"
NUM = 20


def _run(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "results"
    assert _run("generate", EXAMPLE, "--members", NUM, "--out", out, "--seed", 3) == 0
    return out


@pytest.fixture(scope="module")
def example():
    (train,) = dj.read_spike_trains(EXAMPLE)
    return train


def test_generate_writes_a_whole_run(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"models.parquet", "models.csv", "spikes.parquet", "manifest.json"} <= names
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"] == "stg-prinz"  # chosen, not named
    html = (folder / "report.html").read_text()
    assert "slow_burster" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_delivered_members_fire_like_the_recording_by_another_integrator(
    folder, example
):
    # Simulated anew, longer, at a quarter of the step: nothing is taken on trust.
    name, g = read_models(folder)
    target = features_of(example)
    run = dj.simulate(dj.stg_prinz(), g[:8], 16_000.0, discard=4_000.0, dt=0.025)
    features = dj.spike_features(run.spike_times)
    assert name == "stg-prinz"
    assert np.asarray(dj.is_valid(features, target, 0.11)).mean() >= 0.85


def test_members_are_all_different(folder):
    _, g = read_models(folder)
    assert len(g) == NUM
    assert len(np.unique(g, axis=0)) == NUM
    assert (np.log(np.maximum(g, 1e-3)).std(axis=0) > 0.02).all()


def test_the_same_seed_gives_the_same_population(folder, example):
    result = dj.generate(jax.random.key(3), example, num=NUM)
    _, g = read_models(folder)
    assert np.allclose(result.g, g, rtol=1e-5)
    assert result.accepted.all()
    assert "20 of 20" in result.report()


def test_what_ships_is_read_once():
    assert checkpoint_for("stg") is checkpoint_for("stg") is not checkpoint_for("da")


def test_an_interrupted_search_keeps_what_it_found(example):
    def interrupt(stage: Stage, done: int, total: int) -> None:
        if stage.name == "correcting":
            raise KeyboardInterrupt

    result = dj.generate(jax.random.key(3), example, num=2000, on_progress=interrupt)
    assert result.settings["interrupted"]
    assert len(result.rounds) == 1
    assert 0 < result.num_accepted < 2000
    assert result.num_accepted == result.rounds[0].num_valid - result.num_uncertified
    assert result.certificate is None


def test_a_cancelled_search_keeps_what_it_found(example):
    # Unlike Ctrl-C, it may go on raising: there is no other way to know it was heard.
    reported = []

    def cancel(stage: Stage, done: int, total: int) -> None:
        reported.append(stage.name)
        if len(set(reported)) > 2:
            raise dj.Cancelled

    result = dj.generate(jax.random.key(3), example, num=2000, on_progress=cancel)
    assert result.settings["interrupted"]
    assert len(result.rounds) == 1
    assert 0 < result.num_accepted < 2000
    assert result.certificate is None
    # Long before the first round was over, it could have been cancelled too.
    assert reported.count("simulating_the_posterior") > 3


def test_a_search_cancelled_before_it_found_anything_says_so(example):
    def cancel(stage: Stage, done: int, total: int) -> None:
        if stage.name == "simulating_the_posterior":
            raise dj.Cancelled

    with pytest.raises(dj.Cancelled):
        dj.generate(jax.random.key(3), example, num=8, on_progress=cancel)


def test_delivered_members_are_tried_from_another_start(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (name,) = manifest["certificate"]
    assert name == "another start"
    share = manifest["certificate"][name]["valid"]
    with (folder / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stood = [row["from_another_start"] == "true" for row in rows]
    assert len(stood) == NUM
    assert np.mean(stood) == share > 0.8
    assert "robustness" not in rows[0]
    assert "From another start (25 mV higher" in (folder / "report.html").read_text()


def test_by_default_certification_is_one_simulation(example, monkeypatch):
    simulated = []

    def counted(neuron, g, *args, **options):
        simulated.append(g.shape)
        return dj.simulate(neuron, g, *args, **options)

    monkeypatch.setattr("dicjax.populations.certification.simulate", counted)
    seen = []
    result = dj.generate(
        jax.random.key(3),
        example,
        num=NUM,
        on_progress=lambda stage, *how_far: seen.append((stage.name, *how_far)),
    )
    assert simulated == [(1, NUM, result.g.shape[1])]
    assert result.certificate is not None
    assert result.certificate.valid.shape == (NUM, 1)
    assert "From another start, " in result.report()
    last = [args for args in seen if args[0] == "certifying"]
    assert last[0] == ("certifying", 0, NUM)
    assert last[-1] == ("certifying", NUM, NUM) == seen[-1]


def test_members_are_perturbed_when_asked(example):
    config = dj.GenerateConfig(robustness=True)
    ask = lambda seed: dj.generate(
        jax.random.key(seed), example, model="stg-prinz", num=4, config=config
    )
    result = ask(0)
    certificate = result.certificate
    assert certificate is not None
    neuron = result.neuron
    kinds = ["start", *["conductances"] * 2 * len(neuron.channels)]
    assert list(certificate.axes) == [*kinds, *["current"] * 2, "noise", "temperature"]
    # What it says is about the members that are delivered, in their order.
    changed = result.g.copy()
    changed[:, neuron.index("Na")[0]] *= 0.8
    run = dj.simulate(
        neuron,
        changed,
        result.duration,
        discard=result.discard,
        dt=neuron.required_recipe.dt,
    )
    valid = dj.is_valid(dj.spike_features(run.spike_times), result.target, 0.1)
    np.testing.assert_array_equal(
        certificate.valid[:, certificate.names.index("Na -20 %")], valid
    )
    assert "With one conductance 20% lower or higher" in result.report()
    again = ask(0).certificate
    assert again is not None
    np.testing.assert_array_equal(certificate.valid, again.valid)


@pytest.mark.parametrize("when", (0, 1))
def test_an_interrupted_certification_loses_no_member(example, when):
    def interrupt(stage: Stage, done: int, total: int) -> None:
        if stage.name == "certifying" and done >= when:
            raise KeyboardInterrupt

    result = dj.generate(jax.random.key(3), example, num=NUM, on_progress=interrupt)
    assert result.num_accepted == NUM
    assert result.certificate is None
    assert result.settings["interrupted"]
    assert "another start" not in result.report()


def test_models_of_a_run_are_certified_by_command(folder, tmp_path, capsys):
    out = tmp_path / "checks.csv"
    args = ("certify", folder, EXAMPLE, "--axes", "start", "conductances")
    assert _run(*args, "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "models.csv").open(newline="") as file:
        models = list(csv.DictReader(file))
    channels = dj.stg_prinz().channel_names
    changed = [f"{name} {sign}20 %" for name in channels for sign in "-+"]
    assert list(rows[0]) == ["member", "another start", *changed, "robustness"]
    # At the whole step, as when the run was made.
    assert [row["another start"] for row in rows] == [
        row["from_another_start"] for row in models
    ]
    for row in rows:
        stood = np.mean([row[name] == "true" for name in changed])
        assert float(row["robustness"]) == pytest.approx(stood)
    share = np.mean([row["Na -20 %"] == "true" for row in rows])
    (line,) = (line for line in said if line.startswith("Na -20 %"))
    assert line.split()[3] == f"{share:.0%}"
    assert said[0].startswith("check")
    # Without a file, the table alone.
    assert _run("certify", folder, EXAMPLE, "--axes", "start") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "check",
        "another",
    ]


def test_bad_questions_to_certify_get_a_sentence(folder, tmp_path, capsys):
    out = ("--out", tmp_path / "checks.csv")
    assert _run("certify", folder, EXAMPLE, "--tolerance", 2, *out) == 2
    assert "`tolerance` must lie between 0 and 1" in capsys.readouterr().err
    assert _run("certify", folder, EXAMPLE, "--axes", "pressure", *out) == 2
    assert "pressure" in capsys.readouterr().err
    two = tmp_path / "two.csv"
    spikes = [f"{unit},{100 * i}" for i in range(1, 13) for unit in "ab"]
    two.write_text("\n".join(["unit,spike_time_ms", *spikes]) + "\n")
    assert _run("certify", folder, two, *out) == 2
    assert "choose one with --unit-id: 'a', 'b'" in capsys.readouterr().err
    assert not out[1].exists()


def test_a_run_is_not_overwritten_unasked(folder, capsys):
    before = (folder / "models.csv").read_bytes()
    assert _run("generate", EXAMPLE, "--out", folder) == 2
    assert "--overwrite" in capsys.readouterr().err
    args = ("--duration", 2000, "--overwrite")
    assert _run("simulate", folder, "--out", folder, *args) == 2
    assert "holds the models to simulate" in capsys.readouterr().err
    assert (folder / "models.csv").read_bytes() == before


def test_dics_and_simulations_of_a_run_come_by_command(folder, tmp_path, capsys):
    assert _run("dic", folder, "--out", tmp_path / "dics.csv") == 0
    lines = (tmp_path / "dics.csv").read_text().splitlines()
    assert len(lines) == NUM + 1
    args = ("--duration", 2000, "--discard", 1000, "--dt", 0.1)
    assert _run("simulate", folder, "--out", tmp_path / "again", *args) == 0
    assert (tmp_path / "again" / "spikes.parquet").is_file()
    assert f"{NUM} models simulated, 0 failed" in capsys.readouterr().out


def test_infer_and_features_print_tables(capsys):
    assert _run("infer", EXAMPLE) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert '"g_s"' in header
    assert "stg-prinz" in row
    assert row.endswith("true")
    assert all(len(x) <= 13 for x in row.split(",")[1:])
    assert _run("features", EXAMPLE) == 0
    assert "bursting" in capsys.readouterr().out


def test_infer_says_which_trains_it_does_not_know(tmp_path, capsys):
    rng = np.random.default_rng(0)
    poisson = np.cumsum(3 + rng.exponential(60, 400))
    assert _run("infer", _csv(tmp_path / "poisson.csv", list(poisson))) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith("false")
    assert "Note: poisson is unlike anything the encoder knows" in err


def test_a_posterior_is_over_the_neurons_that_are_asked_for(example, capsys):
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
    assert _run("infer", EXAMPLE, "--prior", "box") == 0
    assert "stg-prinz" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no prior 'narrow'"):
        dj.infer([example], prior="narrow")


def test_inference_is_about_the_members_that_result(folder, example):
    # The posterior's 99 % box holds most delivered members' own DICs.
    _, g = read_models(folder)
    neuron = dj.stg_prinz()
    dics = np.asarray(dj.dynamic_input_conductances(neuron, g, neuron.V_ref))[:, 1:]
    posterior = dj.infer([example], "stg-prinz")
    assert posterior.in_distribution.all()
    low, high = np.moveaxis(np.asarray(posterior.interval(0.99))[0], -1, 0)
    assert ((low <= dics) & (dics <= high)).mean() > 0.6


def test_a_recording_out_of_range_is_told_which_model_can(tmp_path, capsys):
    args = ("--model", "stg", "--out", tmp_path / "out")
    assert _run("generate", EXAMPLE, *args) == 2
    said = capsys.readouterr().err
    assert "outside what stg can do" in said
    assert "--model stg-prinz" in said
    assert not (tmp_path / "out").exists()


def _csv(path: pathlib.Path, lines: list) -> pathlib.Path:
    path.write_text("\n".join(["spike_time_ms", *map(str, lines)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no lines of spike times"),
        (["1", "x", "3"], "x"),
        ([10, 20, "nan", *range(30, 200, 10)], "nan"),
        ([-5, *range(10, 200, 10)], "-5"),
        ([10, 30, 20, *range(40, 200, 10)], "20"),
        ([10, 10, *range(20, 200, 10)], "10"),
        ([10, 20, 30], "at least 10"),
        ([x / 1e5 for x in range(1, 40)], "Hz"),
    ],
)
def test_bad_recordings_get_a_sentence_and_nothing_is_written(
    tmp_path, capsys, lines, message
):
    recording = _csv(tmp_path / "recording.csv", lines)
    assert _run("generate", recording, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("dicjax: ")
    assert "Traceback" not in said
    assert re.search(message, said)
    assert [path.name for path in tmp_path.iterdir()] == ["recording.csv"]


def test_a_missing_unit_is_answered_by_an_option(tmp_path, capsys):
    recording = tmp_path / "x.csv"
    recording.write_text("".join(f"{0.1 * i:.3f}\n" for i in range(1, 60)))
    assert _run("features", recording) == 2
    said = capsys.readouterr().err
    assert "give the true unit, --unit s makes it 10 Hz" in said
    assert "unit=" not in said
    assert _run("features", recording, "--unit", "s") == 0


def test_a_window_is_advised_to_each_reader_in_their_words(example, tmp_path, capsys):
    isi = np.diff(example.times)
    slowing = np.cumsum(isi * np.linspace(0.75, 1.25, isi.size))
    out = ("--members", 4, "--model", "stg-prinz", "--out", tmp_path / "out")
    assert _run("generate", _csv(tmp_path / "x.csv", list(slowing)), *out) in (0, 1)
    assert re.search(r"steady, such as --window \d+ \d+\.", capsys.readouterr().err)
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (warned,) = about["settings"]["warnings"]
    assert re.search(r"such as the window [\d.]+ to [\d.]+ s\.", warned)
    assert warned in (tmp_path / "out" / "report.html").read_text()


def test_a_refusal_says_which_window_may_help(example, tmp_path, capsys):
    paused = np.append(example.times, example.times[-1] + 60_000)
    out = ("--model", "stg-prinz", "--out", tmp_path / "out")
    assert _run("generate", _csv(tmp_path / "x.csv", list(paused)), *out) == 2
    assert "consider --window 5 59554." in capsys.readouterr().err


def test_unknown_models_and_foreign_checkpoints_are_refused(tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    assert _run("generate", EXAMPLE, "--model", "squid", *out) == 2
    assert "stg, stg-prinz" in capsys.readouterr().err
    (tmp_path / "foreign").mkdir()
    foreign = ("--model", "stg", "--checkpoint", tmp_path / "foreign")
    assert _run("generate", EXAMPLE, *foreign, *out) == 2
    assert "not a dicjax checkpoint" in capsys.readouterr().err
    other = ("--model", "stg", "--checkpoint", shipped_checkpoint("stg-prinz"))
    assert _run("generate", EXAMPLE, *other, *out) == 2
    assert "is for the model 'stg-prinz'" in capsys.readouterr().err
    assert _run("generate", EXAMPLE, "--tolerance", 0, *out) == 2
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_named_by_its_folder_is_the_one_used(example):
    path = shipped_checkpoint("stg-prinz")
    result = dj.generate(
        jax.random.key(0), example, model="stg-prinz", num=3, checkpoint=path
    )
    assert result.num_accepted == 3
    # No other model is looked at.
    assert set(result.settings["distance_to_simulated_members"]) == {"stg-prinz"}


def test_help_exits_cleanly(capsys):
    assert _run("--help") == 0
    assert "generate" in capsys.readouterr().out


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


def test_rhythms_of_fifteen_seconds_are_beyond_every_model(example, tmp_path, capsys):
    slowed = _csv(tmp_path / "slow.csv", list(np.round(20 * example.times, 3)))
    assert _run("generate", slowed, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no model that ships can" in said
    assert "use --out-of-range try." in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "stg_crab_A_60min_decentralised_LP",
        "stg_crab_A_baseline_LP",
        "stg_crab_A_baseline_PD",
        "stg_crab_B_baseline_LP",
        "stg_crab_A_baseline_tonic_unit_IN9",
    ],
)
def test_crab_recordings_get_a_hundred_members(data, file):
    (train,) = dj.read_spike_trains(data / "recordings" / f"{file}.csv")
    result = dj.generate(jax.random.key(0), train, model="stg-prinz", num=100)
    assert result.num_accepted == 100
    assert result.participation_ratio > 2


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


def test_short_trains_are_refused_by_the_api():
    with pytest.raises(ValueError, match="at least 10 spikes"):
        dj.infer([np.arange(5.0)])
    with pytest.raises(ValueError, match="no spike trains"):
        dj.infer([])


def test_wilson_intervals_cover_what_they_should():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        hits = rng.binomial(200, share, 2000)
        inside = [
            low <= share <= high for low, high in (wilson(int(h), 200) for h in hits)
        ]
        assert np.mean(inside) > 0.92
    assert wilson(0, 0) == (0.0, 1.0)


def test_every_invalid_member_has_a_reason(example):
    target = as_target(example, 0.1)
    trains = {
        "valid": example.times,
        "period": 1.2 * example.times,
        "other_pattern": np.arange(1, 100) * 50.0,
        "silent": np.array([10.0]),
        "failed": example.times,
    }
    run = dj.Run(
        spike_times=pad_trains(list(trains.values())),
        num_spikes=np.array([len(x) for x in trains.values()]),
        succeeded=np.array([name != "failed" for name in trains]),
        overflowed=np.zeros(len(trains), bool),
    )
    counts = count_failures(judge(run, target), target)
    assert counts == {name: 1 for name in trains if name != "valid"}


def test_an_irregular_member_may_be_off_in_its_median_alone():
    rng = np.random.default_rng(0)
    target = as_target(np.cumsum(rng.gamma(2.0, 50.0, 400)), 0.1)
    quartiles = target.features.isi_quartiles * np.array([1, 1.2, 1])
    off = dataclasses.replace(target.features, isi_quartiles=quartiles)
    features = jax.tree.map(lambda x: x[None], off)
    errors = np.asarray(target.errors(features))
    assert not target.is_valid(features)[0]
    verdict = Verdict(
        features,
        errors,
        np.asarray(target.limits(errors)),
        succeeded=np.ones(1, bool),
        valid=np.zeros(1, bool),
        score=np.ones(1),
    )
    assert count_failures(verdict, target) == {"isi_median": 1}
