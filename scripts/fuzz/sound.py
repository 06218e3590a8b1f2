"""Sound files of every format that readers know, and how each is read."""

import io
import json
import pathlib
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import h5py
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io

import dicjax as dj
from dicjax.output import read_population
from scripts.fuzz.axon import abf2


TRAIN = np.arange(1, 41) * 50.125
SAMPLES = (TRAIN * 30).astype(np.int64)
IDS = np.repeat([3, 7], 20)
_CLEAN = ["doubles", "order", "negative", "overflow", "pauses"]


def table() -> bytes:
    rows = "".join(f"a,{t}\nb,{t}\n" for t in TRAIN.tolist())
    return f"unit,time_ms\n{rows}".encode()


def wide_table() -> bytes:
    rows = "".join(f"{t:_};{t / 2}\n".replace(".", ",") for t in TRAIN.tolist())
    return f"Titel\n# Zeiten\nLP (ms);PD (ms)\n{rows.replace('_', '.')}".encode(
        "cp1252"
    )


def clocks() -> bytes:
    stamps = [f"2024-02-28 23:59:{t:09.6f}" for t in (TRAIN / 50).tolist()]
    return "\n".join(["Zeit", *stamps]).encode("utf-16")


def lists() -> bytes:
    row = ",".join(map(str, TRAIN.tolist()))
    return f'ID,spiking_times\n1,"[{row}]"\n2,"[{row}]"\n'.encode()


def raster() -> bytes:
    ones = np.isin(np.arange(500), (TRAIN / 5).astype(int)).astype(int)
    return "\n".join(f"{t},{x}" for t, x in enumerate(ones.tolist())).encode()


def wavemarks() -> bytes:
    marks = "".join(f'"WAVMK"\t{t / 1e3}\t1\t0\n' for t in TRAIN.tolist())
    return f'"CHANNEL"\t"3"\n"START"\t0.0\n{marks}'.encode()


def mc_rack() -> bytes:
    spikes = "".join(f"{t}\t0.1\t{i % 2}\n" for i, t in enumerate(TRAIN.tolist()))
    return f"MC_DataTool\n\nt       Spikes 1 31 Unit\n[ms]\t[mV]\n{spikes}".encode()


def array() -> bytes:
    np.save(file := io.BytesIO(), TRAIN)
    return file.getvalue()


def archive() -> bytes:
    np.savez(file := io.BytesIO(), a=TRAIN, b=TRAIN, unit="ms", t_stop=9e3)
    return file.getvalue()


def pynapple() -> bytes:
    keys = np.array([3, 7])
    arrays = {"t": TRAIN, "index": IDS, "keys": keys, "type": np.array(["TsGroup"])}
    np.savez(file := io.BytesIO(), **arrays, start=TRAIN[:1], end=TRAIN[-1:])
    return file.getvalue()


def sorting() -> bytes:
    spikes = {"spike_indexes_seg0": SAMPLES, "spike_labels_seg0": IDS}
    about = {"unit_ids": [3, 7], "num_segment": [1], "sampling_frequency": [3e4]}
    np.savez(file := io.BytesIO(), **spikes, **about)
    return file.getvalue()


def sorting_info() -> bytes:
    about = {"unit_ids": [3, 7], "num_segments": 1, "sampling_frequency": 3e4}
    return json.dumps(about).encode()


def nwb() -> bytes:
    with h5py.File(file := io.BytesIO(), "w") as writer:
        units = writer.create_group("units")
        units["id"], units["spike_times"] = [1, 2], np.append(TRAIN, TRAIN) / 1e3
        units["spike_times_index"] = [40, 80]
        units["obs_intervals"] = np.array([[0.0, 1.0], [1.2, 3.0]])
        units["obs_intervals_index"] = [1, 2]
    return file.getvalue()


def sonata() -> bytes:
    with h5py.File(file := io.BytesIO(), "w") as writer:
        group = writer.create_group("spikes/v1")
        group["timestamps"], group["node_ids"] = TRAIN, IDS
        group["timestamps"].attrs["units"] = "milliseconds"
    return file.getvalue()


def circus() -> bytes:
    with h5py.File(file := io.BytesIO(), "w") as writer:
        for i in (0, 1):
            writer[f"spiketimes/temp_{i}"] = SAMPLES
    return file.getvalue()


def psort() -> bytes:
    with h5py.File(file := io.BytesIO(), "w") as writer:
        slot = writer.create_group("data/i0")
        slot["ss_index"] = np.isin(np.arange(2100), TRAIN.astype(int))
        slot["cs_index"], slot["sample_rate"] = np.zeros(0, bool), [1000]
        slot["ch_time"] = np.arange(3) / 1e3
    return file.getvalue()


def matlab() -> bytes:
    cells = np.empty(2, object)
    cells[:] = [TRAIN, TRAIN[:20]]
    units = {"ts": TRAIN, "name": "LP"}
    variables = {"LP": TRAIN, "spikes": cells, "units": units, "fs": 3e4}
    scipy.io.savemat(file := io.BytesIO(), variables)
    return file.getvalue()


