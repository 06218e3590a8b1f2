"""Checks at the boundary, and what they say."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import (
    Annotated,
    Any,
    get_args,
    get_type_hints,
    ParamSpec,
    Protocol,
    runtime_checkable,
    TypeVar,
)

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dicjax._core.advice import Advice, Remedy


P = ParamSpec("P")
R = TypeVar("R")

TOLERANCE_IN_EPS = 2  # rounding errors; finer tolerances are never reached
SAFE_DT = 0.1  # ms, fine for any neuron that fires
FINEST_DT = 1e-4  # ms, below which rounding outweighs what steps resolve
LONGEST = 1e8  # ms, more than a day
MAX_STEPS_PER_TAU = 8  # of `dt`, a quarter of which is the shortest step


def is_traced(tree: Any) -> bool:
    """Whether anything in a tree has no value yet, as under `jit`, `vmap` or `grad`.

    Data classes are looked into too, whether or not JAX knows them.
    """
    return any(map(_is_traced, jax.tree.leaves(tree)))


def _is_traced(leaf: Any) -> bool:
    if isinstance(leaf, jax.core.Tracer):
        return True
    if not dataclasses.is_dataclass(leaf) or isinstance(leaf, type):
        return False
    return is_traced(list(vars(leaf).values()))


NUMBER = "give a number, not an array of JAX"


def check_concrete(function: str, remedy: str = NUMBER, **arguments: Any) -> None:
    """Raises `TypeError` if one of these arguments of a function is traced.

    The message names the first that is, and the remedy.
    """
    for name, value in arguments.items():
        if is_traced(value):
            raise TypeError(
                f"`{function}` needs the value of `{name}`, which JAX is tracing (by "
                f"`jit`, `vmap`, `grad` or `shard_map`): {remedy}."
            )


def on_host(
    remedy: str = "call it outside of them",
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Marks a function that works on the host, so that no argument may be traced.

    It raises `TypeError`, with the remedy, if one is.
    """
    return lambda function: _checking(function, None, remedy)


def untraced(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Marks a function that JAX may trace, with arguments that shape its program.

    It raises `TypeError` if one of these arguments is traced.
    """
    return lambda function: _checking(function, names, NUMBER)


def _checking(
    function: Callable[P, R], names: tuple[str, ...] | None, remedy: str
) -> Callable[P, R]:
    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_traced((args, kwargs)):
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            some = {x: given[x] for x in given if names is None or x in names}
            check_concrete(function.__name__, remedy, **some)
        return function(*args, **kwargs)

    return checked


@runtime_checkable
class HasConductances(Protocol):
    """Members that hold their maximal conductances `g` (mS/cm²) beside other things."""

    @property
    def g(self) -> Any: ...


def members_of(members: Any) -> Any:
    """The maximal conductances (mS/cm²) of members, which may be given as such.

    Of a [`dicjax.Population`][], members whose status is not "ok" are left out.
    """
    if not isinstance(members, HasConductances):
        return members
    status = getattr(members, "status", None)
    return members.g if status is None else members.g[np.asarray(status) == 0]


def conductances_of(neuron, members: Any) -> np.ndarray:
    """Members' conductances (mS/cm²) as floats on the host, and checked.

    Floats keep their type; others become JAX's default one.
    """
    return _checked(neuron, np.asarray(members_of(members)))


def jax_conductances_of(neuron, members: Any) -> jax.Array:
    """Members' conductances (mS/cm²) as floats of JAX, and checked."""
    return _checked(neuron, jnp.asarray(members_of(members)))


def _checked(neuron, g):
    names = neuron.channel_names
    if g.ndim == 0 or g.shape[-1] != len(names):
        raise ValueError(
            f"`g` must have a last axis of {len(names)} conductances {names}, got "
            f"shape {g.shape}."
        )
    is_float = jnp.issubdtype(g.dtype, np.floating)
    floats = g if is_float else g.astype(jnp.zeros(()).dtype)
    if is_traced(g):
        return floats  # there are no values to look at
    if g.size == 0:
        raise ValueError(f"`g` must hold at least one cell, got shape {g.shape}.")
    g = np.asarray(g)
    bad = ~np.isfinite(g) | (g < 0)
    if bad.any():
        *cell, channel = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"Conductances must be finite and non-negative, but {names[channel]} is "
            f"{g[(*cell, channel)]} mS/cm² in cell {tuple(cell)} "
            f"({int(bad.sum())} such entries in all)."
        )
    return floats


