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
TARGET = np.array([-8.0, 4.0])


def dics(neuron, g, V):
    return np.asarray(dynamic_input_conductances(neuron, np.float64(g), V))


# Where targets hold


@pytest.mark.parametrize(
    "dtype, close",
    [("float64", 1e-6), pytest.param("float32", 5e-3, marks=pytest.mark.slow)],
)
def test_targets_at_the_own_threshold_hold_there(dtype, close):
    targets = np.tile([(5.0, 4.0), (-2.0, 4.0), (-6.0, 7.0)], (21, 1))
    made = compensate(jr.key(0), STG, targets, V="V_th", dtype=jnp.dtype(dtype))
    assert made.num_ok == 63
    own = threshold(STG, np.float64(made.g))
    assert (np.asarray(own.status) == 0).all()
    assert np.abs(np.asarray(own.V) - made.V).max() < 0.02
    found = dics(STG, made.g, own.V)
    np.testing.assert_allclose(found[:, 1:], targets, atol=close)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=close)
    assert made.V is not None
    for first in range(3):  # of one target: it is the member's own
        assert np.std(made.V[first::3]) > 0.01


def test_a_place_that_is_not_the_first_threshold_is_none():
    g = np.asarray(sample(jr.key(3), DA, 64))
    made = impose(DA, g, np.full((64, 2), (3.0, 1.0)), V="V_th", through="best")
    ok, missing = made.status == 0, made.status == 4
    assert made.names[4] == "no threshold" and missing.sum() > 5 and ok.sum() > 15
    own, V = threshold(DA, np.float64(made.g[missing])), np.asarray(made.V)
    first = np.nan_to_num(np.asarray(own.V), nan=np.inf)
    assert ((own.status != 0) | (np.abs(first - V[missing]) > 0.01)).all()
    # The equations themselves do hold there, which is why it takes a look.
    at_V = dics(DA, made.g[missing], V[missing])
    np.testing.assert_allclose(at_V.sum(axis=1), 0, atol=1e-5)


def test_as_many_conductances_as_targets_meet_them_at_several_potentials():
    start = compensate(jr.key(1), STG, TARGET, num=32)
    voltages = (-51.0, -46.0)
    wanted = np.stack([dics(STG, start.g, V)[:, 1:] for V in voltages], axis=1)
    away = start.g * np.exp(0.03 * np.asarray(jr.normal(jr.key(2), start.g.shape)))
    free = ("CaT", "CaS", "A", "H")
    made = impose(STG, away, wanted, V=voltages, through=free)
    solved = made.status == 0
    assert solved.mean() > 0.9
    for i, V in enumerate(voltages):
        found = dics(STG, made.g, V)[:, 1:]
        np.testing.assert_allclose(found[solved], wanted[solved, i], atol=1e-6)
    others = [i for i in range(8) if i not in STG.index(*free)]
    np.testing.assert_array_equal(made.g[:, others], away[:, others])


def test_fewer_conductances_meet_several_potentials_in_the_least_squares_sense():
    voltages = (-51.0, -46.0)
    targets = np.array([[-8.0, 4.0], [8.0, 6.0]])
    made = compensate(
        jr.key(1), STG, targets, num=16, V=voltages, through=("CaS", "A", "H")
    )
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


def test_three_targets_fix_the_fast_conductance_too():
    made = compensate(jr.key(0), STG, (-6.0, 3.0, 5.0), num=32)
    assert made.num_ok == 32
    np.testing.assert_allclose(
        dics(STG, made.g, -51.0), np.tile((-6.0, 3.0, 5.0), (32, 1)), atol=1e-6
    )


# Through what


def test_the_best_channels_reach_what_the_recipe_does_not():
    target = (-8.0, 1.0)
    make = lambda through: compensate(
        jr.key(0), PRINZ, target, num=64, through=through, max_draws=2
    )
    recipe, best, both = make("recipe"), make("best"), make(None)
    assert recipe.num_ok < best.num_ok
    assert recipe.num_ok < both.num_ok
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
    made = compensate(jr.key(0), STG, TARGET, num=64, through="best")
    assert made.num_ok == 64
    pair = compensate(jr.key(0), STG, TARGET, num=64, through=("CaS", "A"))
    median = lambda x: np.median(np.asarray(x.condition))
    assert median(made) < 3 < median(pair)


def test_bounds_hold_and_what_breaks_them_is_named():
    bounds = {"A": (50.0, 150.0)}
    made = compensate(jr.key(0), STG, (4.0, 5.0), num=64, bounds=bounds, max_draws=3)
    A = made.g[:, STG.index("A")[0]]
    ok = made.status == 0
    assert ((A[ok] >= 50) & (A[ok] <= 150)).all()
    bad = compensate(
        jr.key(0), STG, (4.0, 5.0), num=8, bounds={"A": (0.0, 1.0)}, through="recipe"
    )
    assert str(bad) == "0 of 8 members ok; 8 infeasible (beyond its bounds: A in 8)"


# What can be reached


def test_members_of_the_box_are_within_reach():
    g = np.asarray(sample(jr.key(7), PRINZ, 3))
    for target in dics(PRINZ, g, -48.0)[:, 1:]:
        found = reach(PRINZ, target)
        assert found.reachable and "is within reach of stg-prinz" in str(found)
        np.testing.assert_allclose(dics(PRINZ, found.g, -48.0)[1:], target, atol=0.01)


def test_the_nearest_point_is_as_near_as_an_independent_solver_finds():
    target = np.array([2.0, 8.0])
    found = reach(PRINZ, target)
    here = jax.jit(lambda g: dics_of_one_cell(PRINZ, g, jnp.asarray(-48.0))[1:])
    miss = lambda u: np.asarray(here(u * PRINZ.bounds)) - target
    runs = [
        scipy.optimize.least_squares(miss, u, bounds=(0, 1)).cost
        for u in np.random.default_rng(0).uniform(0.05, 0.95, (6, 8))
    ]
    assert found.distance == pytest.approx(np.sqrt(2 * min(runs)), rel=1e-3)
    assert "out of reach of stg-prinz: the nearest point is" in str(found)
    assert "H" in found.at_bounds


# Derivatives of conductances


def _solution(neuron, g, V, target):
    return differentiable_solution(neuron, g, V, target, STG.index("CaS", "H"))


def test_conductances_follow_kinetics_targets_and_other_conductances():
    g = jnp.asarray(compensate(jr.key(0), STG, TARGET, num=1).g[0])
    V, target = jnp.asarray(-51.0), jnp.asarray(TARGET)
    where = lambda n: n.channels[2].gates[0].steady_state.midpoint  # of CaT

    def solution(x):
        """By kinetics, a target, another conductance, and the potential."""
        neuron = eqx.tree_at(where, STG, where(STG) + x[0])
        moved = target.at[0].add(x[1])
        return _solution(neuron, g.at[0].add(1000 * x[2]), V + x[3], moved)

    at, f = jnp.zeros(4), jax.jit(solution)
    exact = np.asarray(jax.jit(jax.jacfwd(solution))(at))
    assert (np.abs(exact).max(axis=0) > 1e-3).all()
    for i, h in enumerate(1e-4 * np.eye(4)):
        slope = (f(at + h) - f(at - h)) / 2e-4
        np.testing.assert_allclose(exact[:, i], slope, rtol=1e-5, atol=1e-9)
    back = jax.jit(jax.jacrev(solution))(at)
    np.testing.assert_allclose(back, exact, rtol=1e-9, atol=1e-12)
    solved = f(at)
    np.testing.assert_allclose(dics_of_one_cell(STG, solved, V)[1:], target, atol=1e-9)


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
