"""Local runtime: renders placements into files and nodes, and runs the processes of one service.

`apply` is idempotent: a missing component is started, one that is as desired is not touched. A component that ended is
restarted in the next reconcile; if the head of the Ray cluster ended, the whole cluster is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import httpx
import psutil

from tierserve.api import GenAIDeployment
from tierserve.observe.gateway_agent import AgentReport, get_gateway
from tierserve.observe.serve_rest import AppObserved, ServeRest
from tierserve.plan.placement import Placement
from tierserve.reconcile import InUse
from tierserve.render.haproxy.agent_config import agent_config
from tierserve.render.haproxy.config import render_haproxy
from tierserve.render.haproxy.from_deployment import GatewayAddresses, gateway_spec
from tierserve.render.serve import LINGER_S, ServeTarget, node_labels, serve_config
from tierserve.runtime.local import ray_cluster
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.ports import LOOPBACK
from tierserve.runtime.local.processes import end_marked, end_tree, reap, start
from tierserve.runtime.local.state import LocalState, write_atomic
from tierserve.state import Observed, PoolObserved
from tierserve_serving.gateway import haproxy as binary

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LocalDesired:
    """Desired state on this machine: nodes with their labels, Serve's configuration, the gateway's two files."""

    nodes: Mapping[str, Mapping[str, str]]
    serve: Mapping[str, Any]
    haproxy: str
    agent: Mapping[str, Any]


@dataclass(slots=True)
class LocalRuntime:
    """Runtime of one service on this machine; its blocking steps run in a thread, one at a time."""

    on_cluster: ClassVar[bool] = False
    paths: ServicePaths
    state: LocalState
    say: Progress = print
    emulate_network: bool = True
    _applied: dict[str, str] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)
    _reported: set[str] = field(default_factory=set)
    _declared: dict[str, dict[str, Any]] = field(default_factory=dict)
    _labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _in_use: dict[str, float] = field(default_factory=dict)

    @property
    def rest(self) -> ServeRest:
        """Ray Serve of this service."""
        return ServeRest(self.state.ray.dashboard_url, self.paths.ray_token.read_text().strip())

    # ------------------------------------------------------------------ render

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> LocalDesired:
        """Render files and nodes for these placements; no side effects."""
        state, ray = self.state, self.state.ray
        addresses = GatewayAddresses(
            bind=LOOPBACK,
            port=state.gateway_port,
            upstreams={p.pool: (LOOPBACK, ray.http) for p in placements},
            admin_socket=str(self.paths.admin_socket),
            log_address=f"{LOOPBACK}:{state.log_port}",
            metrics_bind=LOOPBACK,
            metrics_port=state.metrics_port,
        )
        spec = gateway_spec(gaid, placements, addresses)
        target = ServeTarget(
            http_host=LOOPBACK,
            http_port=ray.http,
            decisions_address=f"{LOOPBACK}:{state.decisions_port}",
            demand_urls={p.pool: f"{state.agent_url}/pools/{p.pool}" for p in placements},
            response_timeout_s=gaid.spec.gateway.response_timeout.value,
            emulate_network=self.emulate_network,
            surge=True,  # this machine has room for both: a version that does not start never takes the old one away
            replica_threads=1,  # the timings of a replica must not depend on the number of replicas
        )
        decisions = {p.pool: f"http://{LOOPBACK}:{state.decisions_port}/decisions" for p in placements}
        return LocalDesired(
            nodes={p.pool: node_labels(p, gaid.name) for p in placements},
            serve=serve_config(gaid.name, placements, target),
            haproxy=render_haproxy(spec),
            agent=agent_config(spec, placements, decisions, listen=LOOPBACK, port=state.agent_port),
        )

    # ------------------------------------------------------------------- apply

    def revisions(self, desired: LocalDesired) -> Mapping[str, str]:
        """The rendered revision of each pool."""
        return {app["name"]: _revision(app) for app in desired.serve["applications"]}

    async def apply(self, gaid: GenAIDeployment, desired: LocalDesired, keep: InUse) -> Sequence[str]:
        """Start missing components and update changed ones; returns the errors."""
        await asyncio.to_thread(self._apply, self._with_pools_in_use(desired, keep), keep.hold_routes)
        return tuple(self._problems)

    def _with_pools_in_use(self, desired: LocalDesired, keep: InUse) -> LocalDesired:
        """Add earlier pools that are in use, or were within `LINGER_S`: HAProxy's old process may still use them."""
        now = time.monotonic()
        self._in_use = {pool: at for pool, at in self._in_use.items() if now - at < LINGER_S} | dict.fromkeys(
            keep.pools, now
        )
        pools = [pool for pool in self._in_use if pool not in desired.nodes and pool in self._declared]
        nodes = {**desired.nodes, **{pool: self._labels[pool] for pool in pools}}
        applications = [*desired.serve["applications"], *(self._declared[pool] for pool in pools)]
        self._labels = dict(nodes)
        return replace(desired, nodes=nodes, serve={**desired.serve, "applications": applications})

    def _apply(self, desired: LocalDesired, hold_routes: bool) -> None:
        self._reported = set(self._problems)  # errors of the previous reconcile are not logged again
        self._problems.clear()
        reap()
        if not (hold_routes and self._alive("agent") and self._alive("gateway")):
            self._attempt("gateway agent", lambda: self._ensure_agent(desired))
            self._attempt("gateway", lambda: self._ensure_gateway(desired))
        self._attempt("prefork", self._ensure_prefork)
        self._attempt("Ray head", self._ensure_head)
        # Serve's controller and proxy start in parallel with the nodes; replicas wait for the node with their labels.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(self._attempt, "Ray Serve", lambda: self._ensure_serve(desired))
            self._attempt("Ray nodes", lambda: self._ensure_nodes(desired))
        self._attempt("Ray nodes", lambda: self._drop_nodes(desired))
        self.state.save(self.paths.state)

    def _attempt(self, component: str, step: Callable[[], None]) -> None:
        """Run a step; its error is reported and does not stop the other components."""
        try:
            step()
        except (OSError, RuntimeError, ValueError, binary.GatewayError, httpx.HTTPError, psutil.Error) as error:
            problem = f"{component}: {error}"
            self._problems.append(problem)
            if problem not in self._reported:
                self.say(problem)

    def _alive(self, component: str) -> bool:
        reference = self.state.processes.get(component)
        return reference is not None and reference.alive()

    def _ensure_agent(self, desired: LocalDesired) -> None:
        content = json.dumps(desired.agent, indent=2)
        alive = self._alive("agent")
        if alive and not self._changed("agent", content):
            return
        write_atomic(self.paths.agent_config, content.encode())
        # A running agent reloads its file (--watch): a restart would interrupt requests.
        if not alive:
            self._stop("agent")
            command = [sys.executable, "-m", "tierserve_serving.gateway.agent"]
            command += ["--config", str(self.paths.agent_config), "--watch"]
            self.state.processes["agent"] = start(command, log=self.paths.logs / "agent.log", marker=self.paths.marker)
            self.say("gateway agent started")
        self._applied["agent"] = content

    def _ensure_gateway(self, desired: LocalDesired) -> None:
        changed = self._changed("haproxy", desired.haproxy)
        alive = self._alive("gateway")
        if alive and not changed:
            return
        haproxy = binary.find_haproxy()
        if alive:
            binary.reload(haproxy, self.paths.haproxy_config, desired.haproxy, self.state.processes["gateway"].pid)
            self.say("gateway reloaded")
        else:
            self._stop("gateway")
            binary.write_config(self.paths.haproxy_config, desired.haproxy)
            binary.check_config(haproxy, self.paths.haproxy_config)
            command = binary.start_command(haproxy, self.paths.haproxy_config, self.paths.root / "haproxy.pid")
            log = self.paths.logs / "haproxy.log"
            self.state.processes["gateway"] = start(command, log=log, marker=self.paths.marker)
            self.say(f"gateway started at {self.state.endpoint}")
        self._applied["haproxy"] = desired.haproxy

    def _ensure_prefork(self) -> None:
        """Start the prefork server, unless the head is down: then the whole cluster is restarted."""
        if self._alive("head") and not self._alive("prefork"):
            self.state.processes["prefork"] = ray_cluster.start_prefork(self.paths, self.state.ray)

    def _ensure_head(self) -> None:
        if self._alive("head"):
            return
        self._stop_cluster()
        self.state.processes["prefork"] = ray_cluster.start_prefork(self.paths, self.state.ray)
        self._applied.pop("serve", None)
        began = time.monotonic()
        self.state.processes["head"] = head = ray_cluster.start_head(self.paths, self.state.ray)
        ray_cluster.wait_for_head(self.rest, head, self.paths)
        self.say(f"Ray head ready after {time.monotonic() - began:.0f} s")

    def _ensure_nodes(self, desired: LocalDesired) -> None:
        for pool, labels in desired.nodes.items():
            component = f"node-{pool}"
            if self._alive("head") and not self._alive(component):
                self._stop(component)
                self.state.processes[component] = ray_cluster.start_node(self.paths, self.state.ray, pool, labels)
                self.say(f"Ray node started for pool {pool}")

    def _drop_nodes(self, desired: LocalDesired) -> None:
        """End nodes of removed pools, after their last replica: Serve lists the application until that has stopped."""
        removed = [p for p in self.state.processes if p.startswith("node-") and p[5:] not in desired.nodes]
        if not removed or "serve" not in self._applied:
            return
        applications = self.rest.applications()
        for component in removed:
            if component[5:] in applications:
                continue
            self._stop(component)
            self.say(f"{component} ended: its pool is no longer in the file")

    def _ensure_serve(self, desired: LocalDesired) -> None:
        content = json.dumps(desired.serve, sort_keys=True)
        if self._changed("serve", content) and self._alive("head"):
            self.rest.declare(desired.serve)
            self._applied["serve"] = content
            self._declared = {app["name"]: app for app in desired.serve["applications"]}
            self.say(f"Ray Serve configured with {len(desired.nodes)} pools")

    def _changed(self, key: str, content: str) -> bool:
        return self._applied.get(key) != content

    def _stop(self, component: str) -> None:
        reference = self.state.processes.pop(component, None)
        if reference is not None:
            end_tree(reference)

    def _stop_cluster(self) -> None:
        """End the processes of a cluster whose head has ended, including Ray's own HAProxy, which outlives it."""
        own = {c: ref for c, ref in self.state.processes.items() if c in {"agent", "gateway", "supervisor"}}
        if own == self.state.processes:  # no cluster; a gateway that is starting may not have all its children yet
            return
        keep = [os.getpid(), *(pid for c in ("agent", "gateway") if c in own for pid in family(own[c].pid))]
        end_marked(self.paths.marker, keep=keep, grace_s=2.0)
        self.state.processes = own

    # ----------------------------------------------------------------- observe

    async def observe(self, gaid: GenAIDeployment) -> Observed:
        """The observed state; a component that does not answer is missing, not zero."""
        return await asyncio.to_thread(self._observe)

    def _observe(self) -> Observed:
        problems: list[str] = []
        apps = self._applications(problems)
        report = get_gateway(self.state.agent_url)
        names = {*apps, *report.figures, *report.decisions}
        return Observed(
            now=time.time(),
            endpoint=self.state.endpoint,
            pools={name: self._pool(name, apps.get(name), report) for name in names},
            components={p: reference.alive() for p, reference in self.state.processes.items() if p != "supervisor"},
            problems=tuple(problems),
            routed=report.routed,
        )

    def _pool(self, name: str, app: AppObserved | None, report: AgentReport) -> PoolObserved:
        declared = self._declared.get(name)
        state = PoolObserved(
            gateway=report.figures.get(name),
            decision=report.decisions.get(name),
            decision_age_s=report.ages_s.get(name),
        )
        if app is None:
            return state
        return replace(
            state, app=app.status, message=app.message, running=app.running, desired=app.target, previous=app.previous,
            revision=_revision(declared) if declared is not None else None,
        )  # fmt: skip

    def _applications(self, problems: list[str]) -> dict[str, AppObserved]:
        try:
            return self.rest.applications()
        except (httpx.HTTPError, ValueError) as error:
            if self._alive("head") and "serve" in self._applied:
                problems.append(f"Ray Serve does not answer: {type(error).__name__}")
            return {}


def family(pid: int) -> list[int]:
    """The pids of a process and its descendants."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.Error:
        return [pid]


def _revision(app: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(app, sort_keys=True).encode()).hexdigest()[:12]
