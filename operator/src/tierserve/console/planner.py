"""The planner in a process of its own: limited in time and memory, so that no spec can stop the console.

The process is started by the first question and stays: importing the planner takes a second. It reads one JSON
document per line and writes one.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from tierserve.api import Problem, ValidationFailed
from tierserve.console.what_if import Json, answer

LIMIT_S = 30.0
"""Seconds for one plan, with the start of the process."""
MEMORY_BYTES = 512 * 2**20
_LONGEST_LINE = 16 * 2**20


class PlannerError(Exception):
    """No answer: it took too long, or too much memory."""


class Planner:
    """One planner process, asked one question at a time."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._turn.locked()

    async def ask(self, document: Mapping[str, Any], change: Mapping[str, Any], rate: float | None) -> Json:
        """The plan of a change.

        Raises:
            ValidationFailed: the change or the spec is not valid.
            PlannerError: the planner took longer than `limit_s` or more than MEMORY_BYTES.
        """
        async with self._turn:
            line = orjson.dumps({"document": document, "change": change, "rate": rate}) + b"\n"
            try:
                async with asyncio.timeout(self.limit_s):
                    reply = await self._exchange(line)
            except TimeoutError as error:
                await self.close()
                raise PlannerError(f"the plan took longer than {self.limit_s:g} s") from error
            except BaseException:  # the caller is gone: the next one must not read this answer
                await self.close()
                raise
        if "problems" in reply:
            raise ValidationFailed([Problem(**one) for one in reply["problems"]])
        if "plan" not in reply:
            raise PlannerError(str(reply.get("error")))
        return dict(reply["plan"])

    async def _exchange(self, line: bytes) -> Json:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):
            process.stdin.write(line)
            await process.stdin.drain()
        reply = await process.stdout.readline()
        if not reply:
            await self.close()
            raise PlannerError("the planner ended, perhaps for lack of memory")
        answered: Json = orjson.loads(reply)
        return answered

    async def _start(self) -> asyncio.subprocess.Process:
        # One thread: BLAS reserves memory for each, and the arrays of a plan are small.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, stdin=pipe, stdout=pipe, env=environment, limit=_LONGEST_LINE
        )

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def reply_to(line: bytes) -> Json:
    """The answer to one line: `plan`, `problems` or `error`."""
    try:
        question = orjson.loads(line)
        return {"plan": answer(question["document"], question["change"], question["rate"])}
    except ValidationFailed as error:
        named = ("path", "message", "hint", "value")
        return {"problems": [{name: getattr(one, name) for name in named} for one in error.problems]}
    except MemoryError:
        return {"error": f"the plan needs more than {MEMORY_BYTES // 2**20} MiB"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Entry point of the process; ends with its standard input."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(orjson.dumps(reply_to(line), default=str) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
