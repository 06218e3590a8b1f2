import dataclasses
import inspect
from typing import Any

import jax
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from test_tables import make_generated, rows_of

from dicjax._core import short
from dicjax.generation.result import (
    failures_of,
    Generated,
    grouped,
    main_failures,
    Round,
)
from dicjax.inference.posterior import NUM_DRAWS
from dicjax.output import plots
from dicjax.output.plots import activity, explanation, population, style
from dicjax.populations import Attribution, identifiability, ReachabilityMap
from dicjax.spikes.features import Features, spike_features
from dicjax.spikes.patterns import BURSTING, TONIC
from dicjax.spikes.trains import pad_trains, SpikeTrain


PERIOD_OFF = "burst period off"


def _texts(figure: FigureBase) -> list[str]:
    found = figure.findobj(Text)
    return [text.get_text() for text in found if isinstance(text, Text)]


@pytest.fixture(scope="session")
def generated() -> Generated:
    return make_generated()


@pytest.fixture(scope="session")
def drawn(generated) -> tuple[dict[str, Figure], Any, Any]:
    """All figures, and the settings of matplotlib before and after they were made."""
    before = matplotlib.rcParams.copy()
    return _all_figures(generated), before, matplotlib.rcParams.copy()


def _all_figures(result: Generated) -> dict[str, Figure]:
    return {
        "raster": plots.plot_raster(result.train, result.spike_times, result.accepted),
        "isis": plots.plot_isis(result.train, result.spike_times),
        "posterior": plots.plot_posterior(result.posterior, result.dics, -51.0),
        "conductances": plots.plot_conductances(result.neuron, result.g, [0]),
        "correlations": plots.plot_correlations(result.neuron, result.g),
        "features": plots.plot_features(
            result.target, result.features, result.tolerance, result.accepted
        ),
        "yield": plots.plot_yield(result.rounds),
    }


def test_figures_leave_matplotlib_as_it_was(drawn):
    _, before, after = drawn
    assert after == before
    for module in (activity, explanation, population, style):
        assert "pyplot" not in inspect.getsource(module)


def test_one_member_that_is_not_valid_can_be_drawn(generated):
    few = rows_of(generated, slice(0, 1))
    few = dataclasses.replace(few, accepted=np.zeros(1, bool))
    for figure in _all_figures(few).values():
        figure.draw_without_rendering()


def test_axes_of_what_has_a_unit_say_it(drawn):
    figures, *_ = drawn
    for name, unit in (("raster", "(s)"), ("isis", "(ms)"), ("posterior", "mV")):
        assert any(unit in text for text in _texts(figures[name]))
    assert any("mS/cm²" in text for text in _texts(figures["conductances"]))


def test_all_rows_of_a_raster_start_with_a_whole_burst(generated):
    train, times, accepted = generated.train, generated.spike_times, generated.accepted
    (ax,) = plots.plot_raster(train, times, accepted).axes
    isi = float(generated.target.intra_burst_isi)
    num = round(float(generated.target.spikes_per_burst))
    assert len(ax.lines) == 13
    for line in ax.lines[: 1 + int(generated.accepted.sum())]:
        onsets = 1000 * np.asarray(line.get_xdata())[::3]
        onsets = onsets[onsets >= 0]
        assert onsets[0] == 0
        within = np.diff(onsets)[: num - 2]
        assert np.all(within < 2.5 * isi)


def test_accepted_members_come_first_in_a_raster(generated):
    accepted = np.zeros(len(generated.g), bool)
    accepted[[9, 4]] = True
    figure = plots.plot_raster(generated.train, generated.spike_times, accepted, num=3)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["recording", "member 4", "member 9", "member 0"]


def test_a_raster_is_no_longer_than_the_recording(generated):
    short = generated.train.window(0.0, generated.train.times[0] + 400.0)
    (ax,) = plots.plot_raster(short, generated.spike_times, generated.accepted).axes
    assert ax.get_xlim()[1] <= 0.4


def test_histograms_hold_all_intervals_and_shares_end_at_all(generated):
    left, right = plots.plot_isis(generated.train, generated.spike_times).axes
    for line in left.lines:
        assert np.asarray(line.get_ydata())[::2].sum() == pytest.approx(100, abs=2)
    for line in right.lines:
        y = np.asarray(line.get_ydata())
        assert np.all(np.diff(y) >= 0)
        assert y[-1] == pytest.approx(100, abs=2)


