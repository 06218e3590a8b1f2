"""Trains of pulses, and cells under voltage clamp."""

import dataclasses
from typing import Any, cast

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import dicjax as dj
from dicjax.simulation.protocols.voltage_clamp import as_command


# Pulses


def sum_of_steps(amplitude, width, period, start, num):
    begins = [start + k * period for k in range(num)]
    first, *rest = (dj.Step(amplitude, at, at + width) for at in begins)
    return sum(rest, first)


def mean_of(stimulus, whole, t, h):
    prepared = stimulus.prepare(jnp.asarray(whole, jnp.int32), 2.0)
    return stimulus.average(prepared, jnp.asarray(t), jnp.asarray(h))


@jax.jit
def means(numbers, whole, t, h):
    """What a train of five pulses delivers, and what five steps do."""
    train = mean_of(dj.PulseTrain(*numbers, num=5), whole, t, h)
    return train, mean_of(sum_of_steps(*numbers, num=5), whole, t, h)


@given(
    period=st.floats(0.05, 5),
    part=st.floats(0.01, 1),
    start=st.floats(-3, 5),
    whole=st.integers(0, 30),
    t=st.floats(0, 1),
    h=st.floats(0.01, 1),
)
def test_a_train_delivers_the_charge_of_its_pulses(period, part, start, whole, t, h):
    train, steps = means((2.0, part * period, period, start), whole, t, h)
    assert float(train) == pytest.approx(float(steps), abs=1e-9)


@pytest.mark.parametrize("argument", range(4))
def test_a_train_is_differentiable_in_all_its_numbers(argument):
    at = (2.0, 0.7, 1.9, 0.4)

    def delivered(x):
        numbers = (*at[:argument], x, *at[argument + 1 :])
        return mean_of(dj.PulseTrain(*numbers, num=4), 4, 0.5, 0.5)

    slope, small = jax.grad(delivered)(at[argument]), 1e-4
    ends = (delivered(at[argument] + sign * small) for sign in (1, -1))
    difference = (next(ends) - next(ends)) / (2 * small)
    assert float(slope) == pytest.approx(float(difference), abs=1e-8)
    assert slope != 0


def test_every_pulse_makes_an_axon_fire_and_each_cell_has_a_train_of_its_own():
    axon = dj.hodgkin_huxley()
    g = np.tile(np.asarray(axon.default_g, np.float32), (2, 1))
    pulses = dj.PulseTrain(30.0, 1.0, np.array([25.0, 40.0]), 10.0, num=4)
    run = dj.simulate(axon, g, 200.0, stimulus=pulses)
    for times, period in zip(run.spike_times, (25.0, 40.0), strict=True):
        since = times[np.isfinite(times)] - 10.0 - period * np.arange(4)
        assert np.all((since > 0.5) & (since < 5.0))


def test_pulses_that_run_into_each_other_are_refused():
    with pytest.raises(ValueError, match=r"`period` of 2.0 ms, got a `width` of 3.0"):
        dj.PulseTrain(1.0, 3.0, 2.0, 0.0, num=2)
    with pytest.raises(ValueError, match="`num` must be at least 1"):
        dj.PulseTrain(1.0, 1.0, 2.0, 0.0, num=0)


# Cells for a clamp

AXON = dj.hodgkin_huxley()
G = AXON.default_g
LEVELS = np.array([-30.0, 0.0, 40.0])
JUMP = dj.Step(-65.0) + dj.Step(LEVELS + 65.0, 2.0, 12.0)
TS = np.linspace(0.0, 15.0, 61)

P, SHUT, TAU, E, MAX = 3, dj.Sigmoid(-35.0, -7.0), 4.0, -77.0, 12.0  # E in mV
K_ONLY = dj.Neuron(
    "potassium",
    (dj.GatedChannel("Kd", (dj.Gate(P, SHUT, dj.Constant(TAU)),), reversal=E),),
    (dj.Constant(1.0), dj.Constant(TAU), None),
    -50.0,
    normaliser=1.0,
)
RESISTOR = dj.Neuron(
    "resistor",
    (dj.GatedChannel("leak", reversal=-60.0),),
    (dj.Constant(1.0), dj.Constant(2.0), None),
    -60.0,
    capacitance=1.5,
)


