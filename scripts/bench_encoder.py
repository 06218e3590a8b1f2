"""Measures encoders and what is built on them, beside what else could be used.

`bench_encoder.py tests`: the tables of errors and coverage in the shipped checkpoints.
`bench_encoder.py seeds MODEL FOLDER...`: the same for checkpoints trained from other
seeds (`train_encoder.py MODEL --seed N`), as the mean and range over all with the
shipped one.
`bench_encoder.py speed [BATCH]...`: steps and readings per second on this device, in
float32 and bfloat16.
`bench_encoder.py calibration MODEL`: SBC and TARP of held-out members.
`bench_encoder.py emulator MODEL`: how well the emulator tells what members fire
like, and how fast.
`bench_encoder.py flaws MODEL`: errors as jitter, missed and spurious spikes grow.
`bench_encoder.py recordings FOLDER`: which recordings count as in distribution.
`bench_encoder.py targets [NUM] [--npe]`: candidates before any selection, for STG
targets drawn by DICs and from the Monte-Carlo box, clean and noisy, by dicjax, by a
table of neighbours, by the true DICs and (`pip install dicjax[npe]`) by sbi's NPE.
`bench_encoder.py learning DATA [STEPS]`: adapter against training from nothing, on the
dopamine neuron's members in DATA, by number of members.

Simulated members are made anew where DATA or ./data does not hold them.
"""

import os
import pathlib
import sys


os.environ.setdefault("EQX_ON_ERROR", "nan")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jax.random as jr  # noqa: E402
import numpy as np  # noqa: E402
import scipy.stats  # noqa: E402

import dicjax as dj  # noqa: E402
from dicjax.dics.sampling import OK  # noqa: E402
from dicjax.generation.config import GenerateConfig
from dicjax.generation.search import Search  # noqa: E402
from dicjax.inference.adapter import merge  # noqa: E402
from dicjax.inference.calibration import (
    evaluate,
    expected_coverage,
    plain_calibration,
    ranks_of_truths,
    trains_of,
)
from dicjax.inference.checkpoint import (
    load_checkpoint,
    shipped_checkpoint,
    shipped_models,
)
from dicjax.inference.config import TrainingConfig  # noqa: E402
from dicjax.inference.dataset import (
    Dataset,
    make_dataset,
    PRIOR_OF,
    SAMPLERS,
    Source,
)
from dicjax.inference.emulator import DECISIVE, guess, log_conductances  # noqa: E402
from dicjax.inference.encoder import PRIORS, read  # noqa: E402
from dicjax.inference.library import log_features  # noqa: E402
from dicjax.inference.posterior import posterior_of, read_trains  # noqa: E402
from dicjax.inference.train import adapt  # noqa: E402
from dicjax.inference.training import batch_of, learnable, new_encoder, train_encoder
from dicjax.populations.diversity import participation_ratio  # noqa: E402
from dicjax.populations.evaluation import simulated_time  # noqa: E402
from dicjax.spikes.features import features_of, features_of_all  # noqa: E402
from dicjax.sweeps import swept_dataset  # noqa: E402


SEED = 77  # of members that no encoder has seen
NUM_CELLS = 200  # candidates per target
TOLERANCE = 0.10


def tests() -> None:
    for model in shipped_models():
        header = load_checkpoint(shipped_checkpoint(model), model).header
        print(f"{model}, {header['num_parameters']:,} numbers, {header['date']}")
        for name, table in header["tests"].items():
            for label, row in table.items():
                print(
                    f"  {name}, {label} ({row['num']}): g_s {row['mae_g_s']:.2f}, g_u "
                    f"{row['mae_g_u']:.2f}, label {row['label']:.4f}, coverage "
                    + " ".join(
                        f"{row[f'coverage_{level}']:.3f}" for level in (50, 80, 90, 95)
                    )
                    + f", 90 % widths {row['width_90_g_s']:.1f} "
                    f"{row['width_90_g_u']:.1f}, flagged {row['flagged']:.3f}"
                )


