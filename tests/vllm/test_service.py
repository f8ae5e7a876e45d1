"""Replicas of real vLLM under Ray Serve, scaled by ErlangPolicy and asked through Ray's HAProxy."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import httpx
import openai
import psutil
import pytest

from tierserve_serving.app import Replica

pytestmark = [pytest.mark.llm, pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.timeout(3600)]
SLOTS = 2


def application(model, decisions_address: str):
    pool = {
        "service": "assistant",
        "tier": "cloud",
        "model": "smollm2",
        "engine": "vllm",
        "source": f"file://{model}",
        "slots": SLOTS,
        "max_queue": 16,
        "context_tokens": 1024,
        "engine_args": {"dtype": "float32", "enforce_eager": "true", "kv_cache_memory_bytes": str(2**28)},
    }
    policy = {
        "pool": "cloud-default",
        "decisions_address": decisions_address,
        "response_target_s": 4.0,
        "service_s": 3.0,
        "slots": SLOTS,
        "startup_s": 60.0,
    }
    return Replica.options(
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0.1},
        health_check_period_s=2,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 2,
            "upscale_delay_s": 0,
            "downscale_delay_s": 0,
            "metrics_interval_s": 0.5,
            "look_back_period_s": 2.0,
            "policy": {"policy_function": "tierserve_serving.policy:ErlangPolicy", "policy_kwargs": policy},
        },
    ).bind(pool)


class Load:
    """Connections that ask again as soon as they have their answer."""

    def __init__(self, url: str, connections: int) -> None:
        self.url, self.wanted, self.answers = url, True, []
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(connections)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        with openai.OpenAI(base_url=self.url + "/v1", api_key="unused", max_retries=0, timeout=600.0) as client:
            while self.wanted:
                asked = [{"role": "user", "content": "Count from one to ten."}]
                answer = client.chat.completions.create(model="smollm2", messages=asked, max_tokens=24)
                self.answers.append(answer.usage.completion_tokens)

    def stop(self) -> None:
        self.wanted = False
        for thread in self.threads:
            thread.join(timeout=600.0)


@pytest.fixture(scope="module")
def url(ray_serve, model, decisions_address) -> Iterator[str]:
    yield ray_serve.run(application(model, decisions_address))
    ray_serve.delete()


def cores() -> dict[int, psutil.Process]:
    """The engine cores of the replicas, by process id of the replica."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "TIERSERVE_TEST_CLUSTER" in process.environ() and "EngineCore" in "".join(process.cmdline()):
                found[process.ppid()] = process
    return found


def test_a_replica_serves_clients_and_counts_for_the_policy(url):
    with openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=0, timeout=300.0) as client:
        asked = [{"role": "user", "content": "What is the capital of France?"}]
        stream = client.chat.completions.create(
            model="assistant", messages=asked, max_tokens=12, temperature=0, stream=True
        )
        pieces = list(stream)
        assert "Paris" in "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert pieces[0].model == "smollm2"
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="smollm2", input="hi")  # this model only generates
    seen = httpx.get(url + "/healthz").json()
    assert seen["engine"] == "vllm"
    assert seen["completions_total"] == seen["prefills_total"] == 1
    assert seen["output_tokens_total"] > seen["decode_steps_total"] > 0
    assert seen["service_seconds_total"] > 0.0
    assert "kv_cache_usage" in seen


def test_a_disconnect_frees_slot_and_sequence(url, wait):
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 900}
    with httpx.stream("POST", url + "/v1/chat/completions", json=body | {"stream": True}, timeout=300.0) as answer:
        next(answer.iter_raw())
        wait(lambda: httpx.get(url + "/healthz").json()["engine_running"] == 1)
    wait(lambda: (seen := httpx.get(url + "/healthz").json())["running"] == seen["engine_running"] == 0)


def test_load_gets_a_second_replica_and_one_whose_engine_was_killed_is_replaced(url, decision, wait):
    load = Load(url, 3 * SLOTS)
    wait(lambda: decision("cloud-default").get("target") == 2, 120.0)
    wait(lambda: decision("cloud-default")["running"] == 2, 600.0)
    before = wait(lambda: len(found := cores()) == 2 and found, 60.0)
    at_two = len(load.answers)
    wait(lambda: len(load.answers) > at_two + 4 * SLOTS, 300.0)
    load.stop()
    replica, core = next(iter(before.items()))
    os.kill(core.pid, signal.SIGKILL)
    wait(lambda: replica not in cores() and not psutil.pid_exists(replica), 120.0)
    answer = httpx.post(
        url + "/v1/completions", json={"model": "smollm2", "prompt": "One, two,", "max_tokens": 4}, timeout=300.0
    )
    assert answer.status_code == 200  # from the other replica
    wait(lambda: (len(cores()) >= 1 and set(cores()) - set(before)) or decision("cloud-default")["target"] == 1, 600.0)
