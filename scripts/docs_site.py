"""Hooks of MkDocs for the site made of docs/ (mkdocs.yml): folders in the navigation, links out of docs/, checks.

With `--strict` each warning ends the build.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "https://github.com/tierserve/tierserve/blob/main"
LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]*)")
EXTERNAL = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
UNREAD = re.compile(r"<p>(?:(?!</p>).)*?\n\s*(?:[-*] |\|)", re.DOTALL)
"""A list or a table that the site shows as text: GitHub reads it without an empty line above, MkDocs does not."""
log = logging.getLogger("mkdocs.hooks.docs_site")


def on_config(config: Any, **_: Any) -> Any:
    """Replace folders in the navigation by their pages."""
    config.nav = _expanded(config.nav, Path(config.docs_dir))
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, list):
        return [_expanded(one, docs) for one in entry]
    if isinstance(entry, dict):
        return {title: _expanded(below, docs) for title, below in entry.items()}
    if not entry.endswith("/"):
        return entry
    # README.md first: it is the page of the section.
    pages = sorted((docs / entry).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
    return [str(page.relative_to(docs)) for page in pages]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to files of the repository that are no pages at the repository; on GitHub they are relative."""
    docs = ROOT / "docs"
    folder = (docs / page.file.src_uri).parent

    def moved(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match[1]))
        if target.is_relative_to(docs):
            return match[1]
        if not target.exists():
            log.warning("%s: %s does not exist", page.file.src_uri, match[1])
        return f"{SOURCE}/{target.relative_to(ROOT)}"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Warn of lists and tables that are not shown as such."""
    if found := UNREAD.search(html):
        log.warning("%s: list or table without an empty line above: %r", page.file.src_uri, found[0][-80:])
    return html


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of everything that a browser would fetch from another host."""
    for found in EXTERNAL.finditer(output):
        log.warning("%s: loads %s", page.file.src_uri, found[1])
    return output
