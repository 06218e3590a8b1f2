r"""Populations drawn evenly from everything that has given input conductances.

Dynamic input conductances are nonlinear in the maximal conductances through one number
only: steady-state calcium, which the calcium channels set. Given their conductances,
all others within bounds that have a slow and an ultraslow input conductance form a
polytope, $\{l \le g \le u, A g = b\}$, from which points are drawn by hit-and-run.

??? cite "Reference"

    Smith (1984). *Efficient Monte Carlo procedures for generating points uniformly
    distributed over bounded regions.* Oper. Res. 32(6); Boyd & Vandenberghe (2004),
    *Convex Optimization*, chapters 5 and 9, for the analytic centre.
"""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from dicjax._core import check_targets, in_batches, on_host, orthonormal, Scalar, solve
from dicjax.dics.compensation import INFEASIBLE, NOT_CONVERGED, OK
from dicjax.dics.conductances import dics_of_one_cell, sensitivity
from dicjax.dics.sampling import least_conductances, Population, Target, with_bounds
from dicjax.neurons import Neuron


BATCH = 1024  # members that are compiled for
MAX_DRAWS = 20  # of the calcium channels, until a member has a polytope
MAX_STEPS = 50  # of Newton's method
STRIDES = 2.0 ** -np.arange(8)  # of Newton's step, of which the best is taken
# A self-concordant function whose Newton decrement is below 1 anywhere has a minimum.
MAX_DECREMENT = 0.5

Bounds = Mapping[str, tuple[float, float]]


class Polytope(eqx.Module):
    """`low + width * y` with `rows @ y = values`, where `y` lies between 0 and 1."""

    low: Float[Array, " channels"]
    width: Float[Array, " channels"]
    rows: Float[Array, "dics channels"]
    values: Float[Array, " dics"]


