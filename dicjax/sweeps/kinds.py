"""The jobs of sweeps. Each applies functions of dicjax to a few units at a time.

A unit (a member or a recording) depends on the seed and its number alone.
"""

import functools
from collections.abc import Sequence

import jax.random as jr
import numpy as np
import pyarrow as pa

from dicjax._core import Progress
from dicjax.dics import (
    Column,
    conductance_columns,
    dic_columns,
    feature_columns,
    spike_lists,
    table_of,
)
from dicjax.generation import AUTO, generate, GenerateConfig, Generated
from dicjax.inference import (
    begin_source,
    Dataset,
    default_sources,
    find_neuron,
    from_table,
    SHARD_SIZE,
    to_table,
)
from dicjax.operator import characterise, CHUNK, find_family
from dicjax.populations import certify, refine
from dicjax.spikes import features_of_all
from dicjax.sweeps.config import (
    Config,
    DatasetJob,
    GenerateJob,
    OperatorJob,
    RefineJob,
    RobustnessJob,
    SimulateJob,
)
from dicjax.sweeps.inputs import TARGETS, train_of
from dicjax.sweeps.simulating import dics_of, FEWEST_MEMBERS, Simulating
from dicjax.sweeps.unit import Finish, Inputs, Job, OneByOne, ReadStage


def begin(config: Config, inputs: Inputs, read_stage: ReadStage) -> Job:
    """The job of a configuration; `read_stage` reads the parts of an earlier stage."""
    if isinstance(config, SimulateJob):
        return Simulating(config, inputs)
    if isinstance(config, GenerateJob):
        return Generating(config, inputs)
    if isinstance(config, RefineJob):
        return Refining(config, inputs)
    if isinstance(config, RobustnessJob):
        return Certifying(config, inputs)
    if isinstance(config, DatasetJob):
        return Learning(config, read_stage)
    return Characterising(config)


class Generating(OneByOne):
    """Generates a population for every target. By default, a part holds one target."""

    def __init__(self, config: GenerateJob, inputs: Inputs):
        self.config = config
        self.targets = inputs["targets"]
        self.stages = (self.targets.num_rows,)
        self.shard = config.shard or 1
        channels = {
            name: None
            for model in config.targets.models
            for of in (AUTO if model == "auto" else (model,))
            for name in find_neuron(of)[0].channel_names
        }
        self.schema = _generated_schema(list(channels), "spikes" in config.save)
        search = config.search
        self.search = GenerateConfig(
            budget=search.budget,
            spread=search.spread,
            out_of_range=search.out_of_range,
            robustness=search.robustness,
        )

    def part(
        self, stage: int, first: int, num: int, on_progress: Progress | None
    ) -> Finish:
        """Generates a population for each of the targets."""
        del stage
        pieces, counts = [], {"targets": num, "complete": 0, "refused": 0, "valid": 0}
        for i, row in enumerate(self.targets.slice(first, num).to_pylist(), first):
            about = {name: row[name] for name in self.targets.column_names}
            generated = row["refused"] or self._generate(i, row, on_progress)
            counts["refused"] += isinstance(generated, str)
            if isinstance(generated, Generated):
                counts["valid"] += generated.num_accepted
                counts["complete"] += generated.num_accepted >= generated.num_asked
            pieces.append(self._table(i, about, generated))
        return lambda: (pa.concat_tables(pieces), counts)

    def _generate(
        self, i: int, row: dict, on_progress: Progress | None
    ) -> Generated | str:
        try:
            generated = generate(
                jr.fold_in(jr.key(self.config.seed), i),
                train_of(row),
                model=row["model_asked"],
                num=self.config.search.members,
                tolerance=row["tolerance"],
                config=self.search,
                on_progress=on_progress,
            )
        except ValueError as e:  # e.g. the model cannot fire like the recording
            return str(e)
        if generated.settings["interrupted"]:  # an incomplete population is not kept
            raise KeyboardInterrupt
        return generated

    def _table(self, i: int, about: dict, generated: Generated | str) -> pa.Table:
        """Members of a target, or one row with the reason why there are none."""
        columns: dict = {"target": i, **about}
        num = 1
        if isinstance(generated, str):
            columns["refused"] = generated
        else:
            num = len(generated.g)
            columns |= {
                "model": generated.neuron.name,
                "inferred_g_s": float(generated.posterior.median[0, 0]),
                "inferred_g_u": float(generated.posterior.median[0, 1]),
            }
        arrays = {
            name: pa.repeat(
                pa.scalar(columns.get(name), self.schema.field(name).type), num
            )
            for name in self.schema.names
        }
        if isinstance(generated, Generated):
            members = {
                **conductance_columns(generated.neuron, generated.g),
                **dic_columns(generated.dics, generated.V_th),
                **feature_columns(generated.features),
                "distance": (generated.distance,),
                "accepted": (generated.accepted,),
            }
            arrays |= {
                k: pa.array(x, from_pandas=True) for k, (x, *_) in members.items()
            }
            if "spikes" in self.config.save:
                arrays["spike_times"] = spike_lists(generated.spike_times)
        ordered = [arrays[field.name].cast(field.type) for field in self.schema]
        return pa.Table.from_arrays(ordered, schema=self.schema)


