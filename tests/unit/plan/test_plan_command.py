"""`tierserve plan`: what it prints, draws and refuses."""

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

from tierserve.api import GenAIDeployment
from tierserve.cli.errors import UserError
from tierserve.cli.plan.command import plan

EXAMPLE = Path(__file__).parents[3] / "examples" / "llama7b-paper.yaml"
APP = Typer()
APP.command()(plan)
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, service: Callable[..., GenAIDeployment]) -> Run:
    """`run("-n", "5", changes={...})`: the command on the service of the tests, or on `file`."""

    def command(*arguments: str, file: Path | None = None, changes: dict[str, object] | None = None) -> Result:
        if file is None:
            file = tmp_path / "service.yaml"
            document = service(changes).model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
            whole = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment"} | document
            file.write_text(yaml.safe_dump(whole))
        return CliRunner().invoke(APP, [str(file), *arguments])

    return command


def refusal(result: Result) -> str:
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_pooled_prints_the_numbers_of_the_paper(run: Run) -> None:
    text = run("--pooled", file=EXAMPLE).output
    cloud = next(line for line in text.splitlines() if line.strip().startswith("cloud"))
    edge = next(line for line in text.splitlines() if line.strip().startswith("edge"))
    for figure in ("285", "200", "23,816.79", "0.0419871795", "1.22065249154e-970", "4.19871794872e-5"):
        assert figure in cloud
    for figure in (" 9 ", " 8 ", "9,160.305", "1.09166666667e-4"):
        assert figure in edge


def test_the_table_has_a_row_per_pool_and_says_what_binds(run: Run) -> None:
    text = run("--connections", "60").output
    for word in (
        "cloud/default",
        "edge/berlin",
        "edge/lyon",
        "batching",
        "P(wait)",
        "p95",
        "t_UL",
        "t_DL",
        "objective",
    ):
        assert word in text
    assert re.search(r"edge: exhausted at [\d,]+ connections \(8 replicas of \d+ slots at each of 2 sites", text)
    assert "All tiers: " in text


def test_what_one_site_cannot_do_is_said_in_words(run: Run) -> None:
    text = run("-n", "500,000", changes={"spec.models.0.flopsPerRequest": "13.1T"}).output
    assert "One cloud site cannot hold 500,000 connections at once: memory binds from" in text
    assert "find no tier that may take them within the objective" in text
    assert "raise replicas.max or add a site" in text


def test_a_narrow_terminal_gets_a_column_per_pool(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierserve.cli.output.PIPED_WIDTH", 80)
    lines = run("-n", "60").output.splitlines()
    assert any(line.split()[:1] == ["slots"] and len(line.split()) == 4 for line in lines)


def test_json_carries_every_figure_of_a_pool(run: Run) -> None:
    document: dict[str, Any] = json.loads(run("-n", "60", "--think", "5s", "-o", "json").output)
    assert document["thinkSeconds"] == 5.0
    pool = document["pools"][1]
    assert pool["pool"] == "edge-berlin"
    parts = pool["uplinkSeconds"] + pool["inferenceSeconds"] + pool["downlinkSeconds"]
    assert pool["responseSeconds"] == pytest.approx(parts)
    assert [one["name"] for one in pool["criteria"]] == ["memory", "bandwidth", "compute"]
    assert document["exhaustedAtConnections"]["edge"] > 0


def test_json_has_no_infinity(run: Run) -> None:
    pooled = json.loads(run("--pooled", "-n", "1e12", "-o", "json", file=EXAMPLE).output)
    assert pooled["tiers"][0]["responseSeconds"] is None


def test_a_sweep_draws_a_picture_and_says_where_tiers_end(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "deep" / "plan.png"
    text = run("--sweep", "1..500000", "--out", str(picture)).output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "exhausted at" in text
    assert re.search(
        r"No room: class health from [\d,]+ connections on, class chat from [\d,]+ connections on; at", text
    )
    assert str(picture) in text


def test_a_sweep_as_json_has_the_curves(run: Run, tmp_path: Path) -> None:
    out = run("--sweep", "1..100", "--out", str(tmp_path / "plan.svg"), "-o", "json").output
    document = json.loads(out)
    assert [one["tier"] for one in document["tiers"]] == ["cloud", "edge"]
    assert len(document["tiers"][1]["replicas"]) == len(document["connections"])


def test_caps_that_are_broken_are_named(run: Run) -> None:
    text = run("-n", "100", changes={"spec.objective.caps": {"costPerHour": 1}}).output
    assert re.search(r"objective.caps.costPerHour: [\d.]+ is more than the cap of 1", text)


def test_a_private_tier_without_traffic_is_named(run: Run) -> None:
    routing = {"spec.routing.overflow": ["edge"], "spec.routing.defaultClass": "all"}
    changes = routing | {"spec.traffic": [{"name": "all"}]}
    assert "cloud: no traffic class is routed here" in run("-n", "1", changes=changes).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-n", "-3"), "--connections: must be a number from 0 to 1e12 ('-3')"),
        (("-n", "many"), "for example --connections 5000"),
        (("--rate", "nan"), "--rate: must be a number"),
        (("--rate", "3", "-n", "4"), "--connections and --rate: cannot be combined"),
        (("--rate", "3", "--think", "4s"), "--think: cannot be combined with --rate"),
        (("--think", "4"), "for example --think 20s"),
        (("--sweep", "7"), "for example --sweep 1..500000"),
        (("--sweep", "9..2"), "must start above 0 and rise"),
        (("--sweep", "0..2"), "must start above 0 and rise"),
    ],
)
def test_wrong_options_are_named_with_a_hint(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in refusal(run(*arguments))


def test_a_missing_file_is_named(run: Run) -> None:
    assert "nowhere.yaml: No such file" in refusal(run(file=Path("nowhere.yaml")))


def test_a_picture_of_an_unknown_kind_is_refused(run: Run, tmp_path: Path) -> None:
    words = refusal(run("--sweep", "1..10", "--out", str(tmp_path / "plan.doc")))
    assert "must end in .png, .svg or .pdf" in words


def test_a_mistake_in_the_file_names_field_and_mend(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(EXAMPLE.read_text().replace("250ms", "250 ms"))
    words = refusal(run(file=bad))
    assert "spec.objective.responseTime.target" in words
    assert "must be a duration" in words


def test_a_target_no_model_can_keep_names_field_and_mend(run: Run) -> None:
    words = refusal(run(changes={"spec.models.0.profile.alpha": "40ms"}))
    assert "spec.objective.responseTime.target: must be at least " in words
    assert "which model large on tier cloud takes for one request" in words
    assert "give at least" in words


def test_a_pool_with_more_replicas_because_prompts_hold_up_its_answers_says_how_many(run: Run) -> None:
    changes = {
        "spec.traffic.0.input": 6000,
        "spec.traffic.0.output": 20,
        "spec.traffic.1.input": 6000,
        "spec.traffic.1.output": 20,
        "spec.objective.responseTime.target": "4s",
    }
    told = run("--rate", "40", changes=changes)
    assert told.exit_code == 0
    words = " ".join(told.stdout.split())
    found = re.search(r"edge-berlin: (\d+) more replicas? for long prompts: reading one \([\d,.]+ ms\)", words)
    assert found
    document = json.loads(run("--rate", "40", "-o", "json", changes=changes).stdout)
    berlin = next(pool for pool in document["pools"] if pool["site"] == "berlin")
    assert berlin["replicasForLongPrompts"] == int(found[1]) > 0
    assert "long prompts" not in run("--rate", "40").stdout
