"""Progress of downloads between replicas and the published decisions, by the code of both."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tierserve_serving.policy_runtime.decisions import DecisionPublisher
from tierserve_serving.replica.download import DownloadReader, reporter
from tierserve_serving.sources import Progress


class Memory:
    """A store in this process, with the methods of Ray's."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def put(self, key: str, value: bytes) -> None:
        self.content[key] = value

    def delete(self, key: str) -> None:
        self.content.pop(key, None)

    def values(self, prefix: str) -> Mapping[str, bytes]:
        return {key: value for key, value in self.content.items() if key.startswith(prefix)}


def test_the_bytes_of_all_nodes_are_added_and_end_with_the_download() -> None:
    store = Memory()
    a, b, other = (reporter(pool, node, lambda: store) for pool, node in (("edge", "a"), ("edge", "b"), ("cloud", "a")))
    for report in (a, b, other):
        report(Progress("hf://org/model", 100, 1000))
    a(Progress("hf://org/model", 400, 1000))
    reader = DownloadReader(lambda: store, every_s=0.0)
    assert reader.latest("edge") == {"done_bytes": 500, "total_bytes": 2000, "nodes": 2, "shared": True}
    a(Progress("hf://org/model", 1000, 1000))
    assert reader.latest("edge") == {"done_bytes": 100, "total_bytes": 1000, "nodes": 1, "shared": True}
    b(Progress("hf://org/model", 1000, 1000))
    assert reader.latest("edge") is None


def test_a_download_into_the_cache_of_one_pod_is_not_shared() -> None:
    store = Memory()
    reporter("edge", "a", lambda: store, shared=False)(Progress("hf://org/model", 100, 1000))
    latest = DownloadReader(lambda: store, every_s=0.0).latest("edge")
    assert latest is not None
    assert latest["shared"] is False


def test_the_report_of_a_replica_that_ended_is_dropped_after_a_minute() -> None:
    store, now = Memory(), [0.0]
    reader = DownloadReader(lambda: store, lambda: now[0], every_s=0.0)
    reporter("edge", "a", lambda: store)(Progress("hf://org/model", 100, 1000))
    assert reader.latest("edge") is not None
    now[0] = 61.0
    assert reader.latest("edge") is None
    reporter("edge", "a", lambda: store)(Progress("hf://org/model", 200, 1000))
    assert reader.latest("edge") is not None, "another one continues it"


def test_a_download_does_not_fail_by_its_report() -> None:
    def broken() -> Memory:
        raise ConnectionError

    reporter("edge", "a", broken)(Progress("hf://org/model", 1, 2))
    assert DownloadReader(broken, every_s=0.0).latest("edge") is None


def test_the_published_decision_has_the_download_of_its_pool() -> None:
    store = Memory()
    publisher = DecisionPublisher("127.0.0.1:0")
    publisher._downloads = DownloadReader(lambda: store, every_s=0.0)
    publisher.put("edge", {"replicas": 1})
    reporter("edge", "a", lambda: store)(Progress("hf://org/model", 1, 2))
    decision = json.loads(publisher.body())["edge"]
    assert decision["download"] == {"done_bytes": 1, "total_bytes": 2, "nodes": 1, "shared": True}
    assert publisher.is_downloading("edge")
    assert not publisher.is_downloading("cloud")
