import io
import pathlib
import struct
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from dicjax.current_clamp import (
    files,
    find_steps,
    passive_membrane,
    read_sweeps,
    Steps,
    Sweeps,
)


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
@given(sweeps=recordings(), start=st.floats(0, 900), newline=st.sampled_from("\n\r"))
def test_tables_are_read_back_in_every_unit(
    header, per, mark, suffix, sweeps, start, newline
):
    text = table(sweeps, header, mark, per=per, start=start)
    if mark == ";":
        text = text.replace(".", ",")
    assert_same(read(text.replace("\n", newline), suffix), sweeps)


@given(sweeps=recordings(max_sweeps=1))
def test_a_table_without_sweeps_is_one_and_its_columns_have_any_order(sweeps):
    text = table(sweeps, "t_ms|I_pA|V_mV", " ")
    assert_same(read("# " + text, ".txt"), sweeps)
    rows = [line.split(" ") for line in text.splitlines()]
    text = "\n".join(f"{V},note,{t},{I}" for t, I, V in rows)
    assert_same(read(text, ".csv"), sweeps)


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
    with pytest.raises(ValueError, match="several channels of voltage, V1_mV, V2_mV"):
        read(content, ".npz")
    second = read(content, ".npz", voltage="V2_mV")
    assert_same(second, edited(sweeps, V=sweeps.V - 5))
    with pytest.raises(ValueError, match="no voltage named 'V3_mV' .* in t_ms, V1_mV"):
        read(content, ".npz", voltage="V3_mV")
    with pytest.raises(ValueError, match="no current named 'V1_mV'"):
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
    with pytest.raises(FileNotFoundError, match="There is no file .*absent.abf"):
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
    with pytest.raises(ValueError, match="too large"):
        read(content, suffix)


def assert_result_or_sentence(content, suffix):
    try:
        assert read(content, suffix).V.size
    except ValueError as error:
        assert "cell" in str(error) and "\n" not in str(error)


SOUND = {".csv": rows_of(100, 100).encode(), ".npz": arrays()}


@pytest.mark.parametrize("suffix", SOUND)
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
        ({"V": good.V * 10}, "beyond ±250 mV"),
        ({"V": good.V / 1e3}, "volts"),
        ({"current": good.current * 1e6}, "beyond ±100000 pA"),
        ({"current": good.current + np.nan}, "nan pA"),
        ({"every": 5.1}, "5.1 ms apart"),
        ({"every": 0.0009}, "0.0009 ms apart"),
        ({"every": np.nan}, "nan ms apart"),
        ({"V": good.V[:, :99], "current": good.current[:, :99]}, "99 samples"),
    ):
        with pytest.raises(ValueError, match=match):
            edited(good, **fields)


# Through neo


@pytest.fixture(scope="module")
def neo():
    return pytest.importorskip("neo")


@pytest.fixture(scope="module")
def axon():
    return pytest.importorskip("neo.rawio.axonrawio")


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
        ([V], "has no current with its unit in Vm: export one in pA"),
        ([I], "has no voltage with its unit in Im: export one in mV"),
        ([V, I, (sweeps.V, "V", "V2")], "several channels of voltage, Vm, V2"),
        ([V, ([*sweeps.current] * 2, "pA", "Im")], "of current, Im 0, Im 1"),
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
    with pytest.raises(ValueError, match="sweep 1 .* has 110 samples, and .* 120"):
        read_sweeps(written(neo, tmp_path, both(whole), both(part)))
    mixed = [(whole.V, "mV", "V"), (part.current, "pA", "I")]
    with pytest.raises(ValueError, match="current has 110 .* and the voltage 120"):
        read_sweeps(written(neo, tmp_path, mixed))
    slow = block(neo, both(whole), rate=5.0)
    path = tmp_path / "cell.mat"
    fast = block(neo, both(whole))
    fast.segments += slow.segments
    neo.io.NeoMatlabIO(str(path)).write_block(fast)
    with pytest.raises(ValueError, match="has 0.2 ms between samples, and the first"):
        read_sweeps(path)
    with pytest.raises(ValueError, match="is nan mV"):
        strange = [(whole.V * np.nan, "mV", "V"), (whole.current, "pA", "I")]
        read_sweeps(written(neo, tmp_path, strange))


