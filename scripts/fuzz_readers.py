"""Looks for bytes that readers answer with no result and no sentence.

    python scripts/fuzz_readers.py all --inputs 1000

changes sound files of every format at random, and reads each as users do. A traceback
of another type than `ValueError`, more than ten seconds, or more than 1 GB of memory
are faults: the bytes are kept in the folder `--out`, and the status is 1.

    python scripts/fuzz_readers.py mat --guided --minutes 5

is guided by what code is reached (by atheris: `pip install "dicjax[fuzz]"`), and reads
in its own process. The first fault ends it; the bytes are then in a file of the working
directory.
"""

import argparse
import collections
import contextlib
import hashlib
import importlib
import io
import pathlib
import random
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from typing import Any


IS_GUIDED = "--guided" in sys.argv
atheris: Any = importlib.import_module("atheris") if IS_GUIDED else None
OWN = "dicjax.recordings.readers"
followed = [OWN, "neo", "scipy.io"]
with (
    atheris.instrument_imports(include=followed)
    if IS_GUIDED
    else contextlib.nullcontext()
):
    import h5py
    import neo.io  # noqa: F401
    import numpy as np
    import openpyxl
    import pyarrow as pa
    import pyarrow.parquet as pq
    import scipy.io

    import dicjax as dj
    from dicjax._core import in_this_process
    from dicjax.output import read_population


SLOW, LARGE = 10.0, 1e9  # s, bytes
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


def models() -> bytes:
    table = {"gNa": np.linspace(100, 200, 40), "spike_times": [TRAIN.tolist()] * 40}
    pq.write_table(pa.table(table), file := io.BytesIO())
    return file.getvalue()


def sweeps() -> dict[str, Any]:
    t = np.arange(200) * 0.1
    current = np.where((t > 5) & (t < 15), 100.0, 0.0)
    return {"t_ms": t, "I_pA": current, "V_mV": -65 + current / 20}


def sweeps_table() -> bytes:
    columns = sweeps()
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    return "\n".join(lines).encode()


def sweeps_archive() -> bytes:
    np.savez(file := io.BytesIO(), **sweeps())
    return file.getvalue()


def axon() -> bytes:
    return b"ABF2" + bytes(2000)


Read = Callable[[pathlib.Path], object]
trains, swept = dj.read_spike_trains, dj.read_sweeps
FORMATS: dict[str, tuple[str, Callable[[], bytes], Read]] = {
    "csv": ("cell.csv", table, trains),
    "txt": ("cell.txt", wavemarks, trains),
    "npy": ("cell.npy", array, trains),
    "npz": ("cell.npz", archive, trains),
    "pynapple": ("cell.npz", pynapple, trains),
    "nwb": ("cell.nwb", nwb, trains),
    "mat": ("cell.mat", matlab, trains),
    "mat4": ("cell.mat", matlab_4, trains),
    "mat73": ("cell.mat", matlab_hdf5, trains),
    "xlsx": ("cell.xlsx", workbook, trains),
    "nex": ("cell.nex", neuroexplorer, trains),
    "phy": ("params.py", lambda: b"dat_path = 'x'\nsample_rate = 30000.\n", trains),
    "parquet": ("models.parquet", models, read_population),
    "sweeps_csv": ("cell.csv", sweeps_table, swept),
    "sweeps_npz": ("cell.npz", sweeps_archive, swept),
    "sweeps_abf": ("cell.abf", axon, swept),
}


def prepare(kind: str, folder: pathlib.Path) -> None:
    """Writes what lies beside the file that changes."""
    if kind == "phy":
        np.save(folder / "spike_times.npy", (TRAIN * 30).astype(np.uint64))
        np.save(folder / "spike_clusters.npy", np.zeros(TRAIN.size, np.int32))
    if kind == "parquet":
        (folder / "manifest.json").write_text('{"model": "stg"}')


def read(kind: str, folder: pathlib.Path, content: bytes) -> bool:
    """Whether the bytes were read; False if they were refused in a sentence."""
    name, _, reader = FORMATS[kind]
    path = folder / name
    path.write_bytes(content)
    source = folder if kind == "phy" else path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert reader(source)
    except ValueError as error:
        message = str(error)
        assert source.stem in message, message
        assert "\n" not in message and message.endswith("."), message
        return False
    return True


# ---- changes at random

