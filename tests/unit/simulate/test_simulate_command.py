"""`tierserve simulate`: what it shows, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from tierserve.cli.errors import UserError
from tierserve.cli.simulate import simulate

EXAMPLE = str(Path(__file__).parents[3] / "examples" / "assistant.yaml")
APP = Typer()
APP.command()(simulate)


def run(*words: str) -> Result:
    return CliRunner().invoke(APP, [EXAMPLE, *words])


def test_it_shows_each_rule_beside_the_others_and_draws_them(tmp_path: Path) -> None:
    picture = tmp_path / "deep" / "picture.png"
    found = run("--rate", "2,8,2", "--duration", "2m", "--policy", "ours", "--policy", "kpa=0.5", "--out", str(picture))
    assert found.exit_code == 0, found.output
    assert "ours=1" in found.output
    assert "kpa=0.5" in found.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_has_the_figures_and_the_same_seed_the_same_ones(tmp_path: Path) -> None:
    words = ("--rate", "3", "--duration", "3m", "--seed", "7", "-o", "json", "--out", str(tmp_path / "a.png"))
    first, second = json.loads(run(*words).output), json.loads(run(*words).output)
    assert first == second
    (ours,) = first["policies"]
    assert 0.0 < ours["within"] <= 1.0
    assert ours["gpu_hours"] > 0.0
    assert first["requests"] == pytest.approx(540, rel=0.2)


def test_replicas_that_die_are_simulated_too(tmp_path: Path) -> None:
    words = ("--rate", "3", "--duration", "3m", "--initial", "2", "-o", "json", "--out", str(tmp_path / "a.png"))
    calm = json.loads(run(*words).output)["policies"][0]
    hit = json.loads(run(*words, "--fail", "60s=2", "--startup", "60s").output)["policies"][0]
    assert hit["response_p95_s"] > calm["response_p95_s"]


def test_all_rules_are_listed_with_their_sources() -> None:
    found = run("--policy", "list").output
    assert "Kubernetes HPA" in found
    assert "kubernetes.io" in found


@pytest.mark.parametrize(
    ("words", "message", "mend"),
    [
        ((), "give exactly one of --trace and --rate", "--trace azure-code"),
        (("--rate", "5", "--trace", "azure-code"), "give exactly one of --trace and --rate", "--rate 5,20,5"),
        (("--rate", "fast"), "--rate 'fast' is not a list of numbers", "give such as 5,20,5"),
        (("--rate", "-1"), "--rate '-1' is out of range", "requests per second"),
        (("--rate", "5", "--policy", "nope"), "--policy 'nope' is unknown", "choose one of ours"),
        (("--rate", "5", "--policy", "hpa=x"), "--policy hpa=x: 'x' is not a number", "target requests in flight"),
        (("--rate", "5", "--router", "x"), "--router 'x' is unknown", "see `tierserve simulate --help`"),
        (("--rate", "5", "--pool", "moon"), "--pool 'moon' is unknown", "the file has"),
        (("--rate", "5", "--startup", "soon"), "duration 'soon' is not understood", "20s or 1m30s"),
        (("--rate", "5", "--fail", "10m=many"), "--fail '10m=many' is not understood", "give such as 10m=2"),
        (("--trace", "nope"), "no trace nope", "shipped are azure-code"),
        (("--trace", "azure-code", "--copies", "0"), "--copies 0 is less than 1", "give 1"),
        (("--rate", "5", "-o", "yaml"), "--output 'yaml' is unknown", "choose table or json"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_mend(words: tuple[str, ...], message: str, mend: str) -> None:
    error = run(*words).exception
    assert isinstance(error, UserError)
    assert message in str(error)
    assert mend in f"{error} {error.mend}"
