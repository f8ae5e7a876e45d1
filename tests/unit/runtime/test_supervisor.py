"""A file that is followed is served as it last was good, whatever is saved over it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tierserve.runtime.local import supervisor
from tierserve.runtime.local.supervisor import FollowedFile

TEXT = (Path(__file__).parents[3] / "examples" / "smallest.yaml").read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(TEXT)
    return path


SPOILED = [
    b"metadata: {name: {{ .Values.name }}}\n",
    b"spec: &s\n  tiers: [*s]\n",
    b"a: &a [x, x]\nb: {<<: *a}\n",
    b"a: " + b"[" * 5000,
    b"a: .nan\n",
    b"\x80\x00",
    b"",
    TEXT.replace("weights: 16Gi", "weights: 1600Gi").encode(),
    (TEXT + "---\n" + TEXT).encode(),
]


@pytest.mark.parametrize("content", SPOILED)
def test_what_is_saved_over_a_live_file_leaves_the_last_good_version_in_force(
    content: bytes, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = FollowedFile(file)
    good = followed.read()
    assert good is not None
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING, "tierserve.local"):
        assert followed.read() is good
        assert followed.read() is good
    assert "service.yaml" in followed.problem
    assert [record.getMessage() for record in caplog.records] == [followed.problem], "once, not at every pass"
    file.write_text(TEXT)
    again = followed.read()
    assert again == good, "the same spec is the same generation"
    assert followed.problem == ""


def test_an_unexpected_error_does_not_end_the_service(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = FollowedFile(file)
    good = followed.read()
    monkeypatch.setattr(supervisor, "load", lambda _: {}["x"])
    file.write_text(TEXT + "# changed\n")
    assert followed.read() is good
    assert "KeyError" in followed.problem


def test_a_file_that_comes_back_as_it_was_has_no_problem_left(file: Path, tmp_path: Path) -> None:
    followed = FollowedFile(file)
    followed.read()
    file.rename(tmp_path / "away")
    assert followed.read() is not None
    assert "No such file" in followed.problem
    (tmp_path / "away").rename(file)
    assert followed.read() is not None
    assert followed.problem == ""
