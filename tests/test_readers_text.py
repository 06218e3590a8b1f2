"""Shapes of tables that state more, or less, than times: rasters, intervals, sheets."""

import pathlib
import tempfile

import numpy as np
import openpyxl
import pytest
from hypothesis import given, settings, strategies as st

from dicjax.recordings.readers import common, read_spike_trains


TRAIN = np.arange(1, 41) * 50.125


def read(text, suffix=".csv", **options):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cell" + suffix)
        path.write_text(text)
        return read_spike_trains(path, **options)


def text_of(table, mark=","):
    return "\n".join(mark.join(map(str, row)) for row in table) + "\n"


# ---- rasters

rasters = (
    st.integers(1, 5)
    .flatmap(
        lambda num: st.lists(
            st.lists(st.integers(0, 1), min_size=num, max_size=num),
            min_size=200,
            max_size=300,
        )
    )
    .filter(lambda bins: (np.sum(bins, axis=0) >= 10).all() and not np.all(bins))
)


@settings(max_examples=20)
@given(bins=rasters, mark=st.sampled_from(",;\t "))
def test_a_raster_is_read_at_the_rate_of_its_bins(bins, mark):
    bins = np.array(bins)
    names = [f"n{i}" for i in range(bins.shape[1])]
    headed = read(mark.join(names) + "\n" + text_of(bins, mark), unit="samples@500")
    for i, train in enumerate(headed):
        assert np.array_equal(train.times, 2.0 * np.flatnonzero(bins[:, i]))
        assert (train.t_start, train.t_stop) == (0.0, 2.0 * len(bins))
    assert [train.name for train in headed] == (names if len(names) > 1 else ["n0"])


def test_time_runs_along_the_longer_side_of_a_bare_raster():
    bins = np.zeros((3, 100), int)
    bins[:, ::7] = 1
    for table in (bins, bins.T):
        trains = read(text_of(table, " "), ".txt", unit="samples@1000")
        assert [train.name for train in trains] == ["1", "2", "3"]
        assert all(np.array_equal(t.times, 7.0 * np.arange(15)) for t in trains)


def test_a_raster_needs_the_rate_of_its_bins():
    text = text_of(np.eye(20, dtype=int)[:, :1].repeat(20, 0))
    with pytest.raises(ValueError, match="samples@1000"):
        read(text)
    with pytest.raises(ValueError, match="contradicts"):
        read(text, unit="ms")


# ---- intervals


@pytest.mark.parametrize(
    "header, per_ms",
    (("isi_ms", 1), ("ISI [s]", 1e-3), ("interspike interval (ms)", 1)),
)
def test_intervals_under_their_header_add_up_to_times(header, per_ms):
    isi = np.diff(TRAIN) * per_ms
    (train,) = read(text_of([[header], *isi[:, None]]))
    np.testing.assert_allclose(train.times, TRAIN - TRAIN[0], rtol=1e-9)
    assert train.name == "cell"


def test_intervals_beside_times_are_not_another_neuron():
    rows = [[t, 50.125] for t in TRAIN]
    (train,) = read(text_of([["time_ms", "isi_ms"], *rows]))
    assert np.array_equal(train.times, TRAIN)
    rows = [["a", t, 50.125] for t in TRAIN]
    (train,) = read(text_of([["unit", "time_ms", "isi_ms"], *rows]))
    assert train.name == "a" and np.array_equal(train.times, TRAIN)


def test_intervals_of_several_neurons():
    rows = [["a", 40.5], ["b", 60.5]] * 30
    a, b = read(text_of([["neuron", "isi_ms"], *rows]))
    assert (a.num_spikes, b.num_spikes) == (31, 31)
    np.testing.assert_allclose(np.diff(a.times), 40.5)
    np.testing.assert_allclose(np.diff(b.times), 60.5)


def test_intervals_without_a_header_are_refused_with_the_remedy():
    isi = np.random.default_rng(0).gamma(4.0, 20.0, 50)
    with pytest.raises(ValueError, match="`isi_ms`"):
        read(text_of(isi[:, None]))
    with pytest.raises(ValueError, match="interval 2 .* 0.0"):
        read(text_of([["isi_ms"], *[[x] for x in (3.5, 4.5, 0.0, *isi)]]))


# ---- Spike2


def wavemarks(*channels):
    lines = ['"INFORMATION"', '"cell.smr"', "", '"SUMMARY"', '"3"\t"WaveMark"\t"nw-3"']
    for number, times, codes in channels:
        lines += [f'"CHANNEL"\t"{number}"', '"WaveMark"', "", '"START"\t0.00\t0.0001']
        for time, code in zip(times, codes, strict=True):
            lines += [f'"WAVMK"\t{time}\t{code}\t0\t0\t0', "0.01\t0.3\t-0.2", ""]
    return "\n".join(lines)


