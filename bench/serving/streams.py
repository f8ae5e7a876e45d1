"""What the gateway adds to a stream: one service, through Ray Serve's own proxy and through the gateway.

    python -m bench.serving.streams            two minutes, starts a local service of its own
    python -m bench.serving.gateway --streams  the same

One stream at a time, alternately direct and through the gateway, so that noise of the machine affects both. Goal: the
first token through the gateway within 5 ms of Ray's own proxy, and no more between tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np

from tierserve.runtime.local.ports import free_port
from tierserve.runtime.local.state import LocalState

TOKENS = 24
SERVICE = f"""\
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {{name: streams}}
spec:
  objective: {{responseTime: {{percentile: 95, target: 4s}}}}
  models:
    - name: large
      engine: emulated
      memory: {{weights: 13Gi, perRequest: 512Mi}}
      profile: {{alpha: 20ms, beta: 10us, gamma: 10ns}}
      output: {{tokens: {TOKENS}}}
      contextTokens: 131072
      maxConcurrency: 4
  tiers:
    - {{name: cloud, kind: cloud, accelerator: {{preset: A100-80GB}}, models: [large], replicas: {{min: 1, max: 1}}}}
"""
HEADERS = {"Content-Type": "application/json"}


def body(words: int) -> bytes:
    """A request as OpenAI's Python package writes it: the model after the messages."""
    messages = [{"role": "user", "content": "word " * words}]
    return json.dumps({"messages": messages, "model": "large", "max_tokens": TOKENS, "stream": True}).encode()


BODIES = {"1.2 KiB": body(235), "100 KiB": body(20_480)}


@contextlib.contextmanager
def service() -> Iterator[dict[str, str]]:
    """A local service; base URLs of Ray's own proxy and of the gateway."""
    with tempfile.TemporaryDirectory(prefix="ts-streams-") as folder:
        file, environment = Path(folder) / "streams.yaml", {**os.environ, "XDG_STATE_HOME": f"{folder}/state"}
        file.write_text(SERVICE)
        command = [Path(sys.executable).with_name("tierserve")]
        try:
            subprocess.run([*command, "up", file, "--port", str(free_port())], env=environment, check=True)
            state = LocalState.load(next(Path(folder).rglob("state.json")))
            assert state is not None
            yield {"Ray's proxy": f"http://127.0.0.1:{state.ray.http}/cloud-default", "gateway": state.endpoint}
        finally:
            subprocess.run([*command, "down", "streams"], env=environment, check=False)


async def arrivals(session: aiohttp.ClientSession, url: str, data: bytes) -> list[float]:
    """Seconds from the request to each event of the stream."""
    began = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", data=data, headers=HEADERS) as answer:
        answer.raise_for_status()
        return [time.perf_counter() - began async for line in answer.content if line.startswith(b"data:")]


async def measure(ways: dict[str, str], streams: int) -> None:
    print(f"{os.cpu_count()} cores, {streams} streams of {TOKENS} tokens each way and size, in ms")
    async with aiohttp.ClientSession() as session:
        for size, data in BODIES.items():
            seen: dict[str, list[list[float]]] = {way: [] for way in ways}
            for n in range(streams + 2):
                for way, url in ways.items():
                    times = await arrivals(session, url, data)
                    if n >= 2:  # the first ones open connections
                        seen[way].append(times)
            report(size, seen)


def report(size: str, seen: dict[str, list[list[float]]]) -> None:
    first, gaps = {}, {}
    for way, streams in seen.items():
        first[way] = np.array([times[0] for times in streams]) * 1e3
        gaps[way] = np.concatenate([np.diff(times) for times in streams]) * 1e3
        a, b = np.percentile(first[way], (50, 95)), np.percentile(gaps[way], (50, 95))
        print(
            f"  {size:8} {way:12} first token p50 {a[0]:7.2f} p95 {a[1]:7.2f}   between p50 {b[0]:6.2f} p95 {b[1]:6.2f}"
        )
    straight, through = seen
    added = [float(np.median(rows[through]) - np.median(rows[straight])) for rows in (first, gaps)]
    print(f"  {size:8} the gateway adds {added[0]:.2f} to the first token, {added[1]:.2f} between tokens (medians)")


def main(streams: int = 60) -> None:
    with service() as ways:
        asyncio.run(measure(ways, streams))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=60, help="streams each way and size [60]")
    main(parser.parse_args().streams)
