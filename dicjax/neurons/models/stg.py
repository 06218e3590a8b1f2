"""The crab stomatogastric neuron of Liu et al. (1998)."""

from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import Bell, CalciumSaturation, Gate, Product, Sigmoid
from dicjax.neurons.neuron import Calcium, Neuron
from dicjax.neurons.recipe import Recipe


RECIPE = Recipe(
    ranges={
        "leak": (0.007, 0.014),
        "Kd": (70.0, 140.0),
        "CaT": (3.0, 7.0),
        "CaS": (6.0, 22.0),
        "KCa": (140.0, 180.0),
    },
    box=dict(
        Na=8000.0, Kd=350.0, CaT=12.0, CaS=50.0, KCa=250.0, A=600.0, H=0.7, leak=0.02
    ),
    g_s=(-20.0, 20.0),
    g_u=(0.0, 20.0),
    pairs=(
        ("g_u < 0", ("CaS", "A")),
        ("g_s >= 0", ("A", "H")),
        ("always", ("CaS", "H")),
    ),
    solved=("A", "H"),
    scaled_by_leak=True,
    seed_targets=(-6.2, 4.0, 5.0),
    seed_channels=("Na", "A", "H"),
    dt=0.1,
)


def stg() -> Neuron:
    """The stomatogastric (STG) neuron: Na, Kd, CaT, CaS, KCa, A, H and leak.

    The calcium reversal is fixed at 80 mV, as in the published populations. The model
    bursts with periods of 80 to about 530 ms; [`dicjax.stg_prinz`][] is slower.

    ??? cite "Reference"

        Liu, Golowasch, Marder & Abbott (1998). *A model neuron with activity-dependent
        conductances regulated by multiple calcium sensors.* J. Neurosci. 18(7). The
        recipe is from Brandoit, Ernst, Drion & Fyon (2025), arXiv 2509.12783; the
        default conductances are burster 1 of Drion et al. (2015), eNeuro 2(1).
    """
    m_na = Gate(3, Sigmoid(-25.5, -5.29), Sigmoid(-120.0, -25.0, 1.32, -1.26))
    tau_h_na = Sigmoid(-62.9, -10.0, amplitude=0.67), Sigmoid(-34.9, 3.6, 1.5, 1.0)
    h_na = Gate(1, Sigmoid(-48.9, 5.18), Product(tau_h_na))
    m_kd = Gate(4, Sigmoid(-12.3, -11.8), Sigmoid(-28.3, -19.2, 7.2, -6.4))
    m_cat = Gate(3, Sigmoid(-27.1, -7.2), Sigmoid(-68.1, -20.5, 21.7, -21.3))
    h_cat = Gate(1, Sigmoid(-32.1, 5.5), Sigmoid(-55.0, -16.9, 105.0, -89.8))
    tau_m_cas = Bell((-27.0, 10.0), (-70.0, -13.0), 1.4, 7.0)
    m_cas = Gate(3, Sigmoid(-33.0, -8.1), tau_m_cas)
    tau_h_cas = Bell((-55.0, 9.0), (-65.0, -16.0), 60.0, 150.0)
    h_cas = Gate(1, Sigmoid(-60.0, 6.2), tau_h_cas)
    opening = Product((CalciumSaturation(3.0), Sigmoid(-28.3, -12.6)))
    m_kca = Gate(4, opening, Sigmoid(-46.0, -22.7, 90.3, -75.1))
    m_a = Gate(3, Sigmoid(-27.2, -8.7), Sigmoid(-32.9, -15.2, 11.6, -10.4))
    h_a = Gate(1, Sigmoid(-56.9, 4.9), Sigmoid(-38.9, -26.5, 38.6, -29.2))
    m_h = Gate(1, Sigmoid(-70.0, 6.0), Sigmoid(-42.2, -8.73, 272.0, 1499.0))
    return Neuron(
        name="stg",
        channels=(
            GatedChannel("Na", (m_na, h_na), reversal=50.0),
            GatedChannel("Kd", (m_kd,), reversal=-80.0),
            GatedChannel("CaT", (m_cat, h_cat), reversal=80.0),
            GatedChannel("CaS", (m_cas, h_cas), reversal=80.0),
            GatedChannel("KCa", (m_kca,), reversal=-80.0),
            GatedChannel("A", (m_a, h_a), reversal=-80.0),
            GatedChannel("H", (m_h,), reversal=-20.0),
            GatedChannel("leak", reversal=-50.0),
        ),
        timescales=(m_na.time_constant, m_kd.time_constant, m_h.time_constant),
        V_ref=-51.0,
        calcium=Calcium(("CaT", "CaS"), influx=0.94, baseline=0.05, time_constant=20.0),
        initial_V=-70.0,
        initial_Ca=0.5,
        defaults=dict(
            Na=700.0, Kd=70.0, CaT=2.0, CaS=4.0, KCa=40.0, A=50.0, H=0.03, leak=0.01
        ),
        recipe=RECIPE,
    )
