"""The process that keeps one local service as its file says: reads the file, reconciles once a second, writes status.

Run by `tierserve up`; ends at SIGTERM, and then ends every part that it started.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import psutil

from tierserve.api import GenAIDeployment, ValidationFailed, load
from tierserve.plan.placement import place
from tierserve.reconcile import reconcile
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.processes import ProcessRef, end_marked
from tierserve.runtime.local.runtime import LocalRuntime
from tierserve.runtime.local.state import LocalState, write_atomic
from tierserve.status.conditions import Status

TICK_S = 1.0
log = logging.getLogger("tierserve.local")


class FollowedFile:
    """The service file: read again when it changes; while it is wrong, the last good version stays in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._seen: tuple[int, int, int] | None = None
        self._good: GenAIDeployment | None = None
        self._generation = 0

    def read(self) -> GenAIDeployment | None:
        """The version in force; None when there has never been a good one."""
        try:
            stat = self.path.stat()
            version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if version != self._seen:
                self._seen = version
                self._take(load(self.path))
        except OSError as error:
            self._seen = None  # it may come back as it was
            self._set_problem(f"{self.path.name}: {error.strerror or error}; the last good version stays in force")
        except ValidationFailed as error:
            words = "; ".join(one.format(self.path.name).partition("\n")[0] for one in error.problems)
            self._set_problem(f"{words}; the last good version stays in force")
        except Exception as error:  # whatever the file does to its reader, the service stays up
            self._set_problem(f"{self.path.name}: {error!r}; the last good version stays in force")
        return self._good

    def _set_problem(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    def _take(self, fresh: GenAIDeployment) -> None:
        self.problem = ""
        if self._good is not None and fresh.metadata.name != self._good.metadata.name:
            self._set_problem(f"metadata.name changed to {fresh.metadata.name}: run `tierserve up` for a new service")
            return
        place(fresh)
        if self._good is None or fresh.spec != self._good.spec:
            self._generation += 1
        metadata = fresh.metadata.model_copy(update={"generation": self._generation})
        self._good = fresh.model_copy(update={"metadata": metadata})


class Supervisor:
    """The loop around `reconcile`."""

    def __init__(self, paths: ServicePaths, state: LocalState) -> None:
        self.paths = paths
        self.stop = threading.Event()
        self.file = FollowedFile(Path(state.file))
        self.runtime = LocalRuntime(paths, state, say=log.info)
        self.status: Status = {}
        state.processes["supervisor"] = ProcessRef(os.getpid(), psutil.Process().create_time())
        state.save(paths.state)

    def run(self) -> None:
        """Reconcile until told to stop."""
        while not self.stop.is_set():
            began = time.monotonic()
            self.tick()
            self.stop.wait(max(0.1, TICK_S - (time.monotonic() - began)))

    def tick(self) -> None:
        """One pass; nothing that goes wrong in it ends the loop."""
        gaid = self.file.read()
        try:
            if gaid is not None:
                self.status = asyncio.run(reconcile(gaid, self.runtime, self.status))
        except Exception as error:
            log.exception("pass failed")
            self.status = {**self.status, "error": f"{type(error).__name__}: {error}"}
        self._write(gaid)

    def _write(self, gaid: GenAIDeployment | None) -> None:
        document: dict[str, Any] = {
            "name": self.paths.name,
            "file": str(self.file.path),
            "fileProblem": self.file.problem,
            "time": time.time(),
            "status": self.status,
        }
        if gaid is not None:
            objective = gaid.spec.objective.response_time
            document["objective"] = {"percentile": objective.percentile, "target_s": objective.target.value}
        write_atomic(self.paths.status, orjson.dumps(document, option=orjson.OPT_INDENT_2))

    def shut_down(self) -> None:
        """End every part, gently first."""
        end_marked(self.paths.marker, grace_s=4.0)


def main() -> None:
    """Entry point of `python -m tierserve.runtime.local.supervisor NAME`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="name of the service")
    paths = ServicePaths.of(parser.parse_args().name)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    state = LocalState.load(paths.state)
    if state is None:
        raise SystemExit(f"no state in {paths.root}: start the service with `tierserve up FILE`")
    supervisor = Supervisor(paths, state)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop.set())
    supervisor.run()
    supervisor.shut_down()


if __name__ == "__main__":
    main()
