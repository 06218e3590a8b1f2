"""Training on several devices, in processes that have them; see `trainings.py`."""

import os
import pathlib
import socket
import subprocess
import sys

import equinox as eqx
import jax
import numpy as np
import pytest

from dicjax._core.devices import placement
from dicjax.cli.joining import join
from dicjax.inference.train import fit_adapter, fit_encoder
from dicjax.neurons.models import MODELS
from dicjax.operator.checkpoint import load_operator
from dicjax.operator.config import OperatorTraining
from dicjax.operator.training import placement_of


SCRIPT = pathlib.Path(__file__).with_name("trainings.py")
# In float32, sums of another order differ by rounding, which Adam makes more of in
# weights that hardly matter yet.
TOLERANCES = {"float64": (1e-11, 1e-6), "float32": (5e-3, 1e-5)}


def begin(out, kind, dtype, *options, num_devices=1):
    """Starts a training in a process with some devices."""
    # Few steps of small networks: most of the time would go into good programs.
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes"
    flags = f"--xla_force_host_platform_device_count={num_devices} {quick}"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    args = [sys.executable, SCRIPT, out, kind, dtype, *options]
    return subprocess.Popen([str(x) for x in args], env=env)


def end(*processes):
    """Waits for trainings, none of which may fail or wait for ever for another."""
    try:
        assert [process.wait(timeout=900) for process in processes] == [0] * len(
            processes
        )
    finally:
        for process in processes:
            process.kill()


def address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def assert_same(one, other, dtype):
    weights, losses = TOLERANCES[dtype]
    names = [name for name in one if name.startswith("arr_")]
    assert len(names) > 5
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=losses)
    for name in names:
        assert one[name].dtype == dtype
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(one[name], other[name], atol=weights * scale)


def batch_shards(trained) -> int:
    return trained["shards"][0, 0]


@pytest.mark.parametrize(
    "kind, dtype",
    [
        pytest.param("operator", "float64", marks=pytest.mark.slow),
        pytest.param("operator", "float32", marks=pytest.mark.slow),
        pytest.param("encoder", "float64", marks=pytest.mark.slow),
        pytest.param("encoder", "float32", marks=pytest.mark.slow),
    ],
)
def test_two_devices_learn_what_one_does(kind, dtype, tmp_path):
    alone, both = tmp_path / "alone.npz", tmp_path / "both.npz"
    end(begin(both, kind, dtype, "--alone", alone, num_devices=2))
    one, two = np.load(alone), np.load(both)
    assert_same(one, two, dtype)
    assert batch_shards(one) == 2 * batch_shards(two) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("encoder", "operator"))
def test_two_processes_go_on_with_what_one_began(kind, tmp_path):
    run = tmp_path / "run"
    begun = begin(tmp_path / "begun", kind, "float64", "--folder", run, "--stop", 6)
    whole = begin(tmp_path / "whole.npz", kind, "float64")
    end(begun, whole)
    assert not (tmp_path / "begun").exists()
    # The second process has no file of the first.
    where, folders = address(), (run, tmp_path / "no_such_folder")
    outs = [tmp_path / f"{i}.npz" for i in (0, 1)]
    places = [("--join", f"{i}/2@{where}", "--folder", folders[i]) for i in (0, 1)]
    end(*(begin(outs[i], kind, "float64", *places[i]) for i in (0, 1)))
    whole, first, second = map(np.load, (tmp_path / "whole.npz", *outs))
    assert not folders[1].exists()
    assert batch_shards(whole) == 2 * batch_shards(first) > 0
    assert first["reported"].tolist() and not second["reported"].tolist()
    assert first["reported"][0] > 4  # steps that were kept
    for own in (first, second):
        given = dict(own)
        if kind == "operator":  # whose losses are those that progress reports
            given["losses"] = first["losses"]
            given["losses"] = np.concatenate([whole["losses"][:2], given["losses"]])
        assert_same(whole, given, "float64")


# Sizes that do not fit, and processes that are not there


