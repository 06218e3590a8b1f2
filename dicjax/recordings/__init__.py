"""Files in, spike trains and current-clamp sweeps out, and what is odd about them."""

from dicjax.recordings.cleaning import cleanings as cleanings
from dicjax.recordings.current_clamp.files import read_sweeps as read_sweeps
from dicjax.recordings.current_clamp.steps import (
    find_steps as find_steps,
    passive_membrane as passive_membrane,
    PassiveMembrane as PassiveMembrane,
    Steps as Steps,
)
from dicjax.recordings.current_clamp.sweeps import Sweeps as Sweeps
from dicjax.recordings.quality import examine as examine, Finding as Finding
from dicjax.recordings.readers import (
    read_spike_trains as read_spike_trains,
    read_units as read_units,
    Refused as Refused,
)
from dicjax.recordings.readers.common import (
    checksum as checksum,
    listing as listing,
    MAX_BYTES as MAX_BYTES,
    reading as reading,
    TooLarge as TooLarge,
    Train as Train,
)
from dicjax.recordings.readers.kilosort import PARTS as PARTS, TIMES as TIMES
from dicjax.recordings.readers.plausibility import (
    is_credible as is_credible,
    POSSIBLE_HZ as POSSIBLE_HZ,
    units_that_fit as units_that_fit,
)
from dicjax.recordings.readers.units import (
    milliseconds_per as milliseconds_per,
    samples_at as samples_at,
)
from dicjax.recordings.stretches import (
    best_stretch as best_stretch,
    pattern_shares as pattern_shares,
    steady_stretches as steady_stretches,
    Stretch as Stretch,
    Window as Window,
)
