"""One replica on this machine without Ray: `python -m tierserve_serving.standalone --config FILE [--port PORT]`.

For measuring a replica (`tierserve profile`). FILE is a `PoolConfig` in JSON. With `-` it is the first line of standard
input, and the replica stops when standard input is closed: it does not outlive the process that started it.

It listens on the loopback interface. When the first request has been answered one line of JSON is printed:

    {"url": "http://127.0.0.1:PORT", "import_s": 1.2, "load_s": 0.3, "first_request_s": 0.1}

`import_s` is from the start of the process, `load_s` the time of `Engine.load`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import orjson
import psutil
import uvicorn
from pydantic import ValidationError

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import make_engine
from tierserve_serving.openai.app import Ingress
from tierserve_serving.replica.worker import Worker

LOOPBACK = "127.0.0.1"
_POLL_S = 0.01
_GRACE_S = 5  # for responses under way when the replica is stopped

log = logging.getLogger("tierserve_serving.standalone")


@dataclass(frozen=True, slots=True)
class Started:
    """Address of the replica, and its start-up time in seconds by part."""

    url: str
    import_s: float
    load_s: float
    first_request_s: float


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal or the end of standard input; 1 if the replica cannot start."""
    parser = argparse.ArgumentParser(prog="tierserve_serving.standalone", description="One replica without Ray.")
    parser.add_argument("--config", required=True, help="JSON file with a PoolConfig; - for a line of standard input")
    parser.add_argument("--port", type=int, default=0, help="port on the loopback interface [any free port]")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    piped = given.config == "-"
    try:
        text = sys.stdin.readline() if piped else Path(given.config).read_text(encoding="utf-8")
        asyncio.run(_serve(PoolConfig.model_validate_json(text), given.port, until_stdin_closes=piped))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            print(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}".removeprefix(": "), file=sys.stderr)
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _serve(config: PoolConfig, port: int, *, until_stdin_closes: bool) -> None:
    import_s = time.time() - psutil.Process().create_time()
    with _listener(port) as listener:
        begin = time.perf_counter()
        engine = make_engine(config)
        await engine.load()
        load_s = time.perf_counter() - begin
        try:
            server = uvicorn.Server(_settings(Worker(config, engine)))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            if until_stdin_closes:
                asyncio.get_running_loop().add_reader(sys.stdin, _on_input, server)
            while not server.started:  # noqa: ASYNC110  uvicorn sets a flag, no event
                await asyncio.sleep(_POLL_S)
            url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
            _report(Started(url, import_s, load_s, await _first_request_s(url, config.model)))
            await serving
        finally:
            engine.close()


def _listener(port: int) -> socket.socket:
    # Of a socket without protocol asyncio does not know that it is TCP, and leaves Nagle's algorithm on: 40 ms later
    # first tokens.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise ValueError(f"--port: {error.strerror} ({port}); hint: give another port, or 0 for any") from error
    return listener


def _settings(worker: Worker) -> uvicorn.Config:
    return uvicorn.Config(
        Ingress(worker), lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_S
    )


def _on_input(server: uvicorn.Server) -> None:
    if not sys.stdin.readline():
        asyncio.get_running_loop().remove_reader(sys.stdin)
        server.should_exit = True


async def _first_request_s(url: str, model: str) -> float:
    """Return the seconds until one token is answered, which allocates what the engine left for later."""
    begin = time.perf_counter()
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"the first request failed with status {answer.status}: {await answer.text()}")
    return time.perf_counter() - begin


def _report(started: Started) -> None:
    log.info(
        "%s: import %.2f s, load %.2f s, first request %.2f s",
        started.url,
        started.import_s,
        started.load_s,
        started.first_request_s,
    )
    _output.write(orjson.dumps(asdict(started)).decode() + "\n")
    _output.flush()


_output = sys.stdout
if __name__ == "__main__":
    # vLLM logs to standard output, of which the process that started this one reads a single line.
    _output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.exit(main())
