"""What a replica reports of its start-up."""

from __future__ import annotations

import pytest

from tierserve_serving.replica.stats import ReplicaStats


@pytest.mark.parametrize(("every_replica_downloads", "further_s"), [(False, 21.0), (True, 121.0)])
def test_the_start_up_time_is_that_of_a_further_replica_on_the_node(
    *, every_replica_downloads: bool, further_s: float
) -> None:
    stats = ReplicaStats()
    stats.started(100.0, 20.0, 1.0, every_replica_downloads=every_replica_downloads)
    report = stats.report(running=0, waiting=0, slots=1)
    assert report["startup_seconds"] == further_s
    assert [report[f"{part}_seconds"] for part in ("download", "load", "warmup")] == [100.0, 20.0, 1.0]
