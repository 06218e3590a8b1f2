"""Processes that benchmarks start, and how JAX is set up in them."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence


ROOT = pathlib.Path(__file__).resolve().parents[2]
SWEEP = [sys.executable, "-c", "from dicjax.cli import main; main()", "sweep"]
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"  # a fifth faster where there are any


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment(
    changes: Mapping[str, str] | None = None, *, without: Sequence[str] = ()
) -> dict[str, str]:
    """The environment of this process, with `changes`, in which dicjax is importable.

    - `without`: beginnings of the names of variables to leave out.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(tuple(without))}
    paths = [str(ROOT), kept.get("PYTHONPATH", "")]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **(changes or {}),
    }


def devices_of_jax() -> list[str]:
    """The kinds of all devices that JAX finds.

    Another process looks, because one that has used a GPU keeps the memory of it.
    """
    code = "import jax, json; print(json.dumps([x.device_kind for x in jax.devices()]))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def reuse_compiled_programs() -> None:
    """Keeps what is compiled for the next time, where the command line keeps it.

    Not for benchmarks that measure how long compilation takes.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache" / "dicjax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
