import inspect
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from test_docs import run_blocks
from test_tables import make_generated

import dicjax as dj
from dicjax.cli import main
from dicjax.output.population_files import write_population


ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as MkDocs builds them where every warning is an error."""
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return out


def test_the_site_builds_without_a_warning(site):
    for page in PAGES:
        where = page.relative_to(DOCS).with_suffix(".html")
        where = where.with_name("index.html") if where.stem == "README" else where
        assert (site / where).exists()


def test_reading_the_site_asks_nobody_else_for_anything(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]* src="([^"]*)|<link [^>]*href="([^"]*)',
            page.read_text(),
        )
        assert not [x for pair in loaded for x in pair if re.match("https?:|//", x)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:|//)", sheet.read_text())


def test_formulas_and_constructors_are_on_the_site(site):
    page = (site / "api" / "neurons.html").read_text()
    assert page.count("<math") > 10 and "arithmatex" not in page
    text = re.sub("<[^>]+>", "", page[page.index('id="dicjax.Nernst"') :])
    assert re.search(r"Nernst\(\s*outside: .*temperature: .*= 2.0", text[:2000], re.S)


def test_the_reference_lists_every_public_name_once():
    listed = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: dicjax\.(\w+)$", page.read_text(), re.M)
    ]
    public = {
        name
        for name in dir(dj)
        if not name.startswith("_") and not inspect.ismodule(getattr(dj, name))
    } - {"TYPE_CHECKING"}
    assert sorted(listed) == sorted(public)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *PAGES], ids=lambda x: str(x.relative_to(ROOT))
)
def test_links_between_files_work_without_the_site(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if not link.startswith(("http:", "https:")):
            assert (page.parent / link).exists(), link


def test_figures_are_small():
    assert all(x.stat().st_size < 150_000 for x in DOCS.rglob("*.png"))


@pytest.mark.slow
def test_the_tutorial_in_python_does_what_it_says():
    page = run_blocks("tutorials/scripting.md")
    np.testing.assert_allclose(page["posterior"].median[0], (-2.3, 0.46), rtol=0.05)
    assert page["result"].num_accepted == 20
    assert page["refined"].valid.mean() > 0.9
    assert page["way"].valid.mean() > 0.9
    bursting = page["bursting"]
    assert (bursting[:2] == 1).all() and (bursting[3] == 0).all()


def test_the_page_on_gpus_does_what_it_says():
    page = run_blocks("howto_gpu.md")
    assert page["run"].succeeded.all()
    assert page["same"]


def test_the_tutorial_on_the_command_line_shows_what_is_printed(capsys):
    page = (DOCS / "tutorials" / "command_line.md").read_text()
    with pytest.raises(SystemExit):
        main(["features", str(ROOT / "examples" / "slow_burster.csv")])
    header, row = capsys.readouterr().out.splitlines()
    shown = page[page.index(header) :].splitlines()[1]
    for now, then in zip(row.split(","), shown.split(","), strict=True):
        if then[0].isdigit():
            assert float(now) == pytest.approx(float(then), rel=1e-4)
        else:
            assert now == then


def test_results_open_in_pandas_as_the_tutorial_opens_them(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    pathlib.Path("results").mkdir()
    generated = make_generated()
    write_population(generated, pathlib.Path("results"))
    page = run_blocks("tutorials/command_line.md")
    assert len(page["models"]) == generated.num_accepted
    count = np.isfinite(generated.spike_times[0]).sum()
    assert len(page["first"]) == count
