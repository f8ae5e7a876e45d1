"""Volumes and environment of a worker for the source of its model (pure)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tierserve.api import GenAIDeployment
from tierserve.api.v1alpha1.tiers import ModelCache
from tierserve.plan.placement import Placement

DOWNLOADED = ("hf", "s3", "gs", "oci")
CACHE = "/var/cache/tierserve/models"
CLAIMS = "/mnt/tierserve/claims"
"""Where a replica expects the volumes of `pvc://CLAIM/PATH` (tierserve_serving.sources.local)."""
IMAGE = "/mnt/tierserve/image"
"""Where a replica expects the image volume of the source in TIERSERVE_MODEL_IMAGE."""
_IMAGE = re.compile(
    r"oci://(?P<reference>[^/]+/[a-z0-9._/-]+?(?::[\w.-]{1,128}|@sha256:[0-9a-f]{64}))(?:/[^/:@]+\.gguf)?"
)
"""With a tag or digest (the kubelet would keep the first `latest` that it got), and perhaps a file in the volume."""
Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceFields:
    """Additions to the pod of a worker: its volumes, and mounts, secrets and variables of the container."""

    volumes: tuple[Node, ...] = ()
    container: Node = field(default_factory=dict)
    env: tuple[Node, ...] = ()


def source_fields(gaid: GenAIDeployment, placement: Placement) -> SourceFields:
    """The additions for the model of a pool; none for an image or a path that has the model."""
    source, model = urlsplit(placement.source or ""), gaid.model(placement.model)
    if placement.engine == "emulated" or source.scheme not in (*DOWNLOADED, "pvc"):
        return SourceFields()
    secret = [{"secretRef": {"name": model.source_secret_name}}] if model.source_secret_name else []
    if source.scheme == "pvc":
        volume = {"name": "model-source", "persistentVolumeClaim": {"claimName": source.netloc, "readOnly": True}}
        mount = {"name": "model-source", "mountPath": f"{CLAIMS}/{source.netloc}", "readOnly": True}
        return SourceFields((volume,), {"volumeMounts": [mount]})
    cache = gaid.tier(placement.tier).model_cache
    if cache.image_volume and (match := _IMAGE.fullmatch(placement.source or "")):
        return _image_volume(placement.source or "", match["reference"])
    limit = math.floor(cache.max_size.value) if cache.max_size else None
    of_pod = not (cache.host_path or cache.claim_name)
    variables = {
        "TIERSERVE_MODEL_CACHE": CACHE,
        **({"TIERSERVE_MODEL_CACHE_OF_POD": "1"} if of_pod else {}),  # a start-up then always downloads
        **({"TIERSERVE_MODEL_CACHE_BYTES": str(limit)} if limit else {}),
    }
    return SourceFields(
        volumes=({"name": "model-cache", **_volume(cache)},),
        container={
            "volumeMounts": [{"name": "model-cache", "mountPath": CACHE}],
            **({"envFrom": secret} if secret else {}),
        },
        env=tuple({"name": name, "value": value} for name, value in variables.items()),
    )


def _image_volume(source: str, reference: str) -> SourceFields:
    """The kubelet pulls the image with the pod's imagePullSecrets; the variable names the source that is mounted."""
    volume = {"name": "model-image", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
    mount = {"name": "model-image", "mountPath": IMAGE, "readOnly": True}
    return SourceFields((volume,), {"volumeMounts": [mount]}, ({"name": "TIERSERVE_MODEL_IMAGE", "value": source},))


def _volume(cache: ModelCache) -> Node:
    if cache.host_path:
        return {"hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
    if cache.claim_name:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    return {"emptyDir": {"sizeLimit": str(cache.max_size)} if cache.max_size else {}}
