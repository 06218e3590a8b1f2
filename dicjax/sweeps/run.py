"""Runs sweeps, reports their progress and reads their results."""

import contextlib
import dataclasses
import pathlib
from collections import Counter
from collections.abc import Sequence

import pyarrow.dataset as pd

from dicjax._core import duration, Progress, Row, Stage
from dicjax.sweeps.config import Config
from dicjax.sweeps.executors import Executor, Here
from dicjax.sweeps.plan import make_plan, Plan, read_plan


IN_A_ROW = 10  # consecutive failures after which a sweep gives up
PER_WORKER = 8  # groups at least, so that workers end at about the same time
LARGEST_GROUP = 8  # parts
RECENT = 200  # parts that the current pace is measured on


@dataclasses.dataclass(frozen=True)
class Standing:
    """The state of a sweep.

    - `folder`, `job`: folder and kind of the sweep.
    - `done`, `num_parts`: complete parts, and all parts.
    - `done_units`, `num_units`: complete units (members or targets), and all units.
    - `failed`: the last error of every missing part that failed, by its number.
    - `counts`: sums of the counts that parts record.
    - `num_bytes`: size of all complete parts.
    - `units_per_second`: current pace; nan if nothing is done.
    - `seconds_left`: remaining time at this pace.
    """

    folder: pathlib.Path
    job: str
    done: int
    num_parts: int
    done_units: int
    num_units: int
    failed: dict[int, str]
    counts: dict[str, int]
    num_bytes: int
    units_per_second: float

    @property
    def is_complete(self) -> bool:
        """Whether all parts are done."""
        return self.done == self.num_parts

    @property
    def seconds_left(self) -> float:
        """Remaining time at the current pace."""
        return (self.num_units - self.done_units) / self.units_per_second

    def __str__(self) -> str:
        share = self.done_units / max(self.num_units, 1)
        lines = [
            f"{self.folder}: {self.job}, {self.done:,} of {self.num_parts:,} parts, "
            f"{self.done_units:,} of {self.num_units:,} units ({share:.1%}), "
            f"{self.num_bytes / 1e6:,.1f} MB"
        ]
        if self.counts:
            counted = ", ".join(f"{num:,} {name}" for name, num in self.counts.items())
            lines.append(f"of which {counted}")
        if self.done and not self.is_complete:
            lines.append(
                f"{self.units_per_second:,.4g} units per second lately: "
                f"{duration(self.seconds_left)} left at that pace"
            )
        for shard, error in list(self.failed.items())[:IN_A_ROW]:
            lines.append(f"part {shard} failed: {error}")
        if len(self.failed) > IN_A_ROW:
            lines.append(f"and {len(self.failed) - IN_A_ROW:,} more")
        return "\n".join(lines)


def run_sweep(
    config: Config,
    folder: pathlib.Path | str,
    *,
    executor: Executor | None = None,
    share: tuple[int, int] | None = None,
    retries: int = 2,
    any_version: bool = False,
    on_progress: Progress | None = None,
) -> Standing:
    """Runs a sweep, or computes its missing parts.

    Every part is a file in `folder / "parts"`. Its bytes do not depend on the worker
    that computes it. A sweep that was interrupted or killed continues where it was when
    it is run again. One that is run with more members, recordings, tolerances or models
    than before computes only what is new.

    **Arguments:**

    - `config`: configuration of the sweep; see [`dicjax.sweeps.read_config`][].
    - `folder`: folder of the sweep; it holds the parts, the plan and the inputs.
    - `executor`: where parts are computed; by default in this process.
    - `share`: (i, N) runs every N-th part from the i-th on, while other runs compute
        the other parts.
    - `retries`: how often a failed part is tried again.
    - `any_version`: continue a sweep that other versions of packages began.
    - `on_progress`: called with (stage, units done, units).

    **Returns:**

    The state of the sweep afterwards: [`dicjax.sweeps.Standing`][].

    **Raises:**

    - `ValueError`: if the folder holds something else, another sweep, or a sweep that
        is running.
    """
    folder = pathlib.Path(folder)
    report = on_progress or (lambda stage, done, total: None)
    if share is not None and not (share[1] >= 1 and 0 <= share[0] < share[1]):
        raise ValueError(f"There is no share {share[0]} of {share[1]}.")
    report(Stage("planning"), 0, 1)
    plan = make_plan(config, folder, any_version=any_version)
    with plan.store.locked(share):
        if strangers := plan.store.strangers(len(plan.spans)):
            raise ValueError(
                f"{strangers[0]} is not a part of this sweep, but would be read as "
                "one: move it away."
            )
        report(Stage("checking"), 0, plan.num_units)
        done = set(plan.done(range(len(plan.spans))))
        run = _Run(plan, executor or Here(), share or (0, 1), report, done)
        run.run(retries)
        if share is None:
            plan.store.tidy()  # remove leftovers of workers that died
    return standing(folder)


