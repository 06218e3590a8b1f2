"""Interactive figures of a recording and of a run, on light and on dark screens.

Colours, names of features and computed values are those of the report. Each function
takes what it shows, and last the colours of the screen.
"""

from typing import Any

import numpy as np
from plotly.subplots import make_subplots

from dicjax._core import short
from dicjax.app import canvas
from dicjax.app.canvas import Palette, Plot
from dicjax.app.runs import Outcome
from dicjax.output import layouts
from dicjax.populations import wilson
from dicjax.spikes import SpikeTrain


MAX_PAUSES = 100  # that are painted
MAX_POINTS = 3000  # that a potential is drawn with


def overview(train: SpikeTrain, window: tuple[float, float], colors: Palette) -> Plot:
    """All spikes of a recording, with the window on top; pauses are grey."""
    figure = canvas.new_plot(colors, 96, **canvas.SIDES, bottom=26, top=6)
    inside = (train.times >= window[0]) & (train.times <= window[1])
    for keep, color in ((~inside, colors.other), (inside, colors.recording)):
        times = canvas.distinguishable(train.times[keep], train)
        canvas.spike_ticks(figure, times, 0, 0.4, color, width=1.0)
    start, stop = window
    band = {"fillcolor": colors.recording, "opacity": 0.1, "line_width": 0}
    figure.add_vrect(start / 1e3, stop / 1e3, layer="below", **band)
    ends = [train.t_start / 1e3, canvas.end_of(train) / 1e3]
    away = {"fillcolor": colors.other, "opacity": 0.25, "line_width": 0}
    pauses = (train.observed.ravel()[1:-1] / 1e3).reshape(-1, 2).tolist()
    for start, stop in pauses[:MAX_PAUSES]:
        figure.add_vrect(start, stop, layer="below", **away)
    figure.update_xaxes(range=ends, fixedrange=True)
    canvas.name_rows(figure, ["whole"])
    return canvas.as_plot(figure)


def closeup(train: SpikeTrain, colors: Palette) -> Plot:
    """The first bursts or spikes of a train; dragging shows the others."""
    figure = canvas.new_plot(colors, 130, **canvas.SIDES, bottom=42, top=6)
    times = train.longest
    span = min(layouts.rhythm(train)[0], float(times[-1] - times[0]))
    near = times[times <= times[0] + 40 * span][: 2 * canvas.MAX_TICKS]
    canvas.spike_ticks(figure, near, 0, 0.4, colors.recording, width=1.6)
    start = max(float(times[0]) - 0.03 * span, 0.0)
    ends = [start / 1e3, (times[0] + span) / 1e3]
    figure.update_xaxes(range=ends, title="time (s), drag to move")
    figure.update_layout(dragmode="pan")
    canvas.name_rows(figure, ["close up"])
    return canvas.as_plot(figure)


def intervals(train: SpikeTrain, colors: Palette) -> Plot:
    """A histogram of interspike intervals, on a logarithmic axis."""
    isi = train.intervals
    edges = layouts.log_bins([isi])
    shares = layouts.shares_of(isi, edges)
    figure = canvas.new_plot(colors, 210, **canvas.SIDES)
    canvas.step_line(figure, edges, shares, colors.recording, "recording", 0.35)
    canvas.interval_axes(figure, edges)
    return canvas.as_plot(figure)


def rasters(outcome: Outcome, colors: Palette, num: int = 12) -> Plot:
    """Spikes of the recording above spikes of members, from the first whole burst."""
    accepted, numbers = outcome.accepted, outcome.population.members
    first = np.argsort(~accepted, kind="stable")[:num]
    times = [outcome.spike_times[i] for i in first]
    names = ["recording", *(f"member {numbers[i]}" for i in first)]
    paint = [colors.members if x else colors.other for x in accepted[first]]
    paint = [colors.recording, *paint]
    train = outcome.train or SpikeTrain(times[0])
    rows, (start, stop) = layouts.raster_of(train, times)
    if outcome.train is None:
        rows, names, paint = rows[1:], names[1:], paint[1:]
    figure = canvas.new_plot(colors, 80 + 22 * len(rows), left=92, top=6)
    for row, (spikes, color) in enumerate(zip(rows, paint, strict=True)):
        canvas.spike_ticks(figure, spikes, row, 0.38, color)
    figure.update_xaxes(range=[start / 1e3, stop / 1e3], title="time (s)")
    canvas.name_rows(figure, names)
    return canvas.as_plot(figure)


