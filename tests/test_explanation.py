import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dicjax as dj
from dicjax.dics.sampling import Population
from dicjax.neurons.models import MODELS
from dicjax.populations import (
    attribute,
    identifiability,
    reachability,
    ReachabilityMap,
)
from dicjax.populations.maps import by_point
from dicjax.spikes.patterns import BURSTING, LABELS, PATTERNS, TONIC
from dicjax.spikes.trains import pad_trains


STG = dj.stg()
CHANNELS = STG.channel_names
FEATURES = [feature.words for feature in PATTERNS[BURSTING].compared]
LN = np.log(1.1)


@functools.cache
def _members(targets: tuple[float, float], num: int = 16) -> np.ndarray:
    population = dj.compensate(jax.random.key(0), STG, targets, num=num)
    assert population.num_ok == num
    return population.g


def _defaults(neuron: dj.Neuron) -> np.ndarray:
    g = np.asarray(neuron.default_g)
    return g * np.geomspace(0.5, 2, 3)[:, None]


# Attribution


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("stg", np.float64),
        ("da", np.float32),
        ("hodgkin-huxley", np.float64),
        ("cortical", np.float64),
        pytest.param("stg", np.float32, marks=pytest.mark.slow),
        pytest.param("da", np.float64, marks=pytest.mark.slow),
        pytest.param("connor-stevens", np.float64, marks=pytest.mark.slow),
    ],
)
def test_shares_add_up_to_the_input_conductances(name, dtype):
    neuron = MODELS[name]()
    g = _defaults(neuron).astype(dtype)
    V = np.array([-70.0, -50.0, -35.0], dtype)
    attribution = attribute(neuron, g, V)
    dics = np.asarray(dj.dynamic_input_conductances(neuron, g, jnp.asarray(V)))
    assert attribution.shares.dtype == dtype
    size = np.abs(attribution.shares).sum(axis=-1)
    eps = np.finfo(dtype).eps
    assert np.all(np.abs(attribution.dics - dics) <= 500 * eps * (1 + size))


def test_the_leak_is_one_unit_of_fast_input_conductance():
    attribution = attribute(STG, _members((-8.0, 4.0)))
    leak = attribution.shares[..., CHANNELS.index("leak")]
    np.testing.assert_allclose(leak, np.tile([1.0, 0.0, 0.0], (16, 1)), atol=1e-12)
    assert np.all(attribution.V == -51.0)


@pytest.mark.slow
def test_shares_vanish_together_at_each_members_own_threshold():
    g = _members((-8.0, 4.0))
    own = np.asarray(dj.threshold(STG, g).V)
    assert np.ptp(own) > 0.1
    total = attribute(STG, g, own).dics.sum(axis=-1)
    reference = attribute(STG, g).dics.sum(axis=-1)
    np.testing.assert_allclose(total, 0, atol=1e-6)
    assert np.all(np.abs(reference) > 1)


def test_a_channel_without_calcium_scales_its_own_share_only():
    g = _members((-8.0, 4.0))[:2]
    more = g.copy()
    sodium = CHANNELS.index("Na")
    more[:, sodium] *= 3
    before, after = attribute(STG, g).shares, attribute(STG, more).shares
    expected = before.copy()
    expected[..., sodium] *= 3
    np.testing.assert_allclose(after, expected, rtol=1e-10, atol=1e-12)


def test_calcium_channels_make_the_slow_input_conductance_of_bursters_negative():
    attribution = attribute(STG, _members((-8.0, 4.0)))
    slow = np.median(attribution.shares, axis=0)[1]
    negative = {CHANNELS[i] for i in np.flatnonzero(slow < 0)}
    assert negative == {"CaT", "CaS"}
    fast, slow_line, ultraslow = str(attribution).splitlines()[1:]
    assert fast.startswith("Fast, g_f = -")
    assert "Na contributes most" in fast
    assert "it is the only one that makes it negative" in fast
    assert "g_s = -8. CaS contributes most, -" in slow_line
    assert "made negative by CaS and CaT -" in slow_line
    assert "g_u = +4. H contributes most, +" in ultraslow


