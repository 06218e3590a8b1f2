"""Common parts of the app's figures: colours, axes, ticks of spikes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from dicjax.output import layouts, style
from dicjax.spikes import SpikeTrain


CONFIG = {"displayModeBar": False, "responsive": True, "doubleClick": "reset"}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial'
MAX_TICKS = 1500  # spikes that a screen can show separately
SIDES = {"left": 76, "right": 16}  # pixels beside rasters and the window's slider


class Palette(NamedTuple):
    paper: str
    ink: str
    muted: str
    grid: str
    other: str
    recording: str
    members: str
    highlights: tuple[str, ...]

    @classmethod
    def of(cls, screen: Callable[[str], str]) -> "Palette":
        """The colours of the report, as a kind of screen shows them."""
        *names, _ = cls._fields
        colors = {name: screen(getattr(style, name.upper())) for name in names}
        return cls(**colors, highlights=tuple(map(screen, style.HIGHLIGHTS)))


LIGHT, DARK = Palette.of(str), Palette.of(style.DARK.__getitem__)

Plot = dict[str, Any]


def distinguishable(times: np.ndarray, train: SpikeTrain) -> np.ndarray:
    """Spike times, at most one for each place that a screen can show."""
    if len(times) <= MAX_TICKS:
        return times
    place = (times - train.t_start) / (end_of(train) - train.t_start) * MAX_TICKS
    return times[np.unique(place.astype(int), return_index=True)[1]]


def end_of(train: SpikeTrain) -> float:
    return max(train.t_stop, train.t_start + 1.0)


def draw_line(figure, x, y, color, width, name="", **more) -> None:
    """A line, which the legend and the cursor leave out if it has no name."""
    unnamed = {} if name else {"hoverinfo": "skip", "showlegend": False}
    line = {"color": color, "width": width}
    more = {"mode": "lines", "line": line, "name": name} | unnamed | more
    figure.add_scatter(x=x, y=y, **more)


def spike_ticks(figure, times, at, height, color, width=1.4, **place) -> None:
    x, y = layouts.spike_path(times, at, height)
    draw_line(figure, np.round(x, 5), y, color, width, **place)


def step_line(figure, edges, shares, color, name, opacity=0.0) -> None:
    x, y = np.repeat(edges, 2)[1:-1], np.repeat(shares, 2)
    fill = "tozeroy" if opacity else "none"
    more = {"fillcolor": faint(color, opacity), "fill": fill}
    hover = "%{x:.3~r} ms: %{y:.1f} %"
    draw_line(figure, x, y, color, 1.6, name, hovertemplate=hover, **more)


def points(figure, x, y, color, name, hover, **more) -> None:
    more |= {"marker": {"color": color, "size": 5, "opacity": 0.75}, "name": name}
    figure.add_scatter(x=x, y=y, mode="markers", hovertemplate=hover, **more)


def interval_axes(figure: go.Figure, edges: np.ndarray) -> None:
    low, high = float(edges[0]), float(edges[-1])
    axis = log_ticks(low, high, layouts.round_names(low, high))
    figure.update_xaxes(**axis, tickangle=0, title="interval between spikes (ms)")
    figure.update_yaxes(title="share of intervals (%)", rangemode="tozero")


def log_ticks(low: float, high: float, names: dict[float, str]) -> dict[str, Any]:
    """A logarithmic axis from `low` to `high` that shows names at their values."""
    ends = np.log10([low, high]).tolist()
    return {"type": "log", "range": ends, **ticks(names)}


def name_rows(figure: go.Figure, names: Sequence[str], **place) -> None:
    """Names the rows of a figure, at 0, 1, 2 ... from its top."""
    ends = [len(names) - 0.4, -0.6]
    names_at = ticks(dict(enumerate(names)))
    figure.update_yaxes(range=ends, fixedrange=True, ticks="", **names_at, **place)


def ticks(names: dict[Any, str]) -> dict[str, Any]:
    return {"tickvals": [*names], "ticktext": [*names.values()]}


def new_plot(
    colors: Palette, height: int, *, left=64, right=SIDES["right"], bottom=46, top=10
) -> go.Figure:
    axis: dict[str, Any] = {"showgrid": False, "zeroline": False, "automargin": False}
    axis |= {"showline": True, "linecolor": colors.grid, "tickcolor": colors.grid}
    axis |= {"ticks": "outside", "ticklen": 4}
    axis["title"] = {"font": {"size": 12, "color": colors.muted}, "standoff": 8}
    font = {"family": FONT, "color": colors.ink}
    figure = go.Figure()
    figure.update_layout(
        template={"layout": {"xaxis": axis, "yaxis": axis}},
        height=height,
        margin={"l": left, "r": right, "b": bottom, "t": top},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={**font, "size": 12},
        hoverlabel={"bgcolor": colors.paper, "bordercolor": colors.grid, "font": font},
        showlegend=False,
        dragmode=False,
        uirevision="kept",
    )
    return figure


def faint(color: str, opacity: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.3g})"


def as_plot(figure: go.Figure, has_legend: bool = False) -> Plot:
    if has_legend:
        place = {"orientation": "h", "xref": "container", "x": 0.02, "y": 1.0}
        place |= {"yref": "container", "yanchor": "top", "traceorder": "normal"}
        legend = {**place, "bgcolor": "rgba(0,0,0,0)", "font_size": 11}
        figure.update_layout(showlegend=True, legend=legend, margin_t=32)
    # As JSON with plain numbers, which every browser can read.
    return {**figure.to_plotly_json(), "config": CONFIG}
