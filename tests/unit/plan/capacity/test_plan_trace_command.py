"""`tierserve plan --trace`: what it prints, as words and as JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner, Result

from tierserve.api import GenAIDeployment
from tierserve.cli.errors import UserError
from tierserve.cli.plan import plan

APP = Typer()
APP.command()(plan)
Run = Callable[..., Result]
SLOW = {"spec.objective.responseTime.target": "20s"}
"""A target that the answers of the trace of the tests can keep."""


@pytest.fixture
def run(tmp_path: Path, service: Callable[..., GenAIDeployment]) -> Run:
    """`run("--tier", "cloud", changes={...})`: the command on the service of the tests and a trace of ten minutes."""
    trace = tmp_path / "bursts.csv"
    arrivals = [(1000 * s + 40 * k, 800, 100) for s in range(0, 600, 2) for k in range(25 if s % 120 < 20 else 1)]
    rows = "\n".join(",".join(map(str, one)) for one in arrivals)
    trace.write_text(f"timestamp_ms,input_length,output_length\n{rows}\n")

    def command(*arguments: str, changes: dict[str, object] | None = None, name: str = str(trace)) -> Result:
        document = service(SLOW if changes is None else changes)
        dumped = document.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        whole = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment"} | dumped
        file = tmp_path / "service.yaml"
        file.write_text(yaml.safe_dump(whole))
        return CliRunner().invoke(APP, [str(file), "--trace", name, *arguments])

    return command


def refusal(result: Result) -> str:
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_the_table_has_a_row_per_pool_of_the_first_tier_and_says_that_each_is_alone_and_how_sure_it_is(
    run: Run,
) -> None:
    found = run()
    assert found.exit_code == 0, found.output
    for word in ("edge/berlin", "edge/lyon", "Each pool alone", "How sure", "docs/benchmarks/", "plan at"):
        assert word in found.output
    assert "cloud/default" not in found.output


def test_another_tier_is_asked_where_it_is_named(run: Run) -> None:
    found = json.loads(run("--tier", "cloud", "-o", "json").output)
    assert [one["pool"] for one in found["pools"]] == ["cloud-default"]


def test_json_has_what_is_needed_beside_the_plan_for_a_rate(run: Run) -> None:
    found = run("-o", "json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.output)
    berlin, lyon = document["pools"]
    assert document["feasible"]
    assert document["eachPoolAlone"]
    assert berlin["replicas"] == max(berlin["neededReplicas"], berlin["minReplicas"])
    assert berlin["withinShare"] >= 0.95
    assert berlin["responseSeconds"] <= document["objective"]["targetSeconds"]
    assert berlin["planAtMeanRate"]["requestsPerSecond"] == pytest.approx(document["requestsPerSecond"], rel=0.01)
    assert berlin["utilisationBusiestMinute"] > berlin["utilisation"]
    assert {**lyon, "pool": "edge-berlin", "site": "berlin"} == berlin


def test_copies_make_more_requests_that_need_more(run: Run) -> None:
    once, thrice = (json.loads(run("--copies", n, "-o", "json").output) for n in ("1", "3"))
    assert thrice["requests"] == 3 * once["requests"]
    assert thrice["copies"] == 3
    assert thrice["pools"][0]["neededReplicas"] > once["pools"][0]["neededReplicas"]


def test_where_the_ceiling_is_too_low_it_says_who_is_late_by_how_much_and_what_would_do(run: Run) -> None:
    few = {**SLOW, "spec.tiers.1.replicas": {"min": 1, "max": 1}}
    found = run("--copies", "4", changes=few)
    needed = json.loads(run("--copies", "4", "-o", "json", changes=few).output)["pools"][0]["neededReplicas"]
    assert needed > 1
    assert "edge/berlin" in found.stdout
    text = refusal(found)
    assert "edge/berlin at its ceiling of 1: " in text
    assert "are late" in text
    assert "above the target" in text
    assert f"set spec.tiers[1].replicas.max: {needed}" in text
    assert found.exception.code == 1  # type: ignore[union-attr]


def test_json_of_what_the_ceiling_cannot_hold_ends_with_status_one(run: Run) -> None:
    found = run("--copies", "4", "-o", "json", changes={**SLOW, "spec.tiers.1.replicas": {"min": 1, "max": 1}})
    assert found.exit_code == 1
    document = json.loads(found.output)
    assert not document["feasible"]
    assert document["pools"][0]["lateShare"] > 0.05


def test_answers_that_are_too_long_even_alone_are_told_from_too_few_replicas(run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "long.csv"
    rows = "\n".join(f"{1000 * k},500,{3000 if k % 5 == 0 else 50}" for k in range(100))
    trace.write_text(f"timestamp_ms,input_length,output_length\n{rows}\n")
    found = run("--tier", "cloud", name=str(trace), changes={})
    assert "no number of replicas is enough (20.00% take longer than the target even alone)" in refusal(found)
    assert "none do" in found.stdout


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--connections", "5"), ("--connections", "--trace")),
        (("--rate", "5"), ("--rate", "--trace")),
        (("--sweep", "1..5"), ("--sweep", "--trace")),
        (("--best",), ("--best", "--trace")),
        (("--pooled",), ("--pooled", "--trace")),
        (("--think", "5s"), ("--think", "--trace")),
        (("--tier", "moon"), ("--tier 'moon' is unknown", "cloud, edge")),
        (("--copies", "0"), ("--copies 0 is less than 1",)),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(run: Run, words: tuple[str, ...], names: tuple[str, ...]) -> None:
    text = refusal(run(*words))
    for name in names:
        assert name in text


def test_an_unknown_trace_is_refused_with_those_that_are_known(run: Run) -> None:
    text = refusal(run(name="nowhere"))
    assert "nowhere" in text
    assert "azure-code" in text


@pytest.mark.parametrize("option", [("--copies", "2"), ("--tier", "cloud")])
def test_options_of_a_trace_are_refused_without_one(tmp_path: Path, option: tuple[str, str]) -> None:
    text = refusal(CliRunner().invoke(APP, [str(tmp_path / "any.yaml"), *option]))
    assert f"{option[0]} goes with --trace" in text


def test_the_simulation_it_names_for_a_low_load_has_its_pool_trace_copies_and_replicas(run: Run) -> None:
    found = run("--tier", "cloud", "--copies", "2", changes={"spec.objective.responseTime.target": "4s"})
    assert found.exit_code == 0, found.output
    words = re.search(r"`tierserve simulate FILE (.*?)`", found.output.replace("\n", " "))
    assert words is not None
    replicas = json.loads(
        run(
            "--tier", "cloud", "--copies", "2", "-o", "json", changes={"spec.objective.responseTime.target": "4s"}
        ).output
    )["pools"][0]["replicas"]
    given = words[1].split()
    assert given[:3] == ["--pool", "cloud-default", "--trace"]
    assert given[4:] == ["--copies", "2", "--policy", f"static={replicas}"]


def test_help_has_an_example_of_it() -> None:
    assert "--trace azure-code" in CliRunner().invoke(APP, ["--help"], env={"COLUMNS": "200"}).output
