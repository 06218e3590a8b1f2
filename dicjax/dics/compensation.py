r"""Solving for conductances that give one cell the input conductances of a target.

Dynamic input conductances are linear in maximal conductances but for calcium, which
feels the conductances that carry it. They are solved for exactly, by damped Newton
iterations whose Jacobian comes from automatic differentiation; where there are more
targets than conductances to solve for, in the sense of least squares.

Everything here is written for one cell, to be mapped over many.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dicjax._core import condition_number, least_squares, Scalar, solve
from dicjax.dics.conductances import dics_of_one_cell, normaliser, sensitivity
from dicjax.neurons import Neuron


STATUS = ("ok", "infeasible", "singular", "not converged", "no threshold")
OK, INFEASIBLE, SINGULAR, NOT_CONVERGED, NO_THRESHOLD = range(5)
MAX_STEPS = 30
MAX_CONDITION = 1e6
WELL_CONDITIONED = 20.0  # equations that are no worse, where none is feasible
NUM_CHOICES = 4  # of channels that are solved for, to find the best


class Goal(eqx.Module):
    """The DICs that one cell shall have, and where.

    - `targets`: a row per potential: (g_s, g_u), or (g_f, g_s, g_u).
    - `V`: potentials, in mV; the start of the search where the threshold is the place.
    - `own`: where the steady-state I-V curve is level, wherever that comes to lie.
      Whether that is the cell's threshold, the first such place, is not looked at here.
    """

    targets: Float[Array, "voltages dics"]
    V: Float[Array, " voltages"]
    own: bool = eqx.field(static=True, default=False)


class Bounds(eqx.Module):
    """Lowest and highest conductance of every channel, in mS/cm²."""

    low: Float[Array, " channels"]
    high: Float[Array, " channels"]


class Solved(eqx.Module):
    """What came of solving for some conductances of one cell.

    - `g`: all conductances, in mS/cm²; `V`: where the first target holds, in mV.
    - `status`: index into `STATUS`.
    - `residual`: the largest difference between DICs and targets.
    - `condition`: of the equations, their columns scaled alike.
    - `limiting`: the channel that left its bounds furthest, or -1.
    - `through`: the channels that were solved for.
    """

    g: Float[Array, "*cells channels"]
    V: Float[Array, "*cells"]
    status: Int[Array, "*cells"]
    residual: Float[Array, "*cells"]
    condition: Float[Array, "*cells"]
    limiting: Int[Array, "*cells"]
    through: Int[Array, "*cells solved"]


def compensated(
    neuron: Neuron,
    g: Float[Array, " channels"],
    goal: Goal,
    free: Int[Array, " solved"],
    bounds: Bounds,
) -> Solved:
    """Solves for the conductances `free` of one cell, and judges the outcome."""
    g, V, residual, jacobian, settled = solve_goal(neuron, g, goal, free)
    # Columns are scaled alike first: units of a conductance say nothing.
    scale = jnp.linalg.norm(jacobian, axis=0, keepdims=True)
    condition = condition_number(jacobian / scale)
    tolerance = jnp.finfo(g.dtype).eps ** 0.5
    overdetermined = jacobian.shape[0] > jacobian.shape[1]
    missed = ~settled if overdetermined else ~(residual <= tolerance)
    missed |= ~jnp.isfinite(residual)
    # How far outside, in terms of the range or, where that is open, of the conductance.
    width = jnp.where(jnp.isfinite(bounds.high), bounds.high, jnp.abs(g)) + 1e-12
    beyond = jnp.maximum(bounds.low - g, g - bounds.high) / width
    outside = jnp.any(beyond > 0)
    limiting = jnp.where(outside, jnp.argmax(beyond), -1)
    status = jnp.where(outside, INFEASIBLE, OK)
    status = jnp.where(missed, NOT_CONVERGED, status)
    status = jnp.where(missed & ~(condition < MAX_CONDITION), SINGULAR, status)
    return Solved(g, V, status, residual, condition, limiting, free)


def _miss(neuron, g, goal, free):
    """The equations, and their unknowns to start from."""

    @jax.jit  # so that it is traced once
    def miss(x: Float[Array, " unknowns"]) -> Float[Array, " equations"]:
        own = g.at[free].set(x[: len(free)])
        if goal.own:
            dics = dics_of_one_cell(neuron, own, x[-1])
            slope = jnp.sum(dics, keepdims=True)
            return jnp.concatenate([dics[1:] - goal.targets[0], slope])
        # Twice the same code costs less to compile than a loop over one potential.
        dics = jnp.stack([dics_of_one_cell(neuron, own, V) for V in goal.V])
        return (dics[:, 3 - goal.targets.shape[1] :] - goal.targets).ravel()

    start = jnp.append(g[free], goal.V) if goal.own else g[free]
    return miss, start


def solve_goal(neuron: Neuron, g: Array, goal: Goal, free: Array):
    """Gauss-Newton iterations: conductances, potential, largest miss, last Jacobian,
    and whether they came to rest."""
    miss, x = _miss(neuron, g, goal, free)
    tolerance = jnp.finfo(g.dtype).eps ** 0.5
    missed = miss(x)
    square = len(missed) == len(x)
    size = lambda missed: jnp.max(jnp.abs(missed))
    norm = lambda missed: jnp.sum(missed**2)

    def wanting(carry):
        _, missed, _, moved, _, count = carry
        rest = size(missed) <= tolerance
        return ~(rest if square else rest | (moved <= tolerance)) & (count < MAX_STEPS)

    @jax.jit  # so that it is traced once, however often it is mapped
    def iterate(carry):
        x, missed, _, moved, damping, count = carry
        jacobian = jax.jacfwd(miss)(x)
        move = (solve if square else least_squares)(jacobian, missed)
        new = x - damping * move
        new_missed = miss(new)
        better = norm(new_missed) < norm(missed)  # False where it is not finite
        relative = jnp.max(jnp.abs(move) / (jnp.abs(x) + 1e-3))
        new, missed = jnp.where(better, new, x), jnp.where(better, new_missed, missed)
        damping = jnp.where(better, jnp.minimum(2 * damping, 1), damping / 4)
        return new, missed, jacobian, relative, damping, count + 1

    jacobian = jnp.eye(len(missed), len(x), dtype=x.dtype)
    moved, damping = jnp.full_like(missed[0], jnp.inf), jnp.ones_like(missed[0])
    carry = (x, missed, jacobian, moved, damping, jnp.zeros((), jnp.int32))
    x, missed, jacobian, moved, _, _ = jax.lax.while_loop(wanting, iterate, carry)
    V = x[-1] if goal.own else goal.V[0]
    g = g.at[free].set(x[: len(free)])
    return g, V, size(missed), jacobian, moved <= tolerance


def differentiable_solution(
    neuron: Neuron,
    g: Float[Array, " channels"],
    V: Scalar,
    target: Float[Array, " dics"],
    free: tuple[int, ...],
) -> Float[Array, " channels"]:
    r"""Conductances of one cell whose DICs at `V` are `target`, with exact derivatives.

    Those follow from the implicit function theorem, $\partial x / \partial \theta =
    -(\partial F / \partial x)^{-1} \partial F / \partial \theta$, whatever $\theta$ is:
    the target, the other conductances, the potential, or any number of the biology.

    `g` (mS/cm²) has the other conductances and a start for those in the positions
    `free`, as many as the (g_s, g_u), or (g_f, g_s, g_u), of the target; `V` is in mV.
    Nothing is checked: see [`dicjax.impose`][] for that.
    """
    index = jnp.array(free)
    stop = lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x
    goal = Goal(target[None], V[None])
    x = solve_goal(*jax.tree.map(stop, (neuron, g, goal, index)))[0][index]
    miss, _ = _miss(neuron, g, goal, index)
    jacobian = jax.lax.stop_gradient(jax.jacfwd(miss)(x))
    # One more step, which has the derivative of the implicit function.
    return g.at[index].set(x - solve(jacobian, miss(x)))


def best_compensated(
    neuron: Neuron,
    g: Float[Array, " channels"],
    goal: Goal,
    bounds: Bounds,
    scale: Float[Array, " channels"],
) -> Solved:
    """Solves for whichever channels do best.

    Of all choices that leave conductances within bounds, it takes the one whose
    equations are conditioned best, in units of `scale` (mS/cm²) for each channel. If
    there is none, it takes the one that leaves them least far outside.
    """
    free = _promising(neuron, g, goal.V[0], goal.targets[0], bounds, scale)
    one = lambda free: compensated(neuron, g, goal, free, bounds)
    solved = jax.vmap(one)(free)
    first = jnp.argmax(solved.status == OK)  # or the most promising, if none is
    return jax.tree.map(lambda x: x[first], solved)


def _promising(neuron, g, V, target, bounds, scale) -> Int[Array, "choices solved"]:
    """A few choices of channels, best first if calcium were constant."""
    rows = slice(3 - len(target), 3)
    S = sensitivity(neuron, g, V)[rows]
    unit = normaliser(neuron, g)
    # The normaliser moves all DICs alike and is never solved for.
    names = [name for name in neuron.channel_names if name != neuron.normaliser]
    choices = itertools.combinations(neuron.index(*names), len(target))
    choices = jnp.array(list(choices), jnp.int32)

    def judge(free):
        A = S[:, free]
        wanted = target * unit - S @ g.at[free].set(0)
        x = solve(A, wanted)
        width = scale[free]
        beyond = jnp.maximum(bounds.low[free] - x, x - bounds.high[free]) / width
        beyond = jnp.nan_to_num(jnp.max(beyond), nan=jnp.inf)
        return beyond, condition_number(A * width[None])

    beyond, condition = jax.vmap(judge)(choices)
    feasible = (beyond <= 0) & (condition < MAX_CONDITION)
    # Ill-conditioned choices come near only on paper.
    sound = condition < WELL_CONDITIONED
    rank = jnp.where(sound, NUM_CHOICES + beyond, jnp.inf)
    rank = jnp.where(feasible, -1 / condition, rank)
    return choices[jnp.argsort(rank)[:NUM_CHOICES]]


def nearest_reachable(
    neuron: Neuron,
    g: Float[Array, " channels"],
    V: Scalar,
    target: Float[Array, " dics"],
    bounds: Bounds,
    num_steps: int = 60,
) -> tuple[Float[Array, " channels"], Scalar]:
    """Conductances within finite bounds whose DICs at `V` come nearest to a target.

    They move from `g` on by damped Gauss-Newton steps, in which channels that a bound
    holds back take no part. Returns them, and the distance (Euclidean) that is left.
    """
    rows = slice(3 - len(target), 3)
    width = bounds.high - bounds.low
    as_g = lambda u: bounds.low + u * width
    square = lambda missed: jnp.sum(missed**2)

    @jax.jit  # so that it is traced once
    def miss(u):
        return dics_of_one_cell(neuron, as_g(u), V)[rows] - target

    def step(_, carry):
        u, missed, damping = carry
        J = jax.jacfwd(miss)(u)
        downhill = -J.T @ missed
        held = ((u <= 0) & (downhill < 0)) | ((u >= 1) & (downhill > 0))
        J = jnp.where(held[None], 0, J)
        gram = J @ J.T
        ridge = damping * (jnp.trace(gram) + 1e-12) * jnp.eye(len(J), dtype=J.dtype)
        new = jnp.clip(u - J.T @ solve(gram + ridge, missed), 0, 1)
        new_missed = miss(new)
        better = square(new_missed) < square(missed)
        damping = jnp.clip(jnp.where(better, damping / 4, 4 * damping), 1e-9, 1e6)
        new, missed = jnp.where(better, new, u), jnp.where(better, new_missed, missed)
        return new, missed, damping

    start = jnp.clip((g - bounds.low) / width, 0, 1)
    start = (start, miss(start), jnp.full_like(V, 1e-3))
    u, missed, _ = jax.lax.fori_loop(0, num_steps, step, start)
    return as_g(u), jnp.sqrt(square(missed))
