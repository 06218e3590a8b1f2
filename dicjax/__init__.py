"""From recorded spike times to validated populations of conductance-based neurons."""

import importlib as _importlib
import importlib.abc as _abc
import importlib.machinery as _machinery
import importlib.metadata as _metadata
import pathlib as _pathlib
import sys as _sys
import tomllib as _tomllib
import warnings as _warnings

import lazy_loader as _lazy


try:
    __version__ = _metadata.version("dicjax")
except _metadata.PackageNotFoundError:  # a checkout that is not installed
    _project = _pathlib.Path(__file__).parents[1] / "pyproject.toml"
    __version__ = _tomllib.loads(_project.read_text("utf-8"))["project"]["version"]

# Every public name is listed once, in `__init__.pyi`, and loaded when it is first used.
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

# Modules that moved, which are found under their old paths for one release.
_MOVED = {
    "dicjax.exporters": "dicjax.output.exporters",
    "dicjax.plots": "dicjax.output.plots",
    "dicjax.readers": "dicjax.recordings.readers",
}


class _OldPaths(_abc.MetaPathFinder, _abc.Loader):
    """Lends every name of a moved module to a module with its old path."""

    def find_spec(self, fullname, path=None, target=None):
        return _machinery.ModuleSpec(fullname, self) if fullname in _MOVED else None

    def create_module(self, spec):
        _warnings.warn(
            f"`{spec.name}` is now `{_MOVED[spec.name]}`: import it from there; the "
            "old path ends with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )

    def exec_module(self, module):
        moved = _importlib.import_module(_MOVED[module.__name__])
        vars(module)["__getattr__"] = lambda name: getattr(moved, name)
        vars(module)["__dir__"] = lambda: dir(moved)


_sys.meta_path.append(_OldPaths())
