"""What physiologists do to a cell: trains of pulses, and a voltage clamp."""

from dicjax.simulation.protocols.pulses import PulseTrain as PulseTrain
from dicjax.simulation.protocols.voltage_clamp import (
    clamp as clamp,
    Clamped as Clamped,
)
