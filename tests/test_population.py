import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_neuron import BOXES, CHANNELS

from dicjax.dics import sampling
from dicjax.dics.conductances import dics_of_one_cell
from dicjax.dics.sampling import compensate, Population, sample
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Neuron


STG, PRINZ = MODELS["stg"](), MODELS["stg-prinz"]()
TOLERANCE = {"float32": 1e-3, "float64": 1e-6}
STG_TARGETS = {
    "g_s >= 0": [(0.0, 0.0), (4.0, 5.0), (20.0, 0.5), (7.0, 20.0)],
    "g_s < 0": [(-20.0, 0.5), (-8.0, 4.0), (-0.5, 12.0), (-15.0, 20.0)],
    "g_u < 0": [(3.0, -1.0), (-4.0, -1.0), (-10.0, -5.0), (12.0, -3.0)],
}
FREE = {"g_s >= 0": ("A", "H"), "g_s < 0": ("CaS", "H"), "g_u < 0": ("CaS", "A")}
REACHABLE, UNREACHABLE = (-8.0, 1.0), (2.0, 8.0)  # for stg-prinz, inside its box


@jax.jit
def input_conductances(neuron, g):
    return jax.vmap(lambda g: dics_of_one_cell(neuron, g, neuron.V_ref))(g)


def missed(neuron, population):
    """Largest difference between targets and DICs, recomputed in double precision."""
    dics = np.asarray(input_conductances(neuron, np.asarray(population.g, np.float64)))
    return np.abs(dics[:, 1:] - population.targets).max(-1)


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Batches as small as most populations here, so that few programs serve all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "BATCHES", (64,))
        yield


@pytest.fixture(scope="module")
def many():
    """A large population at the target that the recipe starts from."""
    return compensate(jr.key(0), STG, np.array([4.0, 5.0]), num=1000)


# Targets


