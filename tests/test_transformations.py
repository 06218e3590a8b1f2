"""What JAX can transform, and what says that it works on the host.

Every public function is in one of three tables. Numerical functions are run under
`jit`, `vmap`, `grad` and `shard_map`, and compared with plain calls. Doors refuse
arguments that are traced. The others take no arrays.
"""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from networks import random_encoder
from operators import as_dtype, blank, measured_as

import dicjax as dj
from dicjax.inference.encoder import Encoder
from dicjax.inference.posterior import Region


NAMES = pathlib.Path(__file__).with_name("public_names.txt").read_text().split()
CELLS = 2  # in every batch
STEP = 1e-7  # of central differences, as a share of each number

HH = dj.hodgkin_huxley()
G = np.array([[120.0, 36.0, 0.3], [100.0, 30.0, 0.25]])
BISTABLE = np.array([[120.0, 4.0, 0.3], [100.0, 3.0, 0.25]])  # with a threshold
V, CA = np.array([-60.0, -52.0]), np.array([0.05, 0.06])
GATES = tuple(np.array([[0.1, 0.2], [0.5, 0.4], [0.4, 0.35]]))
TIMES = np.arange(0.5, 6.0, 0.5)
PULSE = dj.Step(20.0)


class Case(NamedTuple):
    """A numerical function, and its arguments for a batch of cells.

    - `function`: of one cell.
    - `arguments`: trees of arrays whose first axis is that of cells.
    - `has_slopes`: whether the results depend on floats, and smoothly; otherwise they
        are integers or truth values, or no number is continuous.
    """

    function: Callable
    arguments: tuple
    has_slopes: bool = True


def each(tree: Any) -> Any:
    """The same for every cell."""
    return jax.tree.map(lambda x: np.stack([np.asarray(x)] * CELLS), tree)


def arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


@functools.cache
def posteriors() -> dj.Posterior:
    """A posterior over three trains for every cell, in double precision."""
    rng = np.random.default_rng(0)
    several = [
        dj.Posterior(
            weights=jnp.log(rng.dirichlet([2.0, 2.0], 3)),
            means=jnp.asarray(rng.normal(0, 0.5, (3, 2, 2))),
            factors=jnp.asarray(np.tril(0.3 * rng.uniform(0.5, 1.0, (3, 2, 2, 2)))),
            low=jnp.array([-20.0, 0.0]),
            high=jnp.array([20.0, 20.0]),
            ranks=jnp.asarray(np.tile(np.linspace(0, 1, 11), (3, 1))),
        )
        for _ in range(CELLS)
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *several)


def trains() -> np.ndarray:
    """Bursts of four and of five spikes, a row per cell, padded with infinity.

    No two intervals are equal, since an order has no slope where numbers are.
    """
    rows, rng = np.full((CELLS, 48), np.inf), np.random.default_rng(4)
    for row, num, isi, period in zip(rows, (4, 5), (6.0, 5.0), (90, 110), strict=True):
        times = period * np.arange(8)[:, None] + isi * np.arange(num)
        row[: times.size] = (times + rng.uniform(0, 1, times.shape)).ravel()
    return rows


def potentials() -> np.ndarray:
    """Sampled answers to a step of current: five spikes on a depolarised level."""
    t = 0.1 * np.arange(1000)
    level = np.where((t > 20) & (t < 80), 10.0, 0.0) + np.sin(t / 7) + np.sin(t / 3)
    at, widths = 25.03 + 11.07 * np.arange(5), np.linspace(0.8, 1.2, 5)
    pairs = zip(at, widths, strict=True)
    spikes = sum(np.exp(-(((t - at) / width) ** 2)) for at, width in pairs)
    return np.stack([-65 + level + height * spikes for height in (90.0, 100.0)])


@functools.cache
def features() -> tuple[dj.Features, dj.Features]:
    """Of every cell, and of what it should fire like."""
    like = trains()[::-1] * 1.02
    return dj.spike_features(trains()), dj.spike_features(like)


@functools.cache
def encoder() -> Encoder:
    sizes = {"width": 8, "num_slots": 2, "num_heads": 2, "latent": 4, "hidden": 8}
    small = random_encoder(dj.EncoderConfig(**sizes, num_components=2))
    return as_dtype(jnp.float64, small)


@functools.cache
def operator() -> dj.Operator:
    return as_dtype(jnp.float64, blank())


