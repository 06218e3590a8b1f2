"""The search for members that fire like a recording, round by round."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.spatial import KDTree

from dicjax.atlas import Atlas
from dicjax.dic import dynamic_input_conductances, threshold
from dicjax.neuron import Neuron
from dicjax.population import compensate, impose, OK
from dicjax.refinement import children, correct, Known
from dicjax.result import (
    FAILURES,
    first_failure,
    Generated,
    participation_ratio,
    Round,
)
from dicjax.simulation import simulate
from dicjax.spikes import (
    BURSTING,
    feature_errors,
    Features,
    is_valid,
    spike_features,
)


BATCH = 512  # candidates per round
MEMORY = 4096  # members that corrections learn from
NUM_NEAR = 256  # atlas members from which free conductances are drawn
NUM_DRAWN = 8192  # DICs drawn for it, of which the first feasible ones are used
MIN_NEAR = 20  # below which they are drawn by the recipe instead
STRIDE = 0.3  # of ln(feature / target) that one correction takes at most
NUM_PICKS = 8  # of them that are compared with each draw of DICs
# Where a good share of candidates is valid, more are sought than asked for, and among
# them corrected ones, to choose the most diverse from.
WORTHWHILE = 0.15  # share
SURPLUS = 1.5  # valid members per one asked for
MIN_ROUNDS = 4
CROWD = 6  # neighbours that tell how crowded a member's surroundings are
FLOOR = 1e-3  # of a channel's bound: what counts as none of it

Progress = Callable[[str, int, int], None]


class Search:
    """The rounds of one call of `generate`, and what they have found so far."""

    def __init__(self, neuron, atlas: Atlas, target, tolerance, config, report, num):
        self.neuron = neuron
        self.target = target
        self.tolerance = tolerance
        self.config = config
        self.report = report
        self.num = num
        self.duration, self.discard = simulated_time(neuron, target)
        high = _bounds(neuron)
        self.bounds = jnp.asarray(np.log([FLOOR * high, high]), jnp.float32)
        self._remember_atlas(atlas, np.argsort(atlas.errors(target))[: MEMORY // 2])
        self.rounds: list[Round] = []
        self.valid: list[tuple] = []  # (g, spike times) of certified members
        self.missed: list[tuple] = []  # (distance, g, spike times), a few of each round
        self.num_uncertified = 0
        self.interrupted = False

    def _remember_atlas(self, atlas, members):
        self.log_g = _log(self.neuron, atlas.g[members])
        as_features = jax.tree.map(lambda x: x[members], atlas.as_features())
        self.misses = np.asarray(feature_errors(as_features, self.target))
        self.usable = (atlas.labels[members] == int(self.target.label)) & np.isfinite(
            self.misses
        ).all(axis=1)

    @property
    def num_valid(self) -> int:
        return sum(len(g) for g, _ in self.valid)

    def run(self, key, posterior) -> None:
        """Simulates round after round until enough members are valid.

        An interruption ends it with what the rounds before it found, if there were any.
        """
        try:
            self._run(key, posterior)
        except KeyboardInterrupt:
            if not self.rounds:
                raise
            self.interrupted = True

    def _run(self, key, posterior) -> None:
        self.report("simulating the posterior", 0, self.num)
        candidates = self._from_posterior(jr.fold_in(key, 0), posterior)
        share = self._try("posterior", candidates)
        spread = self.config.spread * (1 if share > WORTHWHILE else 1 / 3)
        number = 1
        while self._wanting(share) and self._budget_left() >= BATCH:
            done = min(self.num_valid, self.num)
            aim = "widening" if done == self.num else "correcting"
            self.report(f"{aim}, round {number}", done, self.num)
            candidates = self._corrected(jr.fold_in(key, number), spread)
            share = self._try(f"correction {number}", candidates)
            # Wide where that works, for diversity; narrower where little is valid, and
            # at once where children do not even fire like their parents.
            if self.rounds[-1].num_label < 0.3 * self.rounds[-1].num:
                spread *= 0.5
            else:
                spread *= 1.15 if share > 0.4 else 0.75 if share < 0.15 else 1.0
            spread = min(max(spread, 0.05), 2.0)
            number += 1

    def _wanting(self, share: float) -> bool:
        """Whether to go on: for enough members, or, where cheap, to choose from."""
        if share <= WORTHWHILE:
            return self.num_valid < self.num
        enough = self.num_valid >= SURPLUS * self.num
        return not enough or len(self.rounds) < MIN_ROUNDS

    def _budget_left(self) -> int:
        return self.config.budget - sum(round.num for round in self.rounds)

    def _from_posterior(self, key, posterior):
        """Members whose DICs are draws of the posterior.

        The conductances that DICs leave free are those of members of the atlas that
        fire like the recording: of several drawn at random, the one nearest in DICs.
        What that changes in the train is corrected to first order.
        """
        draw_key, pick_key, fill_key = jr.split(key, 3)
        draws = np.asarray(posterior.sample(draw_key, NUM_DRAWN))[0]
        num_near = min(NUM_NEAR, int(self.usable.sum()))
        if num_near < MIN_NEAR:
            filled = compensate(fill_key, self.neuron, draws[:BATCH])
            return filled.g[filled.status == OK].astype(np.float32)
        near = np.exp(self.log_g[:num_near])  # the nearest come first
        dics = np.asarray(
            dynamic_input_conductances(self.neuron, near, self.neuron.V_ref)
        )[:, 1:]
        scale = np.maximum(draws.std(axis=0), 1e-3)
        picks = np.asarray(jr.randint(pick_key, (len(draws), NUM_PICKS), 0, num_near))
        away = np.abs((dics[picks] - draws[:, None]) / scale).max(axis=2)
        parents = picks[np.arange(len(draws)), away.argmin(axis=1)]
        population = impose(self.neuron, near[parents], draws)
        ok = np.flatnonzero(population.status == OK)
        # A fixed number, so that nothing is compiled for each recording.
        ok = np.resize(ok, BATCH) if len(ok) else np.arange(BATCH)
        born = correct(
            self._known(),
            self.bounds,
            jnp.asarray(parents[ok]),
            jnp.asarray(_log(self.neuron, population.g[ok])),
            STRIDE,
        )
        return np.unique(np.exp(np.asarray(born)), axis=0)

    def _known(self) -> Known:
        """The members to learn from, padded to a fixed number."""
        missing = MEMORY - len(self.log_g)
        pad = lambda x: jnp.asarray(
            np.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
        )
        return Known(pad(self.log_g), pad(self.misses), pad(self.usable))

    def _corrected(self, key, spread):
        spread = jnp.asarray(spread, jnp.float32)
        born = children(key, self._known(), self.bounds, spread, BATCH, STRIDE)
        return np.exp(np.asarray(born))

    def _try(self, name, g) -> float:
        """Simulates candidates, keeps what is valid and learns from the rest."""
        run = self._simulate(g, self.neuron.required_recipe.dt)
        features, errors, valid = self._judge(run)
        reasons = first_failure(
            features, errors, self.target, self.tolerance, run.succeeded
        )
        counts = np.bincount(reasons[~valid], minlength=len(FAILURES))
        self.rounds.append(
            Round(
                name=name,
                num=len(g),
                num_label=int((np.asarray(features.label) == self.target.label).sum()),
                num_valid=int(valid.sum()),
                failures=dict(zip(FAILURES, counts.tolist(), strict=True)),
            )
        )
        self._certify(g[valid])
        self._remember(g, errors, features)
        self._keep_nearest(g[~valid], errors[~valid], features, run, ~valid)
        return float(valid.mean())

    def _simulate(self, g, dt):
        return simulate(self.neuron, g, self.duration, discard=self.discard, dt=dt)

    def _judge(self, run):
        """Features of what was simulated, its misses, and which members are valid."""
        # Padded to a number of rows that is compiled for once.
        num = len(run.spike_times)
        rows = -(-num // BATCH) * BATCH
        padded = np.pad(run.spike_times, ((0, rows - num), (0, 0)), mode="edge")
        features = spike_features(padded)
        errors = feature_errors(features, self.target)
        valid = is_valid(features, self.target, self.tolerance)
        cut = lambda x: np.asarray(x)[:num]
        return jax.tree.map(cut, features), cut(errors), run.succeeded & cut(valid)

    def _certify(self, g):
        """Keeps what is still valid at half the time step, as it then fires."""
        if not len(g):
            return
        again = self._simulate(g, self.neuron.required_recipe.dt / 2)
        _, _, still = self._judge(again)
        self.num_uncertified += int((~still).sum())
        self.valid.append((g[still], again.spike_times[still]))

    def _remember(self, g, errors, features):
        usable = np.asarray(features.label) == int(self.target.label)
        usable &= np.isfinite(errors).all(axis=1)
        log_g = np.concatenate([_log(self.neuron, g), self.log_g])
        misses = np.concatenate([errors, self.misses])
        usable = np.concatenate([usable, self.usable])
        size = np.where(usable, np.abs(misses).max(axis=1), np.inf)
        keep = np.argsort(size, kind="stable")[:MEMORY]
        self.log_g, self.misses, self.usable = log_g[keep], misses[keep], usable[keep]

    def _keep_nearest(self, g, errors, features, run, of):
        same = (np.asarray(features.label) == int(self.target.label))[of]
        size = np.where(np.isfinite(errors), np.abs(errors), np.inf).max(axis=1)
        size = np.where(same, size, np.inf)
        for i in np.argsort(size)[: self.num]:
            if np.isfinite(size[i]):
                self.missed.append((size[i], g[i], run.spike_times[of][i]))

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
            log_g = _log(self.neuron, g)
            scaled = log_g / np.maximum(log_g.std(axis=0), 1e-3)
            near = min(CROWD, len(g) - 1)
            distance = KDTree(scaled).query(scaled, near + 1)[0][:, -1]
            keep = np.sort(np.argsort(-distance, kind="stable")[: self.num])
        return g[keep].astype(np.float32), times[keep]

    def result(self, train, posterior, seconds, settings) -> Generated:
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
        self.missed.sort(key=lambda miss: miss[0])
        others = self.missed[: self.num - len(found_g)]
        if not len(found_g) and not others:
            raise ValueError(
                f"None of {sum(x.num for x in self.rounds)} candidates fired in the "
                "recording's pattern: try another model, a steadier window, or a "
                "larger `--budget`."
            )
        g = np.concatenate([found_g, *(g[None] for _, g, _ in others)])
        spike_times = np.concatenate(
            [pad(found_times), *(pad(times[None]) for *_, times in others)]
        )
        accepted = np.arange(len(g)) < len(found_g)
        features = spike_features(spike_times)
        errors = np.abs(np.asarray(feature_errors(features, self.target)))
        return Generated(
            neuron=self.neuron,
            train=train,
            target=self.target,
            posterior=posterior,
            tolerance=self.tolerance,
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
            duration=self.duration,
            discard=self.discard,
            rounds=tuple(self.rounds),
            participation_ratio=participation_ratio(g[accepted]),
            seconds=seconds,
            settings=settings,
        )


def simulated_time(neuron: Neuron, target: Features) -> tuple[float, float]:
    """How long (ms) members are simulated to be compared with a train, and the start
    that is left out: twelve bursts or forty intervals, within reason."""
    discard = neuron.required_recipe.discard
    if int(target.label) == BURSTING:
        span = 12 * float(target.period)
    else:
        span = 40 * float(target.mean_isi)
    return discard + float(np.clip(span, 2000.0, 60_000.0)), discard


def _log(neuron, g):
    return np.log(np.maximum(g, FLOOR * _bounds(neuron))).astype(np.float32)


def _bounds(neuron):
    # Published recipes that are not drawn from the box go far beyond it.
    return neuron.box * (1 if neuron.required_recipe.bounded else 3)
