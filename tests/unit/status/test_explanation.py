"""An explanation has the arithmetic that the decision itself made, and leaves out what is not known."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tierserve.api import load
from tierserve.autoscale.decide import Decision, GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.plan.placement import place
from tierserve.state import Observed, PoolObserved
from tierserve.status.build import status
from tierserve.status.explanation import Explanation, explain
from tierserve.status.explanation_text import lines

GAID = load(Path(__file__).parents[3] / "examples" / "assistant.yaml")
CLOUD = next(p for p in place(GAID) if p.tier == "cloud")


def decisions(settings: Settings, rate: float, service_s: float, replicas: int, seed: int = 1) -> Iterator[Decision]:
    """Decisions on random arrivals, as a gateway and replicas report them."""
    chance, state, target = random.Random(seed), State(), replicas
    arrivals = finished = 0.0
    for step in range(160):
        t = 1000.0 + 0.5 * step
        arrivals += sum(chance.random() < rate * 0.5 / 1000 for _ in range(1000))
        inside = min(sum(chance.random() < rate * service_s / 1000 for _ in range(1000)), int(arrivals))
        finished = arrivals - inside
        sums = (finished, service_s * finished, service_s**2 * finished * 1.04)
        one = ReplicaSample(t, arrivals, *sums, running=float(inside), startup_s=3.0)
        gateway = GatewaySample(t, arrivals, 0.0, float(inside), finished, 0.0, 0.0)
        obs = Observation(t, target, target, 1, 64, {"a": one}, gateway)
        decision, state = decide(obs, state, settings)
        target = decision.replicas
        yield decision


@cache
def busy() -> Decision:
    return list(decisions(Settings(1.5, service_s=0.8, slots=4, startup_s=3.0), 20.0, 0.8, 8))[-1]


def pool_of(decision: Decision, **gateway: Any) -> dict[str, Any]:
    values = json.loads(json.dumps(decision.to_dict()))
    return {"pool": "cloud-default", "model": "large", "running": decision.running, "decision": values} | (
        {"gateway": gateway, "modelError": -0.04} if gateway else {}
    )


def explained(decision: Decision, settings: Settings, **gateway: Any) -> Explanation:
    found = explain(pool_of(decision, **gateway), replace(CLOUD, headroom=settings.headroom))
    assert found is not None
    return found


@pytest.mark.parametrize(("rate", "headroom"), [(3.0, 0.0), (20.0, 0.0), (20.0, 0.5), (60.0, 0.1)])
def test_erlang_c_requires_what_the_decision_took(rate: float, headroom: float):
    settings = Settings(1.5, service_s=0.8, slots=4, startup_s=3.0, headroom=headroom)
    checked = 0
    for decision in decisions(settings, rate, 0.8, 8):
        if decision.set_by != "erlang_c":
            continue
        found = explained(decision, settings)
        # Fewer only where a constant number of requests has a slot each.
        assert found.required == decision.replicas or (found.required or 0) > decision.replicas
        if found.required == decision.replicas:
            checked += 1
            verdicts = {one.replicas: one.meets for one in found.alternatives}
            assert verdicts == {decision.replicas: True} | (
                {decision.replicas - 1: False} if decision.replicas > 1 else {}
            )
    assert checked > 10


def test_with_fewer_arrivals_than_it_names_one_replica_fewer_is_enough_and_with_more_it_is_not():
    settings = Settings(1.5, service_s=0.8, slots=4, startup_s=3.0, headroom=0.2)
    decision = [d for d in decisions(settings, 30.0, 0.8, 8) if d.set_by == "erlang_c" and d.replicas > 1][-1]
    down = explained(decision, settings).scale_down
    assert down is not None
    assert down.replicas == decision.replicas - 1
    assert down.arrivals_below is not None
    for rate, required in (
        (down.arrivals_below - 1e-6, down.replicas),
        (down.arrivals_below + 1e-6, decision.replicas),
    ):
        other = replace(decision, arrival_rate=rate, offered_load=(rate + decision.rate_error) * decision.service_s)
        assert explained(other, settings).required == required


def test_the_minimum_and_no_window_have_no_scale_down():
    settings = Settings(1.5, service_s=0.8, slots=4)
    last = list(decisions(settings, 0.4, 0.8, 1))[-1]
    assert last.replicas == 1
    assert explained(last, settings).scale_down is None
    zero = explain(pool_of(last), replace(CLOUD, min_replicas=0, scale_to_zero_after_s=45.0))
    assert zero is not None
    assert zero.scale_down is not None
    assert (zero.scale_down.replicas, zero.scale_down.for_s) == (0, 45.0)


def test_a_pool_without_a_current_decision_has_no_explanation():
    assert explain({"pool": "cloud-default", "decision": None}, CLOUD) is None
    assert explain({"pool": "cloud-default", "decision": {"reason": "x"}}, CLOUD) is None


def test_what_the_spec_alone_says_is_unknown_without_it():
    found = explain(pool_of(busy()), None)
    assert found is not None
    assert (found.required, found.load, found.bound, found.scale_down, found.alternatives) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert any("cannot be read" in line for line in lines("assistant", found))


def test_the_status_keeps_all_that_an_explanation_needs():
    """Its figures are rounded and some are left out: the explanation is made of what is left."""
    decision = busy()
    gateway = {"rate": 19.6, "window_s": 60.0, "p95_s": 0.7, "queued": 0, "up": True}
    seen = PoolObserved("RUNNING", "", 8, 8, decision.to_dict() | {"pool": "cloud-default"}, gateway, 1.0)
    document = status(GAID, place(GAID), Observed(2000.0, "http://127.0.0.1:1", {"cloud-default": seen}))
    entry = next(p for p in document["pools"] if p["pool"] == "cloud-default")
    found = explain(entry, CLOUD)
    assert found is not None
    assert (found.answered_rate, found.window_s, found.observed_p95_s) == (19.6, 60.0, 0.7)
    assert found.required is not None
    assert found.model_error == entry["modelError"] is not None


@pytest.mark.parametrize("set_by", ["erlang_c", "connections", "replay", "stabilization", "max_replicas", "held", None])
@pytest.mark.parametrize("width", [80, 40])
def test_no_line_is_wider_than_the_terminal(set_by: Any, width: int):
    settings = Settings(1.5, service_s=0.8, slots=4)
    decision = replace(busy(), set_by=set_by)
    text = lines("assistant", explained(decision, settings, rate=20.0, window_s=60.0, p95_s=0.71), width=width)
    assert max(map(len, text)) <= width
    assert text[0].startswith("assistant / cloud: ")
    labels = {line[2:23].strip() for line in text[1:]}
    assert {"decision", "arrivals", "one replica", "burstiness", "since then"} <= labels


def test_the_lines_have_the_figures_of_the_explanation():
    settings = Settings(1.5, service_s=0.8, slots=4, headroom=0.25)
    decision = [d for d in decisions(settings, 30.0, 0.8, 8) if d.set_by == "erlang_c" and d.replicas > 1][-1]
    found = explained(decision, settings, rate=29.4, window_s=60.0, p95_s=0.71)
    text = " ".join(" ".join(lines("assistant", found)).split())
    for words in ("29.4/s answered", "25% headroom", "observed p95 710 ms", "off by -4%", "meets it"):
        assert words in text, words
