"""Simulates members that are drawn or read from a table."""

import functools
import itertools
import math
import operator
from collections.abc import Sequence

import jax
import jax.random as jr
import numpy as np
import pyarrow as pa

from dicjax._core import compiled_size, Progress, Stage
from dicjax.dics import (
    Column,
    conductance_columns,
    dic_columns,
    feature_columns,
    sample,
    spike_lists,
    table_of,
)
from dicjax.inference import (
    draw_by_recipe,
    find_neuron,
    measured,
    stimulus_of,
)
from dicjax.neurons import Neuron
from dicjax.simulation import Run, simulate
from dicjax.spikes import features_of_all
from dicjax.sweeps.batches import Batches, num_at_once
from dicjax.sweeps.config import Drawn, SimulateJob
from dicjax.sweeps.unit import Finish, Inputs, Stretch


MEMBERS = 65_536  # of a part at most
FEWEST_PARTS, MOST_PARTS = 64, 32_768
FEWEST_MEMBERS = 1024  # of a part at least
MOST_HZ = 200.0  # highest rate that spike arrays have room for
SPIKE_BYTES = 12  # memory per spike in these arrays, with copies


def members_per_part(num: int) -> int:
    """Members of a part, so that there are enough parts to share, but not too many."""
    few = max(FEWEST_MEMBERS, -(-num // FEWEST_PARTS))
    return max(min(MEMBERS, few), -(-num // MOST_PARTS))


class Simulating:
    """Simulates members that are drawn or read from a table."""

    def __init__(self, config: SimulateJob, inputs: Inputs):
        self.neuron, _ = find_neuron(config.model)
        self.config = config
        self.given = inputs.get("members")
        members = config.members
        num = members.num if isinstance(members, Drawn) else inputs["members"].num_rows
        self.stages = (num,)
        self.shard = config.shard or members_per_part(num)
        recipe, settings = self.neuron.recipe, config.simulation
        if recipe is None and (settings.duration is None or isinstance(members, Drawn)):
            raise ValueError(
                f"{self.neuron.name} has no recipe to draw members by: give a table of "
                "members, and simulation.duration (ms)."
            )
        pick = lambda given, name, other: (
            given if given is not None else getattr(recipe, name, other)
        )
        self.duration = pick(settings.duration, "duration", None)
        self.discard = pick(settings.discard, "discard", 0.0)
        if self.discard >= self.duration:
            raise ValueError(
                f"simulation.discard, {self.discard:g} ms, leaves nothing of the "
                f"duration of {self.duration:g} ms: give a smaller one."
            )
        self.dt = pick(settings.dt, "dt", 0.05)
        self.current = pick(settings.current, "current", 0.0)
        self.room = settings.max_spikes or _room(self.duration - self.discard)
        each = 4 * len(self.neuron.channels) + SPIKE_BYTES * self.room
        self.batches = Batches(each)
        self.key, self.noise_key = jr.split(jr.key(config.seed))

    @property
    def at_once(self) -> int:
        """Parts that keep all devices busy; one if the config sets their size."""
        if self.config.shard:
            return 1
        return max(1, min(num_at_once(), self.batches.max_size()) // self.shard)

    def compute(
        self, stage: int, parts: Sequence[Stretch], on_progress: Progress | None
    ) -> Sequence[Finish]:
        """Simulates members of all parts together."""
        del stage
        drawn = [self._draw(*part) for part in parts]
        numbers, g = (np.concatenate(x) for x in zip(*drawn, strict=True))

        def run(first: int, num: int) -> Run:
            def report(stage: Stage, done: int, total: int) -> None:
                if on_progress is not None:
                    on_progress(stage, first * total + num * done, len(g) * total)

            some = slice(first, first + num)
            return self._simulate(numbers[some], g[some], report)

        runs = self.batches.run(run, len(g))
        ends = list(itertools.accumulate(len(x) for x, _ in drawn))
        return [
            functools.partial(
                self._finish, *of, _rows(runs, end - len(of[0]), end), num
            )
            for of, end, (_, num) in zip(drawn, ends, parts, strict=True)
        ]

    def _draw(self, first: int, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and conductances of members; impossible members are left out."""
        numbers = np.arange(first, first + num)
        if self.given is not None:
            rows = self.given.slice(first, num)
            return numbers, np.stack([x.to_numpy() for x in rows.columns], axis=1)
        sampler = getattr(self.config.members, "sampler", "box")
        if sampler == "box":
            g = np.asarray(sample(self.key, self.neuron, num, first=first), np.float32)
            return numbers, g
        g, kept, _ = draw_by_recipe(self.key, self.neuron, first, num)
        return first + kept, g.astype(np.float32)

    def _simulate(
        self, numbers: np.ndarray, g: np.ndarray, on_progress: Progress | None
    ) -> Run:
        return simulate(
            self.neuron,
            g,
            self.duration,
            discard=self.discard,
            dt=self.dt,
            stimulus=stimulus_of(
                self.noise_key, self.config.simulation.noise, self.current, numbers
            ),
            max_spikes=self.room,
            on_progress=on_progress,
        )

    def _finish(
        self, numbers: np.ndarray, g: np.ndarray, runs: list[Run], num: int
    ) -> tuple[pa.Table, dict[str, int]]:
        join = lambda name, empty: np.concatenate(
            [empty, *[getattr(run, name) for run in runs]]
        )
        times = join("spike_times", np.zeros((0, self.room), np.float32))
        num_spikes = join("num_spikes", np.zeros(0, np.int32))
        succeeded = join("succeeded", np.zeros(0, bool))
        overflowed = join("overflowed", np.zeros(0, bool))
        columns: dict[str, Column] = {
            **conductance_columns(self.neuron, g),
            **(dics_of(self.neuron, g) if "dics" in self.config.save else {}),
            **feature_columns(features_of_all(times)),
            "num_spikes": (num_spikes, "1", "number of spikes"),
            "succeeded": (succeeded, "", "stayed finite, and no spike was lost"),
            "overflowed": (overflowed, "", "fired more often than could be recorded"),
        }
        columns["member"] = (numbers.astype(np.int64), *columns["member"][1:])
        table = table_of(columns, {})
        if "spikes" in self.config.save:
            table = table.append_column("spike_times", spike_lists(times))
        counts = {"members": len(g), "failed": int((~succeeded).sum())}
        return table, counts | {"not drawn": num - len(g)}


def _rows(runs: Sequence[Run], first: int, end: int) -> list[Run]:
    """The rows of members `first` to `end` in consecutive runs."""
    found, begin = [], 0
    for run in runs:
        num = len(run.num_spikes)
        low, high = max(first - begin, 0), min(end - begin, num)
        if low < high:
            rows = slice(low, high)
            found.append(jax.tree.map(operator.itemgetter(rows), run))
        begin += num
    return found


def _room(time: float) -> int:
    """Spikes that arrays have room for in this time (ms)."""
    return compiled_size(math.ceil(MOST_HZ * time / 1000), 64)


def dics_of(neuron: Neuron, g: np.ndarray) -> dict[str, Column]:
    """Columns of input conductances and thresholds."""
    return dic_columns(*measured(neuron, g))
