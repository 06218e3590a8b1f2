"""Tables in parts on disk: each part is whole or absent, and known by its checksum.

A part counts if a line of the manifest names it with the checksum of its file. The line
is written before the file takes its name. If a process dies in between, there is a line
without a file, and never a file without a line. What a part holds does not depend on
who wrote it, or when.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import portalocker
import pyarrow as pa
import pyarrow.parquet as pq

from dicjax._core.files import replacing, sha256


PARTS, MANIFEST, LOCK = "parts", "manifest", "lock"

Row = dict[str, Any]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Swept(Generic[T]):
    """Members that a sweep has simulated.

    - `num`: how many were drawn; `seed`: what they follow from.
    - `read`: reads them. Training with this number and seed would simulate the same
        members: to the last bit, on the same kind of device with the same versions of
        packages.
    """

    num: int
    seed: int
    read: Callable[[], T]


class Busy(ValueError):
    """Another process works in the folder."""


class Store:
    """Parts and their manifest in a folder.

    - `identity`: of the plan that parts are made by. Every part and every line of the
        manifest names it; parts of other plans do not count.
    """

    def __init__(self, folder: pathlib.Path, identity: str):
        self.folder, self.identity = folder, identity
        self.parts, self.manifest = folder / PARTS, folder / MANIFEST
        # A file of its own for every process, so that lines never mix.
        self._host = socket.gethostname()
        mark = f"{self._host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lines = self.manifest / f"{mark}.jsonl"

    def path(self, shard: int) -> pathlib.Path:
        """The file of a part."""
        return self.parts / f"part-{shard:06}.parquet"

    def write(self, shard: int, table: pa.Table, about: Mapping[str, Any]) -> Row:
        """Writes a part, and its line in the manifest with what is `about` it."""
        self.parts.mkdir(parents=True, exist_ok=True)
        metadata = {"sweep": self.identity, "shard": str(shard)}
        table = table.replace_schema_metadata(metadata)
        with replacing(self.path(shard)) as partial:
            with partial.open("wb") as out:
                pq.write_table(table, out, compression="zstd", write_page_checksum=True)
                out.flush()
                os.fsync(out.fileno())
            row = {
                "shard": shard,
                "sha256": sha256(partial),
                "bytes": partial.stat().st_size,
                "rows": len(table),
                **about,
            }
            self.note(row)
        _sync(self.parts)
        return row

    def note(self, row: Mapping[str, Any]) -> None:
        """Adds a line to the manifest."""
        self.manifest.mkdir(parents=True, exist_ok=True)
        whose = {"sweep": self.identity, "host": self._host, "pid": os.getpid()}
        line = json.dumps({**row, **whose, "time": time.time()}) + "\n"
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[Row]:
        """All lines of the manifest, in order of time."""
        rows = []
        for path in self.manifest.glob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # cut off where a process died
                    row = json.loads(line)
                    if isinstance(row, dict) and row.get("sweep") == self.identity:
                        rows.append(row)
        return sorted(rows, key=lambda row: row["time"])

    def done(self, shards: Iterable[int], *, check: bool = True) -> dict[int, Row]:
        """Of these shards, those whose part is there and whole, with their lines.

        Without `check`, sizes are compared instead of checksums.
        """
        vouched: dict[int, dict[Any, Row]] = {}
        key = "sha256" if check else "bytes"
        for row in self.rows():
            if "sha256" in row:
                vouched.setdefault(row["shard"], {})[row[key]] = row

        def row_of(shard: int) -> tuple[int, Row | None]:
            known = vouched.get(shard)
            path = self.path(shard)
            try:
                found = sha256(path) if check and known else path.stat().st_size
            except OSError:
                return shard, None
            return shard, (known or {}).get(found)

        with ThreadPoolExecutor() as pool:  # reading and hashing wait for no lock
            found = list(pool.map(row_of, shards))
        return {shard: row for shard, row in found if row is not None}

    def strangers(self, num_shards: int) -> list[pathlib.Path]:
        """Parquet files that are no part of these, but would be read as one."""
        own = {self.path(shard).name for shard in range(num_shards)}
        return [x for x in sorted(self.parts.glob("*.parquet")) if x.name not in own]

    def tidy(self) -> None:
        """Removes partial files of processes that died; no other may be writing."""
        for path in self.parts.glob(".part-*.partial"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, share: tuple[int, int] | None = None) -> Iterator[None]:
        """Keeps others from all parts or the same share; `Busy` if one has them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Shares work side by side, but not beside a process that has all parts.
        kind = portalocker.LOCK_EX if share is None else portalocker.LOCK_SH
        with contextlib.ExitStack() as stack:
            stack.enter_context(_held(self.folder / LOCK, kind))
            if share is not None:
                own = self.folder / f"{LOCK}-{share[0]}-of-{share[1]}"
                stack.enter_context(_held(own, portalocker.LOCK_EX))
            yield


@contextlib.contextmanager
def _held(path: pathlib.Path, kind: portalocker.LockFlags) -> Iterator[None]:
    # The system gives the lock back when the process ends, however it ends.
    with path.open("a+") as file:
        try:
            portalocker.lock(file, kind | portalocker.LOCK_NB)
        except portalocker.LockException as e:
            file.seek(0)
            who = file.read().strip() or "another process"
            raise Busy(
                f"{path.parent} is being worked on by {who}: wait until that is done, "
                "or stop it first."
            ) from e
        if kind == portalocker.LOCK_EX:
            file.truncate(0)
            began = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {began}")
            file.flush()
        yield


def _sync(folder: pathlib.Path) -> None:
    """Makes names in a folder last, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
