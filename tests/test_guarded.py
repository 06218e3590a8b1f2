"""Files of strangers are read in a process with limits, which leads nowhere else."""

import os
import socket
import subprocess
import time
import warnings
import zipfile

import h5py
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io

import dicjax as dj
from dicjax._core import apart, Forbidden, Limits, limits_of, Overrun
from dicjax.output import read_population
from dicjax.recordings.readers.matlab import read_matlab


TRAIN = np.arange(1, 41) * 0.050125  # s


@pytest.mark.parametrize(
    "function, args, part",
    (
        (time.sleep, (60,), "takes over 0.1 s"),
        (eval, ("[x for x in iter(int, 1)]",), "takes over 0.1 s"),
        (np.ones, (2**31,), "over 1.0 GB of memory"),
        (os.abort, (), "broke down"),
        (os._exit, (1,), "broke down"),
    ),
)
def test_work_that_passes_its_limits_is_ended_and_the_next_is_done(
    function, args, part
):
    with pytest.raises(Overrun, match=part):
        apart(function, Limits(seconds=0.1), *args)
    assert apart(sum, Limits(), [1, 2]) == 3


@pytest.mark.parametrize(
    "function, args",
    (
        (socket.create_connection, (("127.0.0.1", 9),)),
        (socket.getaddrinfo, ("localhost", 9)),
        (subprocess.run, (["true"],)),
        (os.system, ("true",)),
    ),
)
def test_no_network_is_reached_and_no_program_started(function, args):
    with pytest.raises(Forbidden):
        apart(function, Limits(), *args)


def test_what_the_work_raises_and_warns_of_arrives():
    with pytest.warns(UserWarning, match="beware"):
        apart(warnings.warn, Limits(), "beware")
    with pytest.raises(KeyError, match="'b'"):
        apart(eval, Limits(), "{'a': 1}['b']")


def test_the_process_is_kept_and_loads_no_jax(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "cell.mat", {"LP": TRAIN})
    monkeypatch.chdir(tmp_path)
    (train,) = apart(read_matlab, Limits(), type(tmp_path)("cell.mat"))
    np.testing.assert_array_equal(train.times, TRAIN)
    assert apart(os.getppid, Limits()) == apart(os.getppid, Limits())
    assert not apart(eval, Limits(), "'jax' in __import__('sys').modules")


