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
            self.bar = tqdm(total=total, file=sys.stderr, leave=False)
        self.bar.total = total
        self.bar.set_description(stage, refresh=False)
        self.bar.n = min(done, total)
        self.bar.refresh()

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()


def say(message: str) -> None:
    """Tells the user what is no result."""
    print(message, file=sys.stderr)