def interval_bands(outcome: Outcome, colors: Palette) -> Plot:
    """Intervals of the recording and of members; the band holds 90 % of members."""
    recorded = [] if outcome.train is None else [outcome.train.intervals]
    members = layouts.intervals_of(outcome.spike_times[i] for i in outcome.shown)
    edges = layouts.log_bins([*recorded, *members])
    figure = canvas.new_plot(colors, 380)
    if members:
        shares = np.stack([layouts.shares_of(isi, edges) for isi in members])
        low, high = np.repeat(np.quantile(shares, (0.05, 0.95), axis=0), 2, axis=1)
        x = np.repeat(edges, 2)[1:-1]
        x, y = np.append(x, x[::-1]), np.append(low, high[::-1])
        band = {"fillcolor": canvas.faint(colors.members, 0.22), "hoverinfo": "skip"}
        name = "90 % of model neurons"
        canvas.draw_line(figure, x, y, colors.members, 0, name, fill="toself", **band)
        mean = shares.mean(axis=0)
        canvas.step_line(figure, edges, mean, colors.members, "model neurons, mean")
    for isi in recorded:
        shares = layouts.shares_of(isi, edges)
        canvas.step_line(figure, edges, shares, colors.recording, "recording")
    canvas.interval_axes(figure, edges)
    return canvas.as_plot(figure, has_legend=True)


def potentials(outcome: Outcome, colors: Palette) -> Plot:
    """Simulated potentials of a few members below the spikes of the recording."""
    train, traces = outcome.train, outcome.traces
    assert train is not None
    assert traces is not None
    ts = traces.ts.astype(np.float64)
    found = layouts.traces_of(train, ts, traces.V, **traces.levels)
    spikes, lines, (start, stop) = found
    num = len(lines)
    figure = make_subplots(
        rows=1 + num,
        shared_xaxes=True,
        vertical_spacing=0.02,
        row_heights=[0.25, *[1.0] * num],
        figure=canvas.new_plot(colors, 90 + 105 * num, left=92, top=6),
    )
    top = {"row": 1, "col": 1}
    canvas.spike_ticks(figure, spikes, 0, 0.5, colors.recording, **top)
    canvas.name_rows(figure, ["recording"], **top)
    hover = {"hovertemplate": "%{y:.0f} mV at %{x:.3f} s"}
    for i, (member, (x, y)) in enumerate(zip(traces.members, lines, strict=True)):
        color = colors.highlights[i % len(colors.highlights)]
        name, place = f"member {member}", dict[str, Any](row=2 + i, col=1)
        x, y = thinned(x / 1e3, y)
        canvas.draw_line(figure, x, y, color, 1.2, name, **hover, **place)
        axis = {"range": [-92, 65], "tickvals": [-80, -40, 0, 40]}
        title = {"text": name, "font_color": color}
        figure.update_yaxes(axis, title=title, **place)
    figure.update_yaxes(fixedrange=True)
    figure.update_xaxes(range=[start / 1e3, stop / 1e3], showline=False, ticks="")
    bottom = {"title": "time (s); potentials in mV", "row": 1 + num, "col": 1}
    figure.update_xaxes(showline=True, ticks="outside", **bottom)
    return canvas.as_plot(figure)


