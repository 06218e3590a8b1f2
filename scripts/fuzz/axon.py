"""Writes files of Axon (ABF2), which no library writes."""

import importlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np


Signal = tuple[str, str, np.ndarray]  # name, unit, sweeps × samples
Epoch = tuple[int, float, float, int]  # type, level, level added each sweep, samples
Output = tuple[str, str, float, dict[str, Any], Sequence[Epoch]]  # after its holding

_BLOCK = 512  # bytes, of which sections are multiples
_FLOAT32 = 1


def abf2(
    signals: Sequence[Signal], every: float, outputs: Sequence[Output] = ()
) -> bytes:
    """An ABF2 file of `signals` in float32, sampled `every` so many ms."""
    axon: Any = importlib.import_module("neo.rawio.axonrawio")
    strings: list[str] = []
    text = lambda x: strings.append(x) or len(strings)
    adc = [
        _fields(
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
            _fields(
                axon.DACInfoDescription, nDACNum=i, fDACHoldingLevel=holding,
                lDACChannelNameIndex=text(name), lDACChannelUnitsIndex=text(unit),
                **own,
            )
        ]  # fmt: skip
        epochs += [
            _fields(
                axon.EpochInfoPerDACDescription, nEpochNum=k, nDACNum=i,
                nEpochType=kind, fEpochInitLevel=level, fEpochLevelInc=added,
                lEpochInitDuration=duration,
            )
            for k, (kind, level, added, duration) in enumerate(steps)
        ]  # fmt: skip
    data = np.stack([x for *_, x in signals], axis=2).astype("<f4")
    per_sweep = signals[0][2].shape[1] * len(signals)
    protocol = _fields(
        axon.protocolInfoDescription, nOperationMode=5,
        fADCSequenceInterval=every * 1e3, lNumSamplesPerEpisode=per_sweep,
        fADCRange=10.0, lADCResolution=2**15,
    )  # fmt: skip
    synch = [struct.pack("<ii", i * per_sweep, per_sweep) for i in range(len(data))]
    names = b"SSCH\0\0" + b"\0".join(x.encode() for x in strings) + b"\0"
    sections = {
        "ProtocolSection": [protocol.ljust(_BLOCK, b"\0")],
        "ADCSection": adc,
        "DACSection": dac,
        "EpochPerDACSection": epochs,
        "StringsSection": [names],
        "DataSection": [x.tobytes() for x in data.reshape(-1, 1)],
        "SynchArraySection": synch,
    }
    return _file(len(data), {x: sections.get(x, []) for x in axon.sectionNames})


def _file(num_sweeps: int, sections: dict[str, list[bytes]]) -> bytes:
    header, body = bytearray(2 * _BLOCK), b""
    fixed = b"ABF2", 0, 0, 0, 2, _BLOCK, num_sweeps, 0, 0, 0, 0, _FLOAT32
    struct.pack_into("<4s4b5I2H", header, 0, *fixed)
    for i, entries in enumerate(sections.values()):
        if entries:
            block = (len(header) + len(body)) // _BLOCK
            place = block, len(entries[0]), len(entries)
            struct.pack_into("<IIq", header, 76 + 16 * i, *place)
            section = b"".join(entries)
            body += section.ljust(-(-len(section) // _BLOCK) * _BLOCK, b"\0")
    return bytes(header) + body


def _fields(description: Sequence[tuple[str, str]], **values: Any) -> bytes:
    """Packs what neo's tables of ABF2 describe; zero where nothing is given."""
    packed = b""
    for name, kind in description:
        zero = b"" if kind[-1] in "sc" else 0
        value = values.pop(name, b"\0" if kind == "c" else zero)
        count = int(kind[:-1] or 1) if kind[-1] not in "sc" else 1
        packed += struct.pack("<" + kind, *[value] * count)
    assert not values
    return packed
