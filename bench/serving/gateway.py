"""Cost of the gateway: the same requests directly to a server and through HAProxy with its agent.

    python -m bench.serving.gateway                  about a minute
    python -m bench.serving.gateway --rate 100 --seconds 10
    python -m bench.serving.gateway --streams        what it adds to a stream, compared with Ray's own proxy

A server that answers after 20 ms in place of three pools. Poisson arrivals, bodies of 1.2 KiB, an open loop: latency
counts from the intended start. Both are measured alternately, so that noise of the machine affects both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from aiohttp import web

from bench.serving import streams
from tierserve.render.haproxy.config import GatewayClass, GatewayPool, GatewaySpec, render_haproxy
from tierserve.runtime.local.ports import free_ports
from tierserve_serving.gateway import haproxy as binary

HOST, SERVICE_S, ROUNDS = "127.0.0.1", 0.02, 3
TIERS = ("device", "edge", "cloud")
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "word " * 235}]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the rounds, direct and gateway each")
    parser.add_argument("--streams", action="store_true", help="measure streams instead, through a whole local service")
    given = parser.parse_args()
    if given.streams:
        streams.main()
        return
    asyncio.run(compare(given.rate, given.seconds))


async def compare(rate: float, seconds: float) -> None:
    upstream, gateway, admin, log, metrics, agent = free_ports(6)
    del admin
    with tempfile.TemporaryDirectory(prefix="ts-bench-") as folder:
        spec = GatewaySpec(
            service="assistant", port=gateway, default_class="chat", classes=(GatewayClass("chat", TIERS),),
            pools=tuple(GatewayPool(f"{t}-default", t, HOST, upstream, f"/{t}", 64, 64) for t in TIERS),
            admin_socket=f"{folder}/admin.sock", log_address=f"{HOST}:{log}", metrics_port=metrics,
        )  # fmt: skip
        async with server(upstream), processes(spec, Path(folder), agent) as (haproxy, beside):
            ways = {"direct": f"http://{HOST}:{upstream}/cloud", "gateway": f"http://{HOST}:{gateway}"}
            took: dict[str, list[float]] = {way: [] for way in ways}
            cpu_s = {"HAProxy": 0.0, "agent": 0.0}
            for round_ in range(ROUNDS):
                for way, url in ways.items():
                    before = {"HAProxy": busy(haproxy), "agent": busy(beside)}
                    took[way] += await ask(url, rate, seconds, round_)
                    if way == "gateway":
                        cpu_s["HAProxy"] += busy(haproxy) - before["HAProxy"]
                        cpu_s["agent"] += busy(beside) - before["agent"]
    report(took, cpu_s, rate)


def report(took: dict[str, list[float]], cpu_s: dict[str, float], rate: float) -> None:
    print(f"{os.cpu_count()} cores, {rate:g} requests/s, {len(took['gateway']):,} requests each way")
    for way, values in took.items():
        p50, p99 = np.percentile(values, (50, 99)) * 1e3
        print(f"  {way:10} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms")
    extra = statistics.median(took["gateway"]) - statistics.median(took["direct"])
    print(f"  the gateway adds {extra * 1e3:.2f} ms at the median")
    for part, spent in cpu_s.items():
        print(f"  {part:10} {spent / len(took['gateway']) * 1e6:5.0f} us of CPU per request")


async def ask(url: str, rate: float, seconds: float, seed: int) -> list[float]:
    """Response times of a Poisson stream, from the intended starts."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(rng.poisson(rate * seconds))) * seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        began, made = time.perf_counter(), []
        for intended in times:
            await asyncio.sleep(max(0.0, began + intended - time.perf_counter()))
            made.append(tasks.create_task(one(session, url, began + intended)))
    return [task.result() for task in made]


async def one(session: aiohttp.ClientSession, url: str, intended: float) -> float:
    async with session.post(f"{url}/v1/chat/completions", data=BODY) as answer:
        await answer.read()
        answer.raise_for_status()
    return time.perf_counter() - intended


@contextlib.asynccontextmanager
async def server(port: int) -> AsyncIterator[None]:
    """The server in place of the tiers."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(SERVICE_S if request.method == "POST" else 0.0)
        return web.json_response({"choices": []})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def processes(spec: GatewaySpec, folder: Path, agent_port: int) -> AsyncIterator[tuple[int, int]]:
    """HAProxy and the agent; their process ids."""
    started = start(spec, folder, agent_port)
    try:
        await until_ready(f"http://{HOST}:{spec.port}/readyz", f"http://{HOST}:{agent_port}/healthz")
        yield started[0].pid, started[1].pid
    finally:
        for process in started:
            process.terminate()
            process.wait(10)


def start(spec: GatewaySpec, folder: Path, agent_port: int) -> list[subprocess.Popen[bytes]]:
    config, agent_config = folder / "haproxy.cfg", folder / "agent.json"
    binary.write_config(config, render_haproxy(spec))
    agent_config.write_text(json.dumps(agent_fields(spec, agent_port)))
    commands = (
        binary.start_command(binary.find_haproxy(), config, folder / "pid"),
        [sys.executable, "-m", "tierserve_serving.gateway.agent", "--config", str(agent_config)],
    )
    with (folder / "log").open("wb") as sink:
        return [subprocess.Popen(command, stdout=sink, stderr=sink) for command in commands]


def agent_fields(spec: GatewaySpec, port: int) -> dict[str, Any]:
    """The agent's configuration; without a policy the limits stay as they are."""
    return {
        "service": spec.service, "port": port, "log_address": spec.log_address, "admin_socket": spec.admin_socket,
        "classes": [{"name": c.name, "tiers": c.tiers} for c in spec.classes],
        "pools": [{"name": p.name, "tier": p.tier, "slots": p.slots, "models": p.models, "target_s": 1.0,
                   "decisions_url": f"http://{HOST}:9/decisions"} for p in spec.pools],
    }  # fmt: skip


async def until_ready(*urls: str) -> None:
    deadline = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        for url in urls:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            break
                if time.monotonic() > deadline:
                    sys.exit(f"{url} did not come up")
                await asyncio.sleep(0.1)


def busy(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    root = psutil.Process(pid)
    spent = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        spent += times.user + times.system
    return spent


if __name__ == "__main__":
    main()
