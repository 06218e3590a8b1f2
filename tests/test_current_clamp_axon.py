import struct

import numpy as np
import pytest
from test_current_clamp import assert_same, edited, one, read

from dicjax.recordings import find_steps


@pytest.fixture(scope="module")
def axon():
    return pytest.importorskip("neo.rawio.axonrawio")


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
        ([], "current.* IN 0.* pA"),
        ([("Cmd 0", "mV", *OUTPUT[2:])], "current.* Cmd 0.* pA"),
        ([(*OUTPUT[:3], {"nWaveformEnable": 0}, OUTPUT[4])], "current.* IN 0"),
        ([(*OUTPUT[:3], {"nWaveformSource": 2}, OUTPUT[4])], "current.* ABF2"),
        ([(*OUTPUT[:4], [(2, 50.0, 0.0, 100)])], "current.* ABF2"),
        ([OUTPUT, ("Cmd 1", *OUTPUT[1:])], "current.* Cmd 0, Cmd 1"),
    ),
)
def test_a_protocol_that_is_not_one_of_steps_is_not_taken(axon, outputs, match):
    V = -70 + np.random.default_rng(0).normal(size=(4, 256))
    with pytest.raises(ValueError, match=match):
        read(abf2(axon, [("IN 0", "mV", V)], 0.05, outputs), ".abf")
