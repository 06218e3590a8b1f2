"""Silences of a train that look as if the recording paused."""

import numpy as np
from jaxtyping import Float

from dicjax.spikes import SpikeTrain


# Each was chosen on the real recordings that docs/recordings.md names.
PAUSE_SHARE, PAUSE_RATIO = 0.1, 3.0  # of the recording, and of the next longest
MANY_RATIO = 10.0  # of the shortest of several pauses, and the next interval
MIN_PIECE, MIN_PIECE_MS = 20, 5e3  # between two of these; bursts are shorter
MOST_PAUSES = 200


def pauses_of(train: SpikeTrain) -> Float[np.ndarray, "pauses 2"]:
    """Silences between spikes (ms) that look as if the recording paused, in order."""
    is_known = ~train.is_fresh[1:]
    silences = np.stack([train.times[:-1], train.times[1:]], axis=1)[is_known]
    lengths = silences[:, 1] - silences[:, 0]
    order = np.argsort(-lengths, kind="stable")[: MOST_PAUSES + 1]
    ordered, none = lengths[order], silences[:0]
    if ordered.size < 2:
        return none
    ratios = ordered[:-1] / ordered[1:]
    most = max(PAUSE_SHARE * train.duration, PAUSE_RATIO * ordered[1])
    if ordered[0] >= most:
        return silences[order[:1]]
    num = int(np.argmax(ratios)) + 1
    found = silences[np.sort(order[:num])]
    inside = np.searchsorted(train.times, [*found[:, 1], np.inf])
    runs = np.diff(inside, prepend=0)[1:-1]  # between two pauses
    is_long = ordered[:num].sum() >= PAUSE_SHARE * train.duration
    is_apart = ratios[num - 1] >= MANY_RATIO
    lasting = (found[1:, 0] - found[:-1, 1]).min(initial=np.inf)
    is_rare = runs.min(initial=MIN_PIECE) >= MIN_PIECE and lasting >= MIN_PIECE_MS
    return found if is_long and is_apart and is_rare else none
