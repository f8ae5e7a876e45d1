"""`explain` of a local service and of one in a cluster: the same arithmetic, as text and as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tierserve.cli import cluster
from tierserve.cli.errors import UserError
from tierserve.cli.explain import explained
from tierserve.cli.main import app


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "80"})
    assert result.exception is None or isinstance(result.exception, UserError | SystemExit), result.exception
    return result


def test_the_text_has_a_headline_for_each_pool_and_fits_80_columns(running: Callable[..., Any]) -> None:
    running()
    out = run("explain", "assistant").stdout
    assert "assistant / cloud: 2 replicas, because" in out
    assert "assistant / edge: no current decision" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_data_has_the_figures(running: Callable[..., Any], form: str, read: Callable[[str], Any]) -> None:
    running()
    (service,) = read(run("explain", "-o", form).stdout)
    cloud = next(pool for pool in service["pools"] if pool["pool"] == "cloud-default")
    assert (cloud["replicas"], cloud["required"], cloud["slots"]) == (2, 2, 16)
    assert [one["meets"] for one in cloud["alternatives"]] == [False, True]
    assert cloud["scale_down"]["replicas"] == 1


def test_a_tier_that_is_not_there_is_a_usage_error(running: Callable[..., Any]) -> None:
    running()
    error = run("explain", "--tier", "moon").exception
    assert isinstance(error, UserError)
    assert (error.code, "moon" in error.message) == (2, True)


def test_no_service_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path))
    assert run("explain").exit_code == 0
    assert json.loads(run("explain", "-o", "json").stdout) == []


def test_of_a_resource_of_a_cluster_it_is_the_same_as_of_a_local_service(running: Callable[..., Any]) -> None:
    service = running()
    (local,) = json.loads(run("explain", "-o", "json").stdout)
    document = json.loads(service.paths.status.read_bytes())
    resource = yaml.safe_load(Path(document["file"]).read_text()) | {"status": document["status"]}
    there = explained(cluster.document(resource), cluster.placements(resource), None)
    assert json.loads(json.dumps(there)) == local
