"""`--help` of every command says all that was written for it, with an example, in 80 columns; the shell completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer import rich_utils
from typer.main import get_command
from typer.testing import CliRunner

from tierserve.cli import kubectl, main

APPS = {"tierserve": main.app, "kubectl tierserve": kubectl.app}
COMMANDS = [
    pytest.param(app, command, id=f"{program} {command}")
    for program, app in APPS.items()
    for command in sorted(get_command(app).commands)  # type: ignore[attr-defined]
]


def shown(app: Any, command: str, columns: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rich_utils, "MAX_WIDTH", columns)  # read from TERMINAL_WIDTH when it is imported
        found = CliRunner().invoke(app, [command, "--help"])
    assert found.exit_code == 0
    return found.output


def told(app: Any, command: str) -> str:
    """The help as one line of words, however it was laid out."""
    return re.sub(r"[\s│]+", " ", shown(app, command, 400))


@pytest.mark.parametrize(("app", "command"), COMMANDS)
def test_what_an_option_is_without_it_stands_in_the_help(app: Any, command: str) -> None:
    """In brackets at the end of its help, where a console would take some words for colours."""
    text = told(app, command)
    for option in get_command(app).commands[command].params:  # type: ignore[attr-defined]
        for left_out in re.findall(r"\\?(\[[^\]]+\])", getattr(option, "help", None) or ""):
            assert left_out in text, f"{option.name}: {left_out}"


def test_there_are_commands_with_such_options() -> None:
    assert {"plan", "simulate", "load"} <= set(get_command(main.app).commands)  # type: ignore[attr-defined]
    assert "[replicas.min]" in told(main.app, "simulate")


@pytest.mark.parametrize(("app", "command"), COMMANDS)
def test_the_help_has_an_example_that_begins_with_the_program(app: Any, command: str) -> None:
    program = next(name for name, one in APPS.items() if one is app)
    text = told(app, command)
    assert re.search(rf"Examples?:? .*{program} {command}", text), text


@pytest.mark.parametrize(("app", "command"), COMMANDS)
def test_the_help_fits_80_columns_without_a_word_cut_off(app: Any, command: str) -> None:
    text = shown(app, command, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


# Those that show no figures; `init` writes a file, as YAML or JSON, and the console has an API.
WITHOUT_DATA = {"init", "up", "down", "events", "plan", "console"}


@pytest.mark.parametrize(("app", "command"), COMMANDS)
def test_commands_that_show_figures_write_json_and_yaml(app: Any, command: str) -> None:
    if command not in WITHOUT_DATA or (app is main.app and command == "plan"):  # kubectl's plan takes its options
        assert "|json|yaml>" in told(app, command)


def completions(state: Path, line: str) -> list[str]:
    """What bash is given for a line whose last word is not complete."""
    program = Path(sys.executable).with_name("tierserve")
    environment = {
        **os.environ,
        "TIERSERVE_STATE": str(state),
        "_TIERSERVE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_names_of_services(
    running: Callable[..., Any], tmp_path: Path
) -> None:
    running("assistant")
    state = tmp_path / "state"
    assert "doctor" in completions(state, "tierserve do")
    assert "--tier" in completions(state, "tierserve explain --t")
    assert completions(state, "tierserve explain ass") == ["assistant"]
    assert completions(state, "tierserve explain other") == []


def test_kubectl_is_given_the_candidates_and_the_directive_of_cobra() -> None:
    command = [sys.executable, "-m", "tierserve.cli.kubectl_complete", "do"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["doctor", ":4"]