@dataclasses.dataclass
class _Run:
    plan: Plan
    executor: Executor
    share: tuple[int, int]
    report: Progress
    done: set[int]
    reported: int = 0  # units

    def run(self, retries: int) -> None:
        """Computes missing parts, each stage when all earlier stages are complete."""
        own, num = self.share
        for stage in range(len(self.plan.stages)):
            shards = self.plan.of_stage(stage)
            for attempt in range(1 + retries):
                missing = [x for x in shards if x not in self.done and x % num == own]
                if not missing or not self._attempt(missing, attempt):
                    break
            if not self.done.issuperset(shards):
                return  # another run computes the rest, or it failed

    def _attempt(self, missing: Sequence[int], attempt: int) -> bool:
        """Computes parts once, and returns whether another attempt makes sense."""
        failures = 0
        groups = self._groups(missing, attempt)
        computed = self.executor.run(self.plan.folder, groups, self._report)
        with contextlib.closing(computed):
            for shard, outcome in computed:
                if isinstance(outcome, str):
                    failures += 1
                    with contextlib.suppress(OSError):  # the disk may be full
                        self.plan.store.note({"shard": shard, "error": outcome})
                    if failures == IN_A_ROW:
                        return False
                else:
                    failures = 0
                    self.done.add(shard)
                    self._report(Stage("writing"), 0, 1)
        return True

    def _groups(self, missing: Sequence[int], attempt: int) -> list[Sequence[int]]:
        # A part that failed is tried alone, so that no other part is lost with it.
        least = self.executor.num_workers * PER_WORKER
        size = 1 if attempt else max(1, min(LARGEST_GROUP, len(missing) // least))
        if isinstance(self.executor, Here) and not attempt:
            size = len(missing)  # there are no other workers
        return [missing[i : i + size] for i in range(0, len(missing), size)]

    def _report(self, stage: Stage, done: int, total: int) -> None:
        del stage  # the stage of one part; users see the progress of the sweep
        plan = self.plan
        units = sum(plan.spans[shard].num for shard in self.done)
        units = min(units + plan.shard * done // max(total, 1), plan.num_units)
        # The last part may be shorter than `shard`: reported progress must not go back.
        self.reported = max(self.reported, units)
        self.report(Stage(plan.config.job), self.reported, plan.num_units)


def standing(folder: pathlib.Path | str, *, check: bool = False) -> Standing:
    """The state of the sweep in a folder, also while it runs.

    **Arguments:**

    - `folder`: folder of the sweep.
    - `check`: read every part and compare its checksum; by default only sizes are
        compared.

    **Raises:**

    - `ValueError`: if the folder holds no sweep.
    """
    plan = read_plan(pathlib.Path(folder))
    done = plan.done(range(len(plan.spans)), check=check)
    counts: Counter[str] = Counter()
    for row in done.values():
        counts.update(row["counts"])
    errors = {row["shard"]: row["error"] for row in plan.store.rows() if "error" in row}
    return Standing(
        folder=plan.folder,
        job=plan.config.job,
        done=len(done),
        num_parts=len(plan.spans),
        done_units=sum(row["units"] for row in done.values()),
        num_units=plan.num_units,
        failed={x: error for x, error in sorted(errors.items()) if x not in done},
        counts=dict(counts),
        num_bytes=sum(row["bytes"] for row in done.values()),
        units_per_second=_pace(list(done.values())),
    )


def read_sweep(folder: pathlib.Path | str) -> pd.Dataset:
    """The parts of a sweep as one dataset of pyarrow.

    **Raises:**

    - `ValueError`: if the folder holds no sweep, or no part is done yet.
    """
    plan = read_plan(pathlib.Path(folder))
    done = plan.done(range(len(plan.spans)), check=False)
    if not done:
        raise ValueError(f"No part of the sweep in {folder} is complete yet.")
    return pd.dataset([str(plan.store.path(i)) for i in sorted(done)])


def _pace(rows: list[Row]) -> float:
    """Recent units per second of all workers together."""
    rows = sorted(rows, key=lambda row: row["time"])[-RECENT:]
    if not rows:
        return float("nan")
    began = min(row["began"] for row in rows)
    return sum(row["units"] for row in rows) / max(rows[-1]["time"] - began, 1e-3)