@on_host()
def sample_polytope(
    key: Key[Array, ""],
    neuron: Neuron,
    targets: Float[Array, "*dics"] | np.ndarray | Target | Sequence,
    num: int | None = None,
    *,
    sources: Mapping[str, float] | None = None,
    bounds: Bounds | None = None,
    V: float | Scalar | None = None,
    num_steps: int = 200,
    first: int = 0,
    dtype: jnp.dtype | None = None,
) -> Population:
    r"""Draws conductances evenly from all that have given input conductances.

    Where [`dicjax.compensate`][] solves for two conductances and draws the others as a
    recipe says, here none is special: the calcium channels of each member are drawn
    uniformly within their bounds, and, given these, all others are uniformly
    distributed over everything that has these input conductances at `V`. Calcium
    channels that leave nothing are drawn again.

    **Arguments:**

    - `key`: a member depends on this and on its number alone.
    - `neuron`: the model; what is not in `bounds` is bounded by its recipe.
    - `targets`: $(g_s, g_u)$ or $(g_f, g_s, g_u)$, one for all members or one row per
        member.
    - `num`: how many members; by default one per row of `targets`.
    - `sources`: conductances (mS/cm²) of the calcium channels that are not drawn.
    - `bounds`: (lowest, highest) conductance by channel, in mS/cm²; from 0 to
        `neuron.box` by default, and for a leak that input conductances are divided by
        from the least that the recipe draws.
    - `V`: where input conductances are imposed, in mV; by default `neuron.V_ref`.
    - `num_steps`: of each member's random walk, which starts in the middle.
    - `first`: the number of the first member, where a population is made in parts.
    - `dtype`: of the computation; the default float if not given.

    **Returns:**

    A [`dicjax.Population`][] of exactly `num` members. One is "infeasible" where
    nothing within the bounds has the target.

    **Raises:**

    - `ValueError`: if targets are not finite or of another shape; if `bounds` or
        `sources` name other channels or contradict themselves; if the model has no
        third timescale, or no recipe and `bounds` leave a channel out.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    dtype = jnp.dtype(dtype or jnp.zeros(()).dtype)
    rows = check_targets(targets, num)[:, 0].astype(dtype)
    if neuron.timescales[2] is None:
        raise ValueError(
            f"{neuron.name} has no ultraslow timescale, so nothing sets its g_u: "
            "choose a model with three."
        )
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    low, high = jnp.asarray(_limits(neuron, bounds or {}, sources or {}), dtype)
    neuron = neuron.with_dtype(dtype)
    V = jnp.asarray(neuron.V_ref if V is None else V, dtype)
    steps = jnp.asarray(num_steps, jnp.int32)
    draw = lambda rows, of: _sample(key, neuron, rows, of, low, high, V, steps)
    members = first + np.arange(len(rows))
    g, *outcome = in_batches(draw, rows, members, size=BATCH)
    return Population(g, rows, *outcome, V=np.full(len(rows), V, dtype))


def _limits(neuron, bounds, sources) -> Float[np.ndarray, "2 channels"]:
    """Lowest and highest conductances; equal where one is given."""
    pool = neuron.calcium.sources if neuron.calcium is not None else ()
    for name in sources:
        if name not in pool:
            raise ValueError(
                f"{name!r} is not a calcium source of {neuron.name}, whose sources are "
                f"{pool}: give its `bounds` instead."
            )
    if set(bounds) >= set(neuron.channel_names):
        low = high = np.zeros(len(neuron.channels))
    else:
        low, high = least_conductances(neuron), neuron.box
    limits = with_bounds(neuron, bounds, low, high)
    for name, high in zip(neuron.channel_names, limits[1], strict=True):
        if not np.isfinite(high):
            raise ValueError(
                f"{name} is bounded by {high}, but nothing is drawn evenly from what "
                "has no end: give a finite bound, in mS/cm²."
            )
    for name, value in sources.items():
        (channel,) = neuron.index(name)
        low, high = limits[:, channel]
        if not low <= value <= high:
            raise ValueError(
                f"{name} is given as {value} mS/cm², outside of its bounds of {low} to "
                f"{high}: change it, or widen its `bounds`."
            )
        limits[:, channel] = value
    return limits


@eqx.filter_jit
def _sample(key, neuron, targets, members, low, high, V, num_steps):
    def one(target, member):
        draw_key, walk_key = jr.split(jr.fold_in(key, member))
        drawn = _feasible_draw(draw_key, neuron, target, low, high, V)
        polytope, y, feasible, num_draws = drawn
        walked = walk(walk_key, polytope, y, num_steps)
        y = jnp.where(feasible, _projected(polytope, walked), y)
        g = jnp.clip(polytope.low + polytope.width * y, low, high)
        missed = dics_of_one_cell(neuron, g, V)[-len(target) :] - target
        residual = jnp.max(jnp.abs(missed))
        hit = residual <= jnp.finfo(g.dtype).eps ** 0.5
        status = jnp.where(hit, OK, NOT_CONVERGED)
        status = jnp.where(feasible, status, INFEASIBLE).astype(jnp.int32)
        return g, status, residual, num_draws

    return jax.vmap(one)(targets, members)


def _feasible_draw(key, neuron, target, low, high, V):
    """Draws calcium channels until a polytope has an inside, and finds its centre."""
    pool = neuron.calcium.sources if neuron.calcium is not None else ()
    is_source = np.isin(neuron.channel_names, pool)

    def draw(count: Int[Array, ""]):
        share = jr.uniform(jr.fold_in(key, count), low.shape, low.dtype)
        drawn = low + share * (high - low)
        lowest, highest = (jnp.where(is_source, drawn, x) for x in (low, high))
        polytope = _polytope(neuron, target, lowest, highest, V)
        return polytope, *analytic_centre(polytope)

    def wanting(carry):
        (_, _, feasible), count = carry
        return ~feasible & (count < max_draws)

    # There is no use in drawing again what is given.
    is_drawn = jnp.any(is_source & (low < high))
    max_draws = jnp.where(is_drawn, MAX_DRAWS, 1).astype(jnp.int32)
    count = jnp.zeros((), jnp.int32)
    nothing = lambda x: jnp.zeros(x.shape, x.dtype)
    start = (jax.tree.map(nothing, jax.eval_shape(draw, count)), count)
    again = lambda carry: (draw(carry[1]), carry[1] + 1)
    (polytope, y, feasible), count = jax.lax.while_loop(wanting, again, start)
    return polytope, y, feasible, count


def _polytope(neuron, target, low, high, V) -> Polytope:
    # `low` is what the calcium channels have, and the others do not matter here.
    rows = sensitivity(neuron, low, V)[-len(target) :]
    if isinstance(neuron.normaliser, str):
        (column,) = neuron.index(neuron.normaliser)
        rows = rows.at[:, column].add(-target)
        values = jnp.zeros_like(target)
    else:
        values = target * jnp.asarray(neuron.normaliser, target.dtype)
    values = values - rows @ low
    rows = rows * (high - low)[None]
    size = jnp.max(jnp.abs(rows), axis=1)
    size = jnp.where(size > 0, size, 1)
    return Polytope(low, high - low, rows / size[:, None], values / size)


def analytic_centre(
    polytope: Polytope,
) -> tuple[Float[Array, " channels"], Bool[Array, ""]]:
    r"""Where $-\sum \ln y - \sum \ln (1 - y)$ is least, and whether there is an inside.

    The dual problem has one unknown per equation, no constraint, and every iterate
    inside the box: minimised over $y$, the barrier plus $\nu^T (A y - b)$ has a closed
    form. It is self-concordant, so that its Newton decrement certifies both answers.
    """
    rows, values = polytope.rows, polytope.values

    def dual(multipliers):
        pull = multipliers @ rows
        y, rest = _balance(pull), _balance(-pull)
        barrier = -jnp.sum(jnp.log(y)) - jnp.sum(jnp.log(rest))  # 1 - y may round to 0
        return barrier + jnp.sum(pull * y) - multipliers @ values

    def newton(multipliers):
        y = _balance(multipliers @ rows)
        missed = rows @ y - values
        curvature = (rows * _spread(multipliers @ rows)[None]) @ rows.T
        step = solve(curvature, missed)
        return step, jnp.sqrt(missed @ step)

    def wanting(carry):
        multipliers, decrement, count = carry
        converged = decrement < jnp.finfo(values.dtype).eps ** 0.5
        # Farkas: then no point of the box satisfies this sum of the equations.
        lowest = jnp.sum(jnp.minimum(multipliers @ rows, 0))
        is_empty = lowest > multipliers @ values
        return ~converged & ~is_empty & (count < MAX_STEPS)

    def iterate(carry):
        multipliers, _, count = carry
        step, decrement = newton(multipliers)
        # The damped step, one of these, is sure to gain, but for rounding.
        strides = jnp.append(jnp.asarray(STRIDES, step.dtype), 1 / (1 + decrement))
        tried = multipliers[None] + strides[:, None] * step[None]
        gain = jax.vmap(dual)(tried)
        gain = jnp.where(jnp.isfinite(gain), gain, -jnp.inf)
        # Close to the end, gains drown in rounding, but whole steps converge.
        best = jnp.where(decrement < 0.25, 0, jnp.argmax(gain))
        moves = jnp.isfinite(gain[best])
        return jnp.where(moves, tried[best], multipliers), decrement, count + 1

    infinite, count = jnp.asarray(jnp.inf, values.dtype), jnp.zeros((), jnp.int32)
    start = (jnp.zeros_like(values), infinite, count)
    multipliers, _, _ = jax.lax.while_loop(wanting, iterate, start)
    _, decrement = newton(multipliers)
    return _balance(multipliers @ rows), decrement < MAX_DECREMENT


def _balance(pull):
    """Where the barrier has the slope `-pull`; with `-pull`, how far that is from 1."""
    root = jnp.hypot(pull, jnp.full_like(pull, 2))
    # Two forms of one number: nothing cancels in the one that is taken.
    far = jnp.where(pull >= 0, pull + root, 4 / (root - jnp.minimum(pull, 0)))
    return 2 / (2 + far)


def _spread(pull):
    """The inverse curvature of the barrier where it balances `pull`."""
    y, rest = _balance(pull), _balance(-pull)
    return 1 / (1 / y**2 + 1 / rest**2)


def walk(key, polytope, y, num_steps):
    """Hit-and-run from `y`: to any point of a chord, in a random direction each time.

    Directions are even where the barrier is round, so that thinness does no harm.
    """
    scale = jnp.where(polytope.width > 0, _room(y), 0)
    basis, _ = orthonormal((polytope.rows * scale[None]).T)

    def step(i, y):
        direction_key, place_key = jr.split(jr.fold_in(key, i))
        z = jr.normal(direction_key, y.shape, y.dtype)
        for _ in range(2):  # for all digits
            z = z - basis @ (basis.T @ z)
        z = scale * z
        moves = z != 0
        per_z = 1 / jnp.where(moves, z, 1)
        ends = jnp.stack([-y * per_z, (1 - y) * per_z])
        longest = jnp.min(jnp.where(moves, jnp.max(ends, axis=0), jnp.inf))
        shortest = jnp.max(jnp.where(moves, jnp.min(ends, axis=0), -jnp.inf))
        place = jr.uniform(place_key, (), y.dtype)
        new = jnp.clip(y + (shortest + place * (longest - shortest)) * z, 0, 1)
        return jnp.where(jnp.isfinite(new).all(), new, y)

    return jax.lax.fori_loop(0, num_steps, step, y)


def _room(y):
    return 1 / jnp.sqrt(1 / y**2 + 1 / (1 - y) ** 2)


def _projected(polytope, y):
    """The point that satisfies the equations, by moving least where room is least."""
    rows = polytope.rows
    for _ in range(2):
        scaled = rows * _room(y)[None] ** 2
        missed = rows @ y - polytope.values
        y = y - scaled.T @ solve(scaled @ rows.T, missed)
    return y
