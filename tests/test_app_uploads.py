"""Files that a browser sends, and the folder in which they are read."""

import gc
import io
import os
import tempfile
import zipfile

import pytest
from test_readers_kilosort import GROUPS, kilosort

from dicjax.app.recordings import open_recording
from dicjax.app.scratch import scratch
from dicjax.app.uploads import accepted as accepted_files, check_size, safe_name, Upload
from dicjax.recordings import checksum, MAX_BYTES, PARTS


def accepted(files: dict[str, bytes], folder: str = "") -> Upload:
    return accepted_files({x: io.BytesIO(y) for x, y in files.items()}, folder)


def _files(upload: Upload) -> dict[str, bytes]:
    path = upload.path
    found = path.iterdir() if path.is_dir() else [path]
    return {x.name: x.read_bytes() for x in found}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../x.csv", "x.csv"),
        ("..\\..\\x.csv", "x.csv"),
        ("/etc/passwd", "passwd"),
        ("C:\\cells\\cell 3.CSV", "cell 3.CSV"),
        ("..", "recording"),
        (".csv", "csv"),
        ("", "recording"),
        ("a\x00b\n<img>.csv", "a_b__img.csv"),
        ("x.csv/", "recording"),
        ("…/ünïcode.mat", "ünïcode.mat"),
        ("a.b.c.npz", "a_b_c.npz"),
        ("x" * 500 + ".csv", "x" * 60 + ".csv"),
    ],
)
def test_names_of_uploads_are_no_paths(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.exe", ".exe"),
        ("x.py", ".py"),
        ("x.pkl", ".pkl"),
        ("x", "without an ending"),
        ("x.csv.html", ".html"),
    ],
)
def test_only_what_readers_read_is_accepted(name, kind):
    with pytest.raises(ValueError, match=kind):
        accepted({name: b"1"})


def test_uploads_are_bounded_and_not_empty():
    with pytest.raises(ValueError, match=r"x\.csv"):
        accepted({"x.csv": b""})
    with pytest.raises(ValueError, match="256 MB"):
        check_size("x.csv", MAX_BYTES + 1)


def test_an_upload_is_on_disk_for_as_long_as_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    upload = accepted({"../../x.csv": b"1\n2\n"})
    assert (upload.path.name, upload.path.read_bytes()) == ("x.csv", b"1\n2\n")
    with pytest.raises(ValueError, match="one recording"):
        accepted({"x.zip": _zip({"a.csv": b"1", "b.csv": b"1"})})
    assert len([*tmp_path.iterdir()]) == 1
    del upload
    gc.collect()
    assert not [*tmp_path.iterdir()]


def _zip(files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sorting(tmp_path_factory) -> dict[str, bytes]:
    """The files of a Kilosort folder, those that are not read among them."""
    folder = kilosort(tmp_path_factory.mktemp("x") / "sorted", group=GROUPS)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "recording.dat": b"x" * 1000, "amplitudes.npy": b"x"}


def _names(upload) -> list[str]:
    return [train.name for train in open_recording(upload).trains]


def test_a_folder_of_kilosort_comes_as_its_files(sorting):
    upload = accepted(sorting, "../../July 4")
    assert (upload.name, {*_files(upload)} - {*PARTS}) == ("July 4", set())
    assert _names(upload) == ["2", "11"]
    assert upload.sha256 == checksum(upload.path)
    assert open_recording(upload).train.source == "July 4"
    assert _names(accepted(sorting)) == ["2", "11"]


@pytest.mark.parametrize("folder", ("", "sorted/", "a/b/sorted/", "../../", "/"))
def test_a_folder_of_kilosort_comes_as_a_zip(sorting, folder):
    files = {f"{folder}{name}": content for name, content in sorting.items()}
    upload = accepted({"July 4.zip": _zip({**files, "else/params.py": b"1"})})
    assert _names(upload) == ["2", "11"]
    assert {*_files(upload)} == {*sorting} - {"recording.dat", "amplitudes.npy"}
    assert upload.name == ("sorted" if "sorted" in folder else "July 4")


def test_a_recording_may_be_zipped():
    upload = accepted({"x.zip": _zip({"a/../b.csv": b"t_ms\n1\n", "a/read.me": b""})})
    assert (upload.name, _files(upload)) == ("b.csv", {"b.csv": b"t_ms\n1\n"})


def test_several_files_that_are_no_sorting_are_refused(sorting):
    with pytest.raises(ValueError, match="spike_times.npy"):
        accepted({"a.csv": b"1", "b.csv": b"1"})
    twice = {f"{x}/spike_times.npy": sorting["spike_times.npy"] for x in "ab"}
    for files, found in (
        (twice, "2 folders"),
        ({"a.csv": b"1", "b.csv": b"1"}, "2 recordings"),
        ({"x.zip": _zip({"b.csv": b"1"})}, "no recordings"),
        ({f"{i}": b"" for i in range(10_001)}, "10,000"),
    ):
        with pytest.raises(ValueError, match=found):
            accepted({"x.zip": _zip(files)})


def test_zips_that_unpack_to_too_much_are_refused(sorting, monkeypatch):
    bomb = _zip({"spike_times.npy": b"0" * 200_000, "params.py": b"#" * 200_000})
    monkeypatch.setattr("dicjax.app.uploads.MAX_BYTES", 300_000)
    assert len(bomb) < 2000
    with pytest.raises(ValueError, match="x.zip"):
        accepted({"x.zip": bomb})
    # Also where it claims less of itself.
    size = (200_000).to_bytes(4, "little")
    with pytest.raises(ValueError, match="x.zip"):
        accepted({"x.zip": bomb.replace(size, (10).to_bytes(4, "little"))})
    assert _files(accepted({"x.zip": _zip(sorting)}))


@pytest.mark.parametrize("content", (b"", b"PK", b"not a zip" * 9))
def test_damaged_zips_are_refused(content):
    with pytest.raises(ValueError, match="x.zip"):
        accepted({"x.zip": content})


def test_what_a_killed_app_left_goes_and_what_is_used_stays(tmp_path):
    left, fresh = tmp_path / ".temporary-left", tmp_path / ".temporary-fresh"
    for folder in (left, fresh):
        folder.mkdir()
        (folder / "upload").write_text("x")
    (left / "in-use").touch()
    (tmp_path / "a_run").mkdir()
    with scratch(tmp_path) as first:
        assert not left.exists()
        assert fresh.exists()  # it may be about to be locked
        (first / "upload").write_text("x")
        with scratch(tmp_path):
            pass
        assert (first / "upload").exists()
    assert not first.exists()
    os.utime(fresh, (0, 0))
    with scratch(tmp_path):
        assert not fresh.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a_run"]
