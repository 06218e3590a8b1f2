import io
import os
import pathlib
import tempfile
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from dicjax.recordings.readers import common, read_spike_trains
from dicjax.recordings.readers.plausibility import units_that_fit


# In eighths of a millisecond, so that the text of a time is exact and never whole. So
# coarse a clock is of ms, and no interval is as short as a few frames of a stimulus.
@st.composite
def spike_times(draw):
    eighths = draw(st.lists(st.integers(104, 8000), min_size=10, max_size=30))
    return (np.cumsum(eighths) * 8 + draw(st.integers(1, 7))) / 64


trains = st.lists(spike_times(), min_size=2, max_size=4)
TRAIN = np.arange(1, 41) * 50.125


def read(content, suffix, **options):
    if isinstance(content, str):
        content = content.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cell" + suffix)
        path.write_bytes(content)
        return read_spike_trains(path, **options)


def column(times, header=None):
    lines = [] if header is None else [header]
    return "\n".join([*lines, *map(str, np.asarray(times).tolist())]) + "\n"


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def nwb(trains, intervals=None, **attributes):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        units = file.create_group("units")
        units["id"] = 100 + np.arange(len(trains))
        units["spike_times"] = np.concatenate(trains)
        units["spike_times_index"] = np.cumsum([len(t) for t in trains]).astype("u2")
        units["spike_times"].attrs.update(attributes)
        if intervals is not None:
            units["obs_intervals"] = np.concatenate(intervals)
            units["obs_intervals_index"] = np.cumsum([len(i) for i in intervals])
    return buffer.getvalue()


def assert_same(read, expected, names=None):
    assert len(read) == len(expected)
    for train, times in zip(read, expected, strict=True):
        np.testing.assert_allclose(train.times, times, rtol=1e-12)
    if names is not None:
        assert [train.name for train in read] == names


@pytest.mark.parametrize("suffix", (".csv", ".txt", ".tsv"))
@settings(max_examples=8)
@given(times=spike_times())
def test_a_bare_column_of_plausible_times_is_in_ms(suffix, times):
    (train,) = read(column(times), suffix)
    assert np.array_equal(train.times, times)
    assert (train.name, train.source) == ("cell", "cell" + suffix)
    assert (train.t_start, train.t_stop) == (times[0], times[-1])


@pytest.mark.parametrize(
    "header, per_unit",
    (
        ("spike_time_ms", 1.0),
        ("t [ms]", 1.0),
        ("# Spike times, in milliseconds", 1.0),
        ("time_s", 1e3),
        ("Time(s)", 1e3),
        ("s", 1e3),
        ('"spike times (sec)"', 1e3),
        ("t_min", 6e4),
        ("time [µs]", 1e-3),
        ("timestamps_us", 1e-3),
    ),
)
@settings(max_examples=8)
@given(
    times=spike_times(),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "cp1252", "utf-16")),
    newline=st.sampled_from(("\n", "\r\n", "\r")),
)
def test_a_header_states_the_unit(header, per_unit, times, encoding, newline):
    text = column(times / per_unit, header).replace("\n", newline)
    assert_same(read(text.encode(encoding), ".csv"), [times], ["cell"])


@pytest.mark.parametrize("header", ("Spike(s)", "LP_s", "sample 1", "spike", "Msn"))
def test_a_name_that_resembles_a_unit_states_none(header):
    assert_same(read(column(TRAIN, header), ".csv"), [TRAIN])
    assert_same(read(column(TRAIN / 1e3, header), ".csv", unit="s"), [TRAIN])


@pytest.mark.parametrize(
    "mark, suffix", ((",", ".csv"), (";", ".csv"), ("\t", ".tsv"), ("  ", ".txt"))
)
@settings(max_examples=8)
@given(trains=trains, order=st.randoms(use_true_random=False))
def test_rows_of_unit_and_time_are_told_apart(mark, suffix, trains, order):
    rows = [(time, i) for i, times in enumerate(trains) for time in times.tolist()]
    rows.sort()
    names = list(dict.fromkeys(f"n{i}" for _, i in rows))
    expected = [trains[int(name[1:])] for name in names]
    for header in ("unit time_ms", "neuron_id t"):
        lines = [header.replace(" ", mark), *(f"n{i}{mark}{t}" for t, i in rows)]
        assert_same(read("\n".join(lines), suffix), expected, names)
    lines = [f"{i}{mark}{time}" for time, i in rows]
    assert_same(read("\n".join(lines), suffix), expected)


