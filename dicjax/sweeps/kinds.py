"""The jobs of sweeps. Each applies functions of dicjax to a few units at a time.

A unit (a member or a recording) depends on the seed and its number alone.
"""

import functools
from collections.abc import Sequence

import jax.random as jr
import numpy as np
import pyarrow as pa

from dicjax.dics import (
    Column,
    conductance_columns,
    dic_columns,
    DICS,
    feature_columns,
    spike_lists,
    table_of,
)
from dicjax.generation import generate, GenerateConfig, Generated
from dicjax.inference import (
    begin_source,
    Dataset,
    default_sources,
    find_neuron,
    from_table,
    measured,
    SHARD_SIZE,
    to_table,
)
from dicjax.operator import characterise, CHUNK, find_family
from dicjax.output import DRIVE_COLUMNS, drive_columns
from dicjax.populations import Certificate, certify, refine, Refined
from dicjax.spikes import FEATURES
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
from dicjax.sweeps.simulating import FEWEST_MEMBERS, Simulating
from dicjax.sweeps.unit import Earlier, Finish, Inputs, Job, Part, Report, Serial, Span


def begin(config: Config, inputs: Inputs, read_stage: Earlier) -> Job:
    """The job of a configuration; `read_stage` reads the parts of an earlier stage."""
    match config:
        case SimulateJob():
            return Simulating(config, inputs)
        case GenerateJob():
            return Generating(config, inputs)
        case RefineJob() | RobustnessJob():
            return OfTable(config, inputs)
        case DatasetJob():
            return Learning(config, read_stage)
        case OperatorJob():
            return Characterising(config)


class Generating(Serial):
    """Generates a population for every target. By default, a part holds one target."""

    def __init__(self, config: GenerateJob, inputs: Inputs):
        self.config = config
        self.targets = inputs["targets"]
        self.stages = (self.targets.num_rows,)
        self.shard = config.shard or 1
        names = [find_neuron(x)[0].channel_names for x in config.targets.all_models]
        channels = list(dict.fromkeys(x for some in names for x in some))
        self.schema = _generated_schema(channels, "spikes" in config.save)
        settings = config.search.model_dump(exclude={"members"})
        self.search = GenerateConfig(**settings)

    def part(self, span: Span, on_progress: Report) -> Finish:
        rows = self.targets.slice(span.first, span.num).to_pylist()
        pieces = []
        counts = {"targets": span.num, "complete": 0, "refused": 0, "valid": 0}
        for i, row in enumerate(rows, span.first):
            generated = row["refused"] or self._generate(i, row, on_progress)
            if isinstance(generated, str):
                counts["refused"] += 1
            else:
                counts["valid"] += generated.num_accepted
                counts["complete"] += generated.num_accepted >= generated.num_asked
            pieces.append(self._table({"target": i, **row}, generated))
        return lambda: (pa.concat_tables(pieces), counts)

    def _generate(self, i: int, row: dict, on_progress: Report) -> Generated | str:
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

    def _table(self, about: dict, generated: Generated | str) -> pa.Table:
        """Members of a target, or one row with the reason why there are none."""
        if isinstance(generated, str):
            row = about | {"refused": generated, "spike_times": None}
            return pa.Table.from_pylist([row], self.schema)
        median = generated.posterior.median
        about["model"] = generated.neuron.name
        about["inferred_g_s"], about["inferred_g_u"] = median[0, :2].tolist()
        columns: dict[str, Column] = {
            **conductance_columns(generated.neuron, generated.g),
            **dic_columns(generated.dics, generated.V_th),
            **feature_columns(generated.features),
            **drive_columns(generated.drive),
            "distance": (generated.distance, "", ""),
            "distribution_distance": (generated.distribution_distance, "", ""),
            "accepted": (generated.accepted, "", ""),
        }
        own = dict(zip(columns, table_of(columns, {}).columns, strict=True))
        own["spike_times"] = spike_lists(generated.spike_times)
        same = lambda name: [about.get(name)] * len(generated.g)
        arrays = {x: own[x] if x in own else same(x) for x in self.schema.names}
        return pa.Table.from_pydict(arrays, self.schema)


def _generated_schema(channels: Sequence[str], with_spikes: bool) -> pa.Schema:
    numbers = lambda *names: [(name, pa.float32()) for name in names]
    return pa.schema(
        [
            ("target", pa.int64()),
            *[x for x in TARGETS if x.name not in ("spike_times", "refused")],
            ("model", pa.string()),
            ("refused", pa.string()),
            *numbers("inferred_g_s", "inferred_g_u"),
            ("member", pa.int32()),
            *numbers(*[f"g_{name}" for name in channels], *DICS, "V_th"),
            ("label", pa.string()),
            *numbers(*FEATURES, *DRIVE_COLUMNS, "distance", "distribution_distance"),
            ("accepted", pa.bool_()),
            *([("spike_times", pa.list_(pa.float32()))] if with_spikes else []),
        ]
    )


