"""What is computed is kept: whatever happens at the place where it should go."""

import copy
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import matplotlib
import pyarrow.parquet as pq
import pytest
from runs import dicjax
from test_tables import make_generated

from dicjax._core import check_destination, deliver, holding_interrupts, KEPT, Rescued
from dicjax.cli.common import FolderCommand
from dicjax.cli.joining import Training
from dicjax.output import read_manifest, write_manifest, write_report


MODELS = "g_Na,g_Kd,g_CaT,g_CaS,g_A,g_KCa,g_H,g_leak\n100,100,5,10,20,150,0.1,0.01\n"
OWN = (
    'import dataclasses, dicjax\nneuron = dataclasses.replace(dicjax.stg(), name="my")'
)
SHORT = ("--duration", 300, "--discard", 0)
LONG = "a" * 300


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Shells have processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def models(tmp_path) -> pathlib.Path:
    path = tmp_path / "models.csv"
    path.write_text(MODELS)
    return path


@pytest.fixture
def spare(tmp_path, monkeypatch) -> pathlib.Path:
    """The temporary directory, where results are kept at last."""
    path = tmp_path / "spare"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def fill(folder: pathlib.Path) -> None:
    (folder / "table").write_text("computed")


@pytest.mark.parametrize("name", (LONG, f"new/{LONG}", "file/in", "\0"))
def test_a_place_that_takes_nothing_is_refused_before_anything_is_computed(
    tmp_path, name
):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="cannot be written"):
        check_destination(tmp_path / name)
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_trying_a_place_leaves_it_as_it_was(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "deep/er", "empty", "a" * 255):
        check_destination(tmp_path / name)
    assert [x.name for x in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "command",
    (
        ("generate", "none.csv"),
        ("simulate", "none.csv"),
        ("explain", "none.csv"),
        ("infer", "none.csv"),
        ("features", "none.csv"),
        ("dic", "none.csv"),
        ("adapt", "stg"),
        ("operator", "tune", "sag"),
        ("operator", "train", "cortical"),
        ("export", "none.csv", "--to", "csv"),
    ),
)
def test_commands_try_the_place_before_they_read(tmp_path, capsys, command):
    place = tmp_path / LONG / "results.csv"
    assert dicjax(*command, "--out", place) == 2
    assert "cannot be written (File name too long)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_results_are_kept_beside_what_came_there_meanwhile(tmp_path):
    out = tmp_path / "out"

    def refuse() -> None:
        raise ValueError("another run was here first")

    with pytest.raises(Rescued, match="another run was here first") as raised:
        deliver(out, fill, refuse)
    assert raised.value.place.parent == tmp_path
    assert (raised.value.place / "table").read_text() == "computed"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("is_folder", (True, False))
def test_results_go_to_the_temporary_directory_if_a_disk_is_full(
    tmp_path, spare, is_folder
):
    def write(path: pathlib.Path) -> None:
        if spare not in path.parents:
            raise OSError(28, "No space left on device")
        (path / "table" if is_folder else path).write_text("computed")

    with pytest.raises(Rescued, match="No space left") as raised:
        deliver(tmp_path / "out.csv", write, is_folder=is_folder)
    place = raised.value.place
    assert place.parent == spare and place.suffix == ".csv"
    assert (place / "table" if is_folder else place).read_text() == "computed"
    assert [x.name for x in tmp_path.iterdir()] == ["spare"]


def test_a_fault_in_writing_keeps_what_was_written_before(tmp_path, spare):
    def write(folder: pathlib.Path) -> None:
        fill(folder)
        raise KeyError("fault")

    with pytest.raises(KeyError) as raised:
        deliver(tmp_path / "out", write)
    assert (getattr(raised.value, KEPT) / "table").read_text() == "computed"
    assert [x.name for x in tmp_path.iterdir()] == ["spare"]


