"""Files of sorters, simulators and toolboxes, each made as its program writes it."""

import json

import h5py
import numpy as np
import pytest
import scipy.io
from test_readers_matlab import cells, version_5, version_7_3

from dicjax.recordings.readers import read_spike_trains


RNG = np.random.default_rng(0)
A, B = (np.cumsum(RNG.gamma(4, 30, num)).round(1) for num in (300, 200))  # ms
MATLAB = pytest.mark.parametrize("write", (version_5, version_7_3))


def assert_same(trains, expected, atol=1e-6):
    assert [train.name for train in trains] == [*expected]
    for train, times in zip(trains, expected.values(), strict=True):
        np.testing.assert_allclose(train.times, times, atol=atol)


# ---- spikeinterface


def spikes(rate, *segments):
    """The vector of spikes, in the order of time per segment."""
    kind = [("sample_index", "i8"), ("unit_index", "i8"), ("segment_index", "i8")]
    rows = []
    for k, trains in enumerate(segments):
        own = [(round(t * rate / 1e3), i, k) for i, x in enumerate(trains) for t in x]
        rows += sorted(own)
    return np.array(rows, kind)


def sorting(folder, names, held, num_segments=1):
    folder.mkdir(parents=True)
    info = {
        "sampling_frequency": 20000.0,
        "unit_ids": names,
        "num_segments": num_segments,
    }
    (folder / "numpysorting_info.json").write_text(json.dumps(info))
    np.save(folder / "spikes.npy", held)


def archive(path, names, held, num_segments=1):
    parts = {}
    for i in range(num_segments):
        own = held[held["segment_index"] == i]
        parts[f"spike_indexes_seg{i}"] = own["sample_index"]
        parts[f"spike_labels_seg{i}"] = np.array(names)[own["unit_index"]]
    more = {"num_segment": [num_segments], "sampling_frequency": [20000.0]}
    np.savez(path, unit_ids=np.array(names), **more, **parts)


@pytest.mark.parametrize("names", ([7, 3], ["b", "a"]))
def test_sortings_of_spikeinterface_are_read(tmp_path, names):
    expected = {str(names[0]): A, str(names[1]): B}
    held = spikes(20000, [A, B])
    sorting(tmp_path / "numpy_folder", names, held)
    sorting(tmp_path / "analyzer" / "sorting", names, held)
    archive(tmp_path / "sorting_cached.npz", names, held)  # of an npz_folder
    for path in ("numpy_folder", "analyzer", "sorting_cached.npz", "."):
        assert_same(read_spike_trains(tmp_path / path), expected, atol=0.03)


def test_segments_of_a_sorting_are_trains_of_their_own(tmp_path):
    held = spikes(20000, [A, B], [B, A])
    sorting(tmp_path / "x", ["u", "v"], held, 2)
    archive(tmp_path / "x.npz", ["u", "v"], held, 2)
    expected = {"0_u": A, "0_v": B, "1_u": B, "1_v": A}
    for path in ("x", "x.npz"):
        assert_same(read_spike_trains(tmp_path / path), expected, atol=0.03)


def test_noise_of_a_sorting_is_left_out(tmp_path):
    sorting(tmp_path / "x", ["u", "v"], spikes(20000, [A, B]))
    (tmp_path / "x" / "properties").mkdir()
    np.save(tmp_path / "x" / "properties" / "quality.npy", np.array(["noise", "mua"]))
    with pytest.warns(UserWarning, match="v is multi-unit"):
        assert_same(read_spike_trains(tmp_path / "x"), {"v": B}, atol=0.03)


@pytest.mark.parametrize("part", ("numpysorting_info.json", "spikes.npy"))
def test_a_damaged_sorting_is_refused(tmp_path, part):
    sorting(tmp_path / "x", ["u"], spikes(20000, [A, B]))  # of a unit that is not named
    with pytest.raises(ValueError, match="x is not a folder of spikeinterface"):
        read_spike_trains(tmp_path / "x")
    (tmp_path / "x" / part).write_bytes(b"{}")
    with pytest.raises(ValueError, match="x is not a folder of spikeinterface"):
        read_spike_trains(tmp_path / "x")


# ---- MATLAB


