"""What a very large sweep demands of disks, manifest and scheduler."""

import dataclasses
import heapq
import json
import logging
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dicjax._core import sha256
from dicjax.sweeps import read_config, read_sweep, standing
from dicjax.sweeps.plan import make_plan, Plan
from dicjax.sweeps.run import LARGEST_GROUP, PER_WORKER
from dicjax.sweeps.unit import Span
from scripts.bench.processes import cores
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.sweep.config import write_config
from scripts.bench.timing import clocked


WRITTEN = 200  # parts that are written one by one, to time them
SPREAD = 0.2  # of the logarithm of how long parts take
TASKS = 1000  # that do nothing, for Dask to give out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale(Benchmark):
    """What a sweep of a billion members on 64 workers demands.

    Disks, manifest and scheduler are measured on as many parts as the sweep would have,
    but empty ones. How long workers are idle is simulated.
    """

    members: int = 10**9
    """Members of the sweep."""
    workers: int = 64
    """Workers that compute it."""
    rate: float = 20_000.0
    """Members that each worker is assumed to compute in a second."""
    bytes: float = 100.0
    """Size of a member on disk, as assumed."""

    def measure(self) -> Iterator[Measurement]:
        """Plans the sweep, writes empty parts, and reads them back."""
        title = f"{self.members:,} members, {self.workers} workers"
        each = self.members / self.workers / self.rate  # s of a worker
        size = self.bytes * self.members
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            path = write_config(folder, self.members, 6000.0)
            plan, planned = clocked(
                lambda: make_plan(read_config(path), folder / "out")
            )
            written = write_parts(plan)
            of, looked = clocked(lambda: standing(plan.folder))
            _, checked = clocked(lambda: standing(plan.folder, check=True))
            _, opened = clocked(lambda: read_sweep(plan.folder).count_rows())
            manifest = sum(x.stat().st_size for x in plan.store.manifest.iterdir())
        assert of.is_complete
        num = len(plan.spans)
        groups = max(1, min(LARGEST_GROUP, num // (self.workers * PER_WORKER)))
        found = {
            ("parts", ""): num,
            ("members of a part", ""): plan.shard,
            ("on disk", "GB"): size / 1e9,
            ("size of a part", "MB"): size / num / 1e6,
            ("written by all workers", "MB/s"): size / each / 1e6,
            ("manifest", "MB"): manifest / 1e6,
            ("planning", "s"): planned,
            ("syncing and renaming a part, one writer", "ms"): 1000 * written,
            ("`dicjax sweep status`", "s"): looked,
            ("checksums of empty parts", "s"): checked,
            ("rows of empty parts", "s"): opened,
            ("checksums of full parts, one host", "min"): size / hash_rate() / 60,
            ("computing, without a pause", "h"): each / 3600,
        }
        for group in (1, groups, 4 * groups):
            idle = tail(num, self.workers, each * self.workers / num, group)
            name = f"idle at the end, groups of {group}"
            found[name, "% of worker time"] = 100 * idle
        found["tasks to give out", "1/s"] = num / groups / each
        yield from row(title, {}, found)
        yield from dask(title)


def dask(title: str) -> Iterator[Measurement]:
    """What a task costs Dask's scheduler, if Dask is installed."""
    name = "a task of Dask's scheduler"
    try:
        seconds = dask_task()
    except ModuleNotFoundError:
        note = f"{name}: not measured, since Dask is not installed (dicjax[dask])"
        yield Measurement(title, {}, note=note)
    else:
        yield from row(title, {}, {(name, "ms"): 1000 * seconds})


def write_parts(plan: Plan) -> float:
    """Writes as many parts as planned, with no rows; seconds that one takes."""
    table, counts = plan.job.compute([Span(0, 0, 1)], None)[0]()
    about = {"counts": counts, "began": time.time(), "seconds": 1.0, "device": "none"}
    write = lambda shard: plan.store.write(
        shard, table.slice(0, 0), about | {"units": plan.spans[shard].num}
    )
    timed = min(WRITTEN, len(plan.spans))
    lines, seconds = clocked(lambda: [write(shard) for shard in range(timed)])
    # All others are copies of the last, whose lines one process would have written.
    content = plan.store.path(timed - 1).read_bytes()
    whose = {"sweep": plan.identity, "host": "host", "pid": 1, "time": time.time()}
    with (plan.store.manifest / "others.jsonl").open("w") as file:
        for shard in range(timed, len(plan.spans)):
            plan.store.path(shard).write_bytes(content)
            own = {"shard": shard, "units": plan.spans[shard].num}
            file.write(json.dumps({**lines[-1], **whose, **own}) + "\n")
    return seconds / timed


def tail(num: int, workers: int, seconds: float, group: int) -> float:
    """Share of the workers' time that is idle, each taking a group when it is free."""
    rng = np.random.default_rng(0)
    times = seconds * np.exp(rng.normal(0, SPREAD, num) - SPREAD**2 / 2)
    free = [0.0] * workers
    for start in range(0, num, group):
        heapq.heapreplace(free, free[0] + float(times[start : start + group].sum()))
    return 1 - float(times.sum()) / (workers * max(free))


def hash_rate() -> float:
    """Bytes of files whose checksums are computed in a second, by all cores."""
    size, num = 1 << 27, len(cores())
    with tempfile.NamedTemporaryFile() as file, ThreadPoolExecutor(num) as pool:
        file.write(os.urandom(size))
        file.flush()
        paths = [pathlib.Path(file.name)] * num
        _, seconds = clocked(lambda: list(pool.map(sha256, paths)))
        return num * size / seconds


def dask_task() -> float:
    """Seconds that one of many tasks costs which do nothing."""
    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as of,  # pyright: ignore
        distributed.Client(of) as client,
    ):
        client.gather(client.map(abs, range(10), pure=False))
        nothing = lambda: client.gather(client.map(abs, range(TASKS), pure=False))
        return clocked(nothing)[1] / TASKS
