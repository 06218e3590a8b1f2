"""The midbrain dopamine neuron of Qian et al. (2014), reduced."""

from dicjax.neurons.channels import GatedChannel, MarkovChannel, Transition
from dicjax.neurons.curves import (
    Constant,
    Exponential,
    Gate,
    Linoid,
    MagnesiumBlock,
    Relaxation,
    Sigmoid,
    Sum,
)
from dicjax.neurons.neuron import Neuron
from dicjax.neurons.recipe import Recipe


RECIPE = Recipe(
    ranges=dict(
        leak=(0.0087, 0.017), Kd=(6.0, 10.0), CaL=(0.015, 0.075), NMDA=(0.012, 0.012)
    ),
    box=dict(Na=60.0, Kd=20.0, CaL=0.1, CaN=0.3, ERG=0.25, NMDA=0.02, leak=0.02),
    g_s=(-10.0, 15.0),
    g_u=(0.0, 20.0),
    pairs=(("g_s < 0", ("ERG", "CaL")), ("always", ("ERG", "Kd"))),
    solved=("ERG", "Kd"),
    scaled_by_leak=True,
    seed_targets=(-12.95, 0.5, 5.0),
    seed_channels=("Na", "CaN", "ERG"),
    duration=24_000.0,
)


def _rate(amplitude: float, slope: float) -> Exponential:
    """`amplitude * exp(slope * V)`, the form of this model's published rates."""
    return Exponential(0.0, 1 / slope, amplitude)


def da() -> Neuron:
    """The dopamine (DA) neuron: Na, Kd, CaL, CaN, ERG, NMDA and leak.

    ERG is a kinetic scheme of three states and counts as ultraslow. NMDA opens
    instantaneously. The rate of sodium activation is smooth here. With its published,
    rounded constants it has a pole, and a negative time constant, within 3 µV of
    -38.727 mV. Simulations start with ERG in equilibrium; published simulations start
    with all ERG channels closed.

    ??? cite "Reference"

        Qian, Yu, Canavier & Brown (2014). *Mathematical analysis of depolarization
        block mediated by slow inactivation of fast sodium channels in midbrain dopamine
        neurons.* J. Neurophysiol. 112. Reduced as by Fyon, Franci, Sacré & Drion
        (2024), PNAS Nexus 3(10); the recipe is from Brandoit, Ernst, Drion & Fyon
        (2025), arXiv 2509.12783.
    """
    # Time constants in ms, rates per ms.
    opening = Linoid(-38.70987, 1 / 0.5052, 0.4043 / 0.5052)
    tau_m_na = Sum((Constant(0.01), Relaxation(opening, _rate(3.0212, -0.007463))))
    tau_h_na = Relaxation(_rate(5.0754e-4, -0.063213), _rate(9.7529, 0.13442))
    tau_h_na = Sum((Constant(0.4), tau_h_na))
    m_na = Gate(3, Sigmoid(-30.0907, -9.7264), tau_m_na)
    h_na = Gate(1, Sigmoid(-54.0289, 10.7665), tau_h_na)
    n_kd = Gate(3, Sigmoid(-25.0, -12.0), Sigmoid(-38.0, -10.0, 20.0, -18.0))
    m_cal = Gate(2, Sigmoid(-50.0, -2.0), Sigmoid(-45.0, -3.0, 30.0, -28.0))
    m_can = Gate(1, Sigmoid(-30.0, -7.0), Sigmoid(-55.0, -6.0, 30.0, -25.0))
    return Neuron(
        name="da",
        channels=(
            GatedChannel("Na", (m_na, h_na), reversal=60.0),
            GatedChannel("Kd", (n_kd,), reversal=-85.0),
            GatedChannel("CaL", (m_cal,), reversal=60.0),
            GatedChannel("CaN", (m_can,), reversal=60.0),
            MarkovChannel(
                "ERG",
                ("closed", "open", "inactivated"),
                (
                    Transition("closed", "open", _rate(0.0036, 0.0759)),
                    Transition("open", "closed", _rate(1.2523e-5, -0.0671)),
                    Transition("open", "inactivated", _rate(0.1, 0.1189)),
                    Transition("inactivated", "open", _rate(0.003, -0.0733)),
                ),
                open_states=("open",),
                time_constant=float("inf"),
                reversal=-85.0,
            ),
            GatedChannel("NMDA", factor=MagnesiumBlock(1.4, 10.0, 12.5), reversal=0.0),
            GatedChannel("leak", reversal=-50.0),
        ),
        timescales=(tau_m_na, n_kd.time_constant, Constant(100.0)),
        V_ref=-55.5,
        initial_V=-90.0,
        defaults=dict(
            Na=35.5, Kd=8.0, CaL=0.045, CaN=0.041, ERG=0.15, NMDA=0.012, leak=0.01285
        ),
        recipe=RECIPE,
    )
