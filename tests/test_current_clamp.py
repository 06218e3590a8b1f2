import io
import pathlib
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from dicjax.recordings import read_sweeps, Sweeps
from dicjax.recordings.current_clamp import files
from dicjax.recordings.readers.common import TooLarge


NUM_SAMPLES = 120


@st.composite
def recordings(draw, max_sweeps=4):
    num_sweeps = draw(st.integers(1, max_sweeps))
    num_samples = draw(st.integers(100, 150))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    # In 32nds, so that their text and their float32 are exact.
    V = random.integers(-100 * 32, 50 * 32, (num_sweeps, num_samples)) / 32
    current = random.integers(-500 * 32, 500 * 32, V.shape) / 32
    V[0, 0] = -70.0
    every = draw(st.sampled_from((0.01, 0.02, 0.05, 0.1, 0.25, 1.0)))
    return Sweeps(current, V, every, "cell")


def assert_same(read, expected, rtol=1e-12):
    np.testing.assert_allclose(read.current, expected.current, rtol=rtol)
    np.testing.assert_allclose(read.V, expected.V, rtol=rtol)
    assert read.current.dtype == read.V.dtype == np.float64
    assert (read.every, read.name) == (expected.every, expected.name)


def read(content, suffix, **options):
    if isinstance(content, str):
        content = content.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cell" + suffix)
        path.write_bytes(content)
        return read_sweeps(path, **options)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def times_of(sweeps, start=0.0):
    return start + np.arange(sweeps.V.shape[1]) * sweeps.every


def table(sweeps, header, mark=",", *, per=(1.0, 1.0, 1.0), start=0.0):
    """The rows of a recording; `per` is how many of its units are one in the file."""
    rows = [header.replace("|", mark)]
    has_sweep = header.startswith(("sweep", "Episode"))
    for i in range(len(sweeps.V)):
        values = times_of(sweeps, start), sweeps.current[i], sweeps.V[i]
        columns = [x / unit for x, unit in zip(values, per, strict=True)]
        for sample in zip(*columns, strict=True):
            cells = [f"s{i}"] * has_sweep + [repr(float(x)) for x in sample]
            rows.append(mark.join(cells))
    return "\n".join(rows) + "\n"


def edited(sweeps, **fields):
    own = {"current": sweeps.current, "V": sweeps.V, "every": sweeps.every}
    return Sweeps(**(own | {"name": sweeps.name} | fields))


def one(num_samples=NUM_SAMPLES, num_sweeps=1):
    """A plain recording: a step of 50 pA, the potential as it pleases."""
    t = np.arange(num_samples)
    current = np.tile(np.where((t >= 30) & (t < 90), 50.0, 0.0), (num_sweeps, 1))
    V = np.tile(-70.0 + np.sin(t), (num_sweeps, 1))
    return Sweeps(current, V, 0.1, "cell")


# Files


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@settings(max_examples=20)
@given(sweeps=recordings(), has_all_times=st.booleans(), start=st.floats(0, 900))
def test_numpy_archives_are_read_back(dtype, sweeps, has_all_times, start):
    t = times_of(sweeps, start if dtype == np.float64 else 0.0)
    content = npz(
        sweep=np.arange(len(sweeps.V)),
        time_ms=(np.tile(t, (len(sweeps.V), 1)) if has_all_times else t).astype(dtype),
        current_pA=sweeps.current.astype(dtype),
        voltage_mV=sweeps.V.astype(dtype),
    )
    assert_same(read(content, ".npz"), sweeps)


def test_late_times_in_float32_are_not_uneven():
    t = (5000 + np.arange(NUM_SAMPLES) * 0.01).astype(np.float32)
    assert np.ptp(np.diff(t)) > 2e-4  # 2 % of a step
    sweeps = read(arrays(t=t), ".npz")
    assert sweeps.every == pytest.approx(0.01, rel=1e-3)


@settings(max_examples=20)
@given(sweeps=recordings(max_sweeps=1))
def test_a_numpy_archive_of_other_units_and_of_one_sweep_is_read(sweeps):
    content = npz(
        t_s=times_of(sweeps) / 1e3,
        I_nA=sweeps.current[0] / 1e3,
        V=1,
        V_V=sweeps.V[0] / 1e3,
    )
    assert_same(read(content, ".npz"), sweeps)