@pytest.mark.skipif(
    os.name != "posix" or getattr(os, "geteuid", int)() != 0,
    reason="only root can mount a small disk",
)
def test_a_simulation_survives_a_full_disk(tmp_path, models, spare, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    models.write_text(MODELS + 8000 * MODELS.splitlines(keepends=True)[1])
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if subprocess.run(mount).returncode != 0:
        pytest.skip("this machine mounts no disk")
    try:
        args = ("--model", "stg", "--duration", 5, "--discard", 0)
        assert dicjax("simulate", models, *args, "--out", disk / "out") == 1
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    (place,) = spare.iterdir()
    assert f"the results are in {place}." in capsys.readouterr().err
    assert pq.read_table(place / "models.parquet").num_rows == 8001


def test_a_neuron_with_a_name_of_its_own_is_simulated_and_read_back(
    models, tmp_path, capsys
):
    own, out = tmp_path / "my.py", tmp_path / "out"
    own.write_text(OWN)
    args = ("--model", own, *SHORT, "--out", out)
    assert dicjax("simulate", models, *args) == 0
    assert read_manifest(out)["model"] == "my"
    assert dicjax("dic", out, "--model", own) == 0
    assert dicjax("dic", out) == 2
    assert "name its model by --model" in capsys.readouterr().err


def test_a_result_never_replaces_what_it_is_made_from(models, tmp_path, capsys):
    for args in (
        ("simulate", models, "--model", "stg", "--out", tmp_path, "--overwrite"),
        ("dic", models, "--model", "stg", "--out", models),
    ):
        assert dicjax(*args) == 2
        assert "is read and would be replaced" in capsys.readouterr().err
    assert models.read_text() == MODELS


@pytest.mark.parametrize("change", ("beside", "edited", "linked", "unnamed"))
def test_overwriting_removes_only_what_the_manifest_names(
    models, tmp_path, capsys, change
):
    out = tmp_path / "out"
    args = ("simulate", models, "--model", "stg", *SHORT, "--out", out)
    assert dicjax(*args) == 0
    (out / ".DS_Store").write_text("litter is nobody's")
    assert dicjax(*args, "--overwrite") == 0
    if change == "unnamed":
        about = read_manifest(out)
        del about["files"]
        write_manifest(out, about)
    else:
        name = {"beside": "notes.txt"}.get(change, "README.txt")
        if change == "linked":
            (out / name).rename(tmp_path / name)
            (out / name).symlink_to(tmp_path / name)
        else:
            (out / name).write_text("a day of work")
    before = {x: x.read_bytes() for x in out.iterdir()}
    assert dicjax(*args, "--overwrite") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and str(out) in said
    assert {x: x.read_bytes() for x in out.iterdir()} == before


def test_a_script_of_ones_own_is_no_export(models, tmp_path, capsys):
    out = tmp_path / "out"
    args = ("export", models, "--to", "brian2", "--model", "stg", "--out", out)
    out.mkdir()
    (out / "run.py").write_text("mine")
    assert dicjax(*args, "--overwrite") == 2
    assert (out / "run.py").read_text() == "mine"
    shutil.rmtree(out)
    assert dicjax(*args) == 0
    (out / "run.py").write_text("changed by me")
    assert dicjax(*args, "--overwrite") == 2
    assert "run.py" in capsys.readouterr().err
    assert (out / "run.py").read_text() == "changed by me"


def test_figures_do_not_depend_on_settings_of_matplotlib(tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "font.family": "no such font"}):
        write_report(make_generated(), tmp_path / "report.html")
    assert "could not be drawn" not in (tmp_path / "report.html").read_text()


def test_a_figure_that_fails_costs_itself_alone(tmp_path):
    result = make_generated()
    result = copy.copy(result)  # which other tests share
    object.__setattr__(result, "posterior", result.posterior.__class__)
    with pytest.warns(UserWarning, match="lacks its figure of posterior"):
        page = write_report(result, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("This figure could not be drawn") == 1
    assert page.count("<svg") + page.count("<img") > 4


class Writing(FolderCommand):
    """A command whose figures, or whose user, fail in several ways."""

    def run(self) -> int:
        def data(folder: pathlib.Path) -> None:
            fill(folder)
            write_manifest(folder, {})
            if self.out.name == "stopped":
                os.kill(os.getpid(), signal.SIGINT)

        def stop(path: pathlib.Path) -> None:
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGINT)

        def fail(path: pathlib.Path) -> None:
            raise RuntimeError("no font")

        drawings = {"bad.png": fail, "good.png": pathlib.Path.touch}
        self.write(data, drawings | {"slow.png": stop, "late.png": pathlib.Path.touch})
        return 0


@pytest.mark.parametrize(
    ("name", "figures", "said"),
    (
        ("drawn", {"good.png"}, "bad.png is missing: RuntimeError: no font"),
        ("stopped", set(), "good.png is missing: stopped"),
    ),
)
def test_tables_are_written_whatever_happens_to_figures(
    tmp_path, capsys, name, figures, said
):
    out = tmp_path / name
    assert Writing(out=out).execute() == 0
    assert said in capsys.readouterr().err
    assert {x.name for x in out.iterdir()} == {"table", "manifest.json", *figures}
    assert set(read_manifest(out)["files"]) == {"table", *figures}


def test_interruptions_wait_until_they_are_let_in():
    with holding_interrupts() as held:
        os.kill(os.getpid(), signal.SIGINT)
        assert held.interrupted
        with pytest.raises(KeyboardInterrupt), held.released():
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), holding_interrupts():
        for _ in range(3):  # whoever insists is heard
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_a_signal_while_dicjax_is_imported_ends_it_in_a_sentence(number):
    code = (
        "import os, signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dicjax.cli import main\n"
        f"stop = lambda: os.kill(os.getpid(), {int(number)})\n"
        "threading.Timer(0.3, stop).start()\nmain(['features', 'none.csv'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "dicjax: stopped\n"


class Learning(Training):
    """A training that is stopped after it has kept something, or ends."""

    def train(self, on_progress):
        assert self.data is not None
        self.data.mkdir()
        (self.data / "state").write_text("hours of training")
        if self.out.name == "stopped":
            raise KeyboardInterrupt

    def report(self, trained) -> None:
        pass


def test_a_training_that_is_stopped_leaves_its_state_beside(tmp_path, capsys):
    assert Learning(out=tmp_path / "done").execute() == 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        Learning(out=tmp_path / "stopped").execute()
    (kept,) = tmp_path.iterdir()
    assert (kept / "state").read_text() == "hours of training"
    assert f"with --data {kept} continues" in capsys.readouterr().err
