"""Bytes of any kind give trains, or one sentence: MATLAB, Excel, neo, phy, pynapple."""

import io
import pathlib
import struct
import tempfile
import warnings

import h5py
import numpy as np
import openpyxl
import pytest
import scipy.sparse
from hypothesis import given, settings, strategies as st
from test_readers_kilosort import kilosort
from test_readers_matlab import cells, OTHER, TRAIN, version_5, version_7_3
from test_readers_neo import nex
from test_readers_sorters import mc_rack
from test_readers_text import wavemarks

from dicjax._core import in_this_process
from dicjax.recordings.readers import read_spike_trains


@pytest.fixture(autouse=True, scope="module")
def many_files_are_read_in_this_process():
    with in_this_process():
        yield


def written(write, **variables):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cell")
        write(path, **variables)
        return path.with_suffix("").read_bytes()


def uncompressed(path, **variables):
    import scipy.io

    scipy.io.savemat(path, variables, appendmat=False)


def workbook(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(path)


def archive(**arrays):
    np.savez(file := io.BytesIO(), **arrays)
    return file.getvalue()


def array(values):
    np.save(file := io.BytesIO(), values)
    return file.getvalue()


def hdf5(parts):
    with h5py.File(buffer := io.BytesIO(), "w") as file:
        for name, part in parts.items():
            file[name] = part
    return buffer.getvalue()


ONES = np.ones(40, int)
MARKS = np.bincount(TRAIN.astype(int)) > 0
PSORT = {"ss_index": MARKS, "cs_index": MARKS, "ch_time": TRAIN, "sample_rate": [1e3]}
GROUP = {"index": np.repeat([3, 7], 20), "keys": np.array([3, 7]), "type": ["TsGroup"]}
VARIABLES = {
    "LP": TRAIN,
    "spikes": cells(TRAIN, OTHER),
    "units": {"ts": TRAIN, "name": "LP"},
    "unit": "ms",
}
CLOCK = [f"0:{t / 60_000:02.0f}:{t / 1e3 % 60:06.3f}" for t in TRAIN.tolist()]
SOUND = {
    "ids.csv": "".join(f"{i % 2},{t}\n" for i, t in enumerate(TRAIN)).encode(),
    "lines.txt": ("1.5 2.5 30.5\n" * 9 + " ".join(map(str, TRAIN))).encode(),
    "clock.csv": "\n".join(["Titles,", "# x", "Time,Amp", *CLOCK]).encode(),
    "thousands.csv": ("sep=;\nunit;t_ms\n" + "a;1.250,5\nb;3,25\n" * 20).encode(),
    "rack.txt": mc_rack({31: [(t, 0) for t in TRAIN]}).encode(),
    "x.nexTimestamps": "\n".join(f"{t / 1e3}\t" for t in TRAIN).encode(),
    "x.t": b"%%BEGINHEADER\n%%ENDHEADER\n" + TRAIN.astype(">u4").tobytes(),
    "sonata.h5": hdf5({"spikes/v1/timestamps": TRAIN, "spikes/v1/node_ids": ONES}),
    "x.psort": hdf5({f"data/i0/{k}": v for k, v in PSORT.items()}),
    "padded.npy": array(np.pad(np.stack([TRAIN, TRAIN + 1], 1), ((0, 3), (0, 0)))),
    "sorting.npz": archive(
        unit_ids=[1],
        num_segment=[1],
        sampling_frequency=[1e3],
        spike_indexes_seg0=TRAIN.astype(int),
        spike_labels_seg0=ONES,
    ),
    "sparse.mat": written(
        uncompressed, spikeMatrix=scipy.sparse.eye(40, 50, format="csc")
    ),
    "wavemarks.txt": wavemarks((3, TRAIN / 1e3, [1] * 40)).encode(),
    "isi.csv": ("isi_ms\n" + "50.5\n" * 40).encode(),
    "raster.csv": ("0 1 0\n1 0 1\n" * 40).encode(),
    "pynapple.npz": archive(t=TRAIN, start=TRAIN[:1], end=TRAIN[-1:], **GROUP),
    "5.mat": written(uncompressed, **VARIABLES),
    "5z.mat": written(version_5, **VARIABLES),
    "7.3.mat": written(version_7_3, **VARIABLES),
    "sheet.xlsx": written(workbook, rows=[["t_ms"], *([t] for t in TRAIN.tolist())]),
    "unit.nex": nex({"LP": TRAIN, "PD": OTHER}, np.arange(100)),
}
# Of what only rigs can write, the beginning.
BEGUN = {
    "a.plx": b"PLEX" + struct.pack("<i", 106),
    "a.nev": b"NEURALEV\x02\x03",
    "a.smr": b"\x09\x00(C) CED 87",
    "a.rhd": b"\x02\x91\x69\xc6\x01\x00\x05\x00",
    "a.abf": b"ABF2\x00\x00\x06\x02",
    "a.smrx": b"S64",
    "a.edf": b"0       ",
    "a": b"",
}


def assert_trains_or_sentence(path, said):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            assert read_spike_trains(path)
        except ValueError as error:
            message = str(error)
            assert said in message and "\n" not in message and message.endswith(".")


def check(name, content):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        path.write_bytes(content)
        assert_trains_or_sentence(path, name)


@pytest.mark.parametrize("name", [*SOUND, *BEGUN])
@settings(max_examples=15)
@given(content=st.binary(max_size=300))
def test_any_bytes_give_a_result_or_a_sentence(name, content):
    check(name, content)
    check(name, BEGUN.get(name, SOUND.get(name, b"")[:300]) + content)


@st.composite
def damage(draw, content):
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content) - 1))
        size = draw(st.sampled_from((0, 1, 4, 8)))
        mutant = st.binary(min_size=size, max_size=size) | st.just(b"\xff" * size)
        content[place : place + size] = draw(mutant)
    return bytes(content)


@pytest.mark.parametrize("name", SOUND)
@settings(max_examples=20)
@given(data=st.data())
def test_a_damaged_file_gives_a_result_or_a_sentence(name, data):
    content = data.draw(damage(SOUND[name]))
    check(name, content)
    check(name, content[: data.draw(st.integers(0, len(content)))])


@given(data=st.data())
def test_a_damaged_folder_of_kilosort_gives_a_result_or_a_sentence(data):
    with tempfile.TemporaryDirectory() as folder:
        path = kilosort(
            pathlib.Path(folder), group=[["cluster_id", "group"], [2, "mua"]]
        )
        file = path / data.draw(st.sampled_from(sorted(p.name for p in path.iterdir())))
        file.write_bytes(data.draw(damage(file.read_bytes()) | st.binary(max_size=99)))
        assert_trains_or_sentence(path, "")


@settings(max_examples=20)
@given(
    cell=st.recursive(
        st.floats() | st.integers() | st.booleans() | st.text("abcmst_ '", max_size=6),
        lambda inner: (
            st.lists(inner, max_size=12)
            | st.dictionaries(st.sampled_from(("ts", "name", "fs", "unit", "x")), inner)
        ),
        max_leaves=60,
    )
)
def test_any_nest_of_cells_and_structs_gives_a_result_or_a_sentence(cell):
    def matlab(value):
        if isinstance(value, dict):
            return {name: matlab(part) for name, part in value.items()}
        if isinstance(value, list):
            numeric = all(isinstance(x, float) for x in value)
            return np.array(value) if numeric else cells(*map(matlab, value))
        return float(value) if isinstance(value, int) else value

    check("nest.mat", written(uncompressed, LP=matlab(cell)))
