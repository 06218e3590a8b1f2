"""Measures sweeps beside the engine that they drive.

`bench_sweep.py throughput --members 1000000`: from the start of a command to the last
part on disk, in this process, in processes of their own and through Dask, beside one
call of `dj.simulate` for the same members with nothing else done.
`bench_sweep.py scale`: what a sweep of a billion members on 64 GPUs would ask of disks,
manifest and scheduler: measured on as many parts, which are empty, and simulated.
"""

import argparse
import heapq
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

import dicjax as dj
from dicjax.sweeps import read_config, read_sweep, standing
from dicjax.sweeps.plan import make_plan, Plan
from dicjax.sweeps.run import LARGEST_GROUP, PER_WORKER
from dicjax.sweeps.simulating import MOST_PARTS


CONFIG = """
job = "simulate"
model = "stg"
[members]
num = {num}
[simulation]
duration = {duration}
discard = {discard}
"""
DICJAX = [sys.executable, "-c", "from dicjax.cli import main; main()", "sweep"]
TIMED = 200  # parts
SPREAD = 0.2  # of the logarithm of what parts take, if not measured


def config_at(folder: pathlib.Path, num: int, duration: float) -> pathlib.Path:
    path = folder / f"sweep-{num}.toml"
    text = CONFIG.format(num=num, duration=duration, discard=duration / 3)
    path.write_text(text)
    return path


def engine(num: int, duration: float) -> float:
    """Seconds for all members in one call, after one that compiles."""
    neuron = dj.stg()
    key = jax.random.split(jax.random.key(0))[0]
    g = np.asarray(dj.sample(key, neuron, num), np.float32)
    room = 1 << int(np.ceil(np.log2(200 * duration * 2 / 3 / 1000)))
    run = lambda g: dj.simulate(
        neuron,
        g,
        duration,
        discard=duration / 3,
        dt=neuron.required_recipe.dt,
        max_spikes=max(64, room),
    )
    run(g[: 1 << 14])
    began = time.perf_counter()
    run(g)
    return time.perf_counter() - began


def sweep(path: pathlib.Path, out: pathlib.Path, *options: str) -> float:
    """Seconds from the start of the command to its end."""
    began = time.perf_counter()
    command = [*DICJAX, "run", str(path), "--out", str(out), *options]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def throughput(args: argparse.Namespace) -> None:
    ways = {
        "`dicjax sweep run`": (),
        "`--workers 2`": ("--workers", "2"),
        "`--dask local:2`": ("--dask", "local:2"),
    }
    if args.here:
        ways = dict(list(ways.items())[:1])
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        small = config_at(folder, 2048, args.duration)
        for i, options in enumerate(ways.values()):  # compiles
            sweep(small, folder / f"small-{i}", *options)
        alone = engine(args.members, args.duration)
        rows.append(
            ["engine alone", f"{alone:.1f}", f"{args.members / alone:,.0f}", ""]
        )
        path = config_at(folder, args.members, args.duration)
        for i, (way, options) in enumerate(ways.items()):
            seconds = sweep(path, folder / f"out-{i}", *options)
            share = alone / seconds
            each = args.members / seconds
            rows.append([way, f"{seconds:.1f}", f"{each:,.0f}", f"{share:.1%}"])
            figures[way] = seconds
        stands = standing(folder / "out-0")
        size = stands.num_bytes / args.members
    print_table(["", "seconds", "members per second", "of the engine's"], rows)
    print(f"\n{stands.num_parts} parts, {size:.0f} bytes a member on disk\n")
    settings = {"members": args.members, "duration": args.duration}
    print(json.dumps(settings | {"engine": alone, "ways": figures} | machine()))


