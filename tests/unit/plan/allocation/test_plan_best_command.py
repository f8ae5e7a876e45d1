"""`tierserve plan --best`: what it prints, as words and as JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner, Result

from tierserve.cli.errors import UserError
from tierserve.cli.plan.command import plan

EXAMPLE = Path(__file__).parents[4] / "examples" / "stores.yaml"
APP = Typer()
APP.command()(plan)
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("-n", "5", objective={...})`: the command on the example, parts of its objective changed."""

    def command(*arguments: str, **objective: object) -> Result:
        document = yaml.safe_load(EXAMPLE.read_text())
        document["spec"]["objective"] |= objective
        file = tmp_path / "stores.yaml"
        file.write_text(yaml.safe_dump(document))
        return CliRunner().invoke(APP, [str(file), "--best", *arguments])

    return command


def document_of(result: Result) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(result.stdout)
    return whole


def pools(document: dict[str, Any]) -> dict[str, Any]:
    return {one["pool"]: one for one in document["pools"]}


def test_the_table_has_a_row_per_pool_that_runs_with_model_and_shares(run: Run) -> None:
    text = run("-n", "2000", "--think", "20s").output
    rows = [line.split() for line in text.splitlines() if re.match(r" ?(till|shop|cloud)/\w+ ", line)]
    found = pools(document_of(run("-n", "2000", "--think", "20s", "-o", "json")))
    assert [row[:3] for row in rows] == [
        [f"{one['tier']}/{one['site']}", one["model"], f"{one['replicas']}/{one['maxReplicas']}"]
        for one in found.values()
    ]
    assert "advice 100%" in text
    for word in ("full", "mean", "late", "of 5%", "set by", "power", "cost", "CO2e"):
        assert word in text


def test_objective_value_totals_and_bounds_are_said_in_words(run: Run) -> None:
    text = run("--rate", "100").output.replace("\n", " ")
    found = document_of(run("--rate", "100", "-o", "json"))
    assert f"{found['value']:.2f} per hour is the least cost that keeps p95 within 2500ms at 100 requests/s." in text
    assert f"mean quality {found['quality']:.3g}" in text
    assert re.search(r"All tiers: [\d.]+ kW, [\d.]+ J a request, [\d.]+ per hour, [\d.]+ kg CO2e per hour", text)
    assert f"What holds it back: {', '.join(found['binding'])}" in text


@pytest.mark.parametrize(
    ("optimize", "words"),
    [
        ("energy", r"[\d.]+ kW is the least power that keeps"),
        ("carbon", r"[\d.]+ kg CO2e per hour is the least carbon that keeps"),
        ("latency", r"[\d,]+ ms is the shortest mean response that keeps"),
    ],
)
def test_what_is_minimised_is_named_in_its_own_unit(run: Run, optimize: str, words: str) -> None:
    assert re.search(words, run("--rate", "100", optimize={"by": optimize}).output)


def test_the_order_of_the_file_stands_beside_it_with_the_steps_towards_it(run: Run) -> None:
    text = run("-n", "2000", "--think", "20s").output
    found = document_of(run("-n", "2000", "--think", "20s", "-o", "json"))
    order, turned = found["fileOrder"], found["fileOrderAfterSteps"]
    ratio = order["value"] / found["value"]
    assert ratio > 2.0
    assert f"The order of the file would take {order['value']:.2f} per hour, {ratio:.3g} times that." in text
    assert "  - name llama-8b-int4 first in spec.tiers[2].models" in text
    assert "  - fill the tiers in this order: spec.routing.overflow: [cloud, till]" in text
    assert turned["value"] < order["value"]
    assert f"So turned, the file would take {turned['value']:.2f} per hour" in text


def test_an_order_that_leaves_requests_out_is_not_called_a_plan_for_all(run: Run) -> None:
    text = run("--rate", "400").output.replace("\n", " ")
    order = document_of(run("--rate", "400", "-o", "json"))["fileOrder"]
    assert not order["keepsAll"]
    assert (
        f"but leaves {order['unservedRequestsPerSecond']:.3g} of 400 requests/s unserved and breaks objective" in text
    )
    assert "times that" not in text.split("All tiers")[0]