def feature_bands(outcome: Outcome, colors: Palette) -> Plot:
    """Features of members relative to the recording; the allowed range is shaded."""
    accepted, numbers = outcome.accepted, outcome.population.members
    assert outcome.target is not None
    how = outcome.tolerance, outcome.limits
    rows = layouts.compared(outcome.target, outcome.features, *how)
    edge, ticks = layouts.ratio_axis(rows, outcome.tolerance)
    jitter = layouts.jitter_of(len(accepted))
    figure = canvas.new_plot(colors, 76 + 100 * len(rows), left=130)
    drawn = set()
    for row, (_, ratio, (low, high)) in enumerate(rows):
        box = {"x0": low, "x1": high, "y0": row - 0.4, "y1": row + 0.4}
        figure.add_shape(**box, fillcolor=colors.grid, line_width=0, layer="below")
        known = np.isfinite(ratio)
        for keep, color, name in (
            (known & ~accepted, colors.other, "other model neurons"),
            (known & accepted, colors.members, "accepted model neurons"),
        ):
            if not keep.any():
                continue
            x, y = np.clip(ratio[keep], 1 / edge, edge), row + jitter[keep]
            group = {"legendgroup": name, "showlegend": name not in drawn}
            group["text"] = [f"member {i}" for i in numbers[keep]]
            canvas.points(figure, x, y, color, name, "%{text}: %{x:.3f}", **group)
            drawn.add(name)
    figure.add_vline(1, line={"color": colors.recording, "width": 2}, layer="below")
    axis = canvas.log_ticks(1 / edge, edge, ticks)
    figure.update_xaxes(**axis, title="model neuron / recording")
    canvas.name_rows(figure, [name.replace("\n", "<br>") for name, *_ in rows])
    return canvas.as_plot(figure, has_legend=True)


def posterior(outcome: Outcome, colors: Palette) -> Plot:
    """The posterior over (g_s, g_u), with the members on top."""
    inference = outcome.inference
    assert inference is not None
    figure = canvas.new_plot(colors, 360)
    regions = zip(inference.floors, layouts.REGIONS, strict=True)
    for floor, (name, _, opacity) in regions:
        if floor >= inference.density.max():
            continue
        figure.add_contour(
            x=inference.g_s,
            y=inference.g_u,
            z=inference.density,
            contours={"type": "constraint", "operation": "<", "value": float(floor)},
            fillcolor=canvas.faint(colors.recording, opacity),
            line={"color": colors.recording, "width": 1.2},
            name=f"{name} posterior",
            showlegend=True,
            hoverinfo="skip",
        )
    _, x, y = outcome.dics[outcome.shown].T
    hover = "g<sub>s</sub> %{x:.2f}, g<sub>u</sub> %{y:.2f}"
    canvas.points(figure, x, y, colors.members, "model neurons", hover)
    at = layouts.with_minus(f"{inference.V_ref:g}")
    slow = f"slow input conductance g<sub>s</sub> at {at} mV"
    figure.update_xaxes(title=slow, range=inference.g_s[[0, -1]].tolist())
    ultraslow = "ultraslow, g<sub>u</sub>"
    figure.update_yaxes(title=ultraslow, range=inference.g_u[[0, -1]].tolist())
    return canvas.as_plot(figure, has_legend=True)


def conductances(outcome: Outcome, colors: Palette) -> Plot:
    """How far members spread in every conductance, each line a member.

    Up to three members that differ most are drawn in other colours.
    """
    channels, g = outcome.channels, outcome.g[outcome.shown]
    numbers = outcome.population.members[outcome.shown]
    highlight = layouts.most_different(g, len(colors.highlights))
    fold, drawn, (bottom, top) = layouts.folds_of(g, highlight)
    bottom, top = bottom / 1.2, top * 1.2
    figure = canvas.new_plot(colors, 360, bottom=72)
    gap = np.full((len(drawn), 1), np.nan)
    opacity = float(np.clip(12 / len(drawn), 0.12, 0.5))
    x = np.tile([*range(len(channels)), np.nan], len(drawn))
    y = np.concatenate([fold[drawn], gap], axis=1).ravel()
    color = canvas.faint(colors.members, opacity)
    canvas.draw_line(figure, x, y, color, 1, "all model neurons", hoverinfo="skip")
    for row, color in zip(highlight, colors.highlights, strict=False):
        known = {"text": [f"{short(value)} mS/cm²" for value in g[row]]}
        known |= {"hovertemplate": "%{text}", "mode": "lines+markers"}
        x, name = [*range(len(channels))], f"member {numbers[row]}"
        canvas.draw_line(figure, x, fold[row], color, 2, name, **known)
    figure.add_hline(1, line={"color": colors.muted, "width": 1, "dash": "dash"})
    low, high = np.quantile(g, (0.05, 0.95), axis=0)
    spread = [
        f"{name}<br><span style='font-size:10px'>{short(a, 2)}–<br>{short(b, 2)}</span>"
        for name, a, b in zip(channels, low, high, strict=True)
    ]
    ends, names = [-0.5, len(channels) - 0.5], canvas.ticks(dict(enumerate(spread)))
    figure.update_xaxes(**names, range=ends, tickangle=0, fixedrange=True)
    axis = canvas.log_ticks(bottom, top, layouts.fold_names(bottom, top))
    figure.update_yaxes(**axis, title="conductance / median")
    return canvas.as_plot(figure, has_legend=True)


