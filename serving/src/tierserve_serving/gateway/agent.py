"""The process beside HAProxy: sets its limits from the autoscalers' decisions, counts arrivals, measures latency.

    python -m tierserve_serving.gateway.agent --config FILE.json

It holds no state that HAProxy needs: without it the last limits stay in force. SIGHUP reads the file again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from tierserve.autoscale.types import GatewaySample
from tierserve_serving.gateway import admin
from tierserve_serving.gateway.access_log import LogReceiver, RequestRecord
from tierserve_serving.gateway.agent_config import AgentConfig, AgentPool, load_config
from tierserve_serving.gateway.demand import AnswerCounter, OfferedCounter
from tierserve_serving.gateway.hold import Holders
from tierserve_serving.gateway.limits import Decisions, commands
from tierserve_serving.gateway.metrics import CONTENT_TYPE, GatewayMetrics
from tierserve_serving.gateway.model_reader import ModelReader
from tierserve_serving.gateway.percentiles import Window

log = logging.getLogger("tierserve.gateway")
_BACKEND = "pool_"
_WATCH_EVERY_S = 1.0
_LOG_BUFFER_BYTES = 4 * 2**20
_LOOK = ("show info", "show table offered", admin.SHOW_STAT)


class Agent:
    """State and loops of the agent; `run` until cancelled."""

    def __init__(self, config: AgentConfig, path: Path | None = None) -> None:
        self.config = config
        self.path = path
        self.metrics = GatewayMetrics()
        self.decisions = Decisions()
        self.offered = OfferedCounter(config)
        self.answers = AnswerCounter(config)
        self.holders = Holders(f"{config.admin_socket}.wake")
        self.reader = ModelReader(config)
        self.receiver = LogReceiver(self._take)
        self.states: dict[str, admin.PoolState] = {}
        self.routed: list[str] | None = None
        self.polled: float | None = None
        self.poll_error = "not polled yet"
        self.port = config.port
        self._windows: dict[str, Window] = {}
        self._started = time.time()
        self._configure()

    @property
    def name(self) -> str:
        """What tells this gateway from others in front of the same pools; in a pod the host's name is the pod's."""
        return f"{socket.gethostname()}:{self.port}"

    def _configure(self) -> None:
        """Take over the pools and classes of the configuration, and forget those that are gone."""
        self._tiers = {p.name: p.tier for p in self.config.pools}
        self._classes = {c.name for c in self.config.classes}
        self._windows = {name: window for name, window in self._windows.items() if name in {*self._tiers, "-"}}
        self.offered.configure(self.config)
        self.answers.configure(self.config)
        self.metrics.configure(self.config.pools)
        self.reader.configure(self.config)

    def reload(self) -> None:
        """Reads the file again; a bad one is reported and the old one kept. Addresses change only with a restart."""
        if self.path is None:
            return
        try:
            self.config = load_config(self.path)
        except (OSError, ValidationError) as error:
            log.error("%s: %s; going on with the old configuration", self.path, error)
            return
        self._configure()

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serves and polls until cancelled."""
        transport = await self._listen_for_logs()
        runner = await self._serve()
        await self.reader.start()
        if ready is not None:
            ready.set()
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._poll_decisions(session))
                tasks.create_task(self._poll_gateway())
        finally:
            self.holders.close()
            await self.reader.close()
            await runner.cleanup()
            if transport is not None:
                transport.close()

    async def _poll_decisions(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self.decisions.poll(session, self.config)
            await asyncio.sleep(self.config.decisions_interval_s)

    async def _poll_gateway(self) -> None:
        while True:
            await self.poll_gateway()
            await asyncio.sleep(self.config.poll_interval_s)

    async def poll_gateway(self) -> None:
        """One look at HAProxy and, where its limits differ from what is wanted, one change."""
        try:
            answer = await admin.ask(self.config.admin_socket, _LOOK)
            await self._apply(answer)
        except admin.AdminError as error:
            if not self.poll_error:
                log.warning("HAProxy does not answer: %s", error)
            self.states, self.routed, self.poll_error = {}, None, str(error)
        else:
            self.polled, self.poll_error = time.time(), ""
        for pool in self.config.pools:
            total, age = self.offered.totals[pool.name], self.decisions.age_s(pool.name)
            self.metrics.look(pool, self.states.get(pool.name), total, age)

    async def _apply(self, answer: str) -> None:
        process = admin.parse_process(answer)
        found = admin.parse_stat(answer)
        self.states = {p.name: found[b] for p in self.config.pools if (b := _backend(p)) in found}
        self.routed = sorted(name.removeprefix(_BACKEND) for name in found if name.startswith(_BACKEND))
        if process is not None:
            asleep = [name for name, state in self.states.items() if state.start_s]
            self.offered.update(admin.parse_table(answer), process, asleep)
        sleepers = {p.name: self.states[p.name].held for p in self.config.pools if p.sleeps and p.name in self.states}
        await self.holders.keep(sleepers, process)
        todo = [
            command
            for p in self.config.pools
            if p.name in self.states
            for command in commands(_backend(p), self._wanted(p), self.states[p.name], self.decisions.start_s(p))
        ]
        if todo:
            said = (await admin.ask(self.config.admin_socket, todo)).strip()
            # Shares follow the requests that each gateway has, several times a second: nothing to wake anybody for.
            level = logging.DEBUG if self.config.gateways > 1 and all("maxconn" in c for c in todo) else logging.INFO
            log.log(level, "%s%s", "; ".join(todo), f" -> {said}" if said else "")

    def _wanted(self, pool: AgentPool) -> int | None:
        return self.decisions.wanted_in_flight(pool, self.config.gateways, self.name)

    def _take(self, record: RequestRecord) -> None:
        # Whatever can reach the log's address may not invent pools and classes: each would be a new series.
        tier = self._tiers.get(record.pool, "-")
        if tier == "-" or record.cls not in self._classes:
            pool = record.pool if tier != "-" else "-"
            record = dataclasses.replace(record, pool=pool, cls=record.cls if record.cls in self._classes else "-")
        self.metrics.record(record, tier)
        self.answers.add(record)
        window = self._windows.get(record.pool)
        if window is None:
            window = self._windows[record.pool] = Window(self.config.window_s)
        window.add(time.monotonic(), record)

    async def _listen_for_logs(self) -> asyncio.DatagramTransport | None:
        address = self.config.log_address
        if address is None:
            return None
        sock = _log_socket(address)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self.receiver, sock=sock)
        return transport

    async def _serve(self) -> web.AppRunner:
        app = web.Application()
        app.add_routes(
            [
                web.get("/pools/{pool}", self._get_pool),
                web.get("/status", self._get_status),
                web.get("/metrics", self._get_metrics),
                web.get("/healthz", self._get_health),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self.config.listen or None, self.config.port).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _get_pool(self, request: web.Request) -> web.Response:
        name = request.match_info["pool"]
        if name not in self.offered.totals:
            return _json({"error": f"no pool {name!r}", "pools": sorted(self.offered.totals)}, 404)
        state = self.states.get(name)
        if state is None or self.polled is None:
            # Old figures without a word would be worse for an autoscaler than none.
            return _json({"error": f"HAProxy does not answer: {self.poll_error}"}, 503)
        sample = GatewaySample(
            t=self.polled,
            arrivals=self.offered.totals[name],
            queued=float(state.queued),
            in_flight=float(state.in_flight),
            answered=self.answers.answered[name],
            late=self.answers.late[name],
            bypassed=self.offered.bypassed[name],
        )
        max_in_flight = 0 if state.drained or state.off else state.max_in_flight
        return _json({**sample.to_json(), "max_in_flight": max_in_flight, "gateway": self.name})

    async def _get_status(self, request: web.Request) -> web.Response:
        del request
        return _json(self.status())

    def status(self) -> dict[str, Any]:
        """All that is known, per pool; ages in seconds. Without an answer of HAProxy a pool has no `in_flight`."""
        now = time.monotonic()
        refused = self._windows.get("-")
        return {
            "t": time.time(),
            "service": self.config.service,
            "started": self._started,
            "gateway": {"polled": self.polled, "error": self.poll_error or None},
            "logs": {"received": self.receiver.received, "malformed": self.receiver.malformed},
            "decisions_errors": dict(self.decisions.errors),
            # Of HAProxy itself: a pool is in use until no configuration has it, whatever this agent's file says.
            "routed": self.routed,
            "not_routed": dataclasses.asdict(refused.summary(now)) if refused else None,
            "pools": {p.name: self._pool_status(p, now) for p in self.config.pools},
        }

    def _pool_status(self, pool: AgentPool, now: float) -> dict[str, Any]:
        state = self.states.get(pool.name)
        window = self._windows.get(pool.name) or Window(self.config.window_s)
        return {
            "tier": pool.tier,
            "slots": pool.slots,
            "target_s": pool.target_s,
            "offered_total": self.offered.totals[pool.name],
            "arrivals_total": self.offered.arrivals[pool.name],
            **({} if state is None else dataclasses.asdict(state)),
            "window_s": self.config.window_s,
            **dataclasses.asdict(window.summary(now, pool.target_s)),
            "decision": self.decisions.latest.get(pool.name),
            "decision_age_s": self.decisions.age_s(pool.name),
        }

    async def _get_metrics(self, request: web.Request) -> web.Response:
        del request
        self.metrics.malformed(self.receiver.malformed)
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _get_health(self, request: web.Request) -> web.Response:
        del request
        return _json({"status": "ok", "gateway": "ok" if not self.poll_error else self.poll_error})


def _backend(pool: AgentPool) -> str:
    return f"{_BACKEND}{pool.name}"


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(body), status=status, content_type="application/json")


