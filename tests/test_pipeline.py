"""A recording in, a validated population out: by the command line and in Python."""

import csv
import dataclasses
import importlib
import json
import re
from typing import NamedTuple

import jax.random as jr
import numpy as np
import pytest
from runs import dicjax, EXAMPLE, example_train, write_csv

import dicjax as dj
from dicjax._core.progress import Stage
from dicjax.generation.delivery import FOLD_OF_CERTIFICATES
from dicjax.generation.state import SearchState
from dicjax.inference.checkpoint import shipped_checkpoint
from dicjax.output.population_files import read_models
from dicjax.populations import certification, evaluation
from dicjax.spikes.features import features_of


# The function of the same name hides the module.
GENERATION = importlib.import_module("dicjax.generation.generate")
NUM = 20
SMALL = dj.GenerateConfig(candidates_per_round=96)
KEY = jr.key(3)
OPTIONS = ("--seed", 3, "--candidates-per-round", 96)  # as in Python


@pytest.fixture(scope="module")
def example():
    return example_train()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a run by command."""
    out = tmp_path_factory.mktemp("run") / "results"
    assert dicjax("generate", EXAMPLE, "--members", NUM, "--out", out, *OPTIONS) == 0
    return out


class Outcome(NamedTuple):
    """The same run in Python.

    - `reported`: its progress; `certified`: simulations of its certification.
    - `found`: by its search; `first`: its first candidates, as they fired.
    """

    result: dj.Generated
    reported: list[tuple[str, int, int]]
    certified: list[dj.Run]
    found: tuple[SearchState, bool]
    first: dj.Run


@pytest.fixture(scope="module")
def outcome(example):
    reported, certified, found, runs = [], [], [], []
    report = lambda stage, *how_far: reported.append((stage.name, *how_far))
    with pytest.MonkeyPatch.context() as patch:
        for module, name, kept in (
            (GENERATION, "search", found),
            (evaluation, "simulate_by_recipe", runs),
            (certification, "simulate", certified),
        ):
            patch.setattr(module, name, _keeping(kept, getattr(module, name)))
        result = dj.generate(KEY, example, num=NUM, config=SMALL, on_progress=report)
    return Outcome(result, reported, certified, found[0], runs[0])


def _keeping(kept, function):
    """The function, whose results are kept."""

    def keeping(*args, **options):
        kept.append(function(*args, **options))
        return kept[-1]

    return keeping


@pytest.fixture
def searched(outcome, monkeypatch):
    """Spares `generate` the search: it finds what the run in Python found."""
    monkeypatch.setattr(GENERATION, "search", lambda *_: outcome.found)


@pytest.fixture
def simulated(outcome, monkeypatch):
    """Spares `generate` the simulation of its first candidates."""
    rest, num = evaluation.simulate_by_recipe, len(outcome.first.num_spikes)

    def simulate(neuron, g, *args, **options):
        return outcome.first if len(g) == num else rest(neuron, g, *args, **options)

    monkeypatch.setattr(evaluation, "simulate_by_recipe", simulate)


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


def test_the_same_seed_gives_the_same_population(folder, outcome):
    _, g = read_models(folder)
    assert np.allclose(outcome.result.g, g, rtol=1e-5)
    assert outcome.result.accepted.all()
    assert "20 of 20" in outcome.result.report()


@pytest.mark.parametrize("interruption", (KeyboardInterrupt, dj.Cancelled))
def test_an_interrupted_search_keeps_what_it_found(example, simulated, interruption):
    def interrupt(stage: Stage, done: int, total: int) -> None:
        # Those who cancel, unlike Ctrl-C, go on raising: how else would they be heard?
        if stage.name == "correcting" or raised and interruption is dj.Cancelled:
            raised.append(stage)
            raise interruption

    raised = []
    result = dj.generate(
        KEY, example, num=2000, tolerance=0.03, config=SMALL, on_progress=interrupt
    )
    assert result.settings["interrupted"]
    assert len(result.rounds) == 1
    assert 0 < result.num_accepted < 100
    assert result.num_accepted == result.rounds[0].num_valid - result.num_uncertified
    assert result.certificate is None


def test_a_search_cancelled_before_it_found_anything_says_so(example):
    def cancel(stage: Stage, done: int, total: int) -> None:
        if stage.name == "simulating_the_posterior":
            raise dj.Cancelled

    with pytest.raises(dj.Cancelled):
        dj.generate(KEY, example, num=8, config=SMALL, on_progress=cancel)


def test_a_search_can_be_cancelled_while_it_simulates(outcome):
    names = [name for name, *_ in outcome.reported]
    assert names.count("simulating_the_posterior") > 3


def test_delivered_members_are_tried_from_another_start(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (name,) = manifest["certificate"]
    assert name == "another start"
    share = manifest["certificate"][name]["valid"]
    with (folder / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    valid = [row["from_another_start"] == "true" for row in rows]
    assert len(valid) == NUM
    assert np.mean(valid) == share > 0.8
    assert "robustness" not in rows[0]
    assert "From another start (25 mV higher" in (folder / "report.html").read_text()


def test_by_default_certification_is_one_simulation(outcome):
    (run,) = outcome.certified
    assert run.num_spikes.shape == (1, NUM)
    assert outcome.result.certificate is not None
    assert outcome.result.certificate.valid.shape == (NUM, 1)
    assert "From another start, " in outcome.result.report()
    last = [args for args in outcome.reported if args[0] == "certifying"]
    assert last[0] == ("certifying", 0, NUM)
    assert last[-1] == ("certifying", NUM, NUM) == outcome.reported[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("searched")
def test_members_are_perturbed_when_asked(example):
    config = dataclasses.replace(SMALL, robustness=True)
    result = dj.generate(KEY, example, model="stg-prinz", num=4, config=config)
    certificate = result.certificate
    assert certificate is not None
    neuron = result.neuron
    kinds = ["start", *["conductances"] * 2 * len(neuron.channels)]
    assert list(certificate.axes) == [*kinds, *["current"] * 2, "noise", "temperature"]
    # What it says is about the members that are delivered, in their order.
    changed = result.g.copy()
    changed[:, neuron.index("Na")[0]] *= 0.8
    duration, discard = result.duration, result.discard
    dt = neuron.required_recipe.dt
    run = dj.simulate(neuron, changed, duration, discard=discard, dt=dt)
    valid = dj.is_valid(dj.spike_features(run.spike_times), result.target, 0.1)
    np.testing.assert_array_equal(
        certificate.valid[:, certificate.names.index("Na -20 %")], valid
    )
    assert "With one conductance 20 % lower or higher" in result.report()
    again = dj.certify(
        neuron,
        result.g,
        example,
        axes=("noise",),
        key=jr.fold_in(KEY, FOLD_OF_CERTIFICATES),
        duration=duration,
        discard=discard,
    )
    noisy = certificate.along("noise")
    assert noisy is not None and noisy.perturbations == again.perturbations
    np.testing.assert_array_equal(noisy.valid, again.valid)


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("when", (0, 1))
def test_an_interrupted_certification_loses_no_member(example, when):
    def interrupt(stage: Stage, done: int, total: int) -> None:
        if stage.name == "certifying" and done >= when:
            raise KeyboardInterrupt

    result = dj.generate(KEY, example, num=NUM, config=SMALL, on_progress=interrupt)
    assert result.num_accepted == NUM
    assert result.certificate is None
    assert result.settings["interrupted"]
    assert "another start" not in result.report()


def test_models_of_a_run_are_certified_by_command(folder, tmp_path, capsys):
    out = tmp_path / "checks.csv"
    args = ("certify", folder, EXAMPLE, "--axes", "start", "current")
    assert dicjax(*args, "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "models.csv").open(newline="") as file:
        models = list(csv.DictReader(file))
    noise = dj.stg_prinz().required_recipe.noise[0]
    changed = [f"current {sign}{noise / 2:g} µA/cm²" for sign in "-+"]
    assert list(rows[0]) == ["member", "another start", *changed, "robustness"]
    # At the whole step, as when the run was made.
    assert [row["another start"] for row in rows] == [
        row["from_another_start"] for row in models
    ]
    for row in rows:
        share = np.mean([row[name] == "true" for name in changed])
        assert float(row["robustness"]) == pytest.approx(share)
    share = np.mean([row[changed[0]] == "true" for row in rows])
    (line,) = (line for line in said if line.startswith(changed[0]))
    assert line.split()[3] == f"{share:.0%}"
    assert said[0].startswith("check")
    # Without a file, the table alone.
    assert dicjax("certify", folder, EXAMPLE, "--axes", "start") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["check", "another"]


def test_bad_questions_to_certify_get_a_sentence(folder, tmp_path, capsys):
    out = ("--out", tmp_path / "checks.csv")
    assert dicjax("certify", folder, EXAMPLE, "--tolerance", 2, *out) == 2
    assert "--tolerance must be above 0 and at most 1, got 2" in capsys.readouterr().err
    assert dicjax("certify", folder, EXAMPLE, "--axes", "pressure", *out) == 2
    assert "pressure" in capsys.readouterr().err
    two = tmp_path / "two.csv"
    spikes = [f"{unit},{100 * i}" for i in range(1, 13) for unit in "ab"]
    two.write_text("\n".join(["unit,spike_time_ms", *spikes]) + "\n")
    assert dicjax("certify", folder, two, *out) == 2
    assert "choose one with --unit-id: 'a', 'b'" in capsys.readouterr().err
    assert not out[1].exists()


def test_a_run_is_not_overwritten_unasked(folder, capsys):
    before = (folder / "models.csv").read_bytes()
    assert dicjax("generate", EXAMPLE, "--out", folder) == 2
    assert "--overwrite" in capsys.readouterr().err
    args = ("--duration", 2000, "--overwrite")
    assert dicjax("simulate", folder, "--out", folder, *args) == 2
    assert "is read and would be replaced" in capsys.readouterr().err
    assert (folder / "models.csv").read_bytes() == before


def test_dics_and_simulations_of_a_run_come_by_command(folder, tmp_path, capsys):
    assert dicjax("dic", folder, "--out", tmp_path / "dics.csv") == 0
    lines = (tmp_path / "dics.csv").read_text().splitlines()
    assert len(lines) == NUM + 1
    args = ("--duration", 2000, "--discard", 1000, "--dt", 0.1)
    assert dicjax("simulate", folder, "--out", tmp_path / "again", *args) == 0
    assert (tmp_path / "again" / "spikes.parquet").is_file()
    assert f"{NUM} models simulated, 0 failed" in capsys.readouterr().out


def test_inference_is_about_the_members_that_result(folder, example):
    # The posterior's 99 % box holds most delivered members' own DICs.
    _, g = read_models(folder)
    neuron = dj.stg_prinz()
    dics = np.asarray(dj.dynamic_input_conductances(neuron, g, neuron.V_ref))[:, 1:]
    posterior = dj.infer([example], "stg-prinz")
    assert posterior.in_distribution.all()
    low, high = np.moveaxis(np.asarray(posterior.interval(0.99))[0], -1, 0)
    assert ((low <= dics) & (dics <= high)).mean() > 0.6


@pytest.mark.usefixtures("searched")
def test_a_window_is_advised_to_each_reader_in_their_words(example, tmp_path, capsys):
    isi = np.diff(example.times)
    slowing = np.cumsum(isi * np.linspace(0.75, 1.25, isi.size))
    out = ("--members", 4, "--model", "stg-prinz", "--out", tmp_path / "out")
    recording = write_csv(tmp_path / "x.csv", list(slowing))
    assert dicjax("generate", recording, *out) in (0, 1)
    assert re.search(
        r"use --window auto, or --window \d+ \d+\.", capsys.readouterr().err
    )
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (warned,) = about["settings"]["warnings"]
    assert re.search(
        r"use its steady stretch, or the window [\d.]+ to [\d.]+ s\.", warned
    )
    assert warned in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("searched")
def test_a_checkpoint_named_by_its_folder_is_the_one_used(example):
    path = shipped_checkpoint("stg-prinz")
    result = dj.generate(
        KEY, example, model="stg-prinz", num=3, config=SMALL, checkpoint=path
    )
    assert result.num_accepted == 3
    # No other model is looked at.
    assert set(result.settings["distance_to_simulated_members"]) == {"stg-prinz"}


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
    result = dj.generate(jr.key(0), train, model="stg-prinz", num=100)
    assert result.num_accepted == 100
    assert result.participation_ratio > 2