@dataclasses.dataclass(frozen=True)
class Within:
    """Limits of a number that people set, as part of its annotation.

    - `low`, `high`: the least and the largest; both are allowed.
    - `unit`: their unit, if any.
    - `is_open`: whether the number must be above `low`, and not `low` itself.
    - `or_infinite`: whether it may be infinite.
    """

    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    is_open: bool = False
    or_infinite: bool = False

    def holds(self, x: float) -> bool:
        """Whether a number lies within the limits; nan never does."""
        if math.isinf(x):
            return self.or_infinite and self.low <= x
        return (self.low < x if self.is_open else self.low <= x) and x <= self.high

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        least = f"{'above' if self.is_open else 'at least'} {self.low:,.12g}"
        most = f"at most {self.high:,.12g}"
        limits = [least] if math.isfinite(self.low) else []
        limits += [most] if math.isfinite(self.high) else []
        return f"{' and '.join(limits)}{unit}" if limits else f"a finite number{unit}"


MOST = 10**9  # of things that are counted
Count = Annotated[int, Within(1, MOST)]
Seed = Annotated[int, Within(0, 2**32 - 1)]
Positive = Annotated[float, Within(0, is_open=True)]
Tolerance = Annotated[float, Within(0, 1, is_open=True)]
SomeShare = Annotated[float, Within(0, 1)]
Current = Annotated[float, Within(-1000, 1000, "µA/cm²")]
Noise = Annotated[float, Within(0, 1000, "µA/cm²")]
Milliseconds = Annotated[float, Within(0, LONGEST, "ms")]
Potential = Annotated[float, Within(-200, 200, "mV")]


def check_numbers(
    settings: Any,
    spelled: Callable[[tuple[str, ...]], str] = lambda names: ".".join(names),
) -> None:
    """Raises `ValueError` unless all numbers of settings lie within their limits.

    `settings` is a data class; so may be what it holds. Limits are the `Within` in the
    annotations of fields; without any, numbers must not be nan. `spelled` makes a name
    of the fields that lead to a number.
    """
    for names, limits, value in _numbers_of(settings, ()):
        if not limits.holds(value):
            setting = Remedy(spelled(names))
            raise ValueError(Advice(setting, f" must be {limits}, got {value:g}."))


def _numbers_of(
    settings: Any, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Within, float]]:
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, own = getattr(settings, field.name), (*names, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _numbers_of(value, own)
            continue
        limits = next(_limits_in(hints[field.name]), Within(or_infinite=True))
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, int | float) and not isinstance(x, bool):
                yield own, limits, x


def _limits_in(annotation: Any) -> Iterator[Within]:
    metadata = getattr(annotation, "__metadata__", ())
    yield from (x for x in metadata if isinstance(x, Within))
    for part in get_args(annotation):
        yield from _limits_in(part)


def check_simulation(
    duration: float,
    discard: float,
    dt: float,
    save_every: float | None = None,
    max_spikes: int | None = None,
) -> None:
    """Raises `ValueError` unless the times of a simulation make sense (ms)."""
    if not 1 <= duration <= LONGEST:
        raise ValueError(
            f"`duration` must be at least 1 ms and at most {LONGEST:,.0f} ms, got "
            f"{duration}."
        )
    if not 0 <= discard < duration:
        raise ValueError(
            f"`discard` must lie between 0 and the duration of {duration} ms, got "
            f"{discard}."
        )
    check_dt(dt)
    if save_every is not None and not 0 < save_every <= duration:
        raise ValueError(
            f"`save_every` must lie between 0 and the duration of {duration} ms, got "
            f"{save_every}."
        )
    if max_spikes is not None and max_spikes < 1:
        raise ValueError(f"`max_spikes` must be at least 1, got {max_spikes}.")


def check_times(ts: Any) -> float | None:
    """The last of `ts`, in ms; None if they are traced. Raises if they do not rise."""
    if np.ndim(ts) != 1 or not np.size(ts):
        raise ValueError(
            f"`ts` must be one row of at least one time in ms, got shape "
            f"{np.shape(ts)}."
        )
    if is_traced(ts):
        return None
    times = np.asarray(ts, float)
    if not np.all(np.isfinite(times)) or times[0] < 0:
        raise ValueError(
            f"`ts` must be times in ms from 0 on, got {times.min()} to {times.max()}."
        )
    (falls,) = np.nonzero(np.diff(times) <= 0)
    if len(falls):
        i = int(falls[0])
        raise ValueError(
            f"`ts` must rise, but {times[i + 1]:g} ms follows {times[i]:g} ms."
        )
    return float(times[-1])


