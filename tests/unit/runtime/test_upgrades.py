"""Whose turn it is to replace Ray clusters after an upgrade of the operator."""

from __future__ import annotations

from typing import Any

import pytest

from tierserve.runtime.kubernetes.upgrades import UpgradeLock

A, B = "ns/a", "ns/b"


def rendered(cluster: str, generation: str = "1") -> list[dict[str, Any]]:
    annotations = {"tierserve.io/cluster-hash": cluster, "tierserve.io/generation": generation}
    return [{"metadata": {"name": "pool", "annotations": annotations}}]


def live(cluster: str, generation: str = "1", *, seen: int = 1, pending: str = "") -> dict[str, Any]:
    (one,) = rendered(cluster, generation)
    status = {"observedGeneration": seen, "pendingServiceStatus": {"rayClusterName": pending}}
    return {"pool": {"metadata": {**one["metadata"], "generation": 1}, "status": status}}


def test_after_an_upgrade_of_the_operator_one_service_at_a_time_replaces_its_clusters():
    lock = UpgradeLock()
    assert lock.admits(A, rendered("new"), live("old"))
    assert not lock.admits(B, rendered("new"), live("old"))
    assert lock.admits(A, rendered("new"), live("new", seen=0)), "KubeRay has not seen it yet"
    assert not lock.admits(B, rendered("new"), live("old"))
    assert lock.admits(A, rendered("new"), live("new", pending="x")), "the new cluster starts"
    assert not lock.admits(B, rendered("new"), live("old"))
    assert lock.admits(A, rendered("new"), live("new"))
    assert lock.admits(B, rendered("new"), live("old")), "the first one serves"


@pytest.mark.parametrize(
    ("desired", "there"),
    [
        (rendered("new", "2"), live("old", "1")),
        (rendered("same"), live("same")),
        (rendered("new"), {}),
        (rendered("new"), {"pool": {"metadata": {"name": "pool"}}}),
    ],
    ids=["a change of the user", "no replacement", "a new service", "made by a version without these annotations"],
)
def test_all_else_waits_for_no_turn(desired: list[dict[str, Any]], there: dict[str, Any]):
    lock = UpgradeLock()
    assert lock.admits(A, rendered("new"), live("old"))
    assert lock.admits(B, desired, there)
    assert lock.holder == A


def test_a_service_that_is_deleted_holds_no_turn():
    lock = UpgradeLock()
    assert lock.admits(A, rendered("new"), live("old"))
    lock.forget(A)
    assert lock.admits(B, rendered("new"), live("old"))
