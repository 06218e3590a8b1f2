"""Commands of sweeps."""

import dataclasses
import itertools
import logging
import os
import pathlib
import re
from typing import Annotated

import jax
from tyro.conf import arg, OmitSubcommandPrefixes, Positional

from dicjax._core import Positive, Within
from dicjax.cli.common import Command, Group, Progress, say


MOST_WORKERS = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Command):
    """Run the sweep that CONFIG describes, or its missing parts.

    The files in OUT/parts form one Parquet dataset. If the sweep is stopped, the same
    command continues it, with any number of workers: the bytes of a part do not depend
    on them. Exit status 0: complete; 1: parts are missing; 2: bad input.

    For example: dicjax sweep run sweep.toml --workers 4 --out sweep
    """

    config: Annotated[Positional[pathlib.Path], arg(metavar="CONFIG")]
    """TOML file of the sweep's settings; see docs/sweeps.md. If its `model` is a Python
    file, that is run: use only configurations that you trust."""
    out: Annotated[pathlib.Path, arg(metavar="FOLDER")]
    """Folder of the sweep: a new one, or one that already holds this sweep."""
    workers: Annotated[int, Within(high=MOST_WORKERS)] = 1
    """Processes of this machine, each with a GPU or a share of the cores. With 1, this
    process uses all of them."""
    dask: Annotated[str | None, arg(metavar="ADDRESS")] = None
    """Workers of Dask: tcp://HOST:PORT of a scheduler, or local:N."""
    submitit: Annotated[
        Annotated[int, Within(high=MOST_WORKERS)] | None, arg(metavar="JOBS")
    ] = None
    """Submit this many jobs to the cluster's scheduler and wait for them."""
    cluster: Annotated[str | None, arg(metavar="NAME")] = None
    """For --submitit: slurm, local or debug; by default found by submitit."""
    slurm: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """For --submitit: NAME=VALUE, such as partition=gpu gpus_per_node=1 time=60."""
    shard: Annotated[str | None, arg(metavar="I/N")] = None
    """I/N: every N-th part from the I-th on, as in a Slurm array
    (--shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT)."""
    retries: Annotated[int, Within(0, 1000)] = 2
    """How often a failed part is tried again."""
    timeout: Annotated[Positive | None, arg(metavar="SECONDS")] = None
    """Seconds for a part, after which its worker is replaced."""
    any_version: bool = False
    """Continue a sweep that other versions of packages began."""

    def run(self) -> int:
        share = _share(self.shard)
        _share_cache()
        from dicjax.sweeps import read_config, run_sweep

        executor = self._executor()
        config = read_config(self.config)
        with Progress() as progress:
            standing = run_sweep(
                config,
                self.out,
                executor=executor,
                share=share,
                retries=self.retries,
                any_version=self.any_version,
                on_progress=progress,
            )
        print(standing)
        if not standing.is_complete:
            say("The sweep is not complete: the same command continues it.")
        return 0 if standing.is_complete else 1

    def _executor(self):
        from dicjax.sweeps import Dask, Here, Processes, Submitit

        is_used = self.workers > 1, self.dask is not None, self.submitit is not None
        named = [*itertools.compress(("--workers", "--dask", "--submitit"), is_used)]
        if len(named) > 1:
            raise ValueError(f"Choose one of {' and '.join(named)}.")
        if self.workers < 1 or (self.submitit is not None and self.submitit < 1):
            raise ValueError("There must be at least one worker.")
        if self.timeout is not None and not named:
            raise ValueError("--timeout needs workers that can be replaced: --workers.")
        if not named:
            return Here()
        if self.dask is not None:
            executor = Dask(self.dask, self.timeout)
            # Our own error reports lost connections.
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
        elif self.submitit is not None:
            executor = Submitit(
                self.submitit,
                self.out / "jobs",
                cluster=self.cluster,
                timeout=self.timeout,
                parameters=_parameters(self.slurm),
            )
        else:
            executor = Processes(self.workers, self.timeout)
        jax.config.update("jax_platforms", "cpu")  # workers use the GPUs
        return executor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status(Command):
    """Print the progress of the sweep in OUT, its failures, pace and remaining time.

    Exit status 0: complete; 1: not yet; 2: no sweep.

    For example: dicjax sweep status sweep --check
    """

    out: Annotated[Positional[pathlib.Path], arg(metavar="FOLDER")]
    """Folder of the sweep."""
    check: bool = False
    """Read every part and compare its checksum."""

    def run(self) -> int:
        from dicjax.sweeps import standing

        state = standing(self.out, check=self.check)
        print(state)
        return 0 if state.is_complete else 1


def _share(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    i, num = (int(x) for x in match.groups()) if match else (1, 0)
    if i > num or num < 1:
        raise ValueError(
            f"--shard takes I/N with I from 0 to N - 1, or from 1 to N, got {text!r}."
        )
    return i % num, num  # arrays begin at 0 or at 1


def _parameters(pairs: tuple[str, ...]) -> dict:
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--slurm takes NAME=VALUE, got {pair!r}.")
        parameters[f"slurm_{name}"] = int(value) if value.isdigit() else value
    return parameters


def _share_cache() -> None:
    """Lets workers use this process's cache of compiled programs."""
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if cache:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


@dataclasses.dataclass(frozen=True)
class Sweep(Group):
    """Massive sweeps: seeded, resumable, on one machine or many."""

    command: OmitSubcommandPrefixes[Run | Status]
