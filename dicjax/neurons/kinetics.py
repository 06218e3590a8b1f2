"""Whether the kinetics of a neuron can be: a look at them when it is declared.

It is taken in numpy, and costs little. `check_neuron` looks at more.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TYPE_CHECKING

import jax.core
import numpy as np

from dicjax.neurons.channels import AbstractChannel, GatedChannel, MarkovChannel
from dicjax.neurons.curves import AbstractCurve, check_curves
from dicjax.neurons.evaluation import on_grid


if TYPE_CHECKING:
    from dicjax.neurons.neuron import Neuron


GLANCE = np.arange(-120.0, 61.0, 2.0)  # mV
CALCIUM = (1.0, 10.0, 100.0, 1000.0)  # µM, besides initial and baseline calcium
TIMESCALES = ("fast", "slow", "ultraslow")


class Limit(NamedTuple):
    """What values of a kind must be, and how to say so."""

    what: str
    unit: str
    is_allowed: Callable[[np.ndarray], np.ndarray]
    words: str

    def check(self, owner: str, values, where: tuple, has_calcium: bool) -> None:
        """Raises `ValueError` that names `owner` and where a value is not allowed.

        `where` has the potentials (mV) and calcium (µM) of the values.
        """
        V, Ca = where
        bad = np.argwhere(~self.is_allowed(values))
        if len(bad):
            i = tuple(bad[0])
            calcium = f" and Ca = {Ca[i]:g} µM" if has_calcium else ""
            raise ValueError(
                f"{owner} has a {self.what} of {values[i]:.4g}{self.unit} at V = "
                f"{V[i]:g} mV{calcium}; it must {self.words}."
            )


TIMED = Limit(
    "time constant",
    " ms",
    lambda x: np.isfinite(x) & (x > 0),
    "be finite and positive (what opens at once is a `factor`)",
)
# For a scheme, and for a timescale, infinity is allowed and means ultraslow.
ULTRASLOW = TIMED._replace(is_allowed=lambda x: x > 0, words="be positive")


def calcium_levels(neuron: "Neuron") -> list[float]:
    """The concentrations (µM) at which the kinetics of `neuron` are looked at."""
    known = [neuron.initial_Ca]
    if neuron.calcium is not None:
        known += [neuron.calcium.baseline, *CALCIUM]
    # Those that are traced, or of several neurons, are left out.
    is_number = lambda x: not isinstance(x, jax.core.Tracer) and not np.ndim(x)
    return sorted({float(x) for x in known if is_number(x)}) or [CALCIUM[0]]


def gate_name(i: int, exponent: int) -> str:
    """How sentences call the gate at position `i` of its channel, from 1 on."""
    return f"Gate {i} (power {exponent})"


def check_kinetics(neuron: "Neuron") -> None:
    """Raises unless time constants are positive, and timescales in order.

    They are looked at from -120 to 60 mV, and over calcium if there is any. Those that
    are traced are not. Raises `TypeError` if a timescale is no curve.
    """
    scales = _timescales(neuron)
    V = GLANCE[:, None]
    Ca = np.array(calcium_levels(neuron))[None]
    where = tuple(np.broadcast_arrays(V, Ca))
    has_calcium = neuron.calcium is not None
    for channel in neuron.channels:
        for owner, tau, limit in _time_constants(channel):
            values = on_grid(tau, V, Ca)
            if values is not None:
                who = f"{owner} of channel {channel.name}"
                limit.check(who, values, where, has_calcium)
    known = {}
    for name, tau in scales.items():
        values = on_grid(tau, V, Ca)
        if values is not None:
            ULTRASLOW.check(f"{name} of {neuron.name}", values, where, has_calcium)
            known[name] = values
    _check_order(neuron.name, known, where[0])


def _time_constants(
    channel: AbstractChannel,
) -> Iterator[tuple[str, AbstractCurve, Limit]]:
    match channel:
        case GatedChannel(gates=gates):
            for i, gate in enumerate(gates, 1):
                yield gate_name(i, gate.exponent), gate.time_constant, TIMED
        case MarkovChannel(time_constant=tau):
            yield "The scheme", tau, ULTRASLOW


def _timescales(neuron: "Neuron") -> dict[str, AbstractCurve]:
    given = neuron.timescales
    if not isinstance(given, (tuple, list)) or len(given) != len(TIMESCALES):
        raise TypeError(
            f"`timescales` of {neuron.name} must be three curves, of which the last "
            f"may be None, got {given!r}."
        )
    scales: Any = given if given[-1] is not None else given[:-1]
    check_curves(neuron.name, timescales=scales)
    named = zip(TIMESCALES, scales, strict=False)
    return {f"The {x} timescale": tau for x, tau in named}


def _check_order(name: str, known: dict[str, np.ndarray], V: np.ndarray) -> None:
    """Raises `ValueError` if a timescale is slower than the next where cells live.

    That is at most potentials from -80 to 0 mV. Further away, time constants of many
    gates vanish.
    """
    scales, lived = list(known.items()), (V >= -80) & (V <= 0)
    for (faster, tau), (slower, other) in zip(scales, scales[1:], strict=False):
        is_reversed = (tau > other) & lived
        if is_reversed.sum() > 0.5 * lived.sum():
            i = tuple(np.argwhere(is_reversed)[0])
            raise ValueError(
                f"{faster} of {name} is slower than t{slower[1:]}: {tau[i]:.4g} and "
                f"{other[i]:.4g} ms at V = {V[i]:g} mV; give `timescales` as (fast, "
                "slow, ultraslow)."
            )
