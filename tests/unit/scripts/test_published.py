"""Published programs: taken where they are in reach and whole."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import published  # noqa: E402

PROGRAM = b"#!/bin/sh\necho kubelet\n"


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a release on a site."""
    monkeypatch.setattr(published.platform, "machine", lambda: "x86_64")
    folder = tmp_path / "site" / "release" / "v1.34.4" / "bin" / "linux" / "amd64"
    folder.mkdir(parents=True)
    (folder / "kubelet").write_bytes(PROGRAM)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


def test_a_program_is_taken_when_its_checksum_is_right(release: Path, site: str, kept: Path) -> None:
    (release / "kubelet.sha256").write_text(hashlib.sha256(PROGRAM).hexdigest())
    assert published.fetch("kubelet", "v1.34.4", kept, site)
    assert (kept / "kubelet").read_bytes() == PROGRAM
    assert (kept / "kubelet").stat().st_mode & 0o777 == 0o755
    assert [one.name for one in kept.iterdir()] == ["kubelet"]


@pytest.mark.parametrize("checksum", ["", "0" * 64])
def test_one_that_is_not_whole_is_left(release: Path, site: str, kept: Path, checksum: str) -> None:
    (release / "kubelet.sha256").write_text(checksum)
    assert not published.fetch("kubelet", "v1.34.4", kept, site)
    assert list(kept.iterdir()) == []


def test_where_nothing_is_in_reach_there_is_nothing(release: Path, site: str, kept: Path) -> None:
    assert not published.fetch("kube-proxy", "v1.34.4", kept, site)
    assert not published.fetch("kubelet", "v1.34.4", kept, "http://127.0.0.1:1")
    assert list(kept.iterdir()) == []
