"""Entry point of the HAProxy container, and the agent with a mounted file."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tierserve.render.haproxy.config import GatewayClass, GatewayPool, GatewaySpec, render_haproxy
from tierserve.render.haproxy.model import ANY_ADDRESS
from tierserve.runtime.local.ports import free_port
from tierserve_serving.gateway import entrypoint, haproxy

pytestmark = pytest.mark.haproxy


def until(true: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop the process and its children; some of them may be exiting already."""
    if process.poll() is None:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@dataclass
class Pod:
    config: Path
    spec: GatewaySpec
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.spec.port}"

    def models(self) -> list[str]:
        return [m["id"] for m in httpx.get(f"{self.url}/v1/models", trust_env=False).json()["data"]]

    def said(self) -> str:
        return self.log.read_text()


def certificate(path: Path, name: str) -> None:
    """A self-signed certificate for 127.0.0.1 in PATH, its key beside it as a pod has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
    )
    signed = builder.sign(key, hashes.SHA256())
    private = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    path.with_name(path.name + ".key").write_bytes(pem)
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def served_name(port: int) -> str:
    """Common name of the certificate of the server on a port; empty if there is no response."""
    try:
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=2)
    except OSError:
        return ""
    name = x509.load_pem_x509_certificate(pem.encode()).subject
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize(
    ("policy", "host", "code", "location"),
    [
        ("redirect", "chat.example", 308, "https://chat.example/v1/completions?a=b"),
        ("redirect", "chat.example:8080", 308, "https://chat.example/v1/completions?a=b"),
        ("redirect", "[::1]:8080", 308, "https://[::1]/v1/completions?a=b"),
        ("refuse", "chat.example", 403, None),
    ],
)
def test_beside_tls_plain_http_is_redirected_or_refused(
    tmp_path: Path, policy: str, host: str, code: int, location: str | None
) -> None:
    pem, config = tmp_path / "tls.pem", tmp_path / "haproxy.cfg"
    certificate(pem, "first")
    pool = GatewayPool("edge-default", "edge", "127.0.0.1", free_port(), models=("mid",))
    spec = GatewaySpec(
        service="assistant", port=free_port(), pools=(pool,), classes=(GatewayClass("chat", ("edge",)),),
        default_class="chat", admin_socket=str(tmp_path / "admin.sock"), tls_certificate=str(pem),
        plain_port=free_port(), plain_http=policy,
    )  # fmt: skip
    config.write_text(render_haproxy(spec))
    command = [
        sys.executable,
        "-m",
        "tierserve_serving.gateway.entrypoint",
        "--config",
        str(config),
        "--run",
        str(tmp_path),
    ]
    process = subprocess.Popen([*command, "--linger", "0"])
    try:
        until(lambda: served_name(spec.port) == "first", "the gateway serves TLS")
        url = f"http://127.0.0.1:{spec.plain_port}/v1/completions?a=b"
        reply = httpx.post(url, headers={"Host": host}, json={}, trust_env=False)
        assert (reply.status_code, reply.headers.get("location")) == (code, location)
        if code == 403:
            assert reply.json()["error"]["code"] == "https_required"
    finally:
        end(process)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_gateway_and_its_agent_listen_on_ipv4_and_ipv6(tmp_path: Path) -> None:
    pool = GatewayPool("edge-default", "edge", "::1", free_port(), models=("mid",))
    spec = GatewaySpec(
        service="assistant", port=free_port(), pools=(pool,), classes=(GatewayClass("chat", ("edge",)),),
        default_class="chat", admin_socket=str(tmp_path / "admin.sock"), bind=ANY_ADDRESS,
    )  # fmt: skip
    config, agent = tmp_path / "haproxy.cfg", tmp_path / "agent.json"
    config.write_text(render_haproxy(spec))
    agent_port = free_port()
    own = {"service": "assistant", "listen": "", "port": agent_port, "admin_socket": spec.admin_socket}
    pools, classes = [{"name": "edge-default", "tier": "edge"}], [{"name": "chat", "tiers": ["edge"]}]
    agent.write_text(json.dumps({**own, "pools": pools, "classes": classes}))
    module = [sys.executable, "-m", "tierserve_serving.gateway"]
    processes = [
        subprocess.Popen([*module[:-1], f"{module[-1]}.{name}", "--config", str(file), *more])
        for name, file, more in (
            ("entrypoint", config, ("--run", str(tmp_path), "--linger", "0")),
            ("agent", agent, ()),
        )
    ]
    try:
        for port in (spec.port, agent_port):
            for host in ("127.0.0.1", "[::1]"):
                until(lambda url=f"http://{host}:{port}": answers(url), f"{host}:{port}")  # type: ignore[misc]
    finally:
        for process in processes:
            end(process)


def test_a_new_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    run, pem, config = tmp_path / "run", tmp_path / "tls.pem", tmp_path / "haproxy.cfg"
    run.mkdir()
    certificate(pem, "first")
    pool = GatewayPool("edge-default", "edge", "127.0.0.1", free_port(), models=("mid",))
    spec = GatewaySpec(
        service="assistant", port=free_port(), pools=(pool,), classes=(GatewayClass("chat", ("edge",)),),
        default_class="chat", admin_socket=str(run / "admin.sock"), tls_certificate=str(pem),
    )  # fmt: skip
    config.write_text(render_haproxy(spec))
    command = [sys.executable, "-m", "tierserve_serving.gateway.entrypoint", "--config", str(config), "--run", str(run)]
    process = subprocess.Popen([*command, "--linger", "0", "--follow", str(pem)])
    try:
        until(lambda: served_name(spec.port) == "first", "the gateway speaks TLS")
        certificate(pem, "second")
        until(lambda: served_name(spec.port) == "second", "the new certificate")
        assert process.poll() is None
    finally:
        end(process)


def test_a_failed_reload_is_tried_again(tmp_path: Path) -> None:
    """A certificate was mounted before its key: the reload failed and was not retried."""
    run, pem, config = tmp_path / "run", tmp_path / "tls.pem", tmp_path / "haproxy.cfg"
    run.mkdir()
    certificate(pem, "first")
    pool = GatewayPool("edge-default", "edge", "127.0.0.1", free_port(), models=("mid",))
    spec = GatewaySpec(
        service="assistant", port=free_port(), pools=(pool,), classes=(GatewayClass("chat", ("edge",)),),
        default_class="chat", admin_socket=str(run / "admin.sock"), tls_certificate=str(pem),
    )  # fmt: skip
    config.write_text(render_haproxy(spec))
    command = [sys.executable, "-m", "tierserve_serving.gateway.entrypoint", "--config", str(config), "--run", str(run)]
    with (tmp_path / "log").open("wb") as sink:
        process = subprocess.Popen([*command, "--linger", "0", "--follow", str(pem)], stderr=sink, stdout=sink)
    try:
        until(lambda: served_name(spec.port) == "first", "the gateway speaks TLS")
        key, old = pem.with_name(pem.name + ".key"), pem.with_name(pem.name + ".key").read_bytes()
        second = tmp_path / "second.pem"
        certificate(second, "second")
        pem.write_bytes(second.read_bytes())
        until(lambda: "reload failed" in (tmp_path / "log").read_text(), "the key of another certificate")
        assert served_name(spec.port) == "first"
        assert key.read_bytes() == old
        key.write_bytes(second.with_name(second.name + ".key").read_bytes())
        until(lambda: served_name(spec.port) == "second", "the new certificate")
    finally:
        end(process)


def test_a_check_that_ends_too_late_leaves_the_gateway_and_is_tried_again(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node short of CPU `haproxy -c` exceeded its timeout, and the container exited."""
    run = tmp_path / "second"
    run.mkdir()
    config = tmp_path / "second.cfg"
    spec = replace(pod.spec, port=free_port(), admin_socket=str(run / "admin.sock"), server_state_file=None)
    config.write_text(render_haproxy(spec))
    gateway = entrypoint.GatewayProcess(config, run)
    second = Pod(config, spec, pod.log, gateway.process)
    try:
        until(lambda: answers(second.url), "the gateway answers")
        config.write_text(render_haproxy(replace(spec, pools=(replace(spec.pools[0], models=("mid", "tiny")),))))
        with monkeypatch.context() as slow:
            slow.setattr(haproxy, "CHECK_TIMEOUT_S", 0.0)
            gateway.reload_if_changed()
        assert gateway.process.poll() is None
        assert second.models() == ["assistant", "mid"]
        gateway.retry_at = 0.0
        gateway.reload_if_changed()
        until(lambda: second.models() == ["assistant", "mid", "tiny"], "the new file")
    finally:
        end(gateway.process)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of a short name: the path of a Unix socket has 97 characters at most."""
    with tempfile.TemporaryDirectory(prefix="ts-pod-") as folder:
        yield Path(folder)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    run = tmp_path / "run"
    run.mkdir()
    pool = GatewayPool("edge-default", "edge", "127.0.0.1", free_port(), models=("mid",))
    spec = GatewaySpec(
        service="assistant", port=free_port(), pools=(pool,), classes=(GatewayClass("chat", ("edge",)),),
        default_class="chat", admin_socket=str(run / "admin.sock"), drain_timeout_s=20.0,
        server_state_file=str(run / "servers.state"),
    )  # fmt: skip
    config, log = tmp_path / "haproxy.cfg", tmp_path / "log"
    config.write_text(render_haproxy(spec))
    command = [sys.executable, "-m", "tierserve_serving.gateway.entrypoint", "--config", str(config), "--run", str(run)]
    with log.open("wb") as sink:
        process = subprocess.Popen([*command, "--linger", "1"], stdout=sink, stderr=subprocess.STDOUT)
    found = Pod(config, spec, log, process)
    until(lambda: answers(found.url), "the gateway answers")
    yield found
    end(process)


@pytest.mark.parametrize("seen", ["nothing", "configuration", "pid"])
def test_sigterm_at_any_moment_of_the_start_ends_it_and_leaves_no_haproxy(tmp_path: Path, seen: str) -> None:
    config, run = tmp_path / "haproxy.cfg", tmp_path / "run"
    run.mkdir()
    pool = GatewayPool("edge-default", "edge", "127.0.0.1", free_port(), models=("mid",))
    spec = GatewaySpec(
        service="assistant", port=free_port(), pools=(pool,), classes=(GatewayClass("chat", ("edge",)),),
        default_class="chat", admin_socket=str(run / "admin.sock"),
    )  # fmt: skip
    config.write_text(render_haproxy(spec))
    reached = {
        "nothing": lambda: True,
        "configuration": (run / "haproxy.cfg").exists,
        "pid": (run / "haproxy.pid").exists,
    }
    command = [sys.executable, "-m", "tierserve_serving.gateway.entrypoint", "--config", str(config), "--run", str(run)]
    process = subprocess.Popen([*command, "--linger", "0"])
    try:
        until(reached[seen], seen)
        process.terminate()
        process.wait(60)
        own = str(run)
        until(
            lambda: not [p for p in psutil.process_iter(["cmdline"]) if own in " ".join(p.info["cmdline"] or ())],
            "gone",
        )
    finally:
        end(process)


def test_a_changed_file_is_followed_and_a_bad_one_left_alone(pod: Pod) -> None:
    assert pod.models() == ["assistant", "mid"]
    pod.config.write_text("this is not HAProxy's language\n")
    until(lambda: "reload failed" in pod.said(), "the bad file is reported")
    assert pod.models() == ["assistant", "mid"]
    pools = (replace(pod.spec.pools[0], models=("mid", "tiny")),)
    pod.config.write_text(render_haproxy(replace(pod.spec, pools=pools)))
    until(lambda: pod.models() == ["assistant", "mid", "tiny"], "the good file is taken")


def admin(pod: Pod, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(pod.spec.admin_socket)
        sock.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def worker(pod: Pod) -> str:
    return admin(pod, "show info").partition("\nPid: ")[2].partition("\n")[0]


def test_a_reload_takes_no_pool_for_up_that_is_down_or_drained(pod: Pod) -> None:
    """A request between the reload and the agent's next poll was sent to a tier without a replica."""
    edge = pod.spec.pools[0]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pools = (edge, replace(edge, name="cloud-default", tier="cloud", port=silent.getsockname()[1]))
        pod.config.write_text(render_haproxy(replace(pod.spec, pools=pools)))
        until(lambda: "pool_cloud-default" in admin(pod, "show stat"), "the second pool")
        admin(pod, "set server pool_cloud-default/s state drain")

        def states() -> dict[str, str]:
            rows = [line.split(",") for line in admin(pod, "show stat -1 4 -1").splitlines()]
            return {row[0]: row[17] for row in rows if row[0].startswith("pool_")}

        until(lambda: states()["pool_edge-default"] == "DOWN", "no server listens on the port of the edge")
        before = worker(pod)
        pod.config.write_text(render_haproxy(replace(pod.spec, pools=pools, max_queue=7)))
        until(lambda: worker(pod) != before, "the reload")
        found = states()
        assert found["pool_edge-default"] == "DOWN"
        assert found["pool_cloud-default"].startswith("DRAIN")


