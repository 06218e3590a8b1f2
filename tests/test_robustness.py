import dataclasses
import re

import jax
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.dics.sampling import compensate
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Temperature
from dicjax.populations.certification import (
    AXES,
    Certificate,
    certify,
    compare_under,
    Perturbation,
    unperturbed,
    warmer,
)
from dicjax.populations.evaluation import wilson, Window, window_for
from dicjax.simulation.simulate import simulate
from dicjax.simulation.stimulus import Step
from dicjax.spikes.features import spike_features
from dicjax.spikes.patterns import LABELS
from dicjax.spikes.target import as_target, Target
from dicjax.spikes.trains import SpikeTrain
from dicjax.spikes.validity import is_valid


STG = MODELS["stg"]()
NUM, DURATION, DISCARD, DT = 8, 4000.0, 2000.0, 0.1
PLACES = {"bursting": (-8.0, 4.0), "tonic": (5.0, 4.0)}


def features_of(g, neuron=STG, dt=DT, stimulus=None):
    run = simulate(neuron, g, DURATION, discard=DISCARD, dt=dt, stimulus=stimulus)
    return spike_features(run.spike_times)


def ask(g, target, *axes, **options) -> Certificate:
    """A certificate of the neuron, for these axes."""
    return certify(
        STG, g, target, axes=axes, duration=DURATION, discard=DISCARD, **options
    )


def one_of(features, i):
    return jax.tree.map(lambda x: x[i], features)


@pytest.fixture(
    scope="module", params=("bursting", pytest.param("tonic", marks=pytest.mark.slow))
)
def population(request):
    """Members, their features, and those of the member that most of them fire like."""
    made = compensate(jr.key(0), STG, np.array(PLACES[request.param]), num=NUM)
    assert made.num_ok == NUM
    features = features_of(made.g)
    alike = [np.asarray(is_valid(features, one_of(features, i), 0.1)) for i in range(8)]
    best = int(np.argmax([x.sum() for x in alike]))
    target = one_of(features, best)
    assert LABELS[int(target.label)] == request.param
    return made.g, target, alike[best], features


@pytest.fixture(scope="module")
def everything(population):
    g, target, *_ = population
    return ask(g, target, *AXES, key=jr.key(1))


# Checks


def test_checks_come_in_one_order_and_say_what_they_are(population, everything):
    g, target, *_ = population
    by_channel = [f"{c} {s}20 %" for c in STG.channel_names for s in "-+"]
    first, last = ["half the step", "another start"], ["noise of 3 µA/cm²", "+10 °C"]
    current = ["current -1.5 µA/cm²", "current +1.5 µA/cm²"]
    assert list(everything.names) == first + by_channel + current + last
    assert everything.valid.shape == everything.same_pattern.shape == (NUM, 22)
    few = ask(g, target, "temperature", "start", warming=-5.0)
    assert few.names == ("another start", "-5 °C")
    np.testing.assert_array_equal(few.valid[:, 0], everything.valid[:, 1])


def test_whoever_is_valid_has_the_pattern(everything):
    assert np.all(everything.same_pattern[everything.valid])


def test_members_match_themselves_at_half_the_step_and_from_another_start(population):
    g, _, _, features = population
    valid = [
        ask(g[i : i + 1], one_of(features, i), "step", "start").valid[0]
        for i in range(3)
    ]
    assert np.mean(valid) > 0.8


def test_nothing_changed_is_plain_validity(population):
    g, target, plain, _ = population
    axes = ("conductances", "current", "temperature")
    none = ask(g[:6], target, *axes, change=0.0, current=0.0, q10=1.0)
    np.testing.assert_array_equal(none.valid, np.repeat(plain[:6, None], 19, axis=1))
    assert none.names[:2] == ("Na -0 %", "Na +0 %")


