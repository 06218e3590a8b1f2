"""Numbers and lists as sentences hold them, and results as text."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np


SHOWN = 12  # numbers of an array that are shown one by one


def listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def short(x: float, digits: int = 3) -> str:
    """A number to a few digits, never in powers of ten, such as 0.0123 or 12,345."""
    if abs(x) < 1e-4:
        return "< 0.0001" if x > 0 else "0"
    if abs(x) < 10**digits - 0.5:
        return f"{x:.{digits}g}"
    return f"{x:,.0f}" if abs(x) >= 10_000 else f"{x:.0f}"


def signed(x: float) -> str:
    """A number with its sign, to two digits, and without exponents."""
    if abs(x) < 5e-4:
        return "0"
    return f"{x:+.0f}" if abs(x) >= 99.5 else f"{x:+.2g}"


def spread(median: float, low: float, high: float) -> str:
    """A median and what holds most members, unless all agree."""
    middle, *ends = (signed(float(x)) for x in (median, low, high))
    return middle if ends[0] == ends[1] else f"{middle} ({ends[0]} to {ends[1]})"


def outcome(run: Any) -> str:
    """How many cells a simulation had, what they fired, and whether it succeeded."""
    num, spikes = np.size(run.num_spikes), int(np.sum(run.num_spikes))
    failed, lost = num - int(np.sum(run.succeeded)), int(np.sum(run.overflowed))
    end = f"{failed:,} failed" if failed else "all succeeded"
    end += f", spikes missing in {lost:,}" if lost else ""
    return f"{counted(num, 'cell')}, {counted(spikes, 'spike')}, {end}"


def counted(num: int, noun: str) -> str:
    """A number of things, such as "1 cell" and "1,200 spikes"."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def described(result: Any, summary: Callable[[], str] | None = None) -> str:
    """The `repr` of a result that holds arrays: a summary, and a line for each field.

    Small arrays are shown whole, others by their type, shape and range. The summary is
    asked for only where there are values, and not while JAX traces.
    """
    fields = {x.name: getattr(result, x.name) for x in dataclasses.fields(result)}
    title = type(result).__name__
    has_values = all(map(_has_values, jax.tree.leaves(list(fields.values()))))
    if summary is not None and has_values:
        title += f": {summary()}"
    lines = [f"{name}: {_in_a_line(x)}" for name, x in fields.items() if x is not None]
    return "\n  ".join([title, *lines])


def _has_values(x: Any) -> bool:
    if isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct):
        return False
    if not isinstance(x, jax.Array):
        return True
    return x.is_fully_addressable and not x.is_deleted()


def _in_a_line(x: Any) -> str:
    if isinstance(x, tuple | list) and type(x) in (tuple, list):
        return f"({', '.join(map(_in_a_line, x))})"
    if not isinstance(x, jax.Array | np.ndarray):
        first, *others = repr(x).splitlines()
        return f"{first}...)" if others and first.endswith("(") else first
    if not _has_values(x):
        return eqx.tree_pformat(x)
    values = np.asarray(x)
    if values.size <= SHOWN:
        text = np.array2string(values, precision=4, separator=", ")
        return " ".join(text.split())
    kind = f"{values.dtype}[{', '.join(map(str, values.shape))}]"
    if values.dtype == bool:
        return f"{kind}, {values.sum():,} true"
    known = values[np.isfinite(values)] if values.dtype.kind in "fiu" else values[:0]
    return f"{kind}, {known.min():.4g} to {known.max():.4g}" if known.size else kind
