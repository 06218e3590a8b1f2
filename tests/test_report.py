"""The page about a population."""

import dataclasses
import html.parser
import re

import jax
import numpy as np
import pytest
from test_tables import make_generated, rows_of

from dicjax.generation.result import Generated
from dicjax.output.plots import style
from dicjax.output.report import write_report


@pytest.fixture(scope="module")
def generated() -> Generated:
    return make_generated()


@pytest.fixture(scope="module")
def page(generated, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(generated, path)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


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
        rows_of(generated, slice(0, 2)),
        accepted=np.zeros(2, bool),
        certificate=None,
        participation_ratio=float("nan"),
    )
    write_report(none, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h1>0 of 12" in page
    assert "Only 0 of the 12 members asked for were found" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert "Changes under which model neurons stay" not in page


def _cells(page: str, section: str) -> list[list[str]]:
    """The table of a section, as the texts of its rows."""
    (text,) = re.findall(rf"<h2>{section}.*?</h2>.*?</section>", page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in rows]


def test_the_report_has_a_row_for_each_thing_that_was_changed(generated, page):
    header, *rows = _cells(page, "Changes under which model neurons stay")
    assert header == ["what changes", "less", "more", "same pattern"]
    changes = [f"{name} ± 20 %" for name in generated.neuron.channel_names]
    changes += ["current ± 1.5 µA/cm²", "noise of 3 µA/cm²", "+10 °C"]
    assert [name for name, *_ in rows] == changes
    valid = 100 * generated.certificate.valid.mean(axis=0)
    same = 100 * generated.certificate.same_pattern.mean(axis=0)
    percent = lambda x: f"{x:.0f}\u202f%"
    assert rows[1][1:] == [*map(percent, (*valid[3:5], same[3:5].mean()))]
    assert rows[8][1:] == [*map(percent, (*valid[17:19], same[17:19].mean()))]
    assert rows[9][1:] == ["\u2013", percent(valid[19]), percent(same[19])]
    assert rows[10][1:] == ["\u2013", percent(valid[20]), percent(same[20])]
    share = percent(valid[0])
    assert f"(25 mV higher, with 10 times the calcium), {share} of the members" in page


def test_a_report_of_no_perturbation_has_no_table_of_them(generated, tmp_path):
    few = rows_of(generated, slice(0, 2))
    certificate = generated.certificate.along("start")
    certificate = jax.tree.map(lambda x: x[:2], certificate)
    few = dataclasses.replace(few, certificate=certificate)
    assert few.accepted.all()
    write_report(few, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "From another start (25 mV higher" in page
    assert _cells(page, "Changes under which model neurons stay") == []
