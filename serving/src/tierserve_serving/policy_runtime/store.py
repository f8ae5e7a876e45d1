"""Saves the learned state of the policy in Ray's GCS, so that it outlives the Serve controller.

Ray starts a controller that died anew, with an empty process; the GCS lives on (where it has a Redis, after a head that
was replaced too). What a pool learned is read once, when the process begins, and saved at most once a minute. Both
happen in a thread of their own: the controller never waits for the GCS, and what fails or hangs is only not kept.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from tierserve.autoscale.decide import Settings, State
from tierserve.autoscale.snapshot import UnusableError, dump_state, load_state, merge_learned

logger = logging.getLogger("ray.serve")
_NAMESPACE = "tierserve_policy"
_EVERY_S = 60.0
_READ_FOR_S = 600.0
"""Seconds of failed reads after which the new state overwrites the saved one."""
_memories: dict[str, PolicyMemory] = {}
_lock = threading.Lock()


class Store(Protocol):
    """Bytes under names."""

    def get(self, key: str) -> bytes | None:
        """Return the value, None if there is none."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Put a value in place of the one before."""
        ...


class GcsStore:
    """Ray's own key-value store (`ray.experimental.internal_kv`), which Ray Serve keeps its state in as well."""

    def __init__(self, kv: Any) -> None:
        self._kv = kv

    def get(self, key: str) -> bytes | None:
        """Return the value, None if there is none."""
        value: bytes | None = self._kv._internal_kv_get(key, namespace=_NAMESPACE)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Put a value in place of the one before."""
        self._kv._internal_kv_put(key, value, overwrite=True, namespace=_NAMESPACE)


def gcs() -> Store | None:
    """Return the store of the cluster that this process belongs to; None where it belongs to none."""
    if "ray" not in sys.modules:  # a controller has loaded it; do not import Ray elsewhere
        return None
    from ray.experimental import internal_kv

    return GcsStore(internal_kv) if internal_kv._internal_kv_initialized() else None


class PolicyMemory:
    """The memory of one pool. Its methods return at once and raise nothing; one thread at most works for it."""

    def __init__(self, pool: str, store: Callable[[], Store | None] = gcs) -> None:
        self.pool, self._store = pool, store
        self._thread: threading.Thread | None = None
        self._known: State | None = None  # read, and not yet taken
        self._is_read = self._complained = False
        self._is_first = True  # nothing was saved for this pool yet
        self._began: float | None = None
        self._tried = float("-inf")

    def restore(self, state: State, settings: Settings, now: float) -> State:
        """Return the state, going on from what was saved where that was read since the last call.

        Args:
            state: of the pool; `State()` where nothing is known.
            settings: of the pool.
            now: Unix seconds.
        """
        self._began = now if self._began is None else self._began
        if not self._is_read and self._is_time(now):
            self._start(lambda store: self._read(store, settings, now), now)
        if not self._is_read or self._known is None:
            return state
        known, self._known = self._known, None
        return merge_learned(state, known)

    def save(self, state: State, settings: Settings, now: float) -> None:
        """Save what was learned, if it is time: each minute, and at once when the first start was seen."""
        if not self._is_read:
            self._is_read = self._began is not None and now - self._began > _READ_FOR_S
        elif self._known is None and (self._is_time(now) or (state.startups and self._is_first)):
            self._is_first = False
            self._start(lambda store: self._save(store, state, settings, now), now)

    def _is_time(self, now: float) -> bool:
        return not 0.0 <= now - self._tried < _EVERY_S  # a clock that was set back is no reason to wait

    def _start(self, work: Callable[[Store], None], now: float) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        try:
            store = self._store()
            if store is None:
                return
            self._tried = now
            self._thread = threading.Thread(target=self._do, args=(work, store), name="tierserve-memory", daemon=True)
            self._thread.start()
        except Exception as error:
            self._complain(error)

    def _do(self, work: Callable[[Store], None], store: Store) -> None:
        try:
            work(store)
            self._complained = False
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            logger.warning("tierserve: pool %s: the learned state cannot be saved: %r", self.pool, error)
        self._complained = True

    def _read(self, store: Store, settings: Settings, now: float) -> None:
        data = store.get(self.pool)
        try:
            if data is not None:
                self._known = load_state(data, self.pool, settings, now)
                self._is_first = False
                logger.info("tierserve: pool %s: restored the learned state of before the restart", self.pool)
        except UnusableError as error:
            logger.warning("tierserve: pool %s: the saved state is ignored: %s", self.pool, error)
        self._is_read = True

    def _save(self, store: Store, state: State, settings: Settings, now: float) -> None:
        store.put(self.pool, dump_state(state, self.pool, settings, now))


def memory(pool: str) -> PolicyMemory:
    """Return the memory of a pool, one per process: policies come and go with the deployment's configuration."""
    with _lock:
        return _memories.setdefault(pool, PolicyMemory(pool))
