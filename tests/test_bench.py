"""The command line of the benchmarks, and the format of their results."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from scripts.bench.__main__ import COMMANDS, load
from scripts.bench.devices import gpu
from scripts.bench.processes import environment, ROOT
from scripts.bench.results import Benchmark, Measurement, row, run
from scripts.bench.timing import in_turn, ratios, side_by_side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretend(Benchmark):
    """Measures nothing."""

    rounds: int = 2

    def measure(self):
        yield from row("speed", {"method": "A"}, {("rate", "1/s"): [1.0, 3.0, 2.0]})
        yield from row("speed", {"method": "B"}, {("rate", "1/s"): float("nan")})
        yield Measurement("speed", {"method": "C"}, note="not installed")

    def status(self, measurements):
        return len(measurements)


@pytest.mark.parametrize("where", COMMANDS.values(), ids=COMMANDS)
def test_every_command_is_a_benchmark_that_explains_itself(where):
    kind = load(where)
    assert issubclass(kind, Benchmark)
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")


def test_every_measurement_is_a_line_with_what_it_was_measured_on(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    assert run("pretend", Pretend(out=path)) == 3
    assert run("pretend", Pretend(out=path)) == 3
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [x["values"] for x in lines] == 2 * [[1.0, 3.0, 2.0], [None], []]
    first = lines[0]
    assert first["benchmark"] == "pretend" and first["settings"] == {"rounds": 2}
    assert first["case"] == {"method": "A"}
    assert (first["quantity"], first["unit"]) == ("rate", "1/s")
    assert {"processor", "cores", "device"} <= first["machine"].keys()
    assert {"jax", "dicjax"} <= first["versions"].keys()
    assert {"commit", "date"} <= first.keys()
    shown = capsys.readouterr().out
    assert "2 (1 to 3)" in shown and "C: not installed" in shown


def test_calls_that_are_compared_take_turns():
    order = []
    calls = {x: lambda x=x: order.append(x) for x in "AB"}
    took = side_by_side(calls, 2)
    assert order == list("ABABAB")
    assert {len(x.later) for x in took.values()} == {2}
    assert in_turn(calls, 3).keys() == {"A", "B"} and order[6:] == list("ABABAB")
    assert ratios((2.0, 9.0), (1.0, 3.0)) == (2.0, 3.0)


def test_a_part_that_fails_is_reported_and_the_others_still_run(
    tmp_path, capsys, monkeypatch
):
    def fails(sizes):
        yield from gpu.figure("broken", "before", 1.0, "s")
        raise RuntimeError("out of memory\nand more")

    works = lambda sizes: gpu.figure("sound", "rate", 2e5, "neuron-s/s", gpu.GOAL_RATE)
    monkeypatch.setattr(gpu, "PARTS", {"broken": fails, "sound": works})
    path = tmp_path / "gpu.jsonl"
    assert run("devices gpu", gpu.Gpu(small=True, out=path)) == 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {x["table"] for x in lines} == {gpu.TITLE}
    (failed,) = [x for x in lines if x["note"]]
    assert failed["case"] == {"part": "broken"} and "out of memory" in failed["note"]
    of = {(x["case"].get("what"), x["quantity"]): x["values"] for x in lines}
    assert of["rate", "value"] == [2e5] and of["rate", "goal"] == [gpu.GOAL_RATE]
    shown = capsys.readouterr().out
    assert (
        "1,000,000" in shown and "broken: failed: RuntimeError: out of memory" in shown
    )


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_whole_on_a_cpu(tmp_path):
    path = tmp_path / "gpu.jsonl"
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--here", "--small"]
    env = environment({"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"})
    subprocess.run([*command, "--out", str(path)], env=env, check=True, cwd=tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {x["case"]["part"] for x in lines} == set(gpu.PARTS)
    goals = {tuple(x["case"].values()): x for x in lines if x["quantity"] == "goal"}
    values = {tuple(x["case"].values()): x for x in lines if x["quantity"] == "value"}
    for case, goal in goals.items():
        if "neuron-s/s" not in case:
            assert values[case]["values"] == goal["values"]


def test_a_checkout_that_is_not_installed_can_be_imported():
    code = """
import importlib.metadata as metadata
version = metadata.version
def without(name):
    if name == "dicjax":
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without
import dicjax
from dicjax._core import versions
print(dicjax.__version__, versions()["dicjax"])
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    project = (ROOT / "pyproject.toml").read_text()
    first, second = done.stdout.split()
    assert first == second and f'version = "{first}"' in project
