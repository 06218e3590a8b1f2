"""Conductances in, spikes and trajectories out."""

from dicjax.simulation.cells import (
    Cell as Cell,
    in_a_row as in_a_row,
    log_conductances as log_conductances,
    Numbers as Numbers,
    picked as picked,
)
from dicjax.simulation.detection import detect_spike as detect_spike
from dicjax.simulation.integrator import (
    LONGEST as LONGEST,
    next_step as next_step,
    relax_gates as relax_gates,
    relax_membrane as relax_membrane,
)
from dicjax.simulation.noise import (
    Drive as Drive,
    FluctuatingCurrent as FluctuatingCurrent,
    NoisyCurrent as NoisyCurrent,
)
from dicjax.simulation.protocols import (
    clamp as clamp,
    Clamped as Clamped,
    PulseTrain as PulseTrain,
)
from dicjax.simulation.scheduler import num_cores as num_cores
from dicjax.simulation.simulate import Run as Run, simulate as simulate
from dicjax.simulation.solvers import (
    Membrane as Membrane,
    StaggeredMidpoint as StaggeredMidpoint,
)
from dicjax.simulation.stimulus import (
    AbstractStimulus as AbstractStimulus,
    applied as applied,
    as_stimulus as as_stimulus,
    cell_axes as cell_axes,
    Chirp as Chirp,
    Injected as Injected,
    InjectedConductance as InjectedConductance,
    per_cell as per_cell,
    Ramp as Ramp,
    Step as Step,
    Waveform as Waveform,
)
from dicjax.simulation.trajectories import (
    SavedState as SavedState,
    solve as solve,
    Trajectory as Trajectory,
)
