from __future__ import annotations

import csv
import math

import numpy as np
import orjson
import pytest

from tierserve.loadgen import ClosedLoop, LoadPlan, LoadResult, Outcome, RequestLog, Step, Traffic
from tierserve.loadgen.samples import Row
from tierserve.loadgen.summary import Span, quantile, summarise, summarise_step


def rows(latencies, outcome=Outcome.OK, traffic="u", step=0):
    return [
        Row(step, traffic, float(i), float(i), math.nan, i + value, 200, outcome, "p", 3)
        for i, value in enumerate(latencies)
    ]


def test_percentiles_are_times_that_some_request_took():
    values = np.arange(1.0, 101.0)
    assert [quantile(values, q) for q in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert quantile(np.array([7.0]), 0.95) == 7.0
    assert math.isnan(quantile(np.array([]), 0.5))


def test_every_failure_is_a_miss():
    samples = RequestLog.of(rows([0.1] * 6) + rows([0.1] * 2, Outcome.HTTP_ERROR) + rows([9.0] * 2, Outcome.TIMEOUT))
    summary = summarise(samples, 10.0, {"u": 1.0})
    assert summary.within_slo == 0.6
    assert summary.errors == 4
    assert summary.p95_s == pytest.approx(9.0), "what was given up on stays in the tail"
    assert summary.rate == pytest.approx(0.6)


def test_requests_cut_by_the_user_are_neither_hits_nor_misses():
    samples = RequestLog.of(rows([0.1] * 4) + rows([0.1], Outcome.UNFINISHED))
    summary = summarise(samples, 1.0, {"u": 1.0})
    assert (summary.within_slo, summary.unfinished, summary.errors) == (1.0, 1, 0)


def test_each_class_is_judged_by_its_own_objective():
    samples = RequestLog.of(rows([0.5] * 5, traffic="fast") + rows([0.5] * 5, traffic="slow"))
    assert summarise(samples, 1.0, {"fast": 0.1, "slow": 1.0}).within_slo == 0.5
    assert summarise(samples, 1.0, {"fast": 0.1, "slow": None}).within_slo == 0.0
    assert math.isnan(summarise(samples, 1.0, {"fast": None, "slow": None}).within_slo)


def test_the_warm_up_is_kept_apart():
    step = Step("s", 10.0, (Traffic("u", ClosedLoop(1)),), warmup_s=4.0)
    plan = LoadPlan("http://127.0.0.1:1", (step,), slo_s=1.0)
    result = summarise_step(
        0, step, RequestLog.of(rows([5.0] * 4 + [0.5] * 6)), span=Span(0, 4, 10), complete=True, plan=plan
    )
    assert result.all.p95_s == pytest.approx(0.5)
    assert result.warmup.p95_s == pytest.approx(5.0)


def test_nothing_measured_is_nan_and_null(tmp_path):
    step = Step("s", 10.0, (Traffic("u", ClosedLoop(1)),))
    plan = LoadPlan("http://127.0.0.1:1", (step,))
    result = LoadResult(plan, 0.0, RequestLog.of([]), ())
    total = orjson.loads(result.to_json())["total"]
    assert total["requests"] == 0
    assert total["p95_s"] is None


def test_samples_are_written_one_line_each(tmp_path):
    file = tmp_path / "deep" / "samples.csv"
    RequestLog.of(rows([0.25, 0.5])).write_csv(file, 1e9, ["first"])
    lines = list(csv.DictReader(file.open()))
    assert [line["end_s"] for line in lines] == ["0.250000", "1.500000"]
    assert lines[0]["step"] == "first"
    assert lines[0]["first_token_s"] == ""
    assert lines[0]["outcome"] == "ok"
