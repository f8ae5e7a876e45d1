"""`podTemplate` of a tier or site: fields of the pods, merged over those that the operator renders.

Pod and container have the fields that are listed here, as in `kubectl explain pod.spec`; a field that the operator sets
itself (ports, restart policy) is not among them. What is below a listed field is passed on as written, and the API
server checks it with the pod (docs/decisions/0024-pod-template.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from tierserve.api.v1alpha1.base import Label, Part

RAY_CONTAINERS = ("ray-head", "ray-worker")
"""Containers that the operator renders: the first of the head pod, and that of worker pods with the replica."""
RESOURCE_QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][0-9]{1,2})?$"
ResourceQuantity = Annotated[
    str | int, WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": RESOURCE_QUANTITY_PATTERN})
]
Opaque = dict[str, Any]
# Lists of strings are sets in this CRD unless marked: words of a command may repeat.
Words = Annotated[
    tuple[Annotated[str, Field(max_length=32768)], ...],
    Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]


class Named(Part):
    """An element of a list that Kubernetes merges by name; its other fields are passed on."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(min_length=1, max_length=253, description="Name, unique in the list.")


class EnvVar(Part):
    """An environment variable."""

    name: str = Field(min_length=1, max_length=253, description="Name, unique in the list.")
    value: str | None = Field(None, max_length=32768, description="Value; numbers and booleans in quotes.")
    value_from: Opaque | None = Field(None, description="Source of the value, e.g. secretKeyRef.")


class Resources(Part):
    """Requests and limits of a container."""

    requests: dict[str, ResourceQuantity] = Field(
        {}, max_length=16, description="Requests; memory defaults to what the model needs."
    )
    limits: dict[str, ResourceQuantity] = Field(
        {}, max_length=16, description="Limits; that of memory defaults to the request."
    )
    claims: tuple[Opaque, ...] = Field((), max_length=16, description="Claims of dynamic resource allocation.")


class Container(Part):
    """A container, by its name: `ray-worker` (with the replica), `ray-head`, or one that is added to worker pods."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=63,
        description="`ray-worker` or `ray-head` to change that container; another name adds one to worker pods.",
    )
    image: str | None = Field(None, max_length=1024, description="Image; for `ray-*` with the operator's Ray version.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(None, description="Pull policy.")
    command: Words = Field((), description="Command of an added container.")
    args: Words = Field((), description="Arguments of an added container.")
    ports: tuple[Opaque, ...] = Field((), max_length=32, description="Ports of an added container.")
    env: tuple[EnvVar, ...] = Field((), max_length=64, description="Environment variables.")
    env_from: tuple[Opaque, ...] = Field((), max_length=16, description="Sources of environment variables.")
    resources: Resources = Field(
        Resources(), description="Requests and limits; accelerators are set by `accelerator.perReplica`."
    )
    volume_mounts: tuple[Opaque, ...] = Field((), max_length=32, description="Mounts of the volumes.")
    volume_devices: tuple[Opaque, ...] = Field((), max_length=16, description="Raw block devices.")
    security_context: Opaque | None = Field(None, description="Security context of the container.")
    lifecycle: Opaque | None = Field(None, description="Lifecycle hooks of an added container.")
    liveness_probe: Opaque | None = Field(None, description="Liveness probe of an added container.")
    readiness_probe: Opaque | None = Field(None, description="Readiness probe of an added container.")
    startup_probe: Opaque | None = Field(None, description="Startup probe of an added container.")
    restart_policy: Literal["Always"] | None = Field(None, description="Always makes an init container a sidecar.")


class PodSpec(Part):
    """Fields of the pod; maps are merged, lists with names are merged by name, others are replaced."""

    containers: tuple[Container, ...] = Field(
        (), max_length=8, description="Containers: `ray-worker`, `ray-head`, or others, which are added to worker pods."
    )
    init_containers: tuple[Container, ...] = Field(
        (), max_length=8, description="Init containers, added to worker pods."
    )
    volumes: tuple[Named, ...] = Field(
        (), max_length=64, description="Volumes; the head pod gets only those that `ray-head` mounts."
    )
    service_account_name: str | None = Field(
        None,
        max_length=253,
        description="ServiceAccount of worker pods; that of the head is KubeRay's, for Ray's autoscaler.",
    )
    automount_service_account_token: bool | None = Field(
        None, description="Whether worker pods mount the token of their ServiceAccount."
    )
    priority_class_name: str | None = Field(None, max_length=253, description="PriorityClass of the pods.")
    preemption_policy: Literal["Never", "PreemptLowerPriority"] | None = Field(
        None, description="Whether the pods may preempt others of lower priority."
    )
    scheduler_name: str | None = Field(None, max_length=253, description="Scheduler of the pods.")
    runtime_class_name: str | None = Field(None, max_length=253, description="RuntimeClass of the pods, e.g. nvidia.")
    node_selector: dict[str, Label] = Field({}, max_length=32, description="Labels of the nodes, beside `placement`.")
    tolerations: tuple[Opaque, ...] = Field((), max_length=32, description="Tolerations; replace those of `placement`.")
    affinity: Opaque | None = Field(None, description="Affinity of the pods.")
    topology_spread_constraints: tuple[Opaque, ...] = Field(
        (), max_length=16, description="Topology spread constraints of the pods."
    )
    resource_claims: tuple[Named, ...] = Field(
        (), max_length=16, description="Resource claims of worker pods (dynamic resource allocation)."
    )
    security_context: Opaque | None = Field(None, description="Security context of the pods.")
    image_pull_secrets: tuple[Named, ...] = Field((), max_length=16, description="Secrets of image registries.")
    host_aliases: tuple[Opaque, ...] = Field((), max_length=32, description="Entries of /etc/hosts.")
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = Field(
        None, description="DNS policy of the pods."
    )
    dns_config: Opaque | None = Field(None, description="DNS configuration of the pods.")
    enable_service_links: bool | None = Field(None, description="Whether Services are environment variables.")


class PodMetadata(Part):
    """Labels and annotations of the pods."""

    labels: dict[str, Label] = Field({}, max_length=32, description="Labels of the pods.")
    annotations: dict[str, Annotated[str, Field(max_length=65536)]] = Field(
        {}, max_length=32, description="Annotations of the pods."
    )


class PodTemplate(Part):
    """Fields of the pods as in the pod template of a Deployment; a change replaces the pods."""

    metadata: PodMetadata = Field(PodMetadata(), description="Labels and annotations of head and worker pods.")
    spec: PodSpec = Field(PodSpec(), description="Fields of the pods, merged over those of the operator.")
