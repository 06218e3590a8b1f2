"""The command line of the benchmarks, and the format of their results."""

import dataclasses
import json

import pytest

from scripts.bench.__main__ import COMMANDS, load
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
