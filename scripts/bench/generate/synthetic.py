"""`generate` on members of a model, which nobody tuned to."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np

import dicjax as dj
from dicjax.populations import evaluate, window_for
from dicjax.spikes import as_target
from scripts.bench.generate.targets import Kind, Targets, with_dics
from scripts.bench.results import Benchmark, Measurement, row


NUM_TARGETS = {"tonic": 12, "bursting": 12, "irregular": 6}
NUM_ORACLE = 200
FEWEST = 20  # valid members of the box, from which on coverage means anything
# Columns, with units.
LABEL, VALID = ("label before", ""), ("valid before", "")
MEMBERS, SECONDS = ("members", ""), ("time", "s")
RATIO, ENTROPY = ("participation ratio", ""), ("entropy dimension", "")
PER_VALID, HALF = ("simulations per valid", ""), ("valid at half step", "")
OTHER_START, COVERAGE = ("valid from another start", ""), ("coverage of the box", "")
ORACLE, REFINED = ("oracle", ""), ("oracle, refined", "")
RATIO_OF_BOX = ("participation ratio of the box", "")
COLUMNS = (
    *(LABEL, VALID, MEMBERS, SECONDS, PER_VALID, RATIO, RATIO_OF_BOX, ENTROPY),
    *(HALF, OTHER_START, ORACLE, REFINED, COVERAGE),
)
Row = dict[tuple[str, str], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthetic(Benchmark):
    """Members found for simulated targets: 12 tonic, 12 bursting and 6 irregular ones.

    Targets are members of the model's recipe, with (g_s, g_u) uniform over its range,
    and of its Monte-Carlo box. "Before" is the first round, whose candidates no
    simulation of this target has changed. The oracle makes members with the target's
    true (g_s, g_u). The first call in a process is cold. A row for each target comes
    first, and then their medians and means.
    """

    model: str = "stg"
    """Model of targets and members."""
    members: int = 1000
    """Valid members to find for each target."""
    kinds: tuple[Kind, ...] = ("recipe", "box")
    """Where targets are from. A model whose recipe draws from the box has only that."""
    share: int = 1
    """Only one of so many targets."""

    def measure(self) -> Iterator[Measurement]:
        """Generates a population for every target."""
        neuron = dj.MODELS[self.model]()
        kinds = self.kinds
        if neuron.required_recipe.bounded:
            kinds = ("box",) if "box" in kinds else ()
        box = Targets(neuron, "box")
        for kind in kinds:
            targets = box if kind == "box" else Targets(neuron, kind)
            for label, num in NUM_TARGETS.items():
                chosen = targets.choose(label, num // self.share)
                case = {"from": kind, "pattern": label, "targets": len(chosen)}
                title, rows = f"{self.model}, medians over targets", []
                for i in chosen.tolist():
                    rows.append(self.measure_one(targets, i, box))
                    own = {"from": kind, "pattern": label, "number": i}
                    yield from row(f"each target of {self.model}", own, rows[-1])
                if not rows:
                    yield Measurement(title, case, note="no such member")
                    continue
                columns = {c: [x.get(c, np.nan) for x in rows] for c in COLUMNS}
                yield from row(title, case, columns)
                means = {c: float(np.nanmean(x)) for c, x in columns.items()}
                yield from row(f"{self.model}, means over targets", case, means)

    def measure_one(self, targets: Targets, i: int, box: Targets) -> Row:
        """What `generate` finds for one target, and how it compares with the box."""
        began = time.perf_counter()
        try:
            result = dj.generate(
                jax.random.key(i), targets.train(i), model=self.model, num=self.members
            )
        except ValueError as e:
            print(f"  {e}")
            nothing = dict.fromkeys((LABEL, VALID, MEMBERS), 0.0)
            return {**nothing, SECONDS: time.perf_counter() - began}
        seconds = time.perf_counter() - began
        first, g = result.rounds[0], result.g[result.accepted]
        found = sum(round.num_valid for round in result.rounds)
        other_start = np.nan
        if result.certificate is not None:
            other_start = float(result.certificate.valid[:, 0].mean())
        before, refined = oracle(targets, i, result.target)
        of_box = box.matching(result.target)
        several, known = len(g) > 8, len(of_box) >= FEWEST
        return {
            LABEL: first.num_label / first.num,
            VALID: first.num_valid / first.num,
            MEMBERS: len(g),
            SECONDS: seconds,
            PER_VALID: result.num_simulated / max(found, 1),
            RATIO: dj.participation_ratio(g) if several else np.nan,
            RATIO_OF_BOX: dj.participation_ratio(of_box) if known else np.nan,
            ENTROPY: dj.entropy_dimension(g) if several else np.nan,
            HALF: len(g) / max(len(g) + result.num_uncertified, 1),
            OTHER_START: other_start,
            ORACLE: before,
            REFINED: refined,
            COVERAGE: dj.coverage(of_box, g) if known and len(g) else np.nan,
        }


def oracle(targets: Targets, i: int, target: dj.Features) -> tuple[float, float]:
    """Valid shares of members that have a target's true DICs, and once refined."""
    neuron = targets.neuron
    g = with_dics(jax.random.key(1), neuron, targets.dics[i], NUM_ORACLE)
    if not len(g):
        return 0.0, 0.0
    try:
        refined = dj.refine(neuron, g, target, max_rounds=2)
    except ValueError:  # too few of the target's pattern to learn from
        wanted = as_target(target)
        _, verdict = evaluate(neuron, g, wanted, window_for(neuron, wanted))
        share = float(verdict.valid.sum() / NUM_ORACLE)
        return share, share
    before, after = (x.sum() for x in (refined.valid_before, refined.valid))
    return float(before / NUM_ORACLE), float(after / NUM_ORACLE)
