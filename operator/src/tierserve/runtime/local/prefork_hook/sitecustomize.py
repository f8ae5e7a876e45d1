"""Python start-up hook in the Ray processes of a local service: starts a Ray worker as a fork of `prefork`.

Python imports this module at start-up (its folder is in PYTHONPATH). In a process that is to become a Ray worker it
requests a fork, and remains as the process that Ray started: it forwards signals and ends when the fork does. In any
other process, and if the socket does not answer, it does nothing.
"""

import importlib
import os
import sys

SOCKET = "TIERSERVE_PREFORK"
WORKER = os.path.join("ray", "_private", "workers", "default_worker.py")


def hand_over(path: str, argv: list[str]) -> None:
    """Request a fork that runs `argv`; returns only if there is none."""
    import json
    import signal
    import socket

    forks: list[int] = []
    early: list[int] = []

    def pass_signal(got: int, _frame: object) -> None:
        """Forward to the fork, or later if its pid is not known yet: else the fork would continue alone."""
        if forks:
            os.kill(forks[0], got)
        else:
            early.append(got)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, pass_signal) for number in numbers]
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        request = json.dumps({"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        fork = int.from_bytes(connection.recv(4), "big")
    except OSError:
        fork = 0
    if not fork:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    else:
        forks.append(fork)
    for got in early:
        os.kill(fork or os.getpid(), got)
    if not fork:
        return
    try:
        while connection.recv(1):
            pass
    except OSError:
        pass
    os._exit(0)


def pass_on() -> None:
    """Import the sitecustomize module that this one shadows, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    del sys.modules["sitecustomize"]
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        sys.modules["sitecustomize"] = _this


_this = sys.modules[__name__]
if __name__ == "sitecustomize":
    if SOCKET in os.environ and len(sys.orig_argv) > 1 and sys.orig_argv[1].endswith(WORKER):
        hand_over(os.environ[SOCKET], sys.orig_argv[1:])
    pass_on()