MEASURED = measured_as(CELLS).values.astype(np.float64)
DICS = np.random.default_rng(1).uniform((-8.0, 4.0), (8.0, 16.0), (CELLS, 3, 4, 2))
CURRENTS = np.sin(np.arange(40.0) / 5) * np.array([[0.5], [1.0]])
LATER = np.array([3.3, 4.7])  # ms


def of_neuron(name: str, *arguments: Any) -> Case:
    """A method of a neuron, whose own numbers are arguments too."""
    method = lambda neuron, *of: getattr(neuron, name)(*of)
    return Case(method, (each(HH), *arguments))


def of_stimulus(make: Callable, *numbers: Any) -> Case:
    """The current of a stimulus at a time, of its numbers and of the time."""
    current = lambda t, *of: make(*of)(t)
    return Case(current, (LATER, *numbers))


def solved(neuron, g):
    run = dj.solve(neuron, g, TIMES, stimulus=PULSE, max_steps=320)
    return run.V, run.spike_times[:1]


def held(neuron, g):
    return dj.clamp(neuron, g, dj.Step(-20.0), TIMES, dt=0.1).I


def periodic(neuron, g):
    how = {"stimulus": PULSE, "duration": 100.0, "discard": 40.0, "dt": 0.05}
    return dj.rhythm(neuron, g, **how).period


def steps(V):
    return dj.step_response(V, 0.1, 20.0, 80.0, max_spikes=8)


def answering(operator: dj.Operator) -> Callable:
    every = {"every": 0.2, "out_of_range": "try"}
    return lambda current, features: dj.respond(operator, current, features, **every)


def clamped(t, G, reversal):
    current = dj.InjectedConductance(dj.Step(G), reversal)(t)
    assert callable(current)
    return current(HH.initial_state())


def reading(encoder: Encoder) -> Callable:
    return lambda times: encoder(times, jnp.int32(0))


