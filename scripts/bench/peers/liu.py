"""The neuron of Liu et al. (1998) as text, from which peers get their equations.

Written from the tables of the paper, so that nothing here comes from dicjax. The text
is C, Python and NMODL alike. Units: mV, ms, µM, mS/cm², µA/cm²; C is 1 µF/cm².
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np


INITIAL_V, INITIAL_CA = -70.0, 0.5


def sigmoid(shift: float, width: float, low: float = 0.0, rise: float = 1.0) -> str:
    """`low + rise / (1 + exp((v + shift) / width))`."""
    slope = f"{'-' if width < 0 else ''}(v + {shift})/{abs(width)}"
    curve = f"{abs(rise)}/(1 + exp({slope}))"
    sign = "-" if rise < 0 else "+"
    return curve if low == 0 and rise > 0 else f"{low} {sign} {curve}"


# Every state relaxes as x' = (inf - x)/tau.
GATES = {
    "m_Na": (sigmoid(25.5, -5.29), sigmoid(120.0, -25.0, 1.32, -1.26)),
    "h_Na": (
        sigmoid(48.9, 5.18),
        f"({sigmoid(62.9, -10.0, 0.0, 0.67)})*({sigmoid(34.9, 3.6, 1.5)})",
    ),
    "m_Kd": (sigmoid(12.3, -11.8), sigmoid(28.3, -19.2, 7.2, -6.4)),
    "m_CaT": (sigmoid(27.1, -7.2), sigmoid(68.1, -20.5, 21.7, -21.3)),
    "h_CaT": (sigmoid(32.1, 5.5), sigmoid(55.0, -16.9, 105.0, -89.8)),
    "m_CaS": (
        sigmoid(33.0, -8.1),
        "1.4 + 7/(exp((v + 27)/10) + exp(-(v + 70)/13))",
    ),
    "h_CaS": (
        sigmoid(60.0, 6.2),
        "60 + 150/(exp((v + 55)/9) + exp(-(v + 65)/16))",
    ),
    "m_KCa": (
        f"Ca/(Ca + 3)*{sigmoid(28.3, -12.6)}",
        sigmoid(46.0, -22.7, 90.3, -75.1),
    ),
    "m_A": (sigmoid(27.2, -8.7), sigmoid(32.9, -15.2, 11.6, -10.4)),
    "h_A": (sigmoid(56.9, 4.9), sigmoid(38.9, -26.5, 38.6, -29.2)),
    "m_H": (sigmoid(70.0, 6.0), sigmoid(42.2, -8.73, 272.0, 1499.0)),
}
CURRENTS = {
    "Na": "g_Na*m_Na*m_Na*m_Na*h_Na*(v - 50)",
    "Kd": "g_Kd*m_Kd*m_Kd*m_Kd*m_Kd*(v + 80)",
    "CaT": "g_CaT*m_CaT*m_CaT*m_CaT*h_CaT*(v - 80)",
    "CaS": "g_CaS*m_CaS*m_CaS*m_CaS*h_CaS*(v - 80)",
    "KCa": "g_KCa*m_KCa*m_KCa*m_KCa*m_KCa*(v + 80)",
    "A": "g_A*m_A*m_A*m_A*h_A*(v + 80)",
    "H": "g_H*m_H*(v + 20)",
    "leak": "g_leak*(v + 50)",
}
CHANNELS = tuple(CURRENTS)
TOTAL_CURRENT = " + ".join(CURRENTS.values())
CALCIUM = (f"0.05 - 0.94*({CURRENTS['CaT']} + {CURRENTS['CaS']})", "20.0")
STATES = {**GATES, "Ca": CALCIUM}


def conductances(g: np.ndarray) -> dict[str, np.ndarray]:
    """The last axis of `g`, by name."""
    return {f"g_{name}": g[..., i] for i, name in enumerate(CHANNELS)}


def vector_field(g: np.ndarray) -> Callable[[float, np.ndarray], list[float]]:
    """`field(t, y)` of one cell in plain Python; `y` is V, the gates and calcium."""
    names = ", ".join(("v", *STATES))
    rates = ", ".join(f"(({inf}) - {x})/({tau})" for x, (inf, tau) in STATES.items())
    known: dict[str, Any] = {k: float(x) for k, x in conductances(g).items()}
    known["exp"] = _exp
    source = (
        f"def field(t, y):\n    {names} = y.tolist()\n"
        f"    return [-({TOTAL_CURRENT}), {rates}]"
    )
    exec(source, known)
    return known["field"]


def _exp(x: float) -> float:
    # Implicit solvers try states from which `math.exp` overflows.
    return math.exp(min(x, 300.0))


def initial_state() -> np.ndarray:
    """Where every cell starts: gates in equilibrium."""
    known = {"exp": math.exp, "v": INITIAL_V, "Ca": INITIAL_CA}
    gates = [eval(inf, known) for inf, _ in GATES.values()]
    return np.array([INITIAL_V, *gates, INITIAL_CA])
