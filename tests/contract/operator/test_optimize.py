"""What `objective.optimize` remembers is in the status, so the API server must give it back as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient

from tierserve.runtime.kubernetes.client import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
CHOICE = {"overflow": ["edge", "cloud"], "models": {"cloud": "large", "edge": "light"}}
NOW = "2026-11-29T12:00:00.250000Z"
STATUS: dict[str, Any] = {
    "optimization": {
        "observedTime": NOW, "rate": 3.25, "solvedTime": NOW, "applied": CHOICE, "pending": CHOICE,
        "changeTimes": ["2026-11-29T11:30:00.500000Z", NOW], "heldUntil": NOW,
    },
    "recommendation": {
        **CHOICE, "by": "carbon", "time": NOW, "rate": 3.25, "present": 120.5, "expected": 60.25, "saving": 0.5,
        "confidence": "High", "message": "fill the tiers in the order edge, cloud",
    },
    "watts": 800.5, "idleWatts": 320.5, "costPerHour": 4.5, "carbonGramsPerHour": 120.5, "embodiedGramsPerHour": 9.5,
    "pools": [
        {
            "pool": "edge-default", "tier": "edge", "site": "default", "watts": 800.5, "idleWatts": 320.5,
            "costPerHour": 4.5, "carbonGramsPerHour": 120.5, "embodiedGramsPerHour": 9.5, "joulesPerRequest": 246.5,
            "joulesPerToken": 1.25, "carbonGramsPerRequest": 0.0105, "costPerRequest": 0.00035,
            "carbonIntensity": 150.5, "carbonIntensitySource": "electricity-maps, last value",
        }
    ],
}  # fmt: skip


async def test_an_operator_that_starts_anew_reads_what_the_one_before_wrote(
    apiserver: Any, make_operator: Any, tmp_path: Any, space: Any, assistant: Any
) -> None:
    space.create(assistant)
    file = make_operator(tmp_path, apiserver.url, apiserver.certificate, apiserver.token).kubeconfig
    await config.load_kube_config(config_file=str(file))
    async with ApiClient() as client:
        await Cluster(client).apply_status(space.get("GenAIDeployment", "assistant"), STATUS)
    assert space.get("GenAIDeployment", "assistant")["status"] == STATUS