def correlations(outcome: Outcome, colors: Palette) -> Plot:
    """Correlations between conductances over members; orange pairs rise together."""
    channels = outcome.channels
    r = layouts.correlations_of(outcome.g[outcome.shown])
    lower = np.where(np.tri(len(r), k=-1, dtype=bool), r, np.nan)[1:, :-1]
    words = lambda x: layouts.signed_part(x) if np.isfinite(x) else ""
    figure = canvas.new_plot(colors, 360, left=56, bottom=36)
    figure.add_heatmap(
        x=list(channels[:-1]),
        y=list(channels[1:]),
        z=lower,
        zmin=-1,
        zmax=1,
        colorscale=[[0, colors.members], [0.5, colors.paper], [1, colors.recording]],
        showscale=False,
        xgap=2,
        ygap=2,
        text=[[words(x) for x in row] for row in lower],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertemplate="%{y} and %{x}: %{z:.2f}<extra></extra>",
        hoverongaps=False,
    )
    figure.update_xaxes(fixedrange=True, showline=False, ticks="")
    figure.update_yaxes(autorange="reversed", fixedrange=True, showline=False, ticks="")
    return canvas.as_plot(figure)


def yields(outcome: Outcome, colors: Palette) -> Plot:
    """Numbers of candidates in every round: valid, or with the right pattern only."""
    rounds = outcome.rounds
    rows = [*range(len(rounds))]
    table = [(x.num, x.num_label, x.num_valid) for x in rounds]
    num, num_label, num_valid = np.array(table, int).reshape(-1, 3).T
    pale = canvas.faint(colors.members, 0.4)
    figure = canvas.new_plot(colors, 100 + 30 * len(rounds), left=150)
    for name, counts, color, ink in (
        ("valid", num_valid, colors.members, colors.paper),
        ("right pattern only", num_label - num_valid, pale, colors.ink),
        ("other", num - num_label, colors.grid, colors.ink),
    ):
        figure.add_bar(
            y=rows,
            x=100 * counts / np.maximum(num, 1),
            orientation="h",
            name=name,
            marker={"color": color, "line": {"width": 0}},
            text=[f"{count or ''}" for count in counts],
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": ink},
            textangle=0,
            hovertemplate="%{text} candidates, %{x:.1f} %",
        )
    for row, x in enumerate(rounds):
        ends = [100 * end for end in wilson(x.num_valid, x.num)]
        canvas.draw_line(figure, ends, [row + 0.42] * 2, colors.ink, 2)
    figure.update_layout(barmode="stack", bargap=0.3)
    figure.update_xaxes(range=[0, 100], title="share of candidates (%)")
    canvas.name_rows(figure, [f"{x.name} ({x.num:,})" for x in rounds])
    return canvas.as_plot(figure, has_legend=True)


def thinned(x: np.ndarray, y: np.ndarray, num: int = MAX_POINTS):
    """A line of fewer points that keeps every peak and trough."""
    width = -(-len(x) // (num // 2))
    if width < 2:
        return x, y
    usable = len(x) // width * width
    rows = y[:usable].reshape(-1, width)
    start = np.arange(0, usable, width)
    keep = np.unique([start + rows.argmin(axis=1), start + rows.argmax(axis=1)])
    return x[keep], y[keep]
