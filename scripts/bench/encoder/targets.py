"""Candidates before any selection, by dicjax and by what else could be used."""

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator

import jax.random as jr
import numpy as np
import tyro

import dicjax as dj
from dicjax.dics import OK
from dicjax.generation import GenerateConfig
from dicjax.generation.candidates import first_candidates
from dicjax.generation.state import Problem
from dicjax.inference import Checkpoint, Dataset, posterior_of, read_trains
from dicjax.inference.dataset import learnable, make_dataset, Sampler, Source
from dicjax.populations import window_for
from dicjax.spikes import features_of, spike_features, Target
from scripts.bench.encoder.held_out import load, SEED
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.timing import clocked


NUM_CELLS = 200  # candidates per target
TOLERANCE = 0.10
# Samplers and noise, in µA/cm².
KINDS: tuple[tuple[Sampler, float], ...] = (
    ("recipe", 0.0),
    ("box", 0.0),
    ("recipe", 5.0),
)
PATTERNS = ("tonic", "bursting", "irregular")
FEWEST = 3  # targets of a kind
SCALARS = (
    *("rate", "cv", "cv2", "lv", "mean_isi", "period", "intra_burst_isi"),
    *("spikes_per_burst", "burst_duration", "duty_cycle", "num_bursts"),
)
# From a key, spike times (ms), features and the true DICs to conductances.
Method = Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets(Benchmark):
    """Valid shares of 200 candidates for STG targets, none simulated for the target.

    Targets are from the recipe and from the box, clean and noisy. Methods are dicjax, a
    table of neighbours, the recipe with the true DICs and, with --npe, sbi's neural
    posterior estimation (`pip install dicjax[npe]`).
    """

    num: tyro.conf.Positional[int] = 12
    """Targets of each kind and pattern."""
    npe: bool = False
    """Also sbi's NPE, from features of members of the box."""
    by_recipe: int = 100_000
    """Members of the table that the recipe draws."""
    by_box: int = 20_000
    """Members of the table from the box, and members that NPE learns from."""

    def measure(self) -> Iterator[Measurement]:
        """Tries every method on every target."""
        neuron, title = dj.stg(), f"{NUM_CELLS} candidates per target"
        sources = (Source("recipe", self.by_recipe), Source("box", self.by_box))
        table = learnable(make_dataset(jr.key(SEED + 1), neuron, sources))
        methods: dict[str, Method] = {
            "dicjax": by_dicjax(load("stg")),
            "nearest of a table": by_table(table),
            "true DICs": by_true_dics(neuron),
        }
        if self.npe:
            try:
                methods["sbi NPE"] = by_npe(neuron, self.by_box)
            except ModuleNotFoundError as e:
                note = f"{e.name} is not installed: pip install dicjax[npe]"
                yield Measurement(title, {"method": "sbi NPE"}, note=note)
        for sampler, sigma in KINDS:
            source = (Source(sampler, 60 * self.num, sigma),)
            drawn = learnable(make_dataset(jr.key(SEED), neuron, source))
            labels = np.asarray(spike_features(drawn.spike_times).label)
            trains = [row[np.isfinite(row)] for row in drawn.spike_times]
            for pattern in PATTERNS:
                of = np.flatnonzero(labels == dj.LABELS.index(pattern))[: self.num]
                if len(of) < FEWEST:
                    continue
                cells = [(trains[i], drawn.dics[i, 1:]) for i in of]
                for name, method in methods.items():
                    case = {
                        "from": sampler,
                        "noise": sigma,
                        "pattern": pattern,
                        "targets": len(of),
                        "method": name,
                    }
                    yield from row(title, case, validity(neuron, cells, method))


