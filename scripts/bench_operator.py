"""Measures neural operators beside what else could be used.

`bench_operator.py accuracy [OPERATOR]... --data FOLDER`: scores of operators (folders
of checkpoints that differ in seed, or the name of a shipped one) on members they were
trained on and on others; of tables, neighbours and regression; of the simulator with
longer steps; and of the operators' own steps with true conductances.
`bench_operator.py ablation --data FOLDER --steps N`: operators trained anew without
some of the features, on conductances in place of them, and on fewer members.
`bench_operator.py fourier [OPERATOR]... --data FOLDER --minutes M`: a Fourier operator
trained from the same simulator for so long.
`bench_operator.py interpolation [OPERATOR]... --data FOLDER`: between members that fire
alike but differ in conductances, midpoints of conductances and of features.
`bench_operator.py speed [OPERATOR] --data FOLDER [--large]`: operator and simulator on
this device, and after how many traces the operator has paid for itself.

FOLDER holds members as `dicjax.operator.train.characterise_members` keeps them; what
is not there is simulated, and kept. Each prints tables and a line of JSON.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import operator_baselines as baselines
from operator_baselines import (
    ACHIEVED,
    achieved,
    ALIKE,
    coordinates,
    counts,
    Neighbourhood,
)
from scipy.stats import rankdata

import dicjax as dj
from dicjax.operator.characteristics import (
    are_logarithms,
    characterise,
    FEATURES,
    from_coordinates,
    NAMES,
    resting_potentials,
    to_coordinates,
)
from dicjax.operator.checkpoint import load_operator, operator_header
from dicjax.operator.config import OperatorTraining
from dicjax.operator.families import Family, find_family
from dicjax.operator.model import Operator
from dicjax.operator.prediction import respond
from dicjax.operator.scores import (
    DURATION,
    EVERY,
    make_trial,
    score,
    Scores,
    simulate_steps,
    START,
    STOP,
    Trial,
)
from dicjax.operator.train import (
    characterise_members,
    CharacterisedMembers,
    predict_trial,
)


SEED = 77  # of currents that operators were not tested on
TABLES = (30, 300, 1512)  # currents per member; the last is NOBLE's density
GROUPS = {
    "F-I curve": ("threshold", "gain", "high_gain"),
    "shape": ("height", "width", "depth"),
    "passive": ("rest", "resistance", "sag", "rebound"),
    "dynamics": ("adaptation", "latency"),
}
FEW = ("threshold", "gain")  # what NOBLE tells neurons by
MEMBERS = (64, 512, 4096)
PARTS = np.linspace(0, 1, 12)  # of an F-I curve, from ...
LOWEST = 0.9  # ... this part of the threshold
FINE = np.linspace(0.5, 1.2, 71)  # of the threshold, where first spikes are looked for
# How a score is written: its heading, a factor, digits.
COLUMNS = {
    "centred_l2": ("centred L2 %", 100, 2),
    "centred_l2_mean": ("mean %", 100, 2),
    "centred_l2_firing": ("firing %", 100, 2),
    "l2": ("raw L2 %", 100, 2),
    "spike_count": ("count %", 100, 2),
    "wrong_count": ("wrong count %", 100, 1),
    "missed": ("missed %", 100, 2),
    "false": ("false %", 100, 2),
    "timing": ("timing ms", 1, 2),
    "matched": ("F1 in 2 ms", 1, 3),
    "latency": ("latency ms", 1, 3),
    "height": ("height %", 100, 2),
    "width": ("width %", 100, 2),
    "depth": ("depth mV", 1, 3),
    "steady": ("steady mV", 1, 3),
}
Table = dict[str, list[Scores]]
Operators = Mapping[str, Operator]


def known(args: argparse.Namespace) -> tuple[Family, CharacterisedMembers, Operators]:
    operators = {str(x): load_operator(x, family=args.family) for x in args.operators}
    family = find_family(args.family)
    tell = lambda _, done, total: print(f"characterised {done} of {total}", end="\r")
    library = characterise_members(
        family, args.members, 0, folder=args.data, on_progress=tell
    )
    print(f"{len(library)} members of {args.family}, {len(library.unseen)} unseen\n")
    return family, library, operators


def trials(family: Family, library: CharacterisedMembers, num: int) -> dict[str, Trial]:
    some = {"seen": library.seen[:num], "unseen": library.unseen[:num]}
    return {k: make_trial(SEED, family, x.g, x.measured) for k, x in some.items()}


def answers_of(operators: Operators, trial: Trial, kind: str) -> dict[str, np.ndarray]:
    """Answers of operators to whom a trial's members are what it says they are."""
    answers = {}
    for name, operator in operators.items():
        near = Neighbourhood(np.asarray(operator.library))
        is_seen = near.distance(trial.features) < 1e-3
        if is_seen.all() if kind == "seen" else not is_seen.any():
            answers[name] = predict_trial(operator, trial)
        else:
            print(f"{name} was trained on other members: no row for those {kind}\n")
    return answers


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    for row in (headings, ["---"] * len(headings), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def print_scores(title: str, table: Table) -> dict:
    """Prints means over seeds, with ranges where there are several; returns all."""

    def cell(scores: list[Scores], name: str) -> str:
        _, factor, digits = COLUMNS[name]
        values = factor * np.array([getattr(x, name) for x in scores])
        text = f"{values.mean():.{digits}f}"
        if len(values) > 1:
            text += f" ({values.min():.{digits}f} to {values.max():.{digits}f})"
        return text

    table = {name: scores for name, scores in table.items() if scores}
    print(f"{title}, {next(iter(table.values()))[0].num} traces:\n")
    rows = [[name, *(cell(x, c) for c in COLUMNS)] for name, x in table.items()]
    print_table(["", *(heading for heading, _, _ in COLUMNS.values())], rows)
    return {name: [dataclasses.asdict(x) for x in of] for name, of in table.items()}


def tell_json(args: argparse.Namespace, **figures) -> None:
    git = ("git", "describe", "--always", "--dirty")
    here = pathlib.Path(__file__).parent
    described = subprocess.run(git, cwd=here, capture_output=True, text=True)
    machine = {
        "device": jax.devices()[0].device_kind,
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "jax": jax.__version__,
        "commit": described.stdout.strip(),
    }
    settings = {k: str(x) for k, x in vars(args).items() if k != "run"}
    line = json.dumps({"settings": settings, "machine": machine, **figures})
    print(line.replace("NaN", "null"))


def accuracy(args: argparse.Namespace) -> None:
    family, library, operators = known(args)
    figures = {}
    for kind, trial in trials(family, library, args.num).items():
        answers = answers_of(operators, trial, kind)
        table: Table = {"operator": [score(V, trial.V) for V in answers.values()]}
        table |= told_true(family, [operators[name] for name in answers], trial)
        others = baselines.trivial(trial.V)
        for dt, V in baselines.coarser(family, trial):
            others[f"simulator, dt {dt:g} ms"] = V
        if kind == "seen":
            for num in TABLES:
                V = baselines.look_up(family, trial, num)
                others[f"table of {num} currents"] = V
        else:
            others |= baselines.by_neighbours(family, library.seen, trial)
        table |= {name: [score(V, trial.V)] for name, V in others.items()}
        figures[kind] = print_scores(f"{kind} members", table)
        if kind == "unseen":
            figures["distance"] = by_distance(library.seen, answers, trial)
    some = library.unseen[: args.curves]
    figures["curves"] = firing_curves(family, some, operators)
    tell_json(args, **figures)


def told_true(family: Family, operators: Sequence[Operator], trial: Trial) -> Table:
    """What operators' steps cost, and what their features do not tell."""
    table: Table = {"operator, true conductances": [], "simulator, its amplitudes": []}
    steps, features = table.values()
    for operator in operators:
        steps.append(score(baselines.predict_told(operator, trial.g, trial), trial.V))
        told = np.asarray(operator.amplitudes(jnp.asarray(coordinates(trial.features))))
        V = simulate_steps(family, told, trial.amplitude)
        features.append(score(V, trial.V))
    return table


def by_distance(
    seen: CharacterisedMembers, answers: Mapping[str, np.ndarray], trial: Trial
) -> dict:
    """Whether members far from those that are known are predicted less well."""
    near = Neighbourhood(coordinates(seen.measured.values))
    distance = near.distance(trial.features)
    order, third = np.argsort(distance), len(distance) // 3
    size = np.linalg.norm(trial.V - trial.V.mean(axis=1, keepdims=True), axis=1)
    rows, figures = [], {}
    for name, V in answers.items():
        errors = {
            "centred L2": np.linalg.norm(V - trial.V, axis=1) / size,
            "spikes": np.abs(counts(V) - counts(trial.V)),
        }
        for of, error in errors.items():
            rank = np.corrcoef(rankdata(distance), rankdata(error))[0, 1]
            ends = [error[order[:third]].mean(), error[order[-third:]].mean()]
            rows.append([name, of, *(f"{x:.3g}" for x in (rank, *ends))])
            figures[f"{name}, {of}"] = [float(x) for x in (rank, *ends)]
    quantiles = np.quantile(distance, (0.05, 0.5, 0.95))
    print(
        f"Unseen members are {quantiles[1]:.2f} from the nearest seen one in the "
        f"median, {quantiles[0]:.2f} to {quantiles[2]:.2f} from 5 to 95 %, in standard "
        f"deviations of {seen.measured.values.shape[1]} features. Rank correlation of "
        "errors with that, and their means in the nearest and farthest third:\n"
    )
    print_table(["", "error", "correlation", "nearest", "farthest"], rows)
    return {"quantiles": quantiles.tolist(), "errors": figures}


def firing_curves(
    family: Family, some: CharacterisedMembers, operators: Operators
) -> dict:
    """Errors of F-I curves, and of the current of the first spike in a step."""
    threshold = some.measured["threshold"][:, None]
    highest = baselines.amplitudes_at(np.ones(len(some)), some.measured)[:, None]
    curve = LOWEST * threshold + PARTS * (highest - LOWEST * threshold)
    amplitude = np.concatenate([curve, threshold * FINE], axis=1).astype(np.float32)
    num = amplitude.shape[1]
    g, features = (np.repeat(x, num, axis=0) for x in (some.g, some.measured.values))
    V = simulate_steps(family, g, amplitude.ravel())
    trial = Trial(g, features, amplitude.ravel(), V)
    split = lambda V: np.split(counts(V).reshape(-1, num), [len(PARTS)], axis=1)
    first = lambda k: np.where((k > 0).any(1), FINE[(k > 0).argmax(1)], np.nan)
    true, true_fine = split(V)
    rows, figures = [], {}
    found = {name: split(predict_trial(o, trial)) for name, o in operators.items()}
    for dt, V in baselines.coarser(family, trial):
        found[f"simulator, dt {dt:g} ms"] = split(V)
    for name, (ours, fine) in found.items():
        away = np.abs(ours - true)
        shift = 100 * np.abs(first(fine) - first(true_fine))
        shift = shift[np.isfinite(shift)]
        middle, wide = np.quantile(shift, (0.5, 0.9)) if len(shift) else (np.nan,) * 2
        values = [away.mean(), 100 * away.sum() / true.sum(), away.max()]
        values += [middle, shift.mean(), wide, len(shift)]
        figures[name] = [float(x) for x in values]
        rows.append([name, *(f"{x:.3g}" for x in values)])
    print(
        f"F-I curves of {len(some)} unseen members at {len(PARTS)} currents; first "
        f"spikes among currents {100 * (FINE[1] - FINE[0]):.0f} % of the threshold "
        "apart:\n"
    )
    headings = ["", "spikes off", "of all %", "at most", "first spike off, median %"]
    print_table([*headings, "mean %", "90 % within %", "members"], rows)
    return figures


def ablation(args: argparse.Namespace) -> None:
    family, library, _ = known(args)
    seen, trial = library.seen, trials(family, library, args.num)["unseen"]
    variants: dict = {"all features": (NAMES, seen)}
    for group, names in GROUPS.items():
        kept = tuple(name for name in NAMES if name not in names)
        variants[f"without {group}"] = kept, seen
    variants[f"{' and '.join(FEW)} alone"] = FEW, seen
    variants["conductances instead"] = None, seen
    variants |= {f"{n} members": (NAMES, seen[:n]) for n in MEMBERS if n < len(seen)}
    table: Table = {}
    for name, (kept, some) in variants.items():
        if args.only not in name:
            continue
        began, table[name] = time.perf_counter(), []
        for seed in range(args.seeds):
            training = OperatorTraining(
                num_steps=args.steps, num_corrections=args.corrections, seed=seed
            )
            V = baselines.predict_ablated(family, some, trial, kept, training)
            table[name].append(score(V, trial.V))
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    title = f"\n{args.steps} steps, {len(seen)} members, unseen ones"
    tell_json(args, unseen=print_scores(title, table))


def fourier(args: argparse.Namespace) -> None:
    family, library, operators = known(args)
    config = baselines.FourierConfig()
    line = "{0.minutes:.1f} min, {0.steps} steps, loss {0.loss:.3f}"
    told = lambda run: None if run.steps % 800 else print(line.format(run), flush=True)
    runs = [
        baselines.train_fourier(seed, family, library.seen, args.minutes, config, told)
        for seed in range(args.seeds)
    ]
    figures: dict = {
        "training": [{k: x for k, x in vars(r).items() if k != "model"} for r in runs]
    }
    print("\n".join(str(x) for x in ("", *figures["training"], "")))
    for kind, trial in trials(family, library, args.num).items():
        ours = answers_of(operators, trial, kind).values()
        theirs = [baselines.predict_fourier(run.model, trial) for run in runs]
        sampled = trial.V[:, :: config.stride][:, : config.num_samples]
        floor = baselines.refined(sampled, trial, config)
        table = {
            f"Fourier operator, {args.minutes:g} min": theirs,
            "operator": ours,
            f"truth, every {config.stride * EVERY:g} ms": [floor],
        }
        scores = {k: [score(V, trial.V) for V in of] for k, of in table.items()}
        figures[kind] = print_scores(f"{kind} members", scores)
    tell_json(args, **figures)


def interpolation(args: argparse.Namespace) -> None:
    family, library, operators = known(args)
    first, second = baselines.pairs(library, args.tolerance, args.pairs)
    log_g = [np.log(x.g.astype(np.float64)) for x in (first, second)]
    apart = np.exp(np.median(np.abs(log_g[0] - log_g[1]), axis=0))
    ratios = zip(family.neuron.channel_names, apart, strict=True)
    print(
        f"{len(first)} pairs within {100 * args.tolerance:g} % in {', '.join(ALIKE)}; "
        f"ratios of conductances {', '.join(f'{n} {x:.1f}' for n, x in ratios)}. Away "
        "from what was asked for, median (90 % within):\n"
    )
    x = [np.asarray(to_coordinates(end.measured.values)) for end in (first, second)]
    asked = np.asarray(from_coordinates((x[0] + x[1]) / 2))
    g = np.exp((log_g[0] + log_g[1]) / 2).astype(np.float32)
    got = characterise(family, g)
    values = np.where(got.is_complete[:, None], got.values, np.nan)
    results = {"simulator, midpoint of conductances": (values, asked)}
    own = first.measured.values
    for name, operator in operators.items():
        results[f"{name}, midpoint of features"] = achieved(operator, asked), asked
        results[f"{name}, an unseen member's own"] = achieved(operator, own), own
    rows, figures = [], {}
    for name, (values, of) in results.items():
        fires = np.isfinite(values[:, NAMES.index("gain")])
        row, figures[name] = [name], {"num": int(fires.sum())}
        for feature in ACHIEVED:
            a, b = (x[fires, NAMES.index(feature)] for x in (values, of))
            is_log = are_logarithms((feature,))[0]
            error = 100 * np.abs(a / b - 1) if is_log else np.abs(a - b)
            ends = np.nanquantile(error, (0.5, 0.9)) if len(error) else [np.nan] * 2
            row.append(f"{ends[0]:.3g} ({ends[1]:.3g})")
            figures[name][feature] = [float(x) for x in ends]
        rows.append([*row, f"{fires.sum()} of {len(of)}"])
    units = {x.name: "%" if x.is_log else x.unit for x in FEATURES}
    headings = [f"{name} {units[name]}".strip() for name in ACHIEVED]
    print_table(["", *headings, "fire so"], rows)
    tell_json(args, pairs=len(first), ratios=apart.tolist(), **figures)


def timed(run: Callable[[], object], repeats: int) -> np.ndarray:
    """Milliseconds of repeated calls, after one that compiles."""
    ms = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(run())
        ms.append(1000 * (time.perf_counter() - began))
    return np.array(ms[1:])


def speed(args: argparse.Namespace) -> None:
    family, library, operators = known(args)
    name, operator = next(iter(operators.items()))
    trial = trials(family, library, args.num)["unseen"]
    count = lambda V: 100 * score(V, trial.V).spike_count
    ours = count(predict_trial(operator, trial))
    errors = {dt: count(V) for dt, V in baselines.coarser(family, trial)}
    equal = max((dt for dt, x in errors.items() if x <= ours), default=None)
    shown = ", ".join(f"simulator, dt {dt:g} ms {x:.2f} %" for dt, x in errors.items())
    print(f"Errors of spike counts: operator {ours:.2f} %, {shown}\n")
    steps = sorted({0.05, 0.1, equal or 0.1})
    ms = {
        num: timings(family, operator, trial, num, steps, args.repeats)
        for num in (*args.batches, *([16_384] if args.large else []))
    }
    rows = [
        [str(num), method, f"{np.median(x):.4g} ({x.min():.4g} to {x.max():.4g})"]
        for num, of in ms.items()
        for method, x in of.items()
    ]
    where = f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores"
    print_table(["traces", f"on {where}", "ms per trace, median (range)"], rows)
    g = library.g[: args.characterised]
    each = float(timed(lambda: characterise(family, g), 1)[0]) / len(g)
    cost = pay_back(operator_header(name), each, ms)
    tell_json(
        args,
        counts={"operator": ours, "simulator": errors},
        equal_dt=equal,
        ms={num: {k: x.tolist() for k, x in of.items()} for num, of in ms.items()},
        **cost,
    )


def timings(
    family: Family,
    operator: Operator,
    trial: Trial,
    num: int,
    steps: Sequence[float],
    repeats: int,
) -> dict[str, np.ndarray]:
    """Milliseconds per trace of a batch, until potentials are at the host."""
    who = np.arange(num) % len(trial.g)
    I, features, g = trial.current[who], trial.features[who], trial.g[who]
    V0 = resting_potentials(family, g)
    stimulus = dj.Step(trial.amplitude[who], START, STOP)
    if family.hold:
        stimulus = stimulus + dj.Step(family.hold)
    given = {"stimulus": stimulus, "V0": V0, "save_every": EVERY}
    simulate = partial(dj.simulate, family.neuron, g, DURATION, **given)
    answer = partial(respond, every=EVERY)
    compiled = eqx.filter_jit(answer)
    on_device = jnp.asarray(I), jnp.asarray(features)
    runs: dict[str, Callable[[], object]] = {
        "operator": lambda: np.asarray(answer(operator, I, features).V),
        "operator, unchecked, left on the device": lambda: (
            compiled(operator, *on_device).V
        ),
    }
    for dt in steps:
        runs[f"simulator, dt {dt:g} ms"] = partial(simulate, dt=dt, save="traces")
    runs["simulator, dt 0.05 ms, spikes alone"] = partial(simulate, dt=0.05)
    return {method: timed(run, repeats) / num for method, run in runs.items()}


def pay_back(header: dict, each: float, ms: dict[int, dict[str, np.ndarray]]) -> dict:
    """After how many traces an operator has saved what it cost; `each` member in ms."""
    num = header["training"]["members"]
    seconds = header.get("seconds")
    cost = num * each / 1000 + (seconds or 0.0)
    trained = "training not known" if seconds is None else f"training {seconds:.0f} s"
    print(f"{num} members, {each:.2f} ms each to characterise; {trained}. Paid back:\n")
    rows, figures = [], {}
    for batch, of in ms.items():
        for method in of:
            if method.startswith("simulator"):
                saved = float(np.median(of[method]) - np.median(of["operator"]))
                traces = round(1000 * cost / saved) if saved > 0 else None
                figures[f"{method}, {batch}"] = traces
                after = f"after {traces:,} traces" if traces else "never"
                rows.append([str(batch), method, after])
    print_table(["traces at once", "against", ""], rows)
    return {"member_ms": each, "training_s": seconds, "paid_back": figures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measures = {m.__name__: m for m in (accuracy, ablation, fourier, interpolation)}
    measures["speed"] = speed
    parser.add_argument("what", choices=measures)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--family", default="cortical")
    parser.add_argument("--members", type=int, default=20_000, help="drawn")
    parser.add_argument("--num", type=int, default=1024, help="traces of each test")
    parser.add_argument("--curves", type=int, default=64, help="F-I curves")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--tolerance", type=float, default=0.03, help="within pairs")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind")
    parser.add_argument("--steps", type=int, default=6000, help="of an ablation")
    parser.add_argument("--corrections", type=int, default=300, help="of its curves")
    parser.add_argument("--only", default="", help="ablations with this in their name")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--large", action="store_true", help="16,384 traces too")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--characterised", type=int, default=2048, help="members timed")
    args = parser.parse_intermixed_args()
    if not args.operators and args.what in ("accuracy", "interpolation", "speed"):
        args.operators = [args.family]
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache/dicjax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    # Where nothing fires there is nothing to take a median of.
    warnings.filterwarnings("ignore", message="(Mean of|All-NaN)", module="numpy")
    measures[args.what](args)


if __name__ == "__main__":
    main()
