"""Reads many inputs, fast, and again as users do wherever something was odd."""

import contextlib
import hashlib
import json
import mmap
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator

from dicjax._core import in_this_process
from dicjax._core.guarded import refusals
from scripts.fuzz.changes import changed, MADE
from scripts.fuzz.sound import Format, FORMATS, swept


SLOW, LARGE = 10.0, 1e9  # s of a processor, bytes
HANGS = 30.0  # s on the wall; the processes that read apart have 24, and end after 8
BATCH = 2000  # inputs per process
KINDS = FORMATS | {x: Format(file, bytes) for x, (file, _) in MADE.items()}
KINDS["made_sweeps"] = KINDS["made_sweeps"]._replace(read=swept)
Counts = dict[str, list[int]]  # of inputs, and of those that were read


class Reading:
    """One format's folder, and its inputs by their seeds."""

    def __init__(self, kind: str, root: pathlib.Path):
        self.kind, (self.name, sound, self.reader, beside, _) = kind, KINDS[kind]
        self.sound = b"" if kind in MADE else sound()
        self.folder = root / kind
        self.folder.mkdir()
        if beside is not None:
            beside(self.folder)
        self.path = self.folder / self.name
        self.source = self.path if beside is None else self.folder

    def content(self, source: random.Random) -> bytes:
        if self.kind in MADE:
            return MADE[self.kind][1](source)
        return changed(self.sound, source)

    def read(self, content: bytes, source: random.Random) -> bool:
        """Whether the bytes were read; False if they were refused in a sentence."""
        self.path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert self.reader(self.source, source)
        except ValueError as error:
            message = str(error)
            named = (self.source.stem, self.path.stem)
            assert any(name in message for name in named), message
            assert message.isprintable() and message.endswith("."), message
            assert len(message) < 2000, message
            return False
        return True


def at_random(
    kinds: list[str], inputs: int, minutes: float, seed: int, out: pathlib.Path
) -> int:
    """Reads inputs of each kind, says how many failed, and keeps those."""
    begun, done, faults, slowest = time.monotonic(), 0, 0, 0.0
    counts: Counts = {kind: [0, 0] for kind in kinds}
    with scratch() as root:
        each = [Reading(kind, root) for kind in kinds]
        for own in each:
            _check_sound(own)
        readings = [own for own in each for _ in range(KINDS[own.kind].share)]
        while done < inputs and time.monotonic() - begun < 60 * minutes:
            until = min(done + BATCH, inputs)
            odd, longest = _batch(readings, seed, done, until, counts)
            slowest = max(slowest, longest)
            for i in odd:
                own, content, source = _input(readings, seed, i)
                why = _as_users_do(own, content, source)
                if why:
                    faults += 1
                    mark = _keep(out, own, content)
                    print(f"{own.kind} {mark} (input {i}): {why}", flush=True)
            done = until
            if done // BATCH % 10 == 0:
                out.mkdir(parents=True, exist_ok=True)
                (out / f"counts-{seed}.json").write_text(json.dumps(counts))
    shares = ", ".join(f"{x} {num} ({read} read)" for x, (num, read) in counts.items())
    spent = sum(
        _seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{done} inputs in {spent:.0f} s of a processor, {faults} faults; the slowest "
        f"took {slowest:.1f} s, and a process at most {peak_memory() / 1e6:.0f} MB: "
        f"{shares}."
    )
    return int(faults > 0)


def _input(
    readings: list[Reading], seed: int, i: int
) -> tuple[Reading, bytes, random.Random]:
    source = random.Random(f"{seed} {i}")
    own = readings[i % len(readings)]
    return own, own.content(source), source


def _batch(
    readings: list[Reading], seed: int, start: int, stop: int, counts: Counts
) -> tuple[list[int], float]:
    """Which inputs were odd, and the longest time; adds to the counts.

    A process reads them without starting others, so that it may crash, hang or fill
    its memory: then the next process goes on behind that input.
    """
    odd: list[int] = []
    longest = 0.0
    place = mmap.mmap(-1, 8 + (stop - start) * 5)
    while start < stop:
        place[:8] = struct.pack("<q", start)
        status = _apart(
            lambda first=start: _read_many(readings, seed, first, stop, place)
        )
        (reached,) = struct.unpack("<q", place[:8])
        for i in range(start, reached):
            at = 8 + 5 * (i - start)
            state, taken = struct.unpack("<bf", place[at : at + 5])
            longest = max(longest, taken)
            odd += [i] * (state == _ODD)
            counts[readings[i % len(readings)].kind][0] += 1
            counts[readings[i % len(readings)].kind][1] += state == _READ
        if status:
            odd.append(reached)
            counts[readings[reached % len(readings)].kind][0] += 1
            reached += 1
        start = reached
    return odd, longest


_REFUSED, _READ, _ODD = range(3)


def _read_many(
    readings: list[Reading], seed: int, start: int, stop: int, place: mmap.mmap
) -> None:
    _guard()
    most = peak_memory() + LARGE
    with in_this_process():
        for i in range(start, stop):
            own, content, source = _input(readings, seed, i)
            signal.setitimer(signal.ITIMER_REAL, HANGS)
            begun = time.process_time()
            try:
                state = _READ if own.read(content, source) else _REFUSED
            except Exception:
                state = _ODD
            taken = time.process_time() - begun
            state = _ODD if taken > SLOW / 2 else state
            at = 8 + 5 * (i - start)
            place[at : at + 5] = struct.pack("<bf", state, taken)
            if peak_memory() > most:
                os._exit(1)  # its next input would not be to blame
            place[:8] = struct.pack("<q", i + 1)


def _guard() -> None:
    """As in the process that reads apart; what libraries print is left out."""
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    most = round(_held() + 1.1 * LARGE)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    refusals.follow_no_links()
    refusals.stay_here()


def _as_users_do(own: Reading, content: bytes, source: random.Random) -> str:
    """What is wrong with how an input is read; nothing, if it is right."""
    file = own.folder.parent / "why"

    def read() -> None:
        file.write_text(f"over {HANGS:.0f} s")
        signal.setitimer(signal.ITIMER_REAL, HANGS)
        begun, why = time.process_time(), ""
        try:
            own.read(content, source)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        taken = time.process_time() - begun
        why = why or (f"{taken:.0f} s" if taken > SLOW else "")
        why = why or ("over 1 GB of memory" if peak_memory() > LARGE else "")
        file.write_text(why)

    _apart(read)
    return file.read_text()


def _check_sound(own: Reading) -> None:
    """Raises an error unless the file that is not changed is read in some way."""
    source = random.Random(0)
    if own.sound and not any([own.read(own.sound, source) for _ in range(40)]):
        raise ValueError(f"The sound file of {own.kind} is refused.")


def _apart(work: Callable[[], None]) -> int:
    """Does the work in a copy of this process; its status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX does not compute in copies
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _keep(out: pathlib.Path, own: Reading, content: bytes) -> str:
    mark = hashlib.sha256(content).hexdigest()[:8]
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{mark}-{own.name}").write_bytes(content)
    return mark


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """A folder in memory, if the system has one."""
    fast = pathlib.Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=fast if os.access(fast, os.W_OK) else None)
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peak_memory() -> float:
    """The largest memory of this process in bytes; others have limits of their own."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _held() -> int:
    """How many bytes of data this process holds, where the system says so."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmData")]
    return 1024 * int(found[0]) if found else 0


def _seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
