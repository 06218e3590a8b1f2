"""Breaks sweeps and commands in every way that comes to mind, and looks for what was
lost."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from scripts.bench.faults_of_commands import Commands, FAULTS as OF_COMMANDS, Lost
from scripts.bench.processes import SWEEP
from scripts.bench.results import Benchmark, Measurement, row


CONFIG = """
job = "simulate"
model = "stg"
seed = 1
shard = {shard}
save = ["dics", "spikes"]

[members]
{members}

[simulation]
duration = {duration}
discard = 100
"""
MOST_RUNS = 20  # until a sweep is complete
MB = 1 << 20


@dataclasses.dataclass
class Bench:
    """A sweep to break: its file, and what its parts have to be.

    - `seconds`: from the start of an undisturbed run to its end.
    """

    folder: pathlib.Path
    rng: random.Random
    num: int = 512
    shard: int = 32
    duration: float = 400.0

    def __post_init__(self):
        self.config = self.folder / "sweep.toml"
        members = f'sampler = "box"\nnum = {self.num}'
        self.config.write_text(self.text(members))
        self.run(self.folder / "warm")  # compiles
        began = time.perf_counter()
        self.run(self.folder / "whole")
        self.seconds = time.perf_counter() - began
        self.wanted = contents(self.folder / "whole")
        self.count = 0

    def text(self, members: str) -> str:
        """The sweep's file."""
        return CONFIG.format(members=members, shard=self.shard, duration=self.duration)

    def fresh(self) -> pathlib.Path:
        """A folder that nothing is in yet."""
        self.count += 1
        return self.folder / f"broken-{self.count}"

    def command(self, out: pathlib.Path, *options: str) -> list[str]:
        """What runs the sweep."""
        return [*SWEEP, "run", str(self.config), "--out", str(out), *options]

    def start(self, out: pathlib.Path, *options: str) -> subprocess.Popen:
        """The sweep, running in a group of processes of its own."""
        return started(self.command(out, *options), self.folder / "log")

    def run(self, out: pathlib.Path, *options: str) -> subprocess.CompletedProcess:
        """Runs the sweep to its end."""
        command = self.command(out, *options)
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    def moment(self) -> float:
        """Some seconds after the start of a run, before its end."""
        return self.rng.uniform(0.2, 1.0) * self.seconds

    def finish(self, out: pathlib.Path, *options: str) -> None:
        """Runs the sweep again until it is complete, and compares."""
        for _ in range(MOST_RUNS):
            if self.run(out, *options).returncode == 0:
                break
        else:
            raise Lost(f"not complete after {MOST_RUNS} runs")
        self.compare(out)
        shutil.rmtree(out)

    def compare(self, out: pathlib.Path) -> None:
        """Raises `Lost` unless all parts are what they have to be, and no others."""
        found = contents(out)
        for name in sorted(self.wanted.keys() | found.keys()):
            if self.wanted.get(name) != found.get(name):
                kind = "missing" if name not in found else "different"
                raise Lost(f"{name} is {kind}")


def contents(out: pathlib.Path) -> dict[str, bytes]:
    """All parts of a sweep; what is hidden there is nobody's."""
    paths = (out / "parts").glob("[!.]*")
    return {path.name: path.read_bytes() for path in paths}


def rows(out: pathlib.Path) -> pa.Table:
    """All parts of a sweep as one table, without what they say of themselves."""
    parts = [pq.read_table(path) for path in sorted((out / "parts").iterdir())]
    return pa.concat_tables([part.replace_schema_metadata() for part in parts])


def started(
    command: Sequence[str], log: pathlib.Path | None = None
) -> subprocess.Popen:
    """A command that runs in a group of processes of its own."""
    with open(log or os.devnull, "w") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill_run(bench: Bench, *options: str) -> None:
    """SIGKILL of the whole run at a random moment, workers and all."""
    out = bench.fresh()
    process = bench.start(out, *options)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(bench.moment())
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    bench.finish(out, *options)


def kill_here(bench: Bench) -> None:
    """The run, which computes itself."""
    kill_run(bench)


def kill_processes(bench: Bench) -> None:
    """The run with its two processes."""
    kill_run(bench, "--workers", "2")


def kill_coordinator(bench: Bench) -> None:
    """The run alone: its two workers have to notice."""
    out = bench.fresh()
    process = bench.start(out, "--workers", "2")
    time.sleep(bench.moment())
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    if alive:
        raise Lost(f"{len(alive)} workers outlived the run")
    bench.finish(out, "--workers", "2")


