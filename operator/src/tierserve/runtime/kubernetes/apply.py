"""One service on a cluster: observe it, apply what is desired, and remove last what is in use no more.

An object is applied when it differs from what was applied last, when somebody changed it since, and every
`HEAL_EVERY_S` whatever is known: level-based, without a write for each tick.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tierserve.api import GenAIDeployment
from tierserve.observe.agents import AgentReader
from tierserve.observe.kubernetes import has_caught_up, observed, pool_of
from tierserve.observe.pod_failures import pod_problems
from tierserve.observe.refusals import gateway_refusals, is_upgrading, pool_refusals, start_failures
from tierserve.plan.placement import Placement, place
from tierserve.reconcile import InUse
from tierserve.render.kubernetes.gateway import agents_url
from tierserve.render.kubernetes.metadata import DEPLOYMENT, REVISION, Object, gateway_name, with_revision
from tierserve.render.kubernetes.objects import KINDS, OPTIONAL_KINDS, kube_objects
from tierserve.render.kubernetes.ray_service import with_pod_metadata_of
from tierserve.render.kubernetes.settings import KubeSettings
from tierserve.runtime.kubernetes.client import NOT_FOUND, Cluster, ClusterError, path_of
from tierserve.runtime.kubernetes.upgrades import UpgradeTurn
from tierserve.state import Observed
from tierserve.status.pools import is_short

HEAL_EVERY_S = 60.0
SEEN_AFTER_S = 5.0  # a watched object that is not seen by then has been deleted
SETTLE_S = 6.0
"""KubeRay reads the state of Serve every 2 s (ServiceDefaultRequeueDuration); see `has_caught_up`."""
WATCHED = {"RayService": "ray.io/v1", "Deployment": "apps/v1"}
INSTALL_KUBERAY = (
    "KubeRay is not installed (the cluster serves no RayService): helm install kuberay-operator kuberay-operator "
    "--repo https://ray-project.github.io/kuberay-helm/ --version 1.6.1"
)

Live = Callable[[str, str], Sequence[Object]]
"""(namespace, service) -> its RayServices and Deployments as the watches last saw them."""


@dataclass(slots=True)
class Applied:
    """What was last applied at a path: the wish, and the version of the object that came of it."""

    kind: str
    wish: str
    version: str
    at: float


@dataclass(slots=True)
class KubeRuntime:
    """The cluster as a place to run a service; one for the whole operator, state is per service."""

    on_cluster: ClassVar[bool] = True
    cluster: Cluster
    settings: KubeSettings
    live: Live
    agents: AgentReader
    clock: Callable[[], float] = time.time
    _applied: dict[str, dict[str, Applied]] = field(default_factory=dict)
    _pruned: dict[str, tuple[frozenset[str], frozenset[str], float]] = field(default_factory=dict)
    _caught_up: dict[str, dict[str, tuple[Any, float]]] = field(default_factory=dict)
    _unused: dict[str, dict[str, float]] = field(default_factory=dict)
    _unserved: dict[str, float] = field(default_factory=dict)
    _turn: UpgradeTurn = field(default_factory=UpgradeTurn)

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> tuple[Object, ...]:
        """The objects that shall be."""
        objects = kube_objects(gaid, placements, self.settings)
        return tuple(with_revision(one) if one["kind"] == "RayService" else one for one in objects)

    def revisions(self, desired: tuple[Object, ...]) -> Mapping[str, str]:
        """The rendered version of each pool."""
        services = (one for one in desired if one["kind"] == "RayService")
        return {pool_of(one): one["metadata"]["annotations"][REVISION] for one in services}

    async def apply(self, gaid: GenAIDeployment, desired: tuple[Object, ...], keep: InUse) -> Sequence[str]:
        """Bring the cluster closer to what shall be, removals last; what fails does not keep the rest from it."""
        problems: list[str] = []
        live = {path_of(one): one for one in await self._children(gaid)}
        routes = ("ConfigMap", gateway_name(gaid.name))
        for wanted in self._admitted(gaid, desired, live):
            if keep.hold_routes and (wanted["kind"], wanted["metadata"]["name"]) == routes:
                continue
            try:
                await self._apply_one(gaid, wanted, live.get(path_of(wanted)))
            except ClusterError as error:
                if error.code == 0:
                    raise
                if error.code == NOT_FOUND and wanted["kind"] in OPTIONAL_KINDS:
                    self._unserved[wanted["kind"]] = self.clock()
                else:
                    problems.append(_words(wanted, error))
        await self._prune(gaid, desired, keep.pools)
        return tuple(dict.fromkeys(problems))

    def _admitted(self, gaid: GenAIDeployment, desired: tuple[Object, ...], live: Mapping[str, Object]) -> list[Object]:
        """What is applied now: without RayServices whose turn to be upgraded has not come."""
        ray = [one for one in desired if one["kind"] == "RayService"]
        there = {one["metadata"]["name"]: one for one in live.values() if one["kind"] == "RayService"}
        if self._turn.admits(_key(gaid), ray, there):
            return [
                with_pod_metadata_of(one, there[name])
                if one["kind"] == "RayService" and (name := one["metadata"]["name"]) in there
                else one
                for one in desired
            ]
        return [one for one in desired if one["kind"] != "RayService"]

    async def _apply_one(self, gaid: GenAIDeployment, wanted: Object, live: Object | None) -> None:
        if self.clock() - self._unserved.get(wanted["kind"], float("-inf")) < HEAL_EVERY_S:
            return  # the cluster did not have the kind a short while ago
        applied, path = self._applied.setdefault(_key(gaid), {}), path_of(wanted)
        wish, last = json.dumps(wanted, sort_keys=True), applied.get(path)
        if last is None:
            await self._check_owner(gaid, wanted)
        elif last.wish == wish and self._is_still(wanted["kind"], live, last):
            return
        done = await self.cluster.apply(wanted)
        applied[path] = Applied(wanted["kind"], wish, _version(done), self.clock())

    def _is_still(self, kind: str, live: Object | None, last: Applied) -> bool:
        """Whether an object is as it was left, as far as that is seen."""
        age_s = self.clock() - last.at
        if live is None:
            return age_s < (SEEN_AFTER_S if kind in WATCHED else HEAL_EVERY_S)
        return age_s < HEAL_EVERY_S and _version(live) == last.version

    async def _check_owner(self, gaid: GenAIDeployment, wanted: Object) -> None:
        """Two services may ask for the same name; the first keeps it."""
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        there = await self.cluster.read(wanted["apiVersion"], wanted["kind"], namespace, name)
        if there is None:
            return
        owner = (there["metadata"].get("labels") or {}).get(DEPLOYMENT)
        if owner != gaid.name:
            whose = f"GenAIDeployment {owner}" if owner else "somebody else"
            raise ClusterError(409, f"it belongs to {whose}; give this service or tier another name")

    async def _prune(self, gaid: GenAIDeployment, desired: Sequence[Object], keep: frozenset[str]) -> None:
        """Remove objects of the service that are desired no more, but none of a pool that was in use until lately.

        HAProxy's process of before a reload serves what it has begun for `gateway.responseTimeout` more.
        """
        wanted = frozenset(path_of(one) for one in desired)
        before = self._pruned.get(_key(gaid))
        if before is not None and before[:2] == (wanted, keep) and self.clock() - before[2] < HEAL_EVERY_S:
            return
        unused = self._unused.setdefault(_key(gaid), {})
        unused.update({pool: self.clock() for pool in keep})  # so that it counts from when it is in use no more
        namespace, waiting = gaid.metadata.namespace or "default", False
        for api_version, kind in KINDS:
            for child in await self.cluster.children(api_version, kind, namespace, gaid.name):
                if path_of(child) in wanted or child["metadata"].get("deletionTimestamp"):
                    continue
                if self.clock() - unused.get(pool_of(child), float("-inf")) < gaid.spec.gateway.response_timeout.value:
                    waiting = True
                    continue
                await self.cluster.delete(child)
                self._applied.get(_key(gaid), {}).pop(path_of(child), None)
        if not waiting:
            self._pruned[_key(gaid)] = (wanted, keep, self.clock())

    async def observe(self, gaid: GenAIDeployment) -> Observed:
        """What watches and agents report."""
        agents, children = await asyncio.gather(self.agents.read(agents_url(gaid)), self._children(gaid))
        found = observed(
            gaid, children, agents, now=self.clock(), settled=self._settled(gaid, children),
            problems=gateway_refusals(children),
        )  # fmt: skip
        if not is_short(found) and not is_upgrading(children):
            return found
        causes = await self._causes(gaid, place(gaid), children)
        return replace(found, problems=(*found.problems, *causes))

    def _settled(self, gaid: GenAIDeployment, children: Sequence[Object]) -> set[str]:
        """Names of the RayServices that KubeRay has caught up with for `SETTLE_S`."""
        before = self._caught_up.get(_key(gaid), {})
        now: dict[str, tuple[Any, float]] = {}
        for one in children:
            if one["kind"] == "RayService" and has_caught_up(one):
                name, version = one["metadata"]["name"], (one["metadata"].get("uid"), one["metadata"]["generation"])
                since = before.get(name, (None, 0.0))
                now[name] = since if since[0] == version else (version, self.clock())
        self._caught_up[_key(gaid)] = now
        return {name for name, (_, at) in now.items() if self.clock() - at >= SETTLE_S}

    async def _causes(
        self, gaid: GenAIDeployment, placements: Sequence[Placement], children: Sequence[Object]
    ) -> list[str]:
        """Why replicas are missing: pods that do not run, and pods that may not be created."""
        namespace = gaid.metadata.namespace or "default"
        pods, events = await asyncio.gather(
            self.cluster.children("v1", "Pod", namespace, gaid.name), self.cluster.warnings(namespace)
        )
        refusals = pool_refusals(gaid, placements, children, events or (), pods)
        failures = start_failures(placements, events or (), pods)
        return [*refusals, *failures, *pod_problems(gaid, pods, placements, self.clock())]

    async def _children(self, gaid: GenAIDeployment) -> Sequence[Object]:
        """RayServices and Deployments as the watches saw them, or as they are where a watch shows less than was made.

        Kopf may miss a definition that is installed while it runs (KubeRay after us), and then watches nothing of it.
        """
        namespace = gaid.metadata.namespace or "default"
        seen = self.live(namespace, gaid.name)
        paths = {path_of(one) for one in seen}
        unseen = {
            kind
            for path, last in self._applied.get(_key(gaid), {}).items()
            for kind in WATCHED
            if last.kind == kind and path not in paths and self.clock() - last.at > SEEN_AFTER_S
        }
        found = [
            one
            for kind in sorted(unseen)
            for one in await self.cluster.children(WATCHED[kind], kind, namespace, gaid.name)
        ]
        return [*seen, *(one for one in found if path_of(one) not in paths)]

    def forget(self, namespace: str, name: str) -> None:
        """Drop what is remembered of a service that is gone."""
        for memory in (self._applied, self._pruned, self._caught_up, self._unused):
            memory.pop(f"{namespace}/{name}", None)
        self._turn.forget(f"{namespace}/{name}")


def _key(gaid: GenAIDeployment) -> str:
    return f"{gaid.metadata.namespace or 'default'}/{gaid.name}"


def _version(one: Mapping[str, Any]) -> str:
    """The generation, which status does not move; the resourceVersion of kinds that have none."""
    metadata = one["metadata"]
    return str(metadata.get("generation") or metadata.get("resourceVersion"))


def _words(wanted: Object, error: ClusterError) -> str:
    if error.code == NOT_FOUND and wanted["kind"] == "RayService":
        return INSTALL_KUBERAY
    return f"{wanted['kind']} {wanted['metadata']['name']}: {error}"