def seeds(model: str, folders: list[str]) -> None:
    paths = [shipped_checkpoint(model), *map(pathlib.Path, folders)]
    found = [load_checkpoint(path, model).header["tests"] for path in paths]
    for name, table in found[0].items():
        for label in table:
            rows = [x[name][label] for x in found]
            columns = ("mae_g_s", "mae_g_u", "label", "coverage_90")
            spread = {c: np.array([row[c] for row in rows]) for c in columns}
            print(
                f"{model}, {name}, {label} ({rows[0]['num']}), {len(rows)} seeds: "
                + ", ".join(
                    f"{c} {x.mean():.3f} ({x.min():.3f} to {x.max():.3f})"
                    for c, x in spread.items()
                )
            )


def speed(batches: list[int]) -> None:
    encoder = load_checkpoint(shipped_checkpoint("stg"), "stg").encoder
    known = batch_of(_held_out("stg", max(batches)))
    prior = jnp.asarray(PRIORS.index("any"), jnp.int32)
    for dtype in (jnp.float32, jnp.bfloat16):
        cast = lambda x, d=dtype: x.astype(d) if eqx.is_inexact_array(x) else x
        scales = encoder.scales
        own = eqx.tree_at(lambda e: e.scales, jax.tree.map(cast, encoder), scales)
        for num in batches:
            batch = known[np.arange(num) % len(known.labels)]
            times = jnp.asarray(batch.spike_times[:, : encoder.config.max_spikes])
            jax.block_until_ready(read(own, times, prior))
            seconds = []
            for _ in range(7):
                start = time.perf_counter()
                jax.block_until_ready(read(own, times, prior))
                seconds.append(time.perf_counter() - start)
            line = (
                f"{jnp.dtype(dtype).name}, batch {num}: "
                f"{num / np.median(seconds):,.0f} trains read per second"
            )
            if dtype == jnp.float32:  # the weights that are learned stay in float32
                line += (
                    f", {num * _steps_per_second(own, known, num):,.0f} learned from"
                )
            print(f"{line} ({jax.devices()[0].device_kind})", flush=True)


def _steps_per_second(encoder, known, batch_size) -> float:
    """Over forty steps, after some in which every length is compiled for."""
    at = []
    training = TrainingConfig(num_steps=60, batch_size=batch_size)
    train_encoder(
        encoder, known, training, on_progress=lambda *_: at.append(time.perf_counter())
    )
    return 40 / (at[58] - at[18])


def _held_out(model: str, num: int) -> Dataset:
    neuron = dj.MODELS[model]()
    sampler = "box" if neuron.required_recipe.bounded else "recipe"
    return learnable(make_dataset(jr.key(SEED), neuron, (Source(sampler, num),)))


def calibration(model: str) -> None:
    loaded = load_checkpoint(shipped_checkpoint(model), model)
    test = _held_out(model, 4000)
    labels = np.asarray(features_of_all(test.spike_times).label)
    dics = test.dics[:, 1:]
    prior = PRIOR_OF[SAMPLERS[test.sampler[0]]]
    reading = read_trains(loaded.encoder, trains_of(test.spike_times), prior)
    plain = loaded.calibration.ranks_of(prior, labels)
    posterior = posterior_of(loaded.encoder, reading, plain)
    ranks = ranks_of_truths(posterior, dics)
    coverage = expected_coverage(posterior, dics)
    away = lambda x: float(scipy.stats.kstest(x, "uniform").statistic)
    for index, name in enumerate(dj.LABELS):
        of = labels == index
        if of.sum() >= 30:
            print(
                f"{model}, {name} ({of.sum()}): largest distance from uniform of SBC "
                f"ranks {away(ranks[of, 0]):.3f} (g_s), {away(ranks[of, 1]):.3f} "
                f"(g_u), of TARP {away(coverage[of]):.3f}; of uniform numbers at 95 % "
                f"{1.36 / np.sqrt(of.sum()):.3f}"
            )


