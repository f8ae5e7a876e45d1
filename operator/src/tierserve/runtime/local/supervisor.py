"""Supervisor of one local service: reads its file, reconciles once a second, writes its status.

Started by `tierserve up`; ends on SIGTERM, and then ends every component that it started.
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
from tierserve.observe.model_files import with_model_sizes
from tierserve.plan.placement import place
from tierserve.reconcile import reconcile
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.processes import ProcessRef, end_marked
from tierserve.runtime.local.runtime import LocalRuntime
from tierserve.runtime.local.state import LocalState, write_atomic
from tierserve.status.conditions import Status

PERIOD_S = 1.0
"""Seconds between reconciles: a component that ended is restarted at most this much later."""
log = logging.getLogger("tierserve.local")


class FollowedFile:
    """The service file: read again when it changes; while it is not valid, the last valid version stays in effect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._seen: tuple[int, int, int] | None = None
        self._valid: GenAIDeployment | None = None
        self._generation = 0

    def read(self) -> GenAIDeployment | None:
        """The version in effect; None if there has been no valid one."""
        try:
            stat = self.path.stat()
            version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if version != self._seen:
                self._seen = version
                # Read with the file only: figures that change after a download would replace replicas.
                self._take(with_model_sizes(load(self.path)))
        except OSError as error:
            self._seen = None  # it may reappear with the same version
            self._set_problem(f"{self.path.name}: {error.strerror or error}; the last valid version stays in effect")
        except ValidationFailed as error:
            messages = "; ".join(problem.format(self.path.name).partition("\n")[0] for problem in error.problems)
            self._set_problem(f"{messages}; the last valid version stays in effect")
        except Exception as error:  # whatever is wrong with the file, the service keeps running
            self._set_problem(f"{self.path.name}: {error!r}; the last valid version stays in effect")
        return self._valid

    def _set_problem(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    def _take(self, fresh: GenAIDeployment) -> None:
        self.problem = ""
        if self._valid is not None and fresh.metadata.name != self._valid.metadata.name:
            self._set_problem(
                f"metadata.name: changed to {fresh.metadata.name}; hint: run `tierserve up` to start a new service"
            )
            return
        place(fresh)
        if self._valid is None or fresh.spec != self._valid.spec:
            self._generation += 1
        metadata = fresh.metadata.model_copy(update={"generation": self._generation})
        self._valid = fresh.model_copy(update={"metadata": metadata})


class Supervisor:
    """Reconcile loop of one local service."""

    def __init__(self, paths: ServicePaths, state: LocalState) -> None:
        self.paths = paths
        self.stop = threading.Event()
        self.file = FollowedFile(Path(state.file))
        self.runtime = LocalRuntime(paths, state, say=log.info)
        self.status: Status = {}
        state.processes["supervisor"] = ProcessRef(os.getpid(), psutil.Process().create_time())
        state.save(paths.state)

    def run(self) -> None:
        """Reconcile once per period until SIGTERM."""
        while not self.stop.is_set():
            began = time.monotonic()
            self.tick()
            self.stop.wait(max(0.1, PERIOD_S - (time.monotonic() - began)))

    def tick(self) -> None:
        """Reconcile once; an error does not end the loop."""
        gaid = self.file.read()
        try:
            if gaid is not None:
                self.status = asyncio.run(reconcile(gaid, self.runtime, self.status))
        except Exception as error:
            log.exception("reconcile failed")
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
        """Terminate every component, then kill those that remain."""
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
        raise SystemExit(f"no state in {paths.root}; hint: start the service with `tierserve up FILE`")
    supervisor = Supervisor(paths, state)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop.set())
    supervisor.run()
    supervisor.shut_down()


if __name__ == "__main__":
    main()
