"""`tierserve up`: one file in, three tiers serving on this machine, and it stays so.

The tests share one running service and are written to be run in any order; each waits for readiness first.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
from typer.testing import CliRunner

from tierserve.cli.main import app
from tierserve.loadgen import ClosedLoop, LoadPlan, LoadResult, Traffic, connection_steps, run_load
from tierserve.runtime.local.paths import known_services
from tierserve.runtime.local.processes import marked
from tierserve.runtime.local.service import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.timeout(400)]
HUB_NAME = "org/Large-8B.v1"  # of the model in conftest.py


@pytest.fixture
def client(service: LocalService) -> openai.OpenAI:
    service.wait_ready(timeout_s=120)
    return openai.OpenAI(base_url=f"{service.endpoint}/v1", api_key="none", max_retries=0, timeout=60)


def ask(client: openai.OpenAI, words: str = "Say hello.", **options) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="e2e", messages=[{"role": "user", "content": words}], **options)


def test_the_official_client_chats_through_the_gateway(client: openai.OpenAI):
    answer = ask(client, max_tokens=10)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 10


def test_the_official_client_streams_through_the_gateway(client: openai.OpenAI):
    chunks = list(ask(client, stream=True, max_tokens=12))
    assert len(chunks) > 5
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_a_real_language_model_answers_for_the_private_class(client: openai.OpenAI):
    private = client.with_options(default_headers={"X-TierServe-Class": "personal"})
    answers = []
    for words in ("Write one short sentence about the sea.", "Name one good thing about bread."):
        messages = [{"role": "user", "content": words}]
        raw = private.chat.completions.with_raw_response.create(
            model="e2e", messages=messages, max_tokens=24, temperature=0
        )
        assert raw.headers["x-tierserve-pool"] == "device-default"
        answers.append(raw.parse().choices[0].message.content)
    assert "sea" in answers[0].lower() or "ocean" in answers[0].lower()
    assert "bread" in answers[1].lower()


def test_a_private_request_is_refused_rather_than_sent_elsewhere(client: openai.OpenAI, service: LocalService):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client.with_options(default_headers={"X-TierServe-Class": "no-such-class"}))
    assert 400 <= caught.value.status_code < 500


def test_models_of_all_tiers_are_listed(client: openai.OpenAI):
    assert {"e2e", HUB_NAME, "light"} <= {m.id for m in client.models.list()}


def test_a_model_is_asked_for_by_the_name_that_hubs_give_it(client: openai.OpenAI):
    assert client.models.retrieve(HUB_NAME).id == HUB_NAME
    messages = [{"role": "user", "content": "hi"}]
    assert client.chat.completions.create(model=HUB_NAME, messages=messages, max_tokens=2).model == HUB_NAME


def test_status_answers_is_it_well(client: openai.OpenAI, service: LocalService, wait_until: Callable[..., None]):
    ask(client)
    wait_until(lambda: all(p["decision"] for p in service.status()["status"]["pools"]), "a decision of every policy")
    document = service.status()
    assert {p["pool"] for p in document["status"]["pools"]} == {"edge-default", "cloud-default", "device-default"}
    for pool in document["status"]["pools"]:
        assert {"lambda", "rho", "p_wait", "predicted_p95_s", "reason"} <= set(pool["decision"])


def command(*words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "-o", "json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_the_command_line_explains_shows_reports_and_checks_the_running_service(
    client: openai.OpenAI, service: LocalService, wait_until: Callable[..., None], tmp_path: Path
):
    ask(client)
    pools = {"edge-default", "cloud-default", "device-default"}
    wait_until(lambda: all(p["decision"] for p in service.status()["status"]["pools"]), "a decision of every policy")
    (explained,) = command("explain", "e2e")
    assert {pool["pool"]: pool["slots"] for pool in explained["pools"]} == dict.fromkeys(pools, 4) | {
        "device-default": 1
    }
    assert all(pool["required"] is not None and pool["reason"] for pool in explained["pools"])
    assert {f"{row['pool']}-default" for row in command("top") if row["service"] == "e2e"} == pools
    data = json.loads(Path(command("report", "e2e", "--for", "3", "--out", str(tmp_path))["data"]).read_text())
    assert {pool: len(points) >= 2 for pool, points in data["pools"].items()} == dict.fromkeys(pools, True)
    checks = {check["name"]: check["state"] for check in command("doctor")["checks"]}
    assert checks["service e2e"] == "ok"


def load(service: LocalService, connections: int, seconds: float) -> LoadResult:
    users = Traffic("users", ClosedLoop(connections), klass="chat")
    plan = LoadPlan(service.endpoint, connection_steps([connections], seconds, traffic=users), model="e2e")
    return asyncio.run(run_load(plan))


def test_load_overflows_from_edge_to_cloud_and_raises_replicas_and_quiet_lowers_them(
    client: openai.OpenAI, service: LocalService, pool_of: Callable[[str], dict], wait_until: Callable[..., None]
):
    results: list[LoadResult] = []

    def is_scaled() -> bool:
        results.append(load(service, connections=14, seconds=8))
        return bool(pool_of("cloud-default")["desired"] >= 3)

    wait_until(is_scaled, "three replicas of the cloud", 90)
    assert sum(result.total().errors for result in results) == 0
    assert {"edge-default", "cloud-default"} <= {pool for result in results for pool in result.samples.pools}
    wait_until(lambda: pool_of("cloud-default")["running"] == 1, "the cloud back at its floor", 150)


def test_an_edit_of_the_ceiling_is_followed_without_restarting_a_replica(
    client: openai.OpenAI,
    service: LocalService,
    service_file: Path,
    pool_of: Callable[[str], dict],
    wait_until: Callable[..., None],
):
    wait_until(lambda: len(replica_pids(service)) == 3, "the floor, and nothing that drains", 90)
    before = replica_pids(service)
    service_file.write_text(service_file.read_text().replace("max: 4}", "max: 5}"))
    wait_until(lambda: pool_of("cloud-default")["maxReplicas"] == 5, "the new ceiling", 20)
    wait_until(service.is_ready, "ready", 60)
    assert replica_pids(service) & before == before


def test_an_invalid_file_is_reported_and_the_last_valid_version_stays_in_effect(
    client: openai.OpenAI, service: LocalService, service_file: Path, wait_until: Callable[..., None]
):
    good = service_file.read_text()
    service_file.write_text(good.replace("target: 1500ms", "target: soon"))
    wait_until(lambda: "target" in service.status()["fileProblem"], "the mistake in the status", 20)
    assert ask(client).choices
    service_file.write_text(good)
    wait_until(lambda: not service.status()["fileProblem"], "the mistake gone", 20)


@pytest.mark.parametrize("part", ["gateway", "agent", "node-edge-default", "head"])
def test_a_killed_component_is_restarted(
    part: str, client: openai.OpenAI, service: LocalService, wait_until: Callable[..., None]
):
    before = service.state().processes[part]
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: service.state().processes.get(part, before) != before, f"a new {part}", 60)
    wait_until(service.is_ready, "ready again", 150)
    wait_until(lambda: answers(client), "an answer", 60)


def test_a_killed_supervisor_interrupts_no_request_and_up_adopts_the_service(
    client: openai.OpenAI, service: LocalService, service_file: Path
):
    gateway = service.state().processes["gateway"]
    os.kill(service.state().processes["supervisor"].pid, signal.SIGKILL)
    assert ask(client).choices
    assert not service.status()["supervised"]
    LocalService.up(service_file)
    assert service.status()["supervised"]
    assert service.state().processes["gateway"] == gateway


def test_a_second_service_runs_beside_the_first_and_leaves_nothing_when_it_goes(
    client: openai.OpenAI, service: LocalService, service_file: Path, tmp_path: Path
):
    text = service_file.read_text().replace("name: e2e", "name: second")
    tiers, rest = text.split("    - name: edge\n")
    cloud = rest[rest.index("    - name: cloud") : rest.index("    - name: device")]
    traffic = "  traffic:\n    - {name: chat, share: 1.0, privacy: public}\n"
    file = tmp_path / "second.yaml"
    file.write_text(tiers + cloud + traffic)
    with LocalService.up(file) as second:
        assert second.endpoint != service.endpoint
        other = openai.OpenAI(base_url=f"{second.endpoint}/v1", api_key="none")
        assert other.chat.completions.create(model="second", messages=[{"role": "user", "content": "hi"}]).choices
        assert known_services() == ["e2e", "second"]
    assert marked(second.paths.marker) == []
    assert not second.paths.root.exists()
    assert not second.paths.short.exists()
    assert ask(client).choices


def test_a_replica_killed_under_load_costs_no_more_than_what_it_held(
    client: openai.OpenAI, service: LocalService, wait_until: Callable[..., None]
):
    victims = list(replica_pids(service, "cloud-default"))
    assert victims, "the cloud has a replica"

    def kill() -> None:
        os.kill(victims[0], signal.SIGKILL)

    with ThreadPoolExecutor(1) as beside:
        beside.submit(lambda: (time.sleep(6), kill()))
        result = load(service, connections=8, seconds=24)
    samples = result.samples
    failed = samples.status[samples.status != 200]
    assert len(failed) <= 4, f"one replica of 4 slots held at most 4 requests, {len(failed)} failed: {failed}"
    first, last = samples.intended < samples.intended.min() + 6, samples.intended > samples.intended.max() - 6
    assert (samples.status[last] == 200).all()
    before, after = (np.quantile(samples.latency[part], 0.95) for part in (first, last))
    assert after < max(1.5, 2 * before), "p95 is within the target again, or as before where the machine is busy"
    wait_until(service.is_ready, "ready again", 60)


def answers(client: openai.OpenAI) -> bool:
    try:
        return bool(ask(client).choices)
    except openai.OpenAIError:
        return False


def replica_pids(service: LocalService, pool: str = "") -> set[int]:
    found = set()
    for process in marked(service.paths.marker):
        try:
            title = "".join(process.cmdline())
            if title.startswith(f"ray::ServeReplica:{pool}"):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_garbage_gets_openai_shaped_refusals(client: openai.OpenAI, service: LocalService):
    url = f"{service.endpoint}/v1/chat/completions"
    for body in (b"{", b"[]", b'{"model": 1}', b'{"model":"e2e","messages":[],"max_tokens":-1}', b"\xff\xfe"):
        answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=30)
        assert 400 <= answer.status_code < 500, (body, answer.text)
        assert answer.json()["error"]["message"]