@MATLAB
def test_wave_clus_keeps_noise_in_cluster_0(write, tmp_path):
    path = tmp_path / "times_CSC3.mat"
    rows = [(k, t) for k, x in enumerate((B + 0.5, A, B)) for t in x]
    said = {"cluster_class": np.array(rows), "spikes": RNG.normal(size=(700, 64))}
    write(path, **said, inspk=RNG.normal(size=(700, 10)))
    with pytest.warns(UserWarning, match="without the 200 spikes of cluster 0"):
        assert_same(read_spike_trains(path), {"1": A, "2": B})
    write(path, cluster_class=np.array(rows[:200]))
    with pytest.raises(ValueError, match="200 spikes of cluster 0 alone"):
        read_spike_trains(path)


@MATLAB
def test_cell_explorer_holds_each_train_twice(write, tmp_path):
    path = tmp_path / "rat.spikes.cellinfo.mat"
    times = cells(A / 1e3, B / 1e3)
    samples = cells((A * 20).astype(int), (B * 20).astype(int))
    said = {"times": times, "ts": samples, "UID": np.array([4, 9]), "sr": 20000.0}
    write(path, spikes={**said, "numcells": 2.0, "basename": "rat"})
    assert_same(read_spike_trains(path), {"4": A, "9": B})


@MATLAB
@pytest.mark.parametrize("unit, per_ms", (("s", 1e-3), ("frames", 25.0)))
def test_mea_nap_has_a_struct_per_channel(write, unit, per_ms, tmp_path):
    path = tmp_path / "OWT220207_1I_DIV63_spikes.mat"
    held = cells({"mea": A * per_ms, "thr4": A[:250] * per_ms}, {"mea": B * per_ms})
    result = {"params": {"fs": 25000.0, "unit": unit, "duration": 60.0}}
    channels = np.array([31, 41])
    write(path, spikeTimes=held, spikeDetectionResult=result, channels=channels)
    with pytest.warns(UserWarning, match="one of several methods"):
        trains = read_spike_trains(path)
    assert_same(trains, {"31_mea": A, "31_thr4": A[:250], "41_mea": B})


@MATLAB
def test_field_trip_counts_times_from_each_trial(write, tmp_path):
    path, trials = tmp_path / "spike.mat", np.repeat([1, 2], 150)
    held = {"label": cells("a", "b"), "timestamp": cells(A * 40, B * 40)}
    held |= {"time": cells(A / 1e3, B / 1e3), "trial": cells(trials, np.ones(200))}
    write(path, spike=held)
    expected = {"a_1": A[:150], "a_2": A[150:], "b": B}
    assert_same(read_spike_trains(path), expected)


def test_a_folder_of_zarr_says_how_to_save_another(tmp_path):
    folder = tmp_path / "analyzer.zarr"
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(ValueError, match=r"analyzer\.zarr.*binary_folder"):
        read_spike_trains(folder)


# ---- HDF5


@pytest.mark.parametrize("suffix", ("h5", "hdf5"))
def test_sonata_has_populations_of_nodes(tmp_path, suffix):
    path, order = tmp_path / f"spikes.{suffix}", np.argsort([*A, *B])
    ids = np.repeat([12, 40], (300, 200))[order]
    with h5py.File(path, "w") as file:
        group = file.create_group("spikes/v1")
        group["timestamps"], group["node_ids"] = np.sort([*A, *B]), ids
        group["timestamps"].attrs["units"] = "milliseconds"
    assert_same(read_spike_trains(path), {"12": A, "40": B})
    with h5py.File(path, "r+") as file:
        file["spikes/lgn/timestamps"], file["spikes/lgn/gids"] = A, np.zeros(300, int)
    names = [train.name for train in read_spike_trains(path)]
    assert names == ["lgn_0", "v1_12", "v1_40"]


def test_psort_marks_samples_of_a_trace(tmp_path):
    path, rate = tmp_path / "cell.psort", 30000
    with h5py.File(path, "w") as file:
        for i, times in enumerate((A[:3], A)):  # a slot, and the whole recording
            simple = np.zeros(2_000_000, bool)
            simple[(times * 30).astype(int)] = True
            slot = file.create_group(f"data/i{i}")
            slot.create_dataset("ss_index", data=simple, compression="gzip")
            slot["cs_index"] = np.zeros(0, bool)
            slot["sample_rate"] = np.array([rate], "u4")
            slot["ch_time"] = np.arange(3) / rate + 0.5
    with pytest.warns(UserWarning, match=r"complex \(0\)"):
        assert_same(read_spike_trains(path), {"simple": A + 500}, atol=0.04)


