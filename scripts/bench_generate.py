"""Measures `generate` on targets that nobody tuned to.

`bench_generate.py synthetic --model stg`: targets drawn by the model's recipe, (g_s,
g_u) uniform over its range, and from its Monte-Carlo box; 12 tonic, 12 bursting and 6
irregular of each where there are as many. `bench_generate.py recordings FOLDER`: every
stg*.csv in it. `bench_generate.py refinement`: members with a target's own DICs,
refined by either estimator, beside drawing anew.

"Before" is the first round: candidates that no simulation of this target has seen. Of
repeated calls in one process the first is cold.
"""

import argparse
import pathlib
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import dicjax as dj
from dicjax.dics.sampling import OK
from dicjax.output.plots.style import (
    HIGHLIGHTS,
    INK,
    MUTED,
    new_figure,
    RECORDING,
    style_axes,
)
from dicjax.populations.diversity import (
    coverage,
    entropy_dimension,
    participation_ratio,
)
from dicjax.populations.evaluation import Trial
from dicjax.populations.refinement import refine
from dicjax.spikes.features import Features


SEED = 20
NUM_DRAWN = {"recipe": 4096, "box": 16_384}  # members that targets are taken from
NUM_TARGETS = {"tonic": 12, "bursting": 12, "irregular": 6}
NUM_ORACLE = 200
FEWEST = 20  # members of the box that are valid for a target, to speak of coverage
COLUMNS = (
    "label",
    "valid",
    "PR",
    "entropy",
    "members",
    "s",
    "sims/valid",
    "half step",
    "other start",
    "oracle",
    "refined",
    "coverage",
    "PR of the box",
)


class Targets:
    """Simulated members of one kind, to be targets and to be compared with."""

    def __init__(self, neuron: dj.Neuron, kind: str):
        key = jax.random.key(SEED)
        num = NUM_DRAWN[kind]
        recipe = neuron.required_recipe
        if kind == "box":
            g = np.asarray(dj.sample(key, neuron, num, dtype=jnp.dtype("float32")))
        else:
            low, high = np.array([recipe.g_s, recipe.g_u]).T
            unit = np.asarray(jax.random.uniform(key, (num, 2)))
            made = dj.compensate(
                key, neuron, low + unit * (high - low), dtype=jnp.dtype("float32")
            )
            g = made.g[made.status == OK]
        # As long as a recording might be; a target's own trial may be shorter.
        run = dj.simulate(
            neuron, g, recipe.duration, discard=recipe.discard, dt=recipe.dt / 2
        )
        self.neuron, self.g, self.run = neuron, g, run
        self.features = jax.tree.map(np.asarray, dj.spike_features(run.spike_times))
        V = float(neuron.V_ref)
        self.dics = np.asarray(dj.dynamic_input_conductances(neuron, g, V))[:, 1:]

    def choose(self, label: str, num: int) -> np.ndarray:
        fired = self.features.label == dj.LABELS.index(label)
        enough = self.features.num_spikes >= 10
        return np.flatnonzero(fired & enough)[:num]

    def train(self, i: int) -> np.ndarray:
        return self.run.spike_times[i, : self.run.num_spikes[i]].astype(float)

    def like(self, target: Features) -> np.ndarray:
        """Conductances of all that fire like a target."""
        valid = np.asarray(dj.is_valid(self.features, target, 0.1))
        return self.g[valid & self.run.succeeded]


def oracle(neuron, dics, target: Features, key) -> tuple[float, float]:
    """Valid shares of members that have a target's true DICs, and once refined."""
    made = dj.compensate(key, neuron, dics, num=NUM_ORACLE, dtype=jnp.dtype("float32"))
    g = made.g[made.status == OK]
    if not len(g):
        return 0.0, 0.0
    try:
        refined = refine(neuron, g, target, max_rounds=2)
    except ValueError:  # too few of the target's pattern to learn from
        trial = Trial(neuron, target, 0.1)
        share = float(trial.judge(trial.simulate(g)).valid.sum() / NUM_ORACLE)
        return share, share
    return tuple(x.sum() / NUM_ORACLE for x in (refined.valid_before, refined.valid))


