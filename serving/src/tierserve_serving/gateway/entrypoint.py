"""Entry point of the HAProxy container: starts HAProxy from a mounted file and reloads it when the file changes.

    python -m tierserve_serving.gateway.entrypoint --config /etc/tierserve/haproxy.cfg --run /run/tierserve

`--follow` names a file that the configuration refers to, such as a certificate. A changed file is checked first; if the
check fails, the running gateway keeps its configuration and the reload is retried with backoff, since the cause may be
temporary (a slow node, a certificate whose key is not there yet). At SIGTERM it accepts connections for `--linger`
seconds more, until the cluster sends no new ones, and then finishes the streams in progress.
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
_SIGNAL_AGAIN_S = 1.0


class GatewayProcess:
    """HAProxy's master process in the gateway pod."""

    def __init__(
        self, config: Path, run: Path, follow: Sequence[Path] = (), stopping: threading.Event | None = None
    ) -> None:
        self.config, self.own, self.follow = config, run / "haproxy.cfg", tuple(follow)
        self.haproxy = binary.find_haproxy()
        self.applied = self._read()
        self.failed: tuple[str, list[bytes]] | None = None
        self.retry_at, self.backoff_s = 0.0, _WATCH_EVERY_S
        self.stopping = stopping or threading.Event()
        binary.write_config(self.own, self.applied[0])
        # No check before the start: HAProxy checks the file itself, and exits with its alerts.
        self.process = subprocess.Popen(binary.start_command(self.haproxy, self.own, run / "haproxy.pid"))

    def run(self, linger_s: float) -> int:
        """Watches the file until `stopping` is set or HAProxy exits; returns HAProxy's exit status."""
        while self.process.poll() is None and not self.stopping.wait(_WATCH_EVERY_S):
            self.reload_if_changed()
        if self.process.poll() is None:
            log.info("stopping: new connections are accepted for %g s more, then streams are finished", linger_s)
            self._exits_within(linger_s)
            self.process.send_signal(signal.SIGUSR1)
            # HAProxy 2.8's master, which executes itself again once its worker runs, loses a signal of that moment.
            while not self._exits_within(_SIGNAL_AGAIN_S):
                self.process.send_signal(signal.SIGUSR1)
        return self.process.wait()

    def _exits_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read(self) -> tuple[str, list[bytes]]:
        return self.config.read_text(), [path.read_bytes() for path in self.follow]

    def reload_if_changed(self) -> None:
        """Reloads HAProxy if one of the files has changed."""
        try:
            content = self._read()
        except OSError as error:
            log.warning("%s; the running gateway keeps its configuration", error)
            return
        if content == self.applied or (content == self.failed and time.monotonic() < self.retry_at):
            return
        try:
            binary.reload(self.haproxy, self.own, content[0], self.process.pid)
        except (OSError, binary.GatewayError) as error:
            self._retry_later(content)
            log.error("reload failed: %s; retry in %g s", error, self.backoff_s)
        else:
            self.applied, self.failed = content, None
            log.info("reloaded")

    def _retry_later(self, content: tuple[str, list[bytes]]) -> None:
        again = content == self.failed
        self.backoff_s = min(2 * self.backoff_s, _LONGEST_BACKOFF_S) if again else _WATCH_EVERY_S
        self.failed, self.retry_at = content, time.monotonic() + self.backoff_s


def main() -> int:
    """Entry point of ``python -m tierserve_serving.gateway.entrypoint``."""
    parser = argparse.ArgumentParser(description="Runs a TierServe gateway and reloads it when its file changes.")
    parser.add_argument(
        "--config", type=Path, required=True, help="HAProxy configuration file, rendered by the operator"
    )
    parser.add_argument("--run", type=Path, required=True, help="writable folder for the working copy and the pid file")
    parser.add_argument("--follow", type=Path, action="append", default=[], help="further file whose change reloads")
    parser.add_argument("--linger", type=float, default=5.0, help="seconds to accept new connections after SIGTERM [5]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if socket.has_dualstack_ipv6():  # the file has this variable where HAProxy listens
        os.environ.setdefault("TIERSERVE_BIND_ADDRESS", "[::]")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # before HAProxy starts, which would outlive this process otherwise
        signal.signal(number, lambda *_: stopping.set())
    try:
        gateway = GatewayProcess(arguments.config, arguments.run, arguments.follow, stopping)
    except (OSError, binary.GatewayError) as error:
        parser.exit(2, f"gateway: {error}\n")
    return gateway.run(arguments.linger)


if __name__ == "__main__":
    raise SystemExit(main())
