"""Reads a pool's demand from its gateway in the background, so that the Serve controller never waits for a socket."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import urllib.parse
import urllib.request
from typing import Any

from tierserve.autoscale.types import COUNTERS, GatewaySample

logger = logging.getLogger("ray.serve")
_UNUSED_S = 30.0  # without a call of `latest` the thread ends
_pollers: dict[str, DemandPoller] = {}
_lock = threading.Lock()
# The gateway is a component of the same service: HTTP_PROXY of the pod (or of a laptop) is not for it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemandPoller:
    """Polls `GET url` for a `GatewaySample` while `latest` is called.

    A name with several addresses stands for several gateways (a headless Service): each is polled, and the sample is
    their sum. The thread ends after half a minute without a call, so a policy that Ray Serve drops leaves no thread.
    """

    def __init__(self, url: str, interval_s: float = 0.25, timeout_s: float = 1.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"demand_url must begin with http:// or https://, got {url!r}")
        self.url, self.interval_s, self.timeout_s = url, interval_s, timeout_s
        self.requests: dict[str, float] = {}  # by gateway, when the last sample was read
        self._sample: GatewaySample | None = None
        self._counts: dict[tuple[str, str], float] = {}
        self._sums = dict.fromkeys(COUNTERS, 0.0)
        self._asked = 0.0
        self._thread: threading.Thread | None = None
        self._failed = False

    def latest(self) -> GatewaySample | None:
        """Return the last sample that was read, `t` being the time of reading here; None before the first."""
        self._asked = time.monotonic()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._poll, name="tierserve-demand", daemon=True)
            self._thread.start()
        return self._sample

    def _poll(self) -> None:
        while time.monotonic() - self._asked < _UNUSED_S:
            try:
                self._sample = self._read()
                self._failed = False
            except (OSError, ValueError, KeyError, TypeError) as error:
                if not self._failed:
                    logger.warning("tierserve: no demand from %s: %s", self.url, error)
                self._failed = True
            time.sleep(self.interval_s)

    def _read(self) -> GatewaySample:
        answers = {url: self._ask(url) for url in addresses(self.url)}
        samples = {url: GatewaySample.from_json(body) for url, body in answers.items()}
        for url, sample in samples.items():
            for name in COUNTERS:
                self._add(name, url, getattr(sample, name))
        self.requests = {
            str(body.get("gateway", url)): samples[url].queued + samples[url].in_flight for url, body in answers.items()
        }
        queued = sum(sample.queued for sample in samples.values())
        in_flight = sum(sample.in_flight for sample in samples.values())
        return GatewaySample(t=time.time(), queued=queued, in_flight=in_flight, **self._sums)

    def _add(self, name: str, url: str, count: float) -> None:
        # A new or restarted gateway counts from 0: a sum of counters would jump, a sum of increments does not.
        before = self._counts.get((name, url), 0.0)
        self._sums[name] += count - before if count >= before else count
        self._counts[name, url] = count  # kept when its address is gone for a while

    def _ask(self, url: str) -> dict[str, Any]:
        with _opener.open(url, timeout=self.timeout_s) as answer:
            body: dict[str, Any] = json.loads(answer.read(65536))
            return body


def addresses(url: str) -> list[str]:
    """Return the URL once for each address of its host; as it is for https, which must keep the name.

    The addresses are of one family: a host that has one of each would be counted twice.

    Raises:
        OSError: the name is not known.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        return [url]
    port = parts.port or 80
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    hosts = {str(info[4][0]) for info in found if info[0] == found[0][0]}
    return sorted(parts._replace(netloc=f"[{h}]:{port}" if ":" in h else f"{h}:{port}").geturl() for h in hosts)


def poller(url: str) -> DemandPoller:
    """Return the poller of a URL, one per process."""
    with _lock:
        return _pollers.setdefault(url, DemandPoller(url))
