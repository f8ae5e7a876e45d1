"""Static peak: a number of replicas chosen once, which nothing changes."""

from __future__ import annotations

from tierserve.simulate.types import Pool, Snapshot


class Static:
    """Always the same number of replicas.

    Args:
        pool: its floor is the number if `replicas` is 0.
        replicas: how many; 0 for the floor.
    """

    interval_s = 60.0

    def __init__(self, pool: Pool, replicas: float) -> None:
        self._replicas = round(replicas) if replicas > 0 else pool.min_replicas

    def decide(self, seen: Snapshot) -> int:
        """Return the number, whatever is seen."""
        return self._replicas
