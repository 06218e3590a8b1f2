"""Sweeps that are broken in the middle, for real: `scripts/bench/faults.py`."""

import os
import random
import subprocess
import sys

import pytest

from dicjax.cli import main
from dicjax.sweeps import read_config
from dicjax.sweeps.plan import make_plan
from scripts.bench import faults, faults_of_commands


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return faults.Bench(tmp_path_factory.mktemp("faults"), random.Random(0), num=256)


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_nothing_is_lost(bench, fault):
    if fault == "full-disk" and (os.name != "posix" or os.geteuid() != 0):
        pytest.skip("only root can mount a small disk")
    faults.FAULTS[fault](bench)


@pytest.mark.slow
def test_jobs_of_submitit_make_the_same_parts(bench):
    out = bench.fresh()
    assert bench.run(out, "--submitit", "2", "--cluster", "local").returncode == 0
    bench.compare(out)


@pytest.mark.slow
def test_a_worker_that_gets_nowhere_ends_itself(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('job = "simulate"\nmodel = "stg"\nmembers = {num = 8}\n')
    make_plan(read_config(path), tmp_path / "out")
    call = "from dicjax.sweeps.tasks import work; work({!r}, [[0]], 0.01)"
    code = call.format(str(tmp_path / "out"))
    assert subprocess.run([sys.executable, "-c", code]).returncode == 124


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "4/3"], "4/3"),
        (["--workers", "2", "--dask", "local:2"], "--workers and --dask"),
        (["--workers", "0"], "at least one"),
        (["--dask", "local:none"], "local:none"),
        (["--timeout", "5"], "--timeout"),
        (["--submitit", "2", "--slurm", "gpu"], "'gpu'"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, capsys, options, message):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text('job = "operator"\n')
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "run", str(path), "--out", str(out), *options])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return faults_of_commands.Commands(tmp_path_factory.mktemp("c"), random.Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults_of_commands.FAULTS)
def test_commands_lose_nothing(commands, fault):
    if fault == "full-disk-of-results" and (os.name != "posix" or os.geteuid() != 0):
        pytest.skip("only root can mount a small disk")
    faults_of_commands.FAULTS[fault](commands)
