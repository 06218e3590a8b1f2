"""The command line: each command parses its arguments, calls dicjax and writes."""

import os
import pathlib
import sys

import dicjax
from dicjax.cli.ending import ended, leaving_at_once


def main(args: list[str] | None = None) -> None:
    """Runs `dicjax`; exits with 0 (done), 1 (done in part), 2 (bad input) or others.

    These are 3 for a fault of dicjax, with a report to send, and 130 for Ctrl-C.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we were started
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if (sys.argv[1:] if args is None else args) == ["--version"]:
        print(f"dicjax {dicjax.__version__}")
        return

    def run() -> int:
        # Here, because imports take seconds, in which people press Ctrl-C.
        with leaving_at_once():
            from dicjax.cli.commands import run

        return run(args)

    sys.exit(ended(run, sys.argv[1:] if args is None else args))


def configure_jax() -> None:
    """Keeps compiled programs between processes, unless the user has said where.

    Figures go to files, whatever shows them where the command was started.
    """
    import jax

    os.environ["MPLBACKEND"] = "agg"
    cache = cache_folder()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def cache_folder() -> pathlib.Path | None:
    """Where things are kept between runs; None for a user without a home."""
    if stated := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(stated, "dicjax")
    try:
        return pathlib.Path.home() / ".cache" / "dicjax"
    except RuntimeError:
        return None
