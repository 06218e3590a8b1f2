"""What a search for a population ends with."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dicjax.inference import Posterior
from dicjax.neurons import Neuron
from dicjax.populations import Certificate, PERTURBING_AXES, Verdict, wilson
from dicjax.simulation import Drive
from dicjax.spikes import (
    Agreement,
    COMPARED,
    distribution_distance,
    Features,
    log_isi_quantiles,
    quantiles_of,
    SILENT,
    SpikeTrain,
    Target,
    VARIED,
)


FAILURES = {
    "failed": "simulation failed",
    "fell_short": "rose like a spike, but stayed below the neuron's V_spike",
    "silent": "did not fire",
    "other_pattern": "fired in another pattern",
    **{feature.name: f"{feature.words} off" for feature in (*COMPARED, *VARIED)},
    "distribution": "distribution of ISIs off",
}
"""Why a candidate is invalid, the first that applies, and how that is said."""


@dataclasses.dataclass(frozen=True)
class Round:
    """One batch of candidates, and what came of them.

    - `name`: where they came from; `num`: how many were simulated.
    - `num_label`: how many fired in the recording's pattern.
    - `num_valid`: how many were valid.
    - `failures`: how many failed, by the first reason in `FAILURES` that applies.
    """

    name: str
    num: int
    num_label: int
    num_valid: int
    failures: dict[str, int]


def grouped(rounds: Sequence[Round], most: int = 8) -> list[Round]:
    """Rounds to look at: the first and, where there are many, others taken together."""
    rest = rounds[1:]
    size = -(-len(rest) // (most - 1))
    if size < 2:
        return list(rounds)
    together = [_together(rest[i : i + size], i + 2) for i in range(0, len(rest), size)]
    return [rounds[0], *together]


def _together(rounds: Sequence[Round], first: int) -> Round:
    last = first + len(rounds) - 1
    return Round(
        name=f"rounds {first} to {last}" if last > first else rounds[0].name,
        num=sum(of.num for of in rounds),
        num_label=sum(of.num_label for of in rounds),
        num_valid=sum(of.num_valid for of in rounds),
        failures=dict(sum((Counter(of.failures) for of in rounds), Counter())),
    )


@dataclasses.dataclass(frozen=True)
class Generated:
    """A population generated to fire like a recording.

    Rows are members: first the accepted ones, as many as were asked for or found. If
    too few were found, the nearest of the others follow.

    - `train`, `target`: the recording (or the window of it) and its features.
    - `posterior`: over its (g_s, g_u), one row.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`.
    - `drive`: the input of each member, whose noise has a random number generator of
        its own; `None` where members have none but the recipe's current.
    - `agreement`: what members with a drive are judged by; `None` for others.
    - `dics`: (g_f, g_s, g_u) at `neuron.V_ref`; `V_th`: own threshold, in mV, or nan.
    - `spike_times`: in ms, padded with inf; simulated for `duration`, of which the
        first `discard` ms are left out.
    - `features`: of the members; `distance`: the largest |ln(feature / target)|.
    - `accepted`: valid within `tolerance`, at half the time step too and, with a drive,
        on a run of its own of twice the length and with other noise;
        `num_uncertified`: how many were valid only at the whole step.
    - `certificate`: what else the accepted members stay valid under, a row for each of
        them; `None` where nothing was accepted or the run was interrupted.
    - `valid_anew`: which accepted members are valid on one more run with other noise;
        `None` where they have no drive or were not tried.
    - `num_asked`: how many members were asked for; `rounds`: what was simulated.
    - `participation_ratio`: effective number of directions in which the logarithms of
        the accepted members' conductances vary.
    - `settings`: everything else that the run depended on (seed, versions, ...).
    """

    neuron: Neuron
    train: SpikeTrain
    target: Features
    posterior: Posterior
    tolerance: float
    num_asked: int
    g: Float[np.ndarray, "cells channels"]
    dics: Float[np.ndarray, "cells 3"]
    V_th: Float[np.ndarray, " cells"]
    spike_times: Float[np.ndarray, "cells spikes"]
    features: Features
    distance: Float[np.ndarray, " cells"]
    accepted: Bool[np.ndarray, " cells"]
    num_uncertified: int
    certificate: Certificate | None
    duration: float
    discard: float
    rounds: tuple[Round, ...]
    participation_ratio: float
    seconds: float
    settings: dict[str, Any]
    drive: Drive | None = None
    agreement: Agreement | None = None
    valid_anew: Bool[np.ndarray, " accepted"] | None = None

    @property
    def num_accepted(self) -> int:
        """How many members are valid."""
        return int(self.accepted.sum())

    @functools.cached_property
    def distribution_distance(self) -> Float[np.ndarray, " cells"]:
        """How far the intervals of each member are from the recording's: the mean
        difference of the logarithms of their quantiles."""
        own = log_isi_quantiles(self.spike_times)
        return distribution_distance(own, quantiles_of(self.train))

    @property
    def num_simulated(self) -> int:
        """How many candidates were simulated in all."""
        return sum(round.num for round in self.rounds)

    def report(self) -> str:
        """The outcome in a few sentences."""
        first, *later = self.rounds
        within = f"within {self.tolerance:.0%}"
        if self.agreement is not None:
            within += ", or as far as its own stretches differ"
        lines = [
            f"{self.num_accepted} of {self.num_asked} members asked for fire like the "
            f"recording {within} ({self.neuron.name}).",
            f"{self.num_simulated} candidates were simulated. Of the first "
            f"{first.num}, chosen before any simulation, {first.num_valid} were valid "
            f"({_interval_in_words(first)}).",
        ]
        if later:
            rest = _together(later, 2)
            lines.append(
                f"Of {rest.num} in later rounds, {rest.num_valid} were "
                f"({_interval_in_words(rest)})."
            )
        if self.num_accepted:
            again = "remain valid at half the time step"
            if self.drive is not None:
                again = (
                    "were valid once more, at half the time step on a run twice as "
                    "long with other noise"
                )
            lines.append(
                f"All of them {again} "
                f"({self.num_uncertified} that did not were left out)."
            )
            lines += self._variation_in_words()
        found = sum(of.num_valid for of in self.rounds) - self.num_uncertified
        if found > self.num_accepted:
            lines.append(f"Of {found} valid candidates, these are the least crowded.")
        if np.isfinite(self.participation_ratio):
            lines.append(
                f"Their conductances vary in {self.participation_ratio:.1f} effective "
                "directions."
            )
        if self.num_accepted < self.num_asked and (why := self.main_failures()):
            lines.append(why)
        if self.certificate is not None:
            lines += _robustness_in_words(self.certificate)
        return "\n".join(lines)

    def _variation_in_words(self) -> list[str]:
        """What drives members, and how their intervals are distributed."""
        if self.drive is None or self.agreement is None:
            return []
        middle = lambda x: f"{np.median(x[self.accepted]):.2g}"
        lines = []
        if self.valid_anew is not None:
            num, num_valid = len(self.valid_anew), int(self.valid_anew.sum())
            low, high = wilson(num_valid, num)
            lines.append(
                f"On one more run with other noise, {num_valid} of {num} "
                f"({low:.0%} to {high:.0%}) are valid: chance decides near a limit."
            )
        drive = self.drive
        return [
            *lines,
            f"Their input fluctuates around {middle(drive.mean)} µA/cm², with a "
            f"standard deviation of {middle(drive.sigma)} µA/cm² fast and of "
            f"{middle(drive.slow_sigma)} µA/cm² slowly (medians).",
            "Logarithms of their ISIs are "
            f"{middle(self.distribution_distance)} from the recording's; stretches of "
            f"the recording are up to {self.agreement.furthest:.2g} from its rest.",
        ]

    def main_failures(self) -> str:
        """Why most candidates of the last round failed, in a sentence, if any did."""
        return main_failures(self.rounds)


def _interval_in_words(of: Round) -> str:
    low, high = wilson(of.num_valid, of.num)
    return f"{low:.1%} to {high:.1%}"


def _robustness_in_words(certificate: Certificate) -> list[str]:
    """A sentence for each kind of change that members were tried under."""
    lines = []
    if start := certificate.along("start"):
        ((_, valid, low, high, _),) = start.shares()
        others = "; the others have another state, in which they rest or fire otherwise"
        lines.append(
            f"From another start, {valid:.0%} ({low:.0%} to {high:.0%}) of the "
            f"accepted members still match{others if valid < 1 else ''}."
        )
    for axis in PERTURBING_AXES:
        if of := certificate.along(axis):
            first, fewest = of.perturbations[0], ""
            average = " on average" if len(of.names) > 1 else ""
            if axis == "conductances":
                channels = np.array([check.channel for check in of.perturbations])
                share = {x: of.valid[:, channels == x].mean() for x in channels}
                least = min(share, key=lambda x: share[x])
                fewest = f", fewest when {least} changes ({share[least]:.0%})"
            when = {
                "conductances": f"With one conductance {first.amount} lower or higher",
                "current": f"With the applied current {first.amount} lower or higher",
                "noise": f"Under {first.words}",
                "temperature": f"At {first.words} and the higher pace that follows",
            }
            lines.append(
                f"{when[axis]}, {of.valid.mean():.0%} stay valid{average}{fewest}; "
                f"{of.same_pattern.mean():.0%} keep the pattern."
            )
    return lines


def main_failures(rounds: Sequence[Round], num: int = 3) -> str:
    """Why most candidates of the last round failed, in a sentence, if any did."""
    found = [f"{why} ({count})" for why, (count,) in failures_of(rounds[-1:])]
    return f"Most candidates failed because: {', '.join(found[:num])}." if found else ""


def failures_of(rounds: Sequence[Round]) -> list[tuple[str, list[int]]]:
    """Reasons in words and how many candidates of each round failed for them, the
    commonest first."""
    reasons = dict.fromkeys(why for of in rounds for why in of.failures)
    counts = [
        # Older runs have words already.
        (FAILURES.get(why, why), [of.failures.get(why, 0) for of in rounds])
        for why in reasons
    ]
    return sorted((x for x in counts if any(x[1])), key=lambda x: -sum(x[1]))


def count_failures(verdict: Verdict, target: Target) -> dict[str, int]:
    """How many members are invalid for each reason that applies first to some."""
    reasons = list(FAILURES)
    compared = [reasons.index(name) for name in target.names]
    off = ~(np.abs(verdict.errors) <= verdict.limits)[:, : len(compared)]
    first = np.array(compared)[np.argmax(off, axis=1)]
    label = verdict.features.label
    applies = {
        "failed": ~verdict.succeeded,
        "fell_short": (label == SILENT) & verdict.fell_short,
        "silent": label == SILENT,
        "other_pattern": ~target.has_pattern(label),
        "distribution": ~off.any(axis=1),
    }
    reason = np.select(
        list(applies.values()), [reasons.index(x) for x in applies], first
    )
    counts = np.bincount(reason[~verdict.valid], minlength=len(reasons)).tolist()
    return {why: num for why, num in zip(reasons, counts, strict=True) if num}
