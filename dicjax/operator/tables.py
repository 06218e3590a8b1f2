"""Features and currents for an operator, from tables."""

import pathlib

import numpy as np
from jaxtyping import Float
from pyarrow import ArrowException, csv

from dicjax.operator.characteristics import BY_NAME
from dicjax.operator.model import Operator
from dicjax.operator.prediction import feature_ranges


UNEVEN = 0.01  # of a sample, by which times may be off


def read_features(
    path: pathlib.Path, operator: Operator
) -> Float[np.ndarray, "neurons features"]:
    """Features of neurons, a row each, from a CSV with a column for every feature.

    Raises `ValueError` where a column is missing or holds something else than numbers.
    """
    columns = _columns(path)
    missing = [name for name in operator.names if name not in columns]
    if missing:
        raise ValueError(
            f"{path.name} has no column {', '.join(missing)}, which the operator "
            f"{operator.family!r} needs: draw what was not measured with `dicjax "
            "operator ensemble`."
        )
    rows = np.stack([_numbers(path, name, columns) for name in operator.names], axis=1)
    if not len(rows):
        raise ValueError(f"{path.name} has no rows: it needs one per neuron.")
    return rows


def read_current(path: pathlib.Path) -> tuple[Float[np.ndarray, " samples"], float]:
    """A current (µA/cm²) and the ms between its samples, from a CSV.

    It has the columns `time_ms` and `current`, or `current_uA_cm2`. Raises `ValueError`
    where one is missing or times are not even.
    """
    columns = _columns(path)
    name = next((x for x in ("current", "current_uA_cm2") if x in columns), None)
    if "time_ms" not in columns or name is None:
        raise ValueError(
            f"{path.name} has the columns {', '.join(columns)}, but time_ms and "
            "current (in µA/cm²) are needed."
        )
    ts, current = (_numbers(path, x, columns) for x in ("time_ms", name))
    if len(ts) < 2:
        raise ValueError(f"{path.name} has {len(ts)} samples, but two are needed.")
    steps = np.diff(ts)
    every = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - every) > UNEVEN * abs(every))
    if every <= 0 or len(uneven):
        at = f"after {ts[uneven[0]]:g} ms" if len(uneven) else "throughout"
        raise ValueError(
            f"{path.name} is not evenly sampled {at}: resample it in steps of "
            f"{abs(every):g} ms."
        )
    return current.astype(np.float32), every


def describe_features(operator: Operator) -> str:
    """A line for every feature: its name, unit, range and meaning."""
    lines = []
    for name, low, high in zip(operator.names, *feature_ranges(operator), strict=True):
        span = f"{low:.3g} to {high:.3g} {BY_NAME[name].unit}".strip()
        lines.append(f"{name:<12}{span:<28}{BY_NAME[name].meaning}")
    return "\n".join(lines)


def _columns(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        table = csv.read_csv(path)
    except ArrowException as e:
        raise ValueError(f"{path.name} cannot be read as CSV: {e}.") from e
    names = table.column_names
    if len(set(names)) < len(names):
        twice = f"has a column more than once among {', '.join(names)}"
        raise ValueError(f"{path.name} {twice}: keep one of each.")
    return {name: table[name].to_numpy() for name in names}


def _numbers(path, name, columns) -> np.ndarray:
    try:
        return np.asarray(columns[name], float)
    except (TypeError, ValueError) as e:
        what = "something else than numbers"
        raise ValueError(f"{path.name} has {what} in its column {name}.") from e
