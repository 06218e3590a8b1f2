"""Looks for bytes that readers answer with no result and no sentence.

    python -m scripts.fuzz all --inputs 100000

changes sound files of every format at random, makes up files of variables, and reads
them. Faults are: a traceback of another type than `ValueError`, a message that is not
one sentence with the name of the file, more than ten seconds of a processor, and more
than 1 GB of memory. Their bytes are kept in the folder `--out`, and the status is 1.
Many inputs are read in one process; what is odd there is read again as users do.

    python -m scripts.fuzz mat --guided --minutes 5

is guided by what code is reached (by atheris: `pip install "dicjax[fuzz]"`), and reads
in its own process. The first fault ends it; the bytes are then in a file of the working
directory.
"""

import argparse
import contextlib
import importlib
import pathlib
import random
import sys
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
    import neo.io  # noqa: F401
    import scipy.io  # noqa: F401

    from dicjax._core import in_this_process
    from scripts.fuzz.running import at_random, KINDS, Reading, scratch


def guided(kind: str, minutes: float) -> None:
    with scratch() as root:
        own = Reading(kind, root)
        corpus = root / "corpus"
        corpus.mkdir()
        (corpus / "sound").write_bytes(own.sound)
        limits = ["-timeout=10", "-rss_limit_mb=3000", "-max_len=20000"]
        limits += [f"-max_total_time={round(60 * minutes)}", str(corpus)]
        read = lambda data: own.read(data, random.Random(len(data)))
        with in_this_process():  # where it can be followed
            atheris.Setup([sys.argv[0], *limits], read)
            atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=[*KINDS, "all"])
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
    kinds = [*KINDS] if options.format == "all" else [options.format]
    limits = (options.inputs, options.minutes, options.seed)
    return at_random(kinds, *limits, options.out)


if __name__ == "__main__":
    sys.exit(main())