ABOUT = ("recording", "unit_id", "t_start", "t_stop", "tolerance", "model_asked")


def _generated_schema(channels: Sequence[str], with_spikes: bool) -> pa.Schema:
    number = pa.float32()
    silent = features_of_all(np.full((1, 32), np.inf, np.float32))
    return pa.schema(
        [
            ("target", pa.int64()),
            *[TARGETS.field(name) for name in ABOUT],
            ("model", pa.string()),
            ("refused", pa.string()),
            ("inferred_g_s", number),
            ("inferred_g_u", number),
            ("member", pa.int32()),
            *[(f"g_{name}", number) for name in channels],
            *[(name, number) for name in ("g_f", "g_s", "g_u", "V_th")],
            *[
                (name, pa.string() if name == "label" else number)
                for name in feature_columns(silent)
            ],
            ("distance", number),
            ("accepted", pa.bool_()),
            *([("spike_times", pa.list_(number))] if with_spikes else []),
        ]
    )


class _Tabled:
    """Members of a table, and the spike train that they are compared with."""

    def __init__(self, config: RefineJob | RobustnessJob, inputs: Inputs):
        self.neuron, _ = find_neuron(config.model)
        self.g = np.stack([x.to_numpy() for x in inputs["members"].columns], axis=1)
        self.train = train_of(inputs["targets"].to_pylist()[0])
        self.stages = (len(self.g),)
        self.shard = config.shard or FEWEST_MEMBERS

    def columns(self, first: int, g: np.ndarray) -> dict[str, Column]:
        """Numbers and conductances of members from `first` on."""
        columns = conductance_columns(self.neuron, g)
        numbers = np.arange(first, first + len(g))
        columns["member"] = (numbers, *columns["member"][1:])
        return columns


class Refining(OneByOne):
    """Refines the members of a table; all members of a part together."""

    def __init__(self, config: RefineJob, inputs: Inputs):
        self.config, self.given = config, _Tabled(config, inputs)
        self.stages, self.shard = self.given.stages, self.given.shard

    def part(
        self, stage: int, first: int, num: int, on_progress: Progress | None
    ) -> Finish:
        """Refines members."""
        del stage
        refinement = self.config.refinement
        refined = refine(
            self.given.neuron,
            self.given.g[first : first + num],
            self.given.train,
            estimator=refinement.estimator,
            keep_dics=refinement.keep_dics,
            tolerance=self.config.target.tolerance,
            max_rounds=refinement.max_rounds,
            on_progress=on_progress,
        )

        def finish():
            columns: dict[str, Column] = {
                **self.given.columns(first, refined.g),
                **dics_of(self.given.neuron, refined.g),
                **feature_columns(refined.features),
                "score": (refined.score, "1", "largest miss; 1 is what is allowed"),
                "valid": (refined.valid, "", "fires like the recording"),
                "valid_before": (refined.valid_before, "", "did so as it was given"),
            }
            counts = {"members": num, "valid": int(refined.valid.sum())}
            return table_of(columns, {}), counts

        return finish


