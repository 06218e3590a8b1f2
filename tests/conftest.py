import gc
import getpass
import os
import pathlib
import tempfile

import hypothesis
import jax
import pytest

from dicjax._core import in_this_process


# Most programs of tests run for a moment, so that making them fast would take longer.
FLAGS = ["backend_optimization_level=0", "cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):  # later, XLA stops at a flag that it has lost
    FLAGS.append("cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in FLAGS))
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs that several files or workers need are compiled by the first of them.
CACHE = pathlib.Path(tempfile.gettempdir()) / f"dicjax-tests-{getpass.getuser()}"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Tracing makes many objects, and few of them are garbage.
gc.set_threshold(100_000, 50, 1000)

# The first example of a test pays for its compilation, so no deadline.
hypothesis.settings.register_profile(
    "dicjax", deadline=None, derandomize=True, max_examples=50
)
hypothesis.settings.load_profile("dicjax")


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_do_not_pile_up():
    """Forgets compiled programs in time.

    Linux maps no more than 65,530 pieces of memory into a process. Every program takes
    several, and XLA crashes where none is left.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 40_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    """The folder of reference data, which is not part of the project."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("DICJAX_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set DICJAX_DATA to their folder")
    return folder


@pytest.fixture
def read_here():
    """Files are read in this process, where limits can be changed."""
    with in_this_process():
        yield
