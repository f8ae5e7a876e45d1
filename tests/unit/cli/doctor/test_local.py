"""`tierserve doctor`: real checks of this machine; what is required and missing ends with 1 and has a hint."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tierserve.api import load
from tierserve.cli.doctor import local
from tierserve.cli.doctor.checks import Check, as_data, is_complete
from tierserve.cli.main import app

EXAMPLE = Path(__file__).parents[4] / "examples" / "assistant.yaml"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words], env={"COLUMNS": "80"})


def named(checks: Iterable[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_on_this_machine_nothing_required_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path))
    found = local.checks(load(EXAMPLE))
    assert [check for check in found if check.state == "missing"] == []
    assert all(check.hint for check in found if check.state != "ok")
    assert named(found, "services").state == "ok"
    assert "GiB" in named(found, "memory").message


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_data_has_name_state_message_and_hint(
    form: str, read: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path))
    result = run("-o", form)
    document = read(result.stdout)
    assert (result.exit_code, document["ok"]) == (0, True)
    assert {tuple(sorted(check)) for check in document["checks"]} == {("hint", "message", "name", "state")}


def test_the_text_fits_80_columns_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path / "state"))
    result = run(str(EXAMPLE))
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].split()[1].startswith("ok")


def test_a_port_that_is_taken_is_missing_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--port", str(port), "-o", "json")
    assert result.exit_code == 1
    check = next(c for c in json.loads(result.stdout)["checks"] if c["name"] == "port of the endpoint")
    assert (check["state"], str(port) in check["message"]) == ("missing", True)


def test_a_state_folder_that_cannot_be_written_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERSERVE_STATE", "/dev/null/state")
    check = named(local.folders(), "state folder")
    assert (check.state, "TIERSERVE_STATE" in check.hint) == ("missing", True)


def test_a_service_whose_supervisor_ended_is_a_warning_with_how_to_end_it(running: Callable[..., Any]) -> None:
    running("assistant")
    check = named(local.services(), "service assistant")
    assert (check.state, "tierserve down assistant" in check.hint) == ("warning", True)
    assert is_complete([check])


def test_the_cache_shows_its_models_and_a_limit_that_is_no_number_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERSERVE_MODEL_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "cache" / "one"
    model.mkdir(parents=True)
    (model / ".tierserve.json").write_text("{}")
    (model / "weights").write_bytes(b"x" * 200_000_000)
    assert "1 model, 0.2 GB" in local.model_cache().message
    monkeypatch.setenv("TIERSERVE_MODEL_CACHE_BYTES", "many")
    assert local.model_cache().state == "missing"


def test_an_old_python_and_missing_packages_are_missing_and_an_engine_that_no_model_needs_is_a_warning() -> None:
    assert local.python((3, 10, 2)).state == "missing"
    assert {check.state for check in local.packages(lambda _name: None)} == {"missing"}
    assert {check.state for check in local.engines(lambda _name: None)} == {"warning"}
    assert {check.state for check in local.engines(lambda _name: "1.0")} == {"ok"}


def test_memory_that_a_service_needs_and_is_not_free_is_missing() -> None:
    gaid = load(EXAMPLE)
    tier = next(t for t in gaid.spec.tiers if t.name == "cloud")
    many = tier.model_copy(update={"replicas": tier.replicas.model_copy(update={"min": 100_000, "max": 100_000})})
    spec = gaid.spec.model_copy(update={"tiers": tuple(many if t.name == "cloud" else t for t in gaid.spec.tiers)})
    assert local.memory(gaid.model_copy(update={"spec": spec})).state == "missing"


def test_one_missing_of_many_makes_the_whole_not_ok() -> None:
    checks = [Check("a", "ok", ""), Check("b", "warning", "", "x"), Check("c", "missing", "", "x")]
    assert as_data(checks)["ok"] is False
    assert as_data(checks[:2])["ok"] is True