def steady(V):
    return 1 / (1 + np.exp((V + 35.0) / -7.0))


def clamped(command: Any = JUMP, ts: Any = TS, **changes: Any) -> dj.Clamped:
    how: dict[str, Any] = {"neuron": AXON, "g": G} | changes
    g, ts = np.asarray(how.pop("g")), np.asarray(ts)
    return dj.clamp(how.pop("neuron"), g, command, ts, **how)


@pytest.fixture(scope="module")
def ideal():
    return clamped()


# An ideal clamp


def test_a_steady_current_is_that_of_the_open_fraction_at_its_potential():
    V = np.linspace(-90.0, 50.0, 15)
    command = dj.Step(-90.0) + dj.Step(V + 90.0, 5.0)
    held = clamped(command, [4.9, 100.0], neuron=K_ONLY, g=[MAX])
    np.testing.assert_allclose(held.V[:, -1], V, rtol=1e-12)
    expected = MAX * steady(V) ** P * (V - E)
    np.testing.assert_allclose(held.I[:, -1], expected, rtol=1e-6)
    np.testing.assert_allclose(held.currents[:, -1, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(held.I[:, 0], MAX * steady(-90.0) ** P * (-90.0 - E))


@pytest.mark.parametrize("onset", (5.0, 5.0037))
def test_a_gate_relaxes_exponentially_after_a_jump(onset):
    ts = np.array([3.0, 5.0, 6.0, 8.0, 20.0])
    command = dj.Step(-80.0) + dj.Step(70.0, onset)
    since = np.maximum(ts - onset, 0)
    first, last = steady(-80.0), steady(-10.0)
    expected = last + (first - last) * np.exp(-since / TAU)
    errors = []
    for dt in (0.1, 0.05):
        held = clamped(command, ts, neuron=K_ONLY, g=[MAX], dt=dt)
        errors.append(np.abs(held.gates[:, 0] - expected).max())
    # Of second order, wherever the jump falls: (h / tau)² / 12 of the exponent.
    assert errors[1] < 2e-5 and errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_a_scheme_under_clamp_is_its_matrix_exponential():
    rates = np.array([[0.0, 0.5, 0.0], [0.2, 0.0, 0.3], [0.05, 0.1, 0.0]])
    names = ("shut", "open", "blocked")
    transitions = tuple(
        dj.Transition(names[i], names[j], dj.Exponential(0.0, 40.0, rates[i, j]))
        for i, j in np.argwhere(rates > 0)
    )
    scheme = dj.MarkovChannel("X", names, transitions, ("open",), 10.0, reversal=E)
    neuron = dataclasses.replace(K_ONLY, channels=(scheme,))
    ts = np.array([1.0, 4.0, 9.0])
    held = clamped(dj.Step(-20.0), ts, neuron=neuron, g=[MAX], V_hold=-80.0)
    Q = lambda V: np.exp(V / 40.0) * (rates.T - np.diag(rates.sum(axis=1)))
    values, vectors = np.linalg.eig(Q(-20.0))
    null = np.linalg.svd(Q(-80.0))[2][-1]
    before = np.linalg.solve(vectors, null / null.sum())
    after = [(vectors @ (np.exp(values * t) * before)).real for t in ts]
    np.testing.assert_allclose(held.gates, np.array(after)[:, 1:], atol=1e-6)


def test_calcium_follows_its_own_equation():
    # With the current constant, calcium relaxes towards its balance with it.
    channel = dj.GatedChannel("Ca", reversal=120.0)
    pool = dj.Calcium(("Ca",), influx=0.3, baseline=0.05, time_constant=20.0)
    neuron = dataclasses.replace(K_ONLY, channels=(channel,), calcium=pool)
    ts = np.array([0.0, 10.0, 15.0, 60.0])
    command = dj.Step(-70.0) + dj.Step(50.0, 10.0)
    held = clamped(command, ts, neuron=neuron, g=[0.02])
    balance = lambda V: 0.05 - 0.3 * 0.02 * (V - 120.0)
    since = np.maximum(ts - 10.0, 0)
    first, last = balance(-70.0), balance(-20.0)
    expected = last + (first - last) * np.exp(-since / 20.0)
    np.testing.assert_allclose(held.Ca, expected, rtol=1e-7)


def test_the_clamp_starts_in_the_steady_state_of_the_holding_potential():
    stg = dj.stg()
    held = clamped(
        dj.Step(-20.0), [0.0, 1.0], neuron=stg, g=stg.default_g, V_hold=-60.0
    )
    V = jnp.asarray(-60.0)
    Ca = stg.steady_calcium(V, stg.default_g)
    np.testing.assert_allclose(held.Ca[0], Ca, rtol=1e-10)
    np.testing.assert_allclose(held.gates[0], stg.steady_gates(V, Ca), rtol=1e-10)
    assert float(held.V[0]) == -20.0


def test_ramps_and_functions_add_the_current_of_the_capacitance():
    ramp = dj.Ramp(-80.0, 20.0, 1.0, 11.0)
    ts = np.array([0.5, 1.0, 6.0, 10.9, 12.0])
    for command in (ramp, lambda t: -80.0 + 10.0 * jnp.clip(t - 1.0, 0, 10.0)):
        held = clamped(command, ts, neuron=RESISTOR, g=[0.1])
        V = np.array([-80.0, -80.0, -30.0, 19.0, 20.0])
        np.testing.assert_allclose(held.V, V, atol=1e-6)
        slopes = np.array([0.0, 10.0, 10.0, 10.0, 0.0])
        # Where a function bends is not known.
        at = np.array([0, 1, 2, 3, 4] if command is ramp else [0, 2, 3, 4])
        expected = 0.1 * (V + 60.0) + 1.5 * slopes
        np.testing.assert_allclose(held.I[at], expected[at], atol=1e-6)


def test_a_slow_function_is_followed_to_second_order():
    class Sine(eqx.Module):
        amplitude: jax.Array

        def __call__(self, t):
            return -50.0 + self.amplitude * jnp.sin(t / 2)

    sine, ts = Sine(jnp.asarray(25.0)), np.linspace(0.0, 10.0, 21)
    fine, *coarse = (clamped(sine, ts, dt=dt) for dt in (0.0025, 0.04, 0.02))
    np.testing.assert_allclose(fine.V, -50.0 + 25.0 * np.sin(ts / 2), atol=1e-6)
    errors = [np.abs(x.currents - fine.currents).max() for x in coarse]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


# A clamp with series resistance


def test_a_resistor_is_charged_exactly_whatever_the_step():
    R_s, g, C = 2.0, 0.1, 1.5  # kΩ·cm², mS/cm², µF/cm²
    ts = np.array([0.0, 1.0, 4.0, 30.0])
    how: dict[str, Any] = {"neuron": RESISTOR, "g": [g], "dt": 0.3}
    held = clamped(dj.Step(-20.0), ts, V_hold=-60.0, series_resistance=R_s, **how)
    rate = (1 / R_s + g) / C
    last = (-20.0 / R_s - 60.0 * g) / (1 / R_s + g)
    V = last + (-60.0 - last) * np.exp(-rate * ts)
    np.testing.assert_allclose(held.V, V, rtol=1e-12)
    np.testing.assert_allclose(held.I, (-20.0 - V) / R_s, rtol=1e-9, atol=1e-12)


def test_without_resistance_the_clamp_is_ideal(ideal):
    within = (TS > 2.2) & ((TS < 12.0) | (TS > 12.2))
    errors = []
    for R_s in (1e-3, 1e-4, 1e-5):
        held = clamped(series_resistance=R_s)
        errors.append(np.abs(held.I - ideal.I)[:, within].max())
        np.testing.assert_allclose(
            held.V[:, within], ideal.V[:, within], atol=5e3 * R_s
        )
    assert errors[0] > 8 * errors[1] and errors[2] < 2e-3 * np.abs(ideal.I).max()


def test_the_current_of_the_clamp_charges_the_membrane_and_feeds_its_channels():
    ts = np.linspace(0.0, 15.0, 3001)
    held = clamped(JUMP, ts, series_resistance=0.1, dt=0.005)
    np.testing.assert_allclose(held.I, (held.command - held.V) / 0.1, atol=1e-9)
    slope = np.gradient(held.V, ts, axis=1)
    left = held.I - np.asarray(held.currents).sum(axis=-1) - slope
    away = np.abs(ts[:, None] - np.array([2.0, 12.0])).min(axis=1) > 0.02
    assert np.abs(left[:, away]).max() < 2e-3 * np.abs(held.I).max()


def test_an_independent_solver_agrees_about_series_resistance():
    R_s = 0.05
    command, ts = dj.Step(-65.0) + dj.Step(85.0, 2.0, 8.0), np.linspace(0.5, 11.5, 23)
    injected = lambda t, y: (jnp.where((t >= 2) & (t < 8), 20.0, -65.0) - y.V) / R_s

    class Field(eqx.Module):
        def __call__(self, t, y, args):
            return AXON.vector_field(t, y, args, injected(t, y))

    reference: Any = dfx.diffeqsolve(
        dfx.ODETerm(cast(Any, Field())),
        dfx.Tsit5(),
        0.0,
        12.0,
        0.001,
        AXON.initial_state(jnp.asarray(-65.0)),
        args=G,
        stepsize_controller=dfx.ClipStepSizeController(
            dfx.PIDController(rtol=1e-9, atol=1e-11), jump_ts=jnp.array([2.0, 8.0])
        ),
        saveat=dfx.SaveAt(ts=jnp.asarray(ts)),
        max_steps=200_000,
    ).ys
    held = clamped(command, ts, series_resistance=R_s)
    assert np.abs(held.V - reference.V).max() < 0.03
    gates = np.stack(reference.gates, axis=-1)
    assert np.abs(held.gates - gates).max() < 1e-3


# Transformations

LEAKY = dataclasses.replace(K_ONLY, channels=(*K_ONLY.channels, *RESISTOR.channels))
AT = {
    "g": jnp.array([MAX, 0.3]),
    "level": jnp.asarray(-5.0),
    "onset": jnp.asarray(2.003),
    "V_hold": jnp.asarray(-70.0),
    "capacitance": jnp.asarray(1.1),
    "R_s": jnp.asarray(0.05),
}


def measured(x, series_resistance=None):
    neuron = dataclasses.replace(LEAKY, capacitance=x["capacitance"])
    ramp = dj.Ramp(-70.0, -60.0, x["onset"] - 1.0, x["onset"] + 2.0)
    command = ramp + dj.Step(x["level"] + 70.0, x["onset"])
    held = dj.clamp(
        neuron,
        x["g"],
        command,
        np.array([2.5, 3.0, 6.0]),
        V_hold=x["V_hold"],
        series_resistance=series_resistance,
        dt=0.02,
    )
    return held.I


@pytest.mark.parametrize(
    "is_ideal", (True, pytest.param(False, marks=pytest.mark.slow))
)
def test_derivatives_of_both_modes_are_those_of_differences(is_ideal):
    of = jax.jit(lambda x: measured(x, None if is_ideal else x["R_s"]))
    forward, reverse = jax.jit(jax.jacfwd(of))(AT), jax.jit(jax.jacrev(of))(AT)
    for name, x in AT.items():
        step = jnp.asarray(1e-5 * (1 + np.abs(x)))
        up, down = (of(AT | {name: x + sign * step}) for sign in (1, -1))
        along = lambda of, name=name, step=step: np.sum(
            (np.asarray(of[name]) * np.asarray(step)).reshape(3, -1), axis=1
        )
        expected, atol = (up - down) / 2, 1e-9 * float(np.abs(up).max())
        how: dict[str, Any] = {"atol": atol, "err_msg": name}
        np.testing.assert_allclose(along(forward), expected, rtol=1e-5, **how)
        np.testing.assert_allclose(along(reverse), along(forward), rtol=1e-8, **how)


def test_the_time_of_a_jump_is_differentiable_where_a_step_ends_too():
    first, second, third = (steady(V) for V in (-80.0, -10.0, -40.0))
    ts = np.array([5.0, 6.0, 9.0])

    def gate(onset):
        command = dj.Step(-80.0) + dj.Step(70.0, 2.0, onset) + dj.Step(40.0, onset)
        return dj.clamp(K_ONLY, np.array([MAX]), command, ts).gates[:, 0]

    at = 5.0
    slope = jax.jacfwd(gate)(at)[1:]
    x = second + (first - second) * np.exp(-(at - 2.0) / TAU)
    moved = ((second - x) - (third - x)) / TAU * np.exp(-(ts[1:] - at) / TAU)
    np.testing.assert_allclose(slope, moved, rtol=1e-4)


def test_cells_together_are_those_alone(ideal):
    for i, level in enumerate(LEVELS):
        alone = clamped(dj.Step(-65.0) + dj.Step(level + 65.0, 2.0, 12.0))
        np.testing.assert_allclose(alone.I, ideal.I[i], rtol=1e-9)
    each = jax.vmap(lambda x: clamped(dj.Step(-65.0) + dj.Step(x + 65.0, 2.0, 12.0)).I)
    np.testing.assert_allclose(each(jnp.asarray(LEVELS)), ideal.I, rtol=1e-9)
    cells = np.outer([1.0, 1.2, 0.8], G)
    resistances = np.array([0.1, 0.2, 0.3])
    many = clamped(g=cells, series_resistance=resistances)
    alone = dj.Step(-65.0) + dj.Step(LEVELS[1] + 65.0, 2.0, 12.0)
    one = clamped(alone, g=cells[1], series_resistance=0.2)
    np.testing.assert_allclose(many.V[1], one.V, rtol=1e-9)


def test_single_precision_is_kept_at_late_times():
    late = dj.Step(-65.0) + dj.Step(65.0, 3000.0)
    ts = np.array([2999.0, 3000.0, 3001.0])
    how: dict[str, Any] = {"neuron": K_ONLY, "dt": 0.05}
    double = clamped(late, ts, g=np.array([MAX]), **how)
    single = clamped(late, ts, g=np.array([MAX], np.float32), **how)
    assert single.V.dtype == single.I.dtype == jnp.float32
    np.testing.assert_allclose(single.V, double.V, atol=0.01)
    np.testing.assert_allclose(single.I, double.I, rtol=2e-3, atol=1e-3)


# What does not work is said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": dj.Waveform(np.full(11, -60.0), 1.0)}, "lasts 10 ms.*is 15 ms"),
        ({"g": G[:2]}, "last axis of 3"),
        ({"ts": TS[::-1]}, "`ts` must rise"),
        ({"ts": TS - 1.0}, "from 0 on"),
        ({"dt": 1.0}, "between 0 and 0.5"),
        ({"V_hold": 400.0}, r"`V_hold` must be potentials .*got 400"),
        ({"series_resistance": 0.0}, "`series_resistance` must be positive.* got 0"),
        ({"g": np.tile(G, (2, 1))}, r"\(2,\) for `g` and \(3,\) for Together"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        clamped(**changes)


@pytest.mark.parametrize("command", (None, -60.0))
def test_a_clamp_needs_a_command(command):
    with pytest.raises(TypeError, match=r"`command` must be a stimulus in mV"):
        as_command(command, 10.0)


def test_times_have_values():
    with pytest.raises(TypeError, match="`ts` is traced"):
        jax.jit(lambda ts: dj.clamp(AXON, G, JUMP, ts).I)(jnp.asarray(TS))