def test_contours_hold_what_they_say(generated, drawn):
    figure = drawn[0]["posterior"]
    key = jax.random.key(3)
    draws = np.asarray(generated.posterior.sample(key, NUM_DRAWS))[0]
    (_, ax, _) = figure.axes
    contours = [c for c in ax.collections if isinstance(c, ContourSet)]
    (lines,) = (c for c in contours if not c.filled)
    for path, share in zip(lines.get_paths(), (0.9, 0.5), strict=True):
        inside = np.zeros(len(draws), bool)
        for polygon in path.to_polygons():
            inside ^= Path(polygon).contains_points(draws)
        assert inside.mean() == pytest.approx(share, abs=0.04)


def test_accepted_members_lie_in_the_shaded_bands(generated):
    figure = plots.plot_features(
        generated.target, generated.features, 0.1, generated.accepted
    )
    (ax,) = figure.axes
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    bands = [c for c in ax.collections if not isinstance(c, PathCollection)]
    assert len(bands) == 3
    for band, valid in zip(bands, dots[1::2], strict=True):
        box = band.get_datalim(ax.transData)
        x = np.asarray(valid.get_offsets())[:, 0]
        assert len(x) == generated.num_accepted
        assert np.all((box.x0 - 1e-6 <= x) & (x <= box.x1 + 1e-6))


@pytest.mark.parametrize(
    ("isi", "names"),
    (
        (np.full(40, 50.0), ["mean ISI"]),
        (
            np.geomspace(10.0, 200.0, 40),
            ["mean ISI", "1st quartile of ISIs", "median ISI", "3rd quartile of ISIs"],
        ),
    ),
    ids=("tonic", "irregular"),
)
def test_other_regimes_show_the_features_that_decide_there(isi, names):
    times = np.cumsum(np.tile(isi, (3, 1)) * [[1.0], [1.05], [1.3]], axis=1)
    each = [spike_features(pad_trains([row], 128)) for row in times]
    features = jax.tree.map(lambda *x: np.concatenate(x), *each)
    target: Features = jax.tree.map(lambda x: x[0], features)
    train = SpikeTrain(times[0])
    accepted = np.array([True, True, False])
    (ax,) = plots.plot_features(target, features, 0.1, accepted).axes
    labels = [x.get_text().split("\n")[0] for x in ax.get_yticklabels()]
    assert labels == names
    plots.plot_raster(train, times, accepted).draw_without_rendering()
    plots.plot_isis(train, times).draw_without_rendering()


def test_a_silent_recording_has_no_features_to_show(generated):
    silent = jax.tree.map(lambda x: x[0], spike_features(np.full((1, 128), np.inf)))
    with pytest.raises(ValueError, match="silent"):
        plots.plot_features(silent, generated.features, 0.1, generated.accepted)


def test_many_rounds_are_looked_at_together():
    rounds = [Round(f"x {i + 1}", 10, 5, i, {"a": 1, f"b{i}": 2}) for i in range(40)]
    few = grouped(rounds)
    assert len(few) <= 8
    assert few[0] == rounds[0]
    assert [few[1].name, few[-1].name] == ["rounds 2 to 7", "rounds 38 to 40"]
    assert sum(x.num for x in few) == 400
    assert sum(x.num_valid for x in few) == sum(range(40))
    assert few[1].failures == {"a": 6, **{f"b{i}": 2 for i in range(1, 7)}}
    assert grouped(rounds[:8]) == rounds[:8]
    assert grouped(rounds[:9])[-1].name == "rounds 8 to 9"


def test_reasons_come_first_the_commonest_and_are_left_out_where_none_failed():
    few = Round("a", 10, 5, 1, {"silent": 1, "period": 8, "older words": 0})
    many = Round("b", 10, 10, 9, {"silent": 9})
    assert failures_of([few, many]) == [("did not fire", [1, 9]), (PERIOD_OFF, [8, 0])]
    said = f"Most candidates failed because: {PERIOD_OFF} (8), did not fire (1)."
    assert main_failures([many, few]) == said
    assert main_failures([few, Round("c", 10, 10, 10, {})]) == ""


def test_bars_of_a_round_add_up_to_all_of_it():
    rounds = (Round("first", 200, 150, 40, {}), Round("second", 50, 50, 50, {}))
    (ax,) = plots.plot_yield(rounds).axes
    bars = [bar for bar in ax.patches if isinstance(bar, Rectangle)]
    widths = np.reshape([bar.get_width() for bar in bars], (2, 3))
    np.testing.assert_allclose(widths, [[20, 55, 25], [100, 0, 0]])
    assert {"40", "110", "50"} <= set(_texts(ax.figure))


