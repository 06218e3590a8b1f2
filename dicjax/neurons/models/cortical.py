"""A cortical cell that has the channels of all kinds of cells."""

from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import Bell, Gate, Sigmoid
from dicjax.neurons.models.pospischil import (
    high_calcium,
    low_calcium,
    muscarinic,
    potassium,
    sodium,
    timescales,
)
from dicjax.neurons.neuron import Neuron, Temperature


V_T = -56.2  # mV, as in regular spiking and intrinsically bursting cells
DEFAULTS = dict(Na=56.0, Kd=6.0, M=0.075, CaL=0.01, CaT=0.05, H=0.005, leak=0.0205)


def cortical() -> Neuron:
    """A cortical cell: Na, Kd, M, CaL, CaT, H and leak.

    It has the channels of all kinds of `pospischil`, with the constants of the regular
    spiking cell, and an H current, which those kinds lack. Its conductances make it
    regular spiking, fast spiking, bursting, rebounding, or anything in between. The
    kinetics are for 36 °C. `cortical().at(22.0)` is a cell at room temperature, almost
    five times slower.

    ??? cite "Reference"

        Pospischil, Toledo-Rodriguez, Monier, Piwkowska, Bal, Frégnac, Markram &
        Destexhe (2008). *Minimal Hodgkin-Huxley type models for different classes of
        cortical and thalamic neurons.* Biol. Cybern. 99.

        Huguenard & McCormick (1992). *Simulation of the currents involved in rhythmic
        oscillations in thalamic relay neurons.* J. Neurophysiol. 68.
    """
    na, kd, m = sodium(V_T), potassium(V_T), muscarinic(608.0)
    # H has rates exp(-14.59 - 0.086 V) and exp(-1.87 + 0.0701 V) per ms, at 35.5 °C.
    tau_h = Bell((-14.59 / 0.086, -1 / 0.086), (1.87 / 0.0701, 1 / 0.0701))
    h = GatedChannel("H", (Gate(1, Sigmoid(-75.0, 5.5), tau_h),), reversal=-43.0)
    leak = GatedChannel("leak", reversal=-75.0)
    return Neuron(
        name="cortical",
        channels=(na, kd, m, high_calcium(), low_calcium(-7.0), h, leak),
        timescales=timescales(na, kd, m),
        V_ref=-53.0,
        initial_V=-72.0,
        temperature=Temperature(36.0, reference=36.0, q10=3.0),
        defaults=DEFAULTS,
    )
