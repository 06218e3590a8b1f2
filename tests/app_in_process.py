"""The app in a process of its own, for tests."""

import os
import pathlib
import re
import signal
import subprocess
import sys


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
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=[\w-]+", said)
        assert found, f"{said}{log.read_text()}"
        self.address, self.url = found[0], found[1]

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.log.close()