def test_a_check_is_what_simulating_the_change_says(population, everything):
    g, target, *_ = population
    changed = g.copy()
    changed[:, STG.index("CaS")[0]] *= 1.2
    cases = {
        "half the step": features_of(g, dt=DT / 2),
        "CaS +20 %": features_of(changed),
        "current -1.5 µA/cm²": features_of(g, stimulus=Step(-1.5)),
        "current +1.5 µA/cm²": features_of(g, stimulus=Step(1.5)),
    }
    for name, features in cases.items():
        column = everything.names.index(name)
        valid = np.asarray(is_valid(features, target, 0.1))
        np.testing.assert_array_equal(everything.valid[:, column], valid)
        same = np.asarray(features.label) == int(target.label)
        np.testing.assert_array_equal(everything.same_pattern[:, column], same)


def test_conductances_differ_in_how_much_they_matter(everything):
    columns = everything.valid[:, 2:18].mean(axis=0)
    assert columns.max() - columns.min() > 0.3


def test_a_check_does_not_depend_on_how_many_members_there_are(population, everything):
    g, target, *_ = population
    twice = ask(np.tile(g[:4], (2, 1)), target, "conductances", "current")
    wanted = np.tile(everything.valid[:4, 2:20], (2, 1))
    np.testing.assert_array_equal(twice.valid, wanted)
    few = ask(g[:3], target, "noise", key=jr.key(1))
    np.testing.assert_array_equal(few.valid[:, 0], everything.valid[:3, 20])


def test_a_wider_tolerance_lets_more_members_pass(population, everything):
    g, target, *_ = population
    wide = ask(g, target, "current", tolerance=0.5)
    assert np.all(wide.valid[everything.valid[:, 18:20]])
    assert wide.valid.sum() > everything.valid[:, 18:20].sum()


def test_noise_is_as_strong_as_asked_for(population):
    g, target, plain, _ = population
    faint, strong = (
        ask(g, target, "noise", key=jr.key(0), noise=sigma) for sigma in (0.0, 30.0)
    )
    assert faint.names == ("noise of 0 µA/cm²",)
    assert np.mean(faint.valid[:, 0] == plain) > 0.9
    assert strong.valid.sum() < faint.valid.sum()


# Temperature


def test_when_charging_speeds_up_too_warming_is_but_a_higher_pace(population):
    g, target, *_ = population
    fine = DT / 4  # steps are not scaled exactly
    plain = np.asarray(is_valid(features_of(g, dt=fine), target, 0.1))
    check = warmer(unperturbed(STG, g, target, 0.1), 10.0, 2.5)
    faster = dataclasses.replace(check.neuron, capacitance=STG.capacitance / 2.5)
    check = check._replace(neuron=faster, dt=fine / 2.5)
    valid, same = compare_under(check, Window(DURATION / 2.5, DISCARD / 2.5), None)
    assert np.mean(valid[0] == plain) > 0.95
    assert same[0][plain].all()


def test_a_target_at_a_higher_pace_has_shorter_times_and_the_same_shape(population):
    target = population[1]
    fast = Target(target).at_pace(2.0).features
    np.testing.assert_allclose(fast.rate, 1000 / fast.mean_isi)
    assert float(fast.rate) == pytest.approx(2 * float(target.rate))
    for name in ("label", "cv", "cv2", "lv", "spikes_per_burst", "duty_cycle"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(target, name))
    for name in ("period", "intra_burst_isi", "burst_duration", "isi_quartiles"):
        ours, theirs = getattr(fast, name), getattr(target, name)
        np.testing.assert_allclose(2 * ours, theirs)


