import pathlib

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from dicjax.cli import main
from dicjax.inference.checkpoint import load_checkpoint


# The published cell with kinetics twice as slow, and a recipe for quick simulations.
NEURON = """
import dataclasses

import dicjax as dj

base = dj.stg()
recipe = dataclasses.replace(
    base.required_recipe, duration=2500.0, discard=500.0, noise=(3.0,)
)
neuron = dataclasses.replace(base, name="mine", recipe=recipe)
"""


def _run(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    return int(stopped.value.code or 0)


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
    path = tmp_path / "mine.py"
    path.write_text(NEURON)
    return path


def test_a_neuron_that_cannot_be_is_refused_before_any_work(file, tmp_path, capsys):
    file.write_text(NEURON.replace("2500.0", "400.0"))
    assert _run("adapt", file, "--out", tmp_path / "out") == 2
    assert "duration" in capsys.readouterr().err
    file.write_text("neuron = 3")
    assert _run("adapt", file, "--out", tmp_path / "out") == 2
    assert _run("adapt", "squid", "--out", tmp_path / "out") == 2
    assert "There is no model 'squid'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_exists_is_not_overwritten(file, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert _run("adapt", file, "--out", tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err


def test_training_an_encoder_for_a_file_points_to_adapting(file, tmp_path, capsys):
    assert _run("train", file, "--out", tmp_path / "out") == 2
    assert "use `dicjax adapt" in capsys.readouterr().err


@pytest.mark.slow
def test_an_adapted_neuron_generates_members(file, tmp_path):
    out = tmp_path / "mine"
    config = tmp_path / "sweep.toml"
    config.write_text('job = "dataset"\nmodel = "mine.py"\nnum = 6000\nseed = 1\n')
    assert _run("sweep", "run", config, "--out", tmp_path / "swept") == 0
    args = ("--sweep", tmp_path / "swept", "--num-steps", 600, "--num-test", 400)
    args += ("--density.num-steps", 800, "--emulator.num-steps", 800)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote integers
        assert _run("adapt", file, "--out", out, *args) == 0
    loaded = load_checkpoint(out / "neuron.py")
    assert loaded.model == "mine"
    assert loaded.header["config"]["base"]["model"] == "stg"
    assert sum(source["num"] for source in loaded.header["data"]["sources"]) == 6000
    burst = 190.0 * np.arange(25)[:, None] + np.array([0.0, 8.0, 17.0, 27.0, 39.0])
    recording = tmp_path / "recording.csv"
    recording.write_text(
        "spike_time_ms\n" + "\n".join(f"{t:.2f}" for t in burst.ravel())
    )
    results = tmp_path / "results"
    args = ("--model", out / "neuron.py", "--members", 10, "--tolerance", 0.3)
    assert _run("generate", recording, "--out", results, *args) == 0
    assert (results / "report.html").is_file()


def test_models_are_simulated_under_the_current_of_their_recipe(tmp_path, capsys):
    table = tmp_path / "models.csv"
    table.write_text("g_Na,g_Kd,g_M,g_CaL,g_leak\n50,5,0.03,0.1,0.01\n")
    args = ("--model", "pospischil-ib", "--duration", 1000, "--discard", 0)
    counts = []
    for name, more in (("own", ()), ("none", ("--current", 0))):
        out = tmp_path / name
        assert _run("simulate", table, "--out", out, *args, *more) == 0
        counts.append(len(pq.read_table(out / "spikes.parquet")["spike_times"][0]))
    capsys.readouterr()
    assert counts[0] > 5
    assert counts[1] == 0
