import hashlib

import pytest

from dicjax._core.files import replacing, replacing_folder, sha256


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "table"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half of the new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["table"]
    assert path.read_text() == "old"


def test_a_folder_that_is_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError), replacing_folder(path) as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    with replacing_folder(path) as partial:
        (partial / "new").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert [p.name for p in path.iterdir()] == ["new"]


def test_files_have_the_checksum_of_their_contents_in_a_row(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path, content in zip(paths, (b"one", b"two"), strict=True):
        path.write_bytes(content)
    assert sha256(*paths) == hashlib.sha256(b"onetwo").hexdigest()
