"""The house: rooms on one ground, each of which knows only those to its left."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

import dicjax


ROOMS = (
    ("_core",),
    ("neurons", "spikes"),
    ("simulation", "recordings", "dics"),
    ("populations", "inference"),
    ("operator",),
    ("generation",),
    ("output",),
    ("sweeps",),
    ("__init__",),
    ("app",),
    ("cli",),
    ("__main__",),
)
STRANGERS = (
    {"neurons", "spikes"},
    {"simulation", "recordings"},
    {"simulation", "dics"},
    {"recordings", "dics"},
    {"populations", "inference"},
    {"populations", "operator"},
)
MOST_FILES = 14  # in a room, beside its face
MOST_LINES = 500
MOST_LINES_OF_A_CLASS = 150
LARGE = {"Neuron"}

PACKAGE = pathlib.Path(dicjax.__file__).parent
NAMES = pathlib.Path(__file__).with_name("public_names.txt")
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Modules of dicjax that a file imports from, each with the name it takes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        else:
            continue
        yield from (x for x in names if x[0].split(".")[0] == "dicjax")


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_rooms_import_only_rooms_to_their_left_through_their_faces(path):
    own = room_of(path)
    assert own in FLOOR, f"{own} is no room"
    for module, name in imported(path):
        _, *inside = module.split(".")
        room = inside[0] if inside else name if name in FLOOR else "__init__"
        if room == own:
            continue
        assert FLOOR[room] < FLOOR[own], f"{own} imports {module}, to its right"
        assert {room, own} not in STRANGERS, f"{own} may not know {room}"
        assert len(inside) <= 1, f"import {name} from dicjax.{room}, not from {module}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_use_only_what_others_have_made_public(path):
    private = [name for _, name in imported(path) if name.startswith("_")]
    assert not [name for name in private if name not in FLOOR]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_and_classes_stay_readable(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_CLASS
    ]
    assert set(long) <= LARGE


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}))
def test_rooms_stay_small(folder):
    faces = ("__init__.py", "__main__.py")
    files = [path for path in folder.glob("*.py") if path.name not in faces]
    assert len(files) <= (0 if folder == PACKAGE else MOST_FILES)


def test_public_names_are_those_that_were_agreed_upon():
    assert sorted(dir(dicjax)) == NAMES.read_text().split()
