"""How networks are fitted: steps of an optimiser, a moving average of weights, and
states on disk from which a training that was stopped goes on."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from dicjax._core.devices import constrain, Placement
from dicjax._core.files import replacing
from dicjax._core.processes import is_first
from dicjax._core.progress import Progress, Stage


AVERAGED = 0.998  # decay of the moving average of weights that are fitted to a table
WARM_UP = 200  # steps
REPORTED = 100  # steps between reports of progress
STATE = "state.eqx"

Loss = Callable[..., Float[Array, ""]]
State = TypeVar("State")


class Fit(eqx.Module):
    """Weights that are being fitted.

    - `average`: a moving average of the weights, or None.
    - `memory`: the state of the optimiser.
    """

    weights: PyTree
    average: PyTree
    memory: PyTree


def begin_fit(
    weights: PyTree, optimiser: optax.GradientTransformation, *, average: bool = True
) -> Fit:
    """A fit before its first step."""
    return Fit(weights, weights if average else None, optimiser.init(weights))


def clipped(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimiser of gradients whose norm is at most one."""
    return optax.chain(optax.clip_by_global_norm(1.0), optimiser)


def finite_adam(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam along a cosine, with clipped gradients.

    Numbers in a gradient that are not finite do not count.
    """
    schedule = optax.cosine_decay_schedule(rate, max(1, num_steps))
    as_numbers = optax.stateless(lambda g, _: jax.tree.map(jnp.nan_to_num, g))
    return optax.chain(as_numbers, clipped(optax.adam(schedule)))


def decay_of(count: Float[Array, ""], most: float) -> Float[Array, ""]:
    """The decay of a moving average after `count` steps, in the end `most`.

    It averages over few steps at first, so that it soon forgets the start.
    """
    return jnp.minimum(most, (1 + count) / (10 + count))


def improve(
    fit: Fit,
    loss: Callable[[PyTree], Float[Array, ""]],
    optimiser: optax.GradientTransformation,
    decay: Float[Array, ""] | None = None,
    where: Placement = Placement(),
) -> tuple[Fit, Float[Array, ""]]:
    """One step of an optimiser, when compiled: the fit after it, and the loss before.

    `decay` is of the moving average, if there is one; gradients lie `where`.
    """
    found = eqx.filter_value_and_grad(loss)(fit.weights)
    value, gradient = constrain(found, where.everywhere)
    updates, memory = optimiser.update(gradient, fit.memory, fit.weights)
    weights = eqx.apply_updates(fit.weights, updates)
    average = None
    if decay is not None:
        mix = lambda a, w: decay * a + (1 - decay) * w
        average = jax.tree.map(mix, fit.average, weights)
    return Fit(weights, average, memory), value


def train(
    state: State,
    learn: Callable[[int, State], tuple[State, Float[Array, ""]]],
    num: int,
    *,
    first: int = 0,
    size: int = 1,
    keep: Callable[[int, State], None] | None = None,
    keep_every: int = 1,
    report_every: int = 1,
    on_progress: Progress | None = None,
) -> State:
    """The loop of every training; returns its last state.

    There are `num` rounds, of which `first` is the first to do, of `size` steps each.
    From the number of a round and a state, `learn` makes the next state and the loss.
    Every `keep_every` rounds and after the last, `keep` gets the number of rounds done
    and the state. `on_progress` is called every `report_every`, in the first process.
    """
    for i in range(first, num):
        state, loss = learn(i, state)
        done = i + 1
        if keep is not None and (done % keep_every == 0 or done == num):
            keep(done, state)
        if on_progress is not None and done % report_every == 0 and is_first():
            on_progress(Stage("training", loss=float(loss)), done * size, num * size)
    return state


def descend(
    weights: PyTree,
    fixed: PyTree,
    loss: Loss,
    draw: Callable[[int], PyTree],
    optimiser: optax.GradientTransformation,
    *,
    num_steps: int,
    averaged: float | None = None,
    every: int = 1,
    on_progress: Progress | None = None,
) -> Any:
    """Fits weights to batches.

    `draw` gives the batch of a step; `loss` is of the weights, `fixed` and a batch.
    With the decay `averaged`, the moving average of the weights is returned.
    `on_progress` is called after every `every` steps.
    """

    def learn(i, fit):
        count = jnp.asarray(i, jnp.float32)
        return _step(fit, fixed, draw(i), count, loss, optimiser, averaged)

    fit = begin_fit(weights, optimiser, average=averaged is not None)
    fit = train(fit, learn, num_steps, report_every=every, on_progress=on_progress)
    return fit.weights if averaged is None else fit.average


@eqx.filter_jit
def _step(fit, fixed, batch, count, loss, optimiser, averaged):
    decay = None if averaged is None else decay_of(count, averaged)
    own_loss = lambda weights: loss(weights, fixed, batch)
    return improve(fit, own_loss, optimiser, decay)


def fit_network(
    network: PyTree,
    fixed: Callable[[Any], PyTree],
    loss: Loss,
    rows: tuple[np.ndarray, ...],
    weights: Float[np.ndarray, " rows"],
    config: Any,
    *,
    on_progress: Progress | None = None,
) -> Any:
    """Fits a network to rows of a table, by Adam along a cosine; averages its weights.

    `fixed` takes from the network the arrays that stay. `loss` is of the network and a
    batch of every table in `rows`, which are drawn as often as `weights` say. `config`
    has `num_steps`, `batch_size` and `learning_rate`, the highest, after a warm-up.
    """
    odds = np.cumsum(weights)
    rng, num_steps = np.random.default_rng(0), config.num_steps

    def draw(_: int) -> tuple[np.ndarray, ...]:
        drawn = np.searchsorted(odds, rng.random(config.batch_size) * odds[-1])
        return tuple(table[drawn] for table in rows)

    warm_up = min(WARM_UP, num_steps // 10 + 1)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warm_up, num_steps
    )
    learned = jax.tree.map(eqx.is_inexact_array, network)
    learned = eqx.tree_at(fixed, learned, replace_fn=lambda _: False)
    changing, rest = eqx.partition(network, learned)
    average = descend(
        changing,
        rest,
        lambda changing, rest, batch: loss(eqx.combine(changing, rest), *batch),
        draw,
        clipped(optax.adam(schedule)),
        num_steps=num_steps,
        averaged=AVERAGED,
        every=REPORTED,
        on_progress=on_progress,
    )
    return eqx.combine(average, rest)


class Kept(NamedTuple):
    """The state of a training as it was kept: its arrays and what is known of it."""

    arrays: PyTree
    about: dict[str, Any]


def keep_state(folder: pathlib.Path, settings: str, tree: PyTree, about: dict) -> None:
    """Writes the state of a training, whole or not at all; an older one is replaced.

    The header holds `settings`, which it was begun with, and `about`, as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = {"settings": settings, "shapes": _shapes(tree), "about": about}
    with replacing(folder / STATE) as partial, partial.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        eqx.tree_serialise_leaves(file, tree)


def kept_state(folder: pathlib.Path, settings: str, like: PyTree) -> Kept | None:
    """The state of a training that is kept in a folder, if there is one.

    Raises `ValueError` if it has other settings, or arrays of other shapes than `like`.
    """
    path = folder / STATE
    if not path.exists():
        return None
    with path.open("rb") as file:
        header = json.loads(file.readline())
        if (header.get("settings"), header.get("shapes")) != (settings, _shapes(like)):
            raise ValueError(
                f"{folder} holds the state of another training: name another folder, "
                "or the settings that it was begun with."
            )
        return Kept(eqx.tree_deserialise_leaves(file, like), header["about"])


def _shapes(tree: PyTree) -> list[list]:
    return [[str(x.dtype), *x.shape] for x in jax.tree.leaves(tree)]
