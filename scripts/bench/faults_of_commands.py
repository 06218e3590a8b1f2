"""Breaks commands while they compute or write, and looks for what is left."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import pyarrow.parquet as pq

from scripts.bench.processes import environment, ROOT


COMMAND = [sys.executable, "-c", "from dicjax.cli import main; main()"]
EXAMPLE = ROOT / "examples" / "slow_burster.csv"
MODELS = "g_Na,g_Kd,g_CaT,g_CaS,g_A,g_KCa,g_H,g_leak\n"
MODEL = "100,100,5,10,20,150,0.1,0.01\n"
NUM = 8000  # models of a table, which take more than a small disk
KB = 1 << 10
DONE, PARTLY, BAD_INPUT, STOPPED = 0, 1, 2, 130
NONSENSE = (
    ("simulate", "--noise", ("-1", "nan", "1e9")),
    ("simulate", "--dt", ("1e-12", "0", "nan")),
    ("simulate", "--duration", ("-1", "1e15", "inf")),
    ("generate", "--budget", ("-10", "0", "9" * 30)),
    ("generate", "--tolerance", ("-1", "0", "nan", "3")),
    ("generate", "--seed", ("-1", "9" * 30)),
    ("ensemble", "--measured", ("rest=1e9", "rest=nan", "width=1e12")),
    ("ensemble", "--spread", ("nan", "-1", "inf")),
)


class Lost(Exception):
    """What a command lost, left behind or did that nobody asked for."""


@dataclasses.dataclass
class Commands:
    """Commands to break, in a folder of their own.

    - `seconds`: of an undisturbed `generate`.
    """

    folder: pathlib.Path
    rng: random.Random

    def __post_init__(self):
        self.models = self.folder / "models.csv"
        self.models.write_text(MODELS + MODEL)
        self.spare = self.folder / "spare"
        self.count, self.seconds = 0, 0.0
        for _ in range(2):  # the first one compiles
            place, began = self.fresh(), time.perf_counter()
            self.run(*self.generate(place / "out"))
            self.seconds = time.perf_counter() - began

    def fresh(self) -> pathlib.Path:
        """An empty folder, and an empty temporary directory."""
        shutil.rmtree(self.spare, ignore_errors=True)
        self.spare.mkdir()
        self.count += 1
        place = self.folder / f"broken-{self.count}"
        place.mkdir()
        return place

    def generate(self, out: pathlib.Path) -> list[str]:
        """A search of some seconds."""
        small = ["--members", "3", "--candidates-per-round", "96"]
        return ["generate", str(EXAMPLE), "--out", str(out), *small]

    def simulate(self, out: pathlib.Path, *options: str) -> list[str]:
        """A simulation of a moment."""
        short = ["--model", "stg", "--duration", "5", "--discard", "0"]
        return ["simulate", str(self.models), "--out", str(out), *short, *options]

    def start(self, args: list[str], **variables: str) -> subprocess.Popen:
        """A command that runs, whose messages are kept."""
        kept = environment({"TMPDIR": str(self.spare), **variables})
        return subprocess.Popen(
            [*COMMAND, *args],
            env=kept,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *args: str, **variables: str) -> tuple[int, str]:
        """The exit status of a command, and all that it says."""
        process = self.start(list(args), **variables)
        said, _ = process.communicate(timeout=600)
        return process.returncode, said


def expect(is_so: bool, what: str, said: str = "") -> None:
    """Raises `Lost` with what the command said, unless it is so."""
    if not is_so or "Traceback" in said:
        raise Lost(f"{what}: {said.strip()[-300:]}")


def check_whole(folder: pathlib.Path) -> None:
    """Raises `Lost` unless a folder holds every file that its manifest names."""
    named = json.loads((folder / "manifest.json").read_text())["files"]
    found = {x.name for x in folder.iterdir()} - {"manifest.json"}
    expect(found == set(named), f"{folder} holds {found}")
    tables = (folder / f"{name}.parquet" for name in ("models", "spikes"))
    rows = [pq.read_table(path).num_rows for path in tables]
    expect(rows[0] == rows[1] > 0, f"{folder} holds {rows} rows")


def interrupt(commands: Commands) -> None:
    """Ctrl-C or SIGTERM at a random moment: nothing, or all that was found."""
    place = commands.fresh()
    process = commands.start(commands.generate(place / "out"))
    time.sleep(commands.rng.uniform(0.1, 1.0) * commands.seconds)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(commands.rng.choice([signal.SIGINT, signal.SIGTERM]))
    said, _ = process.communicate(timeout=600)
    if process.returncode == STOPPED:
        expect(not list(place.iterdir()), "something was left behind", said)
        return
    expect(process.returncode in (DONE, PARTLY), f"{process.returncode}", said)
    expect([x.name for x in place.iterdir()] == ["out"], "there is no folder", said)
    check_whole(place / "out")


def full_disk(commands: Commands) -> None:
    """A disk that has room for the start, and not for the results."""
    place = commands.fresh()
    commands.models.write_text(MODELS + NUM * MODEL)
    room = commands.rng.randrange(80 * KB, 300 * KB)
    with small_disk(place, room):
        status, said = commands.run(*commands.simulate(place / "out"))
        expect(status == PARTLY and not list(place.iterdir()), f"{status}", said)
    (kept,) = commands.spare.glob("out-rescued-*")
    expect(str(kept) in said, "the place is not named", said)
    check_whole(kept)


@contextlib.contextmanager
def small_disk(place: pathlib.Path, room: int) -> Iterator[None]:
    """A file system of so many bytes; only root can mount it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def second_run(commands: Commands) -> None:
    """Two runs into one folder at once: both results are kept."""
    place = commands.fresh()
    both = [commands.start(commands.simulate(place / "out")) for _ in range(2)]
    said = [process.communicate(timeout=600)[0] for process in both]
    statuses = sorted(process.returncode for process in both)
    # One that starts when the other has ended is refused before it computes.
    expect(statuses in ([DONE, PARTLY], [DONE, BAD_INPUT]), f"{statuses}", said[1])
    check_whole(place / "out")
    for kept in place.glob("out-rescued-*"):
        check_whole(kept)
    expect(len(list(place.iterdir())) == 1 + (PARTLY in statuses), "lost", said[1])


