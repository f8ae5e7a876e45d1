"""Kubernetes runtime: observe the objects of a GenAIDeployment, apply the desired ones server-side, prune the others.

An object is applied if its manifest differs from the one applied last, if another client changed it since, and every
`HEAL_EVERY_S` regardless: level-based, without a write for each reconcile.
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
from tierserve.runtime.kubernetes.client import CONFLICT, NOT_FOUND, Cluster, ClusterError, path_of
from tierserve.runtime.kubernetes.upgrades import UpgradeLock
from tierserve.state import Observed
from tierserve.status.pools import lacks_replicas

HEAL_EVERY_S = 60.0
"""Every object is applied again after this time: not all kinds are watched, so a change may go unnoticed."""
SEEN_AFTER_S = 5.0  # an object that the watch does not show within this time has been deleted
SETTLE_S = 6.0
"""KubeRay reads the state of Serve every 2 s (ServiceDefaultRequeueDuration); see `has_caught_up`."""
WATCHED = {"RayService": "ray.io/v1", "Deployment": "apps/v1"}
INSTALL_KUBERAY = (
    "KubeRay is not installed (no CRD RayService in the cluster); hint: helm install kuberay-operator kuberay-operator "
    "--repo https://ray-project.github.io/kuberay-helm/ --version 1.6.1"
)

WatchCache = Callable[[str, str], Sequence[Object]]
"""(namespace, name) of a GenAIDeployment -> its RayServices and Deployments from the watch cache."""


@dataclass(slots=True)
class Applied:
    """What was last applied at a path: the manifest, and the version of the object that resulted."""

    kind: str
    manifest: str
    version: str
    at: float


@dataclass(slots=True)
class KubeRuntime:
    """Runtime on a cluster; one for the whole operator, its state is per GenAIDeployment."""

    on_cluster: ClassVar[bool] = True
    cluster: Cluster
    settings: KubeSettings
    cache: WatchCache
    agents: AgentReader
    clock: Callable[[], float] = time.time
    _applied: dict[str, dict[str, Applied]] = field(default_factory=dict)
    _pruned: dict[str, tuple[frozenset[str], frozenset[str], float]] = field(default_factory=dict)
    _caught_up: dict[str, dict[str, tuple[Any, float]]] = field(default_factory=dict)
    _unused: dict[str, dict[str, float]] = field(default_factory=dict)
    _unserved: dict[str, float] = field(default_factory=dict)
    _upgrades: UpgradeLock = field(default_factory=UpgradeLock)

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> tuple[Object, ...]:
        """Render the desired objects."""
        objects = kube_objects(gaid, placements, self.settings)
        return tuple(with_revision(obj) if obj["kind"] == "RayService" else obj for obj in objects)

    def revisions(self, desired: tuple[Object, ...]) -> Mapping[str, str]:
        """The rendered revision of each pool."""
        services = (obj for obj in desired if obj["kind"] == "RayService")
        return {pool_of(obj): obj["metadata"]["annotations"][REVISION] for obj in services}

    async def apply(self, gaid: GenAIDeployment, desired: tuple[Object, ...], keep: InUse) -> Sequence[str]:
        """Apply the desired objects, then prune; an object that fails does not stop the others.

        Returns:
            The errors, one sentence each.
        """
        problems: list[str] = []
        existing = {path_of(obj): obj for obj in await self._children(gaid)}
        routes = ("ConfigMap", gateway_name(gaid.name))
        for obj in self._admitted(gaid, desired, existing):
            if keep.hold_routes and (obj["kind"], obj["metadata"]["name"]) == routes:
                continue
            try:
                await self._apply_one(gaid, obj, existing.get(path_of(obj)))
            except ClusterError as error:
                if error.code == 0:
                    raise
                if error.code == NOT_FOUND and obj["kind"] in OPTIONAL_KINDS:
                    self._unserved[obj["kind"]] = self.clock()
                else:
                    problems.append(_message(obj, error))
        await self._prune(gaid, desired, keep.pools)
        return tuple(dict.fromkeys(problems))

    def _admitted(
        self, gaid: GenAIDeployment, desired: tuple[Object, ...], existing: Mapping[str, Object]
    ) -> list[Object]:
        """The objects to apply now: without RayServices that wait for the upgrade lock."""
        ray = [obj for obj in desired if obj["kind"] == "RayService"]
        there = {obj["metadata"]["name"]: obj for obj in existing.values() if obj["kind"] == "RayService"}
        if self._upgrades.admits(_key(gaid), ray, there):
            return [
                with_pod_metadata_of(obj, there[name])
                if obj["kind"] == "RayService" and (name := obj["metadata"]["name"]) in there
                else obj
                for obj in desired
            ]
        return [obj for obj in desired if obj["kind"] != "RayService"]

    async def _apply_one(self, gaid: GenAIDeployment, desired: Object, existing: Object | None) -> None:
        if self.clock() - self._unserved.get(desired["kind"], float("-inf")) < HEAL_EVERY_S:
            return  # the API server did not serve the kind within the last minute
        applied, path = self._applied.setdefault(_key(gaid), {}), path_of(desired)
        manifest, last = json.dumps(desired, sort_keys=True), applied.get(path)
        if last is None:
            await self._check_owner(gaid, desired)
        elif last.manifest == manifest and self._is_unchanged(desired["kind"], existing, last):
            return
        result = await self.cluster.apply(desired)
        applied[path] = Applied(desired["kind"], manifest, _version(result), self.clock())

    def _is_unchanged(self, kind: str, existing: Object | None, last: Applied) -> bool:
        """Whether an object is as it was applied, as far as the watch shows it."""
        age_s = self.clock() - last.at
        if existing is None:
            return age_s < (SEEN_AFTER_S if kind in WATCHED else HEAL_EVERY_S)
        return age_s < HEAL_EVERY_S and _version(existing) == last.version

    async def _check_owner(self, gaid: GenAIDeployment, desired: Object) -> None:
        """Raise if the object belongs to another: names of two GenAIDeployments may collide, the first keeps it."""
        name, namespace = desired["metadata"]["name"], desired["metadata"]["namespace"]
        existing = await self.cluster.read(desired["apiVersion"], desired["kind"], namespace, name)
        if existing is None:
            return
        owner = (existing["metadata"].get("labels") or {}).get(DEPLOYMENT)
        if owner != gaid.name:
            holder = f"GenAIDeployment {owner}" if owner else "another owner"
            raise ClusterError(
                CONFLICT, f"already exists and belongs to {holder}; hint: rename this deployment or its tier"
            )

    async def _prune(self, gaid: GenAIDeployment, desired: Sequence[Object], keep: frozenset[str]) -> None:
        """Delete objects that are no longer desired, but those of a pool in use only `gateway.responseTimeout` later.

        HAProxy's old process finishes its open requests for that long after a reload.
        """
        desired_paths = frozenset(path_of(obj) for obj in desired)
        before = self._pruned.get(_key(gaid))
        if before is not None and before[:2] == (desired_paths, keep) and self.clock() - before[2] < HEAL_EVERY_S:
            return
        unused = self._unused.setdefault(_key(gaid), {})
        unused.update({pool: self.clock() for pool in keep})  # so that the time counts from when it was last in use
        namespace, waiting = gaid.metadata.namespace or "default", False
        for api_version, kind in KINDS:
            for child in await self.cluster.children(api_version, kind, namespace, gaid.name):
                if path_of(child) in desired_paths or child["metadata"].get("deletionTimestamp"):
                    continue
                if self.clock() - unused.get(pool_of(child), float("-inf")) < gaid.spec.gateway.response_timeout.value:
                    waiting = True
                    continue
                await self.cluster.delete(child)
                self._applied.get(_key(gaid), {}).pop(path_of(child), None)
        if not waiting:
            self._pruned[_key(gaid)] = (desired_paths, keep, self.clock())

    async def observe(self, gaid: GenAIDeployment) -> Observed:
        """The observed state, from the watch cache and the gateway agents."""
        agents, children = await asyncio.gather(self.agents.read(agents_url(gaid)), self._children(gaid))
        state = observed(
            gaid, children, agents, now=self.clock(), settled=self._settled(gaid, children),
            problems=gateway_refusals(children),
        )  # fmt: skip
        if not lacks_replicas(state) and not is_upgrading(children):
            return state
        causes = await self._causes(gaid, place(gaid), children)
        return replace(state, problems=(*state.problems, *causes))

    def _settled(self, gaid: GenAIDeployment, children: Sequence[Object]) -> set[str]:
        """Names of the RayServices whose status has been up to date for at least `SETTLE_S`."""
        before = self._caught_up.get(_key(gaid), {})
        now: dict[str, tuple[Any, float]] = {}
        for child in children:
            if child["kind"] == "RayService" and has_caught_up(child):
                metadata = child["metadata"]
                name, version = metadata["name"], (metadata.get("uid"), metadata["generation"])
                since = before.get(name, (None, 0.0))
                now[name] = since if since[0] == version else (version, self.clock())
        self._caught_up[_key(gaid)] = now
        return {name for name, (_, at) in now.items() if self.clock() - at >= SETTLE_S}

    async def _causes(
        self, gaid: GenAIDeployment, placements: Sequence[Placement], children: Sequence[Object]
    ) -> list[str]:
        """Why replicas are missing: pods that do not run, and pods that could not be created."""
        namespace = gaid.metadata.namespace or "default"
        pods, events = await asyncio.gather(
            self.cluster.children("v1", "Pod", namespace, gaid.name), self.cluster.warnings(namespace)
        )
        refusals = pool_refusals(gaid, placements, children, events or (), pods)
        failures = start_failures(placements, events or (), pods)
        return [*refusals, *failures, *pod_problems(gaid, pods, placements, self.cluster.time or self.clock())]

    async def _children(self, gaid: GenAIDeployment) -> Sequence[Object]:
        """RayServices and Deployments from the watch cache, listed where the cache lacks an object that was applied.

        Kopf may miss a CRD that is installed while it runs (KubeRay after TierServe), and then does not watch it.
        """
        namespace = gaid.metadata.namespace or "default"
        cached = self.cache(namespace, gaid.name)
        paths = {path_of(obj) for obj in cached}
        missing = {
            kind
            for path, last in self._applied.get(_key(gaid), {}).items()
            for kind in WATCHED
            if last.kind == kind and path not in paths and self.clock() - last.at > SEEN_AFTER_S
        }
        listed = [
            obj
            for kind in sorted(missing)
            for obj in await self.cluster.children(WATCHED[kind], kind, namespace, gaid.name)
        ]
        return [*cached, *(obj for obj in listed if path_of(obj) not in paths)]

    def forget(self, namespace: str, name: str) -> None:
        """Drop the state of a deleted GenAIDeployment."""
        for memory in (self._applied, self._pruned, self._caught_up, self._unused):
            memory.pop(f"{namespace}/{name}", None)
        self._upgrades.forget(f"{namespace}/{name}")


def _key(gaid: GenAIDeployment) -> str:
    return f"{gaid.metadata.namespace or 'default'}/{gaid.name}"


def _version(obj: Mapping[str, Any]) -> str:
    """The generation, which the status does not change; the resourceVersion of kinds without one."""
    metadata = obj["metadata"]
    return str(metadata.get("generation") or metadata.get("resourceVersion"))


def _message(desired: Object, error: ClusterError) -> str:
    if error.code == NOT_FOUND and desired["kind"] == "RayService":
        return INSTALL_KUBERAY
    return f"{desired['kind']} {desired['metadata']['name']}: {error}"
