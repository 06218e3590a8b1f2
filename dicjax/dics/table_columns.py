"""Columns of tables: values, unit and meaning."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from dicjax.neurons import Neuron
from dicjax.spikes import FEATURES, Features, LABELS


DICS = ("g_f", "g_s", "g_u")

Column = tuple[np.ndarray | pa.Array, str, str]  # values, unit, meaning


def conductance_columns(
    neuron: Neuron, g: np.ndarray, members: np.ndarray | None = None
) -> dict[str, Column]:
    """The columns of members, numbered from 0 by default, and conductances (mS/cm²)."""
    if members is None:
        members = np.arange(len(g), dtype=np.int32)
    columns: dict[str, Column] = {"member": (members, "", "number of the member")}
    for i, name in enumerate(neuron.channel_names):
        columns[f"g_{name}"] = g[:, i], "mS/cm2", f"maximal conductance of {name}"
    return columns


def dic_columns(
    dics: Float[np.ndarray, "cells 3"], V_th: Float[np.ndarray, " cells"]
) -> dict[str, Column]:
    """The columns of (g_f, g_s, g_u) at the reference potential and of thresholds."""
    same = "input conductance at V_ref, divided by the model's normaliser"
    kinds = zip(DICS, dics.T, ("fast", "slow", "ultraslow"), strict=True)
    columns: dict[str, Column] = {}
    for name, column, kind in kinds:
        columns[name] = column, "1", f"{kind} {same}"
    columns["V_th"] = V_th, "mV", "the member's own threshold; empty if it has none"
    return columns


def feature_columns(features: Features) -> dict[str, Column]:
    """The columns of features, of any number of cells."""
    label = np.atleast_1d(np.asarray(features.label))
    meaning = f"firing pattern: {', '.join(LABELS)}"
    columns: dict[str, Column] = {"label": (np.array(LABELS)[label], "", meaning)}
    for feature in FEATURES.values():
        values = np.atleast_1d(np.asarray(feature.read(features)))
        columns[feature.name] = values, feature.unit or "1", feature.meaning
    return columns


def table_of(columns: dict[str, Column], about: dict[str, str]) -> pa.Table:
    """A table whose columns say their unit and meaning."""
    # What is not defined is empty: spreadsheets do not know nan.
    arrays = [pa.array(x, from_pandas=True) for x, *_ in columns.values()]
    fields = []
    for array, (name, (_, *words)) in zip(arrays, columns.items(), strict=True):
        metadata = dict(zip(("unit", "meaning"), words, strict=True))
        fields.append(pa.field(name, array.type, metadata=metadata))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=about))


def column_lines(columns: dict[str, Column]) -> list[str]:
    """A line per column: its name, unit and meaning."""
    width = max(len(name) for name in columns)
    return [
        f"{name:<{width}}  {f'({unit}) ' if unit not in ('', '1') else ''}{meaning}"
        for name, (_, unit, meaning) in columns.items()
    ]


def spike_lists(times: Float[np.ndarray, "cells spikes"]) -> pa.ListArray:
    """Spike times, padded with infinity, as lists of their own."""
    is_spike = np.isfinite(times)
    offsets = np.append(0, np.cumsum(is_spike.sum(axis=1))).astype(np.int32)
    spikes = pa.array(times[is_spike].astype(np.float32))
    return pa.ListArray.from_arrays(pa.array(offsets), spikes)
