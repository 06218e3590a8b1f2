"""Processes of one or several machines that train together."""

import abc
import contextlib
import dataclasses
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Annotated, Any, Self

import jax
from tyro.conf import arg

from dicjax._core import beside, from_first, is_first
from dicjax.cli.common import check_new, Command, Progress, say


PLACE = re.compile(r"(\d+)/(\d+)@(.+:\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Command):
    """A command that trains networks, alone or together with other processes."""

    out: Annotated[pathlib.Path, arg(metavar="FOLDER")]
    """Folder of the checkpoint; it must not exist yet."""
    sweep: Annotated[pathlib.Path | None, arg(metavar="SWEEP")] = None
    """Folder of a sweep that has simulated the members: of job "dataset" for an
    encoder, of job "operator" for an operator. Their number and seed are then the
    sweep's."""
    data: Annotated[pathlib.Path | None, arg(metavar="FOLDER")] = None
    """Folder of simulated data and the state of training. With it, the same command
    continues where it was stopped. Without it, both are kept beside OUT only if the
    command fails or is stopped."""
    distributed: Annotated[str | None, arg(metavar="auto|I/N@HOST:PORT")] = None
    """Train in several processes that all run this command: auto under Slurm or MPI;
    elsewhere process I of N, from 0. Process 0 listens at HOST:PORT."""

    def run(self) -> int:
        join(self.distributed)
        from_first(lambda: check_new(self.out, self.data))
        if not is_first():
            self.train(None)
            return 0
        with Progress() as progress, self.keeping() as command:
            trained = command.train(progress)
        self.report(trained)
        return 0

    @contextlib.contextmanager
    def keeping(self) -> Iterator[Self]:
        """This command with a folder of its own for data, which is left if it fails."""
        if self.data is not None or jax.process_count() > 1:
            yield self
            return
        folder = beside(self.out.absolute(), "unfinished")
        folder = folder.with_name(folder.name.lstrip("."))
        try:
            yield dataclasses.replace(self, data=folder)
        except BaseException:
            if folder.exists():
                say(
                    f"What was simulated and learned so far is in {folder}: the same "
                    f"command with --data {folder} continues."
                )
            raise
        shutil.rmtree(folder, ignore_errors=True)

    @abc.abstractmethod
    def train(self, on_progress: Progress | None) -> Any:
        """Trains in every process; the first one writes, and reports progress."""

    @abc.abstractmethod
    def report(self, trained: Any) -> None:
        """Prints how good the networks are."""


def join(place: str | None) -> None:
    """Joins the other processes that run the same command, if there are any.

    `place` is `auto` if Slurm or MPI started them, else `I/N@HOST:PORT`: process I of
    N, counted from 0. Process 0 listens at this address.
    """
    if place is None:
        return
    known = {} if place == "auto" else _named(place)
    # Otherwise JAX catches the signal by which a scheduler ends a process.
    if "jax_enable_preemption_service" in jax.config.values:
        jax.config.update("jax_enable_preemption_service", False)
    say("Joining the other processes, for five minutes at most ...")
    try:
        jax.distributed.initialize(**known)
    except ValueError as e:
        if known:
            raise
        raise ValueError(
            "`--distributed auto` finds no other processes: start the command with "
            "srun or mpirun, or give `--distributed I/N@HOST:PORT` to each process."
        ) from e
    except RuntimeError as e:
        raise ValueError(f"The processes could not be joined: {e}") from e


def _named(place: str) -> dict:
    found = PLACE.fullmatch(place)
    own, num = (int(found[i]) for i in (1, 2)) if found else (0, 0)
    if found is None or own >= num:
        raise ValueError(
            f"`--distributed` is auto, or I/N@HOST:PORT with I from 0 to N - 1, such "
            f"as 0/2@node1:12345; got {place!r}."
        )
    return {"coordinator_address": found[3], "num_processes": num, "process_id": own}
