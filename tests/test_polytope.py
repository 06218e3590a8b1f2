import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from dicjax.dics import polytope
from dicjax.dics.conductances import dynamic_input_conductances, sensitivity
from dicjax.dics.polytope import analytic_centre, Polytope, sample_polytope, walk
from dicjax.neurons.models import MODELS


STG, PRINZ, DA = MODELS["stg"](), MODELS["stg-prinz"](), MODELS["da"]()
CORTICAL = MODELS["pospischil-ib"]()  # without calcium, and with a number to divide by
TARGETS = {"stg": (-8.0, 4.0), "stg-prinz": (-8.0, 1.0), "da": (2.0, 10.0)}
TARGETS["pospischil-ib"] = (1.0, 4.0)
NUM = 200
CENTRE = jax.jit(analytic_centre)
CALCIUM = {"CaT": 5.0, "CaS": 12.0}


def missed(neuron, population, V=None):
    """Largest difference between targets and DICs, recomputed in double precision."""
    g = np.asarray(population.g, np.float64)
    cells = np.resize(np.arange(len(g)), NUM)  # always as many, for one program
    V = float(neuron.V_ref if V is None else V)
    dics = np.asarray(dynamic_input_conductances(neuron, g[cells], V))[: len(g)]
    num = population.targets.shape[-1]
    return np.abs(dics[:, -num:] - population.targets).max(-1)


def draw(neuron, targets=None, num: int | None = NUM, seed=0, **options):
    targets = TARGETS[neuron.name] if targets is None else targets
    return sample_polytope(jr.key(seed), neuron, np.array(targets), num, **options)


def alike(a, b):
    """Whether two samples may be of one distribution, or one of a given one."""
    test = scipy.stats.kstest if callable(b) else scipy.stats.ks_2samp
    return np.asarray(test(a, b))[1] > 1e-3


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Batches as small as most samples here, so that few members fill them up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polytope, "BATCH", 250)
        yield


@pytest.fixture(scope="module")
def stg():
    return draw(STG, num=1000, bounds=any_leak(STG))


def any_leak(neuron):
    return {"leak": (0.0, float(neuron.box[neuron.index("leak")[0]]))}


# Targets and bounds


@pytest.mark.parametrize(
    "neuron",
    (
        STG,
        pytest.param(PRINZ, marks=pytest.mark.slow),
        DA,
        pytest.param(CORTICAL, marks=pytest.mark.slow),
    ),
    ids=TARGETS,
)
def test_every_member_has_the_input_conductances_asked_for(neuron):
    population = draw(neuron)
    assert str(population) == f"{NUM} of {NUM} members ok"
    assert missed(neuron, population).max() < 1e-8
    assert population.residual.max() < 1e-8
    assert ((population.g >= 0) & (population.g <= neuron.box)).all()
    assert len(np.unique(population.g, axis=0)) == NUM
    np.testing.assert_array_equal(population.V, float(neuron.V_ref))


@pytest.mark.slow
def test_single_precision_is_enough():
    population = draw(DA, dtype=jnp.dtype("float32"), bounds={"leak": (0.004, 0.02)})
    assert population.g.dtype == np.float32
    assert population.num_ok == NUM
    assert missed(DA, population).max() < 1e-3
    assert ((population.g >= 0) & (population.g <= DA.box.astype("f4"))).all()
    double = draw(DA, bounds={"leak": (0.004, 0.02)})
    for ours, theirs in zip(population.g.T, double.g.T, strict=True):
        assert alike(ours, theirs)


@pytest.mark.slow
def test_targets_may_differ_between_members_and_include_the_fast_one():
    rng = np.random.default_rng(0)
    targets = rng.uniform((-20, 0), (20, 15), (NUM, 2))
    population = draw(STG, targets, None)
    assert population.num_ok == NUM
    assert missed(STG, population).max() < 1e-8
    three = draw(STG, (-6.2, 4.0, 5.0), 50)
    assert three.targets.shape == (50, 3) and three.num_ok == 50
    assert missed(STG, three).max() < 1e-8


def test_input_conductances_hold_at_the_potential_asked_for():
    population = draw(STG, (-5.0, 3.0), 50, V=-45.0)
    assert population.num_ok == 50
    assert missed(STG, population, -45.0).max() < 1e-8
    assert missed(STG, population).min() > 0.1
    assert np.all(population.V == -45.0)


