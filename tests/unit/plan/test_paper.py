"""The numbers of Wang, Xue, Wei, Kuo (2023), each as printed there (slips are named)."""

from __future__ import annotations

import pytest

from tierserve.api import GenAIDeployment
from tierserve.plan.energy import JOULES_PER_WH, joules_of_flops, training_kwh, training_pounds
from tierserve.plan.paper import (
    bandwidth_criterion,
    compute_criterion,
    flops_within,
    memory_criterion,
    memory_for_each,
    packed_servers,
    paper_tier,
    pooled,
    pooled_servers,
    power_of_ten,
    service_rate,
)


def test_the_cloud_of_a_hundred_a100(paper: GenAIDeployment) -> None:
    cloud = pooled(paper)[0]
    assert cloud.servers == 285
    assert cloud.rate == 1000
    assert cloud.service_rate == pytest.approx(23_816.79, abs=0.005)
    assert cloud.offered_load == pytest.approx(0.0419871795, rel=1e-9)
    assert cloud.response_s == pytest.approx(4.19871794872e-5, rel=1e-11)
    assert cloud.p_wait == "1.22065249154e-970"


def test_the_edge_of_eight_v100(paper: GenAIDeployment) -> None:
    edge = pooled(paper)[1]
    assert edge.servers == 9
    assert edge.rate == 20
    assert edge.service_rate == pytest.approx(9_160.305, abs=0.0005)
    assert edge.response_s == pytest.approx(1.09166666667e-4, rel=1e-11)


def test_memory_does_not_pool_over_accelerators(paper: GenAIDeployment) -> None:
    assert [tier.servers_packed for tier in pooled(paper)] == [200, 8]
    assert (pooled_servers(100 * 80e9, 28e9), packed_servers(100, 80e9, 28e9)) == (285, 200)
    assert (pooled_servers(8 * 32e9, 28e9), packed_servers(8, 32e9, 28e9)) == (9, 8)


def test_connections_set_lambda_of_every_tier(paper: GenAIDeployment) -> None:
    assert [tier.rate for tier in pooled(paper, 5000)] == [5000, 5000]


def test_too_much_load_has_no_end_in_sight() -> None:
    full = paper_tier("edge", 9, 8, service_rate(120e12, 13.1e9), 1e6)
    assert full.p_wait == "1"
    assert full.response_s == float("inf")


def test_a_hundred_terabytes_hold_3571_requests() -> None:
    criterion = memory_criterion(28e9, 100e12)
    assert criterion.connections == 3571  # the paper rounds to 4,000
    assert not criterion.binds(3571)
    assert criterion.binds(3572)


def test_half_a_million_connections_leave_200_megabytes_each() -> None:
    assert memory_for_each(100e12, 500_000) == 200e6
    assert not memory_criterion(200e6, 100e12).binds(500_000)
    assert memory_criterion(201e6, 100e12).binds(500_000)


def test_a_frame_has_a_ninetieth_of_a_second_and_3_47_teraflop() -> None:
    assert flops_within(1 / 90, 312e12) == pytest.approx(3.47e12, rel=2e-3)
    assert not compute_criterion(3.4e12, 1 / 90, 312e12).binds(1)
    assert compute_criterion(3.5e12, 1 / 90, 312e12).binds(1)


def test_pictures_and_voices_over_a_link() -> None:
    image = 1920 * 1080 * 3
    assert image == pytest.approx(6e6, rel=0.04)
    assert bandwidth_criterion(160e3, 10e9).connections == 62_499  # the link is full at 62,500: equality binds
    assert bandwidth_criterion(96e3, 10e9).connections == 104_166
    assert bandwidth_criterion(image * 8, 10e9).connections == 200


def test_an_answer_of_gpt3_takes_1e5_joules() -> None:
    joules = joules_of_flops(1e15)
    assert joules == 1e5
    assert joules / JOULES_PER_WH == pytest.approx(27.78, abs=0.005)  # Wh; the paper prints kWh, which is a slip


@pytest.mark.parametrize(
    ("name", "watts", "hours", "kwh", "pounds"),
    [
        ("WaveGAN on P100", 250, 96, 24.0, 19.63),
        ("GANSynth on V100", 300, 108, 32.4, 26.5),
        ("FloWaveNet on V100", 300, 272, 81.6, 66.74),
        ("BigGAN on V100", 300, 3072, 921.3, 753.54),
        ("Stable Diffusion on V100", 300, 2184, 655.0, 535.72),
    ],
)
def test_table_3_of_training(name: str, watts: float, hours: float, kwh: float, pounds: float) -> None:
    assert training_kwh(watts, hours) == pytest.approx(kwh, rel=5e-4), name
    assert training_pounds(kwh) == pytest.approx(pounds, rel=5e-4), name


def test_small_chances_are_written_with_their_power() -> None:
    assert power_of_ten(-969.9134079580766) == "1.22065249154e-970"
    assert power_of_ten(0.0) == "1"
    assert power_of_ten(float("-inf")) == "0"
