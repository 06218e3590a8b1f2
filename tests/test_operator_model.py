"""What operators are made of."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from operators import blank, exact, FAMILY, SMALL

from dicjax.neurons.channels import GatedChannel, MarkovChannel, Transition
from dicjax.neurons.curves import Exponential
from dicjax.operator.characteristics import at_rest, NAMES
from dicjax.operator.families import Family
from dicjax.operator.model import HIGHEST, LOWEST, NUM_NODES, SPACING, untrained, WIDEST


NEURON = FAMILY.neuron
CELLS = FAMILY.sample(jr.key(0), 3).astype(float)


@pytest.fixture(scope="module")
def operator():
    return blank()


@pytest.fixture(scope="module")
def rest():
    return at_rest(FAMILY, CELLS)[0]


@pytest.fixture(scope="module")
def knowing(rest):
    return exact(FAMILY, CELLS, rest)


@pytest.mark.slow
def test_features_that_differ_are_embedded_differently(operator):
    embed = operator.branch.embed
    x = operator.library[:20]
    embedded = np.asarray(jax.vmap(embed)(x))
    assert embedded.shape == (20, len(NAMES) * (1 + 2 * SMALL.num_frequencies))
    away = np.abs(embedded[:, None] - embedded[None]).max(axis=-1)
    assert np.all(away[~np.eye(20, dtype=bool)] > 0.1)
    # A hundredth of what it varies by, of every feature.
    for i in range(len(NAMES)):
        near = x[0].at[i].add(0.01 * operator.branch.spread[i])
        assert np.abs(np.asarray(embed(near)) - embedded[0]).max() > 1e-3
    far = x[0] + 1e3 * operator.branch.spread
    assert np.isfinite(embed(far)).all()


def test_the_embedding_is_scaled_in_frequency_and_amplitude(operator):
    branch = operator.branch
    x = branch.center + 0.6 * branch.spread  # at 0.3
    p, *waves = np.asarray(branch.embed(x)).reshape(-1, len(NAMES))
    np.testing.assert_allclose(p, 0.3, rtol=1e-4)
    for k in range(SMALL.num_frequencies):
        phase = np.pi / 2 * 2**k * 0.3
        np.testing.assert_allclose(waves[2 * k], np.sin(phase), rtol=1e-3)
        np.testing.assert_allclose(waves[2 * k + 1], 0.3 * np.cos(phase), rtol=1e-3)


def test_amplitudes_stay_within_reach_of_the_family(operator):
    far = operator.library + 50.0
    where = lambda o: o.branch.last.weight
    wild = eqx.tree_at(where, operator, replace_fn=lambda w: 1e4 * w)
    center = np.asarray(operator.branch.amplitude_center)
    spread = np.asarray(operator.branch.amplitude_spread)
    z = (np.log(np.asarray(wild.amplitudes(far))) - center) / spread
    assert WIDEST - 0.1 < np.abs(z).max() <= WIDEST + 1e-3


def test_curves_are_the_kinetics_of_the_family(knowing):
    table = np.asarray(knowing.curves.table())
    assert table.shape == (1, NUM_NODES - 1, 2 * (2 * 8 + 7))
    values, gains = np.split(table[0], 2, axis=1)
    none = jnp.zeros(())
    for V in (-90.0, -70.1, -55.7, -20.0, 30.3):
        at = (V - LOWEST) / SPACING
        i = int(at)
        found = values[i] + (at - i) * gains[i]
        gates = np.stack(NEURON.steady_gates(jnp.asarray(V), none))
        tau = np.stack(NEURON.time_constants(jnp.asarray(V), none))
        opened = (jnp.ones(()),) * 8
        drive = np.stack(NEURON.unit_currents(jnp.asarray(V), opened, none))
        np.testing.assert_allclose(found[:8], gates, rtol=1e-3, atol=2e-6)
        np.testing.assert_allclose(found[8:16], 1 / tau, rtol=1e-3)
        np.testing.assert_allclose(found[16:], drive, rtol=1e-3, atol=1e-4)
    assert LOWEST + (NUM_NODES - 1) * SPACING == HIGHEST


def test_a_correction_of_all_rates_is_a_change_of_temperature(operator):
    warm = Family("warm", NEURON.at(32.0), FAMILY.ranges)
    x = np.asarray(operator.library)[: len(CELLS)]
    other = untrained(jr.key(1), SMALL, warm, NAMES, x, CELLS)
    faster = np.zeros(operator.curves.correction.shape, np.float32)
    faster[:, 8:16] = np.log(3.0)  # the Q10
    corrected = dataclasses.replace(operator.curves, correction=faster)
    found, expected = (
        np.split(curves.table(), 2, axis=-1)[0] for curves in (corrected, other.curves)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_an_operator_starts_with_units_in_equilibrium(knowing, rest):
    a = jnp.asarray(CELLS)[:, None]
    memory = knowing.start(jnp.asarray(rest)[:, None], a)
    assert memory.V.shape == (3, 1) and memory.units.shape == (3, 1, 8)
    for i, V in enumerate(rest):
        gates = np.stack(NEURON.steady_gates(jnp.asarray(V), jnp.zeros(())))
        np.testing.assert_allclose(memory.units[i, 0], gates, rtol=1e-3, atol=2e-6)


def test_a_family_with_a_kinetic_scheme_is_refused():
    opening, closing = Exponential(0.1, -50.0, 10.0), Exponential(0.1, -50.0, -10.0)
    passages = (Transition("C", "O", opening), Transition("O", "C", closing))
    scheme = MarkovChannel("K", ("C", "O"), passages, ("O",), 5.0, reversal=-85.0)
    leak = GatedChannel("leak", reversal=-70.0)
    neuron = dataclasses.replace(NEURON, channels=(scheme, leak), defaults=None)
    family = Family("odd", neuron, {"K": (1.0, 2.0), "leak": (0.1, 0.2)})
    with pytest.raises(ValueError, match="K of odd"):
        untrained(jr.key(0), SMALL, family, ("rest",), np.ones((2, 1)), np.ones((2, 2)))
