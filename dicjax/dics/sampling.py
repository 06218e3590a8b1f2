"""Populations that share dynamic input conductances and differ in the rest."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from dicjax._core import (
    check_targets,
    conductances_of,
    described,
    HasConductances,
    on_host,
    padded,
    renamed_argument,
    untraced,
)
from dicjax.dics.compensation import (
    best_compensated,
    Bounds,
    compensated,
    Goal,
    NO_THRESHOLD,
    NOT_CONVERGED,
    OK as OK,
    solve_goal,
    Solved,
    STATUS as STATUS,
)
from dicjax.dics.conductances import thresholds
from dicjax.neurons import Neuron


Target = tuple[float, float]  # (g_s, g_u)
Potentials = str | float | Sequence[float]
SAME_V = 0.02  # mV by which a threshold that was solved for may miss the first one
BATCHES = (64, 1024, 8192)  # numbers of members that are compiled for


class Population(eqx.Module):
    """Members that were asked for the dynamic input conductances `targets`.

    - `g`: maximal conductances, in mS/cm², ordered as the neuron's `channel_names`.
    - `targets`: of every member, (g_s, g_u) or (g_f, g_s, g_u); with a further axis
        where they are given at several potentials.
    - `status`: index into `names`; only where it is "ok" do the DICs hit the targets,
        or come as near as least squares can where these are more than what was solved.
    - `residual`: largest absolute difference between DICs and targets.
    - `num_draws`: free draws it took until this member was feasible.
    - `V`: the potential (mV) at which the first target holds.
    - `condition`: of the equations, their columns scaled alike.
    - `limiting`: the channel that left its bounds furthest, or -1.
    - `through`: the channels that were solved for.
    - `channels`: their names.
    """

    g: Float[np.ndarray, "cells channels"]
    targets: Float[np.ndarray, "cells ..."]
    status: Int[np.ndarray, " cells"]
    residual: Float[np.ndarray, " cells"]
    num_draws: Int[np.ndarray, " cells"]
    V: Float[np.ndarray, " cells"] | None = None
    condition: Float[np.ndarray, " cells"] | None = None
    limiting: Int[np.ndarray, " cells"] | None = None
    through: Int[np.ndarray, "cells solved"] | None = None
    channels: tuple[str, ...] = eqx.field(static=True, default=())
    names: tuple[str, ...] = eqx.field(static=True, default=STATUS)

    @property
    def num_ok(self) -> int:
        """How many members hit their target with admissible conductances."""
        return int((self.status == OK).sum())

    def __repr__(self) -> str:
        return described(self, self.__str__)

    def __str__(self) -> str:
        counts = np.bincount(self.status, minlength=len(self.names))
        failed = zip(self.names[1:], counts[1:], strict=True)
        why = ", ".join(f"{count} {name}" for name, count in failed if count)
        text = f"{self.num_ok} of {len(self.g)} members ok"
        text += f"; {why}" if why else ""
        if self.limiting is None or not self.channels:
            return text
        left = self.limiting[(self.status != OK) & (self.limiting >= 0)]
        often = collections.Counter(self.channels[i] for i in left).most_common(3)
        limits = ", ".join(f"{name} in {count}" for name, count in often)
        return text + (f" (beyond its bounds: {limits})" if often else "")


@untraced("num")
def sample(
    key: Key[Array, ""],
    neuron: Neuron,
    num: int,
    *,
    first: int = 0,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "cells channels"]:
    """Draws conductances uniformly from the Monte-Carlo box of the model.

    **Arguments:**

    - `key`: the randomness; a member depends on it and on its own number alone.
    - `neuron`: the model; it must have a recipe, which holds the box.
    - `num`: how many members to draw.
    - `first`: the number of the first member, where a population is made in parts.
    - `dtype`: of the conductances; by default JAX's floating-point type.

    **Returns:**

    Maximal conductances, in mS/cm², ordered as `neuron.channel_names`.

    **Raises:**

    - `ValueError`: if the model has no recipe.
    - `TypeError`: if `num` is traced.
    """
    box = jnp.asarray(neuron.box, dtype or float)
    draw = lambda i: jr.uniform(jr.fold_in(key, i), box.shape, box.dtype) * box
    return jax.vmap(draw)(first + jnp.arange(num))


@renamed_argument("at", "V")
@on_host()
def compensate(
    key: Key[Array, ""],
    neuron: Neuron,
    targets: Float[Array, "*dics"] | np.ndarray | Target | Sequence,
    *,
    num: int | None = None,
    V: Potentials = "V_ref",
    through: str | Sequence[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    max_draws: int = 20,
    first: int = 0,
    dtype: jnp.dtype | None = None,
) -> Population:
    r"""Builds a population whose dynamic input conductances are given.

    Most conductances are drawn as the model's recipe says; some are then solved for, so
    that the DICs are the target. The equations are nonlinear, since calcium feels the
    conductances that carry it; they are solved exactly, by damped Newton iterations
    through automatic differentiation. Members that come out infeasible are drawn
    again. Members that are still not "ok" after `max_draws` say so, and which channel
    limits them.

    **Arguments:**

    - `key`: a member depends on this and on its number alone.
    - `neuron`: the model; it must have a recipe.
    - `targets`: $(g_s, g_u)$ or $(g_f, g_s, g_u)$, one for all members or one row per
        member; where there are several potentials, a row for each of them.
    - `num`: how many members; by default one per row of `targets`.
    - `V`: where targets hold: "V_ref", the model's fixed reference, as published;
        "V_th", every member's own threshold, which becomes one more unknown; a
        potential in mV; or several of them.
    - `through`: what is solved for: "recipe", the channels that the recipe names for
        such a target; "best", of those that can reach it from a draw, the ones whose
        equations are conditioned best; or names of channels, one per target, or fewer
        where targets at several potentials are met by least squares. By default the
        recipe's, and, for members that they could not make, the best.
    - `bounds`: (lowest, highest) conductance by channel, in mS/cm². Others are
        non-negative, and within the box where the recipe keeps to it.
    - `max_draws`: how often a member is drawn before it is given up.
    - `first`: the number of the first member, where a population is made in parts.
    - `dtype`: of the computation; the default float if not given.

    **Returns:**

    A [`dicjax.Population`][] of exactly `num` members.

    **Raises:**

    - `ValueError`: if the model has no recipe; if targets are not finite or of another
        shape; if channels are unknown, or too many or too few to be solved for; if
        bounds contradict themselves.
    - `TypeError`: if JAX traces an argument, since this runs on the host.

    ??? cite "Reference"

        Fyon, Franci, Sacré & Drion (2024), PNAS Nexus 3(10), for compensation;
        Brandoit, Ernst, Drion & Fyon (2025), arXiv 2509.12783, for the STG recipe.
    """
    neuron.required_recipe  # noqa: B018 - a model without a recipe is refused at once
    dtype = jnp.dtype(dtype or jnp.zeros(()).dtype)
    problem = _problem(neuron, targets, num, V, through or "recipe", bounds, dtype)
    population = _unsolved(problem)
    draws = lambda i, of: _draws(jr.fold_in(key, i), problem.neuron, first + of, dtype)
    for i in range(max_draws):
        members = np.flatnonzero(population.status != OK)
        if not len(members):
            break
        solved = _solve(problem, members, functools.partial(draws, i))
        population = _with_solved(population, members, solved)
    members = np.flatnonzero(population.status != OK)
    if through is None and len(members) and len(problem.voltages) == 1:
        best = problem._replace(through="best")
        solved = _solve(best, members, functools.partial(draws, max_draws - 1))
        is_ok = solved.status == OK
        solved = jax.tree.map(lambda x: x[is_ok], solved)
        population = _with_solved(population, members[is_ok], solved, draws=0)
    return population


@renamed_argument("at", "V")
@on_host()
def impose(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"] | HasConductances,
    targets: Float[np.ndarray, "rows ..."],
    *,
    V: Potentials = "V_ref",
    through: str | Sequence[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Population:
    """Moves given cells to given DICs, by the maximal conductances of a few channels.

    **Arguments:**

    - `neuron`: the model.
    - `g`: conductances to start from, in mS/cm², or a [`dicjax.Population`][], of which
        members that are not "ok" are left out.
    - `targets`, `V`, `bounds`: as [`dicjax.compensate`][] takes them.
    - `through`: what is solved for; by default what the recipe says of each target, or
        the best channels where there is no recipe.

    **Returns:**

    A [`dicjax.Population`][] in the same order; the other conductances are unchanged.

    **Raises:**

    - `ValueError`: as [`dicjax.compensate`][], and if conductances are bad.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    g = conductances_of(neuron, g)
    if through is None:
        through = "recipe" if neuron.recipe is not None else "best"
    problem = _problem(neuron, targets, None, V, through, bounds, g.dtype)
    if len(problem.rows) != len(g):
        found = f"There are {len(g)} cells but {len(problem.rows)} targets"
        raise ValueError(f"{found}: give one per cell.")
    members = np.arange(len(g))
    solved = _solve(problem, members, lambda members: jnp.asarray(g[members]))
    return _with_solved(_unsolved(problem), members, solved)


