"""GenAIDeployment -> arguments of the replicas, and the replica's own check of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tierserve.api import GenAIDeployment, load
from tierserve.plan.placement import place
from tierserve.render.serve import ServeTarget, serve_config
from tierserve_serving.app import validated
from tierserve_serving.config import PoolConfig

EXAMPLE = Path(__file__).parents[3] / "examples" / "assistant.yaml"
TARGET = ServeTarget("127.0.0.1", 8000, "127.0.0.1:9000", {}, 60.0)


@pytest.fixture
def deployment(tmp_path):
    """The example, its model `large` with other fields."""

    def of(per_replica: int = 1, **fields) -> GenAIDeployment:
        document = yaml.safe_load(EXAMPLE.read_text())
        next(m for m in document["spec"]["models"] if m["name"] == "large").update(fields)
        cloud = next(t for t in document["spec"]["tiers"] if t["name"] == "cloud")
        cloud["accelerator"]["perReplica"] = per_replica
        path = tmp_path / "service.yaml"
        path.write_text(yaml.safe_dump(document))
        return load(path)

    return of


def arguments(gaid: GenAIDeployment, target: ServeTarget = TARGET) -> PoolConfig:
    placements = [placement for placement in place(gaid) if placement.tier == "cloud"]
    (application,) = serve_config(gaid.name, placements, target)["applications"]
    return validated(application["args"])


def test_arguments_and_adapters_of_the_engine_reach_the_replica(deployment):
    gaid = deployment(
        engine="vllm",
        source="file:///models/large",
        engineArgs={"quantization": "awq", "enable-prefix-caching": "false"},
        adapters=[{"name": "sql", "source": "file:///adapters/sql"}],
        per_replica=2,
    )
    made = arguments(gaid)
    assert made.engine_args == {"quantization": "awq", "enable-prefix-caching": "false"}
    assert made.adapters == {"sql": "file:///adapters/sql"}
    assert made.tensor_parallel == 2
    assert made.model_names == ("large", "assistant", "sql")


def test_threads_are_set_where_the_runtime_says_so(deployment):
    gaid = deployment()
    assert arguments(gaid).threads == 0
    one = ServeTarget("127.0.0.1", 8000, "127.0.0.1:9000", {}, 60.0, replica_threads=1)
    assert arguments(gaid, one).threads == 1
