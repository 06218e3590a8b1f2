"""How every figure looks: colours, axes, ticks, words in place of legends."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator


# After Okabe & Ito, distinct for every kind of colour vision. Whoever embeds figures
# may exchange these for others, as the report does on a dark screen.
PAPER = "#ffffff"
INK = "#1d2733"
MUTED = "#66717e"
GRID = "#dde2e8"
OTHER = "#a9b1ba"
RECORDING = "#d55e00"
MEMBERS = "#0072b2"
HIGHLIGHTS = (MEMBERS, "#009e73", "#b0568b")
DARK = {
    PAPER: "#171c22",
    INK: "#e8ebef",
    MUTED: "#9aa6b2",
    GRID: "#333c46",
    OTHER: "#66717d",
    RECORDING: "#ff8f45",
    MEMBERS: "#5cb2f2",
    HIGHLIGHTS[1]: "#35c99b",
    HIGHLIGHTS[2]: "#e08fbf",
}

WIDTH = 7.2  # inches, of a figure that fills a page
MAX_VECTOR = 150  # marks beyond which a layer is drawn as pixels

Color = str | tuple[str, float]  # with an opacity


def new_figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def new_axes(figure: Figure, *place: int, sides=("left", "bottom")) -> Axes:
    return style_axes(figure.add_subplot(*place), sides=sides)


def style_axes(ax: Axes, sides: Sequence[str] = ("left", "bottom")) -> Axes:
    ax.set_facecolor("none")
    for side, spine in ax.spines.items():
        spine.set(visible=side in sides, color=MUTED, linewidth=0.8)
    ax.tick_params(color=MUTED, labelcolor=INK, labelsize=8, length=3, width=0.8)
    ax.tick_params(which="minor", color=MUTED, length=2, width=0.6)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(color=INK, size=9)
    return ax


def color_key(ax: Axes, *entries: tuple[str, Color]) -> None:
    """Says above the axes what each colour is, in that colour."""
    areas: list[Artist] = [
        TextArea(text, textprops={"color": color, "size": 9, "weight": "bold"})
        for text, color in entries
    ]
    packed = HPacker(children=areas, pad=0, sep=14, align="baseline")
    where = {"bbox_to_anchor": (0, 1.02), "bbox_transform": ax.transAxes}
    ax.add_artist(
        AnchoredOffsetbox(
            "lower left", child=packed, frameon=False, pad=0, borderpad=0.2, **where
        )
    )


def spike_ticks(
    ax: Axes, times: np.ndarray, y: float | int, height: float, color: str
) -> None:
    path = spike_path(times, y, height)
    ax.plot(*path, color=color, lw=1.1, solid_capstyle="butt")


def spike_path(times: np.ndarray, y: float, height: float):
    """Spikes (ms) as one line with gaps, which takes far less than a line for each."""
    x = np.stack([times, times, np.full_like(times, np.nan)], axis=1).ravel() / 1e3
    return x, np.tile([y - height, y + height, np.nan], len(times))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    name_ticks(axis, {x: f"{x:g}" for x in round_ticks(low, high)})


def round_ticks(low: float, high: float) -> list[float]:
    """Four ticks or more at round numbers, on however short a logarithmic axis."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    choices = [np.outer(decades, x).ravel() for x in ((1,), (1, 3), (1, 2, 3, 5))]
    choices.append(np.asarray(MaxNLocator(5).tick_values(low, high)))
    inside = [x[(x >= low) & (x <= high)].tolist() for x in choices]
    return next((x for x in inside if len(x) > 3), inside[-1])


def fold_ticks(low: float, high: float) -> dict[float, str]:
    """Ticks at ratios between two, and their names."""
    base = 2.0 if high / low < 40 else 10.0
    powers = np.arange(np.ceil(np.log(low) / np.log(base)), np.log(high) / np.log(base))
    folds = [base**x for x in powers.tolist()]
    return {x: f"\u00d7{x:g}" if x >= 1 else f"\u00d71/{1 / x:g}" for x in folds}


def name_ticks(axis: Axis, names: dict[float, str]) -> None:
    axis.set_major_locator(FixedLocator(list(names)))
    axis.set_major_formatter(FixedFormatter(list(names.values())))
    axis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}"
