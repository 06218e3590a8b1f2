"""The cortical and thalamic cells of Pospischil et al. (2008)."""

import math
from typing import get_args, Literal

from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import (
    AbstractCurve,
    Bell,
    Constant,
    Exponential,
    Gate,
    Linoid,
    Power,
    Product,
    RateGate,
    Sigmoid,
    Sum,
)
from dicjax.neurons.neuron import Neuron
from dicjax.neurons.recipe import Recipe


Kind = Literal["RS", "FS", "IB", "LTS"]
THRESHOLD = {"RS": -56.2, "FS": -55.0, "IB": -56.2, "LTS": -50.0}  # mV
SLOWEST = {"RS": 608.0, "FS": 502.0, "IB": 608.0, "LTS": 4000.0}  # ms
V_REF = {"RS": -53.0, "FS": -50.0, "IB": -50.0, "LTS": -47.0}  # mV
LEAK = {"RS": -70.3, "FS": -70.0, "IB": -70.0, "LTS": -50.0}  # mV
DEFAULTS = {
    "RS": {"Na": 56.0, "Kd": 6.0, "M": 0.075, "leak": 0.0205},
    "FS": {"Na": 50.0, "Kd": 10.0, "M": 0.0, "leak": 0.15},
    "IB": {"Na": 50.0, "Kd": 5.0, "M": 0.03, "CaL": 0.1, "leak": 0.01},
    "LTS": {"Na": 50.0, "Kd": 4.0, "M": 0.028, "CaT": 0.4, "leak": 0.019},
}
# Three times the defaults, except CaL and M. CaL: three times the repetitively bursting
# cell of the authors' ModelDB entry (123623). M: twice the regular spiking cell.
BOX = {"Na": 150.0, "Kd": 15.0, "M": 0.15, "CaL": 0.66, "leak": 0.03}
RECIPE = Recipe(
    ranges={name: (0.0, high) for name, high in BOX.items()},
    box=BOX,
    g_s=(0.4, 3.2),
    g_u=(0.0, 9.0),
    pairs=(("always", ("Kd", "M")),),
    bounded=True,
    noise=(0.1, 0.3),
    current=1.0,
    duration=6000.0,
    discard=2000.0,
    dt=0.1,
)


def pospischil(kind: Kind = "RS") -> Neuron:
    """A cortical cell: Na, Kd, M and leak; also CaL if "IB", and CaT if "LTS".

    **Arguments:**

    - `kind`: regular spiking ("RS"), fast spiking ("FS"), intrinsically bursting ("IB")
        or low-threshold spiking ("LTS").

    **Raises:**

    - `ValueError`: if there is no such kind.

    ??? cite "Reference"

        Pospischil, Toledo-Rodriguez, Monier, Piwkowska, Bal, Frégnac, Markram &
        Destexhe (2008). *Minimal Hodgkin-Huxley type models for different classes of
        cortical and thalamic neurons.* Biol. Cybern. 99.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"`kind` must be one of {get_args(Kind)}, got {kind!r}.")
    V_T = THRESHOLD[kind]
    na, kd, m = sodium(V_T), potassium(V_T), muscarinic(SLOWEST[kind])
    calcium = {"IB": (high_calcium(),), "LTS": (low_calcium(-7.0),)}.get(kind, ())
    return Neuron(
        name=f"pospischil-{kind.lower()}",
        channels=(na, kd, m, *calcium, GatedChannel("leak", reversal=LEAK[kind])),
        timescales=timescales(na, kd, m),
        V_ref=V_REF[kind],
        # The recipe draws the leak down to zero, so that it cannot divide.
        normaliser=0.01 if kind == "IB" else "leak",
        initial_V=LEAK[kind],
        defaults=DEFAULTS[kind],
        recipe=RECIPE if kind == "IB" else None,
    )


def sodium(V_T: float) -> GatedChannel:
    """Na, after Traub and Miles, of a cell with a threshold near `V_T` mV."""
    # Rates per ms, time constants in ms.
    m = RateGate(3, Linoid(V_T + 13, 4.0, 1.28), Linoid(V_T + 40, -5.0, 1.4))
    closing = Sigmoid(V_T + 40, -5.0, amplitude=4.0)
    h = RateGate(1, Exponential(V_T + 17, -18.0, 0.128), closing)
    return GatedChannel("Na", (m, h), reversal=50.0)


def potassium(V_T: float) -> GatedChannel:
    """Delayed-rectifier K, after Traub and Miles; threshold near `V_T` mV."""
    n = RateGate(4, Linoid(V_T + 15, 5.0, 0.16), Exponential(V_T + 10, -40.0, 0.5))
    return GatedChannel("Kd", (n,), reversal=-90.0)


def muscarinic(slowest: float) -> GatedChannel:
    """The slow M current, after Yamada et al.; `slowest` is its `tau_max`, in ms."""
    flank = -35.0 - 20 * math.log(3.3)
    tau = Bell((flank, 20.0), (-35.0, -20.0), amplitude=slowest)
    return GatedChannel("M", (Gate(1, Sigmoid(-35.0, -10.0), tau),), reversal=-90.0)


def timescales(
    fast: GatedChannel, slow: GatedChannel, ultraslow: GatedChannel
) -> tuple[AbstractCurve, AbstractCurve, AbstractCurve]:
    """The time constants of the first gates of three channels."""
    gates = fast.gates[0], slow.gates[0], ultraslow.gates[0]
    return gates[0].time_constant, gates[1].time_constant, gates[2].time_constant


def high_calcium() -> GatedChannel:
    """High-threshold calcium, after Reuveni et al. (1993)."""
    q = RateGate(2, Linoid(-27.0, 3.8, 0.209), Exponential(-75.0, -17.0, 0.94))
    closing = Sigmoid(-15.0, -28.0, amplitude=0.0065)
    r = RateGate(1, Exponential(-13.0, -50.0, 0.000457), closing)
    return GatedChannel("CaL", (q, r), reversal=120.0)


def low_calcium(shift: float) -> GatedChannel:
    """Low-threshold calcium, after Destexhe et al. (1996); `shift` is `V_x`, in mV."""
    q10 = 3.0**1.2  # from 24 to 36 °C
    closing = Sigmoid(-84.0 - shift, 3.2)
    fast = Product((closing, Constant(211.4 / q10)))
    slow = Product((closing, Exponential(-113.2 - shift, 5.0, 1 / q10)))
    tau_u = Sum((Constant(30.8 / q10), fast, slow))
    u = Gate(1, Sigmoid(-81.0 - shift, 4.0), tau_u)
    s = Sigmoid(-57.0 - shift, -6.2)
    return GatedChannel("CaT", (u,), factor=Power(s, 2), reversal=120.0)
