"""Changes of sound files, and files of variables that nobody would save."""

import io
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import scipy.io


NUMBERS = [0, 1, -1, 2**7 - 1, 2**15 - 1, 2**31 - 1, 2**62, -(2**31)]
WORDS = [b"nan", b"-1", b"1e999", b";", b",", b"\n", b"\t", b'"', b"0", b"9" * 30]
WORDS += [b"\x00", b"\xff\xfe", "µ".encode(), b"=1+1", b"inf", b"samples", b"ISI"]
WORDS += [
    b":",
    b"[",
    b"0:00",
    b"\x85",
    "\u2028".encode(),
    b"#",
    b"'",
    b" ",
    b"1.107,16",
]


def changed(content: bytes, random: random.Random) -> bytes:
    """The bytes with one to five changes; in a zip, often within one of its files."""
    if content[:2] == b"PK" and random.random() < 0.7:
        return _changed_within(content, random)
    raw = bytearray(content)
    if random.random() < 0.1 and b"\0" not in content:
        raw = bytearray(_rewritten(content, random))
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


def _rewritten(content: bytes, random: random.Random) -> bytes:
    """Text with another separator, decimal mark, order of lines or encoding."""
    old, new = random.sample([b",", b";", b"\t", b" ", b".", b"\r\n", b"\n"], 2)
    if random.random() < 0.5:
        return content.replace(old, new)
    if random.random() < 0.5:
        lines = content.split(b"\n")
        random.shuffle(lines)
        return b"\n".join(lines)
    encoding = random.choice(["utf-16", "utf-16-be", "utf-8-sig", "utf-32"])
    return content.decode("latin-1").encode(encoding)


def _changed_within(content: bytes, random: random.Random) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        chosen = random.choice(old.namelist())
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, changed(part, random) if name == chosen else part)
    return out.getvalue()


# ---- variables

NAMES = ["t", "ts", "times", "spike_times", "spikes", "time_ms", "isi", "unit", "units"]
NAMES += ["fs", "name", "label", "trial", "time", "cluster_class", "UID", "spikeTimes"]
NAMES += ["spikeDetectionResult", "channels", "id", "cluster", "t_start", "t_stop"]
NAMES += ["unit_ids", "num_segment", "sampling_frequency", "spike_indexes_seg0"]
NAMES += ["spike_labels_seg0", "start", "end", "type", "index", "keys", "amplitude"]
NAMES += ["spike_clusters", "x", "LP", "params", "data", "V_mV", "I_pA", "t_ms", "row"]
_TEXTS = ["ms", "s", "seconds", "samples", "samples@30000", "", "TsGroup", "µ", "a\nb"]
_KINDS = ["f8", "f4", "i8", "i4", "u1", "i1", "u8", "bool", "c16"]