@pytest.fixture
def machine(monkeypatch):
    """Makes JAX believe that it has so many devices."""
    return lambda num: monkeypatch.setattr(
        jax, "devices", lambda: num * jax.local_devices()
    )


def test_one_device_needs_no_placement():
    assert jax.device_count() == 1
    assert placement(batch_size=7) == placement() == placement_of(OperatorTraining())
    assert placement().split is None


def test_batches_that_devices_cannot_share_are_refused_before_anything_is_done(
    tmp_path, machine
):
    machine(3)
    with pytest.raises(ValueError, match=r"`batch_size`.* 3 devices.*255 or 258"):
        fit_encoder(MODELS["stg"](), tmp_path / "out", num_members=1000)
    with pytest.raises(ValueError, match=r"`batch_size`.* 3 devices.*255 or 258"):
        fit_adapter(MODELS["da"](), tmp_path / "out")
    with pytest.raises(ValueError, match="`batch_size`.*510 or 513"):
        placement_of(OperatorTraining())
    machine(4)
    with pytest.raises(ValueError, match="`pool`.*4 or 8"):
        placement_of(OperatorTraining(pool=6, batch_size=4))
    assert not (tmp_path / "out").exists()


def test_a_default_device_is_the_only_one(machine):
    machine(3)
    with jax.default_device(jax.local_devices()[0]):
        assert placement(batch_size=7).split is None


COMMAND = "from dicjax.cli import main; main()"


def outside_slurm() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI"))}


def test_a_place_among_processes_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="2/2@here:1"):
        join("2/2@here:1")


def test_processes_that_jax_does_not_find_are_missed(monkeypatch):
    def nobody():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nobody)
    with pytest.raises(ValueError, match="auto"):
        join("auto")


@pytest.mark.slow
def test_a_command_whose_other_processes_are_not_there_fails(tmp_path):
    train = ("train", "stg", "--out", tmp_path / "x", "--distributed", "auto")
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, train)],
        capture_output=True,
        text=True,
        env=outside_slurm(),
    )
    assert ran.returncode == 2 and "finds no other processes" in ran.stderr


@pytest.mark.slow
def test_slurm_starts_processes_that_train_one_operator(tmp_path):
    shape = ("--operator.width", 16, "--operator.num-layers", 2)
    training = {"members": 64, "num-steps": 64, "num-corrections": 2}
    training |= {"pool": 64, "batch-size": 32}
    settings = [x for k, v in training.items() for x in (f"--training.{k}", v)]

    def start(name, own, num):
        out = ("--data", tmp_path / f"{name}-{own}", "--out", tmp_path / name)
        train = ("operator", "train", "cortical", *shape, *settings, *out)
        place = ("--distributed", "auto") if num > 1 else ()
        slurm = {"JOB_ID": 1, "STEP_NODELIST": "localhost"}
        slurm |= {"NTASKS": num, "PROCID": own, "LOCALID": own}
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, train + place)],
            stdout=subprocess.PIPE,
            text=True,
            env=outside_slurm()
            | {f"SLURM_{k}": str(v) for k, v in slurm.items()}
            | {"JAX_COORDINATOR_PORT": port, "JAX_PLATFORMS": "cpu"},
        )

    port = address().split(":")[1]
    alone, *both = start("one", 0, 1), start("two", 0, 2), start("two", 1, 2)
    said = [process.communicate(timeout=900)[0] for process in (alone, *both)]
    end(alone, *both)
    of_gloo = [line for line in said[2].splitlines() if line.startswith("[Gloo]")]
    assert "unseen members" in said[1] and said[2].splitlines() == of_gloo
    assert not (tmp_path / "two-1").exists()
    one, two = (
        jax.tree.leaves(eqx.filter(load_operator(tmp_path / name), eqx.is_array))
        for name in ("one", "two")
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(a).max())
    # It was found there, and nowhere else, by all of them.
    again = [start("two", i, 2) for i in (0, 1)]
    assert [process.wait(timeout=300) for process in again] == [2, 2]