def check_dt(dt: float) -> None:
    """Raises `ValueError` unless steps of `dt` ms can resolve a spike, and soon."""
    if not 0 < dt <= 0.5:
        raise ValueError(
            f"`dt` must lie between 0 and 0.5 ms to resolve a spike, got {dt}."
        )
    if dt < FINEST_DT:
        raise ValueError(
            f"`dt` must be at least {FINEST_DT:g} ms, since finer steps only take "
            f"longer, got {dt}."
        )


def check_tolerance(tolerance: float | None, dtype: Any) -> None:
    """Raises `ValueError` if numbers of `dtype` cannot reach a relative tolerance."""
    if tolerance is None:
        return
    finest = TOLERANCE_IN_EPS * float(jnp.finfo(dtype).eps)
    if not finest <= tolerance < 1:
        name, finer = jnp.dtype(dtype).name, ""
        if name == "float32" and 0 < tolerance < finest:
            finer = " Finer ones need conductances in float64, and `jax_enable_x64`."
        raise ValueError(
            f"`tolerance` must lie between {finest:.2g} and 1 in {name}, got "
            f"{tolerance}.{finer}"
        )


def check_start(V0: np.ndarray, Ca0: np.ndarray) -> None:
    """Raises `ValueError` unless cells can start at these potentials (mV) and µM."""
    bad = ~(np.abs(V0) <= 200)  # also where it is nan
    if bad.any():
        raise ValueError(
            f"`V0` must be potentials in mV, between -200 and 200, got {V0[bad][0]}."
        )
    bad = ~((Ca0 >= 0) & np.isfinite(Ca0))
    if bad.any():
        raise ValueError(
            f"`Ca0` must be concentrations of calcium in µM, got {Ca0[bad][0]}."
        )


def check_stimulus(stimulus, duration: float) -> None:
    """Raises `ValueError` if the stimulus ends before the simulation does (ms)."""
    if stimulus is not None and stimulus.duration < duration - 1e-6:
        raise ValueError(
            f"The stimulus lasts {stimulus.duration:g} ms, but the simulation "
            f"{duration:g} ms; simulate for no longer than it lasts, or extend it."
        )


def check_resolved(neuron, dt: float, axes: PyTree = None) -> None:
    """Raises `ValueError` if steps of `dt` ms cannot follow the gates of `neuron`.

    `axes` are those of members, where their neurons differ.
    """
    if dt <= SAFE_DT:
        return
    V = jnp.linspace(-100, 50, 151)
    one = lambda V, neuron: neuron.time_constants(V, neuron.initial_Ca)
    members = jax.vmap(one, (None, axes)) if jax.tree.leaves(axes) else one
    taus = jax.vmap(members, (0, None))(V, neuron)
    fastest = min((float(tau.min()) for tau in taus), default=np.inf)
    if dt > MAX_STEPS_PER_TAU * fastest:
        raise ValueError(
            f"`dt` of {dt} ms cannot resolve {neuron.name}, whose fastest gate has a "
            f"time constant of {fastest:.3g} ms; use at most "
            f"{MAX_STEPS_PER_TAU * fastest:.2g}."
        )


def check_targets(targets, num: int | None, num_voltages: int = 1) -> np.ndarray:
    """Targets as (members, potentials, DICs), or a `ValueError` that says why not."""
    rows = np.asarray(targets, np.float64)
    several = num_voltages > 1
    if rows.shape[-1:] not in ((2,), (3,)) or rows.ndim > 2 + several:
        raise ValueError(
            "`targets` must be (g_s, g_u) or (g_f, g_s, g_u), or one such row per "
            f"member, got shape {rows.shape}."
        )
    if several and (rows.ndim < 2 or rows.shape[-2] != num_voltages):
        raise ValueError(
            f"`targets` at {num_voltages} potentials must have a row for each of them, "
            f"got shape {rows.shape}."
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"`targets` must be finite, got {rows.tolist()[:3]}.")
    if num is not None and num < 1:
        raise ValueError(f"`num` must be at least 1, got {num}.")
    if not several:
        rows = rows[..., None, :]
    if rows.ndim == 2:
        return np.broadcast_to(rows, (num or 1, *rows.shape))
    if num is not None and num != len(rows):
        raise ValueError(
            f"`num` is {num} but `targets` has {len(rows)} rows; leave `num` out."
        )
    return rows
