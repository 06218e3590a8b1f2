"""Firing patterns."""

LABELS = ("silent", "tonic", "bursting", "irregular")
"""Names of the firing patterns, in the order of their numbers in `Features.label`."""
SILENT, TONIC, BURSTING, IRREGULAR = range(len(LABELS))

# The rule of the firing pattern: one for recordings and for simulated cells.
MIN_SPIKES = 3
MAX_TONIC_CV = 0.15
MIN_SPIKES_TO_BURST = 6
MIN_GAP_RATIO = 1.8
MIN_BURSTS = 3
MIN_SPIKES_PER_BURST = 1.5