def test_members_without_a_leak_have_no_shares():
    g = np.asarray(STG.default_g) * np.ones((2, 1))
    g[1, CHANNELS.index("leak")] = 0
    attribution = attribute(STG, g)
    assert np.isnan(attribution.shares[1]).all()
    assert np.isfinite(attribution.shares[0]).all()
    assert "contributes most" in str(attribution)


def test_a_positive_input_conductance_is_pulled_down_not_made_negative():
    said = str(attribute(STG, _members((5.0, 4.0))))
    assert "g_s = +5. A contributes most" in said
    assert "pulled down by CaS -" in said


def test_a_model_of_two_timescales_has_no_ultraslow_shares():
    squid = dj.hodgkin_huxley()
    attribution = attribute(squid, np.asarray(squid.default_g)[None])
    assert not attribution.shares[:, 2].any()
    assert "Ultraslow, g_u = 0: no channel contributes." in str(attribution)


def test_members_without_a_threshold_are_left_out_of_what_is_said():
    g = _members((-8.0, 4.0))[:3]
    attribution = attribute(STG, g, np.array([-51.0, np.nan, -51.0]))
    assert np.isnan(attribution.shares[1]).all()
    whole = attribute(STG, g[[0, 2]], -51.0)
    np.testing.assert_allclose(attribution.quantiles(0.5), whole.quantiles(0.5))
    with pytest.raises(ValueError, match="V_ref"):
        str(attribute(STG, g, np.full(3, np.nan)))


@pytest.mark.parametrize(
    ("V", "message"),
    ((np.zeros(5), r"`V`.*\(5,\)"), (np.nan, "`V`.*nan"), (np.inf, "`V`.*inf")),
)
def test_potentials_that_make_no_sense_are_refused(V, message):
    with pytest.raises(ValueError, match=message):
        attribute(STG, _members((-8.0, 4.0))[:3], V)


# Reachability


@functools.cache
def _map() -> ReachabilityMap:
    return reachability(
        jax.random.key(0),
        STG,
        g_s=np.array([-8.0, 5.0]),
        g_u=np.array([4.0, 400.0, 4e4]),
        num=3,
        duration=2500.0,
    )


@pytest.mark.slow
def test_a_map_shows_bursting_and_tonic_neurons_where_they_are_known_to_be():
    mapped = _map()
    assert [LABELS[i] for i in mapped.commonest[:, 0]] == ["bursting", "tonic"]
    assert np.all(mapped.share[:, 0] == 1)
    assert 50 < mapped.period[0, 0] < 400
    assert 2 <= mapped.spikes_per_burst[0, 0] < 12
    assert np.isnan(mapped.period[1, 0])
    assert 20 < mapped.mean_isi[1, 0] < 300


@pytest.mark.slow
def test_every_member_of_a_map_is_accounted_for():
    mapped = _map()
    assert np.all(mapped.status.sum(axis=-1) == 3)
    assert np.all(mapped.labels.sum(axis=-1) <= mapped.status[..., 0])
    assert not mapped.labels[~mapped.is_reached].any()
    assert np.all((mapped.commonest == -1) == ~mapped.labels.any(axis=-1))
    assert np.all(mapped.limiting.sum(axis=-1) <= 3 - mapped.status[..., 0])


@pytest.mark.slow
def test_so_much_ultraslow_conductance_takes_more_h_than_there_is():
    mapped = _map()
    assert mapped.is_reached.tolist() == [[True, False, False]] * 2
    h = CHANNELS.index("H")
    assert np.all(mapped.limiting[:, 2].argmax(axis=-1) == h)
    assert "mostly with H beyond its bounds" in mapped.describe(5.0, 4e4)
    far = {name: (0.0, 1e9) for name in CHANNELS}
    wide = reachability(
        jax.random.key(0),
        STG,
        g_s=np.array([5.0]),
        g_u=np.array([4e4]),
        num=1,
        bounds=far,
        duration=1000.0,
    )
    assert wide.is_reached.all()


