"""Requests a second and CPU time per request of a pool behind Ray Serve's HAProxy, or behind Ray's Python proxy.

    python -m bench.serving.replica --replicas 1 --connections 64 --seconds 10 [--stream] [--python-proxy]

Client, proxy and replicas share the machine, so the rate is a lower bound; CPU per request is reported per process
group.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import shutil
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil

from tierserve.runtime.local.ports import free_port
from tierserve_serving.gateway.haproxy import write_ray_launcher

_MARKER = "TIERSERVE_BENCH"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests a second, open loop; else a closed loop")
    parser.add_argument("--service", type=float, default=0.0, help="seconds of service at any batch size")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--python-proxy", action="store_true")
    parser.add_argument("--separate-thread", action="store_true", help="Ray's default: user code in a loop of its own")
    args = parser.parse_args()
    marker, folder, port = uuid.uuid4().hex, tempfile.mkdtemp(prefix="ts-", dir="/tmp"), free_port()
    first = 20_000 + 100 * (free_port() % 50)
    os.environ |= {
        _MARKER: marker,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "0" if args.python_proxy else "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_ray_launcher(Path(folder, "haproxy"))),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 99),
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1" if args.separate_thread else "0",
    }
    import ray

    ray.init(
        address="local",
        num_cpus=16,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        run(args, marker, port)
    finally:
        ray.shutdown()
        for process in marked(marker):
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def run(args: argparse.Namespace, marker: str, port: int) -> None:
    from ray import serve

    from tierserve_serving.app import Replica, build, validated

    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    tokens = args.tokens
    pool = {
        "service": "bench",
        "tier": "edge",
        "model": "m",
        "slots": 256,
        "max_queue": 1024,
        "profile": {"alpha": max(1e-9, args.service / (tokens + 1))},
        "output_tokens": tokens,
    }
    build(pool)
    arguments = validated(pool).model_dump(mode="json")
    for replicas in args.replicas:
        options = {"num_replicas": replicas, "max_ongoing_requests": 2000, "ray_actor_options": {"num_cpus": 0.1}}
        deployment: Any = Replica
        serve.run(deployment.options(**options).bind(arguments), name="bench", route_prefix="/bench")
        time.sleep(4)  # until HAProxy has found the replicas healthy
        before = cpu(marker)
        result = asyncio.run(load(f"http://127.0.0.1:{port}/bench/v1/chat/completions", args))
        after = cpu(marker)
        told(replicas, result, {part: after[part] - before.get(part, 0.0) for part in after})


def told(replicas: int, result: tuple[list[float], float, int, float], spent: dict[str, float]) -> None:
    times, wall, errors, own = result
    done = max(1, len(times))
    deciles = statistics.quantiles(times, n=100)
    parts = ", ".join(f"{part} {seconds / done * 1e3:.2f}" for part, seconds in sorted(spent.items()) if seconds > 0.05)
    print(
        f"{replicas} replicas: {done / wall:.0f} requests/s, errors {errors}, p50 {deciles[49] * 1e3:.1f} ms,"
        f" p95 {deciles[94] * 1e3:.1f} ms, p99 {deciles[98] * 1e3:.1f} ms; CPU ms per request: {parts},"
        f" this client {own / done * 1e3:.2f}",
        flush=True,
    )


async def load(url: str, args: argparse.Namespace) -> tuple[list[float], float, int, float]:
    ask = {"model": "bench", "stream": args.stream, "messages": [{"role": "user", "content": "word " * 50}]}
    body, headers = orjson.dumps(ask), {"Content-Type": "application/json"}
    times: list[float] = []
    errors = 0
    end = time.perf_counter() + args.seconds

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask_once(begin: float) -> None:
            nonlocal errors
            try:
                async with session.post(url, data=body, headers=headers) as response:
                    await response.read()
                    errors += response.status != 200
            except aiohttp.ClientError:
                errors += 1
            times.append(time.perf_counter() - begin)

        async def user() -> None:
            while time.perf_counter() < end:
                await ask_once(time.perf_counter())

        start, own = time.perf_counter(), time.process_time()
        if args.rate:
            tasks = []
            for k in range(int(args.rate * args.seconds)):
                due = start + k / args.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.append(asyncio.create_task(ask_once(due)))
            await asyncio.gather(*tasks)
        else:
            await asyncio.gather(*(user() for _ in range(args.connections)))
        return times, time.perf_counter() - start, errors, time.process_time() - own


def cpu(marker: str) -> dict[str, float]:
    """Return CPU seconds so far by part of the cluster."""
    spent: dict[str, float] = collections.defaultdict(float)
    for process in marked(marker):
        try:
            name, times = process.name(), process.cpu_times()
        except psutil.Error:
            continue
        part = next((part for part in ("Replica", "haproxy", "ProxyActor", "Controller") if part in name), "Ray's rest")
        spent[part] += times.user + times.system
    return spent


def marked(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_MARKER) == marker:
                found.append(process)
        except psutil.Error:
            continue
    return found


if __name__ == "__main__":
    main()
