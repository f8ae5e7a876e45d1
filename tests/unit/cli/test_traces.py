"""`plan`, `simulate` and `load` read traces by one reader, and refuse in its words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tierserve.cli.errors import UserError
from tierserve.cli.loadgen.command import load
from tierserve.cli.plan.command import plan
from tierserve.cli.simulate.command import simulate

SERVICE = str(Path(__file__).parents[3] / "examples" / "stores.yaml")
COMMANDS = {"plan": (plan, SERVICE), "simulate": (simulate, SERVICE), "load": (load, "http://127.0.0.1:9")}


@pytest.mark.parametrize(
    "content", [b"", b"TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-09,1,2\n,3,4\n", b"\0\xff"]
)
@pytest.mark.parametrize(("command", "target"), COMMANDS.values(), ids=COMMANDS)
def test_a_file_that_is_no_trace_is_refused_alike_by_every_command(
    tmp_path: Path, command: Callable[..., None], target: str, content: bytes
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    app = Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [target, "--trace", str(file)])
    assert isinstance(result.exception, UserError), result.output
    assert "t.csv" in result.exception.message
    assert result.exception.hint
