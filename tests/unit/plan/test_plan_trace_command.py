"""`tierserve plan --trace`: what it prints, as words and as JSON, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner, Result

from tierserve.api import GenAIDeployment
from tierserve.cli.errors import UserError
from tierserve.cli.plan import confirm as plan_confirm
from tierserve.cli.plan.command import plan
from tierserve.cli.simulate.command import simulate
from tierserve.plan.trace.search import Seen

pytestmark = pytest.mark.slow  # runs are simulated

APP, SIMULATE = Typer(), Typer()
APP.command()(plan)
SIMULATE.command()(simulate)
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
    for word in ("edge/berlin", "edge/lyon", "Each pool alone", "plan at", "confirmed", "simulation of every token"):
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
    pool = json.loads(run("--copies", "4", "-o", "json", changes=few).output)["pools"][0]
    needed = pool["confirmed"]["neededReplicas"]
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
        (("--tier", "moon"), ("--tier: is not in the file ('moon')", "cloud, edge")),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(run: Run, words: tuple[str, ...], names: tuple[str, ...]) -> None:
    text = refusal(run(*words))
    for name in names:
        assert name in text


def test_no_copy_at_all_is_a_wrong_option(run: Run) -> None:
    found = run("--copies", "0")
    assert found.exit_code == 2
    assert "--copies" in found.output


def test_an_unknown_trace_is_refused_with_those_that_are_known(run: Run) -> None:
    text = refusal(run(name="nowhere"))
    assert "nowhere" in text
    assert "azure-code" in text


@pytest.mark.parametrize("option", [("--copies", "2"), ("--tier", "cloud"), ("--confirm",), ("--no-confirm",)])
def test_options_of_a_trace_are_refused_without_one(tmp_path: Path, option: tuple[str, ...]) -> None:
    text = refusal(CliRunner().invoke(APP, [str(tmp_path / "any.yaml"), *option]))
    assert f"{option[0]}: requires --trace" in text
    assert f"leave {option[0]} out" in text


def test_the_formula_alone_says_how_far_it_may_be_off_at_this_load_and_how_to_have_the_number_found(run: Run) -> None:
    short = {"spec.objective.responseTime.target": "4s"}
    low = " ".join(run("--tier", "cloud", "--copies", "2", "--no-confirm", changes=short).output.split())
    few = {**SLOW, "spec.tiers.1.replicas": {"min": 1, "max": 1}}
    high = " ".join(run("--copies", "4", "--no-confirm", changes=few).stdout.split())
    assert "43% too low to 20% too high" in low
    assert "62 of 64 windows" in high
    for text in (low, high):
        assert "How sure" in text
        assert "leave out --no-confirm, and simulations find the number" in text
        assert "by formula" not in text


def test_what_is_confirmed_keeps_the_target_and_one_replica_fewer_does_not(run: Run) -> None:
    document = json.loads(run("--copies", "4", "-o", "json").output)
    for one in document["pools"]:
        found = one["confirmed"]
        assert found["meetsTarget"]
        assert found["neededReplicas"] > 1
        assert found["atNeeded"]["withinShare"] >= 0.95 > found["atOneFewer"]["withinShare"]
        assert found["atNeeded"]["responseSeconds"] <= 20.0 < found["atOneFewer"]["responseSeconds"]
        assert found["simulations"] >= 2
        assert found["simulationSeconds"] > 0.0


def test_the_table_has_both_numbers_and_what_one_replica_fewer_comes_to(run: Run) -> None:
    found = run("--copies", "4")
    assert found.exit_code == 0, found.output
    (berlin,) = (one["confirmed"] for one in json.loads(run("--copies", "4", "-o", "json").output)["pools"][:1])
    rows = [line.split() for line in found.output.splitlines() if line.split()[:1] == ["edge/berlin"]]
    formula, search = rows
    assert search[1:3] == [formula[3], str(berlin["neededReplicas"])]
    assert search[4] == f"{berlin['atNeeded']['withinShare']:.2%}"
    assert search[6] == f"{berlin['atOneFewer']['withinShare']:.2%}"
    assert search[8] == str(berlin["simulations"])
    text = " ".join(found.output.split())
    assert "simulation of every token" in text
    assert "differ in their names alone are simulated once" in text
    assert "How sure" not in text


def test_a_shipped_trace_is_confirmed_as_the_command_that_simulates_has_it(run: Run, tmp_path: Path) -> None:
    found = run("--tier", "cloud", "-o", "json", name="azure-code")
    assert found.exit_code == 0, found.output
    (pool,) = json.loads(found.output)["pools"]
    replicas, network_s = pool["confirmed"]["replicas"], 0.040
    given = ["--pool", "cloud-default", "--trace", "azure-code", "-o", "json", "--out", str(tmp_path / "a.png"),
             "--initial", str(replicas), "--policy", f"static={replicas}"]  # fmt: skip
    (seen,) = json.loads(CliRunner().invoke(SIMULATE, [str(tmp_path / "service.yaml"), *given]).output)["policies"]
    assert pool["confirmed"]["responseSeconds"] == pytest.approx(seen["response_p95_s"] + network_s, abs=1e-3)


def test_a_ceiling_that_simulations_find_too_low_is_refused_with_their_number_and_their_figures(run: Run) -> None:
    whole = json.loads(run("--copies", "4", "-o", "json").output)["pools"][0]
    needed = whole["confirmed"]["neededReplicas"]
    few = {**SLOW, "spec.tiers.1.replicas": {"min": 1, "max": needed - 1}}
    told = run("--copies", "4", changes=few)
    found = run("--copies", "4", "-o", "json", changes=few)
    search = json.loads(found.output)["pools"][0]["confirmed"]
    assert found.exit_code == 1
    assert search["neededReplicas"] == needed
    assert (search["replicas"], search["meetsTarget"]) == (needed - 1, False)
    assert search["lateShare"] == pytest.approx(whole["confirmed"]["atOneFewer"]["lateShare"])
    assert f"{search['lateShare']:.2%} of the requests are late" in refusal(told)
    assert f"set spec.tiers[1].replicas.max: {needed}" in refusal(told)


def test_what_the_formula_refuses_and_simulations_do_not_is_no_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {**SLOW, "spec.tiers.1.replicas": {"min": 1, "max": 1}}
    assert run("--copies", "4", "--no-confirm", changes=few).exit_code == 1
    monkeypatch.setattr(plan_confirm, "_run", lambda *_: Seen(1.0, 1.0, True))
    found = run("--copies", "4", "-o", "json", changes=few)
    assert found.exit_code == 0
    document = json.loads(found.output)
    assert document["feasible"]
    assert not document["pools"][0]["meetsTarget"]
    assert document["pools"][0]["confirmed"]["neededReplicas"] == 1


def test_nothing_is_simulated_where_it_is_not_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_confirm, "_run", lambda *_: pytest.fail("simulated"))
    document = json.loads(run("--no-confirm", "-o", "json").output)
    assert [one["confirmed"] for one in document["pools"]] == [None, None]


def test_a_long_trace_is_simulated_only_where_that_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_confirm, "MANY", 100)
    assert "give --confirm, and simulations find the number" in " ".join(run().output.split())
    assert json.loads(run("-o", "json").output)["pools"][0]["confirmed"] is None
    assert json.loads(run("--confirm", "-o", "json").output)["pools"][0]["confirmed"]["simulations"] >= 1


def test_without_numba_the_formula_answers_and_what_is_missing_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_confirm, "find_spec", lambda name: None)
    assert "pip install 'tierserve[simulate]'" in run().output
    text = refusal(run("--confirm"))
    assert "--confirm: numba is not installed" in text
    assert "pip install 'tierserve[simulate]'" in text


def test_help_has_an_example_of_it() -> None:
    text = CliRunner().invoke(APP, ["--help"], env={"COLUMNS": "200"}).output
    assert "--trace azure-code" in text
    assert "--no-confirm" in text
