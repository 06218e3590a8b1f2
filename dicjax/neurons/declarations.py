"""Neurons declared in Python files, and checks of neurons and recipes."""

import dataclasses
import importlib.machinery
import importlib.util
import itertools
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import get_args, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dicjax.neurons.channels import AbstractChannel, GatedChannel, MarkovChannel
from dicjax.neurons.neuron import Neuron
from dicjax.neurons.recipe import Recipe, Rule


POTENTIALS = np.round(np.linspace(-100, 60, 1601), 1)  # mV
CALCIUM = (1.0, 10.0, 100.0, 1000.0)  # µM, besides initial and baseline calcium
SLACK = 0.05  # beyond 0 and 1; a published activation of A reaches 1.03

_numbers = itertools.count()


def load_neuron(path: pathlib.Path) -> Neuron:
    """Runs a Python file and returns the neuron that it declares.

    **Arguments:**

    - `path`: a file that defines `neuron`, which is a [`dicjax.Neuron`][] or a function
        without arguments that returns one.

    **Returns:**

    The neuron, after `check_neuron`.

    **Raises:**

    - `ValueError`: if there is no such file, if it raises an exception (the message
        gives the line), if it defines no neuron, or if the neuron is unphysical.
    """
    if not path.is_file():
        raise ValueError(
            f"There is no file {path}; give a Python file that defines `neuron`."
        )
    name = f"dicjax_neuron_file_{next(_numbers)}"
    try:
        neuron = _declared(path, name)
        check_neuron(neuron)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return neuron


def _declared(path: pathlib.Path, name: str) -> Neuron:
    module = _run(path, name)
    if not hasattr(module, "neuron"):
        raise ValueError(
            f"{path} defines no `neuron`; end it with `neuron = dicjax.Neuron(...)`."
        )
    found = module.neuron
    if callable(found) and not isinstance(found, Neuron):
        found = _guarded(path, found)
    if not isinstance(found, Neuron):
        raise ValueError(
            f"`neuron` in {path} is or returns {type(found).__name__}; make it a "
            "`dicjax.Neuron` or a function without arguments that returns one."
        )
    return found


def _run(path: pathlib.Path, name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)

    def run() -> None:
        # Compiled here, because an import would write bytecode, or read an old one.
        code = loader.source_to_code(path.read_bytes(), str(path))
        exec(code, module.__dict__)

    sys.modules[name] = module  # where dataclasses look for the names they mention
    _guarded(path, run)
    return module


def _guarded(path: pathlib.Path, run: Callable[[], object]) -> object:
    try:
        return run()
    except (Exception, SystemExit) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        what = textwrap.shorten(what, 300).rstrip(".")
        raise ValueError(
            f"{path} cannot be run: {type(error).__name__}{_line(path, error)}"
            f"{': ' if what else ''}{what}; correct it there."
        ) from error


