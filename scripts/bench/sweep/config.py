"""The sweep that is measured."""

import pathlib


CONFIG = """
job = "simulate"
model = "stg"
[members]
num = {num}
[simulation]
duration = {duration}
discard = {discard}
"""


def write_config(folder: pathlib.Path, num: int, duration: float) -> pathlib.Path:
    """Writes the file of a sweep that simulates `num` members for `duration` ms."""
    path = folder / f"sweep-{num}.toml"
    text = CONFIG.format(num=num, duration=duration, discard=duration / 3)
    path.write_text(text, encoding="utf-8")
    return path
