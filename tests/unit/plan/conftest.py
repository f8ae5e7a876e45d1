"""A service of three tiers with measured profiles, and ways to change it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import GenAIDeployment, load, parse

SERVICE = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: assistant}
spec:
  objective:
    responseTime: {percentile: 95, target: 3s}
  models:
    - name: large
      engine: emulated
      memory: {weights: 16Gi, perRequest: 250Mi}
      profile: {alpha: 8ms, beta: 50us, gamma: 100ns}
      output: {tokens: 200, bytes: 1Ki}
    - name: light
      engine: emulated
      memory: {weights: 2Gi, perRequest: 100Mi}
      profile: {alpha: 5ms, beta: 100us, gamma: 200ns}
  tiers:
    - name: cloud
      kind: cloud
      accelerator: {preset: A100-80GB}
      network: {rtt: 40ms, downlink: 10Gbit}
      replicas: {min: 1, max: 200}
      power: {idle: 80W, max: 400W}
      carbonIntensity: 230
      price: 2.1
      models: [large]
    - name: edge
      kind: edge
      sites: [{name: berlin}, {name: lyon}]
      accelerator: {preset: L4}
      network: {rtt: 8ms}
      replicas: {min: 1, max: 8}
      models: [large, light]
  traffic:
    - {name: chat, share: 0.8, privacy: public, input: 300, output: 200}
    - {name: health, share: 0.2, privacy: site, input: 100, output: 200}
  routing: {overflow: [edge, cloud], defaultClass: chat}
"""
Change = Callable[..., GenAIDeployment]


def put(document: Any, path: str, value: object) -> None:
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for part in way:
        document = document[part]
    if value is None:
        document.pop(last, None)
    else:
        document[last] = value


@pytest.fixture(scope="session")
def service() -> Change:
    """`service({"spec.tiers.0.replicas.max": 3})`: the service with some fields set; None takes a field out."""

    def changed(changes: dict[str, object] | None = None) -> GenAIDeployment:
        document = copy.deepcopy(yaml.safe_load(SERVICE))
        for path, value in (changes or {}).items():
            put(document, path, value)
        return parse(document)

    return changed


@pytest.fixture(scope="session")
def paper() -> GenAIDeployment:
    """The example of the paper."""
    return load(Path(__file__).parents[3] / "examples" / "llama7b-paper.yaml")
