"""Fixtures of all unit tests: exact chains and formulas of bench/, and an event loop whose clock is virtual."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any, TypeVar

import pytest


@pytest.fixture(scope="session")
def chains() -> ModuleType:
    return importlib.import_module("bench.queueing.chains")


@pytest.fixture(scope="session")
def stated() -> ModuleType:
    """`stated.rows_of` has the settings, `stated.broken` says which errors are not as stated."""
    return importlib.import_module("bench.queueing.truth")


T = TypeVar("T")


GRACE_S = 0.002
"""For bytes on their way between two sockets of this process, which the kernel passes on at once."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer when there is no I/O: durations are exact, however busy the machine is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._poll = self._selector.select
        self._selector.select = self._select

    def _select(self, timeout: float | None = None) -> Any:
        has_sockets = len(self._selector.get_map()) > 1  # beside the loop's own
        ready = self._poll(timeout and (min(timeout, GRACE_S) if has_sockets else 0.0))
        if timeout and not ready:
            self.now += timeout
        return ready

    def time(self) -> float:
        return self.now


@pytest.fixture
def in_virtual_time() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine to its end on such a loop."""

    def run(work: Coroutine[Any, Any, T]) -> T:
        loop = VirtualLoop()
        try:
            return loop.run_until_complete(work)
        finally:
            loop.close()

    return run


class VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes such loops."""

    def new_event_loop(self) -> VirtualLoop:
        return VirtualLoop()


@pytest.fixture(scope="session")
def virtual_time() -> VirtualPolicy:
    """For modules whose tests all run in virtual time: `event_loop_policy` returns it."""
    return VirtualPolicy()
