"""Measurements as a table: medians over rounds, spread, and errors."""

import dataclasses
from typing import Any

import numpy as np

import dicjax as dj
from dicjax.spikes.trains import pad_trains


TONIC, BURSTING = dj.LABELS.index("tonic"), dj.LABELS.index("bursting")
UNSETTLED = 1e-3  # of the period


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, least and most over rounds."""

    median: float
    least: float
    most: float

    def text(self, digits: int = 3) -> str:
        median, least, most = (
            _digits(x, digits) for x in (self.median, self.least, self.most)
        )
        return f"{median} ({least}-{most})"


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Periods (ms) and labels of the first cells, and which of them are `certain`.

    Where spikes per burst are about to change, no tolerance may settle the period, and
    where intervals alternate, it is a matter of which spike comes first or last; no
    simulator can then be told right from wrong.
    """

    period: np.ndarray
    label: np.ndarray
    certain: np.ndarray

    @classmethod
    def from_trains(
        cls, trains: list[np.ndarray], looser: list[np.ndarray], discard: float
    ) -> "Truth":
        """From solutions at two tolerances, spike times in ms."""
        period, label = _periods(trains, discard)
        kept = [x[x >= discard] for x in trains]
        certain = np.ones(len(trains), bool)
        for others in (looser, [x[1:] for x in kept], [x[:-1] for x in kept]):
            other_period, other_label = _periods(others, discard)
            apart = np.abs(other_period / period - 1) > UNSETTLED
            certain &= (label == other_label) & ~apart
        return cls(period, label, certain)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Of periods, in %; and how many cells have another label than the reference."""

    median: float
    mean: float
    most: float
    other_labels: int
    num: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """A row of the table. `ratio`: how many times faster the standard is, per CPU."""

    row: str
    num: int
    missing: str | None = None
    per_cpu: Spread | None = None
    per_wall: Spread | None = None
    ratio: Spread | None = None
    startup: Spread | None = None
    build: Spread | None = None
    peak_mb: Spread | None = None
    errors: Errors | None = None


def summarise(
    measurements: list[dict[str, Any]],
    duration: float,
    standard: str,
    truth: Truth,
    discard: float,
) -> list[Summary]:
    """One summary per row of `measurements`, fastest first.

    Rates are compared with those of the row `standard` in the same round.
    """
    rates = {
        x["round"]: _rate(x, duration, "run_cpu_s")
        for x in measurements
        if x["row"] == standard and "run_s" in x
    }
    summaries = []
    for row in dict.fromkeys(x["row"] for x in measurements):
        of = [x for x in measurements if x["row"] == row]
        good = [x for x in of if "run_s" in x]
        if not good:
            missing = of[-1]["missing"]
            summaries.append(Summary(row, of[0]["num"], missing=missing))
            continue
        per_cpu = {x["round"]: _rate(x, duration, "run_cpu_s") for x in good}
        ratios = [rates[i] / rate for i, rate in per_cpu.items() if i in rates]
        peaks = [x["peak_mb"] for x in good if x["peak_mb"] is not None]
        summaries.append(
            Summary(
                row=row,
                num=good[0]["num"],
                per_cpu=_spread(list(per_cpu.values())),
                per_wall=_spread([_rate(x, duration, "run_s") for x in good]),
                ratio=_spread(ratios) if ratios else None,
                startup=_spread([x["import_s"] for x in good]),
                build=_spread([x["build_s"] for x in good]),
                peak_mb=_spread(peaks) if peaks else None,
                errors=errors(good[-1]["spikes"], truth, discard),
            )
        )
    return sorted(summaries, key=lambda x: -x.per_cpu.median if x.per_cpu else 0.0)


def _rate(x: dict[str, Any], duration: float, seconds: str) -> float:
    return x["num"] * duration / 1000 / x[seconds]


def _spread(values: list[float]) -> Spread:
    return Spread(float(np.median(values)), min(values), max(values))


def errors(spikes: np.ndarray, truth: Truth, discard: float) -> Errors | None:
    """How far periods are from the truth, where both fire in one pattern."""
    num = min(len(spikes), len(truth.period))
    found, label = _periods(list(spikes[:num]), discard)
    true, certain = truth.period[:num], truth.certain[:num]
    same = label == truth.label[:num]
    both = certain & same & np.isfinite(found) & np.isfinite(true)
    other = int((certain & ~same).sum())
    if not both.any():
        return None
    error = 100 * np.abs(found[both] / true[both] - 1)
    values = (float(f(error)) for f in (np.median, np.mean, np.max))
    return Errors(*values, other_labels=other, num=int(certain.sum()))


def _periods(trains: list[np.ndarray], discard: float) -> tuple[np.ndarray, np.ndarray]:
    """Period (ms; nan for what is neither tonic nor bursting) and label of each."""
    rows = pad_trains([np.append(x[x >= discard], np.inf) for x in trains])
    features = dj.spike_features(rows)
    label = np.asarray(features.label)
    period = np.where(
        label == TONIC,
        np.asarray(features.mean_isi),
        np.where(label == BURSTING, np.asarray(features.period), np.nan),
    )
    return period, label


# The table

COLUMNS = (
    "simulator",
    "n",
    "n-s per CPU-s",
    "dicjax is faster by",
    "n-s per s",
    "start-up, s",
    "build, s",
    "peak MB",
    "period error %: median, mean, most",
    "other label",
)


def table(summaries: list[Summary]) -> str:
    """Columns as wide as they need."""
    rows = [COLUMNS, *(_cells(x) for x in summaries if x.missing is None)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for row in rows:
        first, *rest = (x.ljust(width) for x, width in zip(row, widths, strict=True))
        lines.append("  ".join((first, *rest)).rstrip())
    lines += [f"{x.row}: {x.missing}" for x in summaries if x.missing is not None]
    return "\n".join(lines)


def _cells(x: Summary) -> tuple[str, ...]:
    values = (x.per_cpu, x.ratio, x.per_wall, x.startup, x.build)
    first, *rest = (value.text() if value else "-" for value in values)
    ratio, *others = rest
    peak = f"{x.peak_mb.median:.0f}" if x.peak_mb else "-"
    wrong = ("-", "-")
    if x.errors is not None:
        e = x.errors
        shown = ", ".join(_digits(v, 2) for v in (e.median, e.mean, e.most))
        wrong = (shown, f"{e.other_labels} of {e.num}")
    return (x.row, str(x.num), first, ratio, *others, peak, *wrong)


def _digits(x: float, digits: int) -> str:
    """`x` to so many significant digits, without an exponent."""
    if x == 0 or not np.isfinite(x):
        return f"{x:g}"
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(x)))))
    return f"{x:.{places}f}"
