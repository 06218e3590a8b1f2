"""How commands end: what is expected in a sentence, and anything else in a report.

Only what comes with Python is imported here, so that this works before anything else.
"""

import contextlib
import datetime
import importlib.metadata
import opcode
import os
import pathlib
import platform
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence


PARTLY, BAD_INPUT, FAULT, STOPPED = 1, 2, 3, 130
PACKAGE = str(pathlib.Path(__file__).parents[1]) + os.sep
PACKAGES = ("dicjax", "jax", "jaxlib", "equinox", "diffrax", "numpy", "pyarrow", "tyro")


def ended(run: Callable[[], int], args: Sequence[str]) -> int:
    """The exit status of a command, which ends in no traceback."""
    try:
        with terminating():
            status = run()
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        say("dicjax: stopped")
        return STOPPED
    except BrokenPipeError:
        # Whoever read the results has enough of them.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PARTLY
    except Exception as error:
        status, said = _said(error)
        if said is None:
            status, said = FAULT, _reported(error, args)
        say(f"dicjax: {said}{_kept(error)}")
        return status


def terminating() -> contextlib.AbstractContextManager[None]:
    """Lets SIGTERM, and the end of a terminal, stop a command as Ctrl-C does."""
    return _handling(signal.default_int_handler, "SIGTERM", "SIGHUP")


def leaving_at_once() -> contextlib.AbstractContextManager[None]:
    """Lets a signal end the process while it imports, when there is nothing to lose.

    An exception in the middle of an import may be taken for something else.
    """

    def leave(*_) -> None:
        say("dicjax: stopped")
        os._exit(STOPPED)

    return _handling(leave, "SIGINT", "SIGTERM", "SIGHUP")


@contextlib.contextmanager
def _handling(handler: Callable[..., None], *names: str) -> Iterator[None]:
    """Handles signals that nobody else handles."""
    old, usual = {}, (signal.SIG_DFL, signal.default_int_handler)
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in usual:
                old[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def say(message: str) -> None:
    """Prints to standard error, if there is anyone to read it."""
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def _said(error: Exception) -> tuple[int, str | None]:
    """The exit status for an error that is expected, and its sentence, or None."""
    if is_rescued(error):
        return PARTLY, str(error)
    if isinstance(error, OSError):
        return BAD_INPUT, _as_typed(error)
    if isinstance(error, ValueError) and is_refusal(error):
        return BAD_INPUT, _as_typed(error)
    if is_out_of_memory(error):
        return BAD_INPUT, (
            "there is not enough memory for this. Use fewer models or a smaller file "
            "at once, or a machine with more memory."
        )
    if (platforms := os.environ.get("JAX_PLATFORMS")) and not _has_devices():
        return BAD_INPUT, (
            f"JAX finds no device for JAX_PLATFORMS={platforms}: unset this variable, "
            "or set it to cpu, cuda or tpu, as the machine has it."
        )
    return FAULT, None


def is_refusal(error: BaseException) -> bool:
    """Whether dicjax itself raised an error, by a `raise`.

    What else goes wrong in a line of dicjax, as in `max([])`, or in a library, is a
    fault, even where it has the type of a refusal.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    is_ours = os.path.abspath(code.co_filename).startswith(PACKAGE)
    return is_ours and code.co_code[trace.tb_lasti] == opcode.opmap["RAISE_VARARGS"]


def is_rescued(error: BaseException) -> bool:
    """Whether an error says where results are kept that could not be where asked."""
    from dicjax._core import Rescued

    return isinstance(error, Rescued)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine has no memory left."""
    if isinstance(error, MemoryError):
        return True
    jax = sys.modules.get("jax")
    kind = getattr(getattr(jax, "errors", None), "JaxRuntimeError", None)
    # The status of the error has no attribute of its own; it begins the message.
    status, *_ = str(error).partition(":")
    return bool(kind) and isinstance(error, kind) and status == "RESOURCE_EXHAUSTED"


def _has_devices() -> bool:
    try:
        import jax

        return bool(jax.devices())
    except RuntimeError:
        return False


def _as_typed(error: Exception) -> str:
    from dicjax._core import advice_of, as_option

    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return advice_of(error).said(as_option)


def _kept(error: Exception) -> str:
    from dicjax._core import KEPT

    place = getattr(error, KEPT, None)
    return f"\nResults that were written before this are in {place}." if place else ""


def _reported(error: Exception, args: Sequence[str]) -> str:
    """A sentence about a fault of dicjax, which names a file to send."""
    what = traceback.format_exception_only(error)[0].strip()[:300]
    sentence = f"a fault of dicjax, which your input need not explain: {what}"
    lines = [
        f"dicjax {shlex.join(args)}",
        f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}, {platform.platform()}, "
        f"Python {platform.python_version()}",
        ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "",
        *traceback.format_exception(error),
    ]
    for folder in (tempfile.gettempdir, os.getcwd):
        try:
            handle, path = tempfile.mkstemp(".txt", "dicjax-fault-", folder())
            with open(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write("\n".join(lines))
        except OSError:
            continue
        return (
            f"{sentence}\nPlease send {path}, which holds the command, versions and "
            "where it failed, but no data, to the authors of dicjax."
        )
    return "\n".join([sentence, *lines])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
