import dataclasses
import html.parser
import inspect
import re

import jax
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from test_tables import make_generated

from dicjax import plots
from dicjax.plots import activity, population, style
from dicjax.posterior import NUM_DRAWS
from dicjax.report import write_report
from dicjax.result import Generated, Round
from dicjax.spikes import Features, pad_trains, spike_features, SpikeTrain


def _texts(figure: FigureBase) -> list[str]:
    found = figure.findobj(Text)
    return [text.get_text() for text in found if isinstance(text, Text)]


@pytest.fixture(scope="session")
def generated() -> Generated:
    return make_generated()


@pytest.fixture(scope="session")
def page(generated, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(generated, path)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def _all_figures(result: Generated) -> dict[str, Figure]:
    return {
        "raster": plots.plot_raster(
            result.train, result.spike_times, accepted=result.accepted
        ),
        "isis": plots.plot_isis(result.train, result.spike_times),
        "posterior": plots.plot_posterior(result.posterior, result.dics, -51.0),
        "conductances": plots.plot_conductances(result.neuron, result.g, highlight=[0]),
        "correlations": plots.plot_correlations(result.neuron, result.g),
        "features": plots.plot_features(
            result.target, result.features, result.tolerance, result.accepted
        ),
        "yield": plots.plot_yield(result.rounds),
    }


def _rows(result: Generated, keep) -> Generated:
    cells = ("g", "dics", "V_th", "spike_times", "distance", "accepted")
    return dataclasses.replace(
        result,
        features=jax.tree.map(lambda x: x[keep], result.features),
        **{name: getattr(result, name)[keep] for name in cells},
    )


def test_figures_leave_matplotlib_as_it_was(generated):
    before = matplotlib.rcParams.copy()
    _all_figures(generated)
    assert matplotlib.rcParams.copy() == before
    for module in (activity, population, style):
        assert "pyplot" not in inspect.getsource(module)


def test_one_member_that_is_not_valid_can_be_drawn(generated):
    few = _rows(generated, slice(0, 1))
    few = dataclasses.replace(few, accepted=np.zeros(1, bool))
    for figure in _all_figures(few).values():
        figure.draw_without_rendering()


def test_axes_of_what_has_a_unit_say_it(generated):
    figures = _all_figures(generated)
    for name, unit in (("raster", "(s)"), ("isis", "(ms)"), ("posterior", "mV")):
        assert any(unit in text for text in _texts(figures[name]))
    assert any("mS/cm²" in text for text in _texts(figures["conductances"]))


def test_all_rows_of_a_raster_start_with_a_whole_burst(generated):
    (ax,) = plots.plot_raster(generated.train, generated.spike_times).axes
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
    figure = plots.plot_raster(
        generated.train, generated.spike_times, accepted=accepted, num=3
    )
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["recording", "member 4", "member 9", "member 0"]


def test_a_raster_is_no_longer_than_the_recording(generated):
    short = generated.train.window(0.0, generated.train.times[0] + 400.0)
    (ax,) = plots.plot_raster(short, generated.spike_times).axes
    assert ax.get_xlim()[1] <= 0.4


def test_histograms_hold_all_intervals_and_shares_end_at_all(generated):
    left, right = plots.plot_isis(generated.train, generated.spike_times).axes
    for line in left.lines:
        assert np.asarray(line.get_ydata())[::2].sum() == pytest.approx(100, abs=2)
    for line in right.lines:
        y = np.asarray(line.get_ydata())
        assert np.all(np.diff(y) >= 0)
        assert y[-1] == pytest.approx(100, abs=2)


def test_contours_hold_what_they_say(generated):
    figure = plots.plot_posterior(generated.posterior, generated.dics, -51.0)
    key = jax.random.key(3)
    draws = np.asarray(generated.posterior.sample(key, NUM_DRAWS))[0]
    contours = [c for c in figure.axes[0].collections if isinstance(c, ContourSet)]
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
    for figure in (plots.plot_raster(train, times), plots.plot_isis(train, times)):
        figure.draw_without_rendering()


def test_a_silent_recording_has_no_features_to_show(generated):
    silent = jax.tree.map(lambda x: x[0], spike_features(np.full((1, 128), np.inf)))
    with pytest.raises(ValueError, match="silent"):
        plots.plot_features(silent, generated.features, 0.1, generated.accepted)


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
    ((0.0076, "0.0076"), (99.7, "100"), (99.4, "99"), (8725.3, "8725")),
)
def test_numbers_are_short_and_without_exponents(value, text):
    assert style.short(value) == text


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
        assert t[np.argmax(v > 10)] == pytest.approx(0, abs=1e-9)
        assert t[-1] <= 1.0


class _Checker(html.parser.HTMLParser):
    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_page(page):
    checker = _Checker()
    checker.feed(page)
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    assert page.count("<figure") == page.count("</figcaption>") == 8
    assert len(page) < 1_500_000


def test_the_report_asks_for_nothing_from_elsewhere(page):
    assert "default-src 'none'" in page
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<(script|link|iframe|object)", page)
    assert not re.search(r"@import|@font-face", page)
    for source in re.findall(r"(?:src|href)=\"([^\"]*)", page):
        assert source.startswith(("data:image/png;base64,", "#"))


def test_the_report_escapes_what_users_named(page):
    assert "mouse &amp; co &lt;1&gt;.csv" in page
    assert "&lt;b&gt;LP&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "/home/ana" not in page


def test_the_report_says_how_many_members_fire_like_the_recording(generated, page):
    title = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert title is not None
    assert title[1].startswith(f"{generated.num_accepted} of 12 model neurons")
    assert "within 10 %" in title[1]
    assert "burst period off" in page
    assert "prefers-color-scheme: dark" in page


def test_figures_in_the_report_follow_its_colors(page):
    drawn = page[page.index("<body>") :]
    assert "var(--recording)" in drawn
    assert style.RECORDING not in drawn
    assert style.INK not in drawn


def test_a_report_without_a_valid_member_says_so(generated, tmp_path):
    none = dataclasses.replace(
        generated,
        accepted=np.zeros(len(generated.g), bool),
        participation_ratio=float("nan"),
    )
    write_report(none, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h1>0 of 12" in page
    assert "Only 0 of the 12 members asked for were found" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_a_training_curve_shows_both_losses():
    losses = np.exp(-np.arange(2000) / 300)
    validation = np.array([[1000, 0.5], [2000, 0.3]])
    figure = plots.plot_training(losses, validation)
    (ax,) = figure.axes
    learning, apart = ax.lines
    assert np.asarray(learning.get_ydata())[0] == pytest.approx(losses[:200].mean())
    assert np.asarray(apart.get_xdata()).tolist() == [1000, 2000]