@pytest.mark.slow
def test_medians_of_a_map_are_those_of_members_built_one_point_at_a_time():
    point = np.tile([[-8.0, 4.0]], (3, 1))
    g = dj.compensate(jax.random.key(0), STG, point).g  # the first point of the map
    run = dj.simulate(STG, g, 2500.0, discard=1250.0, dt=STG.required_recipe.dt)
    features = dj.spike_features(run.spike_times)
    mapped = _map()
    assert mapped.labels[0, 0, BURSTING] == (np.asarray(features.label) == 2).sum()
    for name in ("period", "spikes_per_burst", "mean_isi"):
        expected = np.median(np.asarray(getattr(features, name)))
        assert getattr(mapped, name)[0, 0] == pytest.approx(expected, rel=1e-4)


def test_medians_are_over_members_of_the_commonest_pattern_that_ran():
    # Tonic ones with ISIs of 20, 30 and 40 ms, the last of which failed, and silent
    # ones with two spikes.
    trains = [np.arange(40) * isi for isi in (20.0, 30.0, 40.0)]
    trains += [np.array([0.0, 500.0])] * 3
    features = dj.spike_features(pad_trains(trains))
    features = jax.tree.map(np.asarray, features)
    status = np.zeros(6, np.int32)
    population = Population(
        np.ones((6, 8)), np.ones((6, 2)), status, np.zeros(6), status
    )
    ran = np.array([True, True, False, True, True, True])
    found = by_point((2, 1, 3), population, features, ran)
    assert found["labels"][:, 0].tolist() == [[0, 2, 0, 0], [3, 0, 0, 0]]
    np.testing.assert_allclose(found["mean_isi"][:, 0], [25, np.nan])
    trains[2] = np.array([0.0, 900.0])
    ran[:] = True
    features = jax.tree.map(np.asarray, dj.spike_features(pad_trains(trains)))
    found = by_point((2, 1, 3), population, features, ran)
    assert found["labels"][0, 0].tolist() == [1, 2, 0, 0]
    np.testing.assert_allclose(found["mean_isi"][:, 0], [25, np.nan])


@pytest.mark.slow
def test_the_current_of_the_recipe_is_applied():
    cortical = MODELS["pospischil-ib"]()  # which is silent without its current
    mapped = reachability(
        jax.random.key(0),
        cortical,
        g_s=np.array([2.0]),
        g_u=np.array([4.0]),
        num=3,
        duration=2500.0,
    )
    assert mapped.status[0, 0, 0] == 3
    assert mapped.labels[0, 0, 0] == 0  # none is silent


def _drawn_map() -> ReachabilityMap:
    """A map by hand: (0, 0) bursts, (1, 0) is tonic, the rest cannot be reached."""
    status, labels = np.zeros((3, 2, 3), int), np.zeros((3, 2, 4), int)
    status[..., 1] = 4
    status[0, 0], status[1, 0] = (4, 0, 0), (1, 2, 1)
    labels[0, 0, BURSTING], labels[0, 0, TONIC], labels[1, 0, TONIC] = 3, 1, 1
    features = {
        name: np.full((3, 2), np.nan)
        for name in ("mean_isi", "period", "spikes_per_burst")
    }
    features["mean_isi"][:2, 0] = 30.0, 80.0
    features["period"][0, 0], features["spikes_per_burst"][0, 0] = 250.0, 4.0
    return ReachabilityMap(
        model="toy",
        V_ref=-50.0,
        g_s=np.array([0.0, 1.0, 3.0]),
        g_u=np.array([0.0, 10.0]),
        spans=(4.0, 20.0),
        num=4,
        names=("ok", "infeasible", "singular"),
        channel_names=("Na", "H"),
        status=status,
        limiting=np.tile([0, 3], (3, 2, 1)),
        labels=labels,
        **features,
    )


def test_the_nearest_reachable_point_is_nearest_in_units_of_the_ranges():
    mapped = _drawn_map()
    assert mapped.nearest(0.1, 1.0)[:2] == (0.0, 0.0)
    g_s, g_u, distance = mapped.nearest(3.0, 10.0)
    assert (g_s, g_u) == (1.0, 0.0)
    assert distance == pytest.approx(np.hypot(2 / 4, 10 / 20))