def test_correlations_are_those_of_logarithms(generated):
    g = generated.g[:8].copy()
    g[:, 2] = 0.5 * g[:, 0] ** 2  # on a line in logarithms only
    g[:, 5] = 3.0
    texts = _texts(plots.plot_correlations(generated.neuron, g))
    assert "+1.00" in texts
    assert texts.count("\u2013") == 7  # a conductance that never varies
    r = np.corrcoef(np.log(g[:, 0]), np.log(g[:, 1]))[0, 1]
    assert f"{r:+.2f}".replace("-", "\u2212").replace("0.", ".") in texts


@pytest.mark.parametrize(
    ("value", "text"),
    (
        (0.0, "0"),
        (3e-6, "< 0.0001"),
        (0.0076, "0.0076"),
        (99.74, "99.7"),
        (999.7, "1000"),
        (8725.3, "8725"),
        (1_234_567.0, "1,234,567"),
    ),
)
def test_numbers_are_short_and_without_exponents(value, text):
    assert short(value) == text


def test_members_chosen_as_different_are_the_outlying_ones():
    rng = np.random.default_rng(1)
    g = rng.lognormal(0, 0.05, (40, 5))
    g[7], g[21], g[33] = 3.0, 1 / 3.0, [3.0, 0.3, 3.0, 0.3, 3.0]
    assert set(plots.most_different(g)) == {7, 21, 33}
    assert len(plots.most_different(g[:2])) == 2


def test_traces_start_with_a_spike_of_every_member(generated):
    ts = np.arange(0.0, 1000.0, 0.1)
    phases = (13.0, 70.0)
    V = np.stack([-60 + 100.0 * (np.mod(ts - p, 90.0) < 1.0) for p in phases])
    train = SpikeTrain(np.arange(20.0, 900.0, 90.0))
    figure = plots.plot_traces(train, ts, V, names=("a", "b"))
    for ax in figure.axes[1:]:
        t, v = (np.asarray(x) for x in ax.lines[0].get_data())
        i = np.argmax(v > 10)
        crossing = np.interp(10, v[i - 1 : i + 1], t[i - 1 : i + 1])
        assert crossing == pytest.approx(0, abs=1e-9)
        assert t[-1] <= 1.0


@pytest.mark.parametrize("names", ((), ("a",), ("a", "b", "c")))
@pytest.mark.parametrize("num", (0, 1, 4))
def test_all_traces_are_drawn_with_names_or_without(num, names):
    ts = np.arange(0.0, 500.0, 0.1)
    V = np.tile(-60 + 100.0 * (np.mod(ts, 90.0) < 1.0), (num, 1))
    train = SpikeTrain(np.arange(20.0, 900.0, 90.0))
    figure = plots.plot_traces(train, ts, V, names)
    figure.draw_without_rendering()
    assert [len(ax.lines) for ax in figure.axes] == [1] * (1 + num)


def test_members_are_valid_and_none_is_highlighted_by_default(generated):
    train, times = generated.train, generated.spike_times
    (default,) = plots.plot_raster(train, times).axes
    (valid,) = plots.plot_raster(train, times, np.ones(len(times), bool)).axes
    colors = lambda ax: [line.get_color() for line in ax.lines]
    assert colors(default) == colors(valid)
    texts = _texts(plots.plot_conductances(generated.neuron, generated.g))
    assert not any(text.startswith("member ") for text in texts)


def test_a_training_curve_shows_both_losses():
    losses = np.exp(-np.arange(2000) / 300)
    validation = np.array([[1000, 0.5], [2000, 0.3]])
    figure = plots.plot_training(losses, validation)
    (ax,) = figure.axes
    learning, apart = ax.lines
    assert np.asarray(learning.get_ydata())[0] == pytest.approx(losses[:200].mean())
    assert np.asarray(apart.get_xdata()).tolist() == [1000, 2000]


def _attribution() -> Attribution:
    rng = np.random.default_rng(0)
    centre = np.array([[-9.0, 1.0, 0.0], [2.0, -6.0, 0.5], [0.0, -1.0, 4.0]])
    shares = centre + 0.1 * rng.normal(size=(40, 3, 3))
    return Attribution(("Na", "CaS", "H"), np.full(40, -51.0), shares)