def test_a_larger_file_may_take_more(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(bytes(10**6))
    assert limits_of(small).seconds < 10 < limits_of(large).seconds
    assert 2**30 <= limits_of(small).memory < limits_of(large).memory


# ---- HDF5


def elsewhere(tmp_path):
    """A sound file, and a pipe that hangs whoever opens it."""
    other = tmp_path / "other.nwb"
    with h5py.File(other, "w") as file:
        add_units(file.create_group("units"))
    os.mkfifo(tmp_path / "pipe")
    return other


def add_units(units, **parts):
    parts = {"id": [1], "spike_times": TRAIN, "spike_times_index": [40]} | parts
    for name, part in parts.items():
        if part is not None:
            units[name] = part


def link_to_group(file, other):
    file["units"] = h5py.ExternalLink(str(other), "/units")


def link_to_pipe(file, other):
    file["units"] = h5py.ExternalLink(str(other.with_name("pipe")), "/units")


def link_to_times(file, other):
    link = h5py.ExternalLink(other.name, "/units/spike_times")
    add_units(file.create_group("units"), spike_times=link)


def link_through_a_link(file, other):
    file["x"] = h5py.ExternalLink(str(other), "/")
    file["units"] = h5py.SoftLink("/x/units")


def external_storage(file, other):
    units = file.create_group("units")
    add_units(units, spike_times=None)
    stored = [(str(other.with_name("raw")), 0, 320)]
    units.create_dataset("spike_times", (40,), "f8", external=stored)


def virtual_dataset(file, other):
    layout = h5py.VirtualLayout((40,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "units/spike_times", (40,))
    units = file.create_group("units")
    add_units(units, spike_times=None)
    units.create_virtual_dataset("spike_times", layout)


AWAY = (
    link_to_group,
    link_to_pipe,
    link_to_times,
    link_through_a_link,
    external_storage,
    virtual_dataset,
)


@pytest.mark.parametrize("suffix", (".nwb", ".mat"))
@pytest.mark.parametrize("write", AWAY)
def test_nothing_is_read_from_other_files(tmp_path, write, suffix):
    other, path = elsewhere(tmp_path), tmp_path / f"cell{suffix}"
    with h5py.File(path, "w") as file:
        write(file, other)
    with pytest.raises(ValueError, match="cell.* another file"):
        dj.read_spike_trains(path)


def test_links_within_a_file_are_followed(tmp_path):
    path = tmp_path / "cell.nwb"
    with h5py.File(path, "w") as file:
        file["x/times"], file["y"] = TRAIN, h5py.SoftLink("/x")
        add_units(file.create_group("units"), spike_times=h5py.SoftLink("/y/times"))
    (train,) = dj.read_spike_trains(path)
    np.testing.assert_allclose(train.times, TRAIN * 1e3)


def test_links_that_go_round_come_to_an_end(tmp_path):
    path = tmp_path / "cell.nwb"
    with h5py.File(path, "w") as file:
        file["units"] = h5py.SoftLink("/units")
    with pytest.raises(ValueError, match="cell.nwb"):
        dj.read_spike_trains(path)


# ---- what swells


def test_names_that_only_claim_to_be_many_are_not_loaded(tmp_path):
    path = tmp_path / "cell.nwb"
    with h5py.File(path, "w") as file:
        units = file.create_group("units")
        add_units(units, id=None)
        units.create_dataset("id", (2**40,), "S128", chunks=(1000,), fillvalue=b"x")
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match="cell.nwb .*too large|memory"):
        dj.read_spike_trains(path)


def test_a_table_that_swells_is_refused(tmp_path):
    path = tmp_path / "models.parquet"
    words, numbers = pa.array(["x" * 2**20]), pa.array(np.zeros(4000, np.int32))
    table = pa.table({"g": pa.DictionaryArray.from_arrays(numbers, words)})
    pq.write_table(table, path, store_schema=False)
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="models.parquet .*memory"):
        read_population(path)


def workbook(path, sheet):
    """A workbook whose first sheet is the given XML."""
    openpyxl.Workbook().save(path.with_name("plain.xlsx"))
    with (
        zipfile.ZipFile(path.with_name("plain.xlsx")) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in plain.namelist():
            is_sheet = name.startswith("xl/worksheets/")
            new.writestr(name, sheet if is_sheet else plain.read(name))


@pytest.mark.slow
def test_a_sheet_that_takes_for_ever_is_given_up(tmp_path):
    path, began = tmp_path / "cell.xlsx", time.monotonic()
    cell = '<c t="inlineStr"><is><t/></is></c>'
    rows = f"<row>{cell}</row>" * 4_000_000
    name = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheet = f'<worksheet xmlns="{name}"><sheetData>{rows}</sheetData></worksheet>'
    workbook(path, sheet)
    with pytest.raises(ValueError, match="cell.xlsx .*(takes over|too large)"):
        dj.read_spike_trains(path)
    assert time.monotonic() - began < 60


# ---- what was found by changes at random


def test_a_table_with_a_column_of_no_text_is_refused(tmp_path):
    path = tmp_path / "models.parquet"
    pq.write_table(pa.table({"g_Nagami": [1.0]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"g_Nagami", b"g_\xbfagami"))
    with pytest.raises(ValueError, match=r"models.parquet cannot be read"):
        read_population(path)


def test_an_archive_of_sweeps_with_another_file_is_refused(tmp_path):
    path = tmp_path / "cell.npz"
    np.savez(path, t_ms=np.arange(200.0), I_pA=np.zeros(200))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("V_mV", b"abc")
    with pytest.raises(ValueError, match="cell.npz .*archive"):
        dj.read_sweeps(path)