@pytest.mark.parametrize("blank", ("", "NaN", "n/a"))
@pytest.mark.parametrize("has_decimal_comma", (False, True))
@settings(max_examples=8)
@given(trains=trains)
def test_ragged_columns_are_one_neuron_each(blank, has_decimal_comma, trains):
    longest = max(map(len, trains))
    padded = [[*map(str, t.tolist()), *[blank] * (longest - len(t))] for t in trains]
    mark = ";" if has_decimal_comma else ","
    rows = "\n".join(map(mark.join, zip(*padded, strict=True)))
    if has_decimal_comma:
        rows = rows.replace(".", ",")
    names = [f"cell {i}" for i in range(len(trains))]
    assert_same(read(mark.join(names) + "\n" + rows, ".csv"), trains, names)
    assert_same(read(rows, ".csv"), trains, [str(i + 1) for i in range(len(trains))])


@given(times=spike_times())
def test_one_column_under_a_header_may_have_decimal_commas(times):
    text = column(times / 1e3, "t [s]").replace(".", ",")
    assert_same(read(text, ".csv"), [times])


def test_a_decimal_comma_without_a_header_is_not_guessed_at():
    with pytest.raises(ValueError, match="50,125"):
        read(column(TRAIN).replace(".", ","), ".csv")


@settings(max_examples=20)
@given(trains=trains)
def test_quoted_lists_of_spiking_times_are_in_ms(trains):
    lists = [f'{i},"{times.tolist()}"' for i, times in enumerate(trains)]
    names = [str(i) for i in range(len(trains))]
    assert_same(read("\n".join(["ID,spiking_times", *lists]), ".csv"), trains, names)
    alone = ["spiking_times", *(f'"{times.tolist()}"' for times in trains)]
    assert_same(read("\n".join(alone), ".csv"), trains)


def test_the_index_that_pandas_writes_is_no_neuron():
    rows = "".join(f"{i},{t}\n" for i, t in enumerate(TRAIN.tolist()))
    assert_same(read(",spike_time_ms\n" + rows, ".csv"), [TRAIN], ["cell"])


@settings(max_examples=20)
@given(trains=trains)
def test_numpy_files_hold_one_array_per_neuron(trains):
    arrays = {f"n{i}": times for i, times in enumerate(trains)}
    assert_same(read(npz(**arrays), ".npz"), trains, list(arrays))
    assert_same(read(npz(spike_times_s=trains[0] / 1e3), ".npz"), trains[:1], ["cell"])
    assert_same(read(npy(trains[0][:, None]), ".npy"), trains[:1], ["cell"])


@settings(max_examples=20)
@given(trains=trains, start=st.floats(-1, 2), more=st.floats(0, 9))
def test_a_numpy_archive_may_state_its_unit_and_span(trains, start, more):
    arrays = {f"n{i}": times / 1e3 for i, times in enumerate(trains)}
    stop = max(times[-1] for times in trains) / 1e3 + more
    content = npz(**arrays, unit="s", t_start=start, t_stop=stop)
    read_trains = read(content, ".npz")
    assert_same(read_trains, trains)
    for train in read_trains:
        assert train.t_start == min(start * 1e3, train.times[0])
        assert train.t_stop == pytest.approx(stop * 1e3)


@settings(max_examples=20)
@given(trains=trains)
def test_nwb_holds_units_in_seconds(trains):
    content = nwb([times / 1e3 for times in trains])
    names = [str(100 + i) for i in range(len(trains))]
    assert_same(read(content, ".nwb"), trains, names)
    (train,) = read(content, ".nwb", unit_id=101)
    assert train.name == "101"


