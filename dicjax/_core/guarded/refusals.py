"""What a process that reads files of strangers refuses to do."""

import sys
from typing import Any


MAX_LINKS = 32  # that lead to one another; HDF5 follows 16
# Events of Python's audit that reach for a network or start a program.
_REACHING = (
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
)
_STARTING = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
)


class Forbidden(OSError):
    """What a file leads to, and no reader follows."""


def stay_here() -> None:
    """From now on, this process reaches no network and starts no program."""

    def refuse(event: str, _: object) -> None:
        if event in _REACHING:
            raise Forbidden("files are read without a network")
        if event in _STARTING:
            raise Forbidden("files are read without other programs")

    sys.addaudithook(refuse)


def follow_no_links() -> None:
    """From now on, h5py reads nothing that lies in other files.

    Links to other files, virtual datasets and external storage raise `Forbidden`.
    """
    import h5py

    group: Any = h5py.Group
    item_of, has = group.__getitem__, group.__contains__

    def checked_item(self: Any, name: Any) -> Any:
        if isinstance(name, str | bytes):
            _check_way(h5py, self.id, name)
        item = item_of(self, name)
        if isinstance(item, h5py.Dataset):
            _check_storage(item)
        return item

    def checked_has(self: Any, name: Any) -> bool:
        if isinstance(name, str | bytes):
            _check_way(h5py, self.id, name)
        return has(self, name)

    group.__getitem__, group.__contains__ = checked_item, checked_has


def _check_way(h5py: Any, group: Any, name: str | bytes) -> None:
    """Raises `Forbidden` if the way from a group to a name leaves the file."""
    here, left = group, MAX_LINKS
    way = _steps(name.encode() if isinstance(name, str) else name)
    while way:
        step = way.pop(0)
        if step == b"/":
            here = h5py.h5o.open(h5py.h5i.get_file_id(group), b"/")
            continue
        if not isinstance(here, h5py.h5g.GroupID) or not here.links.exists(step):
            return  # it is not there, as h5py says itself
        kind = here.links.get_info(step).type
        if kind == h5py.h5l.TYPE_HARD:
            here = h5py.h5o.open(here, step)
        elif kind == h5py.h5l.TYPE_SOFT:
            way, left = _steps(here.links.get_val(step)) + way, left - 1
            if not left:
                return  # HDF5 gives up earlier
        else:
            raise Forbidden("it links to another file")


def _steps(way: bytes) -> list[bytes]:
    start = [b"/"] if way.startswith(b"/") else []
    return start + [part for part in way.split(b"/") if part not in (b"", b".")]


def _check_storage(dataset: Any) -> None:
    if dataset.external:
        raise Forbidden("its numbers are in another file")
    if dataset.is_virtual:
        sources = {source.file_name for source in dataset.virtual_sources()}
        if sources != {"."}:
            raise Forbidden("its numbers are in another file")