def test_wavemarks_of_spike2_are_in_seconds():
    one = wavemarks((3, TRAIN / 1e3, [1] * 40))
    (train,) = read(one, ".txt")
    np.testing.assert_allclose(train.times, TRAIN)
    assert train.name == "cell"
    two = wavemarks((3, TRAIN / 1e3, [1] * 40), (5, TRAIN / 2e3, [1] * 40))
    assert [train.name for train in read(two, ".txt")] == ["3", "5"]
    with pytest.warns(UserWarning, match="codes 1, 2"):
        read(wavemarks((3, TRAIN / 1e3, [1, 2] * 20)), ".txt")
    with pytest.raises(ValueError, match="line 10: 'x'"):
        read(one.replace('"WAVMK"\t0.050125', '"WAVMK"\tx'), ".txt")


# ---- order


def test_few_repeated_stamps_are_dropped_aloud():
    times = np.sort(np.append(np.arange(1, 601) * 50.125, [501.25, 1002.5]))
    with pytest.warns(UserWarning, match=r"repeat.* cell \(2\)"):
        (train,) = read(text_of(times[:, None]))
    assert train.num_spikes == 600
    with pytest.raises(ValueError, match="20 of 60"):
        read(text_of(np.sort(np.append(TRAIN, TRAIN[:20]))[:, None]))


def test_a_clock_that_starts_over_is_found():
    with pytest.raises(ValueError, match="spike 40, .* 2005 .* 50.125"):
        read(text_of(np.tile(TRAIN, 2)[:, None]))
    with pytest.raises(ValueError, match="3 times, .* spike 40"):
        read(text_of(np.tile(TRAIN, 4)[:, None]))
    with pytest.raises(ValueError, match="Spike 2 "):
        read(text_of(np.random.default_rng(0).permutation(TRAIN)[:, None]))


# ---- Excel


def workbook(path, *sheets):
    book = openpyxl.Workbook(write_only=True)
    for i, rows in enumerate(sheets):
        sheet = book.create_sheet(f"s{i}")
        for row in rows:
            sheet.append(row)
    book.save(path)


@pytest.fixture
def sheet(tmp_path):
    def read_sheets(*sheets, **options):
        workbook(tmp_path / "cell.xlsx", *sheets)
        return read_spike_trains(tmp_path / "cell.xlsx", **options)

    return read_sheets


def test_the_first_sheet_has_the_shapes_of_text(sheet):
    column = [[t] for t in TRAIN.tolist()]
    (train,) = sheet([["spike_time_ms"], *column], [["notes"]])
    assert np.array_equal(train.times, TRAIN) and train.name == "cell"
    (train,) = sheet([[t / 1e3] for (t,) in column], unit="s")
    np.testing.assert_allclose(train.times, TRAIN)
    ragged = [[t, t + 3 if i < 30 else None] for i, (t,) in enumerate(column)]
    a, b = sheet([["LP", "PD"], *ragged])
    assert (a.name, b.name, a.num_spikes, b.num_spikes) == ("LP", "PD", 40, 30)
    long = [[name, t] for (t,) in column for name in ("x", "y")]
    assert [t.name for t in sheet([["unit", "time_ms"], *long])] == ["x", "y"]


@pytest.mark.usefixtures("read_here")
def test_bad_workbooks_are_refused(sheet, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="cell.xlsx .*no lines"):
        sheet([])
    with pytest.raises(ValueError, match="line 3: 'lost'"):
        sheet([["t_ms"], [1.5], ["lost"], *[[t] for t in TRAIN.tolist()]])
    (tmp_path / "cell.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cell.xlsx .*Excel"):
        read_spike_trains(tmp_path / "cell.xlsx")
    monkeypatch.setattr(common, "MAX_BYTES", 1000)
    with pytest.raises(common.TooLarge, match="cell"):
        sheet([["t_ms"], *[[t] for t in TRAIN.tolist()]])


@pytest.mark.usefixtures("read_here")
def test_a_sheet_that_claims_billions_of_rows_is_refused(tmp_path, monkeypatch):
    import zipfile

    path, away = tmp_path / "cell.xlsx", tmp_path / "away.xlsx"
    workbook(path, [["t_ms"], *[[t] for t in TRAIN.tolist()]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(away, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.startswith("xl/worksheets/"):
                content = content.replace(b'r="41"', b'r="2000000000"')
                content = content.replace(b"A1:A41", b"A1:A2000000000")
            new.writestr(name, content)
    monkeypatch.setattr(common, "MAX_BYTES", 2**20)
    with pytest.raises(ValueError, match="too large|workbook"):
        read_spike_trains(away)