def test_nwb_tells_when_a_unit_was_observed():
    content = nwb([TRAIN / 1e3] * 2, [np.array([[0, 1], [2, 9.0]]), np.zeros((0, 2))])
    first, second = read(content, ".nwb")
    assert (first.t_start, first.t_stop) == (0.0, 9000.0)
    assert (second.t_start, second.t_stop) == (first.times[0], first.times[-1])


def test_nwb_without_spike_times_says_so():
    for names, said in (
        (["units/id"], r"only id\): sort its spikes"),
        (["acquisition/V"], "no Units table: sort its spikes"),
    ):
        with h5py.File(buffer := io.BytesIO(), "w") as file:
            for name in names:
                file[name] = np.arange(3)
        with pytest.raises(ValueError, match=said):
            read(buffer.getvalue(), ".nwb")


def test_nwb_that_holds_ms_against_its_own_rules_is_not_believed():
    with pytest.raises(ValueError, match='unit="ms"'):
        read(nwb([TRAIN] * 2), ".nwb")
    assert_same(read(nwb([TRAIN] * 2), ".nwb", unit="ms"), [TRAIN] * 2)
    slow = np.arange(20) * 100.0
    assert len(read(nwb([slow, TRAIN / 1e3]), ".nwb")) == 2
    with pytest.raises(ValueError, match="contradicts"):
        read(nwb([TRAIN / 1e3], unit="seconds"), ".nwb", unit="ms")


@settings(max_examples=8)
@given(times=spike_times())
@pytest.mark.parametrize(
    "unit, per_ms", (("ms", 1), ("s", 1e-3), ("us", 1e3), ("samples@30000", 30.0))
)
def test_a_unit_that_is_given_is_used(unit, per_ms, times):
    assert_same(read(column(times * per_ms), ".csv", unit=unit), [times])


def test_seconds_are_never_read_as_milliseconds():
    with pytest.raises(ValueError) as error:
        read(column(TRAIN / 1e3), ".csv")
    for part in ("1.995e+04 Hz", "0.05012 ms", 'unit="s"', "19.95 Hz"):
        assert part in str(error.value)


@given(times=spike_times(), unit=st.sampled_from(("s", "us")))
def test_the_remedy_for_a_bare_file_is_its_true_unit(times, unit):
    per_ms = {"s": 1e-3, "us": 1e3}[unit]
    try:
        read(column(times * per_ms), ".csv")
    except ValueError as error:
        assert f'unit="{unit}"' in str(error)
    else:
        raise AssertionError("a wrong unit was believed")


def test_a_stated_unit_allows_short_intervals_but_not_the_impossible():
    two_cells = np.sort(np.concatenate([TRAIN, TRAIN + 0.25]))
    with pytest.raises(ValueError, match='unit="ms"'):
        read(column(two_cells), ".csv")
    assert_same(read(column(two_cells), ".csv", unit="ms"), [two_cells])
    assert_same(read(column(two_cells, "t_ms"), ".csv"), [two_cells])
    for factor in (1e-3, 1e5):
        with pytest.raises(ValueError, match="give the true unit"):
            read(column(TRAIN * factor), ".csv", unit="ms")
        with pytest.raises(ValueError, match="correct the unit"):
            read(column(TRAIN * factor, "t_ms"), ".csv")


def test_a_unit_that_contradicts_the_file_is_refused():
    with pytest.raises(ValueError, match="in ms.* unit='s'"):
        read(column(TRAIN, "t_ms"), ".csv", unit="s")
    with pytest.raises(ValueError, match="`unit`.* ms, s, us, min.*'hours'"):
        read(column(TRAIN), ".csv", unit="hours")
    for unit in ("samples", "samples@0", "samples@-3", "samples@" + "9" * 400):
        with pytest.raises(ValueError, match=f"`unit`.*{unit[:12]}"):
            read(column(TRAIN), ".csv", unit=unit)


def test_sample_indices_need_their_rate():
    indices = column((TRAIN * 30).astype(int), "spike_samples")
    with pytest.raises(ValueError, match="samples@30000"):
        read(indices, ".csv")
    (train,) = read(indices, ".csv", unit="samples@30000")
    np.testing.assert_allclose(train.times, TRAIN, atol=1 / 30)