@pytest.mark.parametrize(
    "header, per",
    (
        ("sweep|time_ms|current_pA|voltage_mV", (1, 1, 1)),
        ("sweep|t_ms|I_pA|V_mV", (1, 1, 1)),
        ("sweep|time_s|current_nA|voltage_V", (1e3, 1e3, 1e3)),
        ("Episode|Time [s]|I [nA]|V [V]", (1e3, 1e3, 1e3)),
        ("sweep number|time (ms)|injected current (nA)|Vm (mV)", (1, 1e3, 1)),
        ("sweep|ms|pA|mV", (1, 1, 1)),
        ("sweep|sweep time (ms)|I_pA|V_mV", (1, 1, 1)),
        ("sweep|Time(s)|Iinj(pA)|membrane potential / V", (1e3, 1, 1e3)),
    ),
)
@pytest.mark.parametrize("mark, suffix", ((",", ".csv"), (";", ".csv"), ("\t", ".tsv")))
@settings(max_examples=5)
@given(sweeps=recordings(), start=st.floats(0, 900), newline=st.sampled_from("\n\r"))
def test_tables_are_read_back_in_every_unit(
    header, per, mark, suffix, sweeps, start, newline
):
    text = table(sweeps, header, mark, per=per, start=start)
    if mark == ";":
        text = text.replace(".", ",")
    assert_same(read(text.replace("\n", newline), suffix), sweeps)


@settings(max_examples=20)
@given(sweeps=recordings(max_sweeps=1))
def test_a_table_without_sweeps_is_one_and_its_columns_have_any_order(sweeps):
    text = table(sweeps, "t_ms|I_pA|V_mV", " ")
    assert_same(read("# " + text, ".txt"), sweeps)
    rows = [line.split(" ") for line in text.splitlines()]
    text = "\n".join(f"{V},note,{t},{I}" for t, I, V in rows)
    assert_same(read(text, ".csv"), sweeps)


@settings(max_examples=20)
@given(sweeps=recordings(), seed=st.integers(0, 99))
def test_sweeps_may_take_turns_in_a_table(sweeps, seed):
    header, *rows = table(sweeps, "sweep|t_ms|I_pA|V_mV").splitlines()
    k = sweeps.V.shape[1]
    turns = [row for j in range(k) for row in rows[j::k]]
    assert_same(read("\n".join([header, *turns]), ".csv"), sweeps)


def test_one_of_several_channels_is_read_by_its_name():
    sweeps = one()
    t = times_of(sweeps)
    arrays = {"V1_mV": sweeps.V, "V2_mV": sweeps.V - 5, "I_pA": sweeps.current}
    content = npz(t_ms=t, **arrays)
    with pytest.raises(ValueError, match="voltage.* V1_mV, V2_mV"):
        read(content, ".npz")
    second = read(content, ".npz", voltage="V2_mV")
    assert_same(second, edited(sweeps, V=sweeps.V - 5))
    with pytest.raises(ValueError, match="voltage.*'V3_mV'.* t_ms, V1_mV"):
        read(content, ".npz", voltage="V3_mV")
    with pytest.raises(ValueError, match="current.*'V1_mV'"):
        read(content, ".npz", current="V1_mV", voltage="V1_mV")


@pytest.mark.parametrize(
    "header, named",
    (
        ("time|I_pA|V_mV", "time_ms or time_s"),
        ("t_ms|current|V_mV", "current_pA or current_nA"),
        ("t_ms|I_pA|V", "voltage_mV or voltage_V"),
        ("t_ms|I_pA|Vm", "voltage_mV or voltage_V"),
        ("s|I_pA|V_mV", "time_ms or time_s"),
        ("t_us|I_pA|V_mV", "time_ms or time_s"),
        ("t_ms|current_mV|V_mV", "current_pA or current_nA"),
        ("0.0|50.0|-70.0", "time_ms or time_s"),
    ),
)
def test_units_are_never_guessed(header, named):
    with pytest.raises(ValueError, match=named) as error:
        read(table(one(), header), ".csv")
    assert "cell.csv" in str(error.value) and header.split("|")[0] in str(error.value)


