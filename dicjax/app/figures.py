"""Interactive figures of a recording and of a run, on light and on dark screens.

Colours, names of features and computed values are the same as in `dicjax.plots`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dicjax.app.canvas import (
    add_legend,
    as_plot,
    axis_style,
    DARK as DARK,
    distinguishable,
    end_of,
    faint,
    LIGHT as LIGHT,
    log_axis,
    MAX_TICKS,
    new_plot,
    Palette,
    Plot,
    SIDES,
    spike_ticks,
    step_line,
)
from dicjax.app.runs import Inference, Traces
from dicjax.generation import Round
from dicjax.output import (
    aligned,
    compared,
    correlations_of,
    from_onset,
    intervals_of,
    log_bins,
    logarithms_of,
    rhythm,
    shares_of,
    short,
    span_of,
)
from dicjax.populations import wilson
from dicjax.spikes import Features, SpikeTrain


MAX_POINTS = 3000  # that a potential is drawn with
MAX_LINES = 150  # members drawn one by one


def overview(train: SpikeTrain, window: tuple[float, float], colors: Palette) -> Plot:
    """All spikes of a recording, with the window on top."""
    figure = new_plot(colors, 96, left=SIDES["l"], right=SIDES["r"], bottom=26, top=6)
    inside = (train.times >= window[0]) & (train.times <= window[1])
    for keep, color in ((~inside, colors.other), (inside, colors.recording)):
        spike_ticks(figure, distinguishable(train.times[keep], train), 0, 0.5, color)
    start, stop = window
    band = {"fillcolor": colors.recording, "opacity": 0.1, "line_width": 0}
    figure.add_vrect(start / 1e3, stop / 1e3, layer="below", **band)
    figure.update_xaxes(
        range=[train.t_start / 1e3, end_of(train) / 1e3], fixedrange=True
    )
    figure.update_yaxes(
        range=[-0.7, 0.7], tickvals=[0], ticktext=["whole"], fixedrange=True, ticks=""
    )
    return as_plot(figure)


def closeup(train: SpikeTrain, colors: Palette) -> Plot:
    """The first bursts or spikes of a train; dragging shows the others."""
    figure = new_plot(colors, 130, left=SIDES["l"], right=SIDES["r"], bottom=42, top=6)
    times = train.times
    span = min(rhythm(train)[0], float(times[-1] - times[0]))
    near = times[times <= times[0] + 40 * span][: 2 * MAX_TICKS]
    spike_ticks(figure, near, 0, 0.5, colors.recording, width=1.6)
    start = max(float(times[0]) - 0.03 * span, 0.0)
    figure.update_xaxes(
        range=[start / 1e3, (times[0] + span) / 1e3], title="time (s), drag to move"
    )
    figure.update_yaxes(
        range=[-0.7, 0.7],
        tickvals=[0],
        ticktext=["close up"],
        fixedrange=True,
        ticks="",
    )
    figure.update_layout(dragmode="pan")
    return as_plot(figure)


def intervals(train: SpikeTrain, colors: Palette) -> Plot:
    """A histogram of interspike intervals, on a logarithmic axis."""
    isi = np.diff(train.times)
    edges = log_bins([isi])
    figure = new_plot(colors, 210, left=SIDES["l"])
    step_line(figure, edges, shares_of(isi, edges), colors.recording, "recording", 0.35)
    figure.update_yaxes(title="share (%)", rangemode="tozero")
    log_axis(figure, edges, "interval between spikes (ms)")
    return as_plot(figure)


def rasters(
    train: SpikeTrain | None,
    spike_times: Sequence[np.ndarray],
    accepted: np.ndarray,
    members: np.ndarray,
    colors: Palette,
    num: int = 12,
) -> Plot:
    """Spikes of the recording above spikes of members, from the first whole burst."""
    first = np.argsort(~accepted, kind="stable")[:num]
    times = [np.asarray(spike_times[i], np.float64) for i in first]
    like = train or SpikeTrain(next(iter(times)))
    cycle, gap = rhythm(like)
    rows = [from_onset(row, gap) for row in (like.times, *times)]
    span = span_of(rows, cycle)
    shown = rows if train is not None else rows[1:]
    names = [f"member {members[i]}" for i in first]
    paint = [colors.members if accepted[i] else colors.other for i in first]
    if train is not None:
        names, paint = ["recording", *names], [colors.recording, *paint]
    figure = new_plot(colors, 80 + 22 * len(shown), left=92, top=6)
    for y, (row, color) in enumerate(zip(shown, paint, strict=True)):
        keep = row[(row >= -0.015 * span) & (row <= span)]
        is_recording = train is not None and y == 0
        spike_ticks(figure, keep, -y, 0.44 if is_recording else 0.36, color, width=1.4)
    figure.update_xaxes(range=[-0.015 * span / 1e3, span / 1e3], title="time (s)")
    figure.update_yaxes(
        range=[0.6 - len(shown), 0.6],
        tickvals=[-y for y in range(len(shown))],
        ticktext=names,
        fixedrange=True,
        ticks="",
    )
    return as_plot(figure)


def interval_bands(
    train: SpikeTrain | None, spike_times: Sequence[np.ndarray], colors: Palette
) -> Plot:
    """Intervals of the recording and of members; the band holds 90 % of members."""
    own = [np.diff(train.times)] if train is not None else []
    members = [x for x in map(intervals_of, spike_times) if len(x)]
    edges = log_bins([*own, *members])
    figure = new_plot(colors, 380)
    if members:
        y = np.stack([shares_of(isi, edges) for isi in members])
        low, high = np.quantile(y, (0.05, 0.95), axis=0)
        x = np.repeat(edges, 2)[1:-1]
        stack = np.concatenate([np.repeat(low, 2), np.repeat(high, 2)[::-1]])
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=stack,
            fill="toself",
            fillcolor=faint(colors.members, 0.22),
            line={"width": 0},
            hoverinfo="skip",
            name="90 % of members",
        )
        step_line(figure, edges, y.mean(axis=0), colors.members, "members, mean")
    for isi in own:
        step_line(figure, edges, shares_of(isi, edges), colors.recording, "recording")
    figure.update_yaxes(title="share of intervals (%)", rangemode="tozero")
    log_axis(figure, edges, "interval between spikes (ms)")
    add_legend(figure)
    return as_plot(figure)


def potentials(train: SpikeTrain, traces: Traces, colors: Palette) -> Plot:
    """Simulated potentials of a few members below the spikes of the recording."""
    ts = traces.ts.astype(np.float64)
    spikes, onsets, span = aligned(train, ts, traces.V)
    lead = 0.03 * span
    num = len(traces.V)
    figure = new_plot(colors, 90 + 105 * num, left=92, top=6)
    height = 0.9 / num
    keep = spikes[(spikes >= -lead) & (spikes <= span)]
    spike_ticks(figure, keep, 0, 0.8, colors.recording, width=1.4)
    axes: dict[str, Any] = {
        "yaxis": {
            "domain": [0.93, 1],
            "range": [-1, 1],
            "tickvals": [0],
            "ticktext": ["recording"],
        }
    }
    for i, (member, V) in enumerate(zip(traces.members, traces.V, strict=True)):
        inside = (ts >= onsets[i] - lead) & (ts <= onsets[i] + span)
        x, y = thinned((ts[inside] - onsets[i]) / 1e3, V[inside])
        color = colors.highlights[i % len(colors.highlights)]
        figure.add_scatter(
            x=x,
            y=y,
            yaxis=f"y{i + 2}",
            mode="lines",
            line={"color": color, "width": 1.2},
            name=f"member {member}",
            hovertemplate="%{y:.0f} mV at %{x:.3f} s",
        )
        top = 0.9 - i * height
        axes[f"yaxis{i + 2}"] = {
            "domain": [top - 0.92 * height, top],
            "range": [-92, 65],
            "tickvals": [-80, -40, 0, 40],
            **axis_style(colors),
            "title": f"member {member}",
            "title_font": {"color": color, "size": 12},
        }
    figure.update_layout(**axes)
    figure.update_yaxes(fixedrange=True)
    figure.update_xaxes(
        range=[-lead / 1e3, span / 1e3],
        title="time (s); potentials in mV",
        anchor="free",
    )
    figure.update_layout(xaxis={"anchor": "free", "position": 0})
    return as_plot(figure)


def feature_bands(
    target: Features,
    features: Features,
    tolerance: float,
    accepted: np.ndarray,
    members: np.ndarray,
    colors: Palette,
) -> Plot:
    """Features of members relative to the recording; the allowed range is shaded."""
    rows = compared(target, features, tolerance)
    figure = new_plot(colors, 76 + 100 * len(rows), left=130)
    edge = max(high for *_, (_, high) in rows) ** 2.2
    jitter = 0.27 * np.sin(2.4 * np.arange(len(accepted)) ** 2)
    drawn = set()
    for row, (_, ratio, (low, high)) in enumerate(rows):
        box = {"x0": low, "x1": high, "y0": row - 0.4, "y1": row + 0.4}
        figure.add_shape(**box, fillcolor=colors.grid, line_width=0, layer="below")
        known = np.isfinite(ratio)
        for keep, color, name in (
            (known & ~accepted, colors.other, "others"),
            (known & accepted, colors.members, "accepted members"),
        ):
            if not keep.any():
                continue
            figure.add_scatter(
                x=np.clip(ratio[keep], 1 / edge, edge),
                y=row + jitter[keep],
                mode="markers",
                marker={"color": color, "size": 5, "opacity": 0.75},
                name=name,
                legendgroup=name,
                showlegend=name not in drawn,
                text=[f"member {i}" for i in members[keep]],
                hovertemplate="%{text}: %{x:.3f}",
            )
            drawn.add(name)
    figure.add_vline(1, line={"color": colors.recording, "width": 2}, layer="below")
    ticks = [1 / (1 + 2 * tolerance), 1 / (1 + tolerance), 1, 1 + tolerance]
    ticks = [x for x in (*ticks, 1 + 2 * tolerance) if 1 / edge < x < edge]
    figure.update_xaxes(
        type="log",
        range=[-np.log10(edge), np.log10(edge)],
        tickvals=ticks,
        ticktext=[f"{x:.2f}" for x in ticks],
        title="member / recording",
    )
    names = [name.replace("\n", "<br>") for name, *_ in rows]
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5],
        tickvals=list(range(len(rows))),
        ticktext=names,
        fixedrange=True,
        ticks="",
    )
    add_legend(figure)
    return as_plot(figure)


def posterior(inference: Inference, dics: np.ndarray, colors: Palette) -> Plot:
    """The posterior over (g_s, g_u), with the members on top."""
    figure = new_plot(colors, 360)
    low, middle = inference.floors
    highest = float(inference.density.max())
    for floor, name, strength in ((low, "90 %", 0.2), (middle, "50 %", 0.45)):
        if floor >= highest:
            continue
        figure.add_contour(
            x=inference.g_s,
            y=inference.g_u,
            z=inference.density,
            contours={"type": "constraint", "operation": "<", "value": floor},
            fillcolor=faint(colors.recording, strength),
            line={"color": colors.recording, "width": 1.2},
            name=f"{name} posterior",
            showlegend=True,
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=dics[:, -2],
        y=dics[:, -1],
        mode="markers",
        marker={"color": colors.members, "size": 5, "opacity": 0.7},
        name="members",
        hovertemplate="g<sub>s</sub> %{x:.2f}, g<sub>u</sub> %{y:.2f}",
    )
    ends = lambda x: [float(x[0]), float(x[-1])]
    at = f"{inference.V_ref:g}".replace("-", "\u2212")
    figure.update_xaxes(
        title=f"slow input conductance g<sub>s</sub> at {at} mV",
        range=ends(inference.g_s),
    )
    figure.update_yaxes(title="ultraslow, g<sub>u</sub>", range=ends(inference.g_u))
    add_legend(figure)
    return as_plot(figure)


def conductances(
    channels: Sequence[str],
    g: np.ndarray,
    highlight: Sequence[int],
    names: Sequence[str],
    colors: Palette,
) -> Plot:
    """How far members spread in every conductance, each line a member.

    `highlight` holds the rows that are drawn in other colours, and `names` their
    names.
    """
    log_g = logarithms_of(np.asarray(g, np.float64))
    fold = np.exp(log_g - np.median(log_g, axis=0))
    figure = new_plot(colors, 360, bottom=72)
    shown = np.unique(np.linspace(0, len(g) - 1, min(len(g), MAX_LINES)).astype(int))
    x = np.tile([*range(len(channels)), np.nan], len(shown))
    y = np.concatenate([fold[shown], np.full((len(shown), 1), np.nan)], axis=1).ravel()
    pale = faint(colors.members, float(np.clip(12 / len(shown), 0.12, 0.5)))
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": pale, "width": 1},
        name="all members",
        hoverinfo="skip",
    )
    for row, name, color in zip(highlight, names, colors.highlights, strict=False):
        figure.add_scatter(
            x=list(range(len(channels))),
            y=fold[row],
            mode="lines+markers",
            line={"color": color, "width": 2},
            name=name,
            text=[f"{value:.3g} mS/cm²" for value in g[row]],
            hovertemplate="%{text}",
        )
    figure.add_hline(1, line={"color": colors.muted, "width": 1, "dash": "dash"})
    low, high = np.quantile(g, (0.05, 0.95), axis=0)
    spread = [
        f"{name}<br><span style='font-size:10px'>{short(a)}–<br>{short(b)}</span>"
        for name, a, b in zip(channels, low, high, strict=True)
    ]
    figure.update_xaxes(
        tickvals=list(range(len(channels))),
        ticktext=spread,
        range=[-0.5, len(channels) - 0.5],
        tickangle=0,
        fixedrange=True,
    )
    drawn = np.concatenate(
        [np.quantile(fold, (0.005, 0.995)), fold[list(highlight)].ravel()]
    )
    ends = np.log10([min(0.45, drawn.min()) / 1.2, max(2.2, drawn.max()) * 1.2])
    steps = (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 10, 30, 100)
    ticks = [x for x in steps if ends[0] <= np.log10(x) <= ends[1]]
    figure.update_yaxes(
        type="log",
        range=list(ends),
        tickvals=ticks,
        ticktext=[f"×{x:g}" for x in ticks],
        title="conductance / median",
    )
    add_legend(figure)
    return as_plot(figure)


def correlations(channels: Sequence[str], g: np.ndarray, colors: Palette) -> Plot:
    """Correlations between conductances over members; orange pairs rise together."""
    r = correlations_of(g)
    num = len(channels)
    lower = np.where(np.tri(num, k=-1, dtype=bool), r, np.nan)[1:, :-1]
    figure = new_plot(colors, 360, left=56, bottom=36)
    scale = [[0, colors.members], [0.5, colors.paper], [1, colors.recording]]
    signed = lambda x: f"{x:+.2f}".replace("-", "\u2212").replace("0.", ".")
    text = [[signed(x) if np.isfinite(x) else "" for x in row] for row in lower]
    figure.add_heatmap(
        x=list(channels[:-1]),
        y=list(channels[1:]),
        z=lower,
        zmin=-1,
        zmax=1,
        colorscale=scale,
        showscale=False,
        xgap=2,
        ygap=2,
        text=text,
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertemplate="%{y} and %{x}: %{z:.2f}<extra></extra>",
        hoverongaps=False,
    )
    figure.update_xaxes(fixedrange=True, showline=False, ticks="")
    figure.update_yaxes(autorange="reversed", fixedrange=True, showline=False, ticks="")
    return as_plot(figure)


def yields(rounds: Sequence[Round], colors: Palette) -> Plot:
    """Numbers of candidates in every round: valid, or with the right pattern only."""
    figure = new_plot(colors, 100 + 30 * len(rounds), left=150)
    rows = list(range(len(rounds)))
    names = [f"{x.name} ({x.num:,})" for x in rounds]
    parts = (
        ("valid", [x.num_valid for x in rounds], colors.members, colors.paper),
        (
            "right pattern only",
            [x.num_label - x.num_valid for x in rounds],
            faint(colors.members, 0.4),
            colors.ink,
        ),
        ("else", [x.num - x.num_label for x in rounds], colors.grid, colors.ink),
    )
    for name, counts, color, ink in parts:
        share = [
            100 * count / max(x.num, 1) for count, x in zip(counts, rounds, strict=True)
        ]
        figure.add_bar(
            y=rows,
            x=share,
            orientation="h",
            name=name,
            marker={"color": color, "line": {"width": 0}},
            text=[count or "" for count in counts],
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": ink},
            textangle=0,
            hovertemplate="%{text} candidates, %{x:.1f} %",
        )
    for row, x in zip(rows, rounds, strict=True):
        ends = [100 * end for end in wilson(x.num_valid, x.num)]
        figure.add_scatter(
            x=ends,
            y=[row + 0.42] * 2,
            xaxis="x",
            yaxis="y",
            mode="lines",
            line={"color": colors.ink, "width": 2},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.update_layout(barmode="stack", bargap=0.3)
    figure.update_xaxes(range=[0, 100], title="share of candidates (%)")
    figure.update_yaxes(
        range=[len(rounds) - 0.4, -0.6],
        tickvals=rows,
        ticktext=names,
        fixedrange=True,
        ticks="",
    )
    add_legend(figure)
    return as_plot(figure)


def thinned(x: np.ndarray, y: np.ndarray, num: int = MAX_POINTS):
    """A line of fewer points that keeps every peak and trough."""
    width = -(-len(x) // (num // 2))
    if width < 2:
        return x, y
    usable = len(x) // width * width
    rows = y[:usable].reshape(-1, width)
    start = np.arange(len(rows)) * width
    both = np.stack([rows.argmin(axis=1), rows.argmax(axis=1)], axis=1) + start[:, None]
    keep = np.unique(both)
    return x[keep], y[keep]