def kill_worker(bench: Bench, *options: str) -> None:
    """SIGKILL of one worker: the same run has to finish without it."""
    out = bench.fresh()
    process = bench.start(out, *(options or ("--workers", "2")))
    victim = None
    deadline = time.perf_counter() + 120
    while victim is None and process.poll() is None and time.perf_counter() < deadline:
        time.sleep(bench.rng.uniform(0, bench.seconds / 4))
        children = psutil.Process(process.pid).children(recursive=True)
        # Those that compute, and not what looks after them.
        busy = [x for x in children if _cpu_seconds(x) > 1.0]
        is_at_work = (out / "manifest").exists()
        victim = bench.rng.choice(busy) if busy and is_at_work else None
    if victim is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    if process.wait(600) != 0:
        log = (bench.folder / "log").read_text().splitlines()[-5:]
        raise Lost(f"the run did not finish without the worker: {' / '.join(log)}")
    bench.compare(out)
    shutil.rmtree(out)


def kill_dask_worker(bench: Bench) -> None:
    """SIGKILL of one of two workers of Dask."""
    kill_worker(bench, "--dask", "local:2")


def _cpu_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        return sum(process.cpu_times()[:2])
    return 0.0


def kill_scheduler(bench: Bench) -> None:
    """SIGKILL of Dask's scheduler: the run has to say so and end."""
    out = bench.fresh()
    with dask() as (address, scheduler):
        process = bench.start(out, "--dask", address)
        time.sleep(bench.moment())
        scheduler.kill()
        status = process.wait(120)
        if status not in (0, 1, 2):
            raise Lost(f"the run ended with status {status}")
    with dask() as (address, _):
        bench.finish(out, "--dask", address)