@pytest.mark.parametrize("mean", (20, 60, 500))
def test_whole_numbers_without_a_unit_are_asked_about(mean):
    rng = np.random.default_rng(0)
    whole = np.cumsum(4 + rng.exponential(mean, 1000)).astype(int)
    with pytest.raises(ValueError, match='unit="ms" .*unit="samples@'):
        read(column(whole), ".csv")
    read(column(whole), ".csv", unit="ms")


def regular(rate, seconds, cv=0.02):
    rng = np.random.default_rng(0)
    isi = np.maximum(1 + cv * rng.standard_normal(int(rate * seconds)), 0.1)
    return np.cumsum(1e3 / rate * isi)


def irregular(rate, seconds, dead=3.0):
    rng = np.random.default_rng(0)
    return np.cumsum(dead + rng.exponential(1e3 / rate - dead, int(rate * seconds)))


ODD_UNITS = {
    "a slow pacemaker in s": (regular(0.12, 600) / 1e3, "s", "0.1198 Hz"),
    "a slower one, briefly": (regular(0.02, 1200) / 1e3, "s", "0.02005 Hz"),
    "parts of samples": (irregular(5, 120) * 15, "samples@30000", "Hz"),
    "samples of all units": ((irregular(30, 64, 0) * 30).astype(int), "samples@", "Hz"),
    "frames of a stimulus": (irregular(6, 120, 30) * 0.12, "samples@60", "frames"),
    "whole frames": ((irregular(2, 600, 30) * 0.06).astype(int), "samples@60", "Hz"),
    "microseconds": (irregular(150, 60) * 1e3, "us", "150"),
}


@pytest.mark.parametrize("numbers, unit, rate", ODD_UNITS.values(), ids=ODD_UNITS)
@pytest.mark.parametrize("suffix", (".csv", ".npy"))
def test_what_several_units_make_sense_of_is_asked_about(suffix, numbers, unit, rate):
    numbers = np.unique(numbers)
    content = column(numbers) if suffix == ".csv" else npy(numbers)
    with pytest.raises(ValueError) as error:
        read(content, suffix)
    message = str(error.value)
    assert f'unit="{unit}' in message and rate in message, message
    assert 'unit="ms" makes it' in message


def test_a_bare_file_that_only_ms_makes_sense_of_raises_no_question():
    bursts = np.cumsum(np.tile([31.25, 33.1, 35.7, 41.2, 655.3], 90)) + 4.809
    steady = regular(5.4, 60, 0.06).round(3)
    sampled = np.round(irregular(10, 300) * 30) / 30  # at 30 kHz
    for times in (bursts.round(3), steady, sampled):
        (train,) = read(column(times), ".csv")
        assert np.array_equal(train.times, times)


def test_real_trains_in_any_unit_are_read_right_or_asked_about(data):
    """Stripped of their headers, as they are or rounded as people round."""
    ways = {"ms": (1.0, (0, 1, 3)), "s": (1e3, (3, 4, 6)), "us": (1e-3, (0, 1))}
    ways |= {f"samples@{r}": (1e3 / r, (0, 2)) for r in (10000, 15000, 24414.0625, 3e4)}
    ways |= {f"samples@{r}": (1e3 / r, (0, 3)) for r in (30, 60, 119.982)}
    paths = [*(data / "recordings").glob("*.csv"), *(data / "many_neurons").glob("*")]
    outcomes = {True: set(), False: set()}
    for path in sorted(x for x in paths if x.suffix == ".csv"):
        times = np.loadtxt(path, skiprows=1)
        for unit, (per, digits) in ways.items():
            for places in (*digits, None):
                numbers = times / per
                if places is not None:
                    numbers = np.unique(np.round(numbers, places))
                is_read = units_that_fit([numbers]).is_ms
                outcomes[unit == "ms"].add((is_read, path.name))
    assert {is_read for is_read, _ in outcomes[False]} == {False}
    assert len({name for is_read, name in outcomes[True] if is_read}) >= 8


