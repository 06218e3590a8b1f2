"""Calls of functions in processes apart, with limits of time and memory."""

import atexit
import contextlib
import contextvars
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from dicjax._core.guarded import worker


R = TypeVar("R")
Process = subprocess.Popen[bytes]

SECONDS, MEMORY = 8.0, 2**30  # for the smallest of files
PATIENCE = 3.0  # times the seconds of computing that may pass on a busy machine
START = 30.0  # seconds in which a process starts
_TIMES = {128 + getattr(signal, x, 0) for x in ("SIGXCPU", "SIGALRM")}
_is_here = contextvars.ContextVar("is_here", default=False)
_idle: list[Process] = []  # lists are safe in threads


class Limits(NamedTuple):
    """What work may take.

    - `seconds`: of computing; three times as long may pass.
    - `memory`: in bytes, on systems that can limit it, such as Linux.
    """

    seconds: float = SECONDS
    memory: int = MEMORY


def limits_of(path: pathlib.Path) -> Limits:
    """What it may take to read a file: more for a larger one."""
    num_bytes = path.stat().st_size
    MB = num_bytes / 1e6
    return Limits(SECONDS + 10 * min(MB, 5) + MB / 10, MEMORY + 8 * num_bytes)


class Overrun(Exception):
    """Work that was ended, at a limit or since it broke down."""


def apart(function: Callable[..., R], limits: Limits, *args: Any) -> R:
    """What a function of a module returns, called in a process apart.

    Arguments, results and errors are sent between processes, as by `pickle`. The
    process loads the function's module without the packages around it. It reaches no
    network, starts no programs, and follows no links of HDF5 to other files.

    **Raises:**

    - `Overrun`: if the work passes its limits, or ends its process.
    - what the function raises. Warnings of users are given here, too.
    """
    if _is_here.get():
        return function(*args)
    process = _started()
    timer = threading.Timer(START + PATIENCE * limits.seconds, _kill, [process])
    timer.start()
    try:
        made, error, caught = _asked(process, function, limits, args)
    except BaseException:
        _end(process)
        raise
    finally:
        timer.cancel()
    _idle.append(process)
    for warning in caught:
        warnings.warn(warning, stacklevel=2)
    if isinstance(error, MemoryError):
        raise Overrun(_memory(limits)) from error
    if error is not None:
        raise error
    return made


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Calls functions here, without limits: to follow or to debug them."""
    token = _is_here.set(True)
    try:
        yield
    finally:
        _is_here.reset(token)


def _started() -> Process:
    while _idle:
        with contextlib.suppress(IndexError):  # another thread took it
            process = _idle.pop()
            if process.poll() is None:
                return process
            _end(process)
    # Modules must not be imported from the worker's folder.
    command = [sys.executable, "-P", worker.__file__]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise Overrun(f"no process can be started for it ({error})") from error


def _asked(
    process: Process, function: Callable[..., Any], limits: Limits, args: tuple
) -> tuple[Any, BaseException | None, list[Any]]:
    assert process.stdin is not None and process.stdout is not None
    allowed = (limits.seconds, PATIENCE * limits.seconds, limits.memory)
    place = (function.__module__, function.__qualname__)
    search = [os.path.abspath(folder) for folder in sys.path]
    where = (os.getcwd(), search)
    try:
        pickle.dump((*where, *place, pickle.dumps(args), allowed), process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        status = process.wait()
        if status in _TIMES or status < 0:
            raise Overrun(f"it takes over {limits.seconds:.3g} s") from error
        if status == worker.OUT_OF_MEMORY:
            raise Overrun(_memory(limits)) from error
        raise Overrun("its reader broke down") from error


def _memory(limits: Limits) -> str:
    return f"it needs over {limits.memory / 2**30:.1f} GB of memory"


def _kill(process: Process) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its copies, too
        else:
            process.kill()


def _end(process: Process) -> None:
    _kill(process)
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()
    process.wait()


@atexit.register
def _end_all() -> None:
    while _idle:
        _end(_idle.pop())


def _leave_to_parent() -> None:
    while _idle:
        _idle.pop().returncode = 0  # this copy of the parent has not to wait for it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
