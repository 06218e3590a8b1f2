"""The process that works apart: `python worker.py`.

It takes requests from its input, one at a time, and answers on its output. Where the
system can, a copy of the process does each work, under the limits of the request. If
the copy does not survive it, this process ends with its status. It never loads JAX.
"""

import contextlib
import functools
import importlib
import importlib.util
import math
import os
import pickle
import select
import signal
import sys
import types
import warnings
from typing import Any, BinaryIO


IDLE = 60.0  # seconds until it ends by itself
OUT_OF_MEMORY = 3  # status of the process


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    can_copy = hasattr(os, "fork")
    while True:
        if can_copy and not select.select([requests], [], [], IDLE)[0]:
            return
        try:
            folder, search, module, name, content, limits = pickle.load(requests)
        except EOFError:
            return
        os.chdir(folder)
        sys.path[:] = search
        _guard()
        _prepare(module)
        if not can_copy:
            _work(module, name, content, replies)
            continue
        child = os.fork()
        if child == 0:
            try:
                _limit(*limits)
                _work(module, name, content, replies)
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            sys.exit(status if status > 0 else 128 - status)


def _prepare(module: str) -> None:
    """Loads what copies of this process need. What fails here fails in a copy, too.

    A module may name `LIBRARIES` that its functions load, so that they are loaded once.
    """
    package, *inside = module.split(".")[:-1] or [module]
    if inside and package == "dicjax":
        importlib.import_module(package)
        for part in inside:
            package = f"{package}.{part}"
            _without_face(package)
    with contextlib.suppress(Exception):
        loaded = importlib.import_module(module)
        for library in getattr(loaded, "LIBRARIES", ()):
            importlib.import_module(library)


@functools.cache
def _guard() -> None:
    refusals = importlib.import_module("dicjax._core.guarded.refusals")
    refusals.follow_no_links()
    refusals.stay_here()


def _without_face(package: str) -> None:
    """Lets modules of a package be loaded without the package's own module.

    That one loads JAX, which costs more than to read a file.
    """
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        assert spec is not None, package
        bare = types.ModuleType(package)
        bare.__path__, bare.__spec__ = spec.submodule_search_locations or [], spec
        sys.modules[package] = bare


def _limit(seconds: float, wall: float, num_bytes: int) -> None:
    import resource

    def limit(kind: int, soft: int, hard: int) -> None:
        with contextlib.suppress(ValueError, OSError):  # not on this system
            resource.setrlimit(kind, (soft, hard))

    for number in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    limit(resource.RLIMIT_CORE, 0, 0)
    limit(resource.RLIMIT_CPU, math.ceil(seconds), math.ceil(seconds) + 1)
    # Of data alone: readers map large files into addresses without loading them.
    limit(resource.RLIMIT_DATA, num_bytes, num_bytes)
    signal.setitimer(signal.ITIMER_REAL, wall)


def _work(module: str, name: str, content: bytes, replies: BinaryIO) -> None:
    reply = _answer(module, name, content)
    try:
        pickle.dump(reply, replies, protocol=5)
        replies.flush()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _answer(module: str, name: str, content: bytes) -> tuple[Any, Any, list[Any]]:
    """What the function returned or None, what it raised or None, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            function = getattr(importlib.import_module(module), name)
            made, error = function(*pickle.loads(content)), None
        except BaseException as raised:
            made, error = None, _portable(raised)
    return made, error, [x.message for x in caught]


def _portable(error: BaseException) -> BaseException:
    """The error, or one of the same words that can be sent."""
    error = error.with_traceback(None)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ValueError(f"{type(error).__name__}: {error}")
    return error


def main() -> None:
    # One thread: a process of several cannot be copied, and each takes memory.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.putenv(f"{library}_NUM_THREADS", "1")
    os.putenv("ARROW_DEFAULT_MEMORY_POOL", "system")  # it takes only what it needs
    # Libraries may print, which must not be read as a reply.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