def test_a_map_says_what_it_knows_of_a_point():
    mapped = _drawn_map()
    assert mapped.describe(0.2, 1.0) == (
        "(g_s, g_u) = (0.2, 1) is reachable: 4 of 4 members could be built at (0, 0), "
        "3 bursting and 1 tonic (bursts every 250 ms, 4 spikes each)."
    )
    unreachable = mapped.describe(3.0, 0.0)
    assert "(4 of 4 members infeasible, mostly with H beyond its bounds)" in unreachable
    assert "0.5 of the recipe's ranges away: 1 of 4 members could be" in unreachable
    assert "1 tonic (mean ISI 80 ms)" in unreachable
    assert "lies outside the map. The nearest" in mapped.describe(9.0, 0.0)
    assert str(mapped) == (
        "2 of 6 points (g_s, g_u) at -50 mV can be reached by toy, mostly firing as: "
        "1 tonic and 1 bursting."
    )


@pytest.mark.slow
def test_a_map_without_a_reachable_point_says_so():
    nowhere = reachability(
        jax.random.key(0),
        STG,
        g_s=np.array([0.0]),
        g_u=np.array([-1e6, 1e9]),
        num=1,
    )
    assert not nowhere.is_reached.any()
    assert np.all(nowhere.commonest == -1)
    assert "no other point of the map is reachable" in nowhere.describe(0.0, -1e6)
    with pytest.raises(ValueError, match="stg"):
        nowhere.nearest(0.0, 0.0)


def test_bad_questions_to_a_map_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="`g_[su]`"):
        reachability(key, STG, g_s=np.array([1.0, 1.0]))
    with pytest.raises(ValueError, match="`num`.*0"):
        reachability(key, STG, num=0)
    with pytest.raises(ValueError, match="recipe"):
        reachability(key, dj.hodgkin_huxley())
    with pytest.raises(ValueError, match="nan"):
        _drawn_map().describe(np.nan, 0.0)


# Identifiability


def _power_law(exponents: np.ndarray, num: int = 5) -> np.ndarray:
    """Slopes of features that are products of powers of conductances."""
    return np.tile(exponents, (num, 1, 1))


def test_features_leave_tolerance_where_it_is_said_they_do():
    # A period of g_0^2 / g_1: known everywhere, not to first order only.
    exponents = np.array([[2.0, -1.0, 0.0]])
    found = identifiability(_power_law(exponents), ("a", "b", "c"), ("period",))
    period = lambda g: np.prod(g ** exponents[0])
    assert period(found.factors[0]) == pytest.approx(1.1, rel=1e-9)
    np.testing.assert_allclose(found.directions[0], [2, -1, 0] / np.sqrt(5), atol=1e-12)
    assert found.eigenvalues[0] == pytest.approx(5 / LN**2)
    assert np.all(found.eigenvalues[1:] == 0)
    assert np.all(np.isinf(found.reach[1:]))
    for direction in found.directions[1:]:
        assert period(np.exp(3 * direction)) == pytest.approx(1, rel=1e-9)
    assert found.num_constrained == 1
    assert found.stiff.shape == (1, 3)
    assert found.sloppy.shape == (2, 3)


def test_tolerance_widens_what_goes_unseen():
    slopes = _power_law(np.array([[1.0, 0.5]]))
    fine, coarse = (
        identifiability(slopes, ("a", "b"), ("x",), tolerance=t) for t in (0.1, 0.21)
    )
    assert coarse.reach[0] == pytest.approx(2 * fine.reach[0])


def test_directions_are_orthonormal_and_sorted_from_stiff_to_sloppy():
    slopes = np.random.default_rng(0).normal(size=(7, 3, 8))
    found = identifiability(slopes, CHANNELS, FEATURES)
    np.testing.assert_allclose(
        found.directions @ found.directions.T, np.eye(8), atol=1e-9
    )
    assert np.all(np.diff(found.eigenvalues) <= 0)
    scaled = slopes / LN
    F = np.mean(np.swapaxes(scaled, 1, 2) @ scaled, axis=0)
    np.testing.assert_allclose(
        found.directions.T @ np.diag(found.eigenvalues) @ found.directions,
        F,
        rtol=1e-9,
        atol=1e-9,
    )
    largest = np.abs(found.directions).argmax(axis=1)
    assert np.all(found.directions[np.arange(8), largest] > 0)


