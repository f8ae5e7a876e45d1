"""After `pip install tierserve` without extras every command works, or names the extra that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("base_install.py")
EXAMPLE = str(Path(__file__).parents[3] / "examples" / "smallest.yaml")
WORKS = [
    ["tierserve", "--help"],
    ["tierserve", "validate", EXAMPLE],
    ["tierserve", "plan", EXAMPLE, "--connections", "5"],
    ["tierserve", "init", "-", "--yes"],
    ["tierserve", "status"],
    ["tierserve", "top", "--once"],
    ["tierserve", "explain"],
    ["tierserve", "down"],
    *(
        ["tierserve", name, "--help"]
        for name in (
            "init",
            "validate",
            "plan",
            "simulate",
            "profile",
            "up",
            "status",
            "top",
            "console",
            "explain",
            "report",
            "doctor",
            "down",
            "load",
        )
    ),
    ["kubectl-tierserve", "--help"],
    ["kubectl-tierserve", "status", "--help"],
]
NEEDS = [
    ("serving", ["tierserve", "up", EXAMPLE]),
    ("serving", ["tierserve", "status", "one"]),
    ("serving", ["tierserve", "explain", "one"]),
    ("serving", ["tierserve", "down", "one"]),
    ("serving", ["tierserve", "doctor"]),
    ("serving", ["tierserve", "console"]),
    ("serving", ["tierserve", "load", "http://127.0.0.1:1", "--connections", "1", "--duration", "1s"]),
    ("serving", ["tierserve", "profile", EXAMPLE, "--model", "large"]),
    ("simulate", ["tierserve", "simulate", EXAMPLE, "--rate", "1", "--duration", "1s"]),
]
QUICK = ["tierserve", "down"]


def run(arguments: list[str], state: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TIERSERVE_STATE": str(state)}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def words(arguments: list[str]) -> str:
    return " ".join(arguments[:2] + arguments[-1:])


@pytest.mark.parametrize(
    "arguments", [pytest.param(a, id=words(a), marks=[] if a == QUICK else pytest.mark.slow) for a in WORKS]
)
def test_without_extras_it_works(arguments: list[str], tmp_path: Path) -> None:
    done = run(arguments, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [pytest.param(e, a, id=words(a), marks=[] if a[1] == "up" else pytest.mark.slow) for e, a in NEEDS],
)
def test_without_extras_it_names_the_one_it_needs(extra: str, arguments: list[str], tmp_path: Path) -> None:
    done = run(arguments, tmp_path)
    assert done.returncode == 1
    # `doctor` has it among its results, the others in their error.
    assert f"tierserve[{extra}]" in (done.stdout if arguments[1] == "doctor" else done.stderr)
    assert "Traceback" not in done.stderr