@pytest.mark.parametrize(
    "suffix, content, parts",
    (
        (".abf", b"ABF2" + bytes(600), ["neo cannot read"]),
        (".abf", b"ABF " + bytes(6000), ["neo cannot read"]),
        (".abf", "abc", ["neo cannot read", "export it as .npz"]),
        (".mat", "abc", ["neo cannot read"]),
        (".tif", "abc", ["neither dicjax nor neo", ".npz, .csv, .tsv, .txt"]),
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


def fields(description, **values):
    """Packs what neo's tables of ABF2 describe; zero where nothing is given."""
    packed = b""
    for name, kind in description:
        zero = b"" if kind[-1] in "sc" else 0
        value = values.pop(name, b"\0" if kind == "c" else zero)
        count = int(kind[:-1] or 1) if kind[-1] not in "sc" else 1
        packed += struct.pack("<" + kind, *[value] * count)
    assert not values
    return packed


def abf2(axon, signals, every, outputs=()):
    """An ABF2 file of `signals`, (name, unit, sweeps × samples), in float32.

    Of outputs are given (name, unit, holding, fields, epochs), where the latter are
    (type, level, level added in each sweep, samples).
    """
    strings, num_samples = [], signals[0][2].shape[1]
    text = lambda x: strings.append(x) or len(strings)
    adc = [
        fields(
            axon.ADCInfoDescription, nADCNum=i, lADCChannelNameIndex=text(name),
            lADCUnitsIndex=text(unit), fInstrumentScaleFactor=1.0, fSignalGain=1.0,
            fADCProgrammableGain=1.0,
        ).ljust(128, b"\0")
        for i, (name, unit, _) in enumerate(signals)
    ]  # fmt: skip
    dac, epochs = [], []
    for i, (name, unit, holding, more, steps) in enumerate(outputs):
        own = {"nWaveformEnable": 1, "nWaveformSource": 1} | more
        dac += [
            fields(
                axon.DACInfoDescription,
                nDACNum=i,
                fDACHoldingLevel=holding,
                lDACChannelNameIndex=text(name),
                lDACChannelUnitsIndex=text(unit),
                **own,
            )
        ]
        epochs += [
            fields(
                axon.EpochInfoPerDACDescription, nEpochNum=k, nDACNum=i,
                nEpochType=kind, fEpochInitLevel=level, fEpochLevelInc=more,
                lEpochInitDuration=duration,
            )
            for k, (kind, level, more, duration) in enumerate(steps)
        ]  # fmt: skip
    data = np.stack([x for *_, x in signals], axis=2).astype("<f4")
    per_sweep = num_samples * len(signals)
    protocol = fields(
        axon.protocolInfoDescription, nOperationMode=5,
        fADCSequenceInterval=every * 1e3, lNumSamplesPerEpisode=per_sweep,
        fADCRange=10.0, lADCResolution=2**15,
    )  # fmt: skip
    synch = [struct.pack("<ii", i * per_sweep, per_sweep) for i in range(len(data))]
    names = b"SSCH\0\0" + b"\0".join(x.encode() for x in strings) + b"\0"
    sections = {
        "ProtocolSection": [protocol.ljust(512, b"\0")],
        "ADCSection": adc,
        "DACSection": dac,
        "EpochPerDACSection": epochs,
        "StringsSection": [names],
        "DataSection": [x.tobytes() for x in data.reshape(-1, 1)],
        "SynchArraySection": synch,
    }
    header = bytearray(1024)
    format_ = 1  # float32
    fixed = b"ABF2", 0, 0, 0, 2, 512, len(data), 0, 0, 0, 0, format_
    struct.pack_into("<4s4b5I2H", header, 0, *fixed)
    body = b""
    for i, name in enumerate(axon.sectionNames):
        entries = sections.get(name, [])
        if entries:
            block = (len(header) + len(body)) // 512
            place = 76 + 16 * i
            struct.pack_into(
                "<IIq", header, place, block, len(entries[0]), len(entries)
            )
            section = b"".join(entries)
            body += section.ljust(-(-len(section) // 512) * 512, b"\0")
    return bytes(header) + body


def test_an_axon_file_that_records_both_is_read(axon):
    sweeps = one(num_sweeps=3)
    sweeps = edited(sweeps, current=sweeps.current * [[-1.0], [0.0], [1.0]])
    signals = [("IN 0", "mV", sweeps.V), ("IN 1", "pA", sweeps.current)]
    # The command is less than what was recorded, and must not be taken.
    output = ("Cmd 0", "pA", 7.0, {}, [(1, 99.0, 0.0, 50)])
    content = abf2(axon, signals, 0.1, [output])
    assert_same(read(content, ".abf"), sweeps, rtol=1e-6)


OUTPUT = ("Cmd 0", "pA", 20.0, {}, [(1, 20.0, 0.0, 30), (1, -50.0, 25.0, 100)])


def test_of_an_axon_file_without_a_current_the_protocol_is_taken(axon):
    V = -70 + np.random.default_rng(0).normal(size=(4, 256))
    others = [
        ("Cmd 1", "mV", -70.0, {}, [(1, 5.0, 5.0, 100)]),
        ("Cmd 2", "pA", 9.0, {"nWaveformEnable": 0}, [(1, 5.0, 5.0, 100)]),
    ]
    content = abf2(axon, [("IN 0", "mV", V)], 0.05, [OUTPUT, *others])
    sweeps = read(content, ".abf")
    np.testing.assert_allclose(sweeps.V, V, rtol=1e-6)
    assert sweeps.every == 0.05
    expected = np.full((4, 256), 20.0)
    # An ABF2 sweep starts with a 64th of its samples at the holding level.
    expected[:, 34:134] = np.array([[-50.0], [-25.0], [0.0], [25.0]])
    assert np.array_equal(sweeps.current, expected)
    steps = find_steps(sweeps)
    assert (steps.start, steps.stop) == (1.7, 6.7)
    np.testing.assert_allclose(steps.amplitude, [-70, -45, -20, 5])


@pytest.mark.parametrize(
    "outputs, match",
    (
        ([], "no current with its unit in IN 0: export one in pA"),
        ([("Cmd 0", "mV", *OUTPUT[2:])], "no current with its unit in"),
        ([(*OUTPUT[:3], {"nWaveformEnable": 0}, OUTPUT[4])], "no current"),
        ([(*OUTPUT[:3], {"nWaveformSource": 2}, OUTPUT[4])], "only the steps in ABF2"),
        ([(*OUTPUT[:4], [(2, 50.0, 0.0, 100)])], "only the steps in ABF2"),
        ([OUTPUT, ("Cmd 1", *OUTPUT[1:])], "several channels of current, Cmd 0, Cmd 1"),
    ),
)
def test_a_protocol_that_is_not_one_of_steps_is_not_taken(axon, outputs, match):
    V = -70 + np.random.default_rng(0).normal(size=(4, 256))
    with pytest.raises(ValueError, match=match):
        read(abf2(axon, [("IN 0", "mV", V)], 0.05, outputs), ".abf")


# Steps


@st.composite
def stepped(draw, max_sweeps=6):
    """Currents with a step in white noise, and where and how large it is."""
    every = draw(st.sampled_from((0.05, 0.1, 0.25)))
    n = draw(st.integers(400, 3000))
    a = draw(st.integers(20, n - 200))
    b = draw(st.integers(a + 100, n - 20))
    size = st.floats(30, 500)
    sign = st.sampled_from((-1.0, 0.0, 1.0))
    count = draw(st.integers(1, max_sweeps))
    amplitude = np.array([draw(sign) * draw(size) for _ in range(count)])
    amplitude[draw(st.integers(0, count - 1))] = draw(size)
    holding = np.array([draw(st.floats(-100, 100)) for _ in range(count)])
    random = np.random.default_rng(draw(st.integers(0, 9999)))
    is_in = (np.arange(n) >= a) & (np.arange(n) < b)
    current = holding[:, None] + amplitude[:, None] * is_in
    noise = random.normal(size=current.shape)
    V = np.full_like(current, -70.0)
    return Sweeps(current, V, every), noise, (a, b), amplitude, holding


@given(case=stepped())
def test_steps_up_down_and_of_zero_are_found_exactly_without_noise(case):
    sweeps, _, (a, b), amplitude, holding = case
    steps = find_steps(sweeps)
    assert steps.start == pytest.approx(a * sweeps.every, abs=1e-9)
    assert steps.stop == pytest.approx(b * sweeps.every, abs=1e-9)
    np.testing.assert_allclose(steps.amplitude, amplitude, atol=1e-9)
    np.testing.assert_allclose(steps.holding, holding, atol=1e-9)


@given(case=stepped())
def test_noise_that_is_quantised_moves_steps_by_one_sample_at_most(case):
    sweeps, noise, (a, b), amplitude, holding = case
    current = 3.125 * np.round((sweeps.current + 3 * noise) / 3.125)
    steps = find_steps(edited(sweeps, current=current))
    assert abs(steps.start / sweeps.every - a) < 1.01
    assert abs(steps.stop / sweeps.every - b) < 1.01
    inside = 5 * 3.2 / np.sqrt(np.minimum(a, b - a)) + 0.1
    np.testing.assert_allclose(steps.holding, holding, atol=inside)
    np.testing.assert_allclose(steps.amplitude, amplitude, atol=2 * inside)


@pytest.mark.parametrize("num_sweeps", (1, 5))
@given(seed=st.integers(0, 9999), scale=st.floats(0.01, 100))
def test_noise_holds_no_step(num_sweeps, seed, scale):
    noise = np.random.default_rng(seed).normal(size=(num_sweeps, 2000)) * scale
    with pytest.raises(ValueError, match="no single step in common"):
        find_steps(Sweeps(noise, np.full_like(noise, -70.0), 0.1))


X = np.linspace(0, 1, 2000)


def between(start, stop):
    return ((start <= X) & (stop > X)) * 1.0


@pytest.mark.parametrize("has_noise", (False, True))
@pytest.mark.parametrize(
    "current, match",
    (
        (X, "no single step"),
        (np.clip(X, 0.3, 0.7), "no single step"),
        (between(0.3, 0.7) * (X - 0.3), "no single step"),
        (np.minimum(X, 1 - X), "no single step"),
        (np.sin(2 * np.pi * X), "no single step"),
        (np.sin(np.pi * X), "no single step"),
        (np.sin(20 * X), "no single step"),
        (np.sin(40 * X**2), "no single step"),
        (between(0.2, 0.4) + between(0.6, 0.8), "no single step"),
        (between(0.2, 0.4) - between(0.6, 0.8), "no single step"),
        (between(0.2, 0.6) + between(0.4, 0.6), "no single step"),
        (between(0.4, 2), "before, in or after"),
        (between(-1, 0.4), "before, in or after"),
        (between(0.4, 0.4025), "before, in or after"),
    ),
)
def test_what_is_no_step_is_refused(current, match, has_noise):
    noise = np.random.default_rng(0).normal(size=(3, X.size)) * has_noise
    current = 200 * current * np.array([[-0.5], [0.5], [1.0]]) + 2 * noise
    with pytest.raises(ValueError, match=match):
        find_steps(Sweeps(current, np.full_like(current, -70.0), 0.1))


def test_a_constant_current_is_no_step():
    levels = np.array([[0.1], [50.0]]) * np.ones(2000)
    with pytest.raises(ValueError, match="cell: the current is constant"):
        find_steps(Sweeps(levels, np.full_like(levels, -70.0), 0.1))


def test_of_several_steps_one_is_found_within_a_window():
    current = (30 + 50 * between(0.2, 0.4) - 80 * between(0.6, 0.8))[None]
    sweeps = Sweeps(current, np.full_like(current, -70.0), 0.1)
    for within, start, amplitude in (
        ((0.0, 100.0), 0.2, 50),
        ((100.0, 200.0), 0.6, -80),
    ):
        steps = find_steps(sweeps, within=within)
        assert steps.start == pytest.approx(200 * start, abs=0.11)
        assert steps.stop - steps.start == pytest.approx(40, abs=0.11)
        assert steps.amplitude == pytest.approx(amplitude)
        assert steps.holding == pytest.approx(30)
    for within in ((-1.0, 100.0), (100.0, 201.0), (100.0, 100.0), (100.0, 102.0)):
        with pytest.raises(ValueError, match="`within` must be"):
            find_steps(sweeps, within=within)


# The membrane


def charging(resistance, tau, amplitude, *, every=0.1, rest=-70.0, jump=0.0):
    """An RC membrane's answers to steps from 100 to 400 ms of 600 ms."""
    t = np.arange(round(600 / every)) * every
    rise = lambda t: np.where(t >= 0, 1 - np.exp(-np.maximum(t, 0) / tau), 0)
    is_in = (t >= 100 - 1e-9) & (t < 400 - 1e-9)
    unit = 1e-3 * (resistance * (rise(t - 100) - rise(t - 400)) + jump * is_in)
    amplitude = np.asarray(amplitude, float)[:, None]
    return Sweeps(20 + amplitude * is_in, rest + amplitude * unit, every)


resistances = st.floats(20, 400)
amplitudes = st.lists(
    st.floats(-80, 80).filter(lambda x: abs(x) > 5), min_size=1, max_size=5
)


@given(resistance=resistances, tau=st.floats(2, 55), amplitude=amplitudes)
def test_a_known_membrane_is_measured(resistance, tau, amplitude):
    sweeps = charging(resistance, tau, amplitude)
    found = passive_membrane(sweeps, find_steps(sweeps))
    assert found.resistance == pytest.approx(resistance, rel=0.01)
    assert found.time_constant == pytest.approx(tau, rel=0.02)
    assert found.capacitance == pytest.approx(1e3 * tau / resistance, rel=0.02)


@given(resistance=st.floats(80, 400), tau=st.floats(5, 40), seed=st.integers(0, 999))
def test_it_is_measured_in_noise(resistance, tau, seed):
    sweeps = charging(resistance, tau, [-60.0, -30.0, 0.0, 30.0])
    noise = np.random.default_rng(seed).normal(size=(2, *sweeps.V.shape))
    V, current = sweeps.V + 0.1 * noise[0], sweeps.current + 3 * noise[1]
    sweeps = edited(sweeps, V=V, current=current)
    found = passive_membrane(sweeps, find_steps(sweeps))
    assert found.resistance == pytest.approx(resistance, rel=0.02)
    assert found.time_constant == pytest.approx(tau, rel=0.05)


@given(resistance=st.floats(50, 400), tau=st.floats(5, 50), jump=st.floats(-20, 20))
def test_an_unbalanced_electrode_leaves_the_time_constant_alone(resistance, tau, jump):
    sweeps = charging(resistance, tau, [-40.0], jump=jump)
    found = passive_membrane(sweeps, find_steps(sweeps))
    assert found.time_constant == pytest.approx(tau, rel=0.03)
    assert found.resistance == pytest.approx(resistance + jump, rel=0.01)


def test_sweeps_with_spikes_are_left_out():
    sweeps = charging(150.0, 20.0, [-50.0, 150.0])
    V = sweeps.V.copy()
    V[1, 1500:3900:200] = 30.0
    V[0, 4500] = 30.0  # a rebound after the step
    found = passive_membrane(edited(sweeps, V=V), find_steps(sweeps))
    assert found.resistance == pytest.approx(150, rel=1e-3)
    assert found.time_constant == pytest.approx(20, rel=1e-3)


def test_a_sweep_below_threshold_is_needed():
    sweeps = charging(150.0, 20.0, [0.0, 150.0, 200.0])
    V = sweeps.V.copy()
    V[1:, 1500:3900:200] = 30.0
    sweeps = edited(sweeps, V=V)
    with pytest.raises(ValueError, match="hyperpolarising.* or give the capacitance"):
        passive_membrane(sweeps, find_steps(sweeps))


def test_what_does_not_charge_is_refused():
    slow = charging(150.0, 90.0, [-50.0])
    with pytest.raises(ValueError, match="not charge to a steady level .* 300 ms"):
        passive_membrane(slow, find_steps(slow))
    fast = charging(150.0, 0.02, [-50.0])
    with pytest.raises(ValueError, match="not charge .* sampled faster"):
        passive_membrane(fast, find_steps(fast))
    against = charging(-150.0, 20.0, [-50.0])
    with pytest.raises(ValueError, match="against the current, as if by -150 MΩ"):
        passive_membrane(against, find_steps(against))
    good = charging(150.0, 20.0, [-50.0, 50.0])
    steps = find_steps(good)
    with pytest.raises(ValueError, match="1 steps are not those of 2 sweeps"):
        passive_membrane(
            good, Steps(steps.amplitude[:1], steps.holding[:1], steps.start, steps.stop)
        )


# Real recordings


def recorded(data, name):
    return read_sweeps(data / "current_clamp" / f"C010302A1_{name}.npz")


def test_steps_of_a_real_cell_are_found(data):
    sweeps = recorded(data, "IDRest")
    assert (sweeps.V.shape, sweeps.every) == ((10, 12_000), 0.25)
    assert sweeps.name == "C010302A1_IDRest"
    with np.load(data / "current_clamp" / "C010302A1_IDRest.npz") as file:
        assert np.array_equal(sweeps.V, file["voltage_mV"])
        assert np.array_equal(sweeps.current, file["current_pA"])
    steps = find_steps(sweeps)
    # The first sample of either change is half way, the recorder being slow.
    assert (steps.start, steps.stop) == (700.25, 2700.25)
    within = sweeps.current[:, 2810:10_790].mean(axis=1)
    before = sweeps.current[:, :2790].mean(axis=1)
    np.testing.assert_allclose(steps.holding, before, atol=0.15)
    np.testing.assert_allclose(steps.amplitude, within - before, atol=0.2)
    np.testing.assert_allclose(steps.amplitude[[0, -1]], [134.4, 338.8], atol=0.2)
    with pytest.raises(ValueError, match="or give the capacitance"):
        passive_membrane(sweeps, steps)


def test_the_membrane_of_a_real_cell_is_measured(data):
    sweeps = recorded(data, "IRrest")
    steps = find_steps(sweeps)
    assert (steps.start, steps.stop) == (520.5, 720.25)
    assert steps.amplitude == pytest.approx(-22.3, abs=0.1)
    found = passive_membrane(sweeps, steps)
    # As after the step, whose end has the potential return by as much.
    V = sweeps.V[0]
    back = V[3600:].mean() - V[2801:2881].mean()
    assert found.resistance == pytest.approx(1e3 * back / 22.3, rel=0.03)
    assert 30 < found.time_constant < 40
    assert 150 < found.capacitance < 190


def test_real_pulses_of_differing_times_are_no_step(data):
    with pytest.raises(ValueError, match="no single step in common"):
        find_steps(recorded(data, "SpikeRec"))
    steps = find_steps(recorded(data, "APWaveform"))
    assert steps.start == pytest.approx(5.1, abs=0.05)
    assert steps.stop == pytest.approx(55.1, abs=0.05)