def test_members_that_disagree_leave_no_direction_to_all_of_them():
    # Each is constrained in one direction, its own.
    slopes = np.eye(4)[:, None, :]
    found = identifiability(slopes, ("a", "b", "c", "d"), ("period",))
    assert found.num_constrained == 4
    assert found.num_alone.tolist() == [1, 1, 1, 1]
    assert "constrain 1 in the median member and 4 in all 4 at once" in str(found)


def test_slopes_that_are_not_defined_are_left_out():
    slopes = np.random.default_rng(1).normal(size=(6, 3, 8))
    plain = identifiability(slopes, CHANNELS, FEATURES)
    with_gaps = np.concatenate([slopes, np.full((2, 3, 8), np.nan)])
    with_gaps = identifiability(with_gaps, CHANNELS, FEATURES)
    np.testing.assert_allclose(with_gaps.eigenvalues, plain.eigenvalues)
    assert len(with_gaps.spectra) == 6
    one_lacks = slopes.copy()
    one_lacks[0, 2, 5] = np.nan  # the feature is left out, not the member
    found = identifiability(one_lacks, CHANNELS, FEATURES)
    scaled = np.where(np.isnan(one_lacks).any(axis=2, keepdims=True), 0, one_lacks) / LN
    F = sum(scaled[:, k].T @ scaled[:, k] / n for k, n in enumerate((6, 6, 5)))
    assert found.eigenvalues.sum() == pytest.approx(np.trace(F))


def test_the_spread_of_conductances_decides_what_counts_as_constrained():
    slopes = _power_law(np.array([[0.2, 0.0], [0.0, 0.05]]))
    names = (("a", "b"), ("x", "y"))
    assert identifiability(slopes, *names).num_constrained == 1
    narrow = identifiability(slopes, *names, np.array([0.1, 0.1]))
    wide = identifiability(slopes, *names, np.array([0.1, 3.0]))
    assert narrow.num_constrained == 0
    assert wide.num_constrained == 1


def test_directions_are_named_by_their_channels():
    # CaS and A cancel in the period: they can grow together, by any factor.
    exponents = np.zeros((1, 8))
    cas, a = CHANNELS.index("CaS"), CHANNELS.index("A")
    exponents[0, [cas, a]] = 0.2, -0.2
    found = identifiability(_power_law(exponents), CHANNELS, ("period",))
    first = found.describe(0)
    assert {"CaS +, A -", "A +, CaS -"} & {first.split(":")[0]}
    ratio = np.exp(LN / 0.4)  # CaS by this factor, A down by as much
    assert f"by factors of {ratio:.2f} and {1 / ratio:.2f}." in first
    free = np.eye(8)[[i for i in range(8) if i not in (cas, a)]] * 0.5
    rest = np.concatenate([exponents, free])[None]
    names = tuple(f"x{i}" for i in range(7))
    sloppy = identifiability(rest, CHANNELS, names).describe(7)
    assert sloppy.startswith(("CaS +, A +", "A +, CaS +"))
    assert "can change together unseen" in sloppy
    assert "by more than a factor of 10" in sloppy


def test_bad_slopes_are_refused():
    slopes = np.ones((2, 3, 8))
    with pytest.raises(ValueError, match="`slopes`"):
        identifiability(slopes, CHANNELS, ("period",))
    with pytest.raises(ValueError, match="`tolerance`.*0"):
        identifiability(slopes, CHANNELS, FEATURES, tolerance=0.0)
    with pytest.raises(ValueError, match="`spread`.*-1"):
        identifiability(slopes, CHANNELS, FEATURES, np.full(8, -1.0))
    with pytest.raises(ValueError, match="burst period"):
        identifiability(slopes * np.nan, CHANNELS, FEATURES)