PULLS = np.array([2.0, 3.0])
AMPLITUDES = np.random.default_rng(2).uniform(0.5, 2.0, (CELLS, 7))
NUMERICAL: dict[str, Callable[[], Case]] = {
    "dynamic_input_conductances": lambda: Case(
        dj.dynamic_input_conductances, (each(HH), G, V)
    ),
    "sensitivity": lambda: Case(lambda *of: dj.sensitivity(HH, *of), (G, V)),
    "threshold": lambda: Case(lambda *of: dj.threshold(*of).V, (each(HH), BISTABLE)),
    "solve": lambda: Case(solved, (each(HH), G)),
    "clamp": lambda: Case(held, (each(HH), G)),
    # Of forward mode alone: see its own tests.
    "rhythm": lambda: Case(periodic, (each(HH), G), False),
    "spike_features": lambda: Case(dj.spike_features, (trains(),)),
    "feature_errors": lambda: Case(dj.feature_errors, features()),
    # Truth values have no slopes.
    "is_valid": lambda: Case(dj.is_valid, (*features(), np.full(CELLS, 0.1)), False),
    "step_response": lambda: Case(steps, (potentials(),)),
    "respond": lambda: Case(answering(operator()), (CURRENTS, MEASURED)),
    # Draws depend on a key alone, which is no float.
    "sample": lambda: Case(
        lambda key: dj.sample(key, dj.stg(), 3), (jr.split(jr.key(0), CELLS),), False
    ),
    "Neuron.unit_currents": lambda: of_neuron("unit_currents", V, GATES, CA),
    "Neuron.total_current": lambda: of_neuron("total_current", V, GATES, CA, G),
    "Neuron.calcium_current": lambda: of_neuron("calcium_current", V, GATES, CA, G),
    "Neuron.calcium_rate": lambda: of_neuron("calcium_rate", V, GATES, CA, G),
    "Neuron.steady_gates": lambda: of_neuron("steady_gates", V, CA),
    "Neuron.time_constants": lambda: of_neuron("time_constants", V, CA),
    "Neuron.reference_time_constants": lambda: of_neuron(
        "reference_time_constants", V, CA
    ),
    "Neuron.slowed": lambda: of_neuron("slowed", GATES),
    "Neuron.relax": lambda: of_neuron("relax", V, GATES, CA, np.full(CELLS, 0.1)),
    "Neuron.vector_field": lambda: Case(
        lambda neuron, V, gates, Ca, g, I: neuron.vector_field(
            jnp.zeros(()), dj.State(V, gates, Ca), g, I
        ),
        (each(HH), V, GATES, CA, G, PULLS),
    ),
    "Neuron.initial_state": lambda: of_neuron("initial_state", V, CA),
    "Neuron.steady_calcium": lambda: Case(
        lambda V, g: dj.stg().steady_calcium(V, g),
        (V, np.tile([3200.0, 80.0, 5.0, 12.0, 160.0, 220.0, 0.4, 0.01], (CELLS, 1))),
    ),
    "Neuron.at": lambda: Case(
        lambda T, V, Ca: HH.at(T).time_constants(V, Ca), (np.array([6.0, 9.0]), V, CA)
    ),
    "Step": lambda: of_stimulus(lambda a: dj.Step(a, 1.0, 5.0), PULLS),
    "Ramp": lambda: of_stimulus(
        dj.Ramp, PULLS, PULLS + 1, np.full(CELLS, 1.0), np.full(CELLS, 9.0)
    ),
    "PulseTrain": lambda: of_stimulus(
        lambda a: dj.PulseTrain(a, 1.0, 2.0, 0.5, 9), PULLS
    ),
    "Chirp": lambda: of_stimulus(lambda a: dj.Chirp(a, 1.0, 20.0, 1000.0), PULLS),
    "Waveform": lambda: of_stimulus(lambda x: dj.Waveform(x, 0.5), CURRENTS),
    "NoisyCurrent": lambda: of_stimulus(
        lambda sigma, mean: dj.NoisyCurrent(jr.key(3), sigma, mean), PULLS, -PULLS
    ),
    "InjectedConductance": lambda: Case(clamped, (LATER, PULLS, -PULLS)),
    "Injected": lambda: Case(
        lambda t, V: dj.Injected(lambda t, y: jnp.sin(t) * y.V)(t)(  # pyright: ignore
            HH.initial_state(V)
        ),
        (LATER, V),
    ),
    "Posterior.sample": lambda: Case(lambda p: p.sample(jr.key(0), 5), (posteriors(),)),
    "Posterior.log_prob": lambda: Case(
        lambda p, x: p.log_prob(x), (posteriors(), DICS)
    ),
    "Posterior.interval": lambda: Case(lambda p: p.interval(0.83), (posteriors(),)),
    "Posterior.region": lambda: Case(lambda p: p.region(0.83).floor, (posteriors(),)),
    "Region.contains": lambda: Case(
        lambda p, x: Region(p, jnp.full(3, -5.0)).contains(x),
        (posteriors(), DICS[:, :, 0]),
        False,
    ),
    "Encoder": lambda: Case(reading(encoder()), (trains(),)),
    "Operator.amplitudes": lambda: Case(
        lambda x, operator=operator(): operator.amplitudes(x), (MEASURED,)
    ),
    "Operator.start": lambda: Case(
        lambda V, a, operator=operator(): operator.start(V, a), (V + 0.013, AMPLITUDES)
    ),
}

# Their gradients take long to compile; other tests look at them quickly.
SLOW = {"solve", "rhythm", "Encoder", "respond", "Operator.start"}

# Arguments that are no arrays: they shape the program.
STATIC = {
    "solve": ("dt", "is_adaptive", "max_steps", "max_spikes", "states", "currents"),
    "clamp": ("dt",),
    "rhythm": ("duration", "discard", "dt"),
    "step_response": ("every", "start", "stop", "max_spikes"),
    "respond": ("every",),
    "sample": ("num",),
}
# They work on the host: files, threads, searches, and arrays whose size is not known.
DOORS = (
    "attribute",
    "certify",
    "characterise",
    "compare",
    "compensate",
    "coverage",
    "draw_ensemble",
    "entropy_dimension",
    "examine",
    "export_brian2",
    "export_csv",
    "export_jaxley",
    "export_neuron",
    "export_nwb",
    "export_xlsx",
    "feature_slopes",
    "find_steps",
    "generate",
    "identifiability",
    "impose",
    "infer",
    "load_operator",
    "measure_cell",
    "participation_ratio",
    "passive_membrane",
    "path",
    "reach",
    "reachability",
    "read_population",
    "read_spike_trains",
    "read_sweeps",
    "refine",
    "sample_polytope",
    "simulate",
)

# They make models, and put advice in words.
WITHOUT_ARRAYS = (
    "advice_of",
    "as_argument",
    "as_option",
    "connor_stevens",
    "cortical",
    "da",
    "hodgkin_huxley",
    "in_words",
    "pospischil",
    "stg",
    "stg_prinz",
)


def assert_same(found: Any, expected: Any, rtol: float = 1e-9) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=1e-12)


