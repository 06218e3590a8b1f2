"""Files that neo reads, and live objects of neo, pynapple and spikeinterface."""

import struct
import sys

import neo
import neo.io as neo_io
import numpy as np
import pytest
import quantities as pq

from dicjax.recordings.readers import neo_worker, read_spike_trains


TRAIN = np.arange(1, 41) * 50.125
OTHER = np.arange(1, 31) * 80.375


def nex(trains, signal=None, rate=40_000.0):
    """A NeuroExplorer file: a header, one of 208 bytes per variable, then numbers."""
    ticks = [np.round(t * rate / 1e3).astype("<i4").tobytes() for t in trains.values()]
    kinds = [
        (0, name, data, len(data) // 4, 0)
        for name, data in zip(trains, ticks, strict=True)
    ]
    if signal is not None:
        data = struct.pack("<ii", 0, 0) + signal.astype("<i2").tobytes()
        kinds.append((5, "LFP", data, 1, signal.size))
    last = max([1, *(int(t[-1] * rate / 1e3) for t in trains.values())])
    content = b"NEX1" + struct.pack("<i256sdiii", 104, b"", rate, 0, last, len(kinds))
    content = content.ljust(544, b"\x00")
    at = 544 + 208 * len(kinds)
    for kind, name, data, num, points in kinds:
        head = struct.pack("<ii64sIi", kind, 101, name.encode(), at, num)
        head += struct.pack("<iiii4d", 0, 0, 0, 0, 0.0, 0.0, 0.0, 1000.0)
        content += (head + struct.pack("<diii", 1.0, points, 0, 0)).ljust(208, b"\x00")
        at += len(data)
    return content + b"".join(data for _, _, data, _, _ in kinds)


def read(path, content, **options):
    path.write_bytes(content)
    return read_spike_trains(path, **options)


def assert_same(trains, **expected):
    assert [train.name for train in trains] == list(expected)
    for train, times in zip(trains, expected.values(), strict=True):
        np.testing.assert_allclose(train.times, times, rtol=1e-9)


# ---- files


def test_neuroexplorer_files_are_read_in_ms(tmp_path):
    path, content = tmp_path / "cell.nex", nex({"LP": TRAIN, "PD": OTHER})
    trains = read(path, content)
    assert_same(trains, LP=TRAIN, PD=OTHER)
    assert trains[0].t_stop == pytest.approx(OTHER[-1]) and trains[0].t_start == 0


@pytest.mark.usefixtures("read_here")
def test_one_unit_of_a_neuroexplorer_file_is_read_in_ms_alone(tmp_path):
    path, content = tmp_path / "cell.nex", nex({"LP": TRAIN, "PD": OTHER})
    assert_same(read(path, content, unit_id="PD"), PD=OTHER)
    with pytest.raises(ValueError, match="in ms.* unit='s'"):
        read(path, content, unit="s")


@pytest.mark.usefixtures("read_here")
def test_a_file_of_traces_alone_wants_its_spikes_sorted(tmp_path):
    content = nex({}, np.arange(1000))
    with pytest.raises(ValueError, match="cell.nex has traces"):
        read(tmp_path / "cell.nex", content)


@pytest.mark.usefixtures("read_here")
def test_a_broken_trace_of_axon_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cell.abf"):
        read(tmp_path / "cell.abf", b"ABF2" + bytes(600))


@pytest.mark.usefixtures("read_here")
@pytest.mark.parametrize(
    "suffix, part",
    (
        (".smrx", "export text, .mat or a NEO file"),
        (".pl2", "export .plx or .nex"),
        (".pkl", "to read a pickle is to run it"),
        (".tif", "neo does not know it: export it as one"),
        (".nex", "neo cannot read cell.nex"),
        (".plx", "neo cannot read cell.plx"),
        (".smr", "neo cannot read cell.smr"),
        (".nev", "neo cannot read cell.nev"),
        (".rhd", "neo cannot read cell.rhd"),
        (".fake", "neo does not know it"),
        ("", "neo cannot read cell|neo does not know it"),
    ),
)
def test_what_neo_cannot_read_is_refused_in_one_sentence(suffix, part, tmp_path):
    with pytest.raises(ValueError, match=part) as error:
        read(tmp_path / f"cell{suffix}", b"hello, world")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_readers_that_run_what_they_read_are_known_to_neo_still():
    names = {io.__name__ for io in neo_io.iolist}
    assert names >= neo_worker.UNUSED


def test_without_neo_a_file_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "neo", None)
    with pytest.raises(ValueError, match=r'pip install "dicjax\[neo\]"'):
        read(tmp_path / "cell.nex", nex({"LP": TRAIN}))
    with pytest.raises(ValueError, match="spike_times.npy"):
        read_spike_trains(tmp_path)


