"""`--help` of every command says all that was written for it."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tierserve.cli.main import app

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def told(command: str) -> str:
    """The help as one line of words, however it was laid out."""
    found = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert found.exit_code == 0
    return re.sub(r"[\s│]+", " ", found.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_an_option_is_without_it_stands_in_the_help(command: str) -> None:
    """In brackets at the end of its help, where a console would take some words for colours."""
    text = told(command)
    for option in get_command(app).commands[command].params:  # type: ignore[attr-defined]
        for left_out in re.findall(r"\\?(\[[^\]]+\])", getattr(option, "help", None) or ""):
            assert left_out in text, f"{option.name}: {left_out}"


def test_there_are_commands_with_such_options() -> None:
    assert {"plan", "simulate", "load"} <= set(COMMANDS)
    assert "[replicas.min]" in told("simulate")
