"""The slow loop while it serves: the greener tier is filled first, and no request is lost by the change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tierserve.runtime.local.service import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.timeout(400)]
FILE = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: green}
spec:
  objective:
    responseTime: {percentile: 95, target: 4s}
    optimize: {by: carbon, mode: apply, interval: 5s}
    caps: {costPerHour: 0.01}
  models:
    - name: large
      engine: emulated
      memory: {weights: 16Gi, perRequest: 250Mi}
      maxConcurrency: 8
      profile: {alpha: 20ms, beta: 1us, gamma: 1us}
      output: {tokens: 20}
  tiers:
    - name: coal
      kind: cloud
      accelerator: {preset: A100-80GB}
      network: {rtt: 1us}
      carbonIntensity: 800
      replicas: {min: 1, max: 1}
      models: [large]
    - name: hydro
      kind: cloud
      accelerator: {preset: A100-80GB}
      network: {rtt: 2us}
      carbonSource: {series: "00:00,20"}
      replicas: {min: 1, max: 1}
      models: [large]
"""
CONNECTIONS = 3


def test_the_greener_tier_is_filled_first_and_no_request_fails_by_the_change(
    state_folder: Path, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    file = tmp_path / "green.yaml"
    file.write_text(FILE)
    with LocalService.up(file) as service:
        stop, codes = threading.Event(), list[int]()
        body = {"model": "green", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}

        def ask() -> None:
            with httpx.Client(timeout=30) as client:
                while not stop.is_set():
                    codes.append(client.post(f"{service.endpoint}/v1/chat/completions", json=body).status_code)

        def status() -> dict[str, Any]:
            found: dict[str, Any] = service.status()["status"]
            return found

        def serving() -> set[str]:
            return {one["pool"] for one in status()["pools"] if (one["gateway"] or {}).get("in_flight")}

        def condition(kind: str) -> tuple[str, str]:
            found = {one["type"]: (one["status"], one["reason"]) for one in status()["conditions"]}
            return found[kind]

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: condition("Optimized") == ("True", "Applied"), "the greener order in effect")
            wait_until(lambda: serving() == {"hydro-default"}, "all requests at the greener tier")
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert set(codes) == {200}
        assert condition("CapsMet") == ("False", "CapExceeded")
        hydro = next(one for one in status()["pools"] if one["pool"] == "hydro-default")
        assert (hydro["carbonIntensity"], hydro["carbonIntensitySource"]) == (20.0, "series")
        assert status()["optimization"]["applied"]["overflow"] == ["hydro", "coal"]
