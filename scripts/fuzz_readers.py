"""Looks for bytes that `read_spike_trains` answers with no trains and no sentence.

    python scripts/fuzz_readers.py mat --minutes 5

mutates a sound file of the format for so long, guided by what code is reached (by
atheris: `pip install "dicjax[fuzz]"`). A traceback of another type, a hang of ten
seconds or 3 GB of memory end it; the bytes are then in a file of the working directory.
"""

import argparse
import importlib
import io
import pathlib
import struct
import sys
import tempfile
import warnings
from typing import Any


atheris: Any = importlib.import_module("atheris")  # of which pyright sees nothing

OWN = "dicjax.recordings.readers"
with atheris.instrument_imports(include=[OWN, "neo", "scipy.io"]):
    import h5py
    import neo.io  # noqa: F401
    import numpy as np
    import openpyxl
    import scipy.io

    from dicjax._core import in_this_process
    from dicjax.recordings.readers import read_spike_trains


TRAIN = np.arange(1, 41) * 50.125
MARKS = "".join(f'"WAVMK"\t{t / 1e3}\t1\t0\n' for t in TRAIN.tolist())


def table() -> bytes:
    rows = "".join(f"a,{t}\nb,{t}\n" for t in TRAIN.tolist())
    return f"unit,time_ms\n{rows}".encode()


def wavemarks() -> bytes:
    return f'"CHANNEL"\t"3"\n"START"\t0.0\n{MARKS}'.encode()


def array() -> bytes:
    np.save(file := io.BytesIO(), TRAIN)
    return file.getvalue()


def archive() -> bytes:
    np.savez(file := io.BytesIO(), a=TRAIN, b=TRAIN, unit="ms", t_stop=9e3)
    return file.getvalue()


def pynapple() -> bytes:
    index, keys = np.repeat([3, 7], 20), np.array([3, 7])
    arrays = {"t": TRAIN, "index": index, "keys": keys, "type": np.array(["TsGroup"])}
    np.savez(file := io.BytesIO(), **arrays, start=TRAIN[:1], end=TRAIN[-1:])
    return file.getvalue()


def nwb() -> bytes:
    with h5py.File(file := io.BytesIO(), "w") as writer:
        units = writer.create_group("units")
        units["id"], units["spike_times"] = [1, 2], np.append(TRAIN, TRAIN) / 1e3
        units["spike_times_index"] = [40, 80]
    return file.getvalue()


def matlab() -> bytes:
    cells = np.empty(2, object)
    cells[:] = [TRAIN, TRAIN[:20]]
    units = {"ts": TRAIN, "name": "LP"}
    variables = {"LP": TRAIN, "spikes": cells, "units": units, "fs": 3e4}
    scipy.io.savemat(file := io.BytesIO(), variables)
    return file.getvalue()


def matlab_4() -> bytes:
    variables = {"LP": TRAIN, "PD": TRAIN[:20], "name": "cell"}
    scipy.io.savemat(file := io.BytesIO(), variables, format="4")
    return file.getvalue()


def matlab_hdf5() -> bytes:
    with h5py.File(file := io.BytesIO(), "w") as writer:
        refs = writer.create_group("#refs#")
        refs["a"], refs["b"] = TRAIN[None], TRAIN[None]
        cells = [[refs["a"].ref], [refs["b"].ref]]
        writer.create_dataset("spikes", data=cells, dtype=h5py.ref_dtype)
        writer["spikes"].attrs["MATLAB_class"] = np.bytes_("cell")
        writer["LP"] = TRAIN[None]
    return file.getvalue()


def workbook() -> bytes:
    book = openpyxl.Workbook()
    for row in [["time_ms"], *([t] for t in TRAIN.tolist())]:
        book.worksheets[0].append(row)
    book.save(file := io.BytesIO())
    return file.getvalue()


def neuroexplorer() -> bytes:
    ticks = (TRAIN * 40).astype("<i4")
    head = b"NEX1" + struct.pack("<i256sdiii", 104, b"", 4e4, 0, int(ticks[-1]), 1)
    unit = struct.pack("<ii64sIi", 0, 101, b"LP", 544 + 208, ticks.size)
    return head.ljust(544, b"\0") + unit.ljust(208, b"\0") + ticks.tobytes()


FORMATS = {
    "csv": (".csv", table),
    "txt": (".txt", wavemarks),
    "npy": (".npy", array),
    "npz": (".npz", archive),
    "pynapple": (".npz", pynapple),
    "nwb": (".nwb", nwb),
    "mat": (".mat", matlab),
    "mat4": (".mat", matlab_4),
    "mat73": (".mat", matlab_hdf5),
    "xlsx": (".xlsx", workbook),
    "nex": (".nex", neuroexplorer),
    "phy": ("params.py", lambda: b"dat_path = 'x'\nsample_rate = 30000.\n"),
}


def read(kind: str, folder: pathlib.Path, content: bytes) -> None:
    ending = FORMATS[kind][0]
    path = folder / (ending if kind == "phy" else f"cell{ending}")
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_spike_trains(folder if kind == "phy" else path)
    except ValueError as error:
        message = str(error)
        name = folder.name if kind == "phy" else "cell"
        assert name in message and "\n" not in message and message.endswith(".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    # In this process, where it can be followed, and not in one of its own.
    neo_files.look_apart = neo_worker.look_into
    folder = pathlib.Path(tempfile.mkdtemp())
    corpus = pathlib.Path(tempfile.mkdtemp())
    (corpus / "sound").write_bytes(FORMATS[options.format][1]())
    if options.format == "phy":
        np.save(folder / "spike_times.npy", (TRAIN * 30).astype(np.uint64))
        np.save(folder / "spike_clusters.npy", np.zeros(TRAIN.size, np.int32))
    limits = ["-timeout=10", "-rss_limit_mb=3000", "-max_len=20000"]
    limits += [f"-max_total_time={round(60 * options.minutes)}", str(corpus)]
    atheris.Setup(
        [sys.argv[0], *limits], lambda data: read(options.format, folder, data)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