def flaws(model: str) -> None:
    loaded = load_checkpoint(shipped_checkpoint(model), model)
    test = _held_out(model, 2000)
    labels = np.asarray(features_of_all(test.spike_times).label)
    rng = np.random.default_rng(SEED)

    def spoiled(jitter, missed, spurious):
        trains = []
        for times in trains_of(test.spike_times):
            kept = times[rng.random(len(times)) >= missed]
            extra = rng.uniform(times[0], times[-1], rng.poisson(spurious * len(times)))
            moved = kept + jitter * rng.normal(size=len(kept))
            trains.append(np.sort(np.concatenate([moved, extra])))
        return trains

    for flaw in (
        *((x, 0.0, 0.0) for x in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)),
        *((0.0, x, 0.0) for x in (0.02, 0.05, 0.1)),
        *((0.0, 0.0, x) for x in (0.01, 0.03)),
    ):
        table = evaluate(
            loaded.encoder,
            loaded.calibration,
            spoiled(*flaw),
            test.dics[:, 1:],
            labels,
            PRIOR_OF[SAMPLERS[test.sampler[0]]],
        )
        for label in ("tonic", "bursting"):
            row = table[label]
            print(
                f"{model}, jitter {flaw[0]:g} ms, missed {flaw[1]:.0%}, spurious "
                f"{flaw[2]:.0%}, {label}: g_s {row['mae_g_s']:.2f}, g_u "
                f"{row['mae_g_u']:.2f}, 90 % regions hold {row['coverage_90']:.3f}, "
                f"flagged {row['flagged']:.3f}"
            )


def emulator(model: str) -> None:
    loaded = load_checkpoint(shipped_checkpoint(model), model)
    neuron = loaded.neuron
    for sampler in ("recipe", "box"):
        if sampler == "recipe" and neuron.required_recipe.bounded:
            continue
        test = make_dataset(jr.key(SEED), neuron, (Source(sampler, 4000),))
        features = features_of_all(test.spike_times)
        labels = np.asarray(features.label)
        log_g = jnp.asarray(log_conductances(test.g, neuron.bounds))
        told = jax.block_until_ready(guess(loaded.emulator, log_g))
        start = time.perf_counter()
        jax.block_until_ready(guess(loaded.emulator, log_g))
        seconds = time.perf_counter() - start
        away = np.abs(np.asarray(told.features) - log_features(features))
        found = np.argmax(np.asarray(told.labels), axis=1)
        for label, columns in DECISIVE.items():
            of = labels == label
            if of.sum() < 30:
                continue
            errors = ", ".join(f"{100 * np.median(away[of, i]):.1f}" for i in columns)
            within = ", ".join(
                f"{np.mean(away[of, i] < np.log1p(TOLERANCE)):.3f}" for i in columns
            )
            print(
                f"{model}, {sampler}, {dj.LABELS[label]} ({of.sum()}): pattern told "
                f"{np.mean(found[of] == label):.3f}, median errors {errors} %, within "
                f"10 % {within}; {1e6 * seconds / len(test):.2f} us per member"
            )


def recordings(folder: pathlib.Path) -> None:
    for path in sorted(folder.glob("*.csv")):
        for train in dj.read_spike_trains(path)[:1]:
            row = f"{path.stem} ({train.num_spikes} spikes)"
            for model in shipped_models():
                posterior = dj.infer([train], model)
                row += (
                    f"; {model}: anomaly {float(np.asarray(posterior.anomaly)[0]):.2f} "
                    f"(up to {posterior.max_anomaly:.2f}), distance "
                    f"{float(np.asarray(posterior.distance)[0]):.2f}, "
                    + ("in" if posterior.in_distribution[0] else "OUT")
                )
            print(row, flush=True)