def test_psort_that_states_more_than_it_holds_is_refused(tmp_path):
    with h5py.File(tmp_path / "cell.psort", "w") as file:
        slot = file.create_group("data/i0")
        slot.create_dataset("ss_index", (2**40,), bool, chunks=(2**20,))
        slot["sample_rate"], slot["ch_time"] = [30000], np.zeros(1)
        slot["cs_index"] = np.zeros(0, bool)
    with pytest.raises(ValueError, match="not a file of psort"):
        read_spike_trains(tmp_path / "cell.psort")


def test_spyking_circus_has_samples_of_templates(tmp_path):
    path = tmp_path / "cell.result.hdf5"
    with h5py.File(path, "w") as file:
        for i, times in enumerate((A, B)):
            file[f"spiketimes/temp_{i}"] = (times * 20).astype("u4")
    with pytest.raises(ValueError, match="samples@30000"):
        read_spike_trains(path)
    trains = read_spike_trains(path, unit="samples@20000")
    assert_same(trains, {"0": A, "1": B}, atol=0.06)


# ---- others


@pytest.mark.parametrize(
    "suffix, kind", ((".t", ">u4"), (".t", ">u8"), (".t32", ">u4"), (".t64", ">u8"))
)
@pytest.mark.parametrize("header", (b"", b"%%BEGINHEADER\n% MClust 4.4\n%%ENDHEADER\n"))
def test_mclust_counts_tenths_of_ms(tmp_path, suffix, kind, header):
    path = tmp_path / f"TT1_02{suffix}"
    path.write_bytes(header + (A * 10).round().astype(kind).tobytes())
    assert_same(read_spike_trains(path), {"TT1_02": A})
    path.write_bytes(header + b"abc")
    with pytest.raises(ValueError, match=f"TT1_02{suffix} is no file of MClust"):
        read_spike_trains(path)


def mc_rack(trains, has_units=True):
    lines = ["MC_DataTool ASCII conversion", ""]
    for channel, rows in trains.items():
        unit = "\tUnit" if has_units else ""
        lines += [f"t       \tSpikes 1 {channel} {unit}", "[ms]    \t[µV]      \t   "]
        lines += [f"{t:.3f}   \t-10.5   \t{u}   " for t, u in rows] + [""]
    return "\n".join(lines)


def test_mc_rack_has_a_block_per_channel(tmp_path):
    path = tmp_path / "spikes.txt"
    path.write_text(mc_rack({31: [(t, 0) for t in A], 41: [(t, 0) for t in B]}))
    assert_same(read_spike_trains(path), {"31": A, "41": B})
    both = sorted([(t, 0) for t in A] + [(t, 1) for t in B])
    path.write_text(mc_rack({31: both}), "cp1252")
    trains = {train.name: train for train in read_spike_trains(path)}
    assert_same([trains["31_0"], trains["31_1"]], {"31_0": A, "31_1": B})


def test_cut_outs_of_mc_rack_are_read_by_their_starts(tmp_path):
    path = tmp_path / "spikes.txt"
    # One starts where another ends, and one before another has ended.
    starts = np.sort([*A, A[3] + 2.0, A[9] + 1.0])
    cut_outs = [(t + k / 20, 0) for t in starts for k in range(40)]
    path.write_text(mc_rack({31: cut_outs, 41: [(t, 0) for t in B]}))
    with pytest.warns(UserWarning, match="unit 31 was read from its cut-outs of 40"):
        trains = read_spike_trains(path)
    assert_same(trains, {"31": starts, "41": B}, atol=1e-3)
    path.write_text(
        mc_rack({31: cut_outs[:-3] + [(9e5 + k / 20, 0) for k in range(9)]})
    )
    with pytest.raises(ValueError, match="cut-outs.*time stamps only"):
        read_spike_trains(path)


def test_times_of_neuroexplorer_are_in_seconds(tmp_path):
    width = [f"{a / 1e3}\t{B[i] / 1e3 if i < 200 else ''}\t" for i, a in enumerate(A)]
    (tmp_path / "x.nexTimestamps").write_text("ch_1A\tch_2A\t\r\n" + "\r\n".join(width))
    assert_same(
        read_spike_trains(tmp_path / "x.nexTimestamps"), {"ch_1A": A, "ch_2A": B}
    )


def test_a_list_of_lists_of_matlab_is_read(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"spikes": cells(A, B), "unit": "ms"})
    assert_same(read_spike_trains(tmp_path / "x.mat"), {"1": A, "2": B})
