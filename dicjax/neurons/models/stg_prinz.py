"""The crab stomatogastric neuron after Prinz et al. (2003)."""

import equinox as eqx

from dicjax.neurons.channels import AbstractChannel, GatedChannel
from dicjax.neurons.curves import Bell, Gate, Nernst, Scaled, Sigmoid
from dicjax.neurons.models.stg import stg
from dicjax.neurons.neuron import Calcium, Neuron
from dicjax.neurons.recipe import Recipe


BOX = dict(Na=500.0, Kd=125.0, CaT=12.5, CaS=10.0, KCa=25.0, A=50.0, H=0.05, leak=0.05)
RECIPE = Recipe(
    ranges={name: (0.0, high) for name, high in BOX.items()},
    box=BOX,
    g_s=(-16.0, 2.0),
    g_u=(-1.0, 8.0),
    pairs=(("always", ("CaS", "H")),),
    solved=("A", "H"),
    bounded=True,
    noise=(0.5, 1.5),
    duration=24_000.0,
    discard=4_000.0,
    dt=0.1,
)


def _doubled(channel: AbstractChannel) -> GatedChannel:
    assert isinstance(channel, GatedChannel)
    gates = tuple(
        Gate(gate.exponent, gate.steady_state, Scaled(gate.time_constant, 2.0))
        for gate in channel.gates
    )
    return eqx.tree_at(lambda c: c.gates, channel, gates)


def stg_prinz() -> Neuron:
    """The stomatogastric neuron with the periods of real pyloric recordings.

    It has the channels of [`dicjax.stg`][] with doubled time constants, another H
    current, slow calcium, and a calcium reversal that follows Nernst's equation. It
    bursts with periods of 0.27 to 6.3 s.

    ??? cite "Reference"

        Prinz, Billimoria & Marder (2003). *Alternative to hand-tuning conductance-based
        models: construction and analysis of databases of model neurons.* J.
        Neurophysiol. 90:3998. The default conductances are AB/PD 1 of Prinz, Bucher &
        Marder (2004), Nat. Neurosci. 7:1345.
    """
    tau_m_h = Bell((-169.7, -11.6), (26.7, 14.3), amplitude=2.0)
    m_h = Gate(1, Sigmoid(-75.0, 5.5), tau_m_h)
    nernst = Nernst(outside=3000.0, temperature=283.15)
    channels = []
    for channel in stg().channels:
        channel = _doubled(channel)
        if channel.name == "H":
            channel = eqx.tree_at(lambda c: c.gates, channel, (m_h,))
        if channel.name in ("CaT", "CaS"):
            channel = eqx.tree_at(lambda c: c.reversal, channel, nernst)
        channels.append(channel)
    fast, slow = (channels[i].gates[0].time_constant for i in (0, 1))
    return Neuron(
        name="stg-prinz",
        channels=tuple(channels),
        timescales=(fast, slow, m_h.time_constant),
        V_ref=-48.0,
        normaliser=0.01,
        calcium=Calcium(
            ("CaT", "CaS"), influx=9.39, baseline=0.05, time_constant=200.0
        ),
        initial_V=-60.0,
        initial_Ca=0.05,
        defaults=dict(
            Na=400.0, Kd=100.0, CaT=2.5, CaS=6.0, KCa=10.0, A=50.0, H=0.01, leak=0.0
        ),
        recipe=RECIPE,
    )
