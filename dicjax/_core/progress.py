"""How far long work is, said as people say it: what is done, and how long it takes."""

import dataclasses
import pathlib


STAGES = {
    "reading the encoder": "Reading the recording",
    "simulating the posterior": "Simulating the first candidates",
    "correcting": "Correcting those that missed",
    "widening": "Looking for more different ones",
    "halving the time step": "Checking them at half the time step",
    "certifying": "Trying them under other conditions",
    "writing": "Writing tables, figures and the report",
}
FIRST_RUN = (
    "This is the first run here: programs are compiled, for a minute or two, and kept."
)


def is_first_run() -> bool:
    """Whether the solver, which takes longest, was never compiled and kept here."""
    import jax

    cache = jax.config.values["jax_compilation_cache_dir"]
    return bool(cache) and not any(pathlib.Path(cache).glob("*dispatch*"))


def stage(said: str) -> str:
    """A stage of the pipeline, in words."""
    name, _, which = said.partition(", ")
    words = STAGES.get(name, name[:1].upper() + name[1:])
    return f"{words} ({which})" if which else words


def duration(seconds: int | float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@dataclasses.dataclass
class Pace:
    """How fast things are found, and so how long the rest takes."""

    stage: str = ""
    done: int = 0
    total: int = 0
    first: tuple[float, int] | None = None  # when some were done, and how many
    changed: float = 0.0

    def note(self, stage: str, done: int, total: int, now: float) -> None:
        """Takes in what work says of itself, at a time in s."""
        if done < self.done or total != self.total:
            self.first = None  # of something else
        if self.first is None and done > 0:
            # Until then programs were compiled, which tells nothing of the rest.
            self.first = now, done
        if (stage, done) != (self.stage, self.done):
            self.changed = now
        self.stage, self.done, self.total = stage, done, total

    def seconds_left(self, now: float) -> float | None:
        """Until all is done, or none while nothing tells it."""
        if self.first is None or self.stage == "writing" or self.done >= self.total:
            return None
        since, few = self.first
        if self.done - few < self.total / 10:
            return None  # by chance
        per_one = (self.changed - since) / (self.done - few)
        left = (self.total - self.done) * per_one - (now - self.changed)
        # Overdue, so that nothing is known any more.
        return left if left >= 0 else None