@contextlib.contextmanager
def dask() -> Iterator[tuple[str, subprocess.Popen]]:
    """A scheduler of Dask with two workers, each in processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    module = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = started([*module, "--host", address, "--no-dashboard"])
    module = [sys.executable, "-m", "distributed.cli.dask_worker"]
    options = ["--nthreads", "1", "--no-dashboard", "--death-timeout", "20"]
    workers = [started([*module, address, *options]) for _ in range(2)]
    try:
        yield address, scheduler
    finally:
        for process in (*workers, scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def full_disk(bench: Bench) -> None:
    """A file system that has room for some of the parts, then for all."""
    disk = bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    size = sum(map(len, bench.wanted.values()))
    room = int(size * bench.rng.uniform(0.2, 0.9)) + 16 * 1024
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        out = disk / "out"
        if bench.run(out).returncode == 0:
            raise Lost("the disk did not fill up")
        for name, content in contents(out).items():
            if content != bench.wanted.get(name):
                raise Lost(f"{name} was written in part")
        remount = ["mount", "-o", f"remount,size={10 * size + 10 * MB}", str(disk)]
        subprocess.run(remount, check=True)
        bench.finish(out)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def damaged_parts(bench: Bench) -> None:
    """Parts that are cut off, changed in one bit, swapped, foreign, empty or gone."""
    out = bench.fresh()
    shutil.copytree(bench.folder / "whole", out)
    paths = sorted((out / "parts").iterdir())
    cut, flipped, foreign, empty, gone, one, other = bench.rng.sample(paths, 7)
    content = cut.read_bytes()
    cut.write_bytes(content[: bench.rng.randrange(len(content))])
    content = bytearray(flipped.read_bytes())
    content[bench.rng.randrange(len(content))] ^= 1 << bench.rng.randrange(8)
    flipped.write_bytes(content)
    pq.write_table(pa.table({"member": [1, 2, 3]}), foreign)
    empty.write_bytes(b"")
    gone.unlink()
    contents_of = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents_of[1])
    other.write_bytes(contents_of[0])
    lines = bench.rng.choice(list((out / "manifest").iterdir()))
    content = lines.read_bytes()
    lines.write_bytes(content[: bench.rng.randrange(len(content))])
    bench.finish(out)


def poisoned_member(bench: Bench) -> None:
    """A member that diverges: it is marked, and the others are as they were."""
    parts = [
        pq.read_table(path) for path in sorted((bench.folder / "whole/parts").iterdir())
    ]
    table = pa.concat_tables([x.replace_schema_metadata() for x in parts])
    names = [x for x in table.column_names if x.startswith("g_")]
    models = table.select([x for x in names if x not in ("g_f", "g_s", "g_u")])
    columns = {name: models[name].to_numpy().copy() for name in models.column_names}
    victim = bench.rng.randrange(bench.num)
    columns["g_Na"][victim] = np.float32(1e30)
    out = bench.fresh()
    out.mkdir()
    pq.write_table(pa.table(columns), out / "models.parquet")
    config = out / "sweep.toml"
    config.write_text(bench.text(f'table = "{out / "models.parquet"}"'))
    command = [*SWEEP, "run", str(config), "--out", str(out / "out")]
    if subprocess.run(command, capture_output=True).returncode != 0:
        raise Lost("the sweep did not finish")
    found = rows(out / "out")
    others = np.arange(bench.num) != victim
    if found["succeeded"].to_pylist() != others.tolist():
        raise Lost("it was not the poisoned member that failed")
    if not found.filter(others).equals(table.filter(others)):
        raise Lost("other members changed")
    shutil.rmtree(out)


def two_runs(bench: Bench) -> None:
    """A second run on the same folder: it refuses, and the first is undisturbed."""
    out = bench.fresh()
    first = bench.start(out, *bench.rng.choice([(), ("--workers", "2")]))
    while first.poll() is None and not (out / "manifest").exists():
        time.sleep(0.05)
    second = bench.run(out, *bench.rng.choice([(), ("--shard", "0/2")]))
    if first.poll() is None and second.returncode != 2:
        raise Lost(f"the second run ended with {second.returncode}")
    if second.returncode == 2 and "is being worked on" not in second.stderr:
        raise Lost(second.stderr)
    if first.wait(600) != 0:
        raise Lost("the first run was disturbed")
    bench.compare(out)
    shutil.rmtree(out)


def kill_array(bench: Bench) -> None:
    """Three shares of an array side by side, one of them killed, and run again."""
    out = bench.fresh()
    shares = [bench.start(out, "--shard", f"{i}/3") for i in range(3)]
    time.sleep(bench.moment())
    shares[bench.rng.randrange(3)].kill()
    for share in shares:
        share.wait(600)
    for i in range(3):
        bench.run(out, "--shard", f"{i}/3")
    bench.compare(out)
    shutil.rmtree(out)


FAULTS: dict[str, Callable[[Bench], None]] = {
    "run": kill_here,
    "run-and-workers": kill_processes,
    "coordinator": kill_coordinator,
    "worker": kill_worker,
    "dask-worker": kill_dask_worker,
    "dask-scheduler": kill_scheduler,
    "array": kill_array,
    "full-disk": full_disk,
    "damaged-parts": damaged_parts,
    "poisoned-member": poisoned_member,
    "two-runs": two_runs,
}
ALL = (*FAULTS, *OF_COMMANDS)
Fault = Literal[ALL]  # pyright: ignore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults(Benchmark):
    """Breaks a small sweep at random moments, and compares what it gives in the end.

    The sweep is run again until it is complete. Every part is compared, byte by byte,
    with the parts of a sweep that ran undisturbed. Other commands are broken too:
    what they computed has to be whole, in its place or where they say. Exit status 1:
    something was lost.
    """

    faults: tyro.conf.Positional[tuple[Fault, ...]] = ALL  # pyright: ignore
    """What to do to the sweep, or to other commands."""
    repetitions: int = 50
    """How often each is done."""
    seed: int = 0
    """Seed of the moments."""
    members: int = 512
    """Members of the sweep, which has a part for every 32."""

    def measure(self) -> Iterator[Measurement]:
        """Tries one fault after the other."""
        with tempfile.TemporaryDirectory() as folder:
            rng = random.Random(self.seed)
            if of_sweeps := [x for x in self.faults if x in FAULTS]:
                bench = Bench(pathlib.Path(folder), rng, self.members)
                parts = {("parts", ""): len(bench.wanted), ("time", "s"): bench.seconds}
                yield from row("undisturbed", {}, parts)
                for name in of_sweeps:
                    do = functools.partial(FAULTS[name], bench)
                    yield from try_fault(do, name, self.repetitions)
            if of_commands := [x for x in self.faults if x in OF_COMMANDS]:
                place = pathlib.Path(folder, "commands")
                place.mkdir()
                commands = Commands(place, rng)
                for name in of_commands:
                    do = functools.partial(OF_COMMANDS[name], commands)
                    yield from try_fault(do, name, self.repetitions)

    def status(self, measurements: Sequence[Measurement]) -> int:
        """1 if anything was lost, double or different."""
        return int(any(x.note for x in measurements))


def try_fault(
    do: Callable[[], None], name: str, repetitions: int
) -> Iterator[Measurement]:
    """How often something was lost, and what."""
    lost, seconds = [], []
    for i in range(repetitions):
        began = time.perf_counter()
        try:
            do()
        except Lost as e:
            lost.append(str(e))
        seconds.append(time.perf_counter() - began)
        print(f"  {name}: {i + 1} of {repetitions}, {len(lost)} lost", file=sys.stderr)
    columns = {
        ("repetitions", ""): repetitions,
        ("lost, double or different", ""): len(lost),
        ("time", "s"): seconds,
    }
    yield from row("broken", {"fault": name}, columns)
    for reason in dict.fromkeys(lost):
        yield Measurement("broken", {"fault": name}, note=reason)
