"""What commands share."""

import pathlib
import sys

import tyro


File = tyro.conf.Positional[pathlib.Path]
Flat = tyro.conf.OmitArgPrefixes


class Progress:
    """A bar that follows named stages of work."""

    def __enter__(self):
        self.bar = None
        self.stage = None
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            # A log has no use for a bar that moves.
            interval = 0.1 if sys.stderr.isatty() else 10.0
            self.bar = tqdm(
                total=total,
                file=sys.stderr,
                leave=False,
                mininterval=interval,
                maxinterval=interval,
            )
        self.bar.total = total
        self.bar.set_description(stage, refresh=False)
        self.bar.update(min(done, total) - self.bar.n)
        if stage != self.stage:
            self.stage = stage
            self.bar.refresh()

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()


def say(message: str) -> None:
    """Tells the user what is no result."""
    print(message, file=sys.stderr)


def models_of(path: pathlib.Path, model: str | None):
    """The neuron of a table of models, and their conductances."""
    from dicjax.checkpoint import find_neuron
    from dicjax.tables import read_models

    if model is not None:
        neuron, _ = find_neuron(model)
        return neuron, read_models(path, neuron)[1]
    name, g = read_models(path)
    return find_neuron(name)[0], g


def write_table(columns: dict[str, list], out: pathlib.Path | None) -> None:
    """Writes columns as CSV, to the terminal if there is no file."""
    import pyarrow as pa
    from pyarrow import csv

    from dicjax.tables import replacing

    table = pa.table(columns)
    if out is None:
        sink = pa.BufferOutputStream()
        csv.write_csv(table, sink)
        print(sink.getvalue().to_pybytes().decode(), end="")
        return
    with replacing(out) as path:
        csv.write_csv(table, path)