def test_bounds_are_kept_and_channels_between_equal_ones_are_fixed():
    bounds = {"Na": (2000.0, 2500.0), "KCa": (100.0, 100.0), "CaS": (10.0, 11.0)}
    population = draw(STG, bounds=bounds)
    of = dict(zip(STG.channel_names, population.g.T, strict=True))
    assert population.num_ok == NUM
    assert missed(STG, population).max() < 1e-8
    for name, (low, high) in bounds.items():
        assert np.all((of[name] >= low) & (of[name] <= high))
    assert of["Kd"].max() > 300 and of["Na"].std() > 100


# Evenness


def rejected(neuron, targets, sources, solved, num, seed=0):
    """Uniform draws of all but two channels, which are solved for, if in bounds."""
    names, box = neuron.channel_names, neuron.box
    g = np.random.default_rng(seed).uniform(size=(num, len(box))) * box
    for name, value in sources.items():
        g[:, names.index(name)] = value
    S = np.array(jax.jit(sensitivity)(neuron, g[0], neuron.V_ref))[1:]
    if isinstance(neuron.normaliser, str):
        S[:, names.index(neuron.normaliser)] -= targets
        wanted = np.zeros(2)
    else:
        wanted = np.array(targets) * neuron.normaliser
    free = [names.index(name) for name in solved]
    g[:, free] = 0
    g[:, free] = np.linalg.solve(S[:, free], (wanted - g @ S.T).T).T
    return g[((g >= 0) & (g <= box)).all(axis=1)]


@pytest.mark.parametrize(
    "neuron, sources, solved",
    (
        (STG, CALCIUM, ("A", "H")),
        pytest.param(
            *(PRINZ, {"CaT": 8.0, "CaS": 5.0}, ("KCa", "A")), marks=pytest.mark.slow
        ),
        (DA, {}, ("ERG", "Kd")),
        pytest.param(CORTICAL, {}, ("Kd", "M"), marks=pytest.mark.slow),
    ),
    ids=TARGETS,
)
def test_members_are_distributed_as_by_rejection(neuron, sources, solved):
    targets = TARGETS[neuron.name]
    theirs = rejected(neuron, targets, sources, solved, 100_000)
    assert len(theirs) > 1000
    ours = draw(neuron, num=1000, sources=sources, bounds=any_leak(neuron)).g
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(len(neuron.box), 10)) / neuron.box[:, None]
    both = (np.concatenate([x, x @ mixed], axis=1).T for x in (ours, theirs))
    for own, other in zip(*both, strict=True):
        assert alike(own, other)


def test_a_thin_polytope_is_filled_as_evenly_as_a_thick_one():
    narrow = {"H": (0.1, 0.1002), "A": (5.0, 9.0)}
    long, short = (
        draw(STG, num=500, sources=CALCIUM, bounds=narrow, num_steps=steps, seed=seed)
        for seed, steps in ((1, 500), (2, 100))
    )
    for a, b in zip(long.g.T, short.g.T, strict=True):
        assert alike(a, b)


def _simplex(total, num=6):
    ones = np.ones(num)
    values = np.array([float(total)])
    return Polytope(*map(jnp.asarray, (np.zeros(num), ones, ones[None], values)))


def test_a_simplex_has_its_known_centre_and_marginals():
    simplex = _simplex(1.0)
    y, feasible = CENTRE(simplex)
    assert feasible
    np.testing.assert_allclose(y, np.full(6, 1 / 6), rtol=1e-8)
    walks = jax.jit(jax.vmap(lambda key: walk(key, simplex, y, 100)))
    walked = np.asarray(walks(jr.split(jr.key(0), 2000)))
    np.testing.assert_allclose(walked.sum(1), 1, atol=1e-12)
    for marginal in walked.T:
        assert alike(marginal, scipy.stats.beta(1, 5).cdf)


@pytest.mark.parametrize(
    "total, has_inside",
    (
        (1e-4, True),
        (3.0, True),
        (5.999, True),
        (6.001, False),
        (1e6, False),
        (-1e-4, False),
    ),
)
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_an_inside_is_found_if_and_only_if_there_is_one(total, has_inside, dtype):
    simplex = jax.tree.map(lambda x: x.astype(dtype), _simplex(total))
    y, feasible = map(np.asarray, CENTRE(simplex))
    assert feasible == has_inside
    assert np.all((y >= 0) & (y <= 1))


# Calcium


