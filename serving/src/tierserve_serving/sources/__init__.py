"""Model sources: the local path of a model, downloaded into the cache of the node where it is remote.

`hf://`, `s3://`, `gs://` and `oci://` are downloaded once per node (`cache.py`), `file://`, `pypi://` and `pvc://` are
on the machine. Both runtimes use this package, in the process of the replica.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tierserve_serving.sources import hub, local, object_store, oci
from tierserve_serving.sources.cache import ModelCache, Progress, Report
from tierserve_serving.sources.errors import SourceError
from tierserve_serving.sources.remote import Snapshot, Want

__all__ = [
    "SUPPORTED",
    "ModelCache",
    "Progress",
    "SourceError",
    "adapter_folder",
    "cache_is_of_the_pod",
    "check_source",
    "download_seconds",
    "local_path",
    "model_folder",
    "model_path",
    "report_to",
]

SUPPORTED = (
    "hf://ORG/MODEL@REVISION/FILE, s3://BUCKET/PATH, gs://BUCKET/PATH, oci://REGISTRY/REPOSITORY:TAG, "
    "pvc://CLAIM/PATH, file:///PATH and pypi://WHEEL"
)
_reports: list[Report] = []
_waited_s: list[float] = []
"""Seconds of each look-up of a remote model, of this process: the download, or the wait for that of another replica."""
DEFAULT_CACHE = "~/.cache/tierserve/models"
_REMOTE: dict[str, tuple[Callable[[str], object], Callable[[str, Want], Snapshot]]] = {
    "hf": (hub.parse, hub.snapshot),
    "s3": (object_store.check, object_store.snapshot),
    "gs": (object_store.check, object_store.snapshot),
    "oci": (oci.parse, oci.snapshot),
}


def report_to(report: Report) -> None:
    """Set the callback for the progress of downloads of this process."""
    _reports[:] = [report]


def check_source(source: str) -> None:
    """Raise `SourceError` unless the source is well-formed. Reads no file and needs no network."""
    scheme = urlsplit(source).scheme
    if scheme in _REMOTE:
        _REMOTE[scheme][0](source)
    elif scheme not in ("file", "pypi", "pvc"):
        raise SourceError(f"must be a model source ({source!r})", "InvalidSource", f"supported are {SUPPORTED}")


def model_path(source: str) -> Path:
    """Return the GGUF file that `source` names, downloaded if need be. Raises `SourceError` if there is none."""
    return _path(source, "gguf")


def model_folder(source: str) -> Path:
    """Return the folder with config.json and weights that `source` names, downloaded if need be."""
    return _path(source, "folder")


def adapter_folder(source: str) -> Path:
    """Return the folder with adapter_config.json and weights that `source` names, downloaded if need be."""
    return _path(source, "adapter")


def local_path(source: str, want: Want) -> Path | None:
    """Return the file or folder of a source if it is on this machine or in its cache; nothing is downloaded."""
    try:
        check_source(source)
        if urlsplit(source).scheme in _REMOTE:
            return node_cache().peek(source, want)
        return local.path(source, want)
    except SourceError:
        return None


def node_cache() -> ModelCache:
    """The cache of this machine: TIERSERVE_MODEL_CACHE, and TIERSERVE_MODEL_CACHE_BYTES for its maximum size."""
    limit = os.environ.get("TIERSERVE_MODEL_CACHE_BYTES")
    root = Path(os.environ.get("TIERSERVE_MODEL_CACHE") or DEFAULT_CACHE).expanduser()
    return ModelCache(root, int(limit) if limit else None, _report)


def _report(progress: Progress) -> None:
    for report in _reports:
        report(progress)


def _path(source: str, want: Want) -> Path:
    check_source(source)
    scheme = urlsplit(source).scheme
    if scheme not in _REMOTE:
        return local.path(source, want)
    snapshot = _REMOTE[scheme][1]
    offline = scheme == "hf" and os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    if os.environ.get("TIERSERVE_MODEL_IMAGE") == source:
        return local.in_image(source, want, oci.parse(source).file)
    begin = time.perf_counter()
    try:
        return node_cache().get(source, want, partial(snapshot, source, want), offline=offline)
    finally:
        _waited_s.append(time.perf_counter() - begin)


def download_seconds() -> float:
    """Return the seconds that this process has waited for downloads; with a warm cache, for the list of files."""
    return sum(_waited_s)


def cache_is_of_the_pod() -> bool:
    """Whether the cache ends with its pod, so that every replica downloads the model (set by the operator)."""
    return os.environ.get("TIERSERVE_MODEL_CACHE_OF_POD") == "1"
