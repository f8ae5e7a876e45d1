"""Progress of a model download: stored by the replica in Ray's GCS, read where decisions are published.

A replica reports no statistics before its model is loaded, so the way of its other figures is closed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tierserve_serving.sources import Progress

_NAMESPACE = "tierserve_download"
_STALE_S = 60.0
"""Age of a report that is dropped: its replica ended. A download that gets no byte fails before."""


class Store(Protocol):
    """Values under keys."""

    def put(self, key: str, value: bytes) -> None:
        """Store a value."""
        ...

    def delete(self, key: str) -> None:
        """Remove a key."""
        ...

    def values(self, prefix: str) -> Mapping[str, bytes]:
        """All values whose keys have the prefix."""
        ...


class GcsStore:
    """Ray's key-value store (`ray.experimental.internal_kv`)."""

    def __init__(self, kv: Any) -> None:
        self._kv = kv

    def put(self, key: str, value: bytes) -> None:
        """Store a value."""
        self._kv._internal_kv_put(key, value, overwrite=True, namespace=_NAMESPACE)

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._kv._internal_kv_del(key, namespace=_NAMESPACE)

    def values(self, prefix: str) -> Mapping[str, bytes]:
        """All values whose keys have the prefix."""
        keys = self._kv._internal_kv_list(prefix, namespace=_NAMESPACE)
        found = {key.decode(): self._kv._internal_kv_get(key, namespace=_NAMESPACE) for key in keys}
        return {key: value for key, value in found.items() if value is not None}


def gcs() -> Store | None:
    """The store of the cluster that this process belongs to; None where it belongs to none."""
    if "ray" not in sys.modules:
        return None
    from ray.experimental import internal_kv

    return GcsStore(internal_kv) if internal_kv._internal_kv_initialized() else None


def reporter(
    pool: str, node: str, store: Callable[[], Store | None] = gcs, *, shared: bool = True
) -> Callable[[Progress], None]:
    """Return the callback of the cache; it raises nothing, since a download must not fail by its report."""
    key = f"{pool}/{node}"

    def report(progress: Progress) -> None:
        with contextlib.suppress(Exception):
            target = store()
            if target is None:
                return
            if progress.done >= progress.total:
                target.delete(key)
            else:
                value = {"done": progress.done, "total": progress.total, "shared": shared}
                target.put(key, json.dumps(value).encode())

    return report


class DownloadReader:
    """Reads the downloads of a pool; one per process, since it notes when each report last changed."""

    def __init__(
        self, store: Callable[[], Store | None] = gcs, clock: Callable[[], float] = time.monotonic, every_s: float = 1.0
    ) -> None:
        self._store, self._clock, self._every_s = store, clock, every_s
        self._changed: dict[str, tuple[bytes, float]] = {}
        self._read: dict[str, tuple[float, dict[str, int] | None]] = {}

    def latest(self, pool: str) -> dict[str, int] | None:
        """Bytes so far and in total, and the number of nodes that download; None while none does."""
        now = self._clock()
        at, found = self._read.get(pool, (float("-inf"), None))
        if now - at >= self._every_s:
            found = None
            with contextlib.suppress(Exception):
                found = self._sum(pool, now)
            self._read[pool] = (now, found)
        return found

    def _sum(self, pool: str, now: float) -> dict[str, int] | None:
        store = self._store()
        values = store.values(f"{pool}/") if store else {}
        reports = []
        for key, value in values.items():
            if self._changed.get(key, (b"", 0.0))[0] != value:
                self._changed[key] = (value, now)
            if now - self._changed[key][1] < _STALE_S:
                reports.append(json.loads(value))
        if not reports:
            return None
        return {
            "done_bytes": sum(report["done"] for report in reports),
            "total_bytes": sum(report["total"] for report in reports),
            "nodes": len(reports),
            "shared": all(report.get("shared", True) for report in reports),
        }
