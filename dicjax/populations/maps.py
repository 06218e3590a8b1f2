"""Which input conductances the neurons of a model can have, and how they then fire."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from dicjax._core import (
    AnyArray,
    as_progress,
    listed,
    on_host,
    Progress,
    renamed,
    short,
)
from dicjax.dics import compensate, OK, Population
from dicjax.neurons import Neuron
from dicjax.populations.evaluation import simulate_by_recipe, Window
from dicjax.spikes import BURSTING, Features, LABELS, SILENT, spike_features


GRID = (21, 11)  # points of a map along g_s and g_u


class Nearest(NamedTuple):
    """A point of a map, and how far it is, in units of the ranges of the recipe."""

    g_s: float
    g_u: float
    distance: float


@dataclasses.dataclass(frozen=True, eq=False)
class ReachabilityMap:
    """Which (g_s, g_u) neurons of a model can have, and what they then fire like.

    A point is reached if [`dicjax.compensate`][] could build at least one member there.

    - `model`, `channel_names`: the model and its channels.
    - `V_ref`: the potential of its DICs, in mV.
    - `g_s`, `g_u`: the axes of the grid; `spans`: the widths of the recipe's ranges.
    - `num`: how many members were tried at every point.
    - `status`: how many of them ended as each of `names`, as in a
        [`dicjax.Population`][].
    - `limiting`: how many of them failed by leaving the bounds of each channel.
    - `labels`: how many members that could be simulated fire as each of
        `dicjax.LABELS`.
    - `mean_isi`, `period` (ms), `spikes_per_burst`: medians over the members of the
        commonest label, nan where there are none or they are silent.
    """

    model: str
    V_ref: float
    channel_names: tuple[str, ...]
    g_s: Float[np.ndarray, " slow"]
    g_u: Float[np.ndarray, " ultraslow"]
    spans: tuple[float, float]
    num: int
    names: tuple[str, ...]
    status: Int[np.ndarray, "slow ultraslow statuses"]
    limiting: Int[np.ndarray, "slow ultraslow channels"]
    labels: Int[np.ndarray, "slow ultraslow 4"]
    mean_isi: Float[np.ndarray, "slow ultraslow"]
    period: Float[np.ndarray, "slow ultraslow"]
    spikes_per_burst: Float[np.ndarray, "slow ultraslow"]

    @property
    def share(self) -> Float[np.ndarray, "slow ultraslow"]:
        """The share of members that could be built."""
        return self.status[..., OK] / self.num

    @property
    def is_reached(self) -> Bool[np.ndarray, "slow ultraslow"]:
        """Where a member could be built."""
        return self.status[..., OK] > 0

    @property
    def commonest(self) -> Int[np.ndarray, "slow ultraslow"]:
        """Index into `LABELS` of the commonest pattern, -1 where nothing ran."""
        return np.where(self.labels.any(axis=-1), self.labels.argmax(axis=-1), -1)

    def nearest(self, g_s: float, g_u: float) -> Nearest:
        """The nearest point that is reached; a `ValueError` where none is."""
        _check_point(g_s, g_u)
        if not self.is_reached.any():
            raise ValueError(
                f"No point of the map of {self.model} could be reached: map others, or "
                "widen the ranges of its recipe."
            )
        slow, ultraslow = self.spans
        away = np.hypot.outer((self.g_s - g_s) / slow, (self.g_u - g_u) / ultraslow)
        away = np.where(self.is_reached, away, np.inf)
        i, j = np.unravel_index(np.argmin(away), away.shape)
        return Nearest(float(self.g_s[i]), float(self.g_u[j]), float(away[i, j]))

    def describe(self, g_s: float, g_u: float) -> str:
        """Whether a point can be reached, and what members fire like there or near.

        A point is described by the nearest point of the grid.
        """
        _check_point(g_s, g_u)
        text = f"(g_s, g_u) = ({short(g_s)}, {short(g_u)}) "
        i, j = _closest(self.g_s, g_s), _closest(self.g_u, g_u)
        if _is_outside(self.g_s, g_s) or _is_outside(self.g_u, g_u):
            text += "lies outside the map"
        elif self.is_reached[i, j]:
            return f"{text}is reachable: {self._members_at(i, j)}."
        else:
            text += f"is not reachable ({self._failures_at(i, j)})"
        if not self.is_reached.any():
            return f"{text}, and no other point of the map is reachable."
        near = self.nearest(g_s, g_u)
        i, j = _closest(self.g_s, near.g_s), _closest(self.g_u, near.g_u)
        return (
            f"{text}. The nearest reachable point is {near.distance:.2g} of the "
            f"recipe's ranges away: {self._members_at(i, j)}."
        )

    def _members_at(self, i: int, j: int) -> str:
        counts = self.labels[i, j]
        order = [x for x in np.argsort(-counts, kind="stable") if counts[x]]
        what = "none of which could be simulated"
        if order:
            what = listed([f"{counts[label]} {LABELS[label]}" for label in order])
        isi = self.mean_isi[i, j]
        if self.commonest[i, j] == BURSTING:
            what += f" (bursts every {short(self.period[i, j])} ms, "
            what += f"{short(self.spikes_per_burst[i, j])} spikes each)"
        elif np.isfinite(isi):
            what += f" (mean ISI {short(isi)} ms)"
        return (
            f"{self.status[i, j, OK]} of {self.num} members could be built at "
            f"({short(self.g_s[i])}, {short(self.g_u[j])}), {what}"
        )

    def _failures_at(self, i: int, j: int) -> str:
        counts = zip(self.status[i, j], self.names, strict=True)
        text = listed([f"{n} of {self.num} members {name}" for n, name in counts if n])
        if not self.limiting[i, j].any():
            return text
        channel = self.channel_names[int(self.limiting[i, j].argmax())]
        return f"{text}, mostly with {channel} beyond its bounds"

    def __str__(self) -> str:
        num_reached, size = int(self.is_reached.sum()), self.is_reached.size
        of_label = np.bincount(self.commonest[self.commonest >= 0], minlength=4)
        kinds = [f"{n} {x}" for n, x in zip(of_label, LABELS, strict=True) if n]
        text = f"{num_reached} of {size} points (g_s, g_u) at {self.V_ref:g} mV can be "
        text += f"reached by {self.model}"
        return f"{text}, mostly firing as: {listed(kinds)}." if kinds else f"{text}."


@on_host()
def reachability(
    key: Key[Array, ""],
    neuron: Neuron,
    *,
    g_s: Float[np.ndarray, " slow"] | None = None,
    g_u: Float[np.ndarray, " ultraslow"] | None = None,
    num: int = 8,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    duration: float | None = None,
    discard: float | None = None,
    on_progress: Progress | None = None,
) -> ReachabilityMap:
    """Maps which (g_s, g_u) a model can have, and what it then fires like.

    At every point of a grid, [`dicjax.compensate`][] builds members. Those that hit the
    point with admissible conductances are simulated under the recipe's current.

    **Arguments:**

    - `key`: everything random follows from it.
    - `neuron`: the model; it must have a recipe.
    - `g_s`, `g_u`: axes of the grid, increasing; by default 21 and 11 points over the
        ranges of the recipe.
    - `num`: members at every point.
    - `bounds`: (lowest, highest) conductance by channel, in mS/cm²; by default from
        zero to `neuron.bounds`.
    - `duration`, `discard`: time simulated, and left out at its start, in ms; by
        default the recipe's, and at most half of a duration that is given.
    - `on_progress`: called with (stage, done, total), in units of simulation.

    **Raises:**

    - `ValueError`: if the model has no recipe, an axis is not increasing and finite, or
        `num` is not positive.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    recipe = neuron.required_recipe
    if num < 1:
        raise ValueError(f"`num` must be at least 1 member per point, got {num}.")
    g_s = _axis("g_s", g_s, recipe.g_s, GRID[0])
    g_u = _axis("g_u", g_u, recipe.g_u, GRID[1])
    points = np.stack(np.meshgrid(g_s, g_u, indexing="ij"), axis=-1).reshape(-1, 2)
    if bounds is None:
        highest = zip(neuron.channel_names, neuron.bounds, strict=True)
        bounds = {name: (0.0, float(most)) for name, most in highest}
    population = compensate(key, neuron, np.repeat(points, num, axis=0), bounds=bounds)
    duration = recipe.duration if duration is None else duration
    discard = min(recipe.discard, duration / 2) if discard is None else discard
    on_progress = renamed(as_progress(on_progress), "mapping")
    features, ran = _fired(neuron, population, Window(duration, discard), on_progress)
    return ReachabilityMap(
        model=neuron.name,
        V_ref=float(neuron.V_ref),
        channel_names=neuron.channel_names,
        g_s=g_s,
        g_u=g_u,
        spans=(float(np.ptp(recipe.g_s)), float(np.ptp(recipe.g_u))),
        num=num,
        names=population.names,
        **by_point((len(g_s), len(g_u), num), population, features, ran),
    )