class _Problem(NamedTuple):
    """What conductances are solved for.

    Targets in `rows` hold at the `voltages` (mV), from which the search of members' own
    thresholds starts where `at_threshold`. `through` are positions of the channels that
    are solved for, or the rule by which they are chosen.
    """

    neuron: Neuron
    voltages: list[float]
    at_threshold: bool
    rows: Float[np.ndarray, "cells voltages dics"]
    through: str | tuple[int, ...]
    bounds: Bounds


def _problem(neuron, targets, num, V, through, bounds, dtype) -> _Problem:
    voltages = _voltages(neuron, V)
    rows = check_targets(targets, num, len(voltages)).astype(dtype)
    neuron, low = neuron.with_dtype(dtype), np.zeros(len(neuron.channels))
    is_bounded = neuron.recipe is not None and neuron.recipe.bounded
    high = neuron.bounds if is_bounded else np.full(len(low), np.inf)
    at_threshold = isinstance(V, str) and V == "V_th"
    through = _channels(neuron, through, rows.shape[1:], at_threshold)
    limits = Bounds(*jnp.asarray(with_bounds(neuron, bounds, low, high), dtype))
    return _Problem(neuron, voltages, at_threshold, rows, through, limits)


def _unsolved(problem: _Problem) -> Population:
    rows, through = problem.rows, problem.through
    num, dtype = len(rows), rows.dtype
    num_solved = rows.shape[2] if isinstance(through, str) else len(through)
    return Population(
        g=np.zeros((num, len(problem.neuron.channels)), dtype),
        targets=rows if rows.shape[1] > 1 else rows[:, 0],
        status=np.full(num, NOT_CONVERGED, np.int32),
        residual=np.full(num, np.inf, dtype),
        num_draws=np.zeros(num, np.int32),
        V=np.full(num, np.nan, dtype),
        condition=np.full(num, np.nan, dtype),
        limiting=np.full(num, -1, np.int32),
        through=np.zeros((num, num_solved), np.int32),
        channels=problem.neuron.channel_names,
    )


