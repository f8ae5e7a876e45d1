"""Scale to zero on this machine: no replica without requests; the next request starts one and is answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest

from tierserve.runtime.local.service import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.timeout(400)]

FILE = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: sleeper}
spec:
  objective:
    responseTime: {percentile: 95, target: 1500ms}
  models:
    - name: large
      engine: emulated
      memory: {weights: 16Gi, perRequest: 250Mi}
      maxConcurrency: 4
      profile: {alpha: 20ms, beta: 1us, gamma: 1us}
      output: {tokens: 20}
  tiers:
    - name: cloud
      kind: cloud
      accelerator: {preset: A100-80GB}
      replicas: {min: 0, max: 2, scaleToZeroAfter: 4s}
      models: [large]
"""
STILL_S = 4.0
"""Longer than the gateway's health checks and Ray Serve's reports take to come round."""


def test_a_tier_scales_to_zero_without_requests_and_serves_the_next_one(
    state_folder: Path, tmp_path: Path, wait_until: Callable[..., None]
):
    file = tmp_path / "sleeper.yaml"
    file.write_text(FILE)
    with LocalService.up(file) as service:
        client = openai.OpenAI(base_url=f"{service.endpoint}/v1", api_key="none", max_retries=0, timeout=60)

        def pool() -> dict:
            return service.status()["status"]["pools"][0]

        def asks() -> bool:
            messages = [{"role": "user", "content": "Say hello."}]
            return bool(client.chat.completions.create(model="sleeper", messages=messages, max_tokens=8).choices)

        for _ in range(2):
            wait_until(lambda: pool()["scaledToZero"] and pool()["gateway"]["start_s"], "a pool at zero")
            assert service.status()["status"]["ready"] == "True"
            assert {"sleeper", "large"} <= {m.id for m in client.models.list()}
            time.sleep(STILL_S)
            assert pool()["scaledToZero"], "only a request starts a replica"
            assert "scaled to zero" in pool()["decision"]["reason"] or "no traffic" in pool()["decision"]["reason"]
            assert asks()
            wait_until(lambda: pool()["running"] == 1, "a replica")
        codes = httpx.get(f"{service.state().agent_url}/metrics").text
        assert 'code="503"' not in codes