def validity(
    neuron: dj.Neuron, cells: list[tuple[np.ndarray, np.ndarray]], method: Method
) -> dict[tuple[str, str], float | list[float]]:
    """How many candidates are like each of some targets; means, and shares of each."""
    labels, valids, ratios, times = [], [], [], []
    for number, (train, dics) in enumerate(cells):
        target = features_of(dj.SpikeTrain(train.astype(np.float64)))
        given = jr.key(number), train, target, dics
        g, seconds = clocked(lambda given=given: method(*given))
        duration, discard = window_for(neuron, Target(target, TOLERANCE))
        run = dj.simulate(neuron, g, duration, discard=discard, dt=0.05)
        features = dj.spike_features(run.spike_times)
        valid = run.succeeded & np.asarray(dj.is_valid(features, target, TOLERANCE))
        several = valid.sum() > 8
        labels.append(float(np.mean(np.asarray(features.label) == int(target.label))))
        valids.append(float(valid.mean()))
        ratios.append(dj.participation_ratio(g[valid]) if several else np.nan)
        times.append(seconds)
    finite = [x for x in ratios if np.isfinite(x)]
    return {
        ("same pattern, mean", ""): float(np.mean(labels)),
        ("valid, mean", ""): float(np.mean(valids)),
        ("participation ratio, mean", ""): float(np.mean(finite)) if finite else np.nan,
        ("valid", ""): valids,
        ("time", "s"): times,
    }


def by_dicjax(loaded: Checkpoint) -> Method:
    """Draws of the posterior and the density, corrected by the emulator."""

    def method(key, train, target, dics):
        del dics
        reading = read_trains(loaded.encoder, [train])
        label = np.array([int(target.label)])
        ranks = loaded.calibration.ranks_of("any", label)
        posterior = posterior_of(loaded.encoder, reading, ranks)
        problem = Problem(
            loaded,
            Target(target, TOLERANCE),
            posterior,
            np.asarray(reading.latent[0]),
            num_wanted=1,
            config=GenerateConfig(),
        )
        return first_candidates(key, problem)[:NUM_CELLS]

    return method


def by_table(table: Dataset) -> Method:
    """The members of a table whose worst feature is nearest to the target's."""
    features = spike_features(table.spike_times)

    def method(key, train, target, dics):
        del key, train, dics
        errors = np.abs(np.asarray(dj.feature_errors(features, target)))
        worst = np.where(np.isfinite(errors), errors, np.inf).max(axis=1)
        worst = np.where(features.label == int(target.label), worst, np.inf)
        return table.g[np.argsort(worst)[:NUM_CELLS]]

    return method


def by_true_dics(neuron: dj.Neuron) -> Method:
    """The published recipe, given the target's own (g_s, g_u)."""

    def method(key, train, target, dics):
        del train, target
        members = dj.compensate(key, neuron, np.tile(dics, (NUM_CELLS, 1)))
        return members.g[members.status == OK].astype(np.float32)

    return method


def by_npe(neuron: dj.Neuron, num: int) -> Method:
    """Neural posterior estimation by sbi, from features of `num` cells of the box."""
    NPE = importlib.import_module("sbi.inference").NPE
    BoxUniform = importlib.import_module("sbi.utils").BoxUniform
    torch = importlib.import_module("torch")

    torch.manual_seed(SEED)
    prior = make_dataset(jr.key(SEED + 2), neuron, (Source("box", num),))
    box = torch.as_tensor(neuron.box, dtype=torch.float32)
    inference = NPE(prior=BoxUniform(torch.zeros_like(box), box))
    x = torch.as_tensor(summary(prior.spike_times))
    began = time.perf_counter()
    inference.append_simulations(torch.as_tensor(prior.g), x).train()
    print(f"NPE trained in {time.perf_counter() - began:.0f} s")
    posterior = inference.build_posterior()

    def method(key, train, target, dics):
        del target, dics
        torch.manual_seed(int(jr.bits(key, (), "uint32")))
        x = torch.as_tensor(summary(train[None].astype(np.float32)))
        g = posterior.sample((NUM_CELLS,), x=x, show_progress_bars=False)
        return g.numpy().astype(np.float32)

    return method


def summary(spike_times: np.ndarray) -> np.ndarray:
    """Fourteen features of each train, as log(1 + x); 0 where one is not defined."""
    features = spike_features(spike_times)
    columns = [np.asarray(getattr(features, name), np.float64) for name in SCALARS]
    table = np.concatenate(
        [np.stack(columns, axis=1), np.asarray(features.isi_quartiles)], axis=1
    )
    table = np.log1p(np.where(np.isfinite(table), np.maximum(table, 0), 0))
    return table.astype(np.float32)