def _with_solved(population: Population, members, solved: Solved, draws: int = 1):
    fields = {"num_draws": np.array(population.num_draws)}
    fields["num_draws"][members] += draws
    for field in dataclasses.fields(Solved):
        fields[field.name] = np.array(getattr(population, field.name))
        fields[field.name][members] = getattr(solved, field.name)
    return dataclasses.replace(population, **fields)


def _solve(problem: _Problem, members, start: Callable[[np.ndarray], Array]) -> Solved:
    """Solves for conductances of members, from those that `start` gives for them."""
    parts = []
    for first in range(0, len(members), BATCHES[-1]):
        part = members[first : first + BATCHES[-1]]
        size = next(size for size in BATCHES if size >= len(part))
        batch = padded(part, size)
        solved = _solve_batch(problem, start(batch), problem.rows[batch])
        parts.append(jax.tree.map(lambda x, num=len(part): x[:num], solved))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _solve_batch(problem: _Problem, g, rows) -> Solved:
    V = np.tile(problem.voltages, (len(g), 1))
    if problem.at_threshold:
        first, _ = thresholds(problem.neuron, g)
        V[:, 0] = np.where(np.isfinite(first), first, V[:, 0])
    through, bounds, own = problem.through, problem.bounds, problem.at_threshold
    if not isinstance(through, str):
        through = jnp.array(through)  # so that other channels compile nothing anew
    V, rows = jnp.asarray(V, g.dtype), jnp.asarray(rows)
    solved = _impose(problem.neuron, g, V, rows, through, bounds, own)
    solved = jax.tree.map(np.array, solved)
    if problem.at_threshold:
        first, status = map(np.asarray, thresholds(problem.neuron, solved.g))
        other = (status != 0) | ~(np.abs(first - solved.V) <= SAME_V)
        solved.status[other & (solved.status == OK)] = NO_THRESHOLD
    return solved


def _voltages(neuron: Neuron, V: Potentials) -> list[float]:
    if isinstance(V, str):
        if V not in ("V_ref", "V_th"):
            known = "'V_ref', 'V_th' or potentials in mV"
            raise ValueError(f"`V` must be {known}, got {V!r}.")
        return [float(neuron.V_ref)]
    voltages = np.atleast_1d(np.asarray(V, float))
    if voltages.ndim != 1 or not len(voltages) or not np.isfinite(voltages).all():
        raise ValueError(f"`V` must be finite potentials in mV, got {V}.")
    if (np.abs(voltages) < 1).all():
        raise ValueError(f"`V` must be in mV, got {V}: is that in volts?")
    return voltages.tolist()