def test_given_calcium_channels_are_kept(stg):
    population = draw(STG, sources=CALCIUM)
    of = dict(zip(STG.channel_names, population.g.T, strict=True))
    assert np.all(of["CaT"] == 5.0) and np.all(of["CaS"] == 12.0)
    assert np.all(population.num_draws == 1)
    assert missed(STG, population).max() < 1e-8
    one = draw(STG, sources={"CaT": 5.0}, bounds=any_leak(STG))
    of = dict(zip(STG.channel_names, one.g.T, strict=True))
    assert np.all(of["CaT"] == 5.0) and of["CaS"].std() > 5
    of = dict(zip(STG.channel_names, stg.g.T, strict=True))
    for name, high in (("CaT", 12.0), ("CaS", 50.0)):
        assert alike(of[name], scipy.stats.uniform(0, high).cdf)


def test_calcium_channels_that_leave_nothing_are_drawn_again():
    leaky = {"leak": (0.015, 0.02)}
    population = draw(STG, bounds=leaky)
    assert population.num_draws.max() > 1
    alone = draw(STG, bounds=leaky, sources={"CaT": 0.1, "CaS": 0.1})
    assert str(alone) == f"0 of {NUM} members ok; {NUM} infeasible"
    assert np.all(alone.num_draws == 1)


def test_impossible_targets_say_so_and_leave_the_others_alone():
    targets = np.tile(TARGETS["stg"], (NUM, 1))
    leaky = {"leak": (0.01, 0.02)}  # without a leak any target is possible
    possible = draw(STG, targets, None, bounds=leaky)
    targets[::3] = (-1e3, 1e3)
    targets[1] = 1e200  # overflows
    mixed = draw(STG, targets, None, bounds=leaky)
    lost = np.zeros(NUM, bool)
    lost[::3] = lost[1] = True
    assert np.all((mixed.status == 1) == lost)
    assert np.all(mixed.num_draws[lost] == 20)
    assert np.isfinite(mixed.g).all() and np.all(mixed.g <= STG.box)
    np.testing.assert_array_equal(mixed.g[~lost], possible.g[~lost])


# Independence


def test_a_member_does_not_depend_on_how_many_there_are(stg):
    leak = any_leak(STG)
    np.testing.assert_array_equal(draw(STG, num=7, bounds=leak).g, stg.g[:7])
    some = draw(STG, num=7, first=3, bounds=leak)
    np.testing.assert_array_equal(some.g, stg.g[3:10])
    more = draw(STG, num=1100, bounds=leak)
    np.testing.assert_array_equal(more.g[:1000], stg.g)
    assert len(np.unique(more.g, axis=0)) == 1100
    assert not np.isclose(draw(STG, num=7, seed=1).g, stg.g[:7]).any()


# The boundary


@pytest.mark.parametrize(
    "options, message",
    (
        ({"targets": (np.nan, 1.0)}, "`targets`.*nan"),
        ({"num": 0}, "`num`.* 0"),
        ({"num_steps": 0}, "`num_steps`.* 0"),
        ({"bounds": {"K": (0.0, 1.0)}}, "stg.* 'K'"),
        ({"bounds": {"Kd": (2.0, 1.0)}}, r"Kd .*\(2.0, 1.0\)"),
        ({"bounds": {"Kd": (-1.0, 1.0)}}, r"Kd .*\(-1.0, 1.0\)"),
        ({"bounds": {"Kd": (0.0, np.nan)}}, r"Kd .*\(0.0, nan\)"),
        ({"bounds": {"Kd": (0.0, np.inf)}}, "Kd .* inf"),
        ({"sources": {"Na": 5.0}}, "'Na' .* stg.*CaT"),
        ({"sources": {"CaS": 60.0}}, "CaS .* 60.0.*50.0"),
    ),
)
def test_bad_questions_are_refused_with_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        draw(STG, **options)


def test_models_without_what_it_takes_are_refused():
    with pytest.raises(ValueError, match="hodgkin-huxley.* g_u"):
        draw(MODELS["hodgkin-huxley"](), (1.0, 1.0))
    bare = dataclasses.replace(DA, recipe=None)
    with pytest.raises(ValueError, match="da .* recipe"):
        draw(bare)
    bounds = dict(zip(DA.channel_names, ((0.0, x) for x in DA.box), strict=True))
    drawn = draw(DA, bounds=any_leak(DA))
    np.testing.assert_allclose(draw(bare, bounds=bounds).g, drawn.g)


def test_a_leak_that_divides_is_no_smaller_than_what_the_recipe_draws():
    leak = draw(STG).g[:, STG.index("leak")[0]]
    assert leak.min() >= 0.007 and leak.max() > 0.015
    leak = draw(DA).g[:, DA.index("leak")[0]]
    assert leak.min() >= 0.0087 and leak.max() > 0.011
