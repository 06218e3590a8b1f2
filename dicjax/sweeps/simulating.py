"""Simulates members that are drawn or read from a table."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.random as jr
import numpy as np

from dicjax._core import compiled_size, Stage
from dicjax.dics import (
    Column,
    conductance_columns,
    dic_columns,
    feature_columns,
    sample,
    spike_lists,
    table_of,
)
from dicjax.inference import draw_by_recipe, find_neuron, measured, stimulus_of
from dicjax.output import run_columns
from dicjax.simulation import Run, simulate
from dicjax.spikes import spike_features
from dicjax.sweeps.batches import Batches, free_bytes, num_at_once
from dicjax.sweeps.config import Drawn, SimulateJob
from dicjax.sweeps.unit import Finish, Inputs, Part, Report, Span


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
        usual = {"discard": 0.0, "dt": 0.05, "current": 0.0}
        if recipe is not None:
            usual = {name: getattr(recipe, name) for name in ("duration", *usual)}
        given = usual | settings.model_dump(exclude_none=True)
        self.duration, self.discard = given["duration"], given["discard"]
        if self.discard >= self.duration:
            raise ValueError(
                f"simulation.discard, {self.discard:g} ms, leaves nothing of the "
                f"duration of {self.duration:g} ms: give a smaller one."
            )
        self.dt, self.current = given["dt"], given["current"]
        most = math.ceil(MOST_HZ * (self.duration - self.discard) / 1000)
        self.room = settings.max_spikes or compiled_size(most, 64)
        each = 4 * len(self.neuron.channels) + SPIKE_BYTES * self.room
        self.batches = Batches(max(1, free_bytes() // each))
        self.key, self.noise_key = jr.split(jr.key(config.seed))

    @property
    def at_once(self) -> int:
        """Parts that keep all devices busy; one if the config sets their size."""
        if self.config.shard:
            return 1
        return max(1, min(num_at_once(), self.batches.largest) // self.shard)

    def compute(self, spans: Sequence[Span], on_progress: Report) -> Sequence[Finish]:
        """Simulates members of all parts together."""
        drawn = [self._draw(span) for span in spans]
        numbers, g = (np.concatenate(x) for x in zip(*drawn, strict=True))
        applied = self.noise_key, self.config.simulation.noise, self.current

        def run(first: int, num: int) -> Run:
            def report(stage: Stage, done: int, total: int) -> None:
                if on_progress is not None:
                    on_progress(stage, first * total + num * done, len(g) * total)

            some = slice(first, first + num)
            return simulate(
                self.neuron,
                g[some],
                self.duration,
                discard=self.discard,
                dt=self.dt,
                stimulus=stimulus_of(*applied, numbers[some]),
                max_spikes=self.room,
                on_progress=report,
            )

        runs = self.batches.run(run, len(g))
        no = lambda dtype, *shape: np.zeros((0, *shape), dtype)
        marks = (no(bool) for _ in range(3))
        empty = Run(no(np.float32, self.room), no(np.int32), *marks)
        whole = jax.tree.map(lambda *x: np.concatenate(x), empty, *runs)
        ends = np.cumsum([len(x) for x, _ in drawn])
        return [
            functools.partial(self._finish, *of, whole, int(end), span)
            for of, end, span in zip(drawn, ends, spans, strict=True)
        ]

    def _draw(self, span: Span) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and conductances of members; impossible members are left out."""
        _, first, num = span
        if self.given is not None:
            rows = self.given.slice(first, num)
            return span.units, np.stack([x.to_numpy() for x in rows.columns], axis=1)
        assert isinstance(self.config.members, Drawn)
        if self.config.members.sampler == "box":
            g = sample(self.key, self.neuron, num, first=first)
            return span.units, np.asarray(g, np.float32)
        g, numbers, _ = draw_by_recipe(self.key, self.neuron, first, num)
        return numbers, g.astype(np.float32)

    def _finish(
        self, numbers: np.ndarray, g: np.ndarray, whole: Run, end: int, span: Span
    ) -> Part:
        run = jax.tree.map(lambda x: x[end - len(g) : end], whole)
        has_dics = "dics" in self.config.save
        columns: dict[str, Column] = {
            **conductance_columns(self.neuron, g, numbers.astype(np.int64)),
            **(dic_columns(*measured(self.neuron, g)) if has_dics else {}),
            **feature_columns(spike_features(run.spike_times)),
            **run_columns(run),
        }
        table = table_of(columns, {})
        if "spikes" in self.config.save:
            table = table.append_column("spike_times", spike_lists(run.spike_times))
        failed = int((~run.succeeded).sum())
        counts = {"members": len(g), "failed": failed, "not drawn": span.num - len(g)}
        return table, counts
