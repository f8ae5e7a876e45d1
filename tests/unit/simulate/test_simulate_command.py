"""`tierserve simulate`: what it shows, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from tierserve.cli.errors import UserError
from tierserve.cli.simulate.command import simulate

pytestmark = pytest.mark.slow  # runs are simulated

EXAMPLE = str(Path(__file__).parents[3] / "examples" / "assistant.yaml")
APP = Typer()
APP.command()(simulate)


CACHED = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: cached}
spec:
  objective: {responseTime: {percentile: 95, target: 1500ms}}
  models:
    - name: chat
      engine: emulated
      memory: {weights: 13Gi, perRequest: 512Mi}
      profile: {alpha: 27.5ms, beta: 34us, gamma: 100ns}
      output: {tokens: 32}
      maxConcurrency: 4
  tiers:
    - name: edge
      kind: edge
      accelerator: {preset: V100-32GB}
      network: {rtt: 8ms}
      replicas: {min: 1, max: 1}
      sites: [{name: north}, {name: south}]
    - {name: cloud, kind: cloud, accelerator: {preset: A100-80GB}, network: {rtt: 400ms}, replicas: {min: 1, max: 8}}
  traffic:
    - {name: chat, share: 0.8, input: 512}
    - {name: personal, share: 0.2, privacy: site, input: 512}
  routing: {overflow: [edge, cloud], defaultClass: chat}
"""
"""Two classes, one of which may not leave the edge."""
CACHE = ("--answer-cache", "edge=10m,100Ki")


def run(*words: str) -> Result:
    return CliRunner().invoke(APP, [EXAMPLE, *words])


def tiers_of(tmp_path: Path, *words: str) -> dict[str, Any]:
    """Run the file with a cache; its only policy's figures, parts by name."""
    file = tmp_path / "cached.yaml"
    file.write_text(CACHED)
    given = [str(file), "--duration", "2m", "-o", "json", "--out", str(tmp_path / "a.png"), *words]
    (found,) = json.loads(CliRunner().invoke(APP, given).output)["policies"]
    return {**found, "parts": {one["name"]: one for one in found["parts"]}}


@pytest.mark.slow
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
    words = ("--pool", "edge-default", "--rate", "3", "--duration", "3m", "--initial", "2", "-o", "json")
    words += ("--out", str(tmp_path / "a.png"))
    calm = json.loads(run(*words).output)["policies"][0]
    hit = json.loads(run(*words, "--fail", "60s=2", "--startup", "60s").output)["policies"][0]
    assert hit["response_p95_s"] > calm["response_p95_s"]


def test_all_tiers_are_simulated_and_each_request_is_in_one_part(tmp_path: Path) -> None:
    found = tiers_of(tmp_path, "--rate", "14")
    edge, cloud = (found["parts"][name] for name in ("edge", "cloud"))
    assert set(found["parts"]) == {"edge", "cloud"}
    assert edge["requests"] + cloud["requests"] == found["requests"]
    assert 0 < cloud["requests"] <= edge["passed_on"]
    assert edge["gpu_hours"] + cloud["gpu_hours"] == pytest.approx(found["gpu_hours"])
    assert cloud["response_p95_s"] > 0.4 + 0.9  # its network and the service
    assert edge["replicas_max"] == 2  # one at each site, which is all they may
    assert cloud["ttft_p95_s"] > 0.4


def test_an_answer_cache_answers_prompts_that_come_again(tmp_path: Path) -> None:
    plain = tiers_of(tmp_path, "--rate", "14")
    found = tiers_of(tmp_path, "--rate", "14", *CACHE, "--prompts", "50")
    cache = found["parts"]["cache"]
    assert cache["share"] > 0.5
    assert cache["response_p95_s"] == pytest.approx(0.008, abs=0.005)  # the edge's network
    assert found["parts"]["cloud"]["requests"] < plain["parts"]["cloud"]["requests"]
    rare = tiers_of(tmp_path, "--rate", "14", *CACHE, "--prompts", "50000", "--zipf", "0")
    assert rare["parts"].get("cache", {"share": 0.0})["share"] < 0.05


