"""The plan of a sweep: its configuration, its inputs and its parts."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core import digest, replacing, Row, sha256, shipped, Store, versions
from dicjax.inference import checkpoint_folder, find_neuron, neuron_hash
from dicjax.operator import find_family
from dicjax.sweeps.config import Config, GenerateJob, OperatorJob, parse_config
from dicjax.sweeps.inputs import read_inputs
from dicjax.sweeps.kinds import begin
from dicjax.sweeps.unit import Job, Part, Span


PLAN = "sweep.json"
FORMAT, VERSION = "dicjax-sweep", 1
INPUTS = ("members", "targets")
# Files whose content matters, not their location.
PATHS = ("recordings", "recording", "table")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep as its folder describes it.

    - `identity`: differs between sweeps whose results could differ.
    - `models`: hashes of models, by name.
    - `stages`, `shard`: number of units of every stage, and of a part.
    """

    folder: pathlib.Path
    config: Config
    identity: str
    models: dict[str, str]
    stages: tuple[int, ...]
    shard: int

    @functools.cached_property
    def spans(self) -> tuple[Span, ...]:
        """The units of each part, by its number."""
        return tuple(
            Span(stage, first, min(self.shard, num - first))
            for stage, num in enumerate(self.stages)
            for first in range(0, num, self.shard)
        )

    def of_stage(self, stage: int) -> list[int]:
        """Numbers of the parts of a stage."""
        return [i for i, span in enumerate(self.spans) if span.stage == stage]

    @property
    def num_units(self) -> int:
        return sum(self.stages)

    @functools.cached_property
    def store(self) -> Store:
        """Where parts are kept."""
        return Store(self.folder, self.identity)

    @functools.cached_property
    def job(self) -> Job:
        """The job, ready to compute."""
        paths = {name: self.folder / f"{name}.parquet" for name in INPUTS}
        inputs = {k: pq.read_table(path) for k, path in paths.items() if path.exists()}
        return begin(self.config, inputs, lambda stage: self.read(self.of_stage(stage)))

    def rows(self, shards: Sequence[int], *, check: bool = False) -> dict[int, Row]:
        """The manifest's lines of parts; a `ValueError` if any is missing or damaged.

        With `check`, checksums are compared instead of sizes.
        """
        rows = self.store.done(shards, check=check)
        if missing := len(shards) - len(rows):
            raise ValueError(
                f"{missing} of {len(shards)} parts of the sweep in {self.folder} are "
                "missing or damaged: run it to its end first."
            )
        return rows

    def read(self, shards: Sequence[int], *, check: bool = False) -> Iterator[Part]:
        """Reads parts one after the other, once all are known to be complete."""
        rows = self.rows(shards, check=check)
        return ((pq.read_table(self.store.path(i)), rows[i]["counts"]) for i in shards)


def make_plan(config: Config, folder: pathlib.Path, any_version: bool = False) -> Plan:
    """Plans a sweep in `folder`, or reads the plan that is already there.

    With `any_version`, a sweep continues that other versions of packages began, whose
    last digits may differ. Raises `ValueError` if the folder holds something else.
    """
    path = folder / PLAN
    old = _read(path) if path.exists() else None
    # Locks may be written before the plan.
    others = [x for x in folder.glob("*") if not x.name.startswith("lock")]
    if old is None and others:
        raise ValueError(
            f"{folder} holds files that belong to no sweep: choose a folder that is "
            "empty or new."
        )
    tables = read_inputs(config)
    inputs = {name: _packed(table) for name, table in tables.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": config.model_dump(mode="json"),
        "models": _models(config),
        "inputs": {name: digest(content, 16) for name, content in inputs.items()},
        "versions": versions(),
    }
    if old is not None:
        _check_same(folder, old, about, any_version)
        return read_plan(folder)
    job = begin(config, tables, lambda stage: iter(()))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in inputs.items():
        with replacing(folder / f"{name}.parquet") as partial:
            partial.write_bytes(content)
    about |= {"stages": job.stages, "shard": job.shard}
    with replacing(path) as partial:  # last: it marks the folder as complete
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return read_plan(folder)


def read_plan(folder: pathlib.Path) -> Plan:
    """The plan in the folder of a sweep, or a `ValueError` if there is none."""
    about = _read(folder / PLAN)
    for name, expected in about["inputs"].items():
        path = folder / f"{name}.parquet"
        if not path.exists() or sha256(path)[:16] != expected:
            raise ValueError(
                f"{path} is damaged or belongs to another sweep: remove "
                f"{folder / PLAN} and run the sweep again, which makes it anew."
            )
    return Plan(
        folder=folder,
        config=parse_config(about["config"], None, name=str(folder / PLAN)),
        identity=_identity(about),
        models=about["models"],
        stages=tuple(about["stages"]),
        shard=about["shard"],
    )


def _models(config: Config) -> dict[str, str]:
    """Hashes of the models or encoders that the results depend on."""
    if isinstance(config, OperatorJob):
        return {config.family: neuron_hash(find_family(config.family).neuron)}
    if not isinstance(config, GenerateJob):
        return {config.model: neuron_hash(find_neuron(config.model)[0])}
    folder_of = lambda x: shipped(x) or checkpoint_folder(x)
    folders = {x: folder_of(x) for x in config.targets.all_models}
    return {name: sha256(x / "header.json")[:12] for name, x in folders.items()}


def _identity(about: dict[str, Any]) -> str:
    inputs = {name: about[name] for name in ("models", "inputs", "versions")}
    inputs["config"] = _without_paths(about["config"])
    return digest(json.dumps(inputs, sort_keys=True).encode(), 16)


def _without_paths(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {k: _without_paths(v) for k, v in config.items() if k not in PATHS}


def _check_same(folder, old, new, any_version) -> None:
    differs = _differences(*(_without_paths(x["config"]) for x in (old, new)))
    differs += [name for name in ("models", "inputs") if old[name] != new[name]]
    if differs:
        raise ValueError(
            f"{folder} holds another sweep: {', '.join(differs)} differ. Continue "
            "that sweep with its own file, or name another folder."
        )
    changed = [
        f"{name} {old['versions'].get(name)} (now {version})"
        for name, version in new["versions"].items()
        if old["versions"].get(name) != version
    ]
    if changed and not any_version:
        raise ValueError(
            f"{folder} was begun with {', '.join(changed)}, so that last digits may "
            "differ between parts: install those again, name another folder, or pass "
            "--any-version."
        )


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [name] if old != new else []
    found = []
    for key in dict.fromkeys([*old, *new]):
        place = f"{name}.{key}" if name else key
        found += _differences(old.get(key), new.get(key), place)
    return found


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(
            f"{path.parent} is not the folder of a sweep: it has no readable {PLAN}."
        ) from e
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise ValueError(
            f"{path} has the format {about.get('format')} {about.get('version')}, but "
            f"this dicjax reads {FORMAT} {VERSION}."
        )
    return about


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()