def _line(path: pathlib.Path, error: BaseException) -> str:
    """The line of the file that raised it, if known."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" in line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" in line {lines[-1]}" if lines else ""


def check_neuron(neuron: Neuron) -> None:
    """Raises `ValueError` unless the kinetics of `neuron` are physical everywhere.

    It is checked from -100 to 60 mV and, if it has calcium, up to 1000 µM. Steady
    states must lie between 0 and 1, time constants must be finite and positive, rates
    finite and not negative, and currents finite. One channel must be a leak.
    """
    _check_constants(neuron)
    if not any(_is_leak(channel) for channel in neuron.channels):
        raise ValueError(
            f"{neuron.name} has no leak, only {neuron.channel_names}; give it a "
            'channel without gates and without factor, such as `GatedChannel("leak", '
            "reversal=-50.0)`."
        )
    V, Ca = _grid(neuron)
    for channel in neuron.with_dtype(V.dtype).channels:
        try:
            steady, taus, rates, current = _evaluate(channel, V, Ca)
        except Exception as error:
            raise ValueError(
                f"Channel {channel.name} cannot be evaluated ({type(error).__name__}); "
                "write its curves in `jax.numpy`, for one potential."
            ) from error
        report = _Report(neuron, channel, np.asarray(V), np.asarray(Ca))
        for name, x in zip(_state_names(channel), steady, strict=True):
            report(name, x, "a steady state of", "", _is_fraction, "lie within 0 and 1")
        for name, tau in zip(_variable_names(channel), taus, strict=True):
            report(name, tau, "a time constant of", " ms", _timed(channel), TIMED)
        for name, rate in rates.items():
            report(name, rate, "a rate of", " per ms", _is_rate, "be finite and >= 0")
        report("", current, "a current of", " µA/cm² per mS/cm²", np.isfinite, FINITE)


def _check_constants(neuron: Neuron) -> None:
    constants = {"capacitance": (float(neuron.capacitance), " µF/cm²")}
    if not isinstance(neuron.normaliser, str):
        constants["normaliser"] = float(neuron.normaliser), " mS/cm²"
    if neuron.calcium is not None:
        tau = float(neuron.calcium.time_constant)
        constants["time constant of calcium"] = tau, " ms"
    if neuron.temperature is not None:
        constants["temperature factor"] = float(neuron.temperature.speed), ""
    for name, (value, unit) in constants.items():
        if not 0 < value < np.inf:
            raise ValueError(
                f"The {name} of {neuron.name} is {value:g}{unit}; give a positive "
                "number."
            )


FINITE = "be finite: look at its factor and driving force"
TIMED = "be finite and positive (what opens at once is a `factor`)"


@dataclasses.dataclass(frozen=True)
class _Report:
    """Raises `ValueError` for the first value of a channel that is not allowed."""

    neuron: Neuron
    channel: AbstractChannel
    V: np.ndarray
    Ca: np.ndarray

    def __call__(
        self,
        name: str,
        found: jax.Array,
        what: str,
        unit: str,
        is_allowed: Callable[[np.ndarray], np.ndarray],
        rule: str,
    ) -> None:
        values = np.asarray(found)
        bad = np.flatnonzero(~is_allowed(values))
        if not len(bad):
            return
        i = bad[0]
        calcium = f" and Ca = {self.Ca[i]:g} µM" if self.neuron.calcium else ""
        raise ValueError(
            f"{name}{' of c' if name else 'C'}hannel {self.channel.name} has {what} "
            f"{values[i]:.4g}{unit} at V = {self.V[i]:g} mV{calcium}; it must {rule}."
        )


def _is_fraction(x: np.ndarray) -> np.ndarray:
    return (x >= -SLACK) & (x <= 1 + SLACK)


def _is_rate(x: np.ndarray) -> np.ndarray:
    return np.isfinite(x) & (x >= 0)


def _timed(channel: AbstractChannel) -> Callable[[np.ndarray], np.ndarray]:
    # For a scheme, infinity is allowed and means ultraslow.
    last = np.inf if isinstance(channel, MarkovChannel) else np.finfo(np.float64).max
    return lambda tau: (tau > 0) & (tau <= last)


def _is_leak(channel: AbstractChannel) -> bool:
    no_gates = isinstance(channel, GatedChannel) and not channel.gates
    return no_gates and channel.factor is None


def _grid(neuron: Neuron) -> tuple[jax.Array, jax.Array]:
    Ca = [float(neuron.initial_Ca)]
    if neuron.calcium is not None:
        Ca = sorted({*Ca, float(neuron.calcium.baseline), *CALCIUM})
    V, Ca = (x.ravel() for x in np.meshgrid(POTENTIALS, Ca))
    return jnp.asarray(V), jnp.asarray(Ca)


@eqx.filter_jit
def _evaluate(channel: AbstractChannel, V: jax.Array, Ca: jax.Array):
    """Steady states, time constants, rates and currents at every point of the grid."""

    def one(V, Ca):
        steady = channel.steady_states((V,) * channel.num_variables, Ca)
        transitions = channel.transitions if isinstance(channel, MarkovChannel) else ()
        rates = {
            f"Passage from {t.source} to {t.target}": t.rate(V, Ca) for t in transitions
        }
        current = channel.current(V, steady, Ca)
        return steady, channel.time_constants(V, Ca), rates, current

    return jax.vmap(one)(V, Ca)


def _state_names(channel: AbstractChannel) -> Iterator[str]:
    if isinstance(channel, MarkovChannel):
        return (f"State {name}" for name in channel.kinetic_states[1:])
    return _variable_names(channel, channel.num_states)


def _variable_names(channel: AbstractChannel, num: int | None = None) -> Iterator[str]:
    if isinstance(channel, GatedChannel):
        gates = enumerate(channel.gates, 1)
        return (f"Gate {i} (power {gate.exponent})" for i, gate in gates)
    if isinstance(channel, MarkovChannel):
        return iter(("The scheme",))
    num = channel.num_variables if num is None else num
    return (f"Variable {i + 1}" for i in range(num))


def check_recipe(neuron: Neuron) -> None:
    """Raises `ValueError` unless `neuron` has a recipe that can be followed."""
    recipe = neuron.required_recipe
    who = f"the recipe of {neuron.name}"
    _check_names(neuron, recipe, who)
    _check_conductances(neuron, recipe, who)
    _check_targets(recipe, who)
    _check_times(recipe, who)


def _check_names(neuron: Neuron, recipe: Recipe, who: str) -> None:
    named = {
        "ranges": recipe.ranges,
        "box": recipe.box,
        "pairs": [name for _, pair in recipe.pairs for name in pair],
        "solved": recipe.solved or (),
        "seed_channels": recipe.seed_channels,
    }
    for field, names in named.items():
        for name in names:
            if name not in neuron.channel_names:
                raise ValueError(
                    f"`{field}` in {who} names {name!r}, which is no channel of it; "
                    f"choose from {neuron.channel_names}."
                )
    if "leak" not in neuron.channel_names:
        raise ValueError(
            f"{neuron.name} has no channel called 'leak', only {neuron.channel_names}; "
            "call its leak so, since recipes do."
        )


def _check_conductances(neuron: Neuron, recipe: Recipe, who: str) -> None:
    for name in neuron.channel_names:
        if name not in recipe.box:
            _refuse(f"`box` in {who} lacks {name}", "give its upper bound in mS/cm²")
        if not 0 < recipe.box[name] < np.inf:
            _refuse(
                f"`box` in {who} bounds {name} by {recipe.box[name]:g} mS/cm²",
                "give a positive number",
            )
    bounds = dict(zip(neuron.channel_names, neuron.bounds, strict=True))
    for name, (low, high) in recipe.ranges.items():
        if not 0 <= low <= high <= bounds[name] * (1 + 1e-9):
            _refuse(
                f"`ranges` in {who} draw {name} from {low:g} to {high:g} mS/cm²",
                f"give a lower end, then an upper one, within 0 and {bounds[name]:g}",
            )
    low, high = recipe.ranges.get("leak", (0.0, 0.0))
    if recipe.scaled_by_leak and not low < high:
        _refuse(
            f"{who} is `scaled_by_leak`, but its range of leak is {low:g} to {high:g}",
            "let `ranges` give leak two different ends",
        )


def _check_targets(recipe: Recipe, who: str) -> None:
    for field, (low, high) in (("g_s", recipe.g_s), ("g_u", recipe.g_u)):
        if not -np.inf < low < high < np.inf:
            _refuse(
                f"`{field}` in {who} ranges from {low:g} to {high:g}",
                "give two finite numbers, the lower first",
            )
    if not recipe.pairs or recipe.pairs[-1][0] != "always":
        _refuse(
            f"`pairs` in {who} end with {recipe.pairs[-1:]}",
            'let the last rule be "always"',
        )
    for rule, _ in recipe.pairs:
        if rule not in get_args(Rule):
            _refuse(f"`pairs` in {who} have a rule {rule!r}", f"use {get_args(Rule)}")
    for pair in (*(pair for _, pair in recipe.pairs), recipe.solved_pair):
        if len(pair) != 2 or len(set(pair)) != 2:
            _refuse(f"{who} solves for {tuple(pair)}", "name two different channels")
    seeds = set(recipe.seed_channels)
    if recipe.seed_targets is not None and len(seeds) != 3:
        _refuse(
            f"{who} has `seed_targets` for {recipe.seed_channels}",
            "name three different `seed_channels`",
        )


def _check_times(recipe: Recipe, who: str) -> None:
    if not 0 <= recipe.discard < recipe.duration < np.inf:
        _refuse(
            f"{who} simulates {recipe.duration:g} ms and discards {recipe.discard:g}",
            "let `discard` end before `duration` does",
        )
    if not 0 < recipe.dt <= 0.5:
        _refuse(f"{who} steps by `dt` = {recipe.dt:g} ms", "use 0.05 or 0.1")
    if not np.isfinite(recipe.current):
        _refuse(f"{who} applies {recipe.current:g} µA/cm²", "give a finite `current`")
    for sigma in recipe.noise:
        if not 0 <= sigma < np.inf:
            _refuse(f"{who} has `noise` of {sigma:g} µA/cm²", "use finite ones >= 0")


def _refuse(what: str, remedy: str) -> NoReturn:
    raise ValueError(f"{what[0].upper()}{what[1:]}; {remedy}.")