class OfTable(Serial):
    """Members of a table, and the spike train that they are compared with."""

    def __init__(self, config: RefineJob | RobustnessJob, inputs: Inputs):
        self.config = config
        self.neuron, _ = find_neuron(config.model)
        self.g = np.stack([x.to_numpy() for x in inputs["members"].columns], axis=1)
        self.train = train_of(inputs["targets"].to_pylist()[0])
        self.stages = (len(self.g),)
        self.shard = config.shard or FEWEST_MEMBERS

    def part(self, span: Span, on_progress: Report) -> Finish:
        g = self.g[span.units]
        common = {"tolerance": self.config.target.tolerance, "on_progress": on_progress}
        if isinstance(self.config, RefineJob):
            settings = self.config.refinement.model_dump()
            refined = refine(self.neuron, g, self.train, **common, **settings)
            return lambda: self._refined(span, refined)
        # The noise depends on a member's number within its part.
        key = jr.fold_in(jr.key(self.config.seed), span.first)
        axes = self.config.axes
        tested = certify(self.neuron, g, self.train, axes=axes, key=key, **common)
        return lambda: self._tested(span, g, tested)

    def _refined(self, span: Span, refined: Refined) -> Part:
        columns: dict[str, Column] = {
            **conductance_columns(self.neuron, refined.g, span.units),
            **dic_columns(*measured(self.neuron, refined.g)),
            **feature_columns(refined.features),
            "score": (refined.score, "1", "largest miss; 1 is what is allowed"),
            "valid": (refined.valid, "", "fires like the recording"),
            "valid_before": (refined.valid_before, "", "the same before refinement"),
        }
        counts = {"members": span.num, "valid": int(refined.valid.sum())}
        return table_of(columns, {}), counts

    def _tested(self, span: Span, g: np.ndarray, tested: Certificate) -> Part:
        checks = zip(tested.names, tested.valid.T, strict=True)
        share = "share of changes under which it stays valid"
        columns: dict[str, Column] = {
            **conductance_columns(self.neuron, g, span.units),
            **{name: (x, "", "still fires like the recording") for name, x in checks},
            "robustness": (tested.robustness.astype(np.float32), "1", share),
        }
        num_robust = int(tested.valid.all(axis=1).sum())
        counts = {"members": span.num, "valid under all changes": num_robust}
        return table_of(columns, {}), counts


class Learning(Serial):
    """Simulates the data that an encoder learns from.

    Rare members are drawn around members of earlier stages."""

    def __init__(self, config: DatasetJob, read_stage: Earlier):
        self.neuron, _ = find_neuron(config.model)
        self.sources = default_sources(self.neuron, config.num)
        self.stages = tuple(source.num for source in self.sources)
        if not sum(self.stages):
            few = f"num = {config.num} leaves no member to any source: ask for more."
            raise ValueError(few)
        self.shard = config.shard or SHARD_SIZE
        names = self.neuron.channel_names
        read = functools.cache(lambda i: [dataset_of(x, names) for x in read_stage(i)])

        def source_of(stage: int):
            before = [part for i in range(stage) for part in read(i)]
            key, source = jr.key(config.seed), self.sources[stage]
            return begin_source(key, self.neuron, source, stage, before)

        self._source = functools.cache(source_of)

    def part(self, span: Span, on_progress: Report) -> Finish:
        dataset = self._source(span.stage)(span.first, span.num, on_progress)
        counts = {"members": len(dataset), **dataset.num_left_out}
        return lambda: (to_table(dataset, self.neuron.channel_names), counts)


def dataset_of(part: Part, channels: Sequence[str]) -> Dataset:
    """The data of a part that [`dicjax.sweeps.kinds.Learning`][] has computed."""
    table, counts = part
    left_out = {name: num for name, num in counts.items() if name != "members"}
    return from_table(table, channels, left_out)


class Characterising(Serial):
    """Draws and measures members of a family, for operators to learn from."""

    def __init__(self, config: OperatorJob):
        self.family = find_family(config.family)
        self.key = jr.key(config.seed)
        self.stages = (config.num,)
        self.shard = config.shard or CHUNK

    def part(self, span: Span, on_progress: Report) -> Finish:
        g = self._draw(span)
        found = characterise(self.family, g, on_progress=on_progress)
        values = dict(zip(found.names, found.values.T, strict=True))
        meaning = "all of its features could be measured"
        columns: dict[str, Column] = {
            **conductance_columns(self.family.neuron, g, span.units),
            **{k: (x, "", "see operators in the docs") for k, x in values.items()},
            "is_complete": (found.is_complete, "", meaning),
        }
        counts = {"members": span.num, "complete": int(found.is_complete.sum())}
        return lambda: (table_of(columns, {}), counts)

    def _draw(self, span: Span) -> np.ndarray:
        # As training draws them: random numbers depend on this size.
        (num,) = self.stages
        chunks = range(span.first // CHUNK, span.units[-1] // CHUNK + 1)
        drawn = [
            self.family.sample(jr.fold_in(self.key, i), min(CHUNK, num - i * CHUNK))
            for i in chunks
        ]
        return np.concatenate(drawn)[span.units - chunks[0] * CHUNK]
