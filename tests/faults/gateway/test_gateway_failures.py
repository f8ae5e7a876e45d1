"""Failures of the gateway: processes die, reload, or get invalid input."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import sys

import aiohttp
import pytest

from tierserve.runtime.local.ports import free_port

pytestmark = pytest.mark.haproxy


async def test_reload_under_load_loses_no_request_and_the_limit_is_set_again(rig, poll):
    await rig.start((rig.pool("edge-a", 1, slots=8),))
    rig.decisions = {"edge-a": {"running": 2}}
    await rig.start_decisions()
    agent = await rig.start_agent()
    await poll(lambda: agent.states["edge-a"].max_in_flight == 16)
    rig.upstream.service_s = 0.02
    statuses: list[int] = []
    stop = asyncio.Event()

    async def client(keep_alive: bool) -> None:
        headers = {} if keep_alive else {"Connection": "close"}
        while not stop.is_set():
            statuses.append((await rig.post(headers=headers)).status)

    tasks = [asyncio.create_task(client(n % 2 == 0)) for n in range(12)]
    await poll(lambda: statuses)
    for bound in (700, 800):
        before = len(statuses)
        await asyncio.to_thread(rig.reload, dataclasses.replace(rig.spec, max_queue=bound))
        await poll(lambda before=before: len(statuses) > before + 100)
    await poll(lambda: agent.states.get("edge-a") and agent.states["edge-a"].max_in_flight == 16)
    await poll(lambda: len(statuses) > 200)
    stop.set()
    await asyncio.gather(*tasks)
    assert set(statuses) == {200}


async def test_a_reload_with_a_bad_file_changes_nothing(rig):
    await rig.start((rig.pool("edge-a", 1),))
    from tierserve_serving.gateway import haproxy as binary

    config = rig.folder / "haproxy.cfg"
    before = config.read_text()
    with pytest.raises(binary.GatewayError, match="nonsense"):
        binary.reload(rig.binary, config, before + "\n    nonsense here\n", rig.haproxy.pid)
    assert config.read_text() == before
    assert (await rig.post()).status == 200


async def test_the_agent_survives_a_restart_of_haproxy_and_continues_to_count(rig, poll):
    await rig.start((rig.pool("edge-a", 1, slots=3),))
    rig.decisions = {"edge-a": {"running": 2}}
    await rig.start_decisions()
    agent = await rig.start_agent()
    for n in range(5):
        await rig.post(n)
    await poll(lambda: agent.offered.totals["edge-a"] == 5)
    rig.stop_haproxy()
    await poll(lambda: not agent.states)
    rig.start_haproxy()
    await poll(lambda: agent.states and agent.states["edge-a"].max_in_flight == 6)
    await rig.post()
    await poll(lambda: agent.offered.totals["edge-a"] == 6)


async def test_haproxy_serves_without_the_agent(rig, poll):
    await rig.start((rig.pool("edge-a", 4),))
    await rig.start_agent()
    await rig.close_agent()
    assert [(await rig.post(n)).status for n in range(3)] == [200] * 3


async def test_a_forged_log_line_creates_no_series(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    agent = await rig.start_agent()
    host, port = rig.spec.log_address.split(":")
    raw = {"TR": 0, "Tw": 0, "Tc": 0, "Tr": 0, "Ta": 1, "bytes": 1, "end": "--", "retries": 0, "id": "i"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for n in range(20):
            names = {"pool": f"p{n}", "class": f"c{n}", "model": f"m{n}", "path": f"/{n}"}
            line = {**raw, **names, "code": 10_000 + n, "streamed": "-"}
            sock.sendto(json.dumps(line).encode(), (host, int(port)))
    await poll(lambda: agent.receiver.received == 20)
    text = agent.metrics.text().decode()
    assert 'tierserve_gateway_requests_total{class="-",code="0",pool="-",tier="-"} 20.0' in text
    names = 'gen_ai_operation_name="unknown",gen_ai_provider_name="tierserve",gen_ai_request_model="-"'
    of_all = f'{{error_type="",{names},pool="-",tier="-"}} 20.0'
    assert f"gen_ai_server_request_duration_seconds_count{of_all}" in text


async def test_malformed_log_lines_are_counted_and_never_fatal(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    agent = await rig.start_agent()
    host, port = rig.spec.log_address.split(":")
    lines = [b"", b"garbage", b"\xff\xfe\x00", b"[]", b"null", b'{"pool":1}', b'{"t":"1","pool":"edge-a"}', b"9" * 3000]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for line in lines:
            sock.sendto(line, (host, int(port)))
    await poll(lambda: agent.receiver.malformed == len(lines))
    await rig.post()
    await poll(lambda: agent.status()["pools"]["edge-a"]["count"] == 1)
    async with rig.client.get(rig.agent_url + "/metrics") as answer:
        assert f"malformed_log_lines_total {len(lines)}.0" in await answer.text()


@pytest.mark.parametrize("body", [[], None, {"edge-a": 3}, {"edge-a": {"running": "x"}}, {"edge-a": {"running": -1}}])
async def test_invalid_decisions_do_not_change_the_limit(rig, poll, body):
    await rig.start((rig.pool("edge-a", 7),))
    rig.decisions = body
    await rig.start_decisions()
    agent = await rig.start_agent()
    seen = agent.polled
    await poll(lambda: agent.polled > seen + 0.2)
    assert agent.states["edge-a"].max_in_flight == 7


async def test_the_agents_process_follows_its_file_and_ends_cleanly(rig, poll):
    await rig.start((rig.pool("edge-a", 1), rig.pool("cloud-a", 1)))
    whole = rig.agent_config()
    port = free_port()
    path = rig.folder / "agent.json"
    path.write_text(whole.model_copy(update={"port": port, "pools": whole.pools[:1]}).model_dump_json())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tierserve_serving.gateway.agent",
        "--config",
        str(path),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await _eventually(rig, url, {"edge-a"})
        path.write_text("{ not json")
        process.send_signal(signal.SIGHUP)
        await _eventually(rig, url, {"edge-a"})
        path.write_text(whole.model_copy(update={"port": port}).model_dump_json())
        process.send_signal(signal.SIGHUP)
        await _eventually(rig, url, {"edge-a", "cloud-a"})
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 5) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_an_invalid_configuration_ends_the_agent_with_an_error(rig):
    path = rig.folder / "agent.json"
    path.write_text('{"service": "a", "port": 70000}')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tierserve_serving.gateway.agent", "--config", str(path), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert b"port" in said
    assert b"Traceback" not in said


async def _eventually(rig, url, pools):
    for _ in range(1200):
        with contextlib.suppress(aiohttp.ClientError):
            _, body = await rig.get_json(url + "/status")
            if set(body["pools"]) == pools:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the agent does not show {pools}")
