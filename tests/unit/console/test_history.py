"""History: 15 minutes for each tier, bounded; decisions are changes of the desired replicas."""

from __future__ import annotations

from tierserve.console import history as module
from tierserve.console.history import DECISIONS, SAMPLES, History
from tierserve.console.sources import Service
from tierserve.console.summary import fleet, row, tiers_of

KEY = ("a", "b")


def pool(name="edge-default", tier="edge", **more):
    return {"pool": name, "tier": tier, "desired": 1, "running": 1, "decision": {"lambda": 2.0, "reason": "r"}, **more}


def service(*pools, key=KEY, **status):
    return Service(*key, {"pools": list(pools), **status})


def test_what_is_unknown_stays_unknown_and_is_not_zero():
    history = History()
    history.sample(1.0, [service(pool(decision=None, running=None, gateway={"p95_s": 0.5}))])
    columns = history.tiers(KEY)["edge"]
    assert columns == {
        "time": [1.0],
        "p95Seconds": [0.5],
        "targetSeconds": [None],
        "arrivalsPerSecond": [None],
        "running": [None],
        "desired": [1.0],
    }


def test_sites_of_a_tier_are_summed_and_the_slowest_is_shown():
    sites = [pool(f"edge-{n}", running=n, gateway={"p95_s": n / 10}, targetSeconds=1.0) for n in (1, 2, 3)]
    (tier,) = tiers_of(service(*sites))
    assert (tier.running, tier.desired, tier.p95_s, tier.arrivals_per_s, tier.target_s) == (6, 3, 0.3, 6.0, 1.0)


def test_the_oldest_samples_are_overwritten_and_only_newer_ones_are_returned():
    history = History()
    for second in range(SAMPLES + 10):
        history.sample(float(second), [service(pool(running=second))])
    columns = history.tiers(KEY)["edge"]
    assert len(columns["time"]) == SAMPLES
    assert (columns["time"][0], columns["running"][-1]) == (10.0, SAMPLES + 9)
    assert history.tiers(KEY, since=SAMPLES + 7.0)["edge"]["time"] == [SAMPLES + 8.0, SAMPLES + 9.0]


def test_a_client_that_continues_after_its_last_time_gets_no_sample_twice():
    history = History()
    history.sample(1_796_000_000.0499, [service(pool())])
    (last,) = history.tiers(KEY)["edge"]["time"]
    assert history.tiers(KEY, since=last)["edge"]["time"] == []


def test_a_decision_is_a_change_of_the_desired_replicas_with_its_reason():
    history = History()
    for second, desired in enumerate([1, 1, 3, 3, 2]):
        history.sample(float(second), [service(pool(desired=desired, decision={"reason": f"{desired} replicas"}))])
    assert [(d["time"], d["previous"], d["desired"], d["reason"]) for d in history.decisions(KEY)] == [
        (4.0, 3, 2, "2 replicas"),
        (2.0, 1, 3, "3 replicas"),
        (0.0, None, 1, "1 replicas"),
    ]
    for second in range(100):
        history.sample(5.0 + second, [service(pool(desired=second))])
    assert len(history.decisions(KEY)) == DECISIONS


def test_a_service_that_is_gone_leaves_nothing_and_the_number_of_tiers_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_TIERS", 2)
    history = History()
    many = [service(pool(), key=("a", str(n))) for n in range(3)]
    history.sample(1.0, many)
    assert [bool(history.tiers(one.key)) for one in many] == [True, True, False]
    history.sample(2.0, many[2:])
    history.sample(3.0, many[2:])
    assert [bool(history.tiers(one.key)) for one in many] == [False, False, True]
    assert history.decisions(many[0].key) == []


def test_a_total_that_not_all_services_report_has_their_number_beside_it():
    rows = [row(service(costPerHour=2.0)), row(service(costPerHour=None)), row(service())]
    totals = fleet(rows)
    assert (totals["costPerHour"], totals["costPerHourServices"], totals["services"]) == (2.0, 1, 3)
    assert (totals["watts"], totals["wattsServices"]) == (None, 0)
    assert totals["running"] is None


def test_a_status_of_another_version_is_read_as_far_as_it_goes():
    made = row(service({"pool": "x"}, {"pool": "y", "tier": "t", "decision": None, "gateway": None}, conditions=None))
    assert (made["pools"], made["running"], made["ready"]) == (2, None, "Unknown")