def _map() -> ReachabilityMap:
    """A map whose points are tonic below, bursting above and out of reach beyond."""
    status, labels = np.zeros((4, 3, 2), int), np.zeros((4, 3, 4), int)
    status[:3], status[3], status[2] = (8, 0), (0, 8), (2, 6)
    labels[:3, 0, TONIC] = status[:3, 0, 0]
    labels[:3, 1:, BURSTING] = status[:3, 1:, 0]
    known = np.where(labels.any(axis=-1), 50.0, np.nan)
    return ReachabilityMap(
        model="toy",
        V_ref=-51.0,
        g_s=np.array([-4.0, -2.0, 0.0, 4.0]),
        g_u=np.array([0.0, 5.0, 10.0]),
        spans=(8.0, 10.0),
        num=8,
        names=("ok", "infeasible"),
        channel_names=("Na",),
        status=status,
        limiting=status[..., 1:],
        labels=labels,
        mean_isi=known,
        period=known,
        spikes_per_burst=known,
    )


def _boxes(ax) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def test_bars_of_an_attribution_add_up_to_the_last_one():
    attribution = _attribution()
    axes = plots.plot_attribution(attribution).axes
    assert len(axes) == 3
    for k, ax in enumerate(axes):
        *shares, total = [bar.get_height() for bar in _boxes(ax)[-4:]]
        np.testing.assert_allclose(shares, np.median(attribution.shares[:, k], axis=0))
        assert total == pytest.approx(sum(shares), abs=0.15)
        ends = [
            np.ptp(np.asarray(path.vertices)[:, 1])
            for path in ax.collections[0].get_paths()
        ]
        assert np.all(np.array(ends) > 0.2)  # of members, whose spread is 0.1
    assert any("at \u221251 mV" in text for text in _texts(axes[0].figure))


def test_channels_that_regenerate_look_other_than_those_that_restore():
    slow = plots.plot_attribution(_attribution()).axes[1]
    opacities = [to_rgba(bar.get_facecolor())[3] for bar in _boxes(slow)[-4:]]
    assert opacities[1] > opacities[0]
    own = dataclasses.replace(_attribution(), V=np.linspace(-52.0, -50.0, 40))
    texts = _texts(plots.plot_attribution(own))
    assert any("own potential" in text for text in texts)


def test_a_map_is_colored_where_neurons_can_be_and_hatched_elsewhere():
    mapped = _map()
    figure = plots.plot_reachability(mapped, np.array([[-8.0, -3.0, 2.0]]))
    (ax,) = figure.axes
    cells = _boxes(ax)
    assert ax.patch.get_hatch()
    tints = {}
    for cell in cells[1::2]:  # each lies on one that hides the hatching
        middle = np.add(cell.get_xy(), (cell.get_width() / 2, cell.get_height() / 2))
        tints[tuple(middle)] = to_rgba(cell.get_facecolor())
    assert len(tints) == int(mapped.is_reached.sum()) == 9
    tonic, bursting = (to_rgba(style.HIGHLIGHTS[1]), to_rgba(style.MEMBERS))
    assert tints[-4.0, 0.0][:3] == tonic[:3]
    assert tints[-4.0, 10.0][:3] == bursting[:3]
    faint, full = tints[0.5, 5.0][3], tints[-2.0, 5.0][3]  # 2 of 8 members, and all
    assert 0.2 < faint < 0.5 < full == 1
    (points,) = (c for c in ax.collections if isinstance(c, PathCollection))
    assert np.asarray(points.get_offsets()).tolist() == [[-3.0, 2.0]]
    words = " ".join(
        area.get_text() for area in ax.findobj(Text) if isinstance(area, Text)
    )
    for word in ("tonic", "bursting", "hatched", "members", "mV"):
        assert word in words
    assert "silent" not in words


def test_dots_of_directions_are_where_features_leave_tolerance():
    slopes = np.zeros((6, 2, 3))
    slopes[:, 0, 0], slopes[:, 1, 1] = 2.0, 0.05
    found = identifiability(slopes, ("a", "b", "c"), ("period", "rate"))
    left, right = plots.plot_identifiability(found).axes
    stiff, sloppy = (
        np.asarray(c.get_offsets())
        for c in left.collections
        if isinstance(c, PathCollection)
    )
    assert stiff[:, 0].tolist() == pytest.approx([np.log(1.1) / 2])
    assert sloppy[0, 0] == pytest.approx(np.log(1.1) / 0.05)
    # The last goes on for ever: at the edge, which says so.
    assert sloppy[1, 0] == pytest.approx(left.get_xlim()[1])
    assert "further" in _texts(left.figure)
    assert "+1.0" in _texts(right.figure)
    assert any("factor" in text for text in _texts(left.figure))
