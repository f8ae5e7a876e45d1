"""The tutorial: its commands and its Python, in their order, on one service of this machine from start to end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts.docs_commands import FILES, ROOT, SERVICE, blocks, commands

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.llm, pytest.mark.timeout(600)]
PAGE = ROOT / "docs" / "tutorial.md"
STEP_S = "5s"
"""Length of a step of the load, in place of the page's: what is tested is that the command works."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs a command in a folder with the examples and a state of its own; leaves no service behind."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "160", "TIERSERVE_STATE": str(tmp_path / "state")}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout

    yield run
    subprocess.run(["tierserve", "down", "assistant"], cwd=tmp_path, env=environment, capture_output=True, check=False)


def test_the_service_of_the_tutorial_starts_answers_is_loaded_and_stops(run: Callable[..., str]) -> None:
    found = [command.text for command in commands(PAGE) if command.kind in (FILES, SERVICE)]
    first = next(number for number, text in enumerate(found) if text.startswith("tierserve up "))
    for text in found[:first]:
        run("bash", "-c", text)
    # The first free port from 8080, which another service of this machine may have.
    address = re.search(r"http://127\.0\.0\.1:(\d+)", run("bash", "-c", found[first]))
    assert address is not None
    at = f"127.0.0.1:{address[1]}"
    for code in blocks(PAGE, "python"):
        assert run(sys.executable, "-c", code.replace("127.0.0.1:8080", at)).strip()
    seen = []
    for text in found[first + 1 :]:
        here = text.replace("127.0.0.1:8080", at).replace("--duration 20s", f"--duration {STEP_S}")
        out = run("bash", "-c", here)
        seen.append(text.split()[1])
        if text.startswith("curl "):
            assert json.loads(out)["choices"][0]["message"]["content"]
    assert {"load", "status", "down"} <= set(seen)
    assert json.loads(run("tierserve", "status", "-o", "json")) == []