def test_shared_beginnings_shorten_the_first_token_as_far_as_pools_keep_them(tmp_path: Path) -> None:
    cold = tiers_of(tmp_path, "--rate", "4", "--prefixes", "20=500", "--prefix-cache", "0")
    warm = tiers_of(tmp_path, "--rate", "4", "--prefixes", "20=500")
    assert cold["prefix_hits"] == 0
    assert warm["prefix_hits"] > 0.8 * warm["requests"]
    assert warm["parts"]["edge"]["ttft_p95_s"] < cold["parts"]["edge"]["ttft_p95_s"]


def test_replicas_that_die_in_a_named_pool_send_its_load_on(tmp_path: Path) -> None:
    words = ("--rate", "4", "--startup", "60s")
    calm = tiers_of(tmp_path, *words)
    hit = tiers_of(tmp_path, *words, "--fail", "30s=1@edge-north", "--fail", "30s=1@edge-south")
    assert hit["parts"]["cloud"]["requests"] > 100 + calm["parts"]["cloud"]["requests"]
    assert hit["parts"]["refused"]["requests"] > 0  # the class that may not leave the edge
    assert "refused" not in calm["parts"]


def test_all_rules_are_listed_with_their_sources() -> None:
    found = run("--policy", "list").output
    assert "Kubernetes HPA" in found
    assert "kubernetes.io" in found


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ((), "--trace, --rate: exactly one is required", "--trace azure-code"),
        (("--rate", "5", "--trace", "azure-code"), "--trace, --rate: exactly one is required", "--rate 5,20,5"),
        (("--rate", "fast"), "--rate: must be a list of numbers ('fast')", "for example 5,20,5"),
        (("--rate", "-1"), "--rate: is out of range ('-1')", "requests per second"),
        (("--rate", "5", "--policy", "nope"), "--policy: is unknown ('nope')", "choose one of ours"),
        (("--rate", "5", "--policy", "hpa=x"), "value must be a number ('hpa=x')", "target requests in flight"),
        (("--rate", "5", "--router", "x"), "--router: is unknown ('x')", "see `tierserve simulate --help`"),
        (("--rate", "5", "--pool", "moon"), "--pool: is not in the file ('moon')", "choose one of"),
        (("--rate", "5", "--startup", "soon"), "duration: is not valid ('soon')", "20s or 1m30s"),
        (("--rate", "5", "--fail", "10m=many"), "--fail: must be TIME=COUNT or TIME=COUNT@POOL ('10m=many')", "10m=2"),
        (("--trace", "nope"), "trace: is unknown (nope)", "choose one of azure-code"),
        (("--rate", "5", "--router", "random"), "--router: must be central", "one pool with --pool"),
        (("--rate", "5", "--fail", "1m=1@moon"), "--fail: pool is not simulated ('moon')", "edge-default"),
        (("--rate", "5", "--prompts", "10"), "--prompts: requires --answer-cache", "--answer-cache edge=10m,2Gi"),
        (("--rate", "5", "--answer-cache", "edge=10m,2Gi"), "--answer-cache: requires --prompts", "--prompts 1000"),
        (("--rate", "5", "--answer-cache", "edge", "--prompts", "9"), "must be TIER=TTL,SIZE", "edge=10m,2Gi"),
        (("--rate", "5", "--answer-cache", "moon=1m,1Gi", "--prompts", "9"), "is not in the file ('moon')", "edge"),
        (("--rate", "5", "--prefixes", "10"), "--prefixes: must be COUNT=TOKENS ('10')", "50=1000"),
        (("--rate", "5", "--prefixes", "9=9", "--pool", "edge-default"), "cannot be combined", "leave --pool out"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_mend(words: tuple[str, ...], message: str, hint: str) -> None:
    error = run(*words).exception
    assert isinstance(error, UserError)
    assert message in str(error)
    assert hint in f"{error} {error.hint}"
