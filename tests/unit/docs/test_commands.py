"""Commands of README, tutorial and planning end as the pages say; folders of pages have a complete index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.docs_commands import FILES, HERE, ROOT, SERVICE, Command, commands

DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", DOCS / "tutorial.md", DOCS / "planning.md")
SLOW = ("--trace", "--sweep", "simulate")
ROW = re.compile(r"^\| `(tierserve (?:validate|plan|simulate) FILE[^`]*)`", re.MULTILINE)
TABLE: list[str] = ROW.findall(PAGES[0].read_text())


def cases(page: Path) -> list[object]:
    found = [command for command in commands(page) if command.kind == HERE]
    return [_case(page, command) for command in found]


def _case(page: Path, command: Command) -> object:
    marks = [pytest.mark.slow] if any(word in command.text for word in SLOW) else []
    return pytest.param(page, command, marks=marks, id=f"{page.stem}: {command.text.split('#')[0].strip()}")


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "160", "TIERSERVE_STATE": str(folder / "state")}
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the examples, and with `service.yaml` of the reader."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "examples" / "smallest.yaml", tmp_path / "service.yaml")
    return tmp_path


@pytest.mark.parametrize(("page", "command"), [case for page in PAGES for case in cases(page)])
def test_a_command_that_needs_no_service_ends_as_the_page_says(page: Path, command: Command, folder: Path) -> None:
    for other in commands(page):
        if other.kind == FILES:
            assert run(other.text, folder).returncode == 0, other.text
    done = run(command.text, folder)
    assert done.returncode == command.status, done.stdout + done.stderr
    assert (done.stdout + done.stderr).strip(), "a reader sees something"


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE)
def test_a_command_of_the_readmes_table_has_the_options_that_it_names(row: str, folder: Path) -> None:
    """Exit status 1 is the planner's: the file allows too few replicas for the load; 2 would be wrong usage."""
    done = run(row.replace("FILE", "service.yaml"), folder)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr


def test_the_table_of_the_readme_was_read() -> None:
    assert {row.split()[1] for row in TABLE} == {"validate", "plan", "simulate"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_of_a_kind_that_some_test_runs(page: Path) -> None:
    found = commands(page)
    assert len(found) >= 2
    assert [command.text for command in found if command.kind is None] == []
    if page.stem != "tutorial":  # the service of the tutorial is started in tests/e2e/local
        assert [command.text for command in found if command.kind == SERVICE] == []


@pytest.mark.parametrize("folder", ["decisions", "runbooks", "benchmarks"])
def test_the_index_of_a_folder_has_all_its_pages(folder: str) -> None:
    pages = {page.name for page in (DOCS / folder).glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / folder / "README.md").read_text())) == pages
