"""Options: every number has its range, files come from anywhere, and outputs are checked before the work."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner, Result

from tierserve.cli.errors import UserError
from tierserve.cli.main import app
from tierserve.cli.pictures import Picture

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
TEXT = (Path(__file__).parents[3] / "examples" / "smallest.yaml").read_text()
NUMBERS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if option.bare_type() in ("int", "float")
]
# What a command is given beside the option that is looked at; what FILE is does not matter, since it is not read.
REQUIRED = {"load": ["http://127.0.0.1:1"], "status": [], "down": []}


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


@pytest.mark.parametrize(("name", "option"), NUMBERS, ids=[f"{name} {option.name}" for name, option in NUMBERS])
def test_a_number_out_of_its_range_is_a_usage_error(name: str, option: object) -> None:
    flag = next(o for o in option.opts if o.startswith("--"))  # type: ignore[attr-defined]
    whole = option.bare_type() == "int"  # type: ignore[attr-defined]
    wrong = ["-1", "1" + "0" * 30, "x"] if whole else ["-1", "nan", "inf", "x"]
    for value in wrong:
        result = run(name, *REQUIRED.get(name, ["no-such-file.yaml"]), flag, value)
        assert result.exit_code == 2, (value, result.output, result.exception)
        assert not isinstance(result.exception, UserError), "of the command line, before the command itself"
        assert flag in result.output


def test_port_0_is_no_port() -> None:
    assert run("up", "no-such-file.yaml", "--port", "0").exit_code == 2
    assert run("up", "no-such-file.yaml", "--port", "65536").exit_code == 2


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("up", "down")])
def test_a_form_of_output_that_is_unknown_is_a_usage_error(command: str) -> None:
    arguments = REQUIRED.get(command, ["no-such-file.yaml"])
    assert run(command, *arguments, "--output", "riddle").exit_code == 2


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("arguments", [["validate"], ["plan", "--connections", "2"]], ids=lambda a: a[0])
def test_a_dash_reads_standard_input(arguments: list[str]) -> None:
    command, *options = arguments
    result = run(command, "-", *options, stdin=TEXT)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("arguments", [["validate"], ["plan", "--connections", "2"]], ids=lambda a: a[0])
def test_a_pipe_is_read_once_and_is_enough(arguments: list[str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(TEXT,))
    writer.start()
    command, *options = arguments
    result = run(command, str(pipe), *options)
    writer.join()
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["validate", "plan", "up"])
@pytest.mark.parametrize("file", ["/no/such/file", "/tmp", "/dev/null/x"])
def test_a_file_that_cannot_be_read_is_named(command: str, file: str) -> None:
    result = run(command, file)
    assert isinstance(result.exception, UserError)
    assert (result.exception.code, result.exception.message.startswith(f"{file}: ")) == (1, True)


@pytest.mark.parametrize("command", ["validate", "plan", "up"])
def test_bad_yaml_on_standard_input_is_told_with_its_line(command: str) -> None:
    result = run(command, "-", stdin="a: 1\nb: {{ .Values.b }}\n")
    told = result.output + str(result.exception)
    assert "-:2: b" in told
    code = result.exception.code if isinstance(result.exception, UserError) else result.exit_code
    assert code == 1


# --------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    "out", [lambda folder: folder / "a.txt", lambda folder: folder, lambda _: Path("/proc/none/a.png")]
)
def test_a_picture_that_cannot_be_is_refused_before_the_work(out: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        Picture(out(tmp_path), tmp_path / "default.png")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_nobody_asked_for_costs_no_more_than_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Picture(None, Path("/proc/none/a.png"))
    picture.draw(lambda _: pytest.fail("there is no folder"))
    picture.report()
    assert picture.written is None
    assert "/proc/none/a.png" in capsys.readouterr().err


def test_a_picture_that_fails_at_last_is_an_error_after_the_figures(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    picture = Picture(tmp_path / "new" / "a.png", tmp_path / "default.png")
    picture.draw(full)
    with pytest.raises(UserError, match="No space left") as caught:
        picture.report()
    assert caught.value.code == 1


def test_a_sweep_shows_its_figures_though_its_picture_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    result = run("plan", "-", "--sweep", "1..100", "-o", "json", stdin=TEXT)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["picture"] is None


@pytest.mark.parametrize("arguments", [["validate"], ["plan", "-n", "2"]], ids=lambda a: a[0])
def test_yaml_has_the_same_values_as_json(arguments: list[str]) -> None:
    command, *options = arguments
    forms = {form: run(command, "-", *options, "-o", form, stdin=TEXT) for form in ("json", "yaml")}
    assert {one.exit_code for one in forms.values()} == {0}
    assert yaml.safe_load(forms["yaml"].stdout) == json.loads(forms["json"].stdout)