def with_value(place, value, column):
    sweeps = one(num_sweeps=2)
    values = {"t": np.tile(times_of(sweeps), (2, 1))}
    values |= {"I": sweeps.current.copy(), "V": sweeps.V.copy()}
    values[column][place] = value
    return npz(time_ms=values["t"], current_pA=values["I"], voltage_mV=values["V"])


def rows_of(*counts):
    lines = ["sweep,t_ms,I_pA,V_mV"]
    lines += [f"{i},{j / 10},0,-70" for i, k in enumerate(counts) for j in range(k)]
    return "\n".join(lines)


def arrays(t=None, I=None, V=None):
    sweeps = one()
    given = (t, times_of(sweeps)), (I, sweeps.current), (V, sweeps.V)
    t, I, V = (own if new is None else new for new, own in given)
    return npz(time_ms=t, current_pA=I, voltage_mV=V)


T, LONG = np.arange(NUM_SAMPLES) * 0.1, np.arange(2000) * 0.1


@pytest.mark.parametrize(
    "suffix, content, parts",
    (
        (".csv", "", ["empty"]),
        (".csv", "\n \n", ["header"]),
        (".csv", "t_ms,I_pA,V_mV\n", ["0 samples", "100"]),
        (".csv", rows_of(99), ["99 samples", "100"]),
        (".csv", rows_of(120, 119), ["sweep 1", "119 samples", "120"]),
        (".csv", rows_of(120) + "\n0,abc,0,-70", ["line 122", "abc"]),
        (".csv", rows_of(120) + "\n0,12.0,0", ["line 122", "12.0, 0, "]),
        (".csv", rows_of(120) + "\n0,12.0,NaN,-70", ["current is nan pA", "12 ms"]),
        (".csv", "t_ms,I_pA,V_mV\n" + "0,0,-70\n" * 120, ["0 ms apart", "increase"]),
        (".npz", with_value((1, 7), np.nan, "V"), ["nan mV", "sweep 1", "0.7 ms"]),
        (".npz", with_value((1, 7), np.inf, "I"), ["inf pA", "sweep 1", "0.7 ms"]),
        (".npz", with_value((0, 7), np.nan, "t"), ["a time is not finite"]),
        (".npz", with_value((1, 7), -251.0, "V"), ["-251 mV", "0.7 ms", "unit"]),
        (".npz", with_value((1, 7), 2e5, "I"), ["2e+05 pA", "0.7 ms", "unit"]),
        (".npz", with_value((1, 7), 0.72, "t"), ["sweep 1", "0.12 ms after 0.6"]),
        (".npz", arrays(V=one().V / 1e3), ["0.071", "volts"]),
        (".npz", arrays(t=T / 1e3), ["0.0001 ms", "unit of time"]),
        (".npz", arrays(t=T * 1e3), ["100 ms apart", "unit of time"]),
        (".npz", arrays(t=np.delete(np.append(T, 12.0), 60)), ["0.2 ms after 5.9 ms"]),
        (".npz", arrays(t=T[::-1]), ["-0.1 ms apart", "increase"]),
        (".npz", arrays(LONG * (1 + LONG * 4e-5), one(2000).current, one(2000).V),
            ["0.1008 ms apart in the mean", "ms from where they should be"]),
        (".npz", arrays(t=np.stack([T, T * 1.02]), V=one(num_sweeps=2).V,
            I=one(num_sweeps=2).current), ["0.102 ms between", "0.1:"]),
        (".npz", arrays(t=T[:-1]), ["(1, 119)", "(1, 120)"]),
        (".npz", arrays(V=one().V[:, :-1]), ["(1, 119)", "(1, 120)"]),
        (".npz", arrays(V=one().V > 0), ["bool"]),
        (".npz", arrays(V=one().V[None]), ["(1, 1, 120)"]),
        (".npz", arrays(V=np.array([{}])), ["NumPy archive"]),
        (".npz", npz(time_ms=T), ["no current", "in time_ms"]),
        (".npz", npz(), ["no time", "nothing"]),
        (".npz", arrays()[:-9], ["NumPy archive", "damaged"]),
        (".npz", "abc", ["NumPy archive", "damaged"]),
    ),
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_sentence(suffix, content, parts):
    assert_refused(content, suffix, parts)


def assert_refused(content, suffix, parts):
    with pytest.raises(ValueError) as error:
        read(content, suffix)
    message = str(error.value)
    assert all(part in message for part in [*parts, "cell"]), message
    assert "\n" not in message and message.endswith(".")


def test_what_is_not_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.abf"):
        read_sweeps(tmp_path / "absent.abf")
    with pytest.raises(ValueError, match="is not a file"):
        read_sweeps(tmp_path)


@pytest.mark.parametrize("suffix", (".csv", ".npz"))
def test_absurdly_large_files_are_refused_before_they_fill_the_memory(
    monkeypatch, suffix
):
    packed = io.BytesIO()
    zeros = np.zeros((50, 10_000))
    np.savez_compressed(packed, t_ms=zeros, I_pA=zeros, V_mV=zeros)
    content = packed.getvalue() if suffix == ".npz" else rows_of(9000)
    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    assert suffix == ".csv" or len(content) < 100_000
    with pytest.raises(TooLarge, match="cell"):
        read(content, suffix)


def assert_result_or_sentence(content, suffix):
    try:
        assert read(content, suffix).V.size
    except ValueError as error:
        assert "cell" in str(error) and "\n" not in str(error)


SOUND = {".csv": rows_of(100, 100).encode(), ".npz": arrays()}


@pytest.mark.parametrize("suffix", SOUND)
@settings(max_examples=20)
@given(data=st.data())
def test_a_damaged_file_gives_a_result_or_a_sentence(suffix, data):
    content = bytearray(SOUND[suffix])
    place = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(0, 4))
    content[place : place + length] = data.draw(st.binary(max_size=4))
    cut = data.draw(st.integers(1, len(content)))
    assert_result_or_sentence(bytes(content), suffix)
    assert_result_or_sentence(bytes(content[:cut]), suffix)


