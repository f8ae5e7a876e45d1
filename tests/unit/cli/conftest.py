"""A local service as its supervisor leaves it in the state folder: real files by the code that writes them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tierserve.api import load
from tierserve.plan.placement import place
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.ray_cluster import RayPorts
from tierserve.runtime.local.state import LocalState, write_atomic
from tierserve.state import Observed, PoolObserved
from tierserve.status.build import status

Step = tuple[str, str | Callable[[], str]]
EXAMPLE = Path(__file__).parents[3] / "examples" / "assistant.yaml"
DECISION = {
    "lambda": 20.0, "mu": 1.0, "service_s": 1.0, "service_sd_s": 0.05, "offered_load": 21.0, "rate_error": 1.0,
    "slots": 16, "servers": 32, "replicas": 2, "target": 2, "running": 2, "pending": 0, "peakedness": 1.0, "rho": 0.62,
    "offered_load_ratio": 0.65, "p_wait": 0.01, "predicted_p95_s": 1.1, "percentile": 95.0, "target_s": 1.4599,
    "startup_s": 3.0, "in_system": 20.0, "backlog": 0.0, "set_by": "erlang_c", "margin": 1.0, "caution": 1.0,
    "reason": "2 replicas: 1 cannot carry 21.0 erlangs", "stale": False, "stabilization_window_s": 30.0,
}  # fmt: skip


@dataclass
class Running:
    """A service that is in the state folder; no process of it runs."""

    name: str
    paths: ServicePaths

    def write(self, *, at: float | None = None, **decision: Any) -> None:
        """Write a status whose cloud pool has these figures in its decision."""
        gaid = load(EXAMPLE)
        cloud = DECISION | {"pool": "cloud-default"} | decision
        gateway = {"rate": 19.5, "window_s": 60.0, "p95_s": 1.05, "queued": 3, "in_flight": 20, "up": True}
        pools = {p.pool: PoolObserved("RUNNING", "", 1, 1) for p in place(gaid)}
        count = int(cloud["replicas"])
        pools["cloud-default"] = PoolObserved("RUNNING", "", count, count, cloud, gateway, 1.0)
        now = time.time() if at is None else at
        body = status(gaid, place(gaid), Observed(now, "http://127.0.0.1:1", pools, {"gateway": True}))
        objective = gaid.spec.objective.response_time
        document = {
            "name": self.name, "file": str(EXAMPLE), "fileProblem": "", "time": now, "status": body,
            "objective": {"percentile": objective.percentile, "target_s": objective.target.value},
        }  # fmt: skip
        write_atomic(self.paths.status, orjson.dumps(document))


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Running]:
    """Makes such services, in a state folder of the test's own."""
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path / "state"))

    def make(name: str = "assistant") -> Running:
        paths = ServicePaths.of(name)
        paths.root.mkdir(parents=True)
        ports = RayPorts(1, 2, 3, 4, 5, 6, 7, 8, (9, 10))
        LocalState(str(EXAMPLE), 11, 12, 13, 14, 15, ports).save(paths.state)
        made = Running(name, paths)
        made.write()
        return made

    return make


@pytest.fixture
def terminal() -> Callable[..., tuple[int, str]]:
    """Runs `tierserve` on a terminal of 80 by 24; returns exit status and all that it wrote.

    `steps` are pairs: what must be on the screen since the last input, and the input that is then written, or a
    function that returns it.
    """

    def run(
        arguments: list[str], steps: list[tuple[str, str | Callable[[], str]]], *, limit_s: float = 60.0
    ) -> tuple[int, str]:
        main, other = pty.openpty()
        termios.tcsetwinsize(other, (24, 80))
        command = [sys.executable, "-m", "tierserve.cli.main", *arguments]
        environment = {**os.environ, "TERM": "xterm"}
        process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment)
        os.close(other)
        written, seen, left, end = "", 0, list(steps), time.monotonic() + limit_s
        try:
            while time.monotonic() < end:
                ready, _, _ = select.select([main], [], [], 0.2)
                try:
                    written += os.read(main, 65536).decode(errors="replace") if ready else ""
                except OSError:  # Linux: the program has ended
                    break
                if left and left[0][0] in written[seen:]:
                    seen = len(written)
                    step = left.pop(0)[1]
                    os.write(main, (step if isinstance(step, str) else step()).encode())
            assert not left, f"not on the screen within {limit_s:g} s: {left[0][0]!r}; {written[seen:]}"
            return process.wait(max(1.0, end - time.monotonic())), written
        finally:
            process.kill()
            process.wait()
            os.close(main)

    return run
