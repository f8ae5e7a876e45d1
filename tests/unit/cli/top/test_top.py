"""`tierserve top`: a row per pool, keys on a terminal, once for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from tierserve.cli.errors import UserError
from tierserve.cli.main import app
from tierserve.cli.top.rows import ORDERS, Row, following, ordered, rows_of, table

ROW = Row("assistant", "cloud", "large", 2, 3, 12, 20.0, 5.0, 1.2, 1.0, "erlang_c", True)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["top", *words], env={"COLUMNS": "80"})


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_data_has_a_row_for_each_pool_of_each_service(
    running: Callable[..., Any], form: str, read: Callable[[str], Any]
) -> None:
    running("assistant").write(**{"lambda": 7.5})
    running("second")
    rows = read(run("-o", form).stdout)
    assert [(row["service"], row["pool"]) for row in rows] == [
        (service, pool) for service in ("assistant", "second") for pool in ("cloud", "device", "edge")
    ]
    cloud = rows[0]
    assert (cloud["arrivals"], cloud["queue"], cloud["p95_s"], cloud["running"]) == (7.5, 3, 1.05, 2)
    assert rows[1]["arrivals"] is None


def test_once_prints_a_table_of_80_columns(running: Callable[..., Any]) -> None:
    running()
    result = run("--once")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for words in ("2 of 12", "20.00/s", "1.05 s", "1.46 s", "erlang_c"):
        assert words in result.stdout


def test_every_figure_is_whole_at_80_columns() -> None:
    wide = replace(
        ROW, service="chat-production/assistant-of-all", pool="cloud-frankfurt-am-main", running=112, desired=116,
        most=1000, arrivals=12345.67, queue=12345.0, p95_s=123.45, target_s=101.25, set_by="scale_up_factor",
    )  # fmt: skip
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table([wide]))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    for figure in ("112 to 116 of 1000", "12345.67/s", "12345", "123.45 s", "101.25 s", "scale_up"):
        assert figure in text, text


def test_without_a_terminal_it_is_a_usage_error_that_names_once(running: Callable[..., Any]) -> None:
    running()
    error = run().exception
    assert isinstance(error, UserError)
    assert (error.code, "--once" in error.hint) == (2, True)


def test_no_service_is_no_row() -> None:
    assert rows_of([{"name": "starting", "status": {}}]) == []


def test_orders_have_the_largest_first_and_the_unknown_last() -> None:
    other, unknown = (
        replace(ROW, service="b", arrivals=30.0, queue=1.0, p95_s=0.5),
        replace(ROW, service="a", arrivals=None, queue=None, p95_s=None),
    )
    rows = [ROW, other, unknown]
    assert [row.service for row in ordered(rows, "service")] == ["a", "assistant", "b"]
    assert [row.service for row in ordered(rows, "arrivals")] == ["b", "assistant", "a"]
    assert [row.service for row in ordered(rows, "queue")] == ["assistant", "b", "a"]
    assert [row.service for row in ordered(rows, "p95")] == ["assistant", "b", "a"]
    assert [following(order) for order in ORDERS] == [*ORDERS[1:], ORDERS[0]]


def test_on_a_terminal_keys_sort_pause_and_quit(
    running: Callable[..., Any], terminal: Callable[..., tuple[int, str]]
) -> None:
    running()
    steps = [("sorted by service", "s"), ("sorted by arrivals", "p"), ("paused", "p"), ("sorted by arrivals", "q")]
    code, screen = terminal(["top"], steps)
    assert code == 0, screen
    assert "erlang_c" in screen
    assert screen.count("\x1b[?1049h") == screen.count("\x1b[?1049l") == 1, "the screen of before is shown again"


def test_a_refresh_shows_what_has_changed(
    running: Callable[..., Any], terminal: Callable[..., tuple[int, str]]
) -> None:
    service = running()

    def change() -> str:
        service.write(**{"lambda": 77.0})
        return ""

    code, screen = terminal(["top", "--interval", "0.2"], [("20.00/s", change), ("77.00/s", "q")])
    assert code == 0, screen
