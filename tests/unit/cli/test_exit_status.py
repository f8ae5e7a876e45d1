"""Exit status: 2 for a wrong call, 1 for invalid input and for what fails in the doing (decision 21)."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tierserve.cli.demo import demo
from tierserve.cli.errors import UserError
from tierserve.cli.main import app
from tierserve.loadgen.http import first_model

SERVICE = str(Path(__file__).parents[3] / "examples" / "stores.yaml")
CLOSED = "http://127.0.0.1:9"
LOAD, SIMULATE, PLAN = ("load", CLOSED), ("simulate", SERVICE), ("plan", SERVICE)


def status(*words: str, command: Typer = app) -> int:
    result = CliRunner().invoke(command, list(words), env={"OPENAI_API_KEY": None})
    if isinstance(result.exception, UserError):
        assert result.exception.hint
        return result.exception.code
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code


@pytest.mark.parametrize(
    "words",
    [
        (*LOAD,),
        (*LOAD, "--connections", "1", "--rate", "1"),
        (*LOAD, "--connections", "few"),
        (*LOAD, "--connections", "4", "--duration", "soon"),
        (*LOAD, "--connections", "4", "--duration", "2s", "--warmup", "3s"),
        (*LOAD, "--connections", "4", "--duration", "900h"),
        (*LOAD, "--connections", "1000000"),
        (*LOAD, "--connections", "-1"),
        (*LOAD, "--rate", "fast"),
        (*LOAD, "--rate", "-1"),
        (*LOAD, "--rate", "1", "--arrivals", "often"),
        (*LOAD, "--connections", "1", "--header", "no colon"),
        (*LOAD, "--connections", "1", "--also", "riddle"),
        (*LOAD, "--connections", "1", "--also", "max-tokens=many"),
        (*LOAD, "--connections", "1", "--cacert", "no-such-file.pem"),
        (*LOAD, "--trace", "azure-code", "--start", "900h"),
        ("load", "ftp://127.0.0.1", "--connections", "1"),
        ("load", "http://192.0.2.7", "--connections", "1"),
        (*SIMULATE, "--rate", "1", "--duration", "soon"),
        (*SIMULATE, "--rate", "1", "--duration", "1m", "--startup", "soon"),
        (*SIMULATE, "--rate", "1", "--duration", "1m", "--fail", "soon=1"),
    ],
    ids=lambda words: " ".join(words[:1] + words[2:]),
)
def test_a_wrong_call_is_2(words: tuple[str, ...]) -> None:
    assert status(*words) == 2


@pytest.mark.parametrize("answer", [401, 403, 404, 500])
def test_a_load_on_a_server_that_lists_no_model_is_1(answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(answer)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr("tierserve.loadgen.runner.first_model", partial(first_model, patience_s=0.3))
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.server_port}"
            assert status("load", url, "--connections", "1", "--duration", "1s") == 1
        finally:
            listening.shutdown()
            thread.join()


def test_a_load_on_no_server_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierserve.loadgen.runner.first_model", partial(first_model, patience_s=0.3))
    assert status("load", CLOSED, "--connections", "1", "--duration", "1s") == 1


def test_too_few_open_files_are_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (64, 64))
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)  # the limit of this process stays
    assert status("load", CLOSED, "--connections", "100", "--duration", "1s") == 1


@pytest.mark.parametrize("words", [LOAD, SIMULATE, PLAN], ids=lambda words: words[0])
@pytest.mark.parametrize("content", [None, b"", b"riddle\n1\n"], ids=["missing", "empty", "unknown columns"])
def test_a_trace_that_is_none_is_1(tmp_path: Path, words: tuple[str, ...], content: bytes | None) -> None:
    """As a FILE that is missing or not valid."""
    file = tmp_path / "t.csv"
    if content is not None:
        file.write_bytes(content)
    assert status(*words, "--trace", str(file)) == 1


def test_a_demo_that_cannot_start_is_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tierserve.runtime.local.service import LocalService

    monkeypatch.setattr(LocalService, "is_supervised", lambda _self: True)
    command = Typer()
    command.command()(demo)
    assert status("--file", SERVICE, "--out", str(tmp_path), command=command) == 1


def test_the_plugin_without_kubectl_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from tierserve.cli import kubectl

    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert status("status", command=kubectl.app) == 1
