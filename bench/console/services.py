"""Services in a state folder, as supervisors write them, without running replicas: for the console's pages and tests.

Their figures are those of the planner for a load, and their status is made by the code that the operator uses.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import psutil

from tierserve.api import GenAIDeployment, load, parse, to_document
from tierserve.plan.capacity import Demand, PoolPlan, make_plan
from tierserve.plan.placement import place
from tierserve.runtime.local.processes import ProcessRef
from tierserve.runtime.local.ray_cluster import RayPorts
from tierserve.runtime.local.state import LocalState, write_atomic
from tierserve.state import Observed, PoolObserved
from tierserve.status.build import status

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "assistant.yaml"
PLANNED = 3
PRICES = {"device": 0.05, "edge": 1.1, "cloud": 2.1}


@dataclass(frozen=True, slots=True)
class MadeService:
    """A service with so many edge sites, in a state folder."""

    root: Path
    name: str
    sites: int = 1

    def gaid(self) -> GenAIDeployment:
        """Examples' assistant with this name, prices and sites."""
        return _gaid(self.name, self.sites)

    def create(self, rate: float, now: float | None = None) -> None:
        """Write the file of the service, its state with this process as supervisor, and its first status."""
        folder = self.root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "service.yaml").write_bytes(orjson.dumps(to_document(self.gaid())))
        state = LocalState(
            str(folder / "service.yaml"), 8080, 1, 2, 3, 4, RayPorts(5, 6, 7, 8, 9, 10, 11, 12, (20, 30)),
            {"supervisor": ProcessRef(os.getpid(), psutil.Process().create_time())},
        )  # fmt: skip
        state.save(folder / "state.json")
        self.write(rate, now)

    def write(self, rate: float, now: float | None = None, late: float = 1.0, lag: int = 0) -> None:
        """Write the status for a load.

        Args:
            rate: requests per second.
            now: Unix seconds of the status.
            late: factor on the observed p95.
            lag: desired replicas of the last tier that are not running yet.
        """
        gaid = self.gaid()
        objective = gaid.spec.objective.response_time
        now = time.time() if now is None else now
        document = {
            "name": self.name,
            "file": str(self.root / self.name / "service.yaml"),
            "fileProblem": "",
            "time": now,
            "objective": {"percentile": objective.percentile, "target_s": objective.target.value},
            "status": _status(gaid, rate, now, late, lag),
        }
        write_atomic(self.root / self.name / "status.json", orjson.dumps(document))


@lru_cache(maxsize=32)
def _gaid(name: str, sites: int) -> GenAIDeployment:
    document: dict[str, Any] = to_document(load(EXAMPLE))
    document["metadata"]["name"] = name
    for tier in document["spec"]["tiers"]:
        tier["price"] = PRICES[tier["name"]]
        tier["carbonIntensity"] = 230
        if tier["name"] == "edge" and sites > 1:
            tier["sites"] = [{"name": f"site-{number:02d}"} for number in range(sites)]
    return parse(document)


def _status(gaid: GenAIDeployment, rate: float, now: float, late: float, lag: int) -> dict[str, Any]:
    placements = place(gaid)
    plan = make_plan(gaid, Demand(rate=rate), placements)
    last = plan.pools[-1].placement.pool
    pools = {one.placement.pool: _pool(one, late, lag if one.placement.pool == last else 0) for one in plan.pools}
    observed = Observed(now, "http://127.0.0.1:8080", pools, {"gateway": True, "agent": True, "head": True})
    made: dict[str, Any] = status(gaid, placements, observed)
    return made


def _pool(one: PoolPlan, late: float, lag: int) -> PoolObserved:
    target_s, there = one.placement.target_s, one.rate > 0
    p95_s = min(one.inference_s * late, 10.0) if math.isfinite(one.inference_s) else None
    count = f"{one.replicas} replica{'s' * (one.replicas != 1)}"
    reason = f"{count}: P(wait) {one.p_wait:.2f}, p95 {one.inference_s:.2f} s of {target_s:.2f} s"
    decision = {
        "lambda": one.rate,
        "servers": one.servers,
        "rho": min(1.0, one.utilisation),
        "offered_load_ratio": one.utilisation,
        "p_wait": one.p_wait,
        "predicted_p95_s": one.inference_s if there else None,
        "percentile": 95.0,
        "reason": reason if there else f"{count}: minimum (replicas.min)",
    }
    gateway = {
        "up": True,
        "rate": one.rate,
        "in_flight": round(one.offered_load),
        "queued": round(one.rate * one.wait_s * one.p_wait) if math.isfinite(one.wait_s) else 0,
        "p95_s": p95_s if there else None,
        "within_target": None if not there or p95_s is None else float(p95_s <= target_s),
        "count": round(one.rate * 60),
    }
    running = max(0, one.replicas - lag)
    return PoolObserved("RUNNING", "", running, one.replicas, decision, gateway, 0.5, "a", 0)


def many(root: Path, count: int, sites: int = 1, now: float | None = None) -> list[MadeService]:
    """Write `count` services; those after the first three are copies of these with names of their own.

    Planning each of a thousand would take minutes, and the page shows no difference.
    """
    services = [MadeService(root, f"service-{number:04d}", sites) for number in range(count)]
    for number, one in enumerate(services[:PLANNED]):
        one.create(2.0 + 9.0 * number, now)
    for number, one in enumerate(services[PLANNED:]):
        source, folder = root / services[number % PLANNED].name, root / one.name
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("service.yaml", "state.json", "status.json"):
            text = (source / file).read_bytes().replace(source.name.encode(), one.name.encode())
            (folder / file).write_bytes(text)
    return services
