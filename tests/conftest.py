import os
import pathlib

import hypothesis
import jax
import pytest


jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a test pays for its compilation, so no deadline.
hypothesis.settings.register_profile(
    "dicjax", deadline=None, derandomize=True, max_examples=50
)
hypothesis.settings.load_profile("dicjax")


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    """The folder of reference data, which is not part of the project."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("DICJAX_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set DICJAX_DATA to their folder")
    return folder
