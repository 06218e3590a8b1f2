"""The app in a process of its own, for tests."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest


class App:
    """`dicjax app` in a process of its own."""

    def __init__(self, folder: pathlib.Path, log: pathlib.Path):
        self.folder = folder
        command = [sys.executable, "-c", "from dicjax.cli import main; main()", "app"]
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [*command, "--no-browser", "--folder", str(folder)],
            cwd=log.parent,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | {"HOME": str(log.parent)},
        )
        self.said: list[str] = []  # lines up to the last address
        self._address, self._is_given = self._printed(), False
        self.url = self._address.partition("/?")[0]

    def _printed(self) -> str:
        """The next address that the app prints."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            found = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+", line)
            if found:
                return found[0]
        raise AssertionError(pathlib.Path(self.log.name).read_text())

    def address(self) -> str:
        """An address that opens the app, once."""
        if self._is_given:
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(self._address)
            self._address = self._printed()
        self._is_given = True
        return self._address

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.log.close()
