"""The plan of a sweep: its configuration, its inputs and its parts."""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core import (
    Busy,
    digest,
    replacing,
    Row,
    sha256,
    shipped,
    Store,
    versions,
)
from dicjax.inference import checkpoint_folder, find_neuron, neuron_hash
from dicjax.operator import find_family
from dicjax.sweeps.config import (
    Config,
    DatasetJob,
    GenerateJob,
    OperatorJob,
    parse_config,
)
from dicjax.sweeps.growth import can_grow, continued, GROWING
from dicjax.sweeps.inputs import read_inputs
from dicjax.sweeps.kinds import begin
from dicjax.sweeps.unit import Job, Part, Span


PLAN = "sweep.json"
FORMAT, VERSION = "dicjax-sweep", 1
# Files whose content matters, not their location.
PATHS = ("recordings", "recording", "table")
WAITS, WAIT = 20, 0.25  # how often, and how many seconds, for others that let it grow


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep as its folder describes it.

    - `identity`: differs between sweeps whose results could differ. A sweep that grows
        keeps it.
    - `models`: hashes of models, by name.
    - `inputs`: the files of its inputs.
    - `stages`, `shard`: number of units of every stage, and of a part.
    """

    folder: pathlib.Path
    config: Config
    identity: str
    models: dict[str, str]
    inputs: dict[str, pathlib.Path]
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
        inputs = {name: pq.read_table(path) for name, path in self.inputs.items()}
        return begin(self.config, inputs, lambda stage: self.read(self.of_stage(stage)))

    def done(self, shards: Iterable[int], *, check: bool = True) -> dict[int, Row]:
        """Of these parts, those that are whole, with their lines of the manifest.

        Where the sweep has grown, its last part may lack units. Without `check`, sizes
        are compared instead of checksums.
        """
        done = self.store.done(shards, check=check)
        return {i: x for i, x in done.items() if x["units"] == self.spans[i].num}

    def rows(self, shards: Sequence[int], *, check: bool = False) -> dict[int, Row]:
        """The manifest's lines of parts; a `ValueError` if any is missing or damaged.

        With `check`, checksums are compared instead of sizes.
        """
        rows = self.done(shards, check=check)
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

    That plan grows if more members, rows, recordings, tolerances or models are asked.

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
        plan = read_plan(folder)
        grown = _grown(plan, old, about, config, tables)
        if grown is None:
            _check_same(folder, old, about)
        _check_versions(folder, old, about, any_version)
        if grown is not None and grown[0]["stages"] != old["stages"]:
            _grow(plan, *grown)
        return read_plan(folder)
    job = begin(config, tables, lambda stage: iter(()))
    folder.mkdir(parents=True, exist_ok=True)
    about |= {"stages": job.stages, "shard": job.shard}
    _write(about, {folder / f"{name}.parquet": x for name, x in inputs.items()}, folder)
    return read_plan(folder)


def _write(about: dict, inputs: dict[pathlib.Path, bytes], folder: pathlib.Path):
    for path, content in inputs.items():
        with replacing(path) as partial:
            partial.write_bytes(content)
    with replacing(folder / PLAN) as partial:  # last: it marks the folder as complete
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _grown(
    plan: Plan, old: dict, new: dict, config: Config, tables: Mapping[str, pa.Table]
) -> tuple[dict, dict[pathlib.Path, bytes]] | None:
    """What a plan grows to with a configuration, and new inputs, if it can."""
    differs = _differences(*(_without_paths(x["config"]) for x in (old, new)))
    is_same = old["models"].items() <= new["models"].items()
    if not GROWING.issuperset(differs) or not is_same or isinstance(config, DatasetJob):
        return None
    inputs, digests, written = {}, dict(old["inputs"]), {}
    for name, table in tables.items():
        before = pq.read_table(plan.inputs[name])
        now = continued(before, table, config)
        if now is None:
            return None
        inputs[name] = now
        if now is not before:
            content = _packed(now)
            digests[name] = digest(content, 16)
            # Beside the old file, which stands until the plan names the new one.
            path = plan.folder / f"{name}-{digests[name]}.parquet"
            written[path] = content
    (num,) = begin(config, inputs, lambda stage: iter(())).stages
    if not can_grow(config, old, num):
        return None
    kept = {"versions": old["versions"], "identity": plan.identity}
    kept |= {"inputs": digests, "stages": [num], "shard": plan.shard}
    return new | kept, written


def _grow(plan: Plan, about: dict, inputs: dict[pathlib.Path, bytes]) -> None:
    for left in reversed(range(WAITS)):
        try:
            with plan.store.locked():  # no other run counts on the smaller plan
                _write(about, inputs, plan.folder)
            return
        except Busy:  # a share of the same array may be growing it
            if not left:
                raise
            time.sleep(WAIT)
        if _read(plan.folder / PLAN)["stages"] == about["stages"]:
            return


def read_plan(folder: pathlib.Path) -> Plan:
    """The plan in the folder of a sweep, or a `ValueError` if there is none."""
    about, inputs = _read(folder / PLAN), {}
    for name, expected in about["inputs"].items():
        grown = folder / f"{name}-{expected}.parquet"
        path = grown if grown.exists() else folder / f"{name}.parquet"
        inputs[name] = path
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
        inputs=inputs,
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
    if "identity" in about:  # it has grown, and its parts keep their marks
        return about["identity"]
    inputs = {name: about[name] for name in ("models", "inputs", "versions")}
    inputs["config"] = _without_paths(about["config"])
    return digest(json.dumps(inputs, sort_keys=True).encode(), 16)


def _without_paths(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {k: _without_paths(v) for k, v in config.items() if k not in PATHS}


def _check_same(folder, old, new) -> None:
    differs = _differences(*(_without_paths(x["config"]) for x in (old, new)))
    differs += [name for name in ("models", "inputs") if old[name] != new[name]]
    if differs:
        raise ValueError(
            f"{folder} holds another sweep: {', '.join(differs)} differ. Continue "
            "that sweep with its own file, or name another folder."
        )


def _check_versions(folder, old, new, any_version) -> None:
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
