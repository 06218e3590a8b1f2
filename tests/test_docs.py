import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_tables import make_generated

import dicjax as dj
from dicjax.neurons.models import MODELS
from dicjax.output.population_files import write_population
from dicjax.spikes.patterns import BURSTING


DOCS = pathlib.Path(__file__).parents[1] / "docs"


def blocks_of(page: pathlib.Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def run_blocks(page: str) -> dict:
    """Runs the Python blocks of a page one after the other, as a reader would."""
    namespace = {}
    for block in blocks_of(DOCS / page):
        exec(compile(block, page, "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_type_checkers_find_no_error_on_any_page(tmp_path):
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    written = {page: "\n".join(blocks_of(page)) for page in pages}
    assert sum(map(bool, written.values())) > 10
    for page, text in written.items():
        (tmp_path / f"{page.parent.name}_{page.stem}.py").write_text(text)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def declared():
    return run_blocks("declare_a_neuron.md")


def test_a_neuron_takes_some_forty_lines(declared):
    block, *_ = blocks_of(DOCS / "declare_a_neuron.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 60
    assert declared["thalamic"].name == "thalamic"


def test_the_declared_neuron_does_what_its_page_says(declared):
    tonic, bursting = declared["awake"], declared["asleep"]
    assert float(tonic.mean_isi) == pytest.approx(21.7, rel=0.02)
    assert int(bursting.label) == BURSTING
    assert float(bursting.period) == pytest.approx(303, rel=0.03)
    dics = [float(declared[name]) for name in ("g_f", "g_s", "g_u", "V_th")]
    np.testing.assert_allclose(dics, (1.165, -1.892, 2.368, -54.98), rtol=1e-3)


def test_small_spikes_of_the_declared_neuron_are_as_many_as_its_page_says(declared):
    missed, found = declared["missed"], declared["found"]
    assert (missed.num_spikes, bool(missed.fell_short)) == (0, True)
    assert (found.num_spikes, bool(found.fell_short)) == (72, False)


def test_the_declared_population_shares_its_input_conductances(declared):
    population = declared["population"]
    assert str(population) == "32 of 32 members ok"
    assert population.residual.max() < 1e-6
    assert (np.asarray(declared["labels"]) == BURSTING).mean() > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_card_with_its_conductances(name):
    card, neuron = (DOCS / "models" / f"{name}.md").read_text(), MODELS[name]()
    assert f"[{name}]({name}.md)" in (DOCS / "models" / "README.md").read_text()
    assert (DOCS / "models" / f"{name}.png").stat().st_size < 100_000
    for channel, g in neuron.defaults or ():
        assert re.search(rf"^\| {channel} \|.*\| {g:g} \|$", card, re.M)
    assert f"| V_ref | {float(neuron.V_ref):g} mV |" in card


def test_the_page_on_simulation_does_what_it_says():
    page = run_blocks("simulation.md")
    run, reference = page["run"], page["reference"]
    assert run.V.shape == (2, len(run.ts)) and np.isfinite(run.V).all()
    assert reference.succeeded.all()
    num_spikes = page["unequal"].num_spikes
    assert num_spikes[0] > num_spikes[1] > num_spikes[2] > 2
    rate, steady = page["answer"].rate, page["answer"].steady
    assert rate[0] == 0 < rate[1] < rate[2] and steady[0] < -80


@pytest.mark.slow
def test_the_page_on_protocols_does_what_it_says():
    page = run_blocks("tutorials/protocols.md")
    page["plt"].close("all")
    rate = page["rate"]
    assert rate[0] == 0 and rate[-1] > 60 and np.all(np.diff(rate[4:]) >= 0)
    held, real = page["held"], page["real"]
    # At rest nothing flows; later, sodium flows in and potassium out.
    assert np.abs(held.I[:, -1]).min() < np.abs(held.I[:, -1]).max() / 50
    assert held.I[-4].min() < -500 < 0 < held.I[-4, -1]
    assert 1 < np.abs(real.V - real.command)[-4, 60:].max() < 20
    assert np.all(np.isfinite(page["slopes"])) and page["slopes"][1] < 0
    followed = page["followed"].num_spikes
    assert followed[0] < followed[-1] == 10
    assert page["shown"].currents.shape == (len(page["ts"]), 3)


@pytest.mark.slow
def test_the_page_on_derivatives_does_what_it_says():
    with jax.numpy_dtype_promotion("standard"):  # which Optax needs
        page = run_blocks("tutorials/derivatives.md")
    np.testing.assert_allclose(np.exp(page["log_g"]), [120, 36, 0.3], rtol=0.02)
    assert page["slopes"][0] > 0 > page["slopes"][1]
    one = page["dj"].solve(
        page["neuron"], page["neuron"].default_g, page["ts"], stimulus=page["step"]
    )
    assert page["found"].is_trusted
    assert float(page["found"].period) == pytest.approx(14.64, abs=0.01)
    np.testing.assert_allclose(page["exact"][0, 0], (-0.0138, -0.0370), rtol=0.02)
    np.testing.assert_allclose(page["around"], page["exact"], rtol=0.05)
    both = np.concatenate((page["first"].V, page["second"].V))
    np.testing.assert_allclose(both, one.V, rtol=1e-4)
    assert page["clamped"].currents.shape == (len(page["ts"]), 3)


def test_the_page_on_exporting_does_what_it_says(tmp_path, monkeypatch):
    pytest.importorskip("pynwb")
    pytest.importorskip("openpyxl")
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    pathlib.Path("results").mkdir()
    write_population(make_generated(), pathlib.Path("results"))
    page = run_blocks("exporting.md")
    assert page["some"].members.tolist() == [0, 3]
    for name in ("neuron", "brian2", "jaxley", "neuroml"):
        assert (tmp_path / f"for_{name}" / "run.py").exists()
    num = len(page["population"].members)
    assert len(page["table"]) == len(page["features"]) == num
    assert len(dj.read_spike_trains("population.nwb")) == num


@pytest.mark.slow
def test_the_page_on_populations_does_what_it_says():
    page = run_blocks("populations.md")
    assert str(page["population"]) == "100 of 100 members ok"
    assert page["refined"].valid.mean() > 0.95
    for found in ("followed", "free", "fitted"):
        assert page[found].valid.mean() > 0.85
    assert page["free"].numbers.shape == (16, 2)
    assert np.isfinite(page["by_kinetics"][:, 0]).all(axis=1).mean() > 0.5
    assert page["way"].valid.mean() > 0.95


def test_the_page_on_sweeps_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = run_blocks("sweeps.md")
    assert page["standing"].is_complete and len(page["table"]) == 128
    said = "small: simulate, 1 of 1 parts, 128 of 128 units (100.0%), 0.0 MB"
    assert str(page["standing"]).splitlines()[0] == said


@pytest.mark.slow
def test_the_page_on_operators_does_what_it_says():
    page = run_blocks("operators.md")
    assert page["answer"].V.shape == (200, 8000)
    rest = page["features"][:, page["operator"].names.index("rest")]
    np.testing.assert_allclose(page["answer"].V[:, 0], rest, rtol=1e-5)
    # All gain as much above one threshold, so they fire about as often.
    counts = np.asarray(page["shape"].num_spikes)
    assert 6 <= np.median(counts) <= 14
    assert page["later"].V[0, 0] == page["answer"].memory.V[0]
    slope = jax.grad(page["potential"])(15.0)
    step = 0.1
    ahead, behind = (page["potential"](15.0 + x) for x in (step, -step))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=0.05)


def test_the_page_on_recordings_does_what_it_says():
    page = run_blocks("recordings.md")
    assert page["train"].num_spikes == 444
    assert (page["finding"].kind, page["drift"].kind) == ("merged", "drift")
    assert 40 < page["steady"].num_spikes < 300