def measure(targets: Targets, i: int, model: str, members: int, reference) -> list:
    train = targets.train(i)
    start = time.time()
    try:
        result = dj.generate(jax.random.key(int(i)), train, model=model, num=members)
    except ValueError as e:
        print(f"  {e}")
        return [0, 0, np.nan, np.nan, 0, time.time() - start, *[np.nan] * 7]
    seconds = time.time() - start
    first, g = result.rounds[0], result.g[result.accepted]
    found = sum(round.num_valid for round in result.rounds)
    start_too = np.nan
    if result.certificate is not None:
        start_too = float(result.certificate.valid[:, 0].mean())
    truth = oracle(targets.neuron, targets.dics[i], result.target, jax.random.key(1))
    like = reference.like(result.target)
    return [
        first.num_label / first.num,
        first.num_valid / first.num,
        participation_ratio(g) if len(g) > 8 else np.nan,
        entropy_dimension(g) if len(g) > 8 else np.nan,
        len(g),
        seconds,
        result.num_simulated / max(found, 1),
        len(g) / max(len(g) + result.num_uncertified, 1),
        start_too,
        *truth,
        coverage(like, g) if len(like) >= FEWEST and len(g) else np.nan,
        participation_ratio(like) if len(like) >= FEWEST else np.nan,
    ]


