"""The search for members that fire like a recording, round by round."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.spatial import KDTree

from dicjax._core import Advice, Remedy
from dicjax.dics import dynamic_input_conductances, impose, OK, sample, threshold
from dicjax.generation.result import count_failures, Generated, Round
from dicjax.inference import (
    Checkpoint,
    contexts,
    FLOOR,
    goal,
    log_conductances,
    log_features,
    polish,
    sample_density,
)
from dicjax.populations import (
    Certificate,
    certify,
    children,
    judge,
    Known,
    LONGEST,
    MEMORY,
    participation_ratio,
    PERTURBATIONS,
    simulate_by_recipe,
    slopes_of_ensemble,
    stepped,
    window_for,
)
from dicjax.spikes import NUM_COMPARED, spike_features, Target


BATCH = 512  # candidates per round
NUM_DRAWN = 4096  # members drawn in each of two ways, to choose the first ones from
STRIDE = 0.3  # of ln(feature / target) that one correction takes at most
# Where a good share of candidates is valid, more are sought than asked for, to choose
# the most diverse from.
WORTHWHILE = 0.15  # share
HOPELESS = 0.05  # share below which the posterior is not drawn from again
HOPEFUL = 0.5  # share that refinement is thought to reach before it is tried
GOOD = 0.6  # share from which fresh draws are not worth refining
MAX_TRIES = 3  # times that a member is refined
SURPLUS = 2.0  # valid members per one asked for
CHOICE = 2.5  # promising members per one simulated; the least crowded are taken
SPARE = 1.03  # members certified per one that is likely to be needed
CROWD = 6  # neighbours that tell how crowded a member's surroundings are
CERTIFYING = 2**32 - 1  # folded into the key, like the numbers of rounds

Progress = Callable[[str, int, int], None]


class Cancelled(Exception):
    """What `on_progress` raises to end a search as Ctrl-C does, with what it found."""


INTERRUPTIONS = (KeyboardInterrupt, Cancelled)


class Search:
    """The rounds of one call of `generate`, and what they have found so far."""

    def __init__(self, loaded: Checkpoint, latent, target: Target, config, report, num):
        self.loaded = loaded
        self.neuron = neuron = loaded.neuron
        self.latent = latent
        atlas = loaded.library
        self.target = target
        self.goal = goal(target)
        self.config = config
        self.on_progress = report
        self.said = ("", 0, num)
        self.num = num
        self.window = window_for(neuron, target)
        high = neuron.bounds
        self.bounds = jnp.asarray(np.log([FLOOR * high, high]), jnp.float32)
        self._remember_atlas(
            atlas, np.argsort(atlas.errors(target.features))[: MEMORY // 2]
        )
        self.near_misses = _NearMisses(len(high))
        self.rounds: list[Round] = []
        self.found: np.ndarray = np.zeros((0, len(high)), np.float32)  # to certify
        self.valid: list[tuple] = []  # (g, spike times) of certified members
        self.missed: list[tuple] = []  # (distance, g, spike times), a few of each round
        self.num_uncertified = 0
        self.interrupted = False

    def _remember_atlas(self, atlas, members):
        self.log_g = log_conductances(atlas.g[members], self.neuron.bounds)
        as_features = jax.tree.map(lambda x: x[members], atlas.as_features())
        self.misses = np.asarray(self.target.errors(as_features))
        self.usable = (atlas.labels[members] == self.target.label) & np.isfinite(
            self.misses
        ).all(axis=1)

    @property
    def num_valid(self) -> int:
        return sum(len(g) for g, _ in self.valid)

    @property
    def survival(self) -> float:
        """The share of valid members that still were at half the time step."""
        return (self.num_valid + 1) / (self.num_valid + self.num_uncertified + 1)

    @property
    def num_promised(self) -> int:
        """How many members are valid, as far as is known."""
        return self.num_valid + int(self.survival * len(self.found))

    def report(self, stage: str, done: int) -> None:
        """Says how far the search is; once it was interrupted, that cannot end it."""
        self.said = stage, done, self.num
        self._still()

    def _still(self, *_) -> None:
        """Says so again, for a caller who may want to end a long simulation."""
        try:
            self.on_progress(*self.said)
        except Cancelled:
            if not self.interrupted:
                raise

    def run(self, key, posterior) -> None:
        """Simulates round after round until enough members are valid.

        An interruption ends it with what the rounds before it found, if there were any.
        """
        try:
            self._run(key, posterior)
        except INTERRUPTIONS:
            if not self.rounds:
                raise
            self.interrupted = True
            self._certify()

    def _run(self, key, posterior) -> None:
        self.report("simulating the posterior", 0)
        # Of candidates of each kind that were valid when last tried.
        share = {"posterior": 1.0, "refinement": HOPEFUL, "correction": WORTHWHILE}
        spread, number, tried = self.config.spread, 0, set()
        while self._budget_left() >= BATCH or not number:
            if number and not self._wanting(max(share[kind] for kind in tried)):
                self._certify()
                if self.num_valid >= self.num:
                    return
            done = min(self.num_promised, self.num)
            round_key = jr.fold_in(key, number)
            kind = self._next_kind(share)
            tried.add(kind)
            if number:
                aim = "widening" if done == self.num else "correcting"
                self.report(f"{aim}, round {number}", done)
            tries = None
            if kind == "posterior":
                candidates = self.first_candidates(round_key, posterior)
            elif kind == "refinement":
                candidates, tries = self._refined()
            else:
                candidates = self._corrected(round_key, spread)
            share[kind] = self._try(f"{kind} {number + 1}", candidates, tries)
            if kind == "correction":
                spread = self._next_spread(spread, share[kind])
            elif number == 0 and share[kind] < WORTHWHILE:
                spread /= 3
            number += 1
        self._certify()

    def _next_kind(self, share: dict[str, float]) -> str:
        """Fresh draws where many are valid, else what missed by least, refined; where
        neither helps, new children of what came nearest."""
        if share["posterior"] >= max(GOOD, share["correction"]):
            return "posterior"
        enough = len(self.near_misses) >= BATCH // 2
        if enough and share["refinement"] >= max(share["correction"], HOPELESS):
            return "refinement"
        fresh = share["posterior"] >= max(share["correction"], HOPELESS)
        return "posterior" if fresh else "correction"

    def _next_spread(self, spread: float, share: float) -> float:
        """Wide where that works, for diversity; narrower where little is valid, and at
        once where children do not even fire like their parents."""
        last = self.rounds[-1]
        if last.num_label < 0.3 * last.num:
            spread *= 0.5
        else:
            spread *= 1.15 if share > 0.4 else 0.75 if share < 0.15 else 1.0
        return min(max(spread, 0.05), 2.0)

    def _wanting(self, share: float) -> bool:
        """Whether to go on: for enough members, or, where cheap, to choose from."""
        if share <= WORTHWHILE:
            return self.num_promised < self.num
        return self.num_promised < SURPLUS * self.num

    def _budget_left(self) -> int:
        return self.config.budget - sum(round.num for round in self.rounds)

    def first_candidates(self, key, posterior):
        """Members whose DICs are draws of the posterior, for nothing simulated yet.

        The conductances that DICs leave free are drawn from the learned density, given
        what the recording looks like, and, for more diversity, from the Monte-Carlo
        box. The emulator corrects what it thinks they miss, and the most promising of
        both are taken.
        """
        draw_key, free_key, box_key = jr.split(key, 3)
        draws = np.asarray(posterior.sample(draw_key, 2 * NUM_DRAWN))[0]
        likely, wide = np.split(draws, 2)
        g = sample_density(self.loaded.density, free_key, self._contexts(likely))
        box = sample(box_key, self.neuron, NUM_DRAWN, dtype=jnp.dtype("float32"))
        diverse = self._promising(np.asarray(box), wide, BATCH // 2)
        rest = self._promising(np.asarray(g), likely, BATCH - len(diverse))
        return np.unique(np.exp(np.concatenate([diverse, rest])), axis=0)

    def _promising(self, g, draws, num):
        """Members made to have these DICs, corrected, as logarithms of conductances.

        Of those that are as likely valid as any, the `num` that are least alike.
        """
        pair = self.neuron.required_recipe.solved_pair
        population = impose(self.neuron, g, draws, through=pair)
        ok = np.flatnonzero(population.status == OK)
        # A fixed number, so that nothing is compiled for each recording.
        ok = np.resize(ok, len(g)) if len(ok) else np.arange(len(g))
        log_g, chance = polish(
            self.loaded.emulator,
            jnp.asarray(log_conductances(population.g[ok], self.neuron.bounds)),
            self.goal,
            self.bounds,
        )
        _, different = np.unique(ok, return_index=True)
        best = different[np.argsort(-np.asarray(chance)[different], kind="stable")]
        best = np.asarray(log_g)[best[: int(CHOICE * num)]]
        return best[_least_crowded(best, num)]

    def _contexts(self, draws):
        repeat = lambda x: np.repeat(np.asarray(x)[None], len(draws), axis=0)
        features = log_features(jax.tree.map(lambda x: x[None], self.target.features))
        rows = contexts(
            repeat(self.latent),
            repeat(features[0]),
            repeat(self.target.label),
            draws,
        )
        return jnp.asarray(rows)

    def _known(self) -> Known:
        return Known(self.log_g, self.misses, self.usable)

    def _corrected(self, key, spread):
        spread = jnp.asarray(spread, jnp.float32)
        born = children(
            key, self._known().padded(MEMORY), self.bounds, spread, BATCH, STRIDE
        )
        return np.exp(np.asarray(born))

    def _refined(self):
        """Near misses a step nearer, and how often each was refined."""
        log_g, errors, tries = self.near_misses.take(BATCH)
        slopes, scale = slopes_of_ensemble(self._known(), log_g)
        new = stepped(
            log_g,
            slopes,
            scale,
            errors,
            np.asarray(self.target.limits(errors)),
            0.5**tries,
            LONGEST["ensemble"],
        )
        return np.exp(np.clip(new, *np.asarray(self.bounds))), tries + 1

    def _try(self, name, g, tries=None) -> float:
        """Simulates candidates, keeps what is valid and learns from the rest."""
        run = self._simulate(g)
        verdict = judge(run, self.target)
        features, errors, valid = verdict.features, verdict.errors, verdict.valid
        failures = count_failures(verdict, self.target)
        self.rounds.append(
            Round(
                name=name,
                num=len(g),
                num_label=int((np.asarray(features.label) == self.target.label).sum()),
                num_valid=int(valid.sum()),
                failures=failures,
            )
        )
        self.found = np.concatenate([self.found, g[valid]])
        self._remember(g, errors, features)
        missed = np.isfinite(verdict.score) & ~valid
        self.near_misses.add(
            log_conductances(g, self.neuron.bounds)[missed],
            errors[missed],
            verdict.score[missed],
            (np.zeros(len(g), int) if tries is None else tries)[missed],
        )
        self._keep_nearest(g[~valid], errors[~valid], features, run, ~valid)
        return float(valid.mean())

    def _simulate(self, g, dt=None):
        return simulate_by_recipe(
            self.neuron,
            g,
            **self.window._asdict(),
            dt=dt,
            on_progress=self._still,
        )

    def _certify(self) -> None:
        """Keeps what is still valid at half the time step, as it then fires.

        Where more was found than is wanted, the least alike are tried first.
        """
        while self.num_valid < self.num and len(self.found):
            room = math.ceil(SPARE * (self.num - self.num_valid) / self.survival)
            log_g = log_conductances(self.found, self.neuron.bounds)
            tried = _least_crowded(log_g, room)
            g = self.found[tried]
            done = min(self.num_promised, self.num)
            self.report("halving the time step", done)
            again = self._simulate(g, dt=self.neuron.required_recipe.dt / 2)
            still = judge(again, self.target).valid
            self.found = np.delete(self.found, tried, axis=0)
            self.num_uncertified += int((~still).sum())
            self.valid.append((g[still], again.spike_times[still]))

    def _remember(self, g, errors, features):
        usable = np.asarray(features.label) == self.target.label
        usable &= np.isfinite(errors).all(axis=1)
        log_g = np.concatenate([log_conductances(g, self.neuron.bounds), self.log_g])
        misses = np.concatenate([errors, self.misses])
        usable = np.concatenate([usable, self.usable])
        size = np.where(usable, np.abs(misses).max(axis=1), np.inf)
        keep = np.argsort(size, kind="stable")[:MEMORY]
        self.log_g, self.misses, self.usable = log_g[keep], misses[keep], usable[keep]

    def _keep_nearest(self, g, errors, features, run, of):
        same = (np.asarray(features.label) == self.target.label)[of]
        size = np.where(np.isfinite(errors), np.abs(errors), np.inf).max(axis=1)
        size = np.where(same, size, np.inf)
        times = run.spike_times[of]
        for i in np.argsort(size)[: self.num]:
            if np.isfinite(size[i]):
                # A row of its own: a view would keep the whole round in memory.
                self.missed.append((size[i], g[i], times[i].copy()))
        self.missed.sort(key=lambda miss: miss[0])
        del self.missed[self.num :]

    def _most_diverse(self):
        """As many valid members as asked for: those in the least crowded places."""
        num_channels = len(self.neuron.channels)
        g = np.concatenate([np.zeros((0, num_channels)), *(g for g, _ in self.valid)])
        width = max([1, *(times.shape[1] for _, times in self.valid)])
        times = np.full((len(g), width), np.inf, np.float32)
        start = 0
        for _, own in self.valid:
            times[start : start + len(own), : own.shape[1]] = own
            start += len(own)
        keep = np.arange(len(g))
        if len(g) > self.num:
            log_g = log_conductances(g, self.neuron.bounds)
            keep = _least_crowded(log_g, self.num)
        return g[keep].astype(np.float32), times[keep]

    def certify(self, key) -> Certificate | None:
        """What else the members that are delivered stand.

        Nothing is known of them where there are none, or after an interruption.
        """
        g, _ = self._most_diverse()
        if not len(g) or self.interrupted:
            return None
        axes = ("start", *PERTURBATIONS) if self.config.robustness else ("start",)
        try:
            self.report("certifying", 0)
            return certify(
                self.neuron,
                g,
                self.target,
                axes=axes,
                key=jr.fold_in(key, CERTIFYING),
                **self.window._asdict(),
                on_progress=lambda done, total: self.report(
                    "certifying", self.num * done // total
                ),
            )
        except INTERRUPTIONS:
            self.interrupted = True
            return None

    def result(self, train, posterior, certificate, seconds, settings) -> Generated:
        """The members found: accepted ones first, then the nearest of the others."""
        found_g, found_times = self._most_diverse()
        width = max(
            [1, found_times.shape[1], *(len(times) for *_, times in self.missed)]
        )
        pad = lambda times: np.pad(
            times,
            ((0, 0), (0, width - times.shape[1])),
            constant_values=np.inf,
        )
        others = self.missed[: self.num - len(found_g)]
        if not len(found_g) and not others:
            advice = Advice(
                f"None of {sum(x.num for x in self.rounds)} candidates fired in the "
                "recording's pattern: try another model, a steadier window, or ",
                Remedy("budget", 4 * self.config.budget),
                ".",
            )
            raise ValueError(advice)
        g = np.concatenate([found_g, *(g[None] for _, g, _ in others)])
        spike_times = np.concatenate(
            [pad(found_times), *(pad(times[None]) for *_, times in others)]
        )
        accepted = np.arange(len(g)) < len(found_g)
        features = spike_features(spike_times)
        errors = np.abs(np.asarray(self.target.errors(features)))
        return Generated(
            neuron=self.neuron,
            train=train,
            target=self.target.features,
            posterior=posterior,
            tolerance=self.target.tolerance,
            num_asked=self.num,
            g=g,
            dics=np.asarray(
                dynamic_input_conductances(self.neuron, g, self.neuron.V_ref)
            ),
            V_th=np.asarray(threshold(self.neuron, g).V),
            spike_times=spike_times,
            features=features,
            distance=np.where(np.isfinite(errors), errors, np.inf).max(axis=1),
            accepted=accepted,
            num_uncertified=self.num_uncertified,
            certificate=certificate,
            **self.window._asdict(),
            rounds=tuple(self.rounds),
            participation_ratio=participation_ratio(g[accepted]),
            seconds=seconds,
            settings=settings,
        )


class _NearMisses:
    """Members of the target's pattern that missed it, nearest first, to be refined."""

    def __init__(self, num_channels: int):
        self.log_g = np.zeros((0, num_channels), np.float32)
        self.errors = np.zeros((0, NUM_COMPARED), np.float32)
        self.score = np.zeros(0)
        self.tries = np.zeros(0, int)

    def __len__(self) -> int:
        return len(self.score)

    def add(self, log_g, errors, score, tries) -> None:
        new = tries < MAX_TRIES
        join = lambda old, add: np.concatenate([old, add[new]])
        score = join(self.score, score)
        order = np.argsort(score, kind="stable")[:MEMORY]
        self.log_g = join(self.log_g, log_g)[order]
        self.errors = join(self.errors, errors)[order]
        self.tries = join(self.tries, tries)[order]
        self.score = score[order]

    def take(self, num: int):
        """Removes the first `num`: their conductances, errors and numbers of tries."""
        taken = self.log_g[:num], self.errors[:num], self.tries[:num]
        for name in ("log_g", "errors", "score", "tries"):
            setattr(self, name, getattr(self, name)[num:])
        return taken


def _least_crowded(log_g, num):
    """Which `num` members have the most room around them, in their own order."""
    if len(log_g) <= num:
        return np.arange(len(log_g))
    scaled = log_g / np.maximum(log_g.std(axis=0), 1e-3)
    near = min(CROWD, len(log_g) - 1)
    distance = np.asarray(KDTree(scaled).query(scaled, near + 1)[0])[:, -1]
    return np.sort(np.argsort(-distance, kind="stable")[:num])
