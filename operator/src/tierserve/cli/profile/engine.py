"""Replica of a model of a file, started on this machine without Ray (`tierserve_serving.standalone`)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson

from tierserve.api import GenAIDeployment
from tierserve.api.v1alpha1.models import Model
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.cli.errors import UserError, extra_of
from tierserve.plan.placement import Placement, placement_on
from tierserve.render.serve import ServeTarget, application

MODULE = "tierserve_serving.standalone"
MOST_SLOTS = 256
"""Of a default: above it a grid takes long, and the fit is known."""
_STOP_S = 15.0
_NO_RAY = ServeTarget(http_host="127.0.0.1", http_port=0, decisions_address="", demand_urls={}, response_timeout_s=60.0)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Model and tier of a file, and the replica that they make."""

    model: Model
    tier: Tier
    placement: Placement
    slots: int


@dataclass(frozen=True, slots=True)
class Running:
    """A replica that serves, and the seconds of each part of its start-up."""

    url: str
    startup_s: dict[str, float]


def choose(gaid: GenAIDeployment, model: str | None, tier: str | None, batch: int | None) -> Chosen:
    """Return the replica to measure; raises UserError.

    Its slots are those that memory and engine allow: bounds on the response time come from the profile, which is what
    is measured here.
    """
    names = [one.name for one in gaid.spec.models]
    if model is None and len(names) > 1:
        raise UserError(f"--model: is required, the file has {len(names)} models", f"choose {' or '.join(names)}")
    name = names[0] if model is None else model
    if name not in names:
        raise UserError(f"--model: is not in the file (got {name!r})", f"choose {' or '.join(names)}")
    chosen = gaid.model(name)
    tiers = [one for one in gaid.spec.tiers if chosen in gaid.models_of(one)]
    if tier is not None and tier not in [one.name for one in tiers]:
        hint = f"choose {' or '.join(one.name for one in tiers)}" if tiers else "add the model to a tier"
        raise UserError(f"--tier: does not run the model {name} (got {tier!r})", hint)
    if not tiers:
        raise UserError(f"--model: no tier runs {name}", "add it to models of a tier")
    where = tiers[0] if tier is None else gaid.tier(tier)
    placement = placement_on(gaid, where, chosen)
    fitting = min(placement.bounds["memory"], placement.bounds["engine"], MOST_SLOTS)
    return Chosen(chosen, where, placement, batch or max(1, fitting))


def pool_config(gaid: GenAIDeployment, chosen: Chosen) -> dict[str, Any]:
    """Return the `PoolConfig` of the replica, with the arguments that Ray Serve would start it with."""
    rendered = application(gaid.name, chosen.placement, _NO_RAY)
    return {**rendered["args"], **rendered["deployments"][0].get("user_config", {}), "slots": chosen.slots}


@contextmanager
def started(config: dict[str, Any]) -> Iterator[Running]:
    """Start a replica, and stop it at the end; raises UserError with its own message if it does not start."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--config", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(orjson.dumps(config).decode() + "\n")
                process.stdin.flush()
            report = process.stdout.readline()
            if not report:
                process.wait(_STOP_S)
                log.seek(0)
                raise _not_started(log.read())
            yield _running(orjson.loads(report))
        finally:
            # The replica stops when its standard input is closed.
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _running(report: dict[str, Any]) -> Running:
    parts = {"import": report["import_s"], "load": report["load_s"], "first request": report["first_request_s"]}
    return Running(report["url"], parts)


def _not_started(log: str) -> UserError:
    lines = [line for line in log.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "it ended without a message"
    module = last.rpartition("No module named ")[2].strip("'\" ") if "No module named" in last else ""
    extra = extra_of(module) if module else None
    hint = f'pip install "tierserve[{extra}]"' if extra else "correct the model in the file"
    message, separator, own = last.partition("; hint: ")
    return UserError(f"the replica does not start: {message}", own if separator else hint, code=1)
