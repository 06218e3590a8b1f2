"""Common parts of the app's figures: colours, axes, ticks of spikes."""

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from matplotlib.ticker import MaxNLocator

from dicjax.output import style
from dicjax.spikes import SpikeTrain


CONFIG = {"displayModeBar": False, "responsive": True, "doubleClick": "reset"}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial'
MAX_TICKS = 1500  # spikes that a screen can show separately
SIDES = {"l": 76, "r": 16}  # pixels beside rasters; the window's slider has the same


class Palette(NamedTuple):
    """Colours for light or for dark screens."""

    paper: str
    ink: str
    muted: str
    grid: str
    other: str
    recording: str
    members: str
    highlights: tuple[str, ...]


LIGHT = Palette(
    style.PAPER,
    style.INK,
    style.MUTED,
    style.GRID,
    style.OTHER,
    style.RECORDING,
    style.MEMBERS,
    style.HIGHLIGHTS,
)
DARK = LIGHT._replace(
    **{name: style.DARK[x] for name, x in LIGHT._asdict().items() if x in style.DARK},
    highlights=tuple(style.DARK[x] for x in LIGHT.highlights),
)

Plot = dict[str, Any]


def distinguishable(times: np.ndarray, train: SpikeTrain) -> np.ndarray:
    """Spike times, at most one for each place that a screen can show."""
    if len(times) <= MAX_TICKS:
        return times
    place = (times - train.t_start) / (end_of(train) - train.t_start) * MAX_TICKS
    return times[np.unique(place.astype(int), return_index=True)[1]]


def end_of(train: SpikeTrain) -> float:
    return max(train.t_stop, train.t_start + 1.0)


def spike_ticks(figure, times, y, height, color, width=1.0) -> None:
    x = np.stack([times, times, np.full_like(times, np.nan)], axis=1).ravel() / 1e3
    figure.add_scatter(
        x=np.round(x, 5),
        y=np.tile([y - height, y + height, np.nan], len(times)),
        mode="lines",
        line={"color": color, "width": width},
        hoverinfo="skip",
        showlegend=False,
    )


def step_line(figure, edges, shares, color, name, opacity=0.0) -> None:
    figure.add_scatter(
        x=np.repeat(edges, 2)[1:-1],
        y=np.repeat(shares, 2),
        mode="lines",
        line={"color": color, "width": 1.6},
        fill="tozeroy" if opacity else "none",
        fillcolor=faint(color, opacity),
        name=name,
        hovertemplate="%{x:.3g} ms: %{y:.1f} %",
    )


def log_axis(figure: go.Figure, edges: np.ndarray, title: str) -> None:
    ends = np.log10(edges[[0, -1]])
    decades = 10.0 ** np.arange(np.floor(ends[0]), np.ceil(ends[1]) + 1)
    choices = [np.outer(decades, of).ravel() for of in ((1,), (1, 3), (1, 2, 3, 5))]
    choices.append(np.asarray(MaxNLocator(5).tick_values(edges[0], edges[-1])))
    shown = [x[(x >= edges[0]) & (x <= edges[-1])] for x in choices]
    ticks = next((x for x in shown if len(x) > 3), shown[-1])
    figure.update_xaxes(
        type="log",
        range=list(ends),
        tickvals=ticks,
        ticktext=[f"{x:g}" for x in ticks],
        tickangle=0,
        title=title,
    )


def new_plot(colors: Palette, height, *, left=64, right=16, bottom=46, top=10):
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": left, "r": right, "b": bottom, "t": top},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12, "color": colors.ink},
        hoverlabel={
            "bgcolor": colors.paper,
            "bordercolor": colors.grid,
            "font": {"color": colors.ink, "family": FONT},
        },
        showlegend=False,
        dragmode=False,
        uirevision="kept",
    )
    figure.update_xaxes(**axis_style(colors))
    figure.update_yaxes(**axis_style(colors))
    return figure


def axis_style(colors: Palette) -> dict[str, Any]:
    return {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": colors.grid,
        "tickcolor": colors.grid,
        "ticks": "outside",
        "ticklen": 4,
        "title_font": {"size": 12, "color": colors.muted},
        "title_standoff": 8,
        "automargin": False,
    }


def add_legend(figure: go.Figure) -> None:
    place = {"orientation": "h", "xref": "container", "x": 0.02, "y": 1.0}
    place |= {"yref": "container", "yanchor": "top", "traceorder": "normal"}
    figure.update_layout(
        showlegend=True, legend={**place, "bgcolor": "rgba(0,0,0,0)", "font_size": 11}
    )
    figure.update_layout(margin_t=32)


def faint(color: str, opacity: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.3g})"


def as_plot(figure: go.Figure) -> Plot:
    # As JSON with plain numbers, which every browser can read.
    return {**figure.to_plotly_json(), "config": CONFIG}