def test_connections_that_think_close_the_circle(run: Run) -> None:
    found = document_of(run("-n", "4000", "--think", "20s", "-o", "json"))
    asked = found["requestsPerSecond"] * (20.0 + found["meanResponseSeconds"])
    assert asked == pytest.approx(4000.0, rel=1e-6)
    assert sum(one["requestsPerSecond"] for one in found["pools"]) == pytest.approx(found["requestsPerSecond"])


def test_caps_are_kept_that_cost_alone_would_not(run: Run) -> None:
    free = document_of(run("--rate", "400", "-o", "json", caps={}))
    held = document_of(run("--rate", "400", "-o", "json", caps={"carbonPerHour": "450g"}))
    assert free["carbonGramsPerHour"] > 450.0 >= held["carbonGramsPerHour"]
    assert held["costPerHour"] >= free["costPerHour"]


def test_private_classes_stay_where_they_may_be_seen(run: Run) -> None:
    found = pools(document_of(run("--rate", "400", "-o", "json")))
    where = {name: {pool for pool, one in found.items() if name in one["classes"]} for name in ("payment", "loyalty")}
    assert where["payment"] == {"till-default"}
    assert where["loyalty"] <= {"till-default", "shop-porto"}
    assert sum(one["classes"].get("loyalty", {"share": 0.0})["share"] for one in found.values()) == pytest.approx(1.0)


def test_json_has_every_figure_of_a_pool(run: Run) -> None:
    found = document_of(run("--rate", "400", "-o", "json"))
    assert found["feasible"] is True
    assert found["objective"] == {"percentile": 95.0, "targetSeconds": 2.5, "optimize": "cost"}
    assert found["connections"] is None
    assert found["costPerHour"] == pytest.approx(sum(one["costPerHour"] for one in found["pools"]))
    for one in found["pools"]:
        assert one["work"] <= one["capacity"] * (1 + 1e-6)
        assert one["lateShare"] <= found["lateShareAllowed"] * (1 + 1e-6)
        assert one["requestsPerSecond"] == pytest.approx(
            sum(part["requestsPerSecond"] for part in one["classes"].values())
        )


@pytest.mark.slow
def test_where_nothing_fits_the_reason_and_the_smallest_change_end_the_command(run: Run) -> None:
    result = run("--rate", "100", caps={"costPerHour": 1})
    assert isinstance(result.exception, UserError)
    assert result.exception.code == 1
    assert "100 requests per second cannot be served within the target" in result.exception.message
    assert re.fullmatch(r"raise spec.objective.caps.costPerHour from 1 to [\d.]+", result.exception.hint)


@pytest.mark.slow
def test_where_nothing_fits_json_has_reason_and_changes(run: Run) -> None:
    result = run("--rate", "100", "-o", "json", caps={"costPerHour": 1})
    assert result.exit_code == 1
    found = document_of(result)
    assert found["feasible"] is False
    assert "cannot be served" in found["reason"]
    (change,) = found["changes"]
    assert (change["path"], change["before"]) == ("spec.objective.caps.costPerHour", "1")
    enough = document_of(run("--rate", "100", "-o", "json", caps={"costPerHour": float(change["after"])}))
    assert enough["feasible"] is True


def test_nobody_asks_and_the_floor_is_told(run: Run) -> None:
    text = run("-n", "0").output
    assert "0.10 per hour is the least cost" in text
    assert "till/default" in text


@pytest.mark.parametrize("other", [("--pooled",), ("--sweep", "1..10")])
def test_best_goes_with_neither_the_paper_s_form_nor_a_sweep(run: Run, other: tuple[str, ...]) -> None:
    result = run(*other)
    assert isinstance(result.exception, UserError)
    assert f"--best and {other[0]}: cannot be combined" in str(result.exception)


def test_what_the_solver_prints_from_c_does_not_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    import ctypes

    from tierserve.cli.output import quiet

    with quiet():
        ctypes.CDLL(None).printf(b"from C\n")
    print("from Python")
    assert capfd.readouterr().out == "from Python\n"
