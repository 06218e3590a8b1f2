"""Commands work wherever they are started: what cannot be written is done without."""

import os
import shutil
import subprocess
import sys

import pytest

import dicjax
from dicjax._core import shipped_path
from dicjax.cli import main


NOWHERE = {
    "HOME": {"HOME": "{file}/home"},
    "cache": {"XDG_CACHE_HOME": "{file}/cache", "MPLCONFIGDIR": "{file}/matplotlib"},
    "TMPDIR": {"TMPDIR": "{file}/tmp", "TMP": "{file}/tmp", "TEMP": "{file}/tmp"},
    "LANG": {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "", "PYTHONUTF8": "0"},
    "narrow": {"COLUMNS": "60"},
}
ALL = {name: value for some in NOWHERE.values() for name, value in some.items()}


@pytest.fixture
def features(tmp_path):
    """Runs `dicjax features` on a file whose path has accents."""
    example = shipped_path("examples", "slow_burster.csv")
    assert example is not None
    folder = tmp_path / "Données é 日本"
    folder.mkdir()
    recording = shutil.copyfile(example, folder / "cellule n°1.csv")
    file = tmp_path / "file"
    file.write_bytes(b"")

    def run(surroundings, ending=""):
        own = {name: value.format(file=file) for name, value in surroundings.items()}
        root = os.path.dirname(os.path.dirname(dicjax.__file__))
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            f'exec "{sys.executable}" -m dicjax features "$RECORDING" {ending}',
            shell=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, "RECORDING": str(recording)} | own,
            capture_output=True,
            timeout=300,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def assert_done(status, out, error):
    assert (status, error.count("Traceback")) == (0, 0), error
    assert "burst" in out


def test_nothing_that_can_be_written_but_the_folder_itself(features):
    assert_done(*features(ALL))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOWHERE)
def test_each_place_that_cannot_be_written_alone(features, name):
    assert_done(*features(NOWHERE[name]))


@pytest.mark.slow
def test_a_closed_output_is_no_fault_of_ours(features):
    assert features({}, ending=">&-") == (0, "", "")


def test_the_version_is_printed_and_the_example_copied(tmp_path, capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"dicjax {dicjax.__version__}\n"
    for status in (0, 2):  # nothing is replaced
        with pytest.raises(SystemExit) as end:
            main(["example", "--out", str(tmp_path)])
        assert end.value.code == status
    example = shipped_path("examples", "slow_burster.csv")
    assert example is not None
    copy = tmp_path / "slow_burster.csv"
    assert copy.read_bytes() == example.read_bytes()


@pytest.mark.slow
def test_orbax_is_loaded_only_for_checkpoints():
    work = (
        "import dicjax.cli, sys",
        "import dicjax as dj",
        "dj.simulate(dj.stg(), [[1.0] * 8], 100.0)",
        "(train,) = dj.read_spike_trains(sys.argv[1])",
        "dj.spike_features(train)",
        "print('orbax' in sys.modules)",
        "dj.load_operator('stg')",
        "print('orbax' in sys.modules)",
    )
    example = str(shipped_path("examples", "slow_burster.csv"))
    command = [sys.executable, "-c", "\n".join(work), example]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