def test_at_its_end_it_lingers_and_then_goes(pod: Pod) -> None:
    pod.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    time.sleep(0.3)
    assert answers(pod.url), "connections that still come are served"
    assert pod.process.wait(15) == 0
    assert time.monotonic() - began >= 1.0


def test_a_gateway_that_dies_ends_its_container(pod: Pod) -> None:
    master = int((pod.config.parent / "run" / "haproxy.pid").read_text())
    workers = psutil.Process(master).children()
    os.kill(master, signal.SIGKILL)
    assert pod.process.wait(15) != 0
    for worker in workers:  # a container would take them along
        worker.kill()


def test_without_a_file_it_says_so(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tierserve_serving.gateway.entrypoint",
        "--config",
        str(tmp_path / "none"),
        "--run",
        ".",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "none" in done.stderr


async def test_the_agent_follows_its_file_without_a_signal(tmp_path: Path) -> None:
    config = {
        "service": "assistant", "port": free_port(), "admin_socket": str(tmp_path / "none.sock"),
        "classes": [{"name": "chat", "tiers": ["edge"]}], "pools": [{"name": "edge-default", "tier": "edge"}],
    }  # fmt: skip
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "tierserve_serving.gateway.agent", "--config", str(path), "--watch"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    url = f"http://127.0.0.1:{config['port']}"
    try:
        await asyncio.to_thread(until, lambda: answers(url), "the agent answers")
        config["pools"] = [{"name": "cloud-default", "tier": "cloud"}]
        config["classes"] = [{"name": "chat", "tiers": ["cloud"]}]
        path.write_text(json.dumps(config))

        def pools() -> list[str]:
            return list(httpx.get(f"{url}/status", trust_env=False).json()["pools"])

        await asyncio.to_thread(until, lambda: pools() == ["cloud-default"], "the new pools")
    finally:
        process.terminate()
        await process.wait()