def bad_place(commands: Commands) -> None:
    """A place that cannot be written: refused before anything is computed."""
    place = commands.fresh()
    (place / "file").write_text("no folder")
    names = ["a" * 300, "b/" + "c" * 300, "file/in", "file"]
    status, said = commands.run(*commands.generate(place / commands.rng.choice(names)))
    expect(status == BAD_INPUT and len(said.splitlines()) == 1, f"{status}", said)
    expect([x.name for x in place.iterdir()] == ["file"], "something is left", said)


def figures(commands: Commands) -> None:
    """LaTeX that is not there, or a foreign backend of figures."""
    place = commands.fresh()
    (place / "matplotlibrc").write_text("text.usetex: True\n")
    environments: list[Mapping[str, str]] = [
        {"MATPLOTLIBRC": str(place), "PATH": os.defpath},
        {"MPLBACKEND": "nonsense"},
        {"MPLBACKEND": "module://nothing.here"},
    ]
    args = "explain", str(commands.models), "--model", "stg"
    commands.models.write_text(MODELS + MODEL)
    out = place / "out"
    changes = commands.rng.choice(environments)
    status, said = commands.run(*args, "--out", str(out), **changes)
    expect(status == DONE and "is missing" not in said, f"{status}", said)
    expect((out / "attribution.png").stat().st_size > KB, "there is no figure", said)


def overwrite(commands: Commands) -> None:
    """Files of the user in a folder that is overwritten: refused, and they stay."""
    place, out = commands.fresh(), "out"
    commands.models.write_text(MODELS + MODEL)
    simulate = commands.simulate(place / out)
    export = ["export", str(commands.models), "--to", "brian2", "--model", "stg"]
    export += ["--out", str(place / out)]
    args, own = commands.rng.choice([(simulate, "models.csv"), (export, "run.py")])
    expect(commands.run(*args)[0] == DONE, "it could not be written")
    name = commands.rng.choice([own, "notes.txt"])
    (place / out / name).write_text("a day of work")
    before = {x.name: x.read_bytes() for x in (place / out).iterdir()}
    status, said = commands.run(*args, "--overwrite")
    expect(status == BAD_INPUT and name in said, f"{status}", said)
    after = {x.name: x.read_bytes() for x in (place / out).iterdir()}
    expect(after == before, "something was removed", said)


def foreign_code(commands: Commands) -> None:
    """A manifest that names a Python file: nothing of it is run."""
    place = commands.fresh()
    commands.models.write_text(MODELS + MODEL)
    commands.run(*commands.simulate(place / "out"))
    evil, mark = place / "evil.py", place / "ran"
    evil.write_text(f"import dicjax\nopen({str(mark)!r}, 'w')\nneuron = dicjax.stg()\n")
    manifest = place / "out" / "manifest.json"
    about = json.loads(manifest.read_text()) | {"model": str(evil)}
    manifest.write_text(json.dumps(about))
    (place / "out" / "models.parquet").unlink()  # which names its model, too
    command = commands.rng.choice(["dic", "explain", "export", "simulate"])
    more = ["--out", str(place / "new")] + ["--to", "neuron"] * (command == "export")
    status, said = commands.run(command, str(place / "out"), *more)
    expect(status == BAD_INPUT and not mark.exists(), f"{command}: {status}", said)


def nonsense(commands: Commands) -> None:
    """A number that makes no sense: one sentence that names its option."""
    place = commands.fresh()
    command, option, values = commands.rng.choice(NONSENSE)
    value = commands.rng.choice(values)
    args = {
        "simulate": commands.simulate(place / "out"),
        "generate": commands.generate(place / "out"),
        "ensemble": ["operator", "ensemble"],
    }
    status, said = commands.run(*args[command], f"{option}={value}")
    expect(status == BAD_INPUT and not list(place.iterdir()), f"{status}", said)
    named = option.strip("-"), value.partition("=")[0]
    expect(any(x in said for x in named), "the option is not named", said)


FAULTS: dict[str, Callable[[Commands], None]] = {
    "interrupt": interrupt,
    "full-disk-of-results": full_disk,
    "two-results": second_run,
    "bad-place": bad_place,
    "figures": figures,
    "overwrite": overwrite,
    "foreign-code": foreign_code,
    "nonsense": nonsense,
}
