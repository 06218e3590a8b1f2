"""What a worker does: computes parts, and writes some while it computes the next."""

import dataclasses
import functools
import itertools
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from dicjax._core import Row, Stage
from dicjax.sweeps.plan import PLAN, Plan, read_plan
from dicjax.sweeps.unit import Finish, Job, Told


TIMED_OUT = 124  # exit status of a worker that gave itself up

Outcome = tuple[int, Row | str]  # a part's line of the manifest, or what went wrong


def work(
    folder: str, groups: Sequence[Sequence[int]], timeout: float | None
) -> list[Outcome]:
    """Computes parts of the sweep in `folder`, in a process of its own.

    With `timeout`, in seconds for each part, the process ends itself when it gets
    nowhere, for others to take over.
    """
    return list(work_through(folder, groups, None, timeout))


def work_through(
    folder: str | pathlib.Path,
    groups: Sequence[Sequence[int]],
    told: Told = None,
    timeout: float | None = None,
) -> Iterator[Outcome]:
    """Computes parts, and tells of each when it is written, or why it could not be.

    Parts of a group may be computed together, unless each has its time.
    """
    plan, job = _begun(str(folder), (pathlib.Path(folder) / PLAN).stat().st_mtime_ns)
    with ThreadPoolExecutor(1) as writer:
        pending: list[tuple[int, Future[Row]]] = []

        def tell(num: int, stage: Stage, done: int, total: int) -> None:
            # Those that are being written are computed, too.
            if told is not None:
                told(stage, len(pending) * total + num * done, total)

        for some in _together(plan, groups, 1 if timeout else job.at_once):
            for made in _computed(plan, job, some, tell, timeout):
                yield from itertools.starmap(_settled, pending)
                pending = []
                if isinstance(made.finishes, str):
                    yield from ((shard, made.finishes) for shard in made.shards)
                    continue
                about = {"began": made.began, "seconds": made.seconds}
                pending = [
                    (shard, writer.submit(_write, plan, shard, finish, about))
                    for shard, finish in zip(made.shards, made.finishes, strict=True)
                ]
        yield from itertools.starmap(_settled, pending)


def _together(
    plan: Plan, groups: Sequence[Sequence[int]], most: int
) -> Iterator[list[int]]:
    """Parts that are computed at once; those of one group and stage."""
    for group in groups:
        for _, of_stage in itertools.groupby(group, lambda i: plan.spans[i].stage):
            while some := list(itertools.islice(of_stage, most)):
                yield some


@dataclasses.dataclass(frozen=True)
class _Made:
    """Parts that were computed together, or what went wrong with one.

    - `began`: in seconds since the epoch; `seconds`: that each took.
    """

    shards: list[int]
    finishes: Sequence[Finish] | str
    began: float
    seconds: float


def _computed(
    plan: Plan,
    job: Job,
    shards: list[int],
    tell: Callable[[int, Stage, int, int], None],
    timeout: float | None,
) -> Iterator[_Made]:
    """Computes parts together; where they fail together, each alone."""
    num, spans = len(shards), [plan.spans[shard] for shard in shards]
    parts = [(span.first, span.num) for span in spans]
    began, start = time.time(), time.perf_counter()
    finishes: Sequence[Finish] | str
    try:
        with _watched(timeout):
            told = functools.partial(tell, num)
            finishes = job.compute(spans[0].stage, parts, told)
    except Exception as error:
        finishes = _said(error)
    # Not before the error is forgotten, with all that was computed on the way to it.
    if isinstance(finishes, str) and num > 1:
        for shard in shards:
            yield from _computed(plan, job, [shard], tell, timeout)
    else:
        yield _Made(shards, finishes, began, (time.perf_counter() - start) / num)


@functools.lru_cache(1)
def _begun(folder: str, planned: int) -> tuple[Plan, Job]:
    # Read once per process, unless the sweep is planned anew.
    del planned
    plan = read_plan(pathlib.Path(folder))
    return plan, plan.begin()


def _write(plan: Plan, shard: int, finish: Finish, computed: dict[str, float]) -> Row:
    start = time.perf_counter()
    table, counts = finish()
    device = jax.local_devices()[0]
    about: dict[str, Any] = {
        "units": plan.spans[shard].num,
        "counts": counts,
        "device": device.device_kind,
        "began": computed["began"],
        "seconds": round(computed["seconds"] + time.perf_counter() - start, 3),
    }
    return plan.store.write(shard, table, about)


def _settled(shard: int, written: "Future[Row]") -> Outcome:
    try:
        return shard, written.result()
    except Exception as error:
        return shard, _said(error)


def _said(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500] if text else 'no more is known'}"


class _watched:
    """Ends the process if what is done inside takes longer than `timeout` seconds."""

    def __init__(self, timeout: float | None):
        self.timer = None
        if timeout is not None:
            # Compiled code cannot be interrupted otherwise.
            self.timer = threading.Timer(timeout, os._exit, (TIMED_OUT,))
            self.timer.daemon = True

    def __enter__(self):
        if self.timer is not None:
            self.timer.start()

    def __exit__(self, *_):
        if self.timer is not None:
            self.timer.cancel()
