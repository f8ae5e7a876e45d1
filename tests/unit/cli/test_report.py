"""`tierserve report`: one page and its data of a running service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from tierserve.cli import services
from tierserve.cli.errors import UserError
from tierserve.cli.main import app
from tierserve.cli.report import observe
from tierserve.report.service import html


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["report", *words])


def observed(service: Any, rates: list[float]) -> Any:
    """What is observed of statuses at seconds 100, 101, ... with these arrival rates, until an interrupt."""

    def read() -> tuple[dict[str, Any], Any]:
        document = next(documents)
        return document, services.placements(document)

    def written() -> Iterator[dict[str, Any]]:
        for second, rate in enumerate(rates):
            service.write(at=100.0 + second, **{"lambda": rate, "replicas": 1 + second})
            (document,) = services.documents(service.name)
            yield document
            yield document  # read twice between two writes of the supervisor
        raise KeyboardInterrupt

    documents = written()
    return observe(read, 1000.0, 0.0)


def test_it_writes_a_page_and_its_data(running: Callable[..., Any], tmp_path: Path) -> None:
    running()
    result = run("--for", "0", "--out", str(tmp_path / "r"), "-o", "json")
    assert result.exit_code == 0, result.output
    paths = json.loads(result.stdout)
    assert Path(paths["page"]).read_text().startswith("<!doctype html>")
    data = orjson.loads(Path(paths["data"]).read_bytes())
    assert (data["name"], data["target"]) == ("assistant", "p95 1500 ms")
    assert data["pools"]["cloud-default"][0]["observed_p95_s"] == 1.05
    assert {pool["pool"] for pool in data["explanations"]["pools"]} == set(data["targets"])


def test_each_status_is_one_sample_and_an_interrupt_keeps_what_was_observed(running: Callable[..., Any]) -> None:
    record = observed(running(), [3.0, 5.0, 8.0])
    cloud = record.pools["cloud-default"]
    assert [(point.t, point.rate, point.replicas) for point in cloud] == [(0.0, 3.0, 1), (1.0, 5.0, 2), (2.0, 8.0, 3)]
    assert record.seconds == 2.0
    assert any("interrupt" in note for note in record.notes)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.used: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.used |= {(v or "")[1:] for n, v in attrs if n in ("href", "xlink:href") and (v or "").startswith("#")}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_has_the_figures_and_needs_no_host(running: Callable[..., Any]) -> None:
    text = html(observed(running(), [3.0, 5.0]))
    page = _Page(text)
    assert page.used <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    words = " ".join(page.words)
    for shown in ("assistant / cloud: 2 replicas, because", "1,050 ms", "SLOMet", "5.00"):
        assert shown in words, shown
    links = set(re.findall(r"(?:src|href)=\"?(https?://[^\s\"'<>]+)", text))
    assert links == set()


def test_a_message_with_markup_is_escaped(running: Callable[..., Any]) -> None:
    markup = {"type": "Degraded", "status": "True", "reason": "Problems", "message": "<script>x</script>"}
    text = html(replace(observed(running(), [3.0]), conditions=[markup]))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_without_a_service_or_with_several_the_name_is_required(
    running: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path / "none"))
    none = run("--for", "0").exception
    assert isinstance(none, UserError)
    assert none.code == 1
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path / "state"))
    running("assistant")
    running("second")
    several = run("--for", "0").exception
    assert isinstance(several, UserError)
    assert (several.code, "second" in several.message) == (2, True)


def test_a_folder_that_cannot_be_written_is_refused_before_the_time_is_spent(running: Callable[..., Any]) -> None:
    running()
    error = run("--for", "86400", "--out", "/dev/null/report").exception
    assert isinstance(error, UserError)
    assert "--out" in error.message


@pytest.mark.filterwarnings("error")
def test_a_service_of_which_nothing_is_known_yet_has_a_page_too(running: Callable[..., Any]) -> None:
    record = replace(observed(running(), [3.0]), pools={}, targets={}, texts=[], conditions=[])
    assert "assistant" in html(record)
