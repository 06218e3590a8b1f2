"""How every figure looks: colours, axes, ticks, words in place of legends."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from matplotlib.patches import Rectangle

from dicjax.output.plots.layouts import spike_path


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
VARIABLES = {
    "paper": (PAPER, "#171c22"),
    "ink": (INK, "#e8ebef"),
    "muted": (MUTED, "#9aa6b2"),
    "grid": (GRID, "#333c46"),
    "other": (OTHER, "#66717d"),
    "recording": (RECORDING, "#ff8f45"),
    "members": (MEMBERS, "#5cb2f2"),
    "highlight-1": (HIGHLIGHTS[1], "#35c99b"),
    "highlight-2": (HIGHLIGHTS[2], "#e08fbf"),
    "page": ("#f5f6f8", "#0f1317"),
    "line": ("#dfe3e8", "#2b333c"),
    "warn": ("#fdf1e3", "#2b2117"),
    "edge": ("#e0903c", "#c47a2c"),
}
"""Colours of figures and of pages that hold them, on light and on dark screens."""
DARK = dict(VARIABLES.values())

WIDTH = 7.2  # inches, of a figure that fills a page
MAX_VECTOR = 150  # marks beyond which a layer is drawn as pixels

Color = str | tuple[str, float]  # with an opacity


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Figures as they are meant, whatever the user's settings of Matplotlib.

    These may ask for what is not there, such as LaTeX.
    """
    with matplotlib.style.context("default"):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def new_panels(
    height: float,
    width: float = WIDTH,
    sides: Sequence[str] = ("left", "bottom"),
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row; `options` are those of `Figure.subplots`."""
    figure = new_figure(height, width)
    grid = figure.subplots(squeeze=False, **options)
    return figure, [style_axes(ax, sides) for ax in grid.flat]


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
    place: dict[str, Any] = {"frameon": False, "pad": 0, "borderpad": 0.2}
    place |= {"bbox_to_anchor": (0, 1.02), "bbox_transform": ax.transAxes}
    ax.add_artist(AnchoredOffsetbox("lower left", child=packed, **place))


def spike_ticks(
    ax: Axes, times: np.ndarray, y: float | int, height: float, color: str
) -> None:
    path = spike_path(times, y, height)
    ax.plot(*path, color=color, lw=1.1, solid_capstyle="butt")


def name_ticks(axis: Axis, names: Mapping[float, str]) -> None:
    """Puts names at given numbers, and ticks nowhere else."""
    axis.set_ticks([*names], [*names.values()])
    axis.set_ticks([], minor=True)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)


def name_columns(ax: Axes, x: np.ndarray, names: Sequence[str]) -> None:
    """Names the channels that stand side by side at `x`."""
    ax.set_xticks(x, names, size=10)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="x", color=GRID, lw=0.8)
    ax.set_axisbelow(True)


def name_dics(ax: Axes, where: str = "") -> None:
    ax.set_xlabel(f"slow input conductance $g_\\mathrm{{s}}$ {where}(dimensionless)")
    ax.set_ylabel("ultraslow input conductance $g_\\mathrm{u}$")


def signed_square(ax: Axes, x: int, y: int, value: float, text: str) -> None:
    """A square at (x, y), the darker, the further a value is from 0 towards 1 or -1."""
    face = (RECORDING if value > 0 else MEMBERS, min(abs(np.nan_to_num(value)), 1.0))
    ax.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=face))
    ink = PAPER if abs(value) > 0.72 else INK
    ax.text(x, y, text, color=ink, size=8, ha="center", va="center")
