import dataclasses

import jax
import numpy as np
from runs import example_train

import dicjax as dj
from dicjax.generation.result import count_failures
from dicjax.populations.evaluation import judge, Verdict, wilson
from dicjax.spikes.target import as_target
from dicjax.spikes.trains import pad_trains


def test_wilson_intervals_cover_what_they_should():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        hits = rng.binomial(200, share, 2000)
        inside = [
            low <= share <= high for low, high in (wilson(int(h), 200) for h in hits)
        ]
        assert np.mean(inside) > 0.92
    assert wilson(0, 0) == (0.0, 1.0)


def test_every_invalid_member_has_a_reason():
    example = example_train()
    target = as_target(example, 0.1)
    trains = {
        "valid": example.times,
        "period": 1.2 * example.times,
        "other_pattern": np.arange(1, 100) * 50.0,
        "fell_short": np.array([10.0]),
        "silent": np.array([10.0]),
        "failed": example.times,
    }
    run = dj.Run(
        spike_times=pad_trains(list(trains.values())),
        num_spikes=np.array([len(x) for x in trains.values()]),
        succeeded=np.array([name != "failed" for name in trains]),
        overflowed=np.zeros(len(trains), bool),
        fell_short=np.array([name == "fell_short" for name in trains]),
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
        fell_short=np.zeros(1, bool),
        valid=np.zeros(1, bool),
        score=np.ones(1),
    )
    assert count_failures(verdict, target) == {"isi_median": 1}
