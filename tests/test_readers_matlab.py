import itertools
import pathlib

import h5py
import numpy as np
import pytest
import scipy.io

from dicjax.recordings.readers import common, read_spike_trains
from dicjax.recordings.readers.matlab_files import load_matrices


TRAIN = np.arange(1, 41) * 50.125
OTHER = np.arange(1, 31) * 80.375
COUNT = itertools.count()


def cells(*parts):
    array = np.empty(len(parts), object)
    array[:] = parts
    return array


def version_5(path, **variables):
    scipy.io.savemat(path, variables, do_compression=True)


def version_7_3(path, **variables):
    """As MATLAB writes it: behind a block of its own, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _write(file, file, name, value)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124))
        file.write(b"\x00\x02IM")


def _write(file, group, name, value):
    if isinstance(value, dict):
        group.create_group(name).attrs["MATLAB_class"] = np.bytes_("struct")
        for field, part in value.items():
            _write(file, group[name], field, part)
    elif isinstance(value, list):  # a struct array
        group.create_group(name).attrs["MATLAB_class"] = np.bytes_("struct")
        for field in value[0]:
            parts = cells(*(part[field] for part in value))
            _write(file, group[name], field, parts)
            del group[name][field].attrs["MATLAB_class"]
    elif isinstance(value, np.ndarray) and value.dtype == object:
        refs = file.require_group("#refs#")
        parts = []
        for part in value:
            inner = f"r{next(COUNT)}"
            _write(file, refs, inner, part)
            parts.append(refs[inner].ref)
        group.create_dataset(name, data=np.array([parts], h5py.ref_dtype).T)
        group[name].attrs["MATLAB_class"] = np.bytes_("cell")
    elif isinstance(value, str):
        group[name] = np.array([list(map(ord, value))], np.uint16).T
        group[name].attrs["MATLAB_class"] = np.bytes_("char")
    elif np.size(value) == 0:
        group[name] = np.array([0, 0], np.uint64)
        group[name].attrs["MATLAB_class"] = np.bytes_("double")
        group[name].attrs["MATLAB_empty"] = np.uint8(1)
    else:
        value = np.asarray(value)
        kind = {"b": "logical", "f": "double"}.get(value.dtype.kind, "int32")
        stored = value.astype(np.uint8) if kind == "logical" else value
        group[name] = np.atleast_2d(stored).T
        group[name].attrs["MATLAB_class"] = np.bytes_(kind)


WRITERS = pytest.mark.parametrize("write", (version_5, version_7_3))


def read(write, path, options=None, **variables):
    write(path / "cell.mat", **variables)
    trains = read_spike_trains(path / "cell.mat", **(options or {}))
    return {train.name: train.times for train in trains}


def assert_same(read, **expected):
    assert list(read) == list(expected)
    for name, times in expected.items():
        np.testing.assert_allclose(read[name], times, rtol=1e-12)


@WRITERS
def test_vectors_are_trains_named_as_the_variables(write, tmp_path):
    said = {"LP": TRAIN, "PD": OTHER, "note": "by hand", "depth": 3.5, "on": TRAIN > 9}
    assert_same(read(write, tmp_path, **said), LP=TRAIN, PD=OTHER)
    assert_same(read(write, tmp_path, spike_times=TRAIN), cell=TRAIN)
    assert_same(read(write, tmp_path, spikeTimes_s=TRAIN / 1e3), cell=TRAIN)
    assert_same(read(write, tmp_path, isi_ms=np.diff(TRAIN)), cell=TRAIN - TRAIN[0])


def same_numbers(mine, theirs):
    """Whether all that may hold times is read as scipy reads it."""
    if isinstance(theirs, dict):
        return all(same_numbers(mine[name], part) for name, part in theirs.items())
    if isinstance(theirs, np.ndarray) and theirs.dtype.kind == "O":
        theirs = list(theirs.ravel(order="F"))
    if isinstance(theirs, list):
        return all(map(same_numbers, mine, theirs)) and len(mine) == len(theirs)
    if not isinstance(theirs, np.ndarray) or theirs.dtype.kind not in "iufb":
        return True
    return np.array_equal(mine, theirs, equal_nan=True) or np.size(mine) == 0


def test_what_matlab_itself_wrote_is_read_as_scipy_reads_it():
    folder = pathlib.Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"
    paths = sorted(folder.glob("test*_[4567].*.mat"))
    if not paths:
        pytest.skip("scipy came without its tests")
    unread = ("complex", "sparse", "object", "func", "hdf5")
    for path in paths:
        if any(word in path.stem for word in unread):
            continue
        theirs = scipy.io.loadmat(path, simplify_cells=True)
        theirs = {x: v for x, v in theirs.items() if not x.startswith("__")}
        assert same_numbers(load_matrices(path), theirs), path.stem


def test_a_file_of_version_4_is_read(tmp_path):
    scipy.io.savemat(tmp_path / "cell.mat", {"LP": TRAIN}, format="4")
    (train,) = read_spike_trains(tmp_path / "cell.mat")
    assert np.array_equal(train.times, TRAIN) and train.name == "LP"


@WRITERS
def test_spike_times_are_told_from_traces_beside_them(write, tmp_path):
    said = {
        "t": np.arange(900.0),
        "lfp": np.sin(np.arange(900.0)),
        "spike_times": TRAIN,
    }
    assert_same(read(write, tmp_path, **said), cell=TRAIN)
    with pytest.raises(ValueError, match="unit lfp.*unit_id"):
        read(write, tmp_path, lfp=said["lfp"], a=TRAIN)


@WRITERS
def test_cells_of_vectors_are_numbered(write, tmp_path):
    trains = cells(TRAIN, OTHER)
    assert_same(read(write, tmp_path, spikes=trains), **{"1": TRAIN, "2": OTHER})
    named = read(write, tmp_path, left=trains, right=trains)
    assert list(named) == ["left_1", "left_2", "right_1", "right_2"]
    with pytest.warns(UserWarning, match=r"2 \(0\), 3 \(1\)"):
        said = cells(TRAIN, np.zeros(0), np.array(3.5))
        assert_same(read(write, tmp_path, spikes=said), **{"1": TRAIN})


@WRITERS
@pytest.mark.parametrize(
    "field", ("ts", "times", "timestamps", "spike_times", "spiketimes", "spikeTimes")
)
def test_structs_have_a_field_of_times(write, field, tmp_path):
    waves = np.ones((40, 3))
    one = {field: TRAIN, "waveform": waves, "quality": "good"}
    assert_same(read(write, tmp_path, unit1=one), unit1=TRAIN)
    both = [one | {"name": "LP"}, one | {"name": "PD", field: OTHER}]
    assert_same(read(write, tmp_path, units=both), LP=TRAIN, PD=OTHER)
    bare = [one, one | {field: OTHER}]
    assert_same(read(write, tmp_path, cells=bare), cells_1=TRAIN, cells_2=OTHER)
    deep = {"data": {"left": one, "right": one | {field: OTHER}}}
    assert_same(read(write, tmp_path, **deep), data_left=TRAIN, data_right=OTHER)


@WRITERS
def test_times_beside_the_unit_of_each_are_told_apart(write, tmp_path):
    times = np.concatenate([TRAIN, OTHER])
    ids = np.repeat([3, 7], (TRAIN.size, OTHER.size))
    order = np.argsort(times)
    said = {"spike_times": times[order], "spike_clusters": ids[order]}
    assert_same(read(write, tmp_path, **said), **{"3": TRAIN, "7": OTHER})


@WRITERS
def test_a_unit_that_the_file_states_is_used_and_not_contradicted(write, tmp_path):
    said = {"LP": TRAIN / 1e3, "time_unit": "seconds"}
    assert_same(read(write, tmp_path, **said), LP=TRAIN)
    with pytest.raises(ValueError, match="in s.* unit='ms'"):
        read(write, tmp_path, {"unit": "ms"}, **said)
    with pytest.raises(ValueError, match='unit="s"'):
        read(write, tmp_path, LP=TRAIN / 1e3)


@WRITERS
def test_a_sampling_rate_alone_does_not_make_samples_of_times(write, tmp_path):
    samples = (TRAIN * 25).astype(np.int32)
    assert_same(read(write, tmp_path, LP=TRAIN, fs=25000.0), LP=TRAIN)
    with pytest.raises(ValueError, match='unit="samples@25000"'):
        read(write, tmp_path, LP=samples, fs=25000.0)
    said = {"spike_samples": samples, "sampling_rate": 25000.0}
    (times,) = read(write, tmp_path, **said).values()
    np.testing.assert_allclose(times, TRAIN, atol=1 / 25)
    (times,) = read(
        write, tmp_path, {"unit": "samples@25000"}, a=samples, fs=9.0
    ).values()
    np.testing.assert_allclose(times, TRAIN, atol=1 / 25)


@WRITERS
def test_a_file_without_vectors_says_what_it_has(write, tmp_path):
    with pytest.raises(ValueError, match=r"rates \(4 × 10\)"):
        read(write, tmp_path, rates=TRAIN.reshape(4, 10), note="x")


@pytest.mark.usefixtures("read_here")
@WRITERS
def test_large_files_are_refused(write, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MAX_BYTES", 3000)
    with pytest.raises(common.TooLarge, match="cell"):
        read(write, tmp_path, LP=np.zeros(5000))


@pytest.mark.usefixtures("read_here")
def test_what_unpacks_to_more_than_it_should_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MAX_BYTES", 2**20)
    path = tmp_path / "bomb.mat"
    version_5(path, LP=np.zeros(2**18))
    assert path.stat().st_size < 10_000
    with pytest.raises(common.TooLarge, match="bomb"):
        read_spike_trains(path)


def test_a_shape_beyond_what_is_stored_is_refused(tmp_path):
    path = tmp_path / "cell.mat"
    scipy.io.savemat(path, {"LP": cells(TRAIN, OTHER)})
    raw = bytearray(path.read_bytes())
    place = raw.index(np.array([5, 8, 1, 2], "i4").tobytes()) + 8
    raw[place : place + 8] = np.array([2**16, 2**16], "i4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="MATLAB"):
        read_spike_trains(path)


def test_cells_in_cells_in_cells_are_refused(tmp_path):
    value = TRAIN
    for _ in range(30):
        value = cells(value, TRAIN)
    for write in (version_5, version_7_3):
        with pytest.raises(ValueError, match="MATLAB"):
            read(write, tmp_path, LP=value)


def test_references_that_go_round_come_to_an_end(tmp_path):
    path = tmp_path / "cell.mat"
    with h5py.File(path, "w") as file:
        cells_in = file.create_dataset("LP", (100,), h5py.ref_dtype)
        cells_in.attrs["MATLAB_class"] = np.bytes_("cell")
        cells_in[:] = [cells_in.ref] * 100
    with pytest.raises(ValueError, match="MATLAB|too large"):
        read_spike_trains(path)


@pytest.mark.parametrize("dtype", (h5py.ref_dtype, h5py.string_dtype(), "f8", "u2"))
def test_datasets_that_only_claim_to_be_large_are_not_loaded(tmp_path, dtype):
    path = tmp_path / "cell.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("LP", (2**26,), dtype)  # of which nothing is stored
        if dtype == "u2":
            file["LP"].attrs["MATLAB_class"] = np.bytes_("char")
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="too large|no vector of times"):
        read_spike_trains(path)


@pytest.mark.usefixtures("read_here")
def test_a_table_of_units_that_only_claims_to_be_large_is_not_loaded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(common, "MAX_BYTES", 2**20)
    path = tmp_path / "cell.nwb"
    with h5py.File(path, "w") as file:
        file.create_dataset("units/spike_times", (0,), "f8")
        file.create_dataset("units/spike_times_index", (2**25,), "i8")
    with pytest.raises(ValueError, match="cell.nwb"):
        read_spike_trains(path)
