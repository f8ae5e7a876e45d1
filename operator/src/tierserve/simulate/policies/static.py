"""Static peak: a number of replicas chosen once, which nothing changes."""

from __future__ import annotations

from tierserve.simulate.types import Pool, Snapshot


class Static:
    """Always the same number of replicas.

    Args:
        pool: its min_replicas is the number if `replicas` is 0.
        replicas: number of replicas; 0: min_replicas.
    """

    interval_s = 60.0

    def __init__(self, pool: Pool, replicas: float) -> None:
        self._replicas = round(replicas) if replicas > 0 else pool.min_replicas

    def decide(self, seen: Snapshot) -> int:
        """Return the number, whatever is seen."""
        return self._replicas