def _channels(neuron, through, shape, at_threshold):
    """Positions of the channels to solve for, or the rule by which they are chosen."""
    voltages, dics = shape
    wanted = voltages * dics
    if at_threshold and dics != 2:
        raise ValueError(
            "At its own threshold a cell's DICs sum to zero: give (g_s, g_u) only, and "
            f"g_f will be what is left; got {dics} targets."
        )
    if isinstance(through, str):
        if through not in ("recipe", "best"):
            known = "'recipe', 'best' or names of channels"
            raise ValueError(f"`through` must be {known}, got {through!r}.")
        if through == "recipe" and dics == 3:
            channels = neuron.required_recipe.seed_channels
            return neuron.index(*channels) if channels else "best"
        return through
    free = neuron.index(*through)
    if len(set(free)) != len(free):
        raise ValueError(f"Channels to solve for must differ, got {tuple(through)}.")
    if len(free) > wanted:
        raise ValueError(
            f"{len(free)} conductances {tuple(through)} cannot be solved for from "
            f"{wanted} input conductances: name {wanted} of them."
        )
    if len(free) < wanted and (voltages == 1 or not free):
        raise ValueError(
            f"{len(free)} conductances {tuple(through)} are too few to meet {wanted} "
            f"input conductances: name {wanted} channels."
        )
    return free


def least_conductances(neuron: Neuron) -> Float[np.ndarray, " channels"]:
    """Zero, but what the recipe draws at least (mS/cm²) of what DICs are divided by.

    Next to none of that, anything has any DICs.
    """
    least = np.zeros(len(neuron.channels))
    if isinstance(neuron.normaliser, str):
        drawn = neuron.required_recipe.ranges.get(neuron.normaliser, (0.0, 0.0))
        least[list(neuron.index(neuron.normaliser))] = drawn[0]
    return least


def with_bounds(
    neuron: Neuron,
    given: Mapping[str, tuple[float, float]] | None,
    low: Float[np.ndarray, " channels"],
    high: Float[np.ndarray, " channels"],
) -> Float[np.ndarray, "2 channels"]:
    """Lowest and highest conductances (mS/cm²), where some are given; checked."""
    bounds = np.stack([low, high])
    for name, (least, most) in (given or {}).items():
        (channel,) = neuron.index(name)
        if not 0 <= least <= most:  # also where one is nan
            wanted = f"Bounds of {name} must be 0 <= lowest <= highest in mS/cm²"
            raise ValueError(f"{wanted}, got ({least}, {most}).")
        bounds[:, channel] = least, most
    return bounds


@eqx.filter_jit
def _impose(neuron, g, V, targets, through, bounds, at_threshold):
    def one(g, V, target):
        goal = Goal(target, V, at_threshold)
        if isinstance(through, str) and through == "best":
            scale = jnp.abs(g) + jnp.asarray(1e-6, g.dtype)
            if neuron.recipe is not None:
                scale = jnp.asarray(neuron.box, g.dtype)
            return best_compensated(neuron, g, goal, bounds, scale)
        free = _pair(neuron, target[0]) if isinstance(through, str) else through
        return compensated(neuron, g, goal, free, bounds)

    return jax.vmap(one)(g, V, targets)


@eqx.filter_jit
def _draws(key, neuron, members, dtype):
    """Free draws, which spike regularly where the recipe says so."""
    recipe = neuron.required_recipe

    def one(member):
        g = _draw(jr.fold_in(key, member), neuron, dtype)
        if recipe.seed_targets is None:
            return g
        seed = Goal(jnp.asarray([recipe.seed_targets], dtype), neuron.V_ref[None])
        free = jnp.array(neuron.index(*recipe.seed_channels))
        return solve_goal(neuron, g, seed, free)[0]

    return jax.vmap(one)(jnp.asarray(members))


def _draw(key, neuron, dtype):
    recipe = neuron.required_recipe
    names = neuron.channel_names
    low, high = jnp.array([recipe.ranges.get(name, (0.0, 0.0)) for name in names]).T
    leak_key, key = jr.split(key)
    (leak,) = neuron.index("leak")
    g = jr.uniform(key, (len(names),), dtype, low.astype(dtype), high.astype(dtype))
    if not recipe.scaled_by_leak:
        return g
    a, b = recipe.ranges["leak"]
    shape, scale = 3 * (a + b) ** 2 / (b - a) ** 2, (b - a) ** 2 / (6 * (a + b))
    g_leak = scale * jr.gamma(leak_key, shape, dtype=dtype)
    return (g * (g_leak / ((a + b) / 2))).at[leak].set(g_leak)


def _pair(neuron, target):
    g_s, g_u = target
    holds = {"g_u < 0": g_u < 0, "g_s >= 0": g_s >= 0, "g_s < 0": g_s < 0}
    *others, (_, last) = neuron.required_recipe.pairs
    free = jnp.array(neuron.index(*last))
    for rule, pair in reversed(others):
        free = jnp.where(holds[rule], jnp.array(neuron.index(*pair)), free)
    return free