@pytest.mark.usefixtures("read_here")
def test_nix_files_are_read(tmp_path):
    pytest.importorskip("nixio")
    path = tmp_path / "cell.nix"
    with neo.NixIO(str(path), "ow") as io:
        io.write_block(block([TRAIN / 1e3, OTHER / 1e3]))
    assert_same(read_spike_trains(path), LP=TRAIN, PD=OTHER)


# ---- objects of neo


def spike_train(times, name, unit="s"):
    stop = times[-1] + 1
    return neo.SpikeTrain(times * getattr(pq, unit), t_stop=stop, name=name)


def block(*segments):
    whole = neo.Block()
    for trains in segments:
        segment = neo.Segment()
        for times, name in zip(trains, ("LP", "PD"), strict=False):
            segment.spiketrains.append(spike_train(times, name))
        whole.segments.append(segment)
    return whole


def test_objects_of_neo_are_rescaled_to_ms():
    LP, PD = spike_train(TRAIN / 1e3, "LP"), spike_train(OTHER * 1e3, "PD", "us")
    assert_same(read_spike_trains(LP), LP=TRAIN)
    assert_same(read_spike_trains([LP, PD]), LP=TRAIN, PD=OTHER)
    whole = block([TRAIN / 1e3, OTHER / 1e3])
    assert_same(read_spike_trains(whole), LP=TRAIN, PD=OTHER)
    assert_same(read_spike_trains(whole.segments[0]), LP=TRAIN, PD=OTHER)
    (train,) = read_spike_trains(whole, unit_id="PD")
    assert (train.t_start, train.source) == (0.0, "Block")
    assert train.t_stop == pytest.approx(OTHER[-1] + 1000)


def test_segments_of_neo_are_trains_apart():
    whole = block([TRAIN / 1e3], [OTHER / 1e3])
    assert_same(read_spike_trains(whole), **{"1_LP": TRAIN, "2_LP": OTHER})
    alike = [spike_train(TRAIN / 1e3, "a"), spike_train(OTHER / 1e3, "a")]
    assert_same(read_spike_trains(alike), **{"a 1": TRAIN, "a 2": OTHER})


# ---- other objects


def test_objects_of_pynapple_are_in_seconds():
    nap = pytest.importorskip("pynapple")
    assert_same(read_spike_trains(nap.Ts(TRAIN / 1e3)), Ts=TRAIN)
    group = nap.TsGroup({3: nap.Ts(TRAIN / 1e3), 7: nap.Ts(OTHER / 1e3)})
    assert_same(read_spike_trains(group), **{"3": TRAIN, "7": OTHER})
    with pytest.raises(ValueError, match="values over time"):
        read_spike_trains(nap.Tsd(TRAIN / 1e3, TRAIN))


def test_files_of_pynapple_are_in_seconds(tmp_path):
    nap = pytest.importorskip("pynapple")
    path = tmp_path / "cell.npz"
    nap.Ts(TRAIN / 1e3).save(str(path))
    assert_same(read_spike_trains(path), cell=TRAIN)
    group = nap.TsGroup({3: nap.Ts(TRAIN / 1e3), 7: nap.Ts(OTHER / 1e3)})
    group.set_info(area=np.array(["a", "b"]))
    group.save(str(path))
    assert_same(read_spike_trains(path), **{"3": TRAIN, "7": OTHER})


def test_sortings_of_spikeinterface_know_their_rate():
    core = pytest.importorskip("spikeinterface.core")
    units = {f"u{i}": (t * 30).astype(int) for i, t in enumerate((TRAIN, OTHER))}
    sorting = core.NumpySorting.from_unit_dict([units], sampling_frequency=30_000.0)
    trains = read_spike_trains(sorting)
    assert [train.name for train in trains] == ["u0", "u1"]
    np.testing.assert_allclose(trains[0].times, TRAIN, atol=1 / 30)


@pytest.mark.parametrize("other", (TRAIN, [1.0, 2.0], [], None, {"a": TRAIN}, 3))
def test_what_is_neither_a_path_nor_a_library_object_is_refused(other):
    with pytest.raises(ValueError, match="dicjax.SpikeTrain"):
        read_spike_trains(other)


@pytest.mark.usefixtures("read_here")
def test_large_files_are_refused_where_neo_would_load_them_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(neo_worker, "MAX_BYTES", 300)
    with pytest.raises(ValueError, match="cell.gdf .*NestIO.*too large"):
        read(tmp_path / "cell.gdf", b"1 2.5\n" * 100)
