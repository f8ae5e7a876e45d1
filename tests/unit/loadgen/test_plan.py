from __future__ import annotations

import numpy as np
import pytest

from tierserve.loadgen import ClosedLoop, LoadError, LoadPlan, OpenLoop, Step, Traffic
from tierserve.loadgen.http import chat_url
from tierserve.loadgen.units import counts, rates, seconds, traffic_fields


@pytest.mark.parametrize(
    ("text", "value"), [("1500ms", 1.5), ("20s", 20), ("1m30s", 90), ("5m", 300), ("7", 7), ("0.5s", 0.5), ("1h", 3600)]
)
def test_durations_are_read_as_people_type_them(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "s", "5 apples", "-3s", "1x", "5s!"])
def test_other_durations_are_named(text):
    with pytest.raises(LoadError, match="not valid"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"), [("8", (8,)), ("1,2,4", (1, 2, 4)), ("1..8", (1, 2, 4, 8)), ("3..10", (3, 6, 10))]
)
def test_connections_are_a_list_or_doublings(text, value):
    assert counts(text) == value


@pytest.mark.parametrize("text", ["x", "0..4", "8..2", "1..2..3", ""])
def test_other_connections_are_named(text):
    with pytest.raises(LoadError, match="not valid"):
        counts(text)


def test_rates_are_steps_or_one_ramp():
    assert rates("5,10", "constant") == (OpenLoop(5, None, "constant"), OpenLoop(10, None, "constant"))
    assert rates("1..50", "poisson") == (OpenLoop(1, 50),)
    for text, process in (("x", "poisson"), ("1..", "poisson"), ("5", "uniform"), ("-1", "poisson")):
        with pytest.raises(LoadError):
            rates(text, process)


def test_traffic_beside_names_its_fields():
    assert traffic_fields("class=personal,think=2s") == {"class": "personal", "think": "2s"}
    with pytest.raises(LoadError, match="name=value pairs"):
        traffic_fields("clas=personal")


def test_constant_arrivals_are_evenly_spaced():
    times = OpenLoop(4, process="constant").times(2, np.random.default_rng(0))
    assert times.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_the_same_load_comes_again_for_the_same_seed():
    first, again = (OpenLoop(9).times(5, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"max_duration_s": 5.0}, "over the bound"),
        ({"steps": ()}, "at least one is required"),
        ({"max_in_flight": 20_000}, "one process opens"),
    ],
)
def test_a_plan_is_bounded(kwargs, says):
    step = Step("s", 10, (Traffic("u", ClosedLoop(1)),))
    with pytest.raises(LoadError, match=says):
        LoadPlan(**{"url": "http://127.0.0.1:1", "steps": (step,), **kwargs})


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClosedLoop(-1),
        lambda: OpenLoop(-1),
        lambda: Step("s", 5, ()),
        lambda: Step("s", 5, (Traffic("u", ClosedLoop(1)),), warmup_s=5),
    ],
)
def test_senseless_parts_are_refused(make):
    with pytest.raises(LoadError):
        make()


@pytest.mark.parametrize("base", ["http://h", "http://h/", "http://h/v1", "http://h/v1/chat/completions"])
def test_any_form_of_the_address_reaches_chat_completions(base):
    assert chat_url(base) == "http://h/v1/chat/completions"