NUMBERS = [0, 1, -1, 2**7 - 1, 2**15 - 1, 2**31 - 1, 2**62, -(2**31)]
WORDS = [b"nan", b"-1", b"1e999", b";", b",", b"\n", b"\t", b'"', b"0", b"9" * 30]
WORDS += [b"\x00", b"\xff\xfe", "µ".encode(), b"=1+1", b"inf", b"samples", b"ISI"]


def changed(content: bytes, random: random.Random) -> bytes:
    """The bytes with one to five changes; in a zip, often within one of its files."""
    if content[:2] == b"PK" and random.random() < 0.7:
        return _changed_within(content, random)
    raw = bytearray(content)
    for _ in range(random.randint(1, 5)):
        at = random.randrange(len(raw) + 1)
        until = at + random.choice((0, 1, 2, 4, 8, 64))
        match random.randrange(6):
            case 0:
                raw[at:until] = random.randbytes(until - at)
            case 1:
                kind = random.choice(("<b", "<h", "<i", "<q", ">i", ">q"))
                bits = 8 * struct.calcsize(kind)
                number = random.choice(NUMBERS) % 2**bits
                number -= 2**bits * (number >= 2 ** (bits - 1))
                new = struct.pack(kind, number)
                raw[at : at + len(new)] = new
            case 2:
                raw[at:until] = random.choice(WORDS)
            case 3:
                del raw[at:until]
            case 4:
                raw[at:at] = raw[at:until] * random.choice((1, 2, 50))
            case _:
                raw[at:] = b"" if random.random() < 0.2 else raw[at:]
    return bytes(raw)


def _changed_within(content: bytes, random: random.Random) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        chosen = random.choice(old.namelist())
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, changed(part, random) if name == chosen else part)
    return out.getvalue()


def at_random(
    kinds: list[str], inputs: int, minutes: float, seed: int, out: pathlib.Path
) -> int:
    """Reads changed files of each kind, says how many failed, and keeps those."""
    faults, counts, begun = 0, collections.Counter(), time.monotonic()
    source = random.Random(seed)
    sound = {kind: FORMATS[kind][1]() for kind in kinds}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as root:
        folders = {kind: pathlib.Path(root, kind) for kind in kinds}
        for kind, folder in folders.items():
            folder.mkdir()
            prepare(kind, folder)
            read(kind, folder, sound[kind])
        while counts.total() < inputs and time.monotonic() - begun < 60 * minutes:
            kind = kinds[counts.total() % len(kinds)]
            content, start = changed(sound[kind], source), time.monotonic()
            counts[kind] += 1
            try:
                read(kind, folders[kind], content)
                why = ""
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            taken = time.monotonic() - start
            slowest = max(slowest, taken)
            why = why or (f"{taken:.0f} s" if taken > SLOW else "")
            if why:
                faults += 1
                out.mkdir(parents=True, exist_ok=True)
                mark = hashlib.sha256(content).hexdigest()[:8]
                (out / f"{mark}-{FORMATS[kind][0]}").write_bytes(content)
                print(f"{kind} {mark}: {why}", flush=True)
    each = ", ".join(f"{kind} {num}" for kind, num in sorted(counts.items()))
    print(
        f"{counts.total()} inputs ({each}), {faults} faults; the slowest took "
        f"{slowest:.1f} s, and this process {peak_memory() / 1e6:.0f} MB at most."
    )
    return int(faults > 0 or peak_memory() > LARGE)


def peak_memory() -> float:
    """The largest memory of this process in bytes; others have limits of their own."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def guided(kind: str, minutes: float) -> None:
    folder = pathlib.Path(tempfile.mkdtemp())
    corpus = pathlib.Path(tempfile.mkdtemp())
    (corpus / "sound").write_bytes(FORMATS[kind][1]())
    prepare(kind, folder)
    limits = ["-timeout=10", "-rss_limit_mb=3000", "-max_len=20000"]
    limits += [f"-max_total_time={round(60 * minutes)}", str(corpus)]
    with in_this_process():  # where it can be followed
        atheris.Setup([sys.argv[0], *limits], lambda data: read(kind, folder, data))
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=[*FORMATS, "all"])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default="fuzz-faults")
    parser.add_argument("--guided", action="store_true")
    options = parser.parse_args()
    if options.guided:
        if options.format == "all":
            parser.error("--guided follows one format: name it")
        guided(options.format, options.minutes)
        return 0
    kinds = [*FORMATS] if options.format == "all" else [options.format]
    limits = (options.inputs, options.minutes, options.seed)
    return at_random(kinds, *limits, options.out)


if __name__ == "__main__":
    sys.exit(main())
