"""How a sweep grows: by more units, while those that it has keep their numbers."""

import pathlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dicjax.operator import CHUNK
from dicjax.sweeps.config import Config, DatasetJob, GenerateJob, OperatorJob


# What may change in the configuration of a sweep that grows.
GROWING = {"num", "members.num", "targets.tolerances", "targets.models"}


def continued(old: pa.Table, new: pa.Table, config: Config) -> pa.Table | None:
    """The input `old` of a sweep, with what `new` adds to it after its own rows.

    `old` itself if that is nothing; None if `new` lacks rows of it. Targets may be in
    another order, since files are sorted by name.
    """
    if old.equals(new.slice(0, old.num_rows)):
        return old if old.num_rows == new.num_rows else new
    if not isinstance(config, GenerateJob) or not old.schema.equals(new.schema):
        return None
    known = {_content(row) for row in old.to_pylist()}
    contents = [_content(row) for row in new.to_pylist()]
    if not known <= {*contents}:
        return None
    added = [i for i, content in enumerate(contents) if content not in known]
    return pa.concat_tables([old, new.take(added)]) if added else old


def _content(row: Mapping[str, Any]) -> tuple:
    """What a target is, wherever its file lies."""
    name = pathlib.PurePosixPath(row["recording"]).name
    times = tuple(row["spike_times"] or ())
    same = ("unit_id", "t_start", "t_stop", "refused", "tolerance", "model_asked")
    return name, times, *(row[key] for key in same)


def can_grow(config: Config, old: Mapping[str, Any], num: int) -> bool:
    """Whether a sweep with the plan `old` can have `num` units.

    The shares of a dataset's sources depend on the number of all members, and so do the
    last members that a family draws at once.
    """
    if isinstance(config, DatasetJob) or num < old["stages"][0]:
        return False
    is_cut = old["stages"][0] % CHUNK and old["shard"] % CHUNK
    return not (isinstance(config, OperatorJob) and is_cut)