def cell_of(case: Case, cell: Any) -> tuple:
    """The arguments for one cell, or for all."""
    return jax.tree.map(lambda x: jnp.asarray(x)[cell], case.arguments)


def slopes_of(case: Case) -> Callable:
    """A function that gives a sum of all floats of a result, slopes, and the result.

    It takes what it has slopes by, and the rest. Every float has a weight of its own.
    """

    def summed(free, rest):
        result = case.function(*eqx.combine(free, rest))
        total = jnp.zeros(())
        for x in filter(eqx.is_inexact_array, jax.tree.leaves(result)):
            weights = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
            total += jnp.sum(jnp.where(jnp.isfinite(x), x, 0) * weights)
        return total, result

    return jax.value_and_grad(summed, has_aux=True)


def sharded(function: Callable, num_arguments: int) -> Callable:
    """A function of many cells, with cells divided among the devices of a mesh."""
    mesh, cells = Mesh(jax.devices()[:1], ("cells",)), PartitionSpec("cells")
    specs = (cells,) * num_arguments
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=cells))


PARAMS = [
    pytest.param(make, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name, make in NUMERICAL.items()
]


@pytest.fixture(scope="module", params=PARAMS)
def case(request) -> Case:
    return request.param()


@pytest.fixture(scope="module")
def rows(case) -> list:
    """What plain calls give for each cell."""
    return [case.function(*cell_of(case, cell)) for cell in range(CELLS)]


@pytest.fixture
def unchecked():
    """As users have it: annotations are not checked first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Slopes(NamedTuple):
    """A compiled function as `slopes_of` gives it, and the slopes of each cell."""

    compiled: Callable
    rows: list


@pytest.fixture(scope="module")
def slopes(case) -> Slopes | None:
    if not case.has_slopes:
        return None
    compiled = jax.jit(slopes_of(case))
    return Slopes(compiled, [compiled(*parts(case, x))[1] for x in range(CELLS)])


def parts(case: Case, cell: Any = ...) -> tuple:
    """Arguments for one cell, or all: those that slopes are by, and the others."""
    return eqx.partition(cell_of(case, cell), eqx.is_inexact_array)


def stacked(rows: list) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *rows)


def test_numerical_functions_give_under_jit_what_they_give_plainly(case, rows):
    assert_same(jax.jit(case.function)(*cell_of(case, 0)), rows[0])


def test_numerical_functions_give_under_vmap_what_they_give_one_by_one(case, rows):
    assert_same(jax.jit(jax.vmap(case.function))(*cell_of(case, ...)), stacked(rows))


def test_gradients_are_finite_and_those_of_central_differences(case, slopes):
    if slopes is None:
        pytest.skip("nothing of it is a smooth function of floats")
    free, rest = parts(case, 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes.rows[0]))
    rng = np.random.default_rng(0)
    # Numbers that are zero stay so, and infinities are padding.
    share = lambda x: jnp.where(jnp.isfinite(x), x, 0) * rng.uniform(0.5, 1.5, x.shape)
    move = jax.tree.map(share, free)

    def total(h):
        moved = jax.tree.map(lambda x, y: x + h * y, free, move)
        return float(slopes.compiled(moved, rest)[0][0])

    difference = (total(STEP) - total(-STEP)) / (2 * STEP)
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), slopes.rows[0], move)
    slope = float(sum(jax.tree.leaves(products)))
    assert slope == pytest.approx(difference, rel=1e-5, abs=1e-7)


def test_numerical_functions_and_their_gradients_may_be_sharded(case, rows, slopes):
    if slopes is None:
        many = sharded(jax.vmap(case.function), len(case.arguments))
        assert_same(many(*cell_of(case, ...)), stacked(rows))
    else:
        many = sharded(jax.vmap(slopes_of(case)), 2)
        (_, results), gradients = many(*parts(case))
        assert_same(results, stacked(rows))
        assert_same(gradients, stacked(slopes.rows))


def test_every_public_function_is_in_one_table():
    functions = {
        name
        for name in NAMES
        if callable(getattr(dj, name)) and not inspect.isclass(getattr(dj, name))
    }
    sorted_in = [*NUMERICAL.keys() & functions, *DOORS, *WITHOUT_ARRAYS]
    assert len(set(sorted_in)) == len(sorted_in)
    assert set(sorted_in) == functions


@pytest.mark.parametrize("kind", (dj.Neuron, dj.Posterior))
def test_every_method_that_takes_arrays_is_in_the_table(kind):
    methods = {
        f"{kind.__name__}.{name}"
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    # The first takes names, and the second a dtype.
    assert methods <= NUMERICAL.keys() | {"Neuron.index", "Neuron.with_dtype"}


def test_every_stimulus_is_in_the_table():
    kinds = {
        name
        for name in NAMES
        if inspect.isclass(getattr(dj, name))
        and issubclass(getattr(dj, name), dj.AbstractStimulus)
    }
    assert kinds - {"AbstractStimulus"} <= NUMERICAL.keys()


@pytest.mark.parametrize("name", WITHOUT_ARRAYS)
def test_functions_without_arrays_have_no_more_than_words(name):
    parameters = inspect.signature(getattr(dj, name)).parameters
    assert set(parameters) <= {"kind", "message", "remedy"}


def arguments_of(names) -> list[tuple[str, str]]:
    return [
        (name, argument)
        for name in names
        for argument in inspect.signature(getattr(dj, name)).parameters
    ]


TRANSFORMATIONS: dict[str, Callable] = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "grad": jax.grad,
    "shard_map": functools.partial(sharded, num_arguments=1),
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
@pytest.mark.parametrize("given", (lambda x: x, lambda x: [[x, 36.0, 0.3]]))
def test_a_simulation_cannot_be_traced_and_says_what_can(transform, given):
    door = lambda x: jnp.asarray(dj.simulate(HH, given(x), 10.0).num_spikes, float)
    x = 1.0 if transform is jax.grad else jnp.ones(CELLS)
    with pytest.raises(TypeError, match=r"`g`.*dicjax\.solve"):
        transform(door)(x)


@pytest.mark.parametrize("name, argument", arguments_of(DOORS))
def test_doors_name_the_argument_that_is_traced_and_the_remedy(name, argument):
    door = getattr(dj, name)
    others = dict.fromkeys(inspect.signature(door).parameters)
    traced = jax.jit(lambda x: door(**{**others, argument: x}))
    with pytest.raises(TypeError, match=rf"`{name}`.*`{argument}`.*: .*outside"):
        traced(1.0)


@pytest.mark.parametrize("name", DOORS)
def test_doors_say_that_they_cannot_be_traced(name):
    assert "`TypeError`: if JAX traces an argument" in (getattr(dj, name).__doc__ or "")


@dataclasses.dataclass
class Plain:
    """What JAX takes as a leaf."""

    value: Any


@pytest.mark.parametrize(
    "wrap",
    (
        lambda x: [np.ones(3), x],
        lambda x: eqx.tree_at(lambda n: n.V_ref, HH, x),
        Plain,
    ),
    ids=("list", "module", "data class"),
)
def test_doors_find_what_is_traced_within_an_argument(wrap):
    with pytest.raises(TypeError, match="`g`"):
        jax.jit(lambda x: dj.participation_ratio(wrap(x)))(1.0)


@pytest.mark.parametrize(
    "name, argument", [(name, x) for name, of in STATIC.items() for x in of]
)
def test_numbers_that_shape_a_program_are_named_where_they_are_traced(name, argument):
    function = getattr(dj, name)
    others = dict.fromkeys(inspect.signature(function).parameters)
    traced = jax.jit(lambda x: function(**{**others, argument: x}))
    with pytest.raises(TypeError, match=rf"`{name}`.*`{argument}`.*: give a number"):
        traced(1)


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.parametrize(
    "make, named",
    (
        (lambda x: dj.SpikeTrain(jnp.arange(9.0) * x), "times"),
        (lambda x: dj.Waveform(CURRENTS, x), "every"),
        (lambda x: dj.Chirp(1.0, x, 2.0, 3.0), "low"),
    ),
    ids=("train", "waveform", "chirp"),
)
def test_what_is_made_of_traced_numbers_names_them(make, named, unchecked):
    with pytest.raises(TypeError, match=f"`{named}`"):
        jax.jit(lambda x: jax.tree.leaves(make(x)))(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("transform", (jax.jacfwd, jax.jacrev))
def test_second_derivatives_of_the_threshold_are_those_of_differences(transform):
    g = jnp.asarray(BISTABLE[0])
    V_th = lambda g: dj.threshold(HH, g).V
    second = jax.jit(transform(jax.grad(V_th)))(g)
    slopes, h = jax.jit(jax.grad(V_th)), 1e-5
    rows = [(slopes(g + x) - slopes(g - x)) / (2 * h) for x in h * jnp.eye(3)]
    np.testing.assert_allclose(second, jnp.stack(rows), rtol=1e-4, atol=1e-8)