def test_a_neuron_that_has_a_temperature_is_warmed_from_there_as_it_says():
    own = Temperature(celsius=20.0, reference=10.0, q10=3.0)
    neuron = dataclasses.replace(STG, temperature=own)
    target = one_of(features_of(np.asarray(STG.default_g)[None]), 0)
    check = warmer(unperturbed(neuron, STG.default_g[None], target, 0.1), 10.0, 2.5)
    warm = check.neuron.temperature
    assert warm is not None and check.perturbations == (
        Perturbation("temperature", 10.0),
    )
    assert float(warm.celsius) == 30.0 and float(warm.reference) == 10.0
    assert float(warm.speed) == pytest.approx(9.0)
    assert check.dt == pytest.approx(DT / 3)
    assert float(check.target.features.rate) == pytest.approx(3 * float(target.rate))
    cold = warmer(unperturbed(STG, STG.default_g[None], target, 0.1), -10.0, 2.5)
    assert cold.dt == DT
    assert float(cold.target.features.rate) == pytest.approx(float(target.rate) / 2.5)


# Reports


def _certificate(names, *rows):
    valid = np.array(rows, bool)
    same = valid | np.eye(*valid.shape, dtype=bool)
    return Certificate(tuple(map(Perturbation.from_words, names)), valid, same)


@pytest.mark.parametrize(
    "perturbation, words",
    (
        (Perturbation("step", 0.5), "half the step"),
        (Perturbation("start", 25.0), "another start"),
        (Perturbation("conductances", -0.2, "Na"), "Na -20 %"),
        (Perturbation("conductances", 0.125, "CaT"), "CaT +12.5 %"),
        (Perturbation("conductances", -0.0, "Na"), "Na -0 %"),
        (Perturbation("current", -1.5), "current -1.5 µA/cm²"),
        (Perturbation("noise", 3.0), "noise of 3 µA/cm²"),
        (Perturbation("noise", 1e-6), "noise of 1e-06 µA/cm²"),
        (Perturbation("temperature", -5.0), "-5 °C"),
    ),
)
def test_a_perturbation_has_a_name_that_can_be_read_back(perturbation, words):
    assert perturbation.words == words
    assert Perturbation.from_words(words) == perturbation
    assert perturbation.is_lower == ("-" in words.split()[-2][:1])


@pytest.mark.parametrize("words", ("", "Na", "Na 20 %", "noise of 3 mV", "20 K"))
def test_other_words_name_no_perturbation(words):
    with pytest.raises(ValueError, match=re.escape(repr(words))):
        Perturbation.from_words(words)


def test_shares_come_with_wilson_intervals():
    names = ("half the step", "Na -20 %", "Na +20 %")
    certificate = _certificate(names, (1, 1, 0), (1, 0, 0), (1, 1, 0), (1, 1, 0))
    first, second, third = certificate.shares()
    assert first == ("half the step", 1.0, *wilson(4, 4), 1.0)
    assert second == ("Na -20 %", 0.75, *wilson(3, 4), 1.0)
    assert third == ("Na +20 %", 0.0, *wilson(0, 4), 0.25)
    assert first[2:4] == pytest.approx((0.5101, 1.0), abs=1e-4)  # textbook values
    assert second[2:4] == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_robustness_counts_perturbations_alone():
    names = ("half the step", "another start", "Na -20 %", "+10 °C")
    certificate = _certificate(names, (0, 0, 1, 1), (1, 1, 1, 0), (1, 1, 0, 0))
    np.testing.assert_array_equal(certificate.robustness, [1.0, 0.5, 0.0])
    numerical = _certificate(names[:2], (1, 1), (0, 1))
    assert np.isnan(numerical.robustness).all()


