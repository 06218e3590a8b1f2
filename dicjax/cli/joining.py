"""Processes of one or several machines that train together."""

import contextlib
import re
from collections.abc import Iterator
from typing import Annotated

import tyro

from dicjax.cli.common import Progress, say


PLACE = re.compile(r"(\d+)/(\d+)@(.+:\d+)")
Distributed = Annotated[str | None, tyro.conf.arg(metavar="auto|I/N@HOST:PORT")]


def join(place: str | None) -> None:
    """Joins the other processes that run the same command, if there are any.

    **Arguments:**

    - `place`: `auto` if Slurm or MPI started them, else `I/N@HOST:PORT`: process I of
        N, counted from 0. Process 0 listens at this address.
    """
    if place is None:
        return
    import jax

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
            "`--distributed auto` finds no other processes: start the command by srun "
            "or mpirun, or say `--distributed I/N@HOST:PORT` to each."
        ) from e
    except RuntimeError as e:
        raise ValueError(f"The processes could not be joined: {e}") from e


@contextlib.contextmanager
def progress_of_first() -> Iterator[Progress | None]:
    """The progress line of the first process; None in the others."""
    from dicjax._core import is_first

    if not is_first():
        yield None
        return
    with Progress() as progress:
        yield progress


def _named(place: str) -> dict:
    found = PLACE.fullmatch(place)
    own, num = (int(found[i]) for i in (1, 2)) if found else (0, 0)
    if found is None or own >= num:
        raise ValueError(
            f"`--distributed` is auto, or I/N@HOST:PORT with I from 0 to N - 1, such "
            f"as 0/2@node1:12345; got {place!r}."
        )
    return {"coordinator_address": found[3], "num_processes": num, "process_id": own}
