"""Neurons declared in Python files, and checks of neurons and recipes."""

import importlib.machinery
import importlib.util
import itertools
import math
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dicjax.neurons.channels import AbstractChannel, GatedChannel, MarkovChannel
from dicjax.neurons.kinetics import (
    calcium_levels,
    gate_name,
    Limit,
    TIMED,
    ULTRASLOW,
)
from dicjax.neurons.neuron import Neuron
from dicjax.neurons.recipe import Recipe, Rule


POTENTIALS = np.round(np.linspace(-100, 60, 1601), 1)  # mV
SLACK = 0.05  # beyond 0 and 1; a published activation of A reaches 1.03

_numbers = itertools.count()


def load_neuron(path: pathlib.Path) -> Neuron:
    """Runs a Python file and returns the neuron that it declares, after `check_neuron`.

    The file defines `neuron`, a [`dicjax.Neuron`][], or a function without arguments
    that returns one. Raises `ValueError` if there is no such file, if it raises an
    exception (the message gives the line), or if it defines no physical neuron.
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
    bare = [x for x in neuron.channels if isinstance(x, GatedChannel) and not x.gates]
    if not any(channel.factor is None for channel in bare):
        raise ValueError(
            f"{neuron.name} has no leak, only {neuron.channel_names}; give it a "
            'channel without gates and without factor, such as `GatedChannel("leak", '
            "reversal=-50.0)`."
        )
    V, Ca = _grid(neuron)
    for channel in neuron.with_dtype(V.dtype).channels:
        try:
            evaluated = _evaluate(channel, V, Ca)
        except Exception as error:
            raise ValueError(
                f"Channel {channel.name} cannot be evaluated ({type(error).__name__}); "
                "write its curves in `jax.numpy`, for one potential."
            ) from error
        for name, values, limit in _limited(channel, *evaluated):
            owner = f"{name}{' of c' if name else 'C'}hannel {channel.name}"
            has_calcium = neuron.calcium is not None
            limit.check(owner, np.asarray(values), (V, Ca), has_calcium)


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


STEADY = Limit(
    "steady state", "", lambda x: (x >= -SLACK) & (x <= 1 + SLACK), "lie within 0 and 1"
)
RATE = Limit("rate", " per ms", lambda x: (x >= 0) & (x < np.inf), "be finite and >= 0")
CURRENT = Limit(
    "current",
    " µA/cm² per mS/cm²",
    np.isfinite,
    "be finite: look at its factor and driving force",
)


def _grid(neuron: Neuron) -> tuple[jax.Array, jax.Array]:
    grid = np.meshgrid(POTENTIALS, calcium_levels(neuron))
    V, Ca = (x.ravel() for x in grid)
    return jnp.asarray(V), jnp.asarray(Ca)


@eqx.filter_jit
def _evaluate(channel: AbstractChannel, V: jax.Array, Ca: jax.Array):
    """Steady states, time constants, rates and currents at every point of the grid."""

    def one(V, Ca):
        steady = channel.steady_states((V,) * channel.num_variables, Ca)
        rates = [t.rate(V, Ca) for t in _transitions(channel)]
        current = channel.current(V, steady, Ca)
        return steady, channel.time_constants(V, Ca), rates, current

    return jax.vmap(one)(V, Ca)


def _transitions(channel: AbstractChannel):
    return channel.transitions if isinstance(channel, MarkovChannel) else ()


def _limited(
    channel: AbstractChannel, steady, taus, rates, current
) -> Iterator[tuple[str, jax.Array, Limit]]:
    """What was evaluated, each with its name and its limit."""
    timed = TIMED
    match channel:
        case GatedChannel(gates=gates):
            states = variables = [
                gate_name(i, gate.exponent) for i, gate in enumerate(gates, 1)
            ]
        case MarkovChannel(kinetic_states=names):
            states, variables = [f"State {name}" for name in names[1:]], ["The scheme"]
            timed = ULTRASLOW
        case _:
            states, variables = (
                [f"Variable {i + 1}" for i in range(len(x))] for x in (steady, taus)
            )
    steps = [f"Passage from {t.source} to {t.target}" for t in _transitions(channel)]
    for names, values, limit in (
        (states, steady, STEADY),
        (variables, taus, timed),
        (steps, rates, RATE),
        ([""], [current], CURRENT),
    ):
        yield from zip(names, values, itertools.repeat(limit), strict=False)


def check_recipe(neuron: Neuron) -> None:
    """Raises `ValueError` unless `neuron` has a recipe that can be followed."""
    recipe = neuron.required_recipe
    who = f"the recipe of {neuron.name}"
    recipe.check_names(neuron.name, neuron.channel_names)
    _check_conductances(neuron, recipe, who)
    _check_targets(recipe, who)
    _check_times(recipe, who)


def _check_conductances(neuron: Neuron, recipe: Recipe, who: str) -> None:
    for name in neuron.channel_names:
        lacking = f"`box` in {who} lacks {name}; give its upper bound in mS/cm²"
        _require(name in recipe.box, lacking)
        bound = f"bounds {name} by {recipe.box[name]:g} mS/cm²; give a positive number"
        _require(0 < recipe.box[name] < np.inf, f"`box` in {who} {bound}")
    bounds = dict(zip(neuron.channel_names, neuron.bounds, strict=True))
    for name, (low, high) in recipe.ranges.items():
        _require(
            0 <= low <= high <= bounds[name] * (1 + 1e-9),
            f"`ranges` in {who} draw {name} from {low:g} to {high:g} mS/cm²; give a "
            f"lower end, then an upper one, within 0 and {bounds[name]:g}",
        )
    low, high = recipe.ranges.get("leak", (0.0, 0.0))
    _require(
        not recipe.scaled_by_leak or low < high,
        f"{who} is `scaled_by_leak`, but its range of leak is {low:g} to {high:g}; let "
        "`ranges` give leak two different ends",
    )


def _check_targets(recipe: Recipe, who: str) -> None:
    for field, (low, high) in (("g_s", recipe.g_s), ("g_u", recipe.g_u)):
        _require(
            -np.inf < low < high < np.inf,
            f"`{field}` in {who} ranges from {low:g} to {high:g}; give two finite "
            "numbers, the lower first",
        )
    rules, known = [rule for rule, _ in recipe.pairs], get_args(Rule)
    last = f'end with {recipe.pairs[-1:]}; let the last rule be "always"'
    _require(rules[-1:] == ["always"], f"`pairs` in {who} {last}")
    for rule in rules:
        _require(rule in known, f"`pairs` in {who} have a rule {rule!r}; use {known}")
    for pair in (*(pair for _, pair in recipe.pairs), recipe.solved_pair):
        solved = f"{who} solves for {tuple(pair)}; name two different channels"
        _require(len(pair) == len(set(pair)) == 2, solved)
    _require(
        recipe.seed_targets is None or len(set(recipe.seed_channels)) == 3,
        f"{who} has `seed_targets` for {recipe.seed_channels}; name three different "
        "`seed_channels`",
    )


def _check_times(recipe: Recipe, who: str) -> None:
    dt, current = recipe.dt, recipe.current
    _require(
        0 <= recipe.discard < recipe.duration < np.inf,
        f"{who} simulates {recipe.duration:g} ms and discards {recipe.discard:g}; let "
        "`discard` end before `duration` does",
    )
    _require(0 < dt <= 0.5, f"{who} steps by `dt` = {dt:g} ms; use 0.05 or 0.1")
    applied = f"{who} applies {current:g} µA/cm²; give a finite `current`"
    _require(math.isfinite(current), applied)
    for sigma in recipe.noise:
        noise = f"{who} has `noise` of {sigma:g} µA/cm²; use finite ones >= 0"
        _require(0 <= sigma < np.inf, noise)


def _require(is_right: bool | np.bool_, message: str) -> None:
    if not is_right:
        raise ValueError(f"{message[0].upper()}{message[1:]}.")
