"""How commands end where something is wrong, and what they take as numbers."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import jax
import numpy as np
import pytest
from runs import dicjax, EXAMPLE

import dicjax as dj
from dicjax._core import check_numbers, Rescued, Within
from dicjax.cli import cache_folder
from dicjax.cli.commands import Commands
from dicjax.cli.ending import ended, is_refusal
from dicjax.cli.recording import Recording
from dicjax.inference import AdapterConfig, TrainingConfig
from dicjax.operator import OperatorConfig, OperatorTraining


def raised(function) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def ending_of(error: Exception, args=("generate", "a file.csv")) -> int:
    def fail() -> int:
        raise error

    return ended(fail, args)


def test_only_what_dicjax_raises_itself_is_a_refusal():
    assert is_refusal(raised(lambda: dj.simulate(dj.stg(), np.ones(3), 100.0)))
    for fault in (
        lambda: max([]),
        lambda: np.zeros(2) + np.zeros(3),
        lambda: jax.numpy.zeros(2) + jax.numpy.zeros(3),
        lambda: dj.Advice(dj.Remedy("unit")).said("no way"),  # pyright: ignore
    ):
        assert not is_refusal(raised(fault))


@pytest.mark.parametrize("error", (ValueError("max() arg is empty"), KeyError("g")))
def test_a_fault_becomes_a_report_to_send(monkeypatch, tmp_path, capsys, error):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert ending_of(error) == 3
    (report,) = tmp_path.iterdir()
    said, text = capsys.readouterr().err, report.read_text()
    assert "Traceback" not in said and "a fault of dicjax" in said
    assert f"Please send {report}" in said
    for part in ("dicjax generate 'a file.csv'", "Traceback", "jaxlib ", "Python 3"):
        assert part in text


def test_a_fault_is_shown_where_no_report_can_be_written(monkeypatch, tmp_path, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(gone))
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert ending_of(KeyError("g")) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    (
        (MemoryError(), 2, "not enough memory"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 2, "enough memory"),
        (jax.errors.JaxRuntimeError("INTERNAL: RESOURCE_EXHAUSTED"), 3, "a fault of"),
        (PermissionError(13, "Permission denied", "x.csv"), 2, "x.csv: Permission"),
        (Rescued(pathlib.Path("a"), pathlib.Path("b"), "full"), 1, "results are in b"),
        (BrokenPipeError(), 1, ""),
        (KeyboardInterrupt(), 130, "stopped"),
    ),
)
def test_what_is_expected_is_a_sentence(capsys, error, status, said):
    assert ending_of(error) == status
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_platform_that_jax_does_not_have_is_named():
    code = "from dicjax.cli import main; main()"
    command = [sys.executable, "-c", code, "features", str(EXAMPLE)]
    environment = {**os.environ, "JAX_PLATFORMS": "nonsense"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("dicjax: JAX finds no device for JAX_PLATFORMS=non")


def test_commands_need_no_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/kept")
    assert cache_folder() == pathlib.Path("/tmp/kept/dicjax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == pathlib.Path.home() / ".cache" / "dicjax"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user that is nobody
    assert cache_folder() is None


@pytest.mark.parametrize(
    ("args", "library", "extra"),
    (
        (("--dask", "local:2"), "distributed", "dask"),
        (("--submitit", "2"), "submitit", "slurm"),
    ),
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, capsys, args, library, extra):
    config = tmp_path / "sweep.toml"
    config.write_text('job = "dataset"\nmodel = "stg"\nnum = 10\n')
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    assert dicjax("sweep", "run", config, "--out", tmp_path / "out", *args) == 2
    assert f'pip install "dicjax[{extra}]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


NAN = ("nan", "inf", "-inf")
OUT = ("--out", "never/made")


@pytest.mark.parametrize(
    ("command", "option", "values"),
    (
        (("simulate", "x.csv", *OUT), "--noise", ("-1", *NAN)),
        (("simulate", "x.csv", *OUT), "--current", ("1e9", *NAN)),
        (("simulate", "x.csv", *OUT), "--start", ("-5", *NAN)),
        (("simulate", "x.csv", *OUT), "--stop", ("nan", "-1")),
        (("simulate", "x.csv", *OUT), "--seed", ("-1", str(10**30))),
        (("simulate", "x.csv", *OUT), "--duration", ("-1", "1e12", *NAN)),
        (("simulate", "x.csv", *OUT), "--dt", ("1e-12", "0", "-1", *NAN)),
        (("generate", "x.csv", *OUT), "--budget", ("-10", "0", str(10**30))),
        (("generate", "x.csv", *OUT), "--members", ("0", str(10**30))),
        (("generate", "x.csv", *OUT), "--tolerance", ("0", "-1", "2", *NAN)),
        (("generate", "x.csv", *OUT), "--spread", ("0", "-1", *NAN)),
        (("generate", "x.csv", *OUT), "--candidates-per-round", ("15", "-1")),
        (("generate", "x.csv", *OUT), "--seed", ("-1", str(10**30))),
        (("certify", "x.csv", "y.csv"), "--tolerance", ("0", *NAN)),
        (("dic", "x.csv"), "--V", ("1e5", *NAN)),
        (("explain", "x.csv", *OUT), "--members-per-point", ("0", str(10**30))),
        (("operator", "ensemble"), "--spread", ("-1", *NAN)),
        (("operator", "ensemble"), "--measured", ("rest=1e9", "rest=nan")),
        (("operator", "predict", "x.csv", *OUT), "--step", ("1e9", *NAN)),
        (("operator", "compare", "x.abf", *OUT), "--capacitance", ("-1", *NAN)),
        (("adapt", "stg", *OUT), "--density.num-steps", ("0", "-1")),
        (("adapt", "stg", *OUT), "--num-steps", ("0", "-1")),
        (("adapt", "stg", *OUT), "--learning-rate", ("0", "-1", *NAN)),
        (("train", "stg", *OUT), "--training.max-missed", ("-0.1", "2", *NAN)),
        (("operator", "train", "cortical", *OUT), "--operator.step", ("1e-12", *NAN)),
        (("sweep", "run", "x.toml", *OUT), "--retries", ("-1",)),
        (("sweep", "run", "x.toml", *OUT), "--timeout", ("0", "nan")),
        (("app",), "--port", ("-1", "70000")),
    ),
)
def test_nonsense_is_refused_by_the_name_of_its_option(
    tmp_path, monkeypatch, capsys, command, option, values
):
    monkeypatch.chdir(tmp_path)
    for value in values:
        given = (f"{option}={value}",) if value[0] == "-" else (option, value)
        assert dicjax(*command, *given) == 2
        name = value.partition("=")[0] if "=" in value else option
        said = capsys.readouterr().err.replace("`dt`", "--dt")
        assert f"dicjax: {name} " in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "key"),
    (
        ("noise = -1", "noise"),
        ("noise = nan", "noise"),
        ("current = inf", "current"),
        ("dt = 1e-12", "dt"),
        ("duration = inf", "duration"),
        ("duration = 1e12", "duration"),
        ("discard = nan", "discard"),
        ("max_spikes = 0", "max_spikes"),
    ),
)
def test_nonsense_in_a_sweep_names_its_line(tmp_path, capsys, line, key):
    config = tmp_path / "sweep.toml"
    config.write_text(
        f'job = "simulate"\nmodel = "stg"\nmembers = {{num = 8}}\n[simulation]\n{line}'
    )
    assert dicjax("sweep", "run", config, "--out", tmp_path / "out") == 2
    assert f"line 5: simulation.{key} = " in capsys.readouterr().err


def numbers_of(kind: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, bool]]:
    """Every number in a data class and in those it holds, and whether it has limits."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        for part in parts_of(hints[field.name]):
            own = (*names, field.name)
            if part in (int, float):
                is_limited = any(isinstance(x, Within) for x in _all(hints[field.name]))
                yield f"{kind.__name__}: {'.'.join(own)}", is_limited
            elif is_settings(part):
                yield from numbers_of(part, own)


def is_settings(part: Any) -> bool:
    return (
        isinstance(part, type) and dataclasses.is_dataclass(part) and part != Recording
    )


def parts_of(hint: Any) -> Iterator[Any]:
    parts = get_args(hint)
    yield from (hint,) if not parts else ()
    for part in parts:
        yield from parts_of(part)


def _all(hint: Any) -> Iterator[Any]:
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from _all(part)


@pytest.mark.parametrize(
    "kind", [*get_args(Commands), OperatorConfig, OperatorTraining, dj.GenerateConfig]
)
def test_every_number_that_people_set_has_limits(kind):
    lacking = {name for name, is_limited in numbers_of(kind) if not is_limited}
    assert lacking <= {"Simulate: dt"}  # which has a check of its own


def test_functions_refuse_the_same_nonsense():
    train = 100.0 * np.arange(50) + 50
    config = dj.GenerateConfig(budget=-10)
    with pytest.raises(ValueError, match="`budget` must be at least 1 .*, got -10"):
        dj.generate(jax.random.key(0), train, model="stg", config=config)
    with pytest.raises(ValueError, match=r"`training.seed` .* got -1"):
        check_numbers(AdapterConfig(training=TrainingConfig(seed=-1)))