def targets(num: int, with_npe: bool) -> None:
    neuron = dj.stg()
    methods: dict[str, Callable] = {
        "dicjax": _ours(load_checkpoint(shipped_checkpoint("stg"), "stg"))
    }
    table = _table(neuron)
    methods["nearest of a table"] = _nearest(neuron, table)
    methods["true DICs"] = _true_dics(neuron)
    if with_npe:
        methods["sbi NPE"] = _npe(neuron)
    for sampler, sigma in (("recipe", 0.0), ("box", 0.0), ("recipe", 5.0)):
        source = (Source(sampler, 60 * num, sigma),)
        drawn = learnable(make_dataset(jr.key(SEED), neuron, source))
        labels = np.asarray(features_of_all(drawn.spike_times).label)
        for label in ("tonic", "bursting", "irregular"):
            of = np.flatnonzero(labels == dj.LABELS.index(label))[:num]
            if len(of) < 3:
                continue
            for name, method in methods.items():
                _report(
                    f"{sampler}, sigma {sigma:g}, {label}",
                    name,
                    neuron,
                    [
                        (trains_of(drawn.spike_times[i : i + 1])[0], drawn.dics[i, 1:])
                        for i in of
                    ],
                    method,
                )


def _report(kind, name, neuron, cells, method) -> None:
    rows = []
    for number, (times, dics) in enumerate(cells):
        start = time.time()
        target = features_of(dj.SpikeTrain(times.astype(np.float64)))
        g = method(jr.key(number), times, target, dics)
        seconds = time.time() - start
        duration, discard = simulated_time(neuron, target)
        run = dj.simulate(neuron, g, duration, discard=discard, dt=0.05)
        features = dj.spike_features(run.spike_times)
        valid = run.succeeded & np.asarray(dj.is_valid(features, target, TOLERANCE))
        same = np.asarray(features.label) == int(target.label)
        ratio = participation_ratio(g[valid]) if valid.sum() > 8 else np.nan
        rows.append((same.mean(), valid.mean(), ratio, seconds))
    label, valid, _, seconds = np.mean(rows, axis=0)
    ratios = np.array([row[2] for row in rows])
    ratio = ratios[np.isfinite(ratios)].mean() if np.isfinite(ratios).any() else np.nan
    print(
        f"{kind} ({len(rows)} targets), {name}: label {label:.3f}, valid {valid:.3f} "
        f"(least {np.min(rows, axis=0)[1]:.3f}), participation ratio of valid "
        f"{ratio:.2f}, {seconds:.2f} s",
        flush=True,
    )


def _ours(loaded) -> Callable:
    def method(key, times, target, dics):
        del dics
        reading = read_trains(loaded.encoder, [times])
        label = np.array([int(target.label)])
        ranks = loaded.calibration.ranks_of("any", label)
        posterior = posterior_of(loaded.encoder, reading, ranks)
        quiet = lambda stage, done, total: None
        search = Search(
            loaded, reading.latent[0], target, TOLERANCE, GenerateConfig(), quiet, 1
        )
        return search.first_candidates(key, posterior)[:NUM_CELLS]

    return method


def _table(neuron) -> Dataset:
    sources = (Source("recipe", 100_000), Source("box", 20_000))
    return learnable(make_dataset(jr.key(SEED + 1), neuron, sources))


def _nearest(neuron, table) -> Callable:
    del neuron
    features = features_of_all(table.spike_times)

    def method(key, times, target, dics):
        del key, times, dics
        errors = np.abs(np.asarray(dj.feature_errors(features, target)))
        worst = np.where(np.isfinite(errors), errors, np.inf).max(axis=1)
        worst = np.where(features.label == int(target.label), worst, np.inf)
        return table.g[np.argsort(worst)[:NUM_CELLS]]

    return method


def _true_dics(neuron) -> Callable:
    def method(key, times, target, dics):
        del times, target
        made = dj.compensate(key, neuron, np.tile(dics, (NUM_CELLS, 1)))
        return made.g[made.status == OK].astype(np.float32)

    return method


