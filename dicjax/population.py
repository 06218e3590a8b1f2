"""Populations that share dynamic input conductances and differ in the rest."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from dicjax._checks import check_conductances, check_targets
from dicjax.dic import dics_of_one_cell
from dicjax.neuron import Neuron


STATUS = ("ok", "infeasible", "singular", "not converged")
OK, INFEASIBLE, SINGULAR, NOT_CONVERGED = range(4)
Target = tuple[float, float]  # (g_s, g_u)
BATCHES = (64, 1024, 8192)  # numbers of members that are compiled for
MAX_STEPS = 30
MAX_CONDITION = 1e6


class Population(eqx.Module):
    """Members that were asked to share the dynamic input conductances `targets`.

    - `g`: maximal conductances, in mS/cm², ordered as the neuron's `channel_names`.
    - `targets`: (g_s, g_u) of every member.
    - `status`: index into `names`; only where it is "ok" do the DICs hit the targets.
    - `residual`: largest absolute difference between DICs and targets.
    - `num_draws`: free draws it took until this member was feasible.
    """

    g: Float[np.ndarray, "cells channels"]
    targets: Float[np.ndarray, "cells 2"]
    status: Int[np.ndarray, " cells"]
    residual: Float[np.ndarray, " cells"]
    num_draws: Int[np.ndarray, " cells"]
    names: tuple[str, ...] = eqx.field(static=True, default=STATUS)

    @property
    def num_ok(self) -> int:
        """How many members hit their target with admissible conductances."""
        return int((self.status == OK).sum())

    def __str__(self) -> str:
        counts = np.bincount(self.status, minlength=len(self.names))
        why = ", ".join(
            f"{count} {name}"
            for name, count in zip(self.names[1:], counts[1:], strict=True)
            if count
        )
        return f"{self.num_ok} of {len(self.g)} members ok" + (
            f"; {why}" if why else ""
        )


def sample(
    key: Key[Array, ""],
    neuron: Neuron,
    num: int,
    *,
    first: int = 0,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "cells channels"]:
    """Draws conductances (mS/cm²) uniformly from the Monte-Carlo box of the model.

    Members are numbered from `first` on; each depends on `key` and its number alone.
    """
    box = jnp.asarray(neuron.box, dtype or float)
    draw = lambda i: jr.uniform(jr.fold_in(key, i), box.shape, box.dtype) * box
    return jax.vmap(draw)(first + jnp.arange(num))


def compensate(
    key: Key[Array, ""],
    neuron: Neuron,
    targets: Float[Array, "2"] | Float[Array, "cells 2"] | np.ndarray | Target,
    *,
    num: int | None = None,
    max_draws: int = 20,
    first: int = 0,
    dtype: jnp.dtype | None = None,
) -> Population:
    r"""Builds a population whose slow and ultraslow input conductances are given.

    Most conductances are drawn as the model's recipe says; two are then solved for, so
    that the DICs at `neuron.V_ref` are $(g_s, g_u)$. The equations are nonlinear,
    since calcium feels the conductances that carry it; they are solved exactly, by
    damped Newton iterations through automatic differentiation. Members that come out
    infeasible are drawn again; what is still not "ok" after `max_draws` says so.

    **Arguments:**

    - `key`: a member depends on this and on its number alone.
    - `neuron`: the model; it must have a recipe.
    - `targets`: $(g_s, g_u)$, one for all members or one row per member.
    - `num`: how many members; by default one per row of `targets`.
    - `max_draws`: how often a member is drawn before it is given up.
    - `first`: the number of the first member, where a population is made in parts.
    - `dtype`: of the computation; the default float if not given.

    **Returns:**

    A [`dicjax.Population`][] of exactly `num` members.

    **Raises:**

    - `ValueError`: if the model has no recipe or the targets are not finite pairs.

    ??? cite "Reference"

        Fyon, Franci, Sacré & Drion (2024), PNAS Nexus 3(10), for compensation;
        Brandoit, Ernst, Drion & Fyon (2025), arXiv 2509.12783, for the STG recipe.
    """
    neuron.required_recipe  # noqa: B018 - a model without a recipe is refused at once
    dtype = jnp.dtype(dtype or jnp.zeros(()).dtype)
    rows = check_targets(targets, num).astype(dtype)
    neuron = neuron.with_dtype(dtype)
    g = np.zeros((len(rows), len(neuron.channels)), dtype)
    status = np.full(len(rows), NOT_CONVERGED, np.int32)
    residual = np.full(len(rows), np.inf, dtype)
    num_draws = np.zeros(len(rows), np.int32)
    for draw in range(max_draws):
        wanting = np.flatnonzero(status != OK)
        for members in _batches(wanting):
            real = np.unique(members)
            solved = _compensate(
                jr.fold_in(key, draw),
                neuron,
                rows[members],
                jnp.asarray(first + members),
            )
            g[members], status[members], residual[members] = map(np.asarray, solved)
            num_draws[real] += 1
        if not len(wanting):
            break
    return Population(g, rows, status, residual, num_draws)


def impose(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"],
    targets: Float[np.ndarray, "cells 2"],
    *,
    through: tuple[str, str] | None = None,
) -> Population:
    """Moves given cells to given DICs, by the maximal conductances of two channels.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `g`: conductances to start from, in mS/cm².
    - `targets`: (g_s, g_u) of every cell.
    - `through`: names of the two channels; by default what the recipe says of each
        target.

    **Returns:**

    A [`dicjax.Population`][] in the same order; the other conductances are unchanged.
    """
    neuron.required_recipe  # noqa: B018
    check_conductances(neuron, g)
    dtype = np.asarray(g).dtype
    rows = check_targets(targets, None).astype(dtype)
    neuron = neuron.with_dtype(dtype)
    free = None if through is None else neuron.index(*through)
    solved = np.array(g)
    status = np.full(len(rows), NOT_CONVERGED, np.int32)
    residual = np.full(len(rows), np.inf, dtype)
    for members in _batches(np.arange(len(rows))):
        result = _impose(
            neuron, jnp.asarray(g[members]), jnp.asarray(rows[members]), free
        )
        solved[members], status[members], residual[members] = map(np.asarray, result)
    return Population(solved, rows, status, residual, np.ones(len(rows), np.int32))


@eqx.filter_jit
def _impose(neuron, g, targets, free):
    def one(g, target):
        return _finish(neuron, g, target, _pair(neuron, target, free))

    return jax.vmap(one)(g, targets)


def _batches(members: np.ndarray):
    # Padding repeats the last member, whose result is then written twice over.
    largest = BATCHES[-1]
    for start in range(0, len(members), largest):
        part = members[start : start + largest]
        size = next(size for size in BATCHES if size >= len(part))
        yield np.pad(part, (0, size - len(part)), mode="edge")


@eqx.filter_jit
def _compensate(key, neuron, targets, members):
    def one(target, member):
        return _compensate_one(jr.fold_in(key, member), neuron, target)

    return jax.vmap(one)(targets, members)


def _compensate_one(key, neuron, target):
    recipe = neuron.required_recipe
    g = _draw(key, neuron, target.dtype)
    if recipe.seed_targets is not None:
        seed = jnp.asarray(recipe.seed_targets, target.dtype)
        free = jnp.array(neuron.index(*recipe.seed_channels))
        g, _, _ = _solve(neuron, g, neuron.V_ref, slice(0, 3), seed, free)
    return _finish(neuron, g, target, _pair(neuron, target))


def _finish(neuron, g, target, free):
    V = neuron.V_ref
    g, residual, jacobian = _solve(neuron, g, V, slice(1, 3), target, free)
    return g, _status(neuron, g, residual, _condition(jacobian)), residual


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


def _pair(neuron, target, given=None):
    if given is not None:
        return jnp.array(given)
    g_s, g_u = target
    holds = {"g_u < 0": g_u < 0, "g_s >= 0": g_s >= 0, "g_s < 0": g_s < 0}
    *others, (_, last) = neuron.required_recipe.pairs
    free = jnp.array(neuron.index(*last))
    for rule, pair in reversed(others):
        free = jnp.where(holds[rule], jnp.array(neuron.index(*pair)), free)
    return free


def _solve(neuron, g, V, rows, targets, free):
    """Newton's method on the conductances `free`, until DICs `rows` hit `targets`.

    Returns conductances, the largest miss, and the Jacobian at the last step.
    """

    def miss(x):
        return dics_of_one_cell(neuron, g.at[free].set(x), V)[rows] - targets

    tolerance = jnp.finfo(targets.dtype).eps ** 0.5
    size = lambda missed: jnp.max(jnp.abs(missed))

    def wanting(carry):
        _, missed, _, _, count = carry
        return (size(missed) > tolerance) & (count < MAX_STEPS)

    def iterate(carry):
        x, missed, _, damping, count = carry
        jacobian = jax.jacfwd(miss)(x)
        new = x - damping * jnp.linalg.solve(jacobian, missed)
        new_missed = miss(new)
        better = size(new_missed) < size(missed)  # False where it is not finite
        return (
            jnp.where(better, new, x),
            jnp.where(better, new_missed, missed),
            jacobian,
            jnp.where(better, jnp.minimum(2 * damping, 1), damping / 4),
            count + 1,
        )

    x = g[free]
    start = (
        x,
        miss(x),
        jnp.eye(len(targets), dtype=targets.dtype),
        jnp.ones_like(targets[0]),
        jnp.zeros((), jnp.int32),
    )
    x, missed, jacobian, _, _ = jax.lax.while_loop(wanting, iterate, start)
    return g.at[free].set(x), size(missed), jacobian


def _condition(jacobian):
    # Columns are scaled alike first: units of a conductance say nothing.
    scaled = jacobian / jnp.linalg.norm(jacobian, axis=0, keepdims=True)
    values = jnp.linalg.svd(scaled, compute_uv=False)
    return values[0] / values[-1]


def _status(neuron, g, residual, condition):
    tolerance = jnp.finfo(g.dtype).eps ** 0.5
    recipe = neuron.required_recipe
    outside = (g < 0).any()
    if recipe.bounded:
        outside |= (g > jnp.asarray(neuron.box, g.dtype)).any()
    missed = ~(residual <= tolerance)
    singular = missed & ~(condition < MAX_CONDITION)
    return jnp.where(
        singular,
        SINGULAR,
        jnp.where(missed, NOT_CONVERGED, jnp.where(outside, INFEASIBLE, OK)),
    )