@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)]
)
def test_stg_populations_hit_their_targets_in_every_region(dtype):
    targets = np.repeat(np.concatenate(list(STG_TARGETS.values())), 4, axis=0)
    population = compensate(jr.key(0), STG, targets, dtype=jnp.dtype(dtype))
    assert population.g.dtype == dtype
    assert population.num_ok == len(targets) == 48
    assert missed(STG, population).max() < TOLERANCE[dtype]
    assert (population.g >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stg_prinz_populations_hit_their_targets_within_the_box(dtype):
    rng = np.random.default_rng(0)
    targets = rng.uniform((-9, 0.5), (-5, 2), (48, 2))
    population = compensate(
        jr.key(0), PRINZ, targets, through="recipe", dtype=jnp.dtype(dtype)
    )
    ok = population.status == 0
    assert ok.sum() > 12
    assert missed(PRINZ, population)[ok].max() < TOLERANCE[dtype]
    inside = (population.g >= 0) & (population.g <= BOXES["stg-prinz"].astype(dtype))
    assert inside[ok].all()


def test_only_the_two_channels_of_the_region_answer_to_the_target():
    first = compensate(jr.key(3), STG, np.full((48, 2), (4.0, 5.0)))
    for region, targets in STG_TARGETS.items():
        population = compensate(jr.key(3), STG, np.repeat(targets, 12, axis=0))
        changed = {
            name
            for name, a, b in zip(CHANNELS, population.g.T, first.g.T, strict=True)
            if not np.allclose(a, b, rtol=1e-6)
        }
        assert changed == set(FREE[region])


def test_members_share_their_input_conductances_and_differ_in_the_rest(many):
    assert many.num_ok == 1000 == len(np.unique(many.g, axis=0))
    assert (many.g.std(0) / many.g.mean(0) > 0.1).all()
    assert missed(STG, many).max() < 1e-6


def test_a_population_at_the_seed_is_that_of_the_published_recipe(many):
    mean: dict[str, float] = dict(zip(CHANNELS, many.g.mean(0), strict=True))
    spread: dict[str, float] = dict(zip(CHANNELS, many.g.std(0), strict=True))
    assert mean["Na"] == pytest.approx(6869, rel=0.03)
    assert mean["Kd"] == pytest.approx(105, rel=0.03)
    assert mean["CaT"] == pytest.approx(4.99, rel=0.03)
    assert mean["CaS"] == pytest.approx(14.1, rel=0.05)
    assert mean["KCa"] == pytest.approx(160, rel=0.03)
    assert mean["A"] == pytest.approx(367, rel=0.03)
    assert mean["H"] == pytest.approx(0.334, rel=0.03)
    assert mean["leak"] == pytest.approx(0.0105, rel=0.03)
    for name, value in {"Na": 1351, "A": 100, "H": 0.065, "leak": 0.002}.items():
        assert spread[name] == pytest.approx(value, rel=0.1)


def test_of_the_seed_the_fast_conductance_is_imposed_too(many):
    dics = input_conductances(STG, many.g)
    np.testing.assert_allclose(dics, np.full((1000, 3), (-6.2, 4, 5)), atol=1e-6)


# Independence


def test_a_member_does_not_depend_on_how_many_there_are(many):
    few = compensate(jr.key(0), STG, np.array([4.0, 5.0]), num=48)
    np.testing.assert_allclose(few.g, many.g[:48], rtol=1e-6)
    one = compensate(jr.key(0), STG, np.array([4.0, 5.0]))
    assert one.g.shape == (1, 8)
    np.testing.assert_allclose(one.g, many.g[:1], rtol=1e-6)


@pytest.mark.slow
def test_a_redrawn_member_does_not_depend_on_how_many_there_are():
    few, more = (
        compensate(jr.key(5), PRINZ, np.array(REACHABLE), num=num, through="recipe")
        for num in (7, 48)
    )
    assert few.num_draws.max() > 1
    np.testing.assert_array_equal(few.g, more.g[:7])
    np.testing.assert_array_equal(few.num_draws, more.num_draws[:7])


def test_equal_keys_give_equal_populations_and_others_others():
    make = lambda seed: compensate(jr.key(seed), STG, np.array([-8.0, 4.0]), num=48)
    first, again, other = make(1), make(1), make(2)
    np.testing.assert_array_equal(first.g, again.g)
    assert not np.isclose(first.g, other.g).any()


def test_impossible_targets_say_so_and_leave_the_others_alone():
    targets = np.full((48, 2), REACHABLE)
    feasible = compensate(jr.key(0), PRINZ, targets, through="recipe")
    targets[::3] = UNREACHABLE
    targets[1] = 1e200  # overflows
    mixed = compensate(jr.key(0), PRINZ, targets, through="recipe")
    assert (mixed.status[::3] != 0).all() and mixed.status[1] != 0
    assert (mixed.num_draws[::3] == 20).all()
    assert {mixed.names[i] for i in mixed.status[::3]} <= {
        "infeasible",
        "singular",
        "not converged",
    }
    others = np.setdiff1d(np.arange(48), [1, *range(0, 48, 3)])
    assert (feasible.status[others] == 0).any()
    np.testing.assert_array_equal(mixed.status[others], feasible.status[others])
    np.testing.assert_array_equal(mixed.g[others], feasible.g[others])


def test_members_that_are_given_up_are_never_called_ok():
    targets = np.array(REACHABLE)
    population = compensate(
        jr.key(0), PRINZ, targets, num=48, max_draws=10, through="recipe"
    )
    assert population.num_draws.max() == 10
    assert 0 < population.num_ok < 48
    ok = population.status == 0
    missing = missed(PRINZ, population) > 1e-6
    outside = (population.g < 0) | (population.g > BOXES["stg-prinz"])
    np.testing.assert_array_equal(~ok, missing | outside.any(-1))


@pytest.mark.slow
def test_a_hundred_thousand_members_are_delivered():
    population = compensate(jr.key(0), STG, np.array([-8.0, 4.0]), num=100_000)
    assert str(population) == "100000 of 100000 members ok"
    assert population.residual.max() < 1e-6
    assert len(np.unique(population.g, axis=0)) == 100_000


# Reports, and the boundary


def test_a_population_says_how_many_members_are_ok_and_why_others_are_not():
    blank = lambda status: Population(
        np.zeros((len(status), 8)),
        np.zeros((len(status), 2)),
        np.array(status, np.int32),
        np.zeros(len(status)),
        np.ones(len(status), np.int32),
    )
    assert str(blank([0, 0])) == "2 of 2 members ok"
    assert str(blank([0, 1, 3, 3])) == (
        "1 of 4 members ok; 1 infeasible, 2 not converged"
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("neuron", (STG, PRINZ), ids=BOXES)
def test_samples_fill_the_box_and_do_not_depend_on_their_number(neuron, dtype):
    g = sample(jr.key(0), neuron, 500, dtype=jnp.dtype(dtype))
    assert g.dtype == dtype
    share = np.asarray(g) / BOXES[neuron.name].astype(dtype)
    assert ((share >= 0) & (share <= 1)).all()
    np.testing.assert_allclose(share.mean(0), 0.5, atol=0.06)
    few = sample(jr.key(0), neuron, 3, dtype=jnp.dtype(dtype))
    np.testing.assert_array_equal(few, g[:3])


@pytest.mark.parametrize(
    "targets, num, message",
    (
        ([np.nan, 1.0], None, "`targets`.*nan"),
        ([[0.0, 1.0], [0.0, np.inf]], None, "`targets`.*inf"),
        ([1.0, 2.0], 0, "`num`.* 0"),
        ([[1.0, 2.0]] * 3, 5, "`num` is 5 .* 3 rows"),
        ([1.0] * 4, None, r"`targets`.*\(4,\)"),
    ),
)
def test_bad_targets_are_refused_with_the_remedy(targets, num, message):
    with pytest.raises(ValueError, match=message):
        compensate(jr.key(0), STG, np.array(targets), num=num)


def test_a_model_without_a_recipe_is_refused():
    bare = Neuron(STG.name, STG.channels, STG.timescales, STG.V_ref)
    with pytest.raises(ValueError, match="stg .* recipe"):
        compensate(jr.key(0), bare, np.array([4.0, 5.0]))
