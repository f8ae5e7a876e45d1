"""Reject private vocabulary in what users read: strings of the code, chart, CRD, docs. Part of `make check`.

    python scripts/check_words.py [PATH ...]        prints FILE:LINE: word: use ..., and ends with 1 if there is any

The words are those that a reader of Kubernetes, Prometheus, OpenAI or queueing documentation would have to translate.
Python is read by its syntax tree: strings and docstrings count, names and comments do not. Other texts count whole.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("operator", "serving", "charts", "crds", "docs", "examples", "README.md", "CONTRIBUTING.md")
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".tpl", ".txt", ".json"}
WORDS = {
    r"mend(s|ed|ing)?": "hint, fix",
    r"(is|are|was|were) told|tells?|hears?|heard": "reports, receives",
    r"wanted": "desired, required",
    r"asleep|sleeps|sleeping|falls? asleep": "scaled to zero",
    r"nobody|no one": "no client, no request",
    r"(?-i:goes on|go on|went on)": "continues",
    r"on the way": "scaling (n/m replicas ready)",
    r"looked at|looks at|looks after": "reconciled, read",
    r"blind": "without queue length",
    r"deaf": "without SLO-miss feedback",
    r"on paper": "shadow",
    r"(?-i:ScalingReady|SloMet)": "ScalingActive, SLOMet",
    r"wakes?|woken|wake-up": "scales up from zero, adds to the work queue",
    r"keeps? (an )?appointments?": "work queue",
}
"""Regular expression -> replacement."""
PATTERN = re.compile(r"(?<![\w`.-])(" + "|".join(WORDS) + r")(?![\w-])", re.IGNORECASE)


def main(paths: list[str]) -> int:
    """Print each word that is found, with its place; 1 if there is any."""
    found = [line for path in _files(paths) for line in findings(path)]
    print("\n".join(found) if found else "words: none of the private vocabulary")
    return 1 if found else 0


def findings(path: Path) -> list[str]:
    """Lines `FILE:LINE: "word": use ...` of one file."""
    text = path.read_text(encoding="utf-8")
    pieces = _strings(text) if path.suffix == ".py" else enumerate(text.split("\n"), 1)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return [
        f'{name}:{at + piece.count(chr(10), 0, match.start())}: "{match[0]}": use {_instead(match[0])}'
        for at, piece in pieces
        for match in PATTERN.finditer(piece)
    ]


def _strings(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _instead(word: str) -> str:
    return next(use for pattern, use in WORDS.items() if re.fullmatch(pattern, word, re.IGNORECASE))


def _files(paths: list[str]) -> Iterator[Path]:
    for place in paths or PLACES:
        path = ROOT / place
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in files if file.suffix in SUFFIXES and file.is_file())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
