"""The configuration of a sweep: a TOML file, checked before anything is computed."""

import difflib
import glob
import pathlib
import tomllib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, Literal

import pydantic
from pydantic import AfterValidator, Field

from dicjax._core import FINEST_DT, is_checkpoint, LONGEST, shipped
from dicjax.generation import AUTO, FEWEST_CANDIDATES, GenerateConfig
from dicjax.inference import checkpoint_folder, find_neuron
from dicjax.neurons import MODELS
from dicjax.operator import FAMILIES
from dicjax.populations import AXES, Axis
from dicjax.recordings import cleanings, milliseconds_per, Window


MOST = 10**12  # of members; more are a mistake
SHORTEST = 50.0  # ms; shorter times were probably given in seconds
Share = Annotated[float, Field(gt=0, lt=1)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _in_folder(check: Callable[[Any, pathlib.Path], Any]) -> AfterValidator:
    """Checks a value once, in the folder that paths in it are relative to.

    Workers read copies and have no such folder, so that they take values as they are.
    """

    def checked(value: Any, info: Any) -> Any:
        return value if info.context is None else check(value, info.context)

    return AfterValidator(checked)


def _found(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    path = folder / path.expanduser()
    if not path.exists():
        raise ValueError(f"there is no {path}")
    return path.resolve()


def _globbed(patterns: Sequence[str], folder: pathlib.Path) -> tuple[str, ...]:
    found = []
    for pattern in patterns:
        path = folder / pathlib.Path(pattern).expanduser()
        paths = sorted(glob.glob(str(path), recursive=True))
        if not paths:
            raise ValueError(f"there is no {path}")
        found += [str(pathlib.Path(path).resolve()) for path in paths]
    return tuple(dict.fromkeys(found))


def _known_model(name: str, folder: pathlib.Path) -> str:
    path = folder / name
    name = str(path.resolve()) if name not in MODELS and path.exists() else name
    find_neuron(name)  # which runs a Python file
    return name


def _with_encoder(name: str, folder: pathlib.Path) -> str:
    if name == "auto" or (name in MODELS and shipped(name)):
        return name
    path = folder / pathlib.Path(name).expanduser()
    if not is_checkpoint(checkpoint_folder(path)):
        raise ValueError(
            f"{name!r} has no encoder: give auto, a model that ships with dicjax, or "
            "the folder that `dicjax adapt` made"
        )
    return str(path.resolve())


def _in_ms(time: float) -> float:
    if time < SHORTEST:
        raise ValueError(f"times are in ms, and {time:g} ms is too short to fire in")
    if time > LONGEST:
        raise ValueError(f"times are in ms, and {time:g} ms is more than a day")
    return time


def _known_unit(unit: str) -> str:
    milliseconds_per(unit)
    return unit


def _known_cleaning(names: tuple[str, ...]) -> tuple[str, ...]:
    cleanings(names)
    return names


File = Annotated[pathlib.Path, _in_folder(_found)]
Files = Annotated[tuple[str, ...], Field(min_length=1), _in_folder(_globbed)]
Time = Annotated[float, AfterValidator(_in_ms)]
Unit = Annotated[str, AfterValidator(_known_unit)]
Model = Annotated[str, _in_folder(_known_model)]
Trained = Annotated[str, _in_folder(_with_encoder)]
Cleaning = Annotated[tuple[str, ...], AfterValidator(_known_cleaning)]
Part = Annotated[Window, Field(description="ms")]


class Drawn(_Section):
    """Members to draw from the box of the model's recipe, or by its compensation."""

    sampler: Literal["box", "recipe"] = "box"
    num: int = Field(ge=1, le=MOST)


class Tabled(_Section):
    """Members of a table: models.parquet, models.csv, or the folder that holds them."""

    table: File


def _kind(x: Any) -> str:
    has_table = isinstance(x, Tabled) or (isinstance(x, dict) and "table" in x)
    return Tabled.__name__ if has_table else Drawn.__name__


Members = Annotated[
    Annotated[Drawn, pydantic.Tag(Drawn.__name__)]
    | Annotated[Tabled, pydantic.Tag(Tabled.__name__)],
    pydantic.Discriminator(_kind),
]


class Simulation(_Section):
    """How members are simulated: times in ms, currents in µA/cm²."""

    duration: Time | None = None
    discard: float | None = Field(default=None, ge=0)
    dt: float | None = Field(default=None, ge=FINEST_DT, le=0.5)
    current: float | None = Field(default=None, ge=-1000, le=1000)
    noise: float = Field(default=0.0, ge=0, le=1000)
    max_spikes: int | None = Field(default=None, ge=1, le=65_536)

    @pydantic.model_validator(mode="after")
    def _leaves_time(self):
        if self.duration and self.discard is not None and self.discard >= self.duration:
            raise ValueError(
                f"discard, {self.discard:g} ms, leaves nothing of the duration of "
                f"{self.duration:g} ms"
            )
        return self


class Target(_Section):
    """The recording that members are compared with."""

    recording: File
    unit: Unit | None = None
    unit_id: str | None = None
    window: Part | None = None
    clean: Cleaning = ()
    tolerance: Share = 0.10


class Targets(_Section):
    """Recordings, each tried with every tolerance and every model."""

    recordings: Files
    unit: Unit | None = None
    window: Part | None = None
    clean: Cleaning = ()
    tolerances: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.10,)
    models: Annotated[tuple[Trained, ...], Field(min_length=1)] = ("auto",)

    @property
    def all_models(self) -> tuple[str, ...]:
        """All models, with those that "auto" chooses from."""
        names = [name for x in self.models for name in (AUTO if x == "auto" else (x,))]
        return tuple(dict.fromkeys(names))


class Search(_Section):
    """How populations are searched for; see `dicjax generate --help`."""

    members: int = Field(default=100, ge=1, le=MOST)
    budget: int = Field(default=GenerateConfig.budget, ge=1, le=MOST)
    candidates_per_round: int = Field(
        default=GenerateConfig.candidates_per_round, ge=FEWEST_CANDIDATES, le=10**6
    )
    spread: float = Field(default=GenerateConfig.spread, gt=0, le=100)
    out_of_range: Literal["refuse", "try"] = "refuse"
    robustness: bool = False


class Refinement(_Section):
    """How members are refined; see [`dicjax.refine`][]."""

    estimator: Literal["ensemble", "autodiff"] = "ensemble"
    keep_dics: bool = False
    max_rounds: int = Field(default=6, ge=1)


class _Job(_Section):
    seed: int = Field(default=0, ge=0, lt=2**32)
    shard: int | None = Field(default=None, ge=1, le=MOST)


class SimulateJob(_Job):
    """Simulate members and measure their spikes."""

    job: Literal["simulate"]
    model: Model
    members: Members
    simulation: Simulation = Simulation()
    save: tuple[Literal["dics", "spikes"], ...] = ("dics",)


class DatasetJob(_Job):
    """Simulate the data that an encoder learns from."""

    job: Literal["dataset"]
    model: Model
    num: int = Field(ge=1, le=MOST)


class GenerateJob(_Job):
    """Generate a population for every recording."""

    job: Literal["generate"]
    targets: Targets
    search: Search = Search()
    save: tuple[Literal["spikes"], ...] = ()


class TabledJob(_Job):
    """What refers to members of a table and to a recording."""

    model: Model
    members: Tabled
    target: Target


class RefineJob(TabledJob):
    """Refine members until they match a recording."""

    job: Literal["refine"]
    refinement: Refinement = Refinement()


class RobustnessJob(TabledJob):
    """Test whether members still match a recording when something changes."""

    job: Literal["robustness"]
    axes: tuple[Axis, ...] = AXES


class OperatorJob(_Job):
    """Draw and characterise members of a family, to train operators on them."""

    job: Literal["operator"]
    family: Literal[tuple(FAMILIES)]  # pyright: ignore[reportInvalidTypeForm]
    num: int = Field(ge=1, le=MOST)


Config = (
    SimulateJob | DatasetJob | GenerateJob | RefineJob | RobustnessJob | OperatorJob
)
JOBS = {get_args(x.model_fields["job"].annotation)[0]: x for x in get_args(Config)}


def read_config(path: pathlib.Path) -> Config:
    """Reads and checks a sweep's file; paths in it are relative to its folder.

    **Raises:**

    - `ValueError`: naming the line, if it is not TOML, or has keys that are unknown,
        values out of range, or files that are missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return parse_config(tomllib.loads(text), path.parent, str(path), text)
    except OSError as e:
        raise ValueError(f"{path} cannot be read: {e.strerror}.") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is not TOML: {e}.") from e


def parse_config(
    values: dict[str, Any], folder: pathlib.Path | None, name: str, text: str = ""
) -> Config:
    """Checks a sweep's values; with a folder, paths are relative to it and must exist.

    `name` and `text` are those of the file, for errors.
    """
    job = values.get("job")
    if job not in JOBS:
        problem = f"job is {job!r}, but" if job is not None else "`job` is missing: it"
        place = _place(text, name, ("job",))
        raise ValueError(f"{place}: {problem} must be one of {', '.join(JOBS)}.")
    try:
        return JOBS[job].model_validate(values, context=folder)
    except pydantic.ValidationError as e:
        problems = [
            f"{_place(text, name, _where(error))}: {_message(JOBS[job], error)}"
            for error in e.errors()
        ]
        raise ValueError("\n".join(dict.fromkeys(problems))) from e


def _where(error) -> tuple[str, ...]:
    # Where a key may hold one of several sections, pydantic also names the class.
    classes = (Drawn.__name__, Tabled.__name__)
    return tuple(x for x in error["loc"] if isinstance(x, str) and x not in classes)


def _message(job: type[_Section], error) -> str:
    where = _where(error)
    key = ".".join(where) or "the file"
    if error["type"] == "extra_forbidden":
        known = _known(job, where[:-1])
        near = difflib.get_close_matches(where[-1], known, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"{key} is unknown{meant}; there are {', '.join(known)}."
    if error["type"] == "missing":
        return f"{key} is missing."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    message = message[0].lower() + message[1:]
    given = error["input"]
    short = isinstance(given, str | int | float)
    return f"{key}{f' = {given!r}' if short else ''}: {message}."


def _known(section: Any, where: tuple[str, ...]) -> list[str]:
    """The keys of a section."""
    for name in where:
        section = section.model_fields[name].annotation
    kinds = [get_args(x)[0] if get_args(x) else x for x in get_args(section)]
    return [key for kind in kinds or [section] for key in kind.model_fields]


def _place(text: str, name: str, where: tuple[str, ...]) -> str:
    """The file and the line of a key, or else the line of its section."""
    table: list[str] = []
    best = None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if line.startswith("["):
            table = line.strip("[] ").split(".")
            if table == list(where[: len(table)]):
                best = number
        elif "=" in line:
            key = line.split("=")[0].replace('"', "").strip().split(".")
            if table + key == list(where[: len(table + key)]):
                return f"{name}, line {number}"
    return f"{name}, line {best}" if best else name
