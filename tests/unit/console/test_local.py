"""Services of this machine: what is old, unsupervised or unreadable is said, and never shown as zero."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from tierserve.console.fleet import Fleet
from tierserve.console.local import LocalSource
from tierserve.console.sources import SourceError
from tierserve.runtime.local.processes import ProcessRef
from tierserve.runtime.local.state import LocalState

KEY = ("local", "assistant")


async def only(source: LocalSource):
    (service,) = await source.services()
    return service


async def test_a_service_has_status_objective_and_age(service):
    found = await only(LocalSource())
    assert found.key == KEY
    assert (found.target_s, found.percentile) == (1.5, 95)
    assert found.age_s < 60
    assert found.problems == ()


async def test_an_old_status_and_a_supervisor_that_ended_are_named(service):
    service.write(10.0, time.time() - 100)
    assert "old" in (await only(LocalSource())).problems[0]
    path = service.root / service.name / "state.json"
    state = LocalState.load(path)
    replace(state, processes={"supervisor": ProcessRef(os.getpid(), 1.0)}).save(path)
    assert "supervisor is not running" in (await only(LocalSource())).problems[0]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
async def test_a_status_that_cannot_be_parsed_is_no_status_yet(service, content):
    (service.root / service.name / "status.json").write_bytes(content)
    found = await only(LocalSource())
    assert found.status == {}
    assert found.problems


async def test_a_status_is_parsed_again_only_when_it_was_written(service):
    source = LocalSource()
    first = await only(source)
    assert (await only(source)).status is first.status
    service.write(30.0)
    assert (await only(source)).status is not first.status


async def test_the_document_is_the_file_and_an_invalid_file_is_an_error(service):
    source = LocalSource()
    document = await source.document(KEY)
    assert document["spec"]["tiers"][2]["price"] == 2.1
    assert await source.document(("local", "none")) is None
    assert await source.document(("other", "assistant")) is None
    assert await source.document(("local", "../assistant")) is None
    (service.root / service.name / "service.yaml").write_text("kind: GenAIDeployment")
    with pytest.raises(SourceError):
        await source.document(KEY)


async def test_while_the_source_cannot_be_read_the_last_figures_stay_and_the_time_is_named(service, monkeypatch):
    fleet = Fleet(LocalSource())
    await fleet.sample()
    before = fleet.listed("", 0, 50)
    monkeypatch.delenv("TIERSERVE_STATE")
    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # a user without an entry in /etc/passwd has no home
    await fleet.sample()
    await fleet.sample()
    after = fleet.listed("", 0, 50)
    assert after["services"] == before["services"]
    assert after["source"]["time"] == before["source"]["time"]
    assert after["source"]["error"]
    assert after["source"]["since"] >= before["source"]["time"]
    monkeypatch.setenv("TIERSERVE_STATE", str(service.root))
    await fleet.sample()
    assert fleet.listed("", 0, 50)["source"]["error"] is None
