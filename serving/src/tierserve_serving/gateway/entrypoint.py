"""HAProxy as the main process of a container: started from a mounted file, reloaded when the file changes.

    python -m tierserve_serving.gateway.entrypoint --config /etc/tierserve/haproxy.cfg --run /run/tierserve

`--follow` names a file that HAProxy's own refers to, a certificate say. A changed file is checked first: where that
fails the running gateway is left as it is, and the reload is tried again, for the cause may pass (a slow node, a
certificate without its key yet). At SIGTERM it goes on for `--linger` seconds, until
the cluster sends no new connections, and then finishes the streams under way.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tierserve_serving.gateway import haproxy as binary

log = logging.getLogger("tierserve.gateway")
_WATCH_EVERY_S = 1.0
_LONGEST_BACKOFF_S = 60.0


class GatewayProcess:
    """The HAProxy of one pod."""

    def __init__(self, config: Path, run: Path, follow: Sequence[Path] = ()) -> None:
        self.config, self.own, self.follow = config, run / "haproxy.cfg", tuple(follow)
        self.haproxy = binary.find_haproxy()
        self.applied = self._read()
        self.failed: tuple[str, list[bytes]] | None = None
        self.retry_at, self.backoff_s = 0.0, _WATCH_EVERY_S
        self.stopping = threading.Event()
        binary.write_config(self.own, self.applied[0])
        # Not checked before: HAProxy does so itself when it starts, and ends with its reasons.
        self.process = subprocess.Popen(binary.start_command(self.haproxy, self.own, run / "haproxy.pid"))

    def run(self, linger_s: float) -> int:
        """Watch the file until told to stop or HAProxy ends; returns its exit status."""
        while self.process.poll() is None and not self.stopping.wait(_WATCH_EVERY_S):
            self.look()
        if self.process.poll() is None:
            log.info("stopping: new connections for %g s more, then only those under way", linger_s)
            self._linger(linger_s)
            self.process.send_signal(signal.SIGUSR1)
        return self.process.wait()

    def _linger(self, linger_s: float) -> None:
        try:
            self.process.wait(linger_s)
        except subprocess.TimeoutExpired:
            return

    def _read(self) -> tuple[str, list[bytes]]:
        return self.config.read_text(), [path.read_bytes() for path in self.follow]

    def look(self) -> None:
        """Reload if the file has changed."""
        try:
            content = self._read()
        except OSError as error:
            log.warning("%s; the running gateway is left as it is", error)
            return
        if content == self.applied or (content == self.failed and time.monotonic() < self.retry_at):
            return
        try:
            binary.reload(self.haproxy, self.own, content[0], self.process.pid)
        except (OSError, binary.GatewayError) as error:
            self._retry_later(content)
            log.error("reload failed: %s; next try in %g s", error, self.backoff_s)
        else:
            self.applied, self.failed = content, None
            log.info("reloaded")

    def _retry_later(self, content: tuple[str, list[bytes]]) -> None:
        again = content == self.failed
        self.backoff_s = min(2 * self.backoff_s, _LONGEST_BACKOFF_S) if again else _WATCH_EVERY_S
        self.failed, self.retry_at = content, time.monotonic() + self.backoff_s


def main() -> int:
    """Entry of ``python -m tierserve_serving.gateway.entrypoint``."""
    parser = argparse.ArgumentParser(description="Runs a TierServe gateway and follows its file.")
    parser.add_argument("--config", type=Path, required=True, help="HAProxy's file, as rendered by the operator")
    parser.add_argument("--run", type=Path, required=True, help="a folder to write to: working copy and pid file")
    parser.add_argument("--follow", type=Path, action="append", default=[], help="a file to reload for when it changes")
    parser.add_argument("--linger", type=float, default=5.0, help="seconds of new connections after SIGTERM [5]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if socket.has_dualstack_ipv6():  # the file has this variable where HAProxy listens
        os.environ.setdefault("TIERSERVE_BIND_ADDRESS", "[::]")
    try:
        gateway = GatewayProcess(arguments.config, arguments.run, arguments.follow)
    except (OSError, binary.GatewayError) as error:
        parser.exit(2, f"gateway: {error}\n")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: gateway.stopping.set())
    return gateway.run(arguments.linger)


if __name__ == "__main__":
    raise SystemExit(main())
