"""The crab walking-leg axon of Connor & Stevens (1971)."""

from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import (
    Exponential,
    Gate,
    Linoid,
    Power,
    Product,
    RateGate,
    Sigmoid,
)
from dicjax.neurons.neuron import Neuron


def connor_stevens() -> Neuron:
    """A neuron whose A current allows slow firing: Na, Kd, A and leak.

    It can fire at arbitrarily low rates. It has two timescales only. The published
    activation of the A current exceeds 1 by up to 3 % above 35 mV.

    ??? cite "Reference"

        Connor & Stevens (1971), J. Physiol. 213; Connor, Walter & McKown (1977),
        Biophys. J. 18; with the numbers of Dayan & Abbott (2001), *Theoretical
        Neuroscience*, chapter 6.
    """
    # Rates per ms.
    m = RateGate(3, Linoid(-29.7, 10.0, 3.8), Exponential(-54.7, -1 / 0.0556, 15.2))
    closing = Sigmoid(-18.0, -10.0, amplitude=3.8)
    h = RateGate(1, Exponential(-48.0, -20.0, 0.266), closing)
    n = RateGate(4, Linoid(-45.7, 10.0, 0.2), Exponential(-55.7, -80.0, 0.25))
    # Time constants in ms.
    opening = Exponential(-94.22, 1 / 0.0314, 0.0761), Sigmoid(-1.17, 1 / 0.0346)
    tau_a = Sigmoid(-55.96, 1 / 0.0497, 0.3632, 1.158)
    a = Gate(3, Power(Product(opening), 1 / 3), tau_a)
    tau_b = Sigmoid(-50.0, 1 / 0.0624, 1.24, 2.678)
    b = Gate(1, Power(Sigmoid(-53.3, 1 / 0.0688), 4), tau_b)
    return Neuron(
        name="connor-stevens",
        channels=(
            GatedChannel("Na", (m, h), reversal=55.0),
            GatedChannel("Kd", (n,), reversal=-72.0),
            GatedChannel("A", (a, b), reversal=-75.0),
            GatedChannel("leak", reversal=-17.0),
        ),
        timescales=(m.time_constant, n.time_constant, None),
        V_ref=-57.0,
        initial_V=-68.0,
        defaults={"Na": 120.0, "Kd": 20.0, "A": 47.7, "leak": 0.3},
    )
