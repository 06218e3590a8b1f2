"""The squid giant axon of Hodgkin & Huxley (1952)."""

from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import Exponential, Linoid, RateGate, Sigmoid
from dicjax.neurons.neuron import Neuron, Temperature


def hodgkin_huxley() -> Neuron:
    """The squid giant axon: Na, Kd and leak, at 6.3 °C.

    Potentials have the modern sign, with rest at -65 mV. The model has two timescales
    only. `at` changes its temperature, with the original $q_{10}$ of 3.

    ??? cite "Reference"

        Hodgkin & Huxley (1952). *A quantitative description of membrane current and its
        application to conduction and excitation in nerve.* J. Physiol. 117.
    """
    # Rates per ms.
    m = RateGate(3, Linoid(-40.0, 10.0, 1.0), Exponential(-65.0, -18.0, 4.0))
    h = RateGate(1, Exponential(-65.0, -20.0, 0.07), Sigmoid(-35.0, -10.0))
    n = RateGate(4, Linoid(-55.0, 10.0, 0.1), Exponential(-65.0, -80.0, 0.125))
    return Neuron(
        name="hodgkin-huxley",
        channels=(
            GatedChannel("Na", (m, h), reversal=50.0),
            GatedChannel("Kd", (n,), reversal=-77.0),
            GatedChannel("leak", reversal=-54.387),
        ),
        timescales=(m.time_constant, n.time_constant, None),
        V_ref=-60.0,
        initial_V=-65.0,
        temperature=Temperature(celsius=6.3, reference=6.3, q10=3.0),
        defaults={"Na": 120.0, "Kd": 36.0, "leak": 0.3},
    )