def synthetic(model: str, members: int, kinds: list[str], share: int) -> None:
    neuron = dj.MODELS[model]()
    if neuron.required_recipe.bounded:
        kinds = [kind for kind in kinds if kind == "box"]  # its recipe draws from that
    box = Targets(neuron, "box")
    print(f"{model}, {members} members; columns: " + ", ".join(COLUMNS))
    for kind in kinds:
        targets = box if kind == "box" else Targets(neuron, kind)
        for label, num in NUM_TARGETS.items():
            rows = []
            for i in targets.choose(label, num // share):
                rows.append(measure(targets, i, model, members, box))
                shown = " ".join(f"{x:.3g}" for x in rows[-1])
                print(f"  {kind} {label} {i}: {shown}", flush=True)
            if not rows:
                print(f"{kind} {label}: no such member")
                continue
            table = np.array(rows, float)
            for name, of in (("mean", np.nanmean), ("median", np.nanmedian)):
                shown = ", ".join(
                    f"{column} {value:.3g}"
                    for column, value in zip(COLUMNS, of(table, axis=0), strict=True)
                )
                print(f"{kind} {label}, {name} over {len(rows)}: {shown}", flush=True)


def recordings(folder: pathlib.Path, model: str, members: int, seeds: int) -> None:
    for path in sorted(folder.glob("stg*.csv")):
        (train,) = dj.read_spike_trains(path)
        print(path.stem)
        for seed in range(seeds):
            start = time.time()
            try:
                result = dj.generate(
                    jax.random.key(seed), train, model=model, num=members
                )
            except dj.OutOfRange as e:
                print(f"  {e}", flush=True)
                break
            first, *later = result.rounds
            num, valid = (
                sum(getattr(round, x) for round in later) for x in ("num", "num_valid")
            )
            text = (
                f"  seed {seed}: {result.num_accepted} of {members}; before "
                f"{first.num_valid} of {first.num}, after {valid} of {num}; "
                f"participation ratio {result.participation_ratio:.2f}; "
                f"{time.time() - start:.1f} s"
            )
            if result.certificate is not None:
                share = result.certificate.valid[:, 0].mean()
                text += f"; {share:.3f} also from another start"
            if result.num_accepted < members:
                text += f"; {result.main_failures()}"
            print(text, flush=True)


def refinement(model: str, members: int, rounds: int, figure) -> None:
    """Shares of valid members over rounds of refinement, mean over targets."""
    neuron = dj.MODELS[model]()
    targets = Targets(neuron, "recipe")
    drawn: dict[str, dict] = {}
    for label in ("tonic", "bursting"):
        rows: dict[str, list] = {}
        for i in targets.choose(label, 6):
            key = jax.random.key(int(i))
            target = jax.tree.map(lambda x, i=i: x[i], targets.features)
            made = dj.compensate(
                key, neuron, targets.dics[i], num=members, dtype=jnp.dtype("float32")
            )
            g = made.g[made.status == OK]
            for estimator in ("ensemble", "autodiff"):
                for keep in (False, True):
                    start = time.time()
                    refined = refine(
                        neuron,
                        g,
                        target,
                        estimator=estimator,
                        keep_dics=keep,
                        max_rounds=rounds,
                    )
                    shares = np.pad(
                        refined.shares,
                        (0, rounds + 1 - len(refined.shares)),
                        mode="edge",
                    )
                    name = f"{estimator}{', DICs kept' if keep else ''}"
                    spent = refined.num_simulated / len(g)
                    rows.setdefault(name, []).append(
                        [*shares, spent, time.time() - start]
                    )
            # Each draw that misses is drawn anew instead.
            share = rows["ensemble"][-1][0]
            anew = [1 - (1 - share) ** (k + 1) for k in range(rounds + 1)]
            spent = sum((1 - share) ** k for k in range(rounds + 1))
            rows.setdefault("drawn anew", []).append([*anew, spent, 0.0])
        for name, each in rows.items():
            *shares, spent, seconds = np.mean(each, axis=0)
            drawn.setdefault(f"{len(each)} {label} targets", {})[name] = shares
            shown = " ".join(f"{x:.3f}" for x in shares)
            print(
                f"{model} {label}, {len(each)} targets, {name}: valid before and after "
                f"each round {shown}; {spent:.2f} simulations per member, "
                f"{seconds:.1f} s",
                flush=True,
            )

    if figure is not None:
        plot_refinement(drawn).savefig(figure, dpi=120)


def plot_refinement(shares: dict[str, dict[str, Sequence[float]]]) -> Figure:
    """Shares of valid members over rounds of refinement, a line for each method.

    **Arguments:**

    - `shares`: of members, before and after every round, by the title of a panel and
        the name of a method.
    """
    figure = new_figure(3.0)
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    colors = (*HIGHLIGHTS, RECORDING, MUTED)
    for ax, (title, methods) in zip(panels, shares.items(), strict=True):
        style_axes(ax)
        for share, color in zip(methods.values(), colors, strict=False):
            ax.plot(100 * np.asarray(share), color=color, lw=1.6, marker="o", ms=4)
        ax.set(ylim=(0, 103), xlabel="rounds")
        ax.set_xticks(range(max(map(len, methods.values()))))
        ax.set_title(title, size=9, color=INK, loc="right")
    panels[0].set_ylabel("valid members (%)")
    names = next(iter(shares.values()))
    for row, (name, color) in enumerate(zip(names, colors, strict=False)):
        place = (0.97, 0.06 + 0.09 * (len(names) - 1 - row))
        text = {"color": color, "size": 9, "weight": "bold", "ha": "right"}
        panels[0].text(*place, name, transform=panels[0].transAxes, **text)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("synthetic", "recordings", "refinement"))
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--model")
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--share", type=int, default=1, help="one of so many targets")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--figure", type=pathlib.Path)
    parser.add_argument("--kinds", nargs="+", default=["recipe", "box"])
    args = parser.parse_args()
    if args.what == "synthetic":
        synthetic(args.model or "stg", args.members, args.kinds, args.share)
    elif args.what == "recordings":
        recordings(args.folder, args.model or "stg-prinz", args.members, args.seeds)
    else:
        refinement(args.model or "stg", args.members, args.rounds, args.figure)


if __name__ == "__main__":
    main()
