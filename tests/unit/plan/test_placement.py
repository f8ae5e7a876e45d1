"""Which model runs where, with what times, and the errors that name field and hint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import PlacementError, place

Service = Callable[..., GenAIDeployment]


def test_every_site_of_every_tier_is_a_pool(service: Service) -> None:
    assert [one.pool for one in place(service())] == ["cloud-default", "edge-berlin", "edge-lyon"]


def test_the_network_is_half_a_round_trip_each_way_and_the_bytes(service: Service) -> None:
    cloud = place(service())[0]
    assert cloud.uplink_s == pytest.approx(0.020 + 8 * 4 * cloud.input_tokens / 100e9)
    assert cloud.downlink_s == pytest.approx(0.020 + 8 * 1024 / 10e9)
    assert cloud.target_s == pytest.approx(3.0 - cloud.uplink_s - cloud.downlink_s)


def test_tokens_are_the_means_of_the_classes_that_come_here(service: Service) -> None:
    cloud, edge, _ = place(service())
    assert (cloud.input_tokens, cloud.output_tokens) == (300, 200)  # private requests stay at the edge
    assert edge.input_tokens == pytest.approx(0.8 * 300 + 0.2 * 100)


def test_slots_keep_a_tenth_of_the_time_for_waiting(service: Service) -> None:
    cloud = place(service())[0]
    assert cloud.bound == "responseTime"
    assert cloud.service_s <= 0.9 * cloud.target_s
    assert cloud.profile.service_time(cloud.slots + 1, cloud.input_tokens, cloud.output_tokens) > 0.9 * cloud.target_s
    assert cloud.rate == pytest.approx(cloud.slots / cloud.service_s)


def test_the_first_allowed_model_that_fits_is_taken(service: Service) -> None:
    assert place(service())[1].model == "large"
    small = service({"spec.models.0.memory.weights": "60Gi", "spec.tiers.1.models": ["light"]})
    assert place(small)[1].model == "light"


def test_a_model_too_slow_for_the_target_gives_way_to_the_next(service: Service) -> None:
    slow = service({"spec.models.0.profile.alpha": "20ms", "spec.tiers.0.models": ["large", "light"]})
    assert {one.model for one in place(slow)} == {"light"}


def test_a_measured_model_too_slow_even_alone_is_an_error(service: Service) -> None:
    with pytest.raises(PlacementError) as caught:
        place(service({"spec.models.0.profile.alpha": "20ms"}))
    (problem,) = caught.value.problems
    assert problem.path == "spec.objective.responseTime.target"
    assert problem.message_with_value.startswith("must be at least 4")
    assert problem.message_with_value.endswith("(got 3s)")
    assert problem.hint.startswith("give at least 4")


def test_an_estimate_too_slow_is_placed_and_marked(service: Service) -> None:
    guessed = service({"spec.models.0.profile": None, "spec.objective.responseTime.target": "1s"})
    cloud = place(guessed)[0]
    assert not cloud.measured
    assert not cloud.meets_target
    assert cloud.slots >= 1


@pytest.mark.parametrize(("name", "value"), [("firstToken", "41ms"), ("perToken", "2ms")])
def test_a_token_target_no_batch_can_keep_is_an_error(service: Service, name: str, value: str) -> None:
    with pytest.raises(PlacementError) as caught:
        place(service({f"spec.objective.{name}": value}))
    assert caught.value.problems[0].path == f"spec.objective.{name}"


def test_a_request_that_does_not_fit_beside_the_weights_is_an_error(service: Service) -> None:
    with pytest.raises(PlacementError) as caught:
        place(service({"spec.models.0.memory.perRequest": "70Gi", "spec.tiers.1.models": ["light"]}))
    (problem,) = caught.value.problems
    assert problem.path == "spec.models[0].memory"
    assert "16 GiB of weights, 70 GiB a request) does not fit a replica of tier cloud" in problem.message
    assert "perReplica: 2" in problem.hint


def test_bounds_and_start_up_come_from_the_tier(service: Service) -> None:
    cloud, edge, _ = place(service({"spec.tiers.0.startup": "96s"}))
    assert (cloud.min_replicas, cloud.max_replicas, cloud.startup_s) == (1, 200, 96.0)
    assert (edge.min_replicas, edge.max_replicas, edge.percentile) == (1, 8, 95)


def test_a_placement_can_be_a_key(service: Service) -> None:
    assert len({*place(service()), *place(service())}) == 3