def scale(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = config_at(folder, args.members, 6000.0)
        began = time.perf_counter()
        plan = make_plan(read_config(path), folder / "out")
        planned = time.perf_counter() - began
        num = len(plan.spans)
        written = write_parts(plan)
        began = time.perf_counter()
        stands = standing(plan.folder)
        stood = time.perf_counter() - began
        began = time.perf_counter()
        standing(plan.folder, check=True)
        checked = time.perf_counter() - began
        began = time.perf_counter()
        read_sweep(plan.folder).count_rows()
        opened = time.perf_counter() - began
        manifest = sum(x.stat().st_size for x in plan.store.manifest.iterdir())
    assert stands.is_complete
    size = args.bytes * args.members
    each = args.members / args.workers / args.rate
    groups = max(1, min(LARGEST_GROUP, num // (args.workers * PER_WORKER)))
    rows = [
        ["parts", f"{num:,} of {plan.shard:,} members (at most {MOST_PARTS:,})"],
        ["on disk", f"{size / 1e9:,.0f} GB, {size / num / 1e6:.1f} MB a part"],
        ["written", f"{size / each / 1e6:,.1f} MB/s by all {args.workers} workers"],
        ["manifest", f"{manifest / 1e6:.1f} MB of lines"],
        ["planning", f"{planned:.2f} s"],
        ["syncing and renaming, one writer", f"{1000 * written:.1f} ms a part"],
        ["`dicjax sweep status`", f"{stood:.1f} s"],
        [
            "opening all parts (empty ones)",
            f"checksums {checked:.1f} s, rows {opened:.1f} s",
        ],
        [
            "checksums of what is on disk",
            f"{size / hash_rate() / 60:.0f} min, one host",
        ],
        [
            "computing, without a pause",
            f"{each / 3600:.1f} h at {args.rate:,.0f} /s each",
        ],
    ]
    for size_of in (1, groups, 4 * groups):
        idle = tail(num, args.workers, each * args.workers / num, size_of)
        rows.append(
            [f"idle at the end, groups of {size_of}", f"{idle:.2%} of worker time"]
        )
    per_task = dask_task()
    rows.append(
        [
            "Dask's scheduler",
            f"{1000 * per_task:.1f} ms a task, "
            f"{num / groups / each:.2f} tasks a second to give out",
        ]
    )
    print_table([f"{args.members:,} members, {args.workers} workers", ""], rows)
    print(json.dumps(machine()))


def write_parts(plan: Plan) -> float:
    """As many parts as there would be, with no rows; seconds that one takes."""
    job = plan.begin()
    table, counts = job.compute(0, [(0, 1)], None)[0]()
    about = {"counts": counts, "began": time.time(), "seconds": 1.0}
    about["device"] = "none"
    write = lambda shard: plan.store.write(
        shard, table.slice(0, 0), about | {"units": plan.spans[shard].num}
    )
    began = time.perf_counter()
    row = [write(shard) for shard in range(TIMED)][-1]
    each = (time.perf_counter() - began) / TIMED
    content = plan.store.path(TIMED - 1).read_bytes()
    lines = plan.store.manifest / "others.jsonl"
    whose = {"sweep": plan.identity, "host": "host", "pid": 1, "time": time.time()}
    with lines.open("w") as file:
        for shard in range(TIMED, len(plan.spans)):
            plan.store.path(shard).write_bytes(content)
            units = plan.spans[shard].num
            file.write(json.dumps({**row, **whose, "shard": shard, "units": units}))
            file.write("\n")
    return each


def tail(num: int, workers: int, seconds: float, group: int) -> float:
    """Share of the workers' time that is idle, each taking a group when it is free."""
    rng = np.random.default_rng(0)
    times = seconds * np.exp(rng.normal(0, SPREAD, num) - SPREAD**2 / 2)
    free = [0.0] * workers
    for start in range(0, num, group):
        heapq.heapreplace(free, free[0] + float(times[start : start + group].sum()))
    return 1 - float(times.sum()) / (workers * max(free))


def hash_rate() -> float:
    """Bytes of a file whose checksum is computed in a second, by all cores."""
    from concurrent.futures import ThreadPoolExecutor

    from dicjax._core import sha256

    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(1 << 27))
        file.flush()
        cores = os.cpu_count() or 1
        began = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(sha256, [pathlib.Path(file.name)] * cores))
        return cores * (1 << 27) / (time.perf_counter() - began)


def dask_task(num: int = 1000) -> float:
    """Seconds that one of many tasks costs which do nothing."""
    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as of,  # pyright: ignore
        distributed.Client(of) as client,
    ):
        client.gather(client.map(abs, range(10), pure=False))
        began = time.perf_counter()
        client.gather(client.map(abs, range(num), pure=False))
        return (time.perf_counter() - began) / num


def machine() -> dict:
    device = jax.devices()[0].device_kind
    return {"device": device, "cores": os.cpu_count(), "load": os.getloadavg()[0]}


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    for row in (headings, ["---"] * len(headings), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("throughput")
    one.add_argument("--members", type=int, default=1_000_000)
    one.add_argument("--duration", type=float, default=1500.0, help="ms")
    one.add_argument("--here", action="store_true", help="in one process alone")
    one.set_defaults(run=throughput)
    one = kinds.add_parser("scale")
    one.add_argument("--members", type=int, default=10**9)
    one.add_argument("--workers", type=int, default=64)
    one.add_argument("--rate", type=float, default=20_000, help="members a second each")
    one.add_argument("--bytes", type=float, default=100, help="of a member on disk")
    one.set_defaults(run=scale)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
