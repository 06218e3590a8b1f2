"""Members with a drive: their columns in tables, and what is said of them.

A drive is an input current with a constant and a fluctuating part. Members that have
one are judged by how much the recording itself varies.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from dicjax._core import short
from dicjax.dics import Column
from dicjax.generation import Generated
from dicjax.simulation import Drive
from dicjax.spikes import Agreement, LABELS


DRIVE_COLUMNS = {
    "I_mean": ("mean", "uA/cm2", "constant input current, with the recipe's"),
    "I_sigma": ("sigma", "uA/cm2", "standard deviation of its fast fluctuation"),
    "I_tau": ("tau", "ms", "correlation time of its fast fluctuation"),
    "I_slow_sigma": (
        "slow_sigma",
        "uA/cm2",
        "standard deviation of its slow fluctuation",
    ),
    "I_slow_tau": ("slow_tau", "ms", "correlation time of its slow fluctuation"),
}
"""Columns of a drive: the name of its number, the unit and the meaning."""
UNITS = {"uA/cm2": "µA/cm²"}  # of tables, in words
DISTRIBUTION_DISTANCE = (
    "mean difference between quantiles of ln(ISI) of the member and of the recording"
)
NOISE = (
    "Members have an input current that fluctuates (columns I_...). Spike times here "
    "came from noise that is not kept. `dicjax simulate` applies the input again, with "
    "noise made from a seed and the number of each member: spike times then differ, "
    "and statistics agree."
)
CHECKED_ONCE_MORE = "at half the time step too"
CHECKED_ANEW = "at half the time step, on a run twice as long with other noise too"


def drive_columns(drive: Drive | None) -> dict[str, Column]:
    """The columns of drives; none where members have none."""
    if drive is None:
        return {}
    return {
        column: (np.asarray(getattr(drive, name)), unit, meaning)
        for column, (name, unit, meaning) in DRIVE_COLUMNS.items()
    }


def drive_in(table: pa.Table, source: str) -> Drive | None:
    """The drives that a table of models holds, or a `ValueError`.

    There are none without the columns of one. `source` names the table in messages.
    """
    found = [name for name in DRIVE_COLUMNS if name in table.column_names]
    if not found:
        return None
    if lacking := [name for name in DRIVE_COLUMNS if name not in found]:
        raise ValueError(
            f"{source} has a column {found[0]} but lacks {', '.join(lacking)}: give "
            "all numbers of the drive, or none."
        )
    return Drive(
        **{
            name: _numbers(table, column, source)
            for column, (name, *_) in DRIVE_COLUMNS.items()
        }
    )


def _numbers(table: pa.Table, name: str, source: str) -> np.ndarray:
    column = table[name]
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    values = column.to_numpy() if is_number else np.full(len(column), np.nan)
    good = np.isfinite(values)
    wanted = "a finite number"
    if name.endswith("sigma"):
        good, wanted = good & (values >= 0), "a finite number that is not negative"
    if name.endswith("tau"):
        good, wanted = good & (values > 0), "a positive number"
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{name} is {column[row].as_py()} in row {row} of {source}, but it must be "
            f"{wanted}, in {DRIVE_COLUMNS[name][1]}."
        )
    return values.astype(np.float32)


def drive_rows(drive: Drive | None, members: np.ndarray) -> list[tuple[str, ...]]:
    """What numbers the drives of some members have: in words, the median, the range."""
    rows = []
    for values, unit, meaning in drive_columns(drive).values() if len(members) else ():
        median, *ends = map(
            short, np.quantile(np.asarray(values)[members], (0.5, 0, 1))
        )
        name = f"{meaning} ({UNITS.get(unit, unit)})"
        rows.append((name, median, " to ".join(ends)))
    return rows


def drive_about(result: Generated) -> dict[str, Any]:
    """What a manifest says of members with a drive and of how they are judged."""
    agreement = result.agreement
    if result.drive is None or agreement is None:
        return {}
    return {
        "drive": {
            "columns": [*DRIVE_COLUMNS],
            "seed": result.settings.get("seed"),
            "noise": NOISE,
        },
        "agreement": {
            "pattern": LABELS[agreement.label],
            "patterns": [LABELS[i] for i in np.flatnonzero(agreement.patterns)],
            "limits": limits_of(agreement),
            "furthest": float(agreement.furthest),
        },
    }


def limits_of(agreement: Agreement | None) -> dict[str, float] | None:
    """How far the logarithm of each feature may be off; `None` without agreement."""
    if agreement is None:
        return None
    return {
        name: float(limit)
        for name, limit in zip(agreement.names, agreement.limits, strict=False)
    }


def distances_in_words(distances: np.ndarray, furthest: float) -> str:
    """How far intervals of members are from the recording's, beside its own stretches;
    empty where no member is."""
    known = distances[np.isfinite(distances)]
    if not len(known):
        return ""
    middle, low, high = np.quantile(known, (0.5, 0, 1))
    return (
        "The logarithms of intervals of model neurons are "
        f"{middle:.2g} from the recording's in the median ({low:.2g} to {high:.2g}). "
        "Nineteen in twenty stretches of the recording are at most "
        f"{furthest:.2g} from its rest. A distance of 0.1 means that intervals differ "
        "by about 10\u202f% on average."
    )


def within_words(share: str, agreement: Any) -> str:
    """Within what members fire like the recording: a share, such as "10 %", or, where
    there is an agreement, what the recording itself varies by."""
    wider = "" if agreement is None else ", or as far as its own stretches differ"
    return f"within {share}{wider}"
