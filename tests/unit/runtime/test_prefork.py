"""A Ray worker of the local runtime is a fork that behaves as if Ray had started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tierserve.runtime.local.prefork import LIBRARIES
from tierserve.runtime.local.processes import end_marked, start
from tierserve.runtime.local.ray_cluster import PREFORK_HOOK

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SCRIPT = """
import json, os, sys, time
told = {"pid": os.getpid(), "group": os.getpgrp(), "argv": sys.argv, "cwd": os.getcwd(), "colour": os.environ["COLOUR"],
        "preloaded": "scipy" in sys.modules, "marker": os.environ.get("TIERSERVE_INSTANCE")}
print(json.dumps(told), flush=True)
print("to stderr", file=sys.stderr, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A script where Ray keeps its worker's, as far as the hook can see."""
    script = tmp_path / "ray" / "_private" / "workers" / "default_worker.py"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT)
    return script


@pytest.fixture(scope="module")
def prefork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("prefork")
    address, marker = folder / "p.sock", f"prefork-{os.getpid()}"
    command = [sys.executable, "-m", "tierserve.runtime.local.prefork", str(address)]
    start(command, log=folder / "log", marker=marker, env=ONE_THREAD)
    deadline = time.monotonic() + 60
    while not address.exists():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
    yield address
    end_marked(marker, grace_s=0.2)


@pytest.fixture
def run(worker: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def started(socket: Path, *arguments: str, path: str = "") -> subprocess.Popen[str]:
        search = os.pathsep.join([str(PREFORK_HOOK), *filter(None, [path])])
        env = {**os.environ, "PYTHONPATH": search, "TIERSERVE_PREFORK": str(socket), "COLOUR": "blue"}
        command = [sys.executable, str(worker), *arguments]
        return subprocess.Popen(
            command, env=env, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return started


def test_nothing_of_ray_and_no_second_thread_is_there_before_the_fork():
    code = (
        "import json, os, sys; from tierserve.runtime.local.prefork import preload; preload(); "
        "print(json.dumps([[m for m in sys.modules if m.split('.')[0] == 'ray'], len(os.listdir('/proc/self/task')), "
        "[n for n in sys.argv[1:] if n not in sys.modules]]))"
    )
    command = [sys.executable, "-c", code, *LIBRARIES]
    told = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=True)
    ray, threads, missing = json.loads(told.stdout)
    assert (ray, threads) == ([], 1)
    assert not missing, "these cannot be imported: fix or drop them"


def test_a_fork_has_the_arguments_environment_folder_and_streams_of_the_process_it_stands_for(prefork, run, worker):
    process = run(prefork, "0", "--name=a b")
    out, err = process.communicate(timeout=30)
    told = json.loads(out)
    assert told["argv"] == [str(worker), "0", "--name=a b"]
    assert (told["cwd"], told["colour"], told["preloaded"]) == (str(worker.parents[3]), "blue", True)
    assert err == "to stderr\n"
    assert told["pid"] != process.pid
    assert told["group"] == told["pid"], "Ray ends the group of a worker: it must hold no other"


def test_the_process_that_ray_started_ends_with_the_fork_and_passes_signals_on(prefork, run):
    process = run(prefork, "60")
    fork = psutil.Process(json.loads(process.stdout.readline())["pid"])
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    psutil.wait_procs([fork], timeout=10)  # its end closes what is waited for, before it is over
    assert not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE


def test_a_signal_that_comes_before_the_fork_is_known_reaches_it_all_the_same(run, tmp_path):
    import socket

    path, fork = tmp_path / "slow.sock", subprocess.Popen(["sleep", "60"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        process = run(path, "60")
        connection, _ = server.accept()
        with connection:
            connection.recv(4)  # it has asked, and waits for the number
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            connection.sendall(fork.pid.to_bytes(4, "big"))
            assert fork.wait(timeout=10) == -signal.SIGTERM
        assert process.wait(timeout=10) == 0


def test_a_fork_that_is_killed_takes_the_process_that_ray_started_with_it(prefork, run):
    process = run(prefork, "60")
    psutil.Process(json.loads(process.stdout.readline())["pid"]).kill()
    assert process.wait(timeout=10) == 0


def test_without_a_prefork_server_the_worker_starts_by_itself(run, tmp_path):
    process = run(tmp_path / "absent.sock", "0")
    told = json.loads(process.communicate(timeout=30)[0])
    assert told["pid"] == process.pid
    assert not told["preloaded"]


def test_invalid_requests_at_the_socket_are_ignored(prefork, run):
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(prefork))
        connection.sendall(b"\x00\x00\x00\x02{]")
    assert json.loads(run(prefork, "0").communicate(timeout=30)[0])["preloaded"]


def test_a_sitecustomize_of_the_users_own_still_runs(prefork, run, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import os; os.environ['COLOUR'] = 'red'")
    process = run(tmp_path / "absent.sock", "0", path=str(own))
    assert json.loads(process.communicate(timeout=30)[0])["colour"] == "red"
