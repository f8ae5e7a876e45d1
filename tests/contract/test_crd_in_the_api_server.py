"""The CRD in a real API server: what is stored, what kubectl shows, and that status is a subresource."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import GenAIDeployment, load, parse
from tierserve.api.schema.validation import with_defaults
from tierserve.api.yaml_source import documents

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
ROOT = Path(__file__).resolve().parents[2]
RESOURCES = "/apis/serving.tierserve.io/v1alpha1/namespaces/default/genaideployments"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_stored_and_read_back_as_the_same_value(apiserver: Any, example: Path) -> None:
    document = documents(example.read_text())[0][0]
    where = f"{RESOURCES}/{document['metadata']['name']}"
    code, reply = apiserver.create(RESOURCES, document)
    try:
        assert code == 201, reply.get("message")
        _, stored = apiserver.get(where)
        assert stored["spec"] == with_defaults(document)["spec"]
        # The models fill in their own defaults here: the API server's are the same.
        assert GenAIDeployment.model_validate(stored).spec == GenAIDeployment.model_validate(document).spec
        assert parse(stored).spec == load(example).spec
    finally:
        apiserver.delete(where)


def test_kubectl_get_shows_readiness_and_response_time(apiserver: Any) -> None:
    where = f"{RESOURCES}/smallest"
    body = yaml.safe_load((ROOT / "examples/smallest.yaml").read_text())
    body["metadata"]["name"] = "smallest"
    _, stored = apiserver.create(RESOURCES, body)
    try:
        stored["status"] = {
            "conditions": [{"type": "Ready", "status": "True", "reason": "Serving", "message": "3 pools serve"}],
            "tiers": "3/3",
            "replicas": 17,
            "p95": "612ms",
            "connections": 1204,
            "download": "3.1 of 15 GB on 2 nodes",
            "pools": [{"pool": "cloud-default", "tier": "cloud", "site": "default", "decision": {"lambda": 38.2}}],
        }
        code, reply = apiserver.replace_status(where, stored)
        assert code == 200, reply.get("message")
        assert reply["status"]["pools"][0]["decision"] == {"lambda": 38.2}
        _, table = apiserver.get(RESOURCES, Accept=TABLE)
        columns = [column["name"] for column in table["columnDefinitions"]]
        assert columns == ["Name", "Ready", "Tiers", "Replicas", "P95", "Target", "Connections", "Download", "Age"]
        (row,) = table["rows"]
        assert row["cells"][:-1] == ["smallest", "True", "3/3", 17, "612ms", "1500ms", 1204, "3.1 of 15 GB on 2 nodes"]
    finally:
        apiserver.delete(where)


def test_a_spec_written_through_status_changes_nothing(apiserver: Any) -> None:
    where = f"{RESOURCES}/assistant"
    _, stored = apiserver.create(RESOURCES, yaml.safe_load((ROOT / "examples/smallest.yaml").read_text()))
    try:
        stored["spec"]["paused"] = True
        code, reply = apiserver.replace_status(where, stored)
        assert code == 200
        assert reply["spec"]["paused"] is False
    finally:
        apiserver.delete(where)


def test_it_answers_to_gaid_and_to_all(apiserver: Any) -> None:
    _, group = apiserver.get("/apis/serving.tierserve.io/v1alpha1")
    resource = next(one for one in group["resources"] if one["name"] == "genaideployments")
    assert resource["shortNames"] == ["gaid"]
    assert resource["categories"] == ["all"]
    assert resource["namespaced"]


def test_the_schema_is_structural_and_the_names_are_accepted(apiserver: Any) -> None:
    name = "genaideployments.serving.tierserve.io"
    _, definition = apiserver.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    conditions = {one["type"]: one["status"] for one in definition["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
