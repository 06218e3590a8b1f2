"""Sweeps that are broken in the middle, for real: `scripts/bench/faults.py`."""

import os
import random
import subprocess
import sys

import pytest

from scripts.bench import faults


QUICK = ("damaged-parts",)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return faults.Bench(tmp_path_factory.mktemp("faults"), random.Random(0), num=256)


def needs(fault):
    if fault == "full-disk" and (os.name != "posix" or os.geteuid() != 0):
        pytest.skip("only root can mount a small disk")


@pytest.mark.parametrize("fault", QUICK)
def test_nothing_is_lost(bench, fault):
    needs(fault)
    faults.FAULTS[fault](bench)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [x for x in faults.FAULTS if x not in QUICK])
def test_nothing_is_lost_in_other_ways(bench, fault):
    needs(fault)
    faults.FAULTS[fault](bench)


@pytest.mark.slow
def test_jobs_of_submitit_make_the_same_parts(bench):
    out = bench.fresh()
    assert bench.run(out, "--submitit", "2", "--cluster", "local").returncode == 0
    bench.compare(out)


def test_a_worker_that_gets_nowhere_ends_itself(bench):
    call = "from dicjax.sweeps.tasks import work; work({!r}, [[0]], 0.01)"
    code = call.format(str(bench.folder / "whole"))
    assert subprocess.run([sys.executable, "-c", code]).returncode == 124


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "4/3"], "--shard takes I/N"),
        (["--workers", "2", "--dask", "local:2"], "Choose one of"),
        (["--dask", "local:none"], "names no workers"),
        (["--timeout", "5"], "--timeout needs workers"),
        (["--submitit", "2", "--slurm", "gpu"], "NAME=VALUE"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    (tmp_path / "sweep.toml").write_text('job = "operator"\n')
    command = [*faults.SWEEP, "run", tmp_path / "sweep.toml", "--out", tmp_path / "o"]
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    assert run.returncode == 2 and message in run.stderr
    assert not (tmp_path / "o").exists()