def _log_socket(address: str) -> socket.socket:
    if address.startswith("/"):
        Path(address).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(address)
    else:
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LOG_BUFFER_BYTES)
        sock.bind((host.strip("[]"), int(port)))
    sock.setblocking(False)
    return sock


async def _watch(agent: Agent, path: Path, known: bytes) -> None:
    """Reads the file again when it is not as `known`, as a mounted ConfigMap's changes, which sends no signal."""
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        with contextlib.suppress(OSError):
            if (now := await asyncio.to_thread(path.read_bytes)) != known:
                known = now
                agent.reload()
                log.info("%s has changed", path)


async def serve(path: Path, *, watch: bool = False) -> None:
    """Runs the agent until SIGTERM or SIGINT; SIGHUP reads `path` again, and with `watch` every change of it."""
    content = await asyncio.to_thread(path.read_bytes)  # before it is read: no change may fall between the two
    agent = Agent(load_config(path), path)
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(agent.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    watcher = asyncio.ensure_future(_watch(agent, path, content)) if watch else None
    try:
        await task
    except asyncio.CancelledError:
        log.info("stopped")
    finally:
        if watcher is not None:
            watcher.cancel()


def main() -> None:
    """Entry of ``python -m tierserve_serving.gateway.agent``."""
    parser = argparse.ArgumentParser(description="Sets the limits of a TierServe gateway and measures it.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file, see AgentConfig")
    parser.add_argument("--watch", action="store_true", help="read the file again whenever it changes")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    arguments = parser.parse_args()
    path: Path = arguments.config
    try:
        asyncio.run(serve(path, watch=arguments.watch))
    except (OSError, ValidationError) as error:
        parser.exit(2, f"gateway agent: {path}: {error}\n    fix the file or free the address, and start it again\n")


if __name__ == "__main__":
    main()
