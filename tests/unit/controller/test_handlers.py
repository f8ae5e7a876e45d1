"""Kopf's handlers: one event loop, and no reconcile for the operator's own writes."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import kopf
import pytest
from kopf._core.actions import invocation

from tierserve.controller import handlers
from tierserve.controller.workqueue import WorkQueue

HANDLERS = (handlers.start, handlers.stop, handlers.services, handlers.ray_services, handlers.gateways,
            handlers.service_changed, handlers.child_changed, handlers.probe)  # fmt: skip


class Queue(handlers.Operator):
    """The operator's queue without its connections."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue
        self._identities = {}


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
def test_every_handler_runs_in_the_event_loop(handler):
    assert inspect.iscoroutinefunction(handler), "Kopf runs plain functions in threads"


async def test_a_storm_of_events_does_not_break_the_queue():
    """As Kopf invokes handlers: 5,000 events on 500 resources while the queue is worked through."""
    done: set[tuple[str, str]] = set()

    async def reconciler(key: tuple[str, str]) -> float:
        done.add(key)
        return 0.001

    queue = WorkQueue(reconciler)
    running = asyncio.create_task(queue.run())
    memo = kopf.Memo(operator=Queue(queue))

    async def event(i: int) -> None:
        labels = {handlers.DEPLOYMENT: f"s{i % 500}"}
        await invocation.invoke(
            handlers.child_changed, kwargs={"memo": memo, "namespace": "ns", "labels": labels},
            settings=kopf.OperatorSettings(),
        )  # fmt: skip

    await asyncio.gather(*(event(i) for i in range(5000)))
    while len(done) < 500 and not running.done():
        await asyncio.sleep(0.01)
    assert not running.done(), running.exception()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def resource(**changes: Any) -> dict[str, Any]:
    return {"uid": "1", "generation": 1, "resourceVersion": "5", "labels": {"a": "b"}} | changes


@pytest.mark.parametrize(
    ("changes", "event", "woken"),
    [
        ({}, "MODIFIED", False),
        ({"resourceVersion": "6", "managedFields": ["status"]}, "MODIFIED", False),
        ({"generation": 2}, "MODIFIED", True),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, "MODIFIED", True),
        ({"uid": "2"}, "MODIFIED", True),
        ({"labels": {"a": "c"}}, "MODIFIED", True),
        ({}, "DELETED", True),
    ],
)
async def test_only_a_change_of_spec_or_metadata_adds_to_the_queue(changes, event, woken):
    async def reconciler(_key: tuple[str, str]) -> None:
        return None

    queue = WorkQueue(reconciler)
    memo = kopf.Memo(operator=Queue(queue))

    async def arrives(meta: dict[str, Any], kind: str | None) -> bool:
        await handlers.service_changed(memo=memo, namespace="ns", name="a", meta=meta, event={"type": kind})
        found = bool(queue.pending)
        running = asyncio.create_task(queue.run())
        while queue.pending:
            await asyncio.sleep(0.01)
        running.cancel()
        return found

    assert await arrives(resource(), None), "the first list"
    assert await arrives(resource(**changes), event) is woken
