"""The site's hooks: links that leave docs/ point at the repository, and what would not work ends a strict build."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import docs_site  # noqa: E402


def page(path: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=path))


@pytest.mark.parametrize(
    ("path", "link", "expected"),
    [
        ("architecture.md", "../bench/README.md", f"{docs_site.SOURCE}/bench/README.md"),
        ("decisions/0005-prefork.md", "../benchmarks/replica-start.md", "../benchmarks/replica-start.md"),
        ("benchmarks/README.md", "../../bench/README.md#robust", f"{docs_site.SOURCE}/bench/README.md#robust"),
        ("README.md", "tutorial.md", "tutorial.md"),
    ],
)
def test_links_to_files_that_are_no_pages_point_at_the_repository(
    path: str, link: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert docs_site.on_page_markdown(f"[x]({link})", page(path)) == f"[x]({expected})"
    assert caplog.records == []


def test_a_link_to_a_file_that_does_not_exist_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    docs_site.on_page_markdown("[x](../nothing.md)", page("README.md"))
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


def test_a_folder_of_the_navigation_is_its_pages_with_the_index_first() -> None:
    config = SimpleNamespace(nav=[{"Home": "README.md"}, {"Decisions": "decisions/"}], docs_dir=str(ROOT / "docs"))
    home, decisions = docs_site.on_config(config).nav
    assert home == {"Home": "README.md"}
    assert decisions["Decisions"][:2] == ["decisions/README.md", "decisions/0001-what-we-write.md"]
    assert len(decisions["Decisions"]) == len(list((ROOT / "docs" / "decisions").glob("*.md")))


@pytest.mark.parametrize(
    ("html", "warnings"),
    [
        ("<p>text:</p>\n<ul>\n<li>one</li>\n</ul>", 0),
        ("<p>text:\n- one\n- two</p>", 1),
        ("<p>text:\n| a | b |\n|---|---|</p>", 1),
        ("<p>from 3 to\n-4 degrees</p>", 0),
    ],
)
def test_a_list_or_table_that_is_shown_as_text_is_a_warning(
    html: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    docs_site.on_page_content(html, page("README.md"))
    assert len(caplog.records) == warnings


@pytest.mark.parametrize(
    ("html", "warnings"),
    [
        ('<script src="assets/a.js"></script><a href="https://example.com">x</a>', 0),
        ('<script src="https://example.com/a.js"></script>', 1),
        ('<link rel="stylesheet" href="//example.com/a.css">', 1),
        ('<img alt="x" src="https://example.com/a.png">', 1),
    ],
)
def test_what_a_browser_would_fetch_from_another_host_is_a_warning(
    html: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    docs_site.on_post_page(html, page("README.md"))
    assert len(caplog.records) == warnings