def by_point(
    shape: tuple[int, int, int],
    population: Population,
    features: Features,
    ran: Bool[np.ndarray, " cells"],
) -> dict[str, np.ndarray]:
    """Counts and medians of the members of every point."""
    label, ran = features.label.reshape(shape), ran.reshape(shape)
    count = lambda of, num: np.eye(num, dtype=int)[of]
    labels = (count(label, len(LABELS)) * ran[..., None]).sum(axis=2)
    shown = ran & (label != SILENT) & (label == labels.argmax(axis=-1)[..., None])

    def median(x: AnyArray) -> Float[np.ndarray, "slow ultraslow"]:
        x = np.where(shown, np.reshape(x, shape), np.nan)
        return np.asarray(jnp.nanmedian(jnp.asarray(x), axis=-1))

    status = population.status.reshape(shape)
    limiting = np.full(shape, -1)
    if population.limiting is not None:
        limiting = np.where(status != OK, population.limiting.reshape(shape), -1)
    num_channels = population.g.shape[1]
    shown_features = ("mean_isi", "period", "spikes_per_burst")
    return {
        # The last column counts members that no channel limits.
        "limiting": count(limiting, num_channels + 1).sum(axis=2)[..., :-1],
        "status": count(status, len(population.names)).sum(axis=2),
        "labels": labels,
        **{name: median(getattr(features, name)) for name in shown_features},
    }


