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
import jaxtyping
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from numerical_functions import BISTABLE, Case, CELLS, CURRENTS, HH, NUMERICAL

import dicjax as dj


NAMES = pathlib.Path(__file__).with_name("public_names.txt").read_text().split()
STEP = 1e-7  # of central differences, as a share of each number


# Their gradients take long to compile; other tests look at them quickly.
SLOW = {"solve", "rhythm", "Encoder", "respond", "Operator.start"}

# Arguments that are no arrays: they shape the program.
STATIC = {
    "solve": (
        "dt",
        "is_adaptive",
        "max_steps",
        "max_spikes",
        "states",
        "currents",
        "tolerance",
    ),
    "clamp": ("dt",),
    "rhythm": ("duration", "discard", "dt"),
    "step_response": ("every", "start", "stop", "max_spikes"),
    "respond": ("every",),
    "sample": ("num",),
}
# They work on the host: files, threads, searches, and arrays whose size is not known.
DOORS = (
    "attribute",
    "best_stretch",
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
    "export_neuroml",
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
    "steady_stretches",
    "to_dataframe",
    "to_inference_data",
    "to_xarray",
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


def test_numerical_functions_may_be_sharded(case, rows):
    many = sharded(jax.vmap(case.function), len(case.arguments))
    assert_same(many(*cell_of(case, ...)), stacked(rows))


@pytest.mark.slow
def test_gradients_may_be_sharded(case, rows, slopes):
    if slopes is None:
        pytest.skip("nothing of it is a smooth function of floats")
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