@pytest.mark.parametrize(
    "suffix, content, parts",
    (
        (".csv", "", ["empty"]),
        (".npz", "", ["empty"]),
        (".csv", "\n \n", ["no lines of spike times"]),
        (".csv", "spike_time_ms\n", ["no lines of spike times"]),
        (".csv", column(TRAIN, "t_ms") + "abc\n", ["line 42", "'abc'"]),
        (".csv", "t_ms\n1.5\nNaN\n" + column(TRAIN), ["line 3", "'NaN'"]),
        (".csv", "inf\n" + column(TRAIN), ["line 1", "'inf'"]),
        (".csv", column(TRAIN) + "1_000\n", ["line 41", "'1_000'"]),
        (".csv", "a,b\n1.5,2.5\n,3.5\n3.5,4.5\n", ["line 3", "''"]),
        (".csv", "a,b\n1.5,2.5,3.5\n", ["line 2", "3 cells under 2 headers"]),
        (".csv", column(TRAIN) + "1e999\n", ["finite", "40", "cell"]),
        (".csv", "-1\n" + column(TRAIN), ["non-negative", "0", "-1", "negative"]),
        (".csv", column(TRAIN[::-1]), ["strictly increasing", "1", "1954.875"]),
        (".csv", column(np.repeat(TRAIN, 2)), ["strictly increasing", "1", "50.125"]),
        (".csv", column(TRAIN[:4]), ["too few", "cell (4)", "5"]),
        (".csv", "id,amp,depth\n1,2.5,3\n1,3.5,3\n", ["amp, depth"]),
        (".csv", "a,a\n1.5,2.5\n", ["two units 'a'"]),
        (".csv", b"\x00\x01\x02", ["not text"]),
        (".csv", '"' + "1" * 200_000 + "\n2", ["one spike a line"]),
        (".tif", b"II*", [".csv, .txt, .tsv, .npy, .npz, .nwb"]),
        (".npy", npy(TRAIN)[:-9], ["NumPy"]),
        (".npy", npy(TRAIN.reshape(4, 10)), ["(4, 10)"]),
        (".npy", npy(TRAIN > 0), ["bool"]),
        (".npz", npz(a=TRAIN)[:-9], ["NumPy"]),
        (".npz", npz(), ["no spike times"]),
        (".nwb", nwb([TRAIN])[:1000], ["NWB"]),
        (".nwb", column(TRAIN), ["NWB"]),
    ),
)
def test_a_bad_file_is_refused_in_one_sentence(suffix, content, parts):
    with pytest.raises(ValueError) as error:
        read(content, suffix)
    message = str(error.value)
    assert all(part in message for part in [*parts, "cell" + suffix]), message
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize("ends", ([40, 80, 119], [80, 40, 120], [40, 80, 121], [120]))
def test_nwb_with_a_wrong_index_is_refused(ends):
    buffer = io.BytesIO(nwb([TRAIN / 1e3] * 3))
    with h5py.File(buffer, "r+") as file:
        del file["units/spike_times_index"]
        file["units/spike_times_index"] = ends
    with pytest.raises(ValueError, match="Units table"):
        read(buffer.getvalue(), ".nwb")


def test_what_is_not_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.csv"):
        read_spike_trains(tmp_path / "absent.csv")
    for name in ("\0.csv", "a" * 5000 + ".csv"):
        with pytest.raises(FileNotFoundError, match=".csv"):
            read_spike_trains(name)
    with pytest.raises(ValueError, match="is not a file"):
        read_spike_trains(tmp_path)


def test_units_with_few_spikes_are_left_out_aloud():
    content = npz(long=TRAIN, short=TRAIN[:4], empty=TRAIN[:0])
    with pytest.warns(UserWarning, match=r"short \(4\), empty \(0\)"):
        assert [train.name for train in read(content, ".npz")] == ["long"]
    with pytest.raises(ValueError, match=r"short \(4\)"):
        read(content, ".npz", unit_id="short")
    with pytest.raises(ValueError, match="unit 'x'.* long, short, empty"):
        read(content, ".npz", unit_id="x")


