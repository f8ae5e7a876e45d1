"""Gateway agent: sets HAProxy's limits from the autoscalers' decisions, counts arrivals, measures latency.

    python -m tierserve_serving.gateway.agent --config FILE.json

HAProxy does not depend on it: without the agent the last limits stay in force. SIGHUP reloads the file.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from tierserve.autoscale.types import GatewaySample
from tierserve_serving.gateway import admin
from tierserve_serving.gateway.access_log import LogReceiver, RequestRecord
from tierserve_serving.gateway.agent_config import AgentConfig, AgentPool, load_config
from tierserve_serving.gateway.certificate import Certificate
from tierserve_serving.gateway.demand import AnswerCounter, OfferedCounter
from tierserve_serving.gateway.hold import HeldSlots
from tierserve_serving.gateway.limits import Decisions, commands
from tierserve_serving.gateway.metrics import CONTENT_TYPE, GatewayMetrics
from tierserve_serving.gateway.model_reader import ModelReader
from tierserve_serving.gateway.percentiles import Window

log = logging.getLogger("tierserve.gateway")
_BACKEND = "pool_"
_WATCH_EVERY_S = 1.0
_LOG_BUFFER_BYTES = 4 * 2**20
_POLL_COMMANDS = ("show info", "show table offered", admin.SHOW_STAT)


class Agent:
    """State and loops of the agent; `run` until cancelled."""

    def __init__(self, config: AgentConfig, path: Path | None = None) -> None:
        self.config = config
        self.path = path
        self.metrics = GatewayMetrics()
        self.decisions = Decisions()
        self.offered = OfferedCounter(config)
        self.answers = AnswerCounter(config)
        self.held_slots = HeldSlots(f"{config.admin_socket}.entry")
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
        """Unique name among the gateways in front of the same pools; in a pod the host name is the pod's name."""
        return f"{socket.gethostname()}:{self.port}"

    def _configure(self) -> None:
        """Applies the pools and classes of the configuration, and drops the state of removed ones."""
        self._tiers = {p.name: p.tier for p in self.config.pools}
        self._classes = {c.name for c in self.config.classes}
        self._models = {m: m for p in self.config.pools for m in p.models} | {"*": self.config.service}
        self._windows = {name: window for name, window in self._windows.items() if name in {*self._tiers, "-"}}
        self.offered.configure(self.config)
        self.answers.configure(self.config)
        self._certificate = Certificate(Path(self.config.certificate)) if self.config.certificate else None
        self.metrics.configure(self.config.pools)
        self.reader.configure(self.config)

    def reload(self) -> None:
        """Reloads the file; an invalid one is logged and the old one kept. Addresses change only with a restart."""
        if self.path is None:
            return
        try:
            self.config = load_config(self.path)
        except (OSError, ValidationError) as error:
            log.error("%s: %s; the old configuration stays in use", self.path, error)
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
            self.held_slots.close()
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
        """Polls HAProxy's state and sends the commands that bring it to the desired limits."""
        try:
            answer = await admin.run_commands(self.config.admin_socket, _POLL_COMMANDS)
            await self._apply(answer)
        except admin.AdminError as error:
            if not self.poll_error:
                log.warning("HAProxy does not respond on its admin socket: %s", error)
            self.states, self.routed, self.poll_error = {}, None, str(error)
        else:
            self.polled, self.poll_error = time.time(), ""
        for pool in self.config.pools:
            name = pool.name
            self.metrics.update(pool, self.states.get(name))
            self.metrics.count(pool, self.offered.totals[name], self.answers.answered[name], self.answers.late[name])
            self.metrics.decided(pool, self.decisions.latest.get(name, {}), self.decisions.age_s(name))

    async def _apply(self, answer: str) -> None:
        process = admin.parse_process(answer)
        states = admin.parse_stat(answer)
        self.states = {p.name: states[b] for p in self.config.pools if (b := _backend(p)) in states}
        self.routed = sorted(name.removeprefix(_BACKEND) for name in states if name.startswith(_BACKEND))
        if process is not None:
            scaled_to_zero = [name for name, state in self.states.items() if state.start_s]
            self.offered.update(admin.parse_table(answer), process, scaled_to_zero)
        pools = [p for p in self.config.pools if p.name in self.states]
        waiting_rooms = {p.name: self.states[p.name].waiting_room_taken for p in pools if p.scale_to_zero}
        await self.held_slots.keep(waiting_rooms, process)
        pending = [command for p in pools for command in self._pending(p)]
        if pending:
            output = (await admin.run_commands(self.config.admin_socket, pending)).strip()
            # With several gateways the shares change several times a second: not worth an INFO line.
            level = logging.DEBUG if self.config.gateways > 1 and all("maxconn" in c for c in pending) else logging.INFO
            log.log(level, "%s%s", "; ".join(pending), f" -> {output}" if output else "")

    def _pending(self, pool: AgentPool) -> Iterator[str]:
        desired = self.decisions.desired_in_flight(pool, self.config.gateways, self.name)
        return commands(_backend(pool), desired, self.states[pool.name], self.decisions.start_s(pool))

    def _take(self, record: RequestRecord) -> None:
        # The log port is not authenticated: unknown pools, classes and models must not create new series.
        tier = self._tiers.get(record.pool, "-")
        record = dataclasses.replace(
            record,
            pool=record.pool if tier != "-" else "-",
            cls=record.cls if record.cls in self._classes else "-",
            model=self._models.get(record.model, "-"),
        )
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

    def application(self) -> web.Application:
        """The agent's HTTP endpoints."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/pools/{pool}", self._get_pool),
                web.get("/status", self._get_status),
                web.get("/metrics", self._get_metrics),
                web.get("/healthz", self._get_health),
            ]
        )
        return app

    async def _serve(self) -> web.AppRunner:
        runner = web.AppRunner(self.application(), access_log=None)
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
        max_in_flight = 0 if state.drained or state.maintenance else state.max_in_flight
        return _json({**sample.to_json(), "max_in_flight": max_in_flight, "gateway": self.name})

    async def _get_status(self, request: web.Request) -> web.Response:
        del request
        return _json(self.status())

    def status(self) -> dict[str, Any]:
        """State per pool, for `/status`; ages in seconds. If HAProxy does not respond, pools have no `in_flight`."""
        now = time.monotonic()
        refused = self._windows.get("-")
        return {
            "t": time.time(),
            "service": self.config.service,
            "started": self._started,
            "gateway": {"polled": self.polled, "error": self.poll_error or None},
            "logs": {"received": self.receiver.received, "malformed": self.receiver.malformed},
            "decisions_errors": dict(self.decisions.errors),
            # Pools in HAProxy's configuration, which may differ from this agent's file for a moment.
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
        certificate = self._certificate
        self.metrics.certificate(await asyncio.to_thread(certificate.not_after) if certificate else None)
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


async def _watch(agent: Agent, path: Path, content: bytes) -> None:
    """Reloads when the file's content, at first `content`, changes: a mounted ConfigMap sends no signal."""
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        with contextlib.suppress(OSError):
            if (now := await asyncio.to_thread(path.read_bytes)) != content:
                content = now
                agent.reload()
                log.info("%s has changed", path)


async def serve(path: Path, *, watch: bool = False) -> None:
    """Runs the agent until SIGTERM or SIGINT; SIGHUP reloads `path`, and with `watch` every change of it does."""
    content = await asyncio.to_thread(path.read_bytes)  # before load_config, so that no change in between is missed
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
    """Entry point of ``python -m tierserve_serving.gateway.agent``."""
    parser = argparse.ArgumentParser(description="Sets the limits of a TierServe gateway and measures it.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file, see AgentConfig")
    parser.add_argument("--watch", action="store_true", help="reload the file when it changes")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    arguments = parser.parse_args()
    path: Path = arguments.config
    try:
        asyncio.run(serve(path, watch=arguments.watch))
    except (OSError, ValidationError) as error:
        parser.exit(2, f"gateway agent: {path}: {error}\nhint: correct the file or free the address, then restart\n")


if __name__ == "__main__":
    main()
