"""Units of time in labels and arguments, and labels of times and of neurons."""

import re

import numpy as np


MILLISECONDS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "min": 6e4}
_UNIT_WORDS = {
    "ms": {"ms", "msec", "millisecond"},
    "s": {"s", "sec", "second"},
    "us": {"us", "μs", "usec", "microsecond"},
    "min": {"min", "minute"},
    "samples": {"sample"},
}
_SPIKE_WORDS = {"spike", "spiking", "spiketime", "spk", "ts", "timestamp"}
_INTERVAL_WORDS = {"isi", "interval", "interspike", "inter"}
_TIME_WORDS = _SPIKE_WORDS | {"t", "time", "zeit", "temp", "tiempo", "tempo", "tijd"}
_ID_WORDS = {"id", "unit", "neuron", "cell", "cluster", "channel", "electrode", "ch"}
_ID_WORDS |= {"chan", "site", "tetrode", "name", "label", "sender", "node", "gid"}
_ID_WORDS |= {"clu"}
_ID_WORDS |= {"population", "source", "trial", "sweep", "segment", "episode"}
_COUNT_WORDS = {"number", "no", "nr", "num", "index", "idx"}
# Of columns beside times; the first also where a label has a word for times.
_BOUND_WORDS = {"burst", "start", "end", "stop", "begin", "duration", "rise", "decay"}
_BOUND_WORDS |= {"stim", "stimulus", "latency", "lag"}
_MEASURE_WORDS = {"amplitude", "amp", "voltage", "potential", "mv", "µv", "μv", "uv"}
_MEASURE_WORDS |= {"pa", "na", "hz", "khz", "rate", "freq", "frequency", "peak"}
_MEASURE_WORDS |= {"trough", "height", "width", "energy", "area", "slope", "snr"}
_MEASURE_WORDS |= {"depth", "count", "row", "onset", "offset", "current", "quality"}
_MEASURE_WORDS |= {"temperature", "date", "comment", "note", "score", "waveform"}
_MEASURE_WORDS |= _COUNT_WORDS
LEAST_HZ = 1e-3  # of sampling
_RATE = re.compile(r"samples@(\d+(\.\d*)?)", re.ASCII)


def milliseconds_per(unit: str) -> float:
    rate = _RATE.fullmatch(unit)
    if rate and 0 < float(rate[1]) < np.inf:
        return 1e3 / float(rate[1])
    if unit not in MILLISECONDS:
        raise ValueError(
            f"`unit` must be one of {', '.join(MILLISECONDS)}, or sample indices with "
            f"their rate in Hz, such as samples@30000, but is {unit!r}."
        )
    return MILLISECONDS[unit]


def is_rate(rate: float) -> bool:
    """Whether it can be a sampling rate, in Hz."""
    return LEAST_HZ <= rate < np.inf


def samples_at(rate: float) -> str:
    """The unit of sample indices at a rate in Hz."""
    return f"samples@{rate:.6f}".rstrip("0").rstrip(".")


def contradict(unit: str, stated: str) -> bool:
    kinds, rates = zip(*((u.partition("@")[::2]) for u in (unit, stated)), strict=True)
    differ = all(rates) and float(rates[0]) != float(rates[1])
    return kinds[0] != kinds[1] or differ


def _words(label: str) -> set[str]:
    # "Time(s)" is in seconds, "Spike(s)" is a plural.
    label = re.sub(r"(?i)(spike|neuron|unit|cell)\(s\)", r"\1", label)
    label = re.sub(r"(?<=[a-z]{2})(?=[A-Z])", " ", label)  # unitID
    words = re.findall(r"[^\W\d_]+", label.casefold())
    return {word.removesuffix("s") if len(word) > 2 else word for word in words}


def stated_unit(label: str) -> str | None:
    words = _words(label)
    found = {unit for unit, names in _UNIT_WORDS.items() if words & names}
    is_of_time = words & (_TIME_WORDS | _INTERVAL_WORDS)
    # A neuron may be called "LP_s" or "sample 1".
    if not (is_of_time or re.search(r"[(\[]", label)):
        found -= {"s", "min", "samples"} if len(words) > 1 else {"samples"}
    return found.pop() if len(found) == 1 else None


def named_unit(text: str) -> str | None:
    """The unit in a separate field, such as `samples@30000` or `seconds`."""
    return text.strip() if _RATE.fullmatch(text.strip()) else stated_unit(f"t [{text}]")


def is_time(label: str) -> bool:
    """Whether a label only names times, or intervals between spikes."""
    known = _TIME_WORDS.union(_INTERVAL_WORDS, {"arr", "in"}, *_UNIT_WORDS.values())
    return _words(label) <= known


def is_of_spikes(label: str) -> bool:
    return bool(_words(label) & _SPIKE_WORDS)


def is_intervals(label: str) -> bool:
    return bool(_words(label) & (_INTERVAL_WORDS - {"inter"}))


def is_id(label: str) -> bool:
    words = _words(label)
    is_known = bool(words & _ID_WORDS) and words <= _ID_WORDS | _COUNT_WORDS
    return is_known and not re.search(r"\d", label)


def is_measure(label: str) -> bool:
    """Whether a label names what is measured beside spikes, or counts rows."""
    words = _words(label)
    is_timed = bool(words & _TIME_WORDS)
    known = _BOUND_WORDS if is_timed else _BOUND_WORDS | _MEASURE_WORDS
    return bool(words & known) or label.strip() == "#"


def is_usual_ms(label: str) -> bool:
    return "spiking" in _words(label)
