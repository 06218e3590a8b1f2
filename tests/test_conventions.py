"""What holds in every file, so that no reader has to check it."""

import pathlib
import re

import pytest

import dicjax


PACKAGE = pathlib.Path(dicjax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_nothing_waits_for_workers_of_the_pool_it_runs_on(path):
    # As LAPACK and transforms do, for ever if there are two at once on two cores.
    waiting = r"jnp\.linalg\.(?!norm)|jax\.scipy\.linalg|jnp\.fft"
    assert not re.search(waiting, path.read_text()), "see _core/linear_algebra.py"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_only_the_doors_print_or_configure(path):
    # A process that a sweep starts comes in by a door of its own.
    if path.relative_to(PACKAGE).parts[0] == "cli" or path.stem == "worker_main":
        return
    text = path.read_text()
    assert "print(" not in text
    assert "os.environ" not in text
    assert "jax.config.update" not in text


def test_the_encoder_sees_arrays_only():
    text = (PACKAGE / "inference" / "encoder.py").read_text()
    assert not re.search(r"Neuron\b|simulat\w+\(|MODELS", text)