def _axis(
    name: str, values, of_recipe: tuple[float, float], size: int
) -> Float[np.ndarray, " points"]:
    if values is None:
        return np.linspace(of_recipe[0], of_recipe[1], size)
    axis = np.asarray(values, np.float64)
    is_finite = axis.ndim == 1 and axis.size and np.isfinite(axis).all()
    if not is_finite or (np.diff(axis) <= 0).any():
        raise ValueError(
            f"`{name}` must be finite and increasing, as the axis of a map, got "
            f"{axis.tolist()[:6]}."
        )
    return axis


def _check_point(g_s: float, g_u: float) -> None:
    if not np.isfinite([g_s, g_u]).all():
        raise ValueError(f"A point (g_s, g_u) must be finite, got ({g_s}, {g_u}).")


def _closest(axis: Float[np.ndarray, " points"], value: float) -> int:
    return int(np.argmin(np.abs(axis - value)))


def _is_outside(axis: Float[np.ndarray, " points"], value: float) -> bool:
    """Whether a value is more than half a step beyond the ends of an axis."""
    below, above = (0.0, 0.0) if len(axis) < 2 else np.diff(axis)[[0, -1]] / 2
    slack = 1e-9 * (1 + abs(value))
    return not axis[0] - below - slack <= value <= axis[-1] + above + slack


def _fired(
    neuron: Neuron, population: Population, window: Window, on_progress
) -> tuple[Features, Bool[np.ndarray, " cells"]]:
    """Features of all members, and which of them were simulated; the rest is silent."""
    ran = population.status == OK
    spike_times = np.full((len(ran), 3), np.inf, population.g.dtype)
    if ran.any():
        g = population.g[ran]
        run = simulate_by_recipe(neuron, g, window, on_progress=on_progress)
        shape = len(ran), run.spike_times.shape[1]
        spike_times = np.full_like(run.spike_times, np.inf, shape=shape)
        spike_times[ran] = run.spike_times
        ran[ran] = run.succeeded
    return jax.tree.map(np.asarray, spike_features(spike_times)), ran
