"""How far long work is, said as people say it: what is done, and how long it takes."""

import dataclasses
import inspect
import pathlib
import warnings
from collections.abc import Callable


class Stage(str):
    """What is being done: it prints as words, while code compares its `name`.

    - `name`: an identifier, such as "correcting".
    - `detail`: which part of it, such as "round 2", if any.
    - `loss`: of a training, which then is its detail.
    """

    name: str
    detail: str
    loss: float | None

    def __new__(cls, name: str, detail: str = "", *, loss: float | None = None):
        if loss is not None:
            detail = f"loss {loss:.2f}"
        words = name.replace("_", " ")
        stage = super().__new__(cls, f"{words}, {detail}" if detail else words)
        stage.name, stage.detail, stage.loss = name, detail, loss
        return stage

    def named(self, name: str) -> "Stage":
        """The same detail of a stage of another name."""
        return Stage(name, self.detail, loss=self.loss)


Progress = Callable[[Stage, int, int], None]
"""What long work calls, often: with its stage, what is done and the total."""

WORDS = {
    "reading_the_encoder": "Reading the recording",
    "simulating_the_posterior": "Simulating the first candidates",
    "correcting": "Correcting candidates that missed",
    "widening": "Looking for model neurons that differ more",
    "halving_the_time_step": "Checking model neurons at half the time step",
    "certifying": "Testing model neurons under other conditions",
    "writing": "Writing tables, figures and the report",
}
FIRST_RUN = (
    "This is the first run here. It compiles programs for a minute or two and keeps "
    "them."
)


def is_first_run() -> bool:
    """Whether the solver, which takes longest, was never compiled and kept here."""
    import jax

    cache = jax.config.values["jax_compilation_cache_dir"]
    # Of the simulation on cores, and of that which stays on a GPU.
    names = "*jit_take_bursts*", "*jit_advance*"
    kept = (path for name in names for path in pathlib.Path(cache or ".").glob(name))
    return bool(cache) and not any(kept)


def stage_words(stage: Stage) -> str:
    """What is being done, as a sentence begins."""
    plain = stage.name.replace("_", " ")
    words = WORDS.get(stage.name, plain[:1].upper() + plain[1:])
    return f"{words} ({stage.detail})" if stage.detail else words


def renamed(on_progress: Progress | None, name: str) -> Progress | None:
    """Reports a part of some work as the stage of this name."""
    if on_progress is None:
        return None
    return lambda stage, done, total: on_progress(stage.named(name), done, total)


def as_progress(on_progress: Callable[..., None] | None) -> Progress | None:
    """A callback of a user, who may have written it for (done, total) alone.

    Those callbacks still work for one release.
    """
    if on_progress is None or not _takes_two(on_progress):
        return on_progress
    warnings.warn(
        "`on_progress` is called with (stage, done, total): give a callback of three "
        "arguments. One of two, (done, total), works until the next release.",
        DeprecationWarning,
        stacklevel=4,
    )
    return lambda stage, done, total: on_progress(done, total)


def _takes_two(callback: Callable) -> bool:
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return False
    if any(x.kind is x.VAR_POSITIONAL for x in parameters):
        return False
    positional = [x for x in parameters if x.kind <= x.POSITIONAL_OR_KEYWORD]
    return sum(x.default is x.empty for x in positional) == 2


def duration(seconds: int | float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


@dataclasses.dataclass
class Pace:
    """How fast things are found, and so how long the rest takes."""

    stage: Stage = Stage("starting")
    done: int = 0
    total: int = 0
    first: tuple[float, int] | None = None  # when some were done, and how many
    changed: float = 0.0

    def note(self, stage: Stage, done: int, total: int, now: float) -> None:
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
        if not self.first or self.stage.name == "writing" or self.done >= self.total:
            return None
        since, few = self.first
        if self.done - few < self.total / 10:
            return None  # by chance
        per_one = (self.changed - since) / (self.done - few)
        left = (self.total - self.done) * per_one - (now - self.changed)
        return left if left >= 0 else None  # overdue: nothing is known any more
