"""Local services: start one, read its status, stop it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tierserve.api import load
from tierserve.api.loading import load_text
from tierserve.observe.model_files import with_model_sizes
from tierserve.plan.placement import place
from tierserve.runtime.local import preflight
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.processes import end_marked, end_tree, start
from tierserve.runtime.local.ray_cluster import tail
from tierserve.runtime.local.state import LocalState, write_atomic

START_TIMEOUT_S = 300.0
Progress = Callable[[str], None]


class StartError(Exception):
    """The service did not become ready; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class LocalService:
    """One service of this user on this machine."""

    paths: ServicePaths

    @classmethod
    def named(cls, name: str) -> LocalService:
        """The service `name`, running or not."""
        return cls(ServicePaths.of(name))

    @classmethod
    def up(
        cls,
        file: Path,
        *,
        text: str | None = None,
        port: int | None = None,
        on_progress: Progress = print,
        timeout_s: float = START_TIMEOUT_S,
    ) -> LocalService:
        """Start the service of a file, unless it runs already; return when it is ready.

        Args:
            file: a GenAIDeployment.
            text: the content of `file` if that cannot be read again (a pipe); it is kept in the state folder.
            port: port of the endpoint; None: the first free one from 8080 up.
            on_progress: called with a message for each step.
            timeout_s: longest wait for readiness.

        Raises:
            tierserve.api.ValidationFailed: the file is not valid.
            tierserve.plan.placement.PlacementError: no model of a tier fits.
            tierserve.runtime.local.paths.LocalError: a preflight check failed.
            OSError: the file cannot be read.
            StartError: the service is not ready in time.
        """
        gaid = with_model_sizes(load(file) if text is None else load_text(text))
        placements = place(gaid)
        service = cls.named(gaid.name)
        source = file.resolve() if text is None else service.paths.piped_file
        running = service.state()
        if running is None or not service.is_supervised():
            preflight.check_contexts(gaid)
            preflight.check(service.paths, placements, port)
            service._launch(source, text, port)
        else:
            service._check_same(gaid.name, running, source, port)
            if text is not None:
                write_atomic(source, text.encode())
        service.wait_ready(on_progress, timeout_s)
        return service

    @staticmethod
    def _check_same(name: str, running: LocalState, source: Path, port: int | None) -> None:
        """Raise if the running service of this name follows another file or uses another port."""
        end = f"tierserve down {name}"
        if Path(running.file) != source:
            message = f"metadata.name: service {name} is already running from {running.file}"
            raise preflight.PreflightError(message, f"edit that file, or run: {end}")
        if port not in {None, running.gateway_port}:
            message = f"--port: service {name} is already running on port {running.gateway_port}"
            raise preflight.PreflightError(message, f"omit --port, or first run: {end}")

    def _launch(self, file: Path, text: str | None, port: int | None) -> None:
        # Processes of a supervisor that was killed are adopted if file and port are the same, else ended.
        previous = self.state()
        if previous is None or previous.file != str(file) or port not in {None, previous.gateway_port}:
            end_marked(self.paths.marker)
            shutil.rmtree(self.paths.short, ignore_errors=True)
            previous = LocalState.new(file, port or preflight.choose_port())
        self.paths.make()
        if text is not None:
            write_atomic(file, text.encode())
        self.paths.status.unlink(missing_ok=True)
        previous.save(self.paths.state)
        command = [sys.executable, "-m", "tierserve.runtime.local.supervisor", self.paths.name]
        start(command, log=self.paths.logs / "supervisor.log", marker=self.paths.marker)

    def state(self) -> LocalState | None:
        """Ports and processes; None if the service is not running."""
        return LocalState.load(self.paths.state)

    @property
    def endpoint(self) -> str:
        """Base URL for clients.

        Raises:
            LookupError: the service is not running.
        """
        state = self.state()
        if state is None:
            raise LookupError(f"service {self.paths.name} is not running")
        return state.endpoint

    def is_supervised(self) -> bool:
        """Whether the supervisor is running."""
        state = self.state()
        reference = state.processes.get("supervisor") if state else None
        return reference is not None and reference.alive()

    def status(self) -> dict[str, Any]:
        """The last status document of the supervisor, with its age in seconds; empty if there is none yet."""
        try:
            document: dict[str, Any] = orjson.loads(self.paths.status.read_bytes())
        except (OSError, ValueError):
            return {}
        document["age"] = max(0.0, time.time() - float(document.get("time", 0.0)))
        document["supervised"] = self.is_supervised()
        return document

    def is_ready(self) -> bool:
        """Whether the condition Ready is True."""
        return bool(self.status().get("status", {}).get("ready") == "True")

    def wait_ready(self, on_progress: Progress = print, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the service is ready, reporting each step of the supervisor.

        Raises:
            StartError: the supervisor ended, or the service is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        lines = self._new_lines()
        while not self.is_ready():
            for line in next(lines):
                on_progress(line)
            if time.monotonic() > deadline:
                raise StartError(f"{self.paths.name} is not ready after {timeout_s:.0f} s: {self._why()}")
            time.sleep(0.3)
            if self.state() is not None and not self._starting() and not self.is_supervised():
                raise StartError(f"the supervisor ended:\n{tail(self.paths.logs / 'supervisor.log')}")
        for line in next(lines):
            on_progress(line)

    def _starting(self) -> bool:
        """Whether the supervisor has not written a status yet: it may still be importing."""
        log = self.paths.logs / "supervisor.log"
        return not self.paths.status.exists() and "Traceback" not in (log.read_text() if log.exists() else "")

    def _why(self) -> str:
        conditions = self.status().get("status", {}).get("conditions", [])
        messages = [
            c["message"] for c in conditions if c["type"] in {"Ready", "Degraded"} and c["reason"] != "AsExpected"
        ]
        return "; ".join(messages) or tail(self.paths.logs / "supervisor.log", 3)

    def _new_lines(self) -> Iterator[list[str]]:
        """Yield batches of messages that the supervisor has logged since this call."""
        log = self.paths.logs / "supervisor.log"
        position = 0
        while True:
            text = log.read_bytes()[position:] if log.exists() else b""
            complete = text.rpartition(b"\n")[0]
            position += len(complete) + 1 if complete else 0
            yield [message for line in complete.decode(errors="replace").splitlines() if (message := _message(line))]

    def down(self, *, timeout_s: float = 40.0) -> None:
        """End every process of the service and remove its folders; idempotent."""
        end_marked(self.paths.marker, grace_s=8.0, timeout_s=timeout_s)
        # The marker of a process whose environment cannot be read (another user namespace) is not found.
        state = self.state()
        for process in state.processes.values() if state else ():
            end_tree(process)
        for folder in (self.paths.short, self.paths.root):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> LocalService:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            self.down()


def _message(line: str) -> str:
    """The message of a log line of the supervisor's own loggers, else empty."""
    return line.partition(" INFO tierserve.local ")[2]
