"""`tierserve validate` and a real API server say the same of every document; every rule has a good and a bad one."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api.schema.rules import RULES
from tierserve.api.schema.validation import validated

RESOURCES = "/apis/serving.tierserve.io/v1alpha1/namespaces/default/genaideployments"
TABLE = yaml.safe_load((Path(__file__).parent / "documents.yaml").read_text())
CASES = [*TABLE["rules"], *TABLE["schema"]]


def cases(verdict: str) -> list[Any]:
    names = (case.get("rule") or case["case"] for case in CASES)
    named = [pytest.param(case, id=f"{i}-{name}") for i, (case, name) in enumerate(zip(CASES, names, strict=True))]
    return [one for one in named if verdict in one.values[0]]


GOOD, BAD = cases("accept"), cases("reject")


def document(changes: dict[str, Any]) -> dict[str, Any]:
    """The base with the fields at the given paths set."""
    whole: dict[str, Any] = copy.deepcopy(TABLE["base"])
    for path, value in changes.items():
        steps: list[Any] = [int(s) if s.isdigit() else s for s in re.findall(r"[^.\[\]]+", path)]
        node: Any = whole
        for step in steps[:-1]:
            node = node[step]
        node[steps[-1]] = value
    return whole


def message_of(reply: dict[str, Any]) -> str:
    return str(reply.get("message", ""))


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {case["rule"] for case in TABLE["rules"]}


def test_the_base_is_good() -> None:
    assert validated(TABLE["base"])[1] == []


@pytest.mark.parametrize("case", GOOD)
def test_validate_accepts(case: dict[str, Any]) -> None:
    gaid, problems = validated(document(case["accept"]))
    assert problems == []
    assert gaid is not None


@pytest.mark.parametrize("case", BAD)
def test_validate_rejects_with_field_and_hint(case: dict[str, Any]) -> None:
    gaid, problems = validated(document(case["reject"]))
    assert gaid is None
    assert [problem.path for problem in problems] == [case["at"]]
    assert all(problem.message and problem.hint for problem in problems)


@pytest.mark.slow
@pytest.mark.apiserver
@pytest.mark.parametrize("case", GOOD)
def test_the_api_server_accepts(apiserver: Any, case: dict[str, Any]) -> None:
    code, reply = apiserver.create(RESOURCES, document(case["accept"]), dry_run=True)
    assert code == 201, message_of(reply)


@pytest.mark.slow
@pytest.mark.apiserver
@pytest.mark.parametrize("case", BAD)
def test_the_api_server_rejects_for_the_same_reason(apiserver: Any, case: dict[str, Any]) -> None:
    code, reply = apiserver.create(RESOURCES, document(case["reject"]), dry_run=True)
    assert code in {400, 422}, reply
    rule = next((rule for rule in RULES if rule.name == case.get("rule")), None)
    if rule:
        assert rule.cel_message in message_of(reply)
    else:
        assert re.split(r"[.\[]", case["at"])[-1].rstrip("]") in message_of(reply)