class Certifying(OneByOne):
    """Tests whether the members of a table stay valid when something changes."""

    def __init__(self, config: RobustnessJob, inputs: Inputs):
        self.config, self.given = config, _Tabled(config, inputs)
        self.stages, self.shard = self.given.stages, self.given.shard

    def part(
        self, stage: int, first: int, num: int, on_progress: Progress | None
    ) -> Finish:
        """Tests members; the noise depends on a member's number within its part."""
        del stage
        g = self.given.g[first : first + num]
        certificate = certify(
            self.given.neuron,
            g,
            self.given.train,
            tolerance=self.config.target.tolerance,
            axes=self.config.axes,
            key=jr.fold_in(jr.key(self.config.seed), first),
            on_progress=on_progress,
        )

        def finish():
            meaning = "fires like the recording all the same"
            columns: dict[str, Column] = self.given.columns(first, g) | {
                name: (certificate.valid[:, i], "", meaning)
                for i, name in enumerate(certificate.names)
            }
            share = certificate.robustness.astype(np.float32)
            columns["robustness"] = (share, "1", "share of changes that it stands")
            num_robust = int(certificate.valid.all(axis=1).sum())
            return table_of(columns, {}), {"members": num, "stand all": num_robust}

        return finish


class Learning(OneByOne):
    """Simulates the data that an encoder learns from.

    Rare members are drawn around members of earlier stages."""

    def __init__(self, config: DatasetJob, read_stage: ReadStage):
        self.neuron, _ = find_neuron(config.model)
        self.key = jr.key(config.seed)
        self.sources = default_sources(self.neuron, config.num)
        self.stages = tuple(source.num for source in self.sources)
        if not sum(self.stages):
            raise ValueError(
                f"num = {config.num} leaves no member to any source: ask for more."
            )
        self.shard = config.shard or SHARD_SIZE
        self._read_earlier = functools.cache(
            lambda stage: [self._read(*part) for part in read_stage(stage)]
        )
        self._source = functools.cache(self._begin)

    def part(
        self, stage: int, first: int, num: int, on_progress: Progress | None
    ) -> Finish:
        """Simulates members of a source."""
        dataset = self._source(stage)(first, num, on_progress)
        counts = {"members": len(dataset), **dataset.num_left_out}
        return lambda: (to_table(dataset, self.neuron.channel_names), counts)

    def _begin(self, stage: int):
        before = [part for i in range(stage) for part in self._read_earlier(i)]
        return begin_source(self.key, self.neuron, self.sources[stage], stage, before)

    def _read(self, table: pa.Table, counts: dict[str, int]) -> Dataset:
        left_out = {name: num for name, num in counts.items() if name != "members"}
        return from_table(table, self.neuron.channel_names, left_out)


class Characterising(OneByOne):
    """Draws and measures members of a family, for operators to learn from."""

    def __init__(self, config: OperatorJob):
        self.family = find_family(config.family)
        self.key = jr.key(config.seed)
        self.stages = (config.num,)
        self.shard = CHUNK  # the random numbers depend on this size

    def part(
        self, stage: int, first: int, num: int, on_progress: Progress | None
    ) -> Finish:
        """Draws and measures members."""
        del stage
        g = self.family.sample(jr.fold_in(self.key, first // CHUNK), num)
        found = characterise(self.family, g, on_progress=on_progress)

        def finish():
            columns: dict[str, Column] = conductance_columns(self.family.neuron, g)
            numbers = np.arange(first, first + num)
            columns["member"] = (numbers, *columns["member"][1:])
            for i, name in enumerate(found.names):
                columns[name] = (found.values[:, i], "", "see operators in the docs")
            meaning = "all of its features could be measured"
            columns["is_complete"] = (found.is_complete, "", meaning)
            counts = {"members": num, "complete": int(found.is_complete.sum())}
            return table_of(columns, {}), counts

        return finish
