"""`tierserve console`: no address that others can reach without consent, and errors that name the option."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "tierserve.cli.main", "console"]


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TIERSERVE_STATE": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--host", "::"], "--allow-remote"),
        (["--host", "*"], "--allow-remote"),
        (["--host", "no-such-host.invalid"], "--host"),
        (["--namespace", "a"], "--kubernetes"),
        (["--context", "a"], "--kubernetes"),
        (["--port", "0"], "--port"),
    ],
)
def test_wrong_usage_is_named_with_a_hint(tmp_path, arguments, named):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_access_to_a_cluster_or_with_a_port_in_use_it_ends_with_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(tmp_path, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "--port" in done.stderr
    done = run(tmp_path, "--kubernetes")
    assert done.returncode == 1
    assert "cluster" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("remote", [[], ["--host=*", "--allow-remote"]])
def test_it_serves_the_page_until_it_is_ended(tmp_path, remote):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "TIERSERVE_STATE": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*COMMAND, "--port", str(port), *remote], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert f":{port}/" in process.stdout.readline(), "printed once it listens"
        with httpx.Client(trust_env=False, timeout=30) as client:
            assert "<title>" in client.get(f"http://127.0.0.1:{port}/").text
            assert client.get(f"http://127.0.0.1:{port}/api/services").json()["services"] == []
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
