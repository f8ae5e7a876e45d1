"""Services of this machine, from the state folder that their supervisors write once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from tierserve.api import ValidationFailed, load, to_document
from tierserve.console.sources import Key, Service, SourceError
from tierserve.observe.model_files import with_model_sizes
from tierserve.runtime.local.paths import LocalError, ServicePaths, known_services
from tierserve.runtime.local.service import LocalService

NAMESPACE = "local"
STALE_AFTER_S = 15.0
"""Age from which a status, written once a second, is reported as old."""


class LocalSource:
    """The state folder of this user. A status file is parsed again only when it has changed."""

    kind: Literal["local", "kubernetes"] = "local"

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[int, Mapping[str, Any]]] = {}

    async def services(self) -> Sequence[Service]:
        """All services with a state folder; raises SourceError if it cannot be read."""
        return await asyncio.to_thread(self._read_all)

    def _read_all(self) -> list[Service]:
        try:
            names = known_services()
        except LocalError as error:
            raise SourceError(f"{error.message}; hint: {error.hint}") from error
        self._parsed = {name: entry for name, entry in self._parsed.items() if name in set(names)}
        return [self.read(name) for name in names]

    def read(self, name: str) -> Service:
        """One service; without a status that can be read it has a problem."""
        try:
            service = LocalService.named(name)
            document = self._document(service.paths)
        except (OSError, ValueError, LocalError):  # not written yet, or removed a moment ago
            return Service(NAMESPACE, name, problems=("no status yet",))
        objective = document.get("objective") or {}
        age_s = max(0.0, time.time() - float(document.get("time") or 0.0))
        problems = [str(document["fileProblem"])] if document.get("fileProblem") else []
        if not service.is_supervised():
            problems.append(f"the supervisor is not running: run `tierserve up {document.get('file', 'FILE')}` again")
        elif age_s > STALE_AFTER_S:
            problems.append(f"the status is {age_s:.0f} s old")
        return Service(
            NAMESPACE,
            name,
            document.get("status") or {},
            objective.get("target_s"),
            objective.get("percentile"),
            age_s,
            tuple(problems),
        )

    def _document(self, paths: ServicePaths) -> Mapping[str, Any]:
        written_ns = paths.status.stat().st_mtime_ns
        before = self._parsed.get(paths.name)
        if before is not None and before[0] == written_ns:
            return before[1]
        document: Mapping[str, Any] = orjson.loads(paths.status.read_bytes())
        self._parsed[paths.name] = (written_ns, document)
        return document

    async def document(self, key: Key) -> Mapping[str, Any] | None:
        """The service file as it is now, with the sizes of models on this machine; None for an unknown service.

        Raises:
            SourceError: the file cannot be read, or is not valid.
        """
        namespace, name = key
        if namespace != NAMESPACE:
            return None
        return await asyncio.to_thread(self._file, name)

    def _file(self, name: str) -> Mapping[str, Any] | None:
        try:
            state = LocalService.named(name).state()
        except LocalError:
            return None
        if state is None:
            return None
        try:
            return to_document(with_model_sizes(load(state.file)))
        except OSError as error:
            raise SourceError(f"{state.file}: {error.strerror or error}") from error
        except ValidationFailed as error:
            raise SourceError(f"{state.file}: {error}") from error

    async def close(self) -> None:
        """Nothing is open."""