def _npe(neuron) -> Callable:
    """Neural posterior estimation by sbi, from 20,000 cells of the box and features."""
    import torch
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.manual_seed(SEED)
    prior = make_dataset(jr.key(SEED + 2), neuron, (Source("box", 20_000),))
    box = torch.as_tensor(neuron.box, dtype=torch.float32)
    inference = NPE(prior=BoxUniform(torch.zeros_like(box), box))
    x = torch.as_tensor(_summary(prior.spike_times))
    start = time.time()
    inference.append_simulations(torch.as_tensor(prior.g), x).train()
    print(f"NPE trained in {time.time() - start:.0f} s")
    posterior = inference.build_posterior()

    def method(key, times, target, dics):
        del target, dics
        torch.manual_seed(int(jr.bits(key, (), "uint32")))
        x = torch.as_tensor(_summary(times[None].astype(np.float32)))
        g = posterior.sample((NUM_CELLS,), x=x, show_progress_bars=False)
        return g.numpy().astype(np.float32)

    return method


def _summary(spike_times: np.ndarray) -> np.ndarray:
    """Fourteen features of a train; a hundred zeros and ones say what is missing."""
    features = features_of_all(spike_times)
    names = ("rate", "cv", "cv2", "lv", "mean_isi", "period", "intra_burst_isi")
    more = ("spikes_per_burst", "burst_duration", "duty_cycle", "num_bursts")
    columns = [np.asarray(getattr(features, name), np.float64) for name in names + more]
    table = np.concatenate(
        [np.stack(columns, axis=1), np.asarray(features.isi_quartiles)], axis=1
    )
    table = np.log1p(np.where(np.isfinite(table), np.maximum(table, 0), 0))
    return table.astype(np.float32)


def learning(data: pathlib.Path, num_steps: int) -> None:
    neuron = dj.da()
    base = load_checkpoint(shipped_checkpoint("stg"), "stg")
    known = batch_of(learnable(swept_dataset(data, neuron).read()))
    test = _held_out("da", 6000)
    labels = np.asarray(features_of_all(test.spike_times).label)
    recipe = neuron.required_recipe
    for num in (1_000, 10_000, len(known.labels)):
        # As many of every kind as chance gives.
        some = known[np.random.default_rng(0).permutation(len(known.labels))[:num]]
        training = TrainingConfig(num_steps=num_steps)
        scratch = new_encoder(
            some, recipe.g_s, recipe.g_u, base.encoder.config, training.seed
        )
        for name, start in (
            ("from nothing", scratch),
            ("adapter", adapt(base.encoder, neuron, some, 16, training.seed)),
        ):
            began = time.time()
            trained = train_encoder(start, some, training)
            table = evaluate(
                merge(trained.encoder),
                plain_calibration(),
                trains_of(test.spike_times),
                test.dics[:, 1:],
                labels,
                "recipe",
            )
            errors = ", ".join(
                f"{label} {table[label]['mae_g_s']:.2f} / {table[label]['mae_g_u']:.2f}"
                for label in ("tonic", "bursting")
            )
            print(
                f"{num} members, {name}: {errors}; {time.time() - began:.0f} s",
                flush=True,
            )


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "tests":
        tests()
    elif what == "targets":
        numbers = [int(x) for x in rest if x.isdigit()]
        targets(numbers[0] if numbers else 12, "--npe" in rest)
    elif what == "seeds":
        seeds(rest[0], rest[1:])
    elif what == "speed":
        speed([int(x) for x in rest] or [256, 1024, 4096])
    elif what in ("calibration", "emulator", "flaws"):
        measures = {"calibration": calibration, "emulator": emulator, "flaws": flaws}
        measures[what](rest[0])
    elif what == "learning":
        learning(pathlib.Path(rest[0]), int(rest[1]) if len(rest) > 1 else 3_000)
    else:
        recordings(pathlib.Path(rest[0]))


if __name__ == "__main__":
    jax.config.update(
        "jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache/dicjax")
    )
    main()