def test_five_spikes_are_read_with_a_warning_that_says_how_many_would_do():
    content = npz(long=TRAIN, few=TRAIN[:5])
    with pytest.warns(UserWarning, match=r"few \(5\): 10 would do"):
        trains = read(content, ".npz")
    assert [train.num_spikes for train in trains] == [TRAIN.size, 5]


def test_only_the_unit_asked_for_must_be_sound():
    rows = "".join(f"{t},{-t}\n" for t in TRAIN.tolist())
    (train,) = read("LP,PD\n" + rows.replace(",-", ","), ".csv", unit_id="LP")
    assert np.array_equal(train.times, TRAIN)


@pytest.mark.usefixtures("read_here")
@pytest.mark.parametrize(
    "suffix, content",
    (
        (".csv", column(TRAIN)),
        (".csv", "1.5," * 200 + "\n" + "1.5\n" * 200),
        (".npz", npz(a=TRAIN, b=TRAIN)),
        (".npy", npy(TRAIN)),
        (".nwb", nwb([TRAIN / 1e3] * 20)),
    ),
)
def test_absurdly_large_files_are_refused_before_they_fill_the_memory(
    monkeypatch, suffix, content
):
    monkeypatch.setattr(common, "MAX_BYTES", 300)
    with pytest.raises(ValueError, match="too large|Units table"):
        read(content, suffix)


class _Trap:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content, suffix in (
        (npy(np.array([_Trap()], object)), ".npy"),
        (npz(a=np.array([_Trap()], object)), ".npz"),
    ):
        with pytest.raises(ValueError, match="NumPy file of numbers"):
            read(content, suffix)
    assert not (tmp_path / "unpickled").exists()


SOUND = {
    ".csv": column(TRAIN, "unit;t_ms").encode(),
    ".txt": column(TRAIN).encode(),
    ".npy": npy(TRAIN),
    ".npz": npz(a=TRAIN, t_start=0.0, unit="ms"),
    ".nwb": nwb([TRAIN / 1e3] * 2, [np.array([[0, 9.0]])] * 2),
}


def assert_result_or_sentence(content, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            assert read(content, suffix)
        except ValueError as error:
            assert "cell" + suffix in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("suffix", SOUND)
@settings(max_examples=20)
@given(content=st.binary(max_size=300))
@example(content=b"\x93NUMPY\x01\x00\xff\xff")
@example(content=b"PK\x05\x06" + bytes(18))
@example(content=b"\xff\xfe\x00")
def test_any_bytes_give_a_result_or_a_sentence(suffix, content):
    assert_result_or_sentence(content, suffix)


@pytest.mark.parametrize("suffix", SOUND)
@settings(max_examples=20)
@given(data=st.data())
def test_a_damaged_file_gives_a_result_or_a_sentence(suffix, data):
    content = bytearray(SOUND[suffix])
    place = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(0, 4))
    content[place : place + length] = data.draw(st.binary(max_size=4))
    cut = data.draw(st.integers(0, len(content)))
    assert_result_or_sentence(bytes(content), suffix)
    assert_result_or_sentence(bytes(content[:cut]), suffix)


@given(text=st.text("0123456789.,;\t \n\"'[]-+einfatsmu()#µ_", max_size=200))
def test_any_table_gives_a_result_or_a_sentence(text):
    assert_result_or_sentence(text, ".csv")


def test_real_csv_recordings_are_read_in_ms(data):
    paths = sorted((data / "recordings").glob("*.csv"))
    assert len(paths) >= 10
    for path in paths:
        (train,) = read_spike_trains(path)
        assert np.array_equal(train.times, np.loadtxt(path, skiprows=1))
        assert (train.name, train.source) == (path.stem, path.name)
        with pytest.raises(ValueError, match="contradicts"):
            read_spike_trains(path, unit="s")


def test_a_real_nwb_file_is_read_in_seconds(data):
    trains = read_spike_trains(data / "recordings" / "pynapple_A8604-211122.nwb")
    assert [train.name for train in trains] == ["6", "191", "206"]
    assert [train.num_spikes for train in trains] == [11020, 4690, 5644]
    assert all(1e6 < train.t_stop < 1.1e6 for train in trains)  # 18 minutes
