import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize

from dicjax.dics.attainable import reach
from dicjax.dics.compensation import differentiable_solution
from dicjax.dics.conductances import (
    dics_of_one_cell,
    dynamic_input_conductances,
    threshold,
)
from dicjax.dics.sampling import compensate, impose, sample
from dicjax.neurons.models import MODELS


STG, PRINZ, DA = (MODELS[name]() for name in ("stg", "stg-prinz", "da"))
TARGET, DA_TARGET = np.array([-8.0, 4.0]), np.array([-3.0, 5.0])


def dics(neuron, g, V):
    """Of 64 cells or fewer, always by the same program."""
    num, channels = g.shape
    g, V = np.resize(g, (64, channels)), np.resize(V, 64)
    return np.asarray(dynamic_input_conductances(neuron, np.float64(g), V))[:num]


# Where targets hold


OWN = {"da": [(5.0, 4.0), (10.0, 10.0), (20.0, 5.0)]}
OWN["stg"] = [(5.0, 4.0), (-2.0, 4.0), (-6.0, 7.0)]


@pytest.mark.parametrize(
    "neuron, dtype, close",
    [
        (DA, "float64", 1e-6),
        pytest.param(STG, "float64", 1e-6, marks=pytest.mark.slow),
        pytest.param(STG, "float32", 5e-3, marks=pytest.mark.slow),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_targets_at_the_own_threshold_hold_there(neuron, dtype, close):
    targets = np.resize(OWN[neuron.name], (64, 2))
    made = compensate(jr.key(0), neuron, targets, V="V_th", dtype=jnp.dtype(dtype))
    assert made.num_ok == 64
    own = threshold(neuron, np.float64(made.g))
    assert (np.asarray(own.status) == 0).all()
    assert np.abs(np.asarray(own.V) - made.V).max() < 0.02
    found = dics(neuron, made.g, own.V)
    np.testing.assert_allclose(found[:, 1:], targets, atol=close)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=close)
    assert made.V is not None
    for first in range(3):  # of one target: it is the member's own
        assert np.std(made.V[first::3]) > 0.01


@pytest.mark.slow
def test_a_place_that_is_not_the_first_threshold_is_none():
    g = np.asarray(sample(jr.key(3), DA, 64))
    made = impose(DA, g, np.full((64, 2), (3.0, 1.0)), V="V_th", through="best")
    ok, missing = made.status == 0, made.status == 4
    assert made.names[4] == "no threshold" and missing.sum() > 5 and ok.sum() > 15
    (cells,), V = np.nonzero(missing), np.asarray(made.V)
    own = threshold(DA, made.g[np.resize(cells, 64)])  # as many as were solved for
    first = np.nan_to_num(np.asarray(own.V), nan=np.inf)
    off = np.abs(first - V[np.resize(cells, 64)])
    assert ((np.asarray(own.status) != 0) | (off > 0.01)).all()
    # The equations themselves do hold there, which is why it takes a look.
    at_V = dics(DA, made.g[missing], V[missing])
    np.testing.assert_allclose(at_V.sum(axis=1), 0, atol=1e-5)


@pytest.mark.slow
def test_as_many_conductances_as_targets_meet_them_at_several_potentials():
    start = compensate(jr.key(1), DA, DA_TARGET, num=32)
    voltages = (-58.0, -52.0)
    wanted = np.stack([dics(DA, start.g, V)[:, 1:] for V in voltages], axis=1)
    away = start.g * np.exp(0.03 * np.asarray(jr.normal(jr.key(2), start.g.shape)))
    free = ("Kd", "CaL", "CaN", "ERG")
    made = impose(DA, away, wanted, V=voltages, through=free)
    solved = made.status == 0
    assert solved.mean() > 0.9
    for i, V in enumerate(voltages):
        found = dics(DA, made.g, V)[:, 1:]
        np.testing.assert_allclose(found[solved], wanted[solved, i], atol=1e-6)
    others = [i for i in range(7) if i not in DA.index(*free)]
    np.testing.assert_array_equal(made.g[:, others], away[:, others])


@pytest.mark.slow
def test_fewer_conductances_meet_several_potentials_in_the_least_squares_sense():
    voltages = (-51.0, -46.0)
    targets = np.array([[-8.0, 4.0], [8.0, 6.0]])
    typical = np.array([6869, 105, 4.99, 14.1, 160, 367, 0.334, 0.0105])
    g = typical * np.exp(0.1 * np.random.default_rng(0).normal(size=(16, 8)))
    rows = np.tile(targets, (16, 1, 1))
    made = impose(STG, g, rows, V=voltages, through=("CaS", "A", "H"))
    ok = made.status == 0
    assert ok.mean() > 0.5 and made.residual[ok].min() > 1e-3

    def squares(g):
        missed = [
            dics(STG, g, V)[:, 1:] - t for V, t in zip(voltages, targets, strict=True)
        ]
        return np.sum(np.square(missed), axis=(0, 2))

    best = squares(made.g[ok])
    for channel in STG.index("CaS", "A", "H"):
        for factor in (0.99, 1.01):
            moved = made.g[ok].copy()
            moved[:, channel] *= factor
            assert (squares(moved) > best).all()


@pytest.mark.slow
def test_three_targets_fix_the_fast_conductance_too():
    made = compensate(jr.key(0), DA, (-13.0, 3.0, 6.0), num=32)
    assert made.num_ok == 32
    np.testing.assert_allclose(
        dics(DA, made.g, -55.5), np.tile((-13.0, 3.0, 6.0), (32, 1)), atol=1e-6
    )


# Through what


def test_the_best_channels_reach_what_the_recipe_does_not():
    options = {"num": 64, "bounds": {"CaL": (0.0, 0.2)}, "max_draws": 2}
    make = lambda through: compensate(
        jr.key(0), DA, DA_TARGET, through=through, **options
    )
    recipe, best, both = make("recipe"), make("best"), make(None)
    assert recipe.num_ok < best.num_ok
    assert 0 < recipe.num_ok < both.num_ok
    kept = recipe.status == 0
    np.testing.assert_array_equal(both.g[kept], recipe.g[kept])


@pytest.mark.slow
def test_the_best_channels_are_feasible_wherever_some_are():
    g = np.asarray(sample(jr.key(3), PRINZ, 200))
    goals = dics(PRINZ, sample(jr.key(4), PRINZ, 200), -48.0)[:, 1:]
    best = impose(PRINZ, g, goals, through="best")
    pairs = [("A", "H"), ("CaS", "H"), ("KCa", "H"), ("CaT", "H"), ("Kd", "H")]
    each = [impose(PRINZ, g, goals, through=pair).status == 0 for pair in pairs]
    possible = np.any(each, axis=0)
    assert (best.status[possible] == 0).mean() > 0.9
    assert best.num_ok > max(x.sum() for x in each)


def test_the_best_channels_are_well_conditioned():
    made = compensate(jr.key(0), DA, DA_TARGET, num=64, through="best")
    assert made.num_ok == 64
    pair = compensate(jr.key(0), DA, DA_TARGET, num=64, through=("Kd", "CaL"))
    median = lambda x: np.median(np.asarray(x.condition))
    assert median(made) < 3 < median(pair)


def test_bounds_hold_and_what_breaks_them_is_named():
    bounds = {"CaL": (0.1, 0.22)}
    made = compensate(jr.key(0), DA, DA_TARGET, num=64, bounds=bounds, max_draws=3)
    CaL = made.g[:, DA.index("CaL")[0]]
    ok = made.status == 0
    assert ok.any() and ((CaL[ok] >= 0.1) & (CaL[ok] <= 0.22)).all()
    bad = compensate(
        jr.key(0), DA, DA_TARGET, num=8, bounds={"CaL": (0.0, 0.1)}, through="recipe"
    )
    assert str(bad) == "0 of 8 members ok; 8 infeasible (beyond its bounds: CaL in 8)"


# What can be reached


@pytest.mark.parametrize(
    "neuron", [DA, pytest.param(PRINZ, marks=pytest.mark.slow)], ids=lambda x: x.name
)
def test_members_of_the_box_are_within_reach(neuron):
    V = float(neuron.V_ref)
    reachable = dics(neuron, np.asarray(sample(jr.key(7), neuron, 3)), V)[:, 1:]
    for target in reachable:
        found = reach(neuron, target)
        assert found.reachable and f"is within reach of {neuron.name}" in str(found)
        (reached,) = dics(neuron, found.g[None], V)[:, 1:]
        np.testing.assert_allclose(reached, target, atol=0.01)


def test_the_nearest_point_is_as_near_as_an_independent_solver_finds():
    target = np.array([2.0, 100.0])
    found = reach(DA, target, bounds={"leak": (0.01, 0.02)})
    low, high = np.zeros(7), DA.bounds.copy()
    low[6], high[6] = 0.01, 0.02
    here = jax.jit(lambda g: dics_of_one_cell(DA, g, jnp.asarray(-55.5))[1:])
    miss = lambda u: np.asarray(here(low + u * (high - low))) - target
    runs = [
        scipy.optimize.least_squares(miss, u, bounds=(0, 1)).cost
        for u in np.random.default_rng(0).uniform(0.05, 0.95, (6, 7))
    ]
    assert found.distance == pytest.approx(np.sqrt(2 * min(runs)), rel=1e-3)
    assert "out of reach of da: the nearest point is" in str(found)
    assert "ERG" in found.at_bounds


# Derivatives of conductances


@pytest.mark.slow
def test_conductances_follow_kinetics_targets_and_other_conductances():
    g, V, free = STG.default_g, jnp.asarray(-51.0), STG.index("CaS", "H")
    target = jnp.asarray(TARGET)
    where = lambda n: n.channels[2].gates[0].steady_state.midpoint  # of CaT

    def solution(x):
        """By kinetics, a target, another conductance, and the potential."""
        neuron = eqx.tree_at(where, STG, where(STG) + x[0])
        start, moved = g.at[0].add(1000 * x[2]), target.at[0].add(x[1])
        return differentiable_solution(neuron, start, V + x[3], moved, free)

    @jax.jit
    @jax.vmap
    def with_derivatives(x):
        solved, pushed = jax.linearize(solution, x)
        (pulled,) = jax.vmap(jax.linear_transpose(pushed, x))(jnp.eye(8))
        return solved, jax.vmap(pushed, out_axes=1)(jnp.eye(4)), pulled

    h = 1e-4
    moves = np.concatenate([np.zeros((1, 4)), h * np.eye(4), -h * np.eye(4)])
    solved, forward, backward = map(np.asarray, with_derivatives(jnp.asarray(moves)))
    exact, up, down = forward[0], solved[1:5], solved[5:]
    assert (np.abs(exact).max(axis=0) > 1e-3).all()
    np.testing.assert_allclose(exact.T, (up - down) / (2 * h), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(backward[0], exact, rtol=1e-9, atol=1e-12)
    found = dics(STG, solved[:1], -51.0)[0, 1:]
    np.testing.assert_allclose(found, TARGET, atol=1e-9)


# The boundary


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"through": ("A",)}, r"1 .*\('A',\).* 2 "),
        ({"through": ("A", "H", "CaS")}, r"3 .*\('A', 'H', 'CaS'\).* 2 "),
        ({"through": ("A", "A")}, r"\('A', 'A'\)"),
        ({"through": ("A", "K")}, "'K'"),
        ({"through": "good"}, "`through`.* 'good'"),
        ({"V": "threshold"}, "`V`.* 'threshold'"),
        ({"V": -0.051}, "`V`.* -0.051"),
        ({"V": (-50.0, -45.0)}, r"`targets` at 2 .*\(2,\)"),
        ({"bounds": {"A": (3.0, 1.0)}}, r" A .*\(3.0, 1.0\)"),
        ({"bounds": {"X": (0.0, 1.0)}}, "'X'"),
    ],
)
def test_bad_requests_are_refused_with_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        compensate(jr.key(0), STG, TARGET, num=2, **settings)


def test_three_targets_contradict_the_own_threshold():
    with pytest.raises(ValueError, match="g_f"):
        compensate(jr.key(0), STG, (-1.0, -3.0, 4.0), V="V_th")


def test_targets_for_other_numbers_of_cells_are_refused():
    with pytest.raises(ValueError, match="3 cells .* 2 targets"):
        impose(STG, np.ones((3, 8)), np.zeros((2, 2)))