@given(text=st.text("0123456789.,;\t \n\"'-+einfatsmpAV()#_", min_size=1))
@example(text='t_ms,I_pA,V_mV\n"')
def test_any_table_gives_a_result_or_a_sentence(text):
    assert_result_or_sentence(text, ".csv")


def test_sweeps_made_by_hand_are_checked_alike():
    good = one()
    for fields, match in (
        ({"V": good.V * 10}, "±250 mV"),
        ({"V": good.V / 1e3}, "volts"),
        ({"current": good.current * 1e6}, "±100000 pA"),
        ({"current": good.current + np.nan}, "nan pA"),
        ({"every": 5.1}, "5.1 ms"),
        ({"every": 0.0009}, "0.0009 ms"),
        ({"every": np.nan}, "nan ms"),
        ({"V": good.V[:, :99], "current": good.current[:, :99]}, "99 samples"),
    ):
        with pytest.raises(ValueError, match=match):
            edited(good, **fields)


# Through neo


@pytest.fixture(scope="module")
def neo():
    return pytest.importorskip("neo")


def block(neo, *segments, rate=10.0):
    """A block whose segments are given as (values, unit, name) of each signal."""
    whole = neo.Block()
    for signals in segments:
        segment = neo.Segment()
        for values, unit, name in signals:
            signal = neo.AnalogSignal(
                np.asarray(values).T, units=unit, sampling_rate=rate * neo_units().kHz,
                name=name,
            )  # fmt: skip
            segment.analogsignals.append(signal)
        whole.segments.append(segment)
    return whole


def neo_units():
    return pytest.importorskip("quantities")


def written(neo, tmp_path, *segments, **options):
    path = tmp_path / "cell.mat"
    neo.io.NeoMatlabIO(str(path)).write_block(block(neo, *segments, **options))
    return path