def test_checks_of_one_axis_are_had_alone():
    names = ("another start", "Na -20 %", "Na +20 %")
    certificate = _certificate(names, (1, 0, 1), (1, 0, 0), (0, 1, 0))
    changed = certificate.along("conductances")
    assert changed is not None and changed.names == names[1:]
    np.testing.assert_array_equal(changed.valid, [[0, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(changed.same_pattern, [[0, 1], [1, 0], [1, 1]])
    assert changed.shares() == certificate.shares()[1:]
    assert certificate.along("noise") is None


def test_a_certificate_prints_as_a_table():
    names = ("half the step", "current +1.5 µA/cm²")
    text = str(_certificate(names, (1, 1), (1, 0), (1, 0), (1, 0)))
    header, first, second, last = text.splitlines()
    assert " ".join(header.split()) == "check valid 95 % interval same pattern"
    assert " ".join(first.split()) == "half the step 100% 51% to 100% 100%"
    assert " ".join(second.split()) == "current +1.5 µA/cm² 25% 5% to 70% 50%"
    assert len(header) == len(first) == len(second)
    assert last == (
        "Of 4 members, one stays valid under 25% of perturbations on average."
    )
    assert len(str(_certificate(names[:1], (1,))).splitlines()) == 2


def test_progress_is_reported_over_all_checks(population):
    g, target, *_ = population
    seen = []
    report = lambda stage, *how_far: seen.append((stage.name, *how_far))
    ask(g[:4], target, "step", "current", on_progress=report)
    names, done, total = zip(*seen, strict=True)
    assert set(names) == {"certifying"}
    assert np.all(np.array(total) == 3 * 4 * DURATION)
    assert np.all(np.diff(done) > 0) and done[-1] == total[-1]


# The boundary


def test_a_target_may_be_a_train_and_sets_how_long_is_simulated(population):
    g, target, *_ = population
    isi = float(target.mean_isi)
    train = SpikeTrain(np.arange(1.0, 200.0) * isi)
    duration, discard = window_for(STG, as_target(train))
    assert duration == pytest.approx(3000 + max(20 * isi, 2000.0))
    totals = set()
    ours = certify(
        STG,
        g[:4],
        train,
        axes=("start",),
        on_progress=lambda stage, done, total: totals.add(total),
    )
    assert totals == {4 * np.ceil(duration)}
    theirs = certify(
        STG,
        g[:4],
        train,
        axes=("start",),
        duration=duration,
        discard=discard,
    )
    np.testing.assert_array_equal(ours.valid, theirs.valid)
    with pytest.raises(ValueError, match="takes 5"):
        certify(STG, g, np.arange(1.0, 5.0))


@pytest.mark.parametrize(
    "options, message",
    (
        ({"axes": ("step", "pressure")}, "`axes`.*'pressure'"),
        ({"axes": ()}, r"`axes`.*\(\)"),
        ({"axes": ("noise",)}, "`key`"),
        ({"change": 1.5}, "`change`.*1.5"),
        ({"current": -1.0}, "`current`.*-1.0"),
        ({"noise": np.inf}, "`noise`.*inf"),
        ({"q10": 0.0}, "`q10`.*0.0"),
        ({"tolerance": -0.1}, "`tolerance`.*-0.1"),
        ({"duration": 100.0}, "`discard`.*100.0 ms"),
        ({"duration": np.nan}, "`duration`.*nan"),
        ({"g": np.full((2, 8), -1.0)}, "Na.*-1.0 mS/cm²"),
        ({"g": np.ones((2, 7))}, r"`g`.*8.*\(2, 7\)"),
        ({"g": np.ones((0, 8))}, r"`g`.*\(0, 8\)"),
        ({"target": dj.spike_features(np.full(3, np.inf))}, "silent"),
    ),
)
def test_bad_questions_are_refused_with_the_remedy(options, message):
    target = np.arange(1.0, 50.0) * 100.0
    options = {"g": np.ones((2, 8)), "target": target} | options
    with pytest.raises(ValueError, match=message):
        certify(STG, **options)


def test_targets_of_several_trains_and_models_without_recipe_are_refused():
    several = dj.spike_features(np.tile(np.arange(1.0, 50.0) * 100.0, (3, 1)))
    with pytest.raises(ValueError, match=r"`target`.*\(3,\)"):
        certify(STG, np.ones((2, 8)), several)
    bare = dataclasses.replace(STG, recipe=None)
    with pytest.raises(ValueError, match="stg"):
        certify(bare, np.ones((2, 8)), one_of(several, 0))