def matlab_raster() -> bytes:
    ones = np.isin(np.arange(60), (TRAIN / 50).astype(int))
    about = {"time": np.arange(60) * 5.0, "spikes": ones}
    sparse = scipy.sparse.csc_array(np.stack([ones, ones], 1).astype(float))
    scipy.io.savemat(file := io.BytesIO(), about | {"s": sparse, "m": {"a": sparse}})
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


def mclust() -> bytes:
    times = (TRAIN * 10).round().astype(">u4").tobytes()
    return b"%%BEGINHEADER\n% MClust 4.4\n%%ENDHEADER\n" + times


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
    _, current, V = sweeps().values()
    signals = [("IN 0", "mV", V[None]), ("IN 1", "pA", current[None])]
    return abf2(signals, 0.1, [("Cmd 0", "pA", 7.0, {}, [(1, 99.0, 0.0, 50)])])


def folder_of_phy(folder: pathlib.Path) -> None:
    np.save(folder / "spike_times.npy", SAMPLES.astype(np.uint64))
    np.save(folder / "spike_clusters.npy", IDS.astype(np.int32))
    (folder / "params.py").write_text("sample_rate = 30000.\n")


def folder_of_sorting(folder: pathlib.Path) -> None:
    kinds = [("sample_index", "i8"), ("unit_index", "i8"), ("segment_index", "i8")]
    spikes = np.zeros(TRAIN.size, kinds)
    spikes["sample_index"], spikes["unit_index"] = SAMPLES, IDS == 7
    np.save(folder / "spikes.npy", spikes)


def folder_of_models(folder: pathlib.Path) -> None:
    (folder / "manifest.json").write_text('{"model": "stg"}')
    (folder / "models.parquet").write_bytes(models())


# ---- how files are read


def trains(path: pathlib.Path, random: random.Random) -> object:
    """The trains, read as people do who know more or less about their file."""
    options: dict[str, Any] = {}
    if random.random() < 0.5:
        options["unit"] = random.choice(["ms", "ms", "s", "us", "samples@30000"])
    if random.random() < 0.2:
        options["clean"] = random.sample(_CLEAN, random.randint(1, 5))
    if random.random() < 0.2:
        options["window"] = (200.0, random.choice([900.0, 1e5]))
    return dj.read_spike_trains(path, **options)


def swept(path: pathlib.Path, random: random.Random) -> object:
    del random
    return dj.read_sweeps(path)


def population(path: pathlib.Path, random: random.Random) -> object:
    del random
    return read_population(path)


Read = Callable[[pathlib.Path, random.Random], object]


class Format(NamedTuple):
    """A file that is changed; `beside` writes what lies in its folder.

    The folder is read instead of the file if something lies in it. Of formats that are
    slow to read, a smaller `share` of inputs is.
    """

    file: str
    sound: Callable[[], bytes]
    read: Read = trains
    beside: Callable[[pathlib.Path], None] | None = None
    share: int = 4


def of_phy(file: str, content: bytes) -> Format:
    return Format(file, lambda: content, trains, folder_of_phy)


def of_models(file: str, sound: Callable[[], bytes]) -> Format:
    return Format(file, sound, population, folder_of_models)


INFO = "numpysorting_info.json"
LABELS = b"cluster_id\tgroup\n3\tgood\n7\tmua\n"
FORMATS = {
    "csv": Format("cell.csv", table),
    "wide": Format("cell.csv", wide_table),
    "clocks": Format("cell.txt", clocks),
    "lists": Format("cell.csv", lists),
    "raster": Format("cell.csv", raster),
    "wavemarks": Format("cell.txt", wavemarks),
    "mc_rack": Format("cell.txt", mc_rack),
    "npy": Format("cell.npy", array),
    "npz": Format("cell.npz", archive),
    "pynapple": Format("cell.npz", pynapple),
    "sorting": Format("cell.npz", sorting),
    "sorting_folder": Format(INFO, sorting_info, trains, folder_of_sorting),
    "nwb": Format("cell.nwb", nwb),
    "sonata": Format("cell.h5", sonata),
    "circus": Format("cell.hdf5", circus),
    "psort": Format("cell.psort", psort),
    "mat": Format("cell.mat", matlab),
    "mat_raster": Format("cell.mat", matlab_raster),
    "mat4": Format("cell.mat", matlab_4),
    "mat73": Format("cell.mat", matlab_hdf5),
    "xlsx": Format("cell.xlsx", workbook, share=2),
    "nex": Format("cell.nex", neuroexplorer),
    "mclust": Format("cell.t", mclust),
    "phy": of_phy("params.py", b"sample_rate = 30000.\n"),
    "phy_labels": of_phy("cluster_group.tsv", LABELS),
    "parquet": of_models("models.parquet", models),
    "manifest": of_models("manifest.json", lambda: b'{"model": "stg"}'),
    "sweeps_csv": Format("cell.csv", sweeps_table, swept),
    "sweeps_npz": Format("cell.npz", sweeps_archive, swept),
    "sweeps_abf": Format("cell.abf", axon, swept, share=1),
}
