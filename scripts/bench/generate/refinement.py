"""Refinement beside drawing anew."""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from matplotlib.figure import Figure

import dicjax as dj
from dicjax.output.plots import style
from scripts.bench.generate.targets import Targets, with_dics
from scripts.bench.results import Benchmark, Measurement, row


ESTIMATORS = ("ensemble", "autodiff")


@dataclasses.dataclass(frozen=True)
class Course:
    """The refinement of members for one target.

    - `shares`: of valid members, before and after each round.
    - `simulations`: for each member.
    """

    shares: tuple[float, ...]
    simulations: float
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refinement(Benchmark):
    """Shares of valid members over rounds of refinement, by either estimator.

    Members have the true (g_s, g_u) of a target of the model's recipe. "Drawn anew"
    draws each member that misses once more in every round, without refinement.
    """

    model: str = "stg"
    """Model of targets and members."""
    members: int = 1000
    """Members that are refined for each target."""
    rounds: int = 4
    """Rounds at most."""
    targets: int = 6
    """Targets of each pattern."""
    figure: pathlib.Path | None = None
    """A figure of the shares to write."""

    def measure(self) -> Iterator[Measurement]:
        """Refines members for tonic and for bursting targets."""
        neuron = dj.MODELS[self.model]()
        targets = Targets(neuron, "recipe")
        shown: dict[str, dict[str, list[float]]] = {}
        for label in ("tonic", "bursting"):
            chosen = targets.choose(label, self.targets).tolist()
            each = [self.refine_for(targets, i) for i in chosen]
            if not each:
                continue
            means = shown.setdefault(f"{len(each)} {label} targets", {})
            for method in each[0]:
                courses = [x[method] for x in each]
                columns = {
                    (f"valid after {k}" if k else "valid before", ""): [
                        x.shares[k] for x in courses
                    ]
                    for k in range(self.rounds + 1)
                }
                means[method] = [float(np.mean(x)) for x in columns.values()]
                columns["simulations per member", ""] = [x.simulations for x in courses]
                columns["time", "s"] = [x.seconds for x in courses]
                case = {"pattern": label, "targets": len(each), "method": method}
                yield from row(f"{self.model}, {self.members} members", case, columns)
                average = {c: float(np.mean(x)) for c, x in columns.items()}
                yield from row(f"{self.model}, means over targets", case, average)
        if self.figure is not None:
            draw(shown).savefig(self.figure, dpi=120)

    def refine_for(self, targets: Targets, i: int) -> dict[str, Course]:
        """How refinement goes for one target, by each method."""
        target = targets.features_of(i)
        g = with_dics(jax.random.key(i), targets.neuron, targets.dics[i], self.members)
        courses = {}
        for estimator, keep in itertools.product(ESTIMATORS, (False, True)):
            began = time.perf_counter()
            refined = dj.refine(
                targets.neuron,
                g,
                target,
                estimator=estimator,
                keep_dics=keep,
                max_rounds=self.rounds,
            )
            seconds = time.perf_counter() - began
            shares = [float(x) for x in refined.shares]
            shares += shares[-1:] * (self.rounds + 1 - len(shares))
            simulations = refined.num_simulated / len(g)
            name = f"{estimator}, DICs kept" if keep else estimator
            courses[name] = Course(tuple(shares), simulations, seconds)
        misses = 1 - courses["ensemble"].shares[0]
        powers = [misses**k for k in range(self.rounds + 2)]
        anew = tuple(1 - x for x in powers[1:])
        courses["drawn anew"] = Course(anew, sum(powers[:-1]), np.nan)
        return courses


def draw(shares: dict[str, dict[str, list[float]]]) -> Figure:
    """Shares of valid members, before and after each round, a line for each method.

    - `shares`: by the title of a panel and the name of a method.
    """
    figure = style.new_figure(3.0)
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    colors = (*style.HIGHLIGHTS, style.RECORDING, style.MUTED)
    for ax, (title, methods) in zip(panels, shares.items(), strict=True):
        style.style_axes(ax)
        for share, color in zip(methods.values(), colors, strict=False):
            ax.plot(100 * np.asarray(share), color=color, lw=1.6, marker="o", ms=4)
        ax.set(ylim=(0, 103), xlabel="rounds")
        ax.set_xticks(range(max(map(len, methods.values()))))
        ax.set_title(title, size=9, color=style.INK, loc="right")
    panels[0].set_ylabel("valid members (%)")
    names = next(iter(shares.values()))
    for i, (name, color) in enumerate(zip(names, colors, strict=False)):
        at = (0.97, 0.06 + 0.09 * (len(names) - 1 - i))
        text = {"color": color, "size": 9, "weight": "bold", "ha": "right"}
        panels[0].text(*at, name, transform=panels[0].transAxes, **text)
    return figure
