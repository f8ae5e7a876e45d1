"""Commands and Python blocks of the pages, for the tests that run them.

A line of a block fenced as `sh` is a command. Its comment may have the exit status that it ends with, where that is not
0: `# what it does; exit status 1: why`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ("tierserve validate ", "tierserve plan ", "tierserve simulate ", "tierserve --help", "cat ")
"""Beginnings of commands that need no service; each is run by itself."""
FILES = ("cp ",)
"""Beginnings of commands that make the files of the others."""
SERVICE = ("tierserve up ", "tierserve status", "tierserve load ", "tierserve down", "curl ")
"""Beginnings of commands of a running service, run in the order of the page."""
SET_UP = ("make ", "export PATH=")
"""Beginnings of commands that set up what the tests have already."""
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STATUS = re.compile(r"#.*exit status (\d)")


@dataclass(frozen=True)
class Command:
    """One command, and the exit status that the page says."""

    text: str
    status: int = 0

    @property
    def kind(self) -> tuple[str, ...] | None:
        """One of the tuples of beginnings above, None for a command of no kind."""
        return next((kind for kind in (HERE, FILES, SERVICE, SET_UP) if self.text.startswith(kind)), None)


def blocks(page: Path, language: str) -> list[str]:
    """Return the text of each block of a language."""
    return [text for fence, text in _BLOCK.findall(page.read_text()) if fence == language]


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in their order."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = [line for line in lines if line.strip() and not line.startswith("#")]
    return [Command(line, int(match[1]) if (match := _STATUS.search(line)) else 0) for line in found]
