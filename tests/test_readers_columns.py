"""What columns of a table hold: times, whose they are, or what is no time at all."""

import datetime
import pathlib
import tempfile
import time

import numpy as np
import openpyxl
import pytest

from dicjax.recordings.readers import read_spike_trains


RNG = np.random.default_rng(0)
TIMES = np.round(np.cumsum(RNG.gamma(4, 30, 300)), 2)  # ms, to 36 s
COUNT = range(1, 301)
CHANNELS = RNG.integers(1, 4, 300)
AMPLITUDES = np.round(RNG.normal(60, 3, 300), 1)


def read(text, suffix=".csv", **options):
    content = text if isinstance(text, bytes) else text.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cell" + suffix)
        path.write_bytes(content)
        return read_spike_trains(path, **options)


def table(*columns, mark=",", header=None):
    rows = [mark.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join(rows if header is None else [header, *rows]) + "\n"


def assert_one(trains, times=TIMES, name="cell"):
    (train,) = trains
    np.testing.assert_allclose(train.times, times)
    assert train.name == name


def assert_by(labels, trains, times=TIMES):
    found = {train.name: train.times for train in trains}
    assert found.keys() == set(map(str, labels))
    for name, own in found.items():
        np.testing.assert_allclose(own, times[np.array(labels).astype(str) == name])


# ---- what is no time


@pytest.mark.parametrize(
    "text",
    (
        table([f'"{i}"' for i in COUNT], TIMES, header='"","time"'),
        table([f'"{i}"' for i in COUNT], TIMES, header='"time"', mark=" "),
        table(COUNT, TIMES),
        table(range(300), TIMES),
        table(TIMES, COUNT),
        table(COUNT, TIMES, header="index\ttime", mark="\t"),
        table(COUNT, TIMES, header="#;t_ms", mark=";"),
        table(COUNT, TIMES, header="row,LP"),
    ),
)
def test_numbers_of_rows_are_no_neuron(text):
    (train,) = read(text, unit="ms" if "ms" not in text else None)
    assert np.array_equal(train.times, TIMES)


@pytest.mark.parametrize("header", (None, "time_ms", "LP"))
def test_whole_numbers_in_a_row_are_no_times(header):
    with pytest.raises(ValueError, match="1 to 300 in a row"):
        read(table(COUNT, header=header))


@pytest.mark.parametrize(
    "header",
    ("time (ms),amplitude (mV)", "Peak Time (ms),Peak Amp (pA)", "t_ms,snr", "t_ms,no"),
)
def test_what_is_measured_beside_times_is_no_neuron(header):
    for text in (
        table(TIMES, AMPLITUDES, header=header),
        table(AMPLITUDES, TIMES, header=",".join(header.split(",")[::-1])),
    ):
        (train,) = read(text)
        assert np.array_equal(train.times, TIMES)


@pytest.mark.parametrize("header", ("sample,time_s", "timestamp,time_s", None))
def test_the_same_times_in_samples_are_no_other_neuron(header):
    text = table((TIMES * 30).astype(int), TIMES / 1e3, header=header)
    assert_one(read(text, unit=None if header else "s"))


def test_bounds_of_bursts_are_no_spikes():
    with pytest.raises(ValueError, match="burst_start, burst_end .*`time_ms`"):
        read(table(TIMES, TIMES + 20, header="burst_start,burst_end"))


def test_numbers_in_no_order_beside_times_are_left_out_aloud():
    with pytest.warns(UserWarning, match="left out.* PD"):
        assert_one(read(table(TIMES, AMPLITUDES, header="LP,PD")), name="LP")
    with pytest.warns(UserWarning, match="left out.* PD"):
        assert_one(read(table(TIMES, TIMES, header="t_ms,PD")))
    with pytest.raises(ValueError, match="2 columns without a header"):
        read(table(TIMES, AMPLITUDES))


# ---- whose times they are


@pytest.mark.parametrize("header", ("time,channel", "Time,Unit", "t,electrode_label"))
def test_a_column_of_channels_groups_the_times(header):
    assert_by(CHANNELS, read(table(TIMES, CHANNELS, header=header), unit="ms"))
    swapped = ",".join(header.split(",")[::-1])
    assert_by(CHANNELS, read(table(CHANNELS, TIMES, header=swapped), unit="ms"))


@pytest.mark.parametrize("suffix", (".csv", ".txt"))
def test_channels_are_told_from_times_without_a_header(suffix):
    mark = "," if suffix == ".csv" else "  "
    for columns in ((TIMES, CHANNELS), (CHANNELS, TIMES)):
        assert_by(CHANNELS, read(table(*columns, mark=mark), suffix, unit="ms"))


def test_channel_and_unit_together_name_a_neuron():
    units = RNG.integers(0, 2, 300)
    text = table(CHANNELS, units, TIMES, header="Channel,Unit,Timestamp_ms")
    labels = [f"{c}_{u}" for c, u in zip(CHANNELS, units, strict=True)]
    assert_by(labels, read(text))
    names = np.array(list(" ABC"))[CHANNELS]  # says the same again
    text = table(CHANNELS, names, TIMES, header="Channel ID,Channel Label,t_ms")
    assert_by(CHANNELS, read(text))
    text = table(["x"] * 300, CHANNELS, TIMES, header="source,unit,t_ms")
    assert_by(CHANNELS, read(text))


def test_each_trial_is_a_train():
    trials = np.repeat([1, 2, 3], 100)
    times = np.tile(TIMES[:100], 3)
    assert_by(trials, read(table(trials, times, header="trial,time_ms")), times)


def test_a_flag_beside_times_is_no_raster():
    flags = (np.arange(300) % 3 == 0).astype(int)
    assert_one(read(table(TIMES, flags, header="time_ms,is_burst")))


def test_a_raster_beside_its_axis_is_in_the_unit_of_the_axis():
    bins = (RNG.random((2000, 2)) < 0.05).astype(int)
    axis = np.arange(2000) * 0.5
    first, second = read(table(axis, *bins.T, header="time_ms,a,b"))
    np.testing.assert_allclose(second.times, axis[bins[:, 1] > 0])
    assert (first.name, first.t_stop) == ("a", axis[-1])


# ---- a train per line


@pytest.mark.parametrize("mark, suffix", ((" ", ".txt"), (",", ".csv"), ("\t", ".tsv")))
def test_a_train_per_line_is_read(mark, suffix):
    lines = [mark.join(map(str, x)) for x in (TIMES, TIMES[:200] + 7, TIMES[:90] + 3)]
    text = "# spike trains\n\n" + "\n".join(lines) + "\n"
    with pytest.warns(UserWarning, match="first of 3 lines"):
        trains = read(text, suffix, unit="ms")
    assert [train.num_spikes for train in trains] == [300, 200, 90]
    np.testing.assert_allclose(trains[2].times, TIMES[:90] + 3)
    assert_one(read(lines[0], suffix, unit="ms"))
    with pytest.warns(UserWarning, match="lines"):
        named = read("\n".join(f"n{i}{mark}{x}" for i, x in enumerate(lines)), suffix)
    assert [train.name for train in named] == ["n0", "n1", "n2"]


def test_lines_of_one_length_are_trains_if_their_columns_are_in_no_order():
    rows = np.sort(RNG.uniform(0, 60_000, (30, 60)).round(2), axis=1)
    with pytest.warns(UserWarning, match="first of 30 lines"):
        trains = read(table(*rows.T, mark=" "), ".txt", unit="ms")
    for train, row in zip(trains, rows, strict=True):
        np.testing.assert_allclose(train.times, row)


# ---- numbers as people write them


def grouped(times, thousands, decimal):
    texts = [f"{t:,.2f}" for t in times]
    marks = str.maketrans({",": thousands, ".": decimal})
    return [text.translate(marks) for text in texts]


@pytest.mark.parametrize("header", ("time_ms", "unit;time_ms"))
@pytest.mark.parametrize(
    "thousands, decimal",
    ((".", ","), (",", "."), (" ", ","), ("\u202f", ","), ("'", "."), ("’", ".")),
)
def test_thousands_may_be_marked(thousands, decimal, header):
    column = grouped(TIMES, thousands, decimal)
    columns = [column] if header == "time_ms" else [["cell"] * 300, column]
    assert_one(read(table(*columns, mark=";", header=header)))


def test_whole_thousands_are_known_by_their_order():
    whole = np.cumsum(RNG.integers(60, 200, 300)).astype(float)
    for mark in ".,":
        column = [f"{t:,.0f}".replace(",", mark) for t in whole]
        assert_one(read(table(column, header="time_ms")), whole)
    with pytest.raises(ValueError, match="may have a decimal comma"):
        read(table([f"{t:,.0f}" for t in 1257 + whole], header="time_ms"))


def test_one_file_has_one_decimal_mark():
    with pytest.raises(ValueError, match="mixes decimal commas"):
        read("t_ms\n" + "1,5\n2.5\n" * 20)


def test_zeros_after_a_comma_show_that_it_is_decimal():
    column = [f"{t:.2f}".replace(".", ",") for t in TIMES]
    assert any(",0" in text for text in column)
    assert_one(read(table(column), unit="ms"))


def test_a_line_may_state_the_separator():
    column = [f"{t:.2f}".replace(".", ",") for t in TIMES]
    text = table(["a"] * 300, column, header="unit|time_ms", mark="|")
    assert_one(read("sep=|\r\n" + text), name="a")
    assert_one(read('"sep=;"\n' + table(column, header="time_ms")))


@pytest.mark.parametrize("encoding", ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"))
def test_wide_letters_are_read(encoding):
    text = table(TIMES / 1e3, header="Zeit [s]").replace(".", ",")
    assert_one(read(text.encode(encoding), ".txt"))


def clock(times, form):
    seconds = times / 1e3
    return [
        form.format(h=int(s // 3600), m=int(s // 60), s=s % 60, day=12 + (s > 20))
        for s in seconds
    ]


@pytest.mark.parametrize(
    "form",
    (
        "{h}:{m:02}:{s:05.2f}",
        "{m:02}:{s:05.2f}",
        "2024-05-12 {h:02}:{m:02}:{s:05.2f}",
        "12.05.2024 {h:02}:{m:02}:{s:05.2f}",
        "1.5.2024 {h}:{m:02}:{s:05.2f}",
    ),
)
def test_clock_times_are_in_seconds(form):
    for header in ("Spike time", None):
        (train,) = read(table(clock(TIMES, form), header=header))
        np.testing.assert_allclose(train.times, TIMES // 10 * 10, atol=10.1)


def test_days_of_the_calendar_are_counted_on():
    days = ["28.02.2024", "29.02.2024", "01.03.2024"]
    seconds = np.arange(0, 3 * 86_400, 480)  # from midnight to midnight
    stamps = [
        f"{days[s // 86_400]} {s // 3600 % 24:02}:{s // 60 % 60:02}"
        for s in seconds.tolist()
    ]
    assert_one(read(table(stamps, header="Zeit")), 1e3 * seconds.astype(np.float64))
    rows = "".join(f"{x}:07,5;{i % 7},25\n" for i, x in enumerate(stamps))
    (train,) = read("Zeit;Amplitude [mV]\n" + rows)
    np.testing.assert_allclose(train.times, seconds * 1e3 + 7500)
    with pytest.raises(ValueError, match=r"line 2: '31.02.2024 12:00' is not a number"):
        read(table(["31.02.2024 12:00", *stamps], header="Zeit"))


def test_a_clock_may_pass_midnight_and_must_be_clear():
    whole = np.round(TIMES)  # as clocks show them
    day = (whole / 1e3 + 86_380) % 86_400
    column = [f"{int(s // 3600)}:{int(s // 60 % 60):02}:{s % 60:06.3f}" for s in day]
    with pytest.warns(UserWarning, match="counted from its start, at 86380"):
        assert_one(read(table(column, header="t")), whole - whole[0])
    with pytest.raises(ValueError, match="'00:00' may be hours and minutes"):
        read(table([f"00:{int(s // 1e3):02}" for s in TIMES]))


# ---- what stands above a table


@pytest.mark.parametrize("comment", ("#", "%", "//", ";"))
def test_comments_are_left_out_and_may_head_the_table(comment):
    notes = f"{comment} recorded on rig 2\n{comment} rate 10 kHz\n"
    assert_one(read(notes + table(TIMES, header="t [ms]")))
    assert_one(read(notes + f"{comment} t [ms]\n" + table(TIMES)))
    assert_one(read(table(TIMES, header="t [ms]").replace("\n", f"\n{comment} x\n", 9)))
    both = f"{comment} unit t_ms\n" + table(CHANNELS, TIMES, mark=" ")
    assert_by(CHANNELS, read(both, ".txt"))


def test_titles_above_the_header_are_left_out():
    titles = "Recording of 12 May,,\nDate,2024-05-12,\n,,\n"
    text = table(COUNT, TIMES / 1e3, AMPLITUDES, header="#,Time (s),Amplitude (mV)")
    assert_one(read(titles + text))
    assert_one(read("My recording\n=====\n\n" + table(TIMES, header="t_ms"), ".txt"))


@pytest.mark.parametrize("units", ("[ms]\t[mV]", "ms\tmV", "(ms)\t-"))
def test_a_second_row_of_a_header_has_units(units):
    text = table(TIMES, AMPLITUDES, mark="\t", header="Time\tPeak\n" + units)
    assert_one(read(text, ".txt"))


def test_ragged_columns_end_in_zeros_or_blanks():
    short = [*TIMES[:200], *["0"] * 100]
    with pytest.warns(UserWarning, match="a_ms ends in 100 zeros"):
        first, second = read(table(short, TIMES, header="a_ms,b_ms"))
    assert (first.num_spikes, second.num_spikes) == (200, 300)
    lines = [f"{t}\t" if i < 200 else "\t" for i, t in enumerate(TIMES / 1e3)]
    text = "a\tb\t\n" + "\n".join(
        f"{x}{t}\t" for x, t in zip(lines, TIMES / 1e3, strict=True)
    )
    first, second = read(text, ".nexTimestamps")
    np.testing.assert_allclose(first.times, TIMES[:200])
    np.testing.assert_allclose(second.times, TIMES)


# ---- sheets


def sheet(rows, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cell.xlsx")
        book = openpyxl.Workbook()
        for row in rows:
            book.worksheets[0].append(row)
        book.save(path)
        return read_spike_trains(path, **options)


def test_a_sheet_may_hold_clock_times():
    durations = [datetime.timedelta(milliseconds=float(t)) for t in TIMES.round()]
    midnight = datetime.datetime(2024, 5, 12)
    for cells in (
        durations,
        [(midnight + x).time() for x in durations],
        [midnight + x for x in durations],
    ):
        (train,) = sheet([["Spike time"], *[[cell] for cell in cells]])
        np.testing.assert_allclose(train.times, TIMES.round(), atol=1)


def test_a_sheet_may_have_titles_and_numbers_of_rows():
    rows = [[i, t, 60.5] for i, t in enumerate(TIMES.tolist(), 1)]
    titles = [["Recording of 12 May"], ["Cell 3, slice 2"], []]
    assert_one(sheet([*titles, ["#", "Time (ms)", "Amplitude (mV)"], *rows]))


def test_many_rows_are_read_in_seconds():
    many = np.cumsum(RNG.uniform(5, 95, 200_000)).round(3)
    text = table(RNG.integers(0, 3, many.size), many, header="unit,time_ms")
    start = time.process_time()
    assert len(read(text)) == 3
    assert time.process_time() - start < 2.0