def numbers(random: random.Random) -> Any:
    """Numbers of any kind and shape: times, whole numbers, bits, and odd ones."""
    size = random.choice([0, 1, 2, 3, 12, 40, 120])
    source = np.random.default_rng(random.getrandbits(32))
    match random.randrange(6):
        case 0:
            values = np.cumsum(source.exponential(50, size))
        case 1:
            values = source.integers(0, random.choice([2, 3, 1000]), size)
        case 2:
            values = np.arange(size) * random.choice([1, 0.5, -1])
        case 3:
            values = np.full(size, random.choice([0.0, np.nan, np.inf, -1.0, 1e300]))
        case 4:
            values = np.sort(
                source.normal(scale=10.0 ** source.integers(-5, 15), size=size)
            )
        case _:
            values = np.cumsum(source.exponential(50, size))
            values[size // 2 :] = random.choice([0, np.nan])
    with np.errstate(all="ignore"):
        values = values.astype(random.choice(_KINDS[:1] * 9 + _KINDS))
    splits = [x for x in (1, 2, 3, 4, 12) if size and not size % x]
    if splits and random.random() < 0.5:
        first = random.choice(splits)
        rest = size // first
        halves = (2, rest // 2) if not rest % 2 and random.random() < 0.3 else (rest,)
        values = values.reshape(first, *halves)
    return values.T if random.random() < 0.3 else values


def value(random: random.Random, depth: int = 3) -> Any:
    """A value that a MATLAB file may hold."""
    kind = random.random()
    if kind < 0.65 or not depth:
        return numbers(random)
    if kind < 0.75:
        return random.choice(_TEXTS)
    if kind < 0.87:
        cells = np.empty(random.choice([0, 1, 2, 5]), object)
        cells[:] = [value(random, depth - 1) for _ in cells]
        return cells
    if kind < 0.9:
        small = numbers(random)
        small = small if small.ndim == 2 else np.atleast_2d(small.ravel())
        return scipy.sparse.csc_array(np.nan_to_num(np.real(small).astype(float)))
    return variables(random, depth - 1)


def variables(random: random.Random, depth: int = 3) -> dict[str, Any]:
    names = random.sample(NAMES, random.randint(1, 5))
    return {name: value(random, depth) for name in names}


def matlab(random: random.Random) -> bytes:
    is_small = random.random() < 0.3
    scipy.io.savemat(file := io.BytesIO(), variables(random), do_compression=is_small)
    return file.getvalue()


def archive(random: random.Random) -> bytes:
    chosen = random.sample(NAMES, random.randint(1, 8))
    is_text = {name: random.random() < 0.15 for name in chosen}
    parts: dict[str, Any] = {
        name: np.array(random.choice(_TEXTS)) if is_text[name] else numbers(random)
        for name in chosen
    }
    np.savez(file := io.BytesIO(), **parts)
    return file.getvalue()


def hdf5(random: random.Random) -> bytes:
    """Datasets at the places that readers look into."""
    places = [f"units/{x}" for x in ("id", "spike_times", "spike_times_index")]
    places += ["units/obs_intervals", "units/obs_intervals_index"]
    sonata = ["spikes/v1/timestamps", "spikes/v1/node_ids"]
    circus = ["spiketimes/temp_0", "spiketimes/temp_1"]
    slots = ("ss_index", "cs_index", "sample_rate", "ch_time")
    psort = [f"data/i0/{slot}" for slot in slots]
    places = random.choice([places, sonata, circus, psort])
    with h5py.File(file := io.BytesIO(), "w") as writer:
        for place in places:
            if random.random() < 0.85:
                is_text = random.random() < 0.05
                writer[place] = random.choice(_TEXTS) if is_text else numbers(random)
                if random.random() < 0.2:
                    stated = random.choice([*_TEXTS, 3])
                    writer[place].attrs["unit"] = writer[place].attrs["units"] = stated
    return file.getvalue()


def units(random: random.Random) -> bytes:
    """Units of NWB, most of them with indices that fit."""
    if random.random() < 0.2:
        return hdf5(random)
    num = random.choice([1, 2, 5])
    with h5py.File(file := io.BytesIO(), "w") as writer:
        writer["units/id"] = np.arange(num)
        for name in ("spike_times", "obs_intervals")[: random.randint(1, 2)]:
            width = 1 if name == "spike_times" else 2
            rows = [np.ravel(np.real(numbers(random))) for _ in range(num)]
            rows = [row[: len(row) // width * width] for row in rows]
            rows = [np.sort(row) if random.random() < 0.8 else row for row in rows]
            values = np.concatenate(rows).reshape((-1, 2) if width == 2 else -1)
            writer[f"units/{name}"] = values
            ends = np.cumsum([len(row) // width for row in rows])
            writer[f"units/{name}_index"] = ends.astype(random.choice(["u1", "i8"]))
    return file.getvalue()


def sweeps(random: random.Random) -> bytes:
    """Time, current and potential, most of them alike in shape."""
    shape = random.choice([(40,), (1, 40), (3, 120), (12, 12), (2, 1)])
    source = np.random.default_rng(random.getrandbits(32))
    every = random.choice([0.05, 0.1, 1.0, 0.0, 1e-9])
    time, pulse = every * np.arange(shape[-1]), source.integers(0, 2, shape)
    parts: dict[str, Any] = {
        random.choice(["time_ms", "t_s", "t_ms"]): time,
        random.choice(["current_pA", "I_nA"]): 50.0 * np.sort(pulse),
        random.choice(["voltage_mV", "V_V"]): source.normal(-60, 5, shape),
    }
    for name in random.sample([*parts], random.choice([0, 0, 1, 2])):
        odd = random.choice([np.nan, np.inf, 1e300, -1e3])
        change = random.choice(["one", "all", "other", "kind"])
        if change == "one":
            parts[name].flat[random.randrange(parts[name].size)] = odd
        if change == "all":
            parts[name] = np.full_like(parts[name], odd)
        if change == "other":
            parts[name] = numbers(random)
        if change == "kind":
            with np.errstate(all="ignore"):
                parts[name] = parts[name].astype(random.choice(_KINDS))
    np.savez(file := io.BytesIO(), **parts)
    return file.getvalue()


def table(random: random.Random) -> bytes:
    """Columns of numbers under headers that readers know, or under none."""
    mark = random.choice([",", ";", "\t", " ", ", "])
    num, width = random.choice([1, 3, 12, 40]), random.randint(1, 5)
    columns = [_cells(random, num) for _ in range(width)]
    rows = [mark.join(cells) for cells in zip(*columns, strict=True)]
    if random.random() < 0.6:
        rows.insert(0, mark.join(random.choices([*NAMES, *_TEXTS], k=width)))
    for _ in range(random.choice([0, 0, 1, 2])):
        word = random.choice(WORDS).decode("latin-1")
        rows.insert(random.randrange(len(rows) + 1), word)
    return random.choice(["\n", "\r\n"]).join(rows).encode()


def _cells(random: random.Random, num: int) -> list[str]:
    values = np.resize(np.real(np.ravel(numbers(random))), num).astype(float)
    form = random.choice(["{:g}", "{}", "{:.3f}", "{:,.2f}", '"{:.1f}"', "{:.0f}"])
    cells = [form.format(x) for x in values.tolist()]
    match random.randrange(8):
        case 0:
            cells = [x.replace(",", "").replace(".", ",") for x in cells]
        case 1:
            cells = [f"{i // 60}:{i % 60:02}:{i % 7:02}.5" for i in range(num)]
        case 2:
            cells = [random.choice(["a", "b", "", "nan"]) for _ in cells]
        case 3:
            cells[random.randrange(num) :] = [""] * num
    return cells[:num]


MADE: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {
    "made_mat": ("cell.mat", matlab),
    "made_npz": ("cell.npz", archive),
    "made_hdf5": ("cell.h5", hdf5),
    "made_nwb": ("cell.nwb", units),
    "made_csv": ("cell.csv", table),
    "made_sweeps": ("cell.npz", sweeps),
}