@pytest.mark.parametrize("voltage, current", (("mV", "pA"), ("V", "nA"), ("uV", "A")))
def test_a_file_of_neo_is_read_back_in_every_unit(neo, tmp_path, voltage, current):
    sweeps = one(num_sweeps=3)
    V = {"mV": 1, "V": 1e-3, "uV": 1e3}[voltage] * (sweeps.V + [[0.0], [1.0], [2.0]])
    I = {"pA": 1, "nA": 1e-3, "A": 1e-12}[current] * sweeps.current
    segments = [
        [(I[i : i + 1], current, "I"), (V[i : i + 1], voltage, "V")] for i in range(3)
    ]
    path = written(neo, tmp_path, *segments)
    expected = edited(sweeps, V=sweeps.V + [[0.0], [1.0], [2.0]])
    assert_same(read_sweeps(path), expected)


def test_channels_of_neo_that_are_none_or_several_are_named(neo, tmp_path):
    sweeps = one()
    V, I = (sweeps.V, "mV", "Vm"), (sweeps.current, "pA", "Im")
    cases = (
        ([V], "current.* Vm.* pA"),
        ([I], "voltage.* Im.* mV"),
        ([V, I, (sweeps.V, "V", "V2")], "voltage.* Vm, V2"),
        ([V, ([*sweeps.current] * 2, "pA", "Im")], "current.* Im 0, Im 1"),
    )
    for signals, match in cases:
        with pytest.raises(ValueError, match=match):
            read_sweeps(written(neo, tmp_path, signals))
    two = ([sweeps.V[0], sweeps.V[0] - 5], "mV", "Vm")
    path = written(neo, tmp_path, [two, I])
    second = read_sweeps(path, voltage="Vm 1")
    assert_same(second, edited(sweeps, V=sweeps.V - 5))


def test_segments_that_differ_are_refused(neo, tmp_path):
    whole, part = one(120), one(110)
    both = lambda x: [(x.V, "mV", "V"), (x.current, "pA", "I")]
    with pytest.raises(ValueError, match="sweep 1 .*110.*120"):
        read_sweeps(written(neo, tmp_path, both(whole), both(part)))
    mixed = [(whole.V, "mV", "V"), (part.current, "pA", "I")]
    with pytest.raises(ValueError, match="current.*110.*voltage.*120"):
        read_sweeps(written(neo, tmp_path, mixed))
    slow = block(neo, both(whole), rate=5.0)
    path = tmp_path / "cell.mat"
    fast = block(neo, both(whole))
    fast.segments += slow.segments
    neo.io.NeoMatlabIO(str(path)).write_block(fast)
    with pytest.raises(ValueError, match="sweep 1 .*0.2 ms.*0.1"):
        read_sweeps(path)
    with pytest.raises(ValueError, match="nan mV"):
        strange = [(whole.V * np.nan, "mV", "V"), (whole.current, "pA", "I")]
        read_sweeps(written(neo, tmp_path, strange))


@pytest.mark.parametrize(
    "suffix, content, parts",
    (
        (".abf", b"ABF2" + bytes(600), ["neo cannot read"]),
        (".abf", b"ABF " + bytes(6000), ["neo cannot read"]),
        (".abf", "abc", ["neo cannot read", "export it as .npz"]),
        (".mat", "abc", ["neo cannot read"]),
        (".tif", "abc", ["neo does not know it", ".npz, .csv, .tsv, .txt"]),
        ("", "abc", ["cell", "neo"]),
    ),
)
def test_a_file_that_neo_cannot_read_is_refused(neo, suffix, content, parts):
    assert_refused(content, suffix, parts)


def test_pickles_are_never_loaded(neo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = b"cos\nmkdir\n(S'unpickled'\ntR."
    for suffix in (".pkl", ".pickle"):
        assert_refused(make, suffix, ["pickle"])
    assert_refused(npz(V_mV=np.array([{}])), ".npz", ["NumPy archive"])
    assert not list(tmp_path.iterdir())


def test_without_neo_it_is_said_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "neo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "neo", None)
    assert_refused("abc", ".abf", ['pip install "dicjax[neo]"'])
    assert_same(read(table(one(), "t_ms|I_pA|V_mV"), ".csv"), one())
