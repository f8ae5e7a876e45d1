"""Two services never share a folder or a port; a path fits a Unix socket."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from tierserve.runtime.local.paths import LocalError, ServicePaths, known_services
from tierserve.runtime.local.ports import free_port, free_ports, free_span, holder, is_free
from tierserve.runtime.local.state import LocalState


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path / ("deep" * 20)))


def test_services_of_different_names_share_nothing():
    one, two = ServicePaths.of("one"), ServicePaths.of("two")
    assert one.marker != two.marker
    assert one.root != two.root
    assert one.short != two.short


def test_sockets_fit_into_107_characters_however_deep_the_state_folder_is():
    assert len(str(ServicePaths.of("a" * 47).admin_socket)) < 60


@pytest.mark.parametrize("folder", ["with a blank", "deep" * 10, 'quoted"', "caf\u00e9"])
def test_sockets_are_in_tmp_where_tmpdir_is_too_long_or_needs_quotes(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / folder).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert ServicePaths.of("one").short.parent == Path("/tmp")


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null"])
def test_a_home_that_cannot_be_written_is_named_with_the_variable_that_helps(
    home: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TIERSERVE_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(LocalError, match=f"state folder {home}") as caught:
        ServicePaths.of("one").make()
    assert "TIERSERVE_STATE" in caught.value.hint
    assert known_services() == []


def test_a_user_without_home_and_passwd_entry_is_given_the_variable_that_helps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TIERSERVE_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", _no_home)
    for use in (known_services, lambda: ServicePaths.of("one")):
        with pytest.raises(LocalError, match="has no home") as caught:
            use()
        assert "TIERSERVE_STATE" in caught.value.hint


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")  # as pathlib does


def test_a_temporary_folder_that_another_user_made_first_is_refused(monkeypatch: pytest.MonkeyPatch):
    paths = ServicePaths.of("one")
    paths.make()
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(LocalError, match="belongs to another user"):
        paths.make()


@pytest.mark.parametrize("name", ["", "Upper", "a" * 48, "../etc", "a b", "-a"])
def test_a_name_that_is_no_dns_label_is_refused(name: str):
    with pytest.raises(LocalError, match=r"metadata\.name"):
        ServicePaths.of(name)


def test_the_state_is_read_back_as_it_was_written(tmp_path: Path):
    paths = ServicePaths.of("one")
    paths.make()
    state = LocalState.new(tmp_path / "service.yaml", 8080)
    state.save(paths.state)
    assert LocalState.load(paths.state) == state
    assert known_services() == ["one"]


@pytest.mark.parametrize("content", ["", "{", "{}", '{"file": 1}', "[]"])
def test_a_damaged_state_counts_as_none(tmp_path: Path, content: str):
    path = tmp_path / "state.json"
    path.write_text(content)
    assert LocalState.load(path) is None


def test_free_ports_differ_and_are_free():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)


def test_ports_are_outside_the_ephemeral_range():
    opened = [socket.socket() for _ in range(50)]
    for each in opened:
        each.bind(("127.0.0.1", 0))  # as connect() does
    lowest = min(each.getsockname()[1] for each in opened)
    for each in opened:
        each.close()
    assert max(free_ports(50)) < lowest


def test_who_asks_again_before_listening_gets_another_port():
    assert len({free_port() for _ in range(200)}) == 200


def test_a_port_that_is_held_for_datagrams_is_not_free():
    (port,) = free_ports(1)
    with socket.socket(type=socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", port))
        assert port not in free_ports(1_900) + free_ports(1_900), "each was asked for at least once"


def test_too_few_free_ports_is_an_error():
    with pytest.raises(OSError, match="fewer than 6000 free"):
        free_ports(6_000)


def test_a_port_in_use_is_reported_with_its_process():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        assert "process" in holder(port)


def test_a_span_holds_no_port_in_use():
    first, last = free_span(100)
    assert last - first == 100
    assert all(is_free(port) for port in range(first, last, 17))
