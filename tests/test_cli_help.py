"""What `--help` says of every command."""

import re
import shlex

import pytest
import tyro

from dicjax.cli.commands import Commands
from dicjax.cli.common import Command, WORDS


COMMANDS = (
    *("app", "generate", "infer", "features", "simulate", "dic", "certify"),
    *("explain", "export", "train", "adapt", "example"),
    *("sweep run", "sweep status"),
    *(f"operator {x}" for x in ("train", "tune", "predict", "ensemble", "compare")),
)
TYPES = re.compile(r"\b(INT|FLOAT|STR|PATH|BOOL|None)\b(?!\))")


def parsed(args: list[str]):
    return tyro.cli(Commands, args=args, prog="dicjax", registry=WORDS)


def help_of(command: str, capsys, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "400")  # no line is broken
    with pytest.raises(SystemExit) as ended:
        parsed([*command.split(), "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_an_example_that_the_command_takes(command, capsys, monkeypatch):
    said = help_of(command, capsys, monkeypatch)
    (example,) = set(re.findall(r"For example: (dicjax .*?) *\W?$", said, re.M))
    _, *args = shlex.split(example)
    assert args[: len(command.split())] == command.split()
    assert isinstance(parsed(args), Command)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_what_is_meant_and_no_types(command, capsys, monkeypatch):
    said = help_of(command, capsys, monkeypatch)
    assert not [line for line in said.splitlines() if TYPES.search(line)]


def test_all_commands_are_known_here(capsys, monkeypatch):
    listed = lambda said: re.findall(r"usage: .*\{([\w,-]+)\}", said)[0].split(",")
    found = []
    for name in listed(help_of("", capsys, monkeypatch)):
        said = help_of(name, capsys, monkeypatch)
        is_group = "subcommands" in said
        found += [f"{name} {x}" for x in listed(said)] if is_group else [name]
    assert sorted(found) == sorted(COMMANDS)
