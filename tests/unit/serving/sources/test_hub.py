"""hf:// against a real HTTP server with the hub's API, by the hub's own library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.serving.sources.conftest import FOLDER, GGUF
from tests.unit.serving.sources.servers import Hub, serving

from tierserve_serving import sources
from tierserve_serving.sources import cache as caching
from tierserve_serving.sources import model_folder, model_path
from tierserve_serving.sources.errors import SourceError

pytestmark = pytest.mark.usefixtures("hub")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "_RETRY_S", 0.01)


def reason(source: str) -> str:
    with pytest.raises(SourceError) as caught:
        model_path(source)
    assert str(caught.value).startswith("source: ")
    assert "; hint: " in str(caught.value)
    return caught.value.reason


def test_a_file_of_a_repository_is_downloaded_and_the_others_are_not(hub: Hub) -> None:
    assert model_path("hf://org/tiny-GGUF/q4.gguf").read_bytes() == GGUF
    assert [name for name, _ in hub.downloads] == ["q4.gguf"]


def test_the_only_gguf_file_need_not_be_named_and_one_of_several_must(hub: Hub) -> None:
    assert model_path("hf://org/one-GGUF").name == "one.gguf"
    assert reason("hf://org/tiny-GGUF") == "AmbiguousFile"
    assert reason("hf://org/tiny-GGUF/q5.gguf") == "FileNotFound"


def test_the_other_parts_of_a_file_are_downloaded_beside_it(hub: Hub) -> None:
    path = model_path("hf://org/parts-GGUF")
    assert path.name == "big-00001-of-00002.gguf"
    assert path.with_name("big-00002-of-00002.gguf").read_bytes() == GGUF[2:]


def test_a_folder_has_what_transformers_reads_and_weights_in_one_format(hub: Hub) -> None:
    folder = model_folder("hf://org/tiny")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == FOLDER["model.safetensors"]


def test_a_second_replica_downloads_nothing(hub: Hub) -> None:
    first = model_path("hf://org/one-GGUF")
    assert model_path("hf://org/one-GGUF") == first
    assert len(hub.downloads) == 1


def test_replicas_that_start_at_once_share_one_download(hub: Hub) -> None:
    program = "from tierserve_serving.sources import model_path; print(model_path('hf://org/one-GGUF'))"
    command = [sys.executable, "-c", program]
    replicas = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({replica.communicate(timeout=60)[0] for replica in replicas}) == 1
    assert all(replica.returncode == 0 for replica in replicas)
    assert len(hub.downloads) == 1


def test_a_revision_is_a_version_of_its_own(hub: Hub) -> None:
    assert model_path("hf://org/tiny-GGUF@v2/q4.gguf").read_bytes() == b"GGUF2"
    assert model_path("hf://org/tiny-GGUF@main/q4.gguf").read_bytes() == GGUF
    assert reason("hf://org/tiny-GGUF@v3/q4.gguf") == "RevisionNotFound"


def test_a_changed_branch_is_downloaded_at_the_next_start(hub: Hub) -> None:
    before = model_path("hf://org/one-GGUF")
    hub.files["org/one-GGUF"]["main"] = {"one.gguf": GGUF[::-1]}
    after = model_path("hf://org/one-GGUF")
    assert (before.read_bytes(), after.read_bytes()) == (GGUF, GGUF[::-1])


def test_a_missing_repository_is_named() -> None:
    assert reason("hf://org/none") == "RepositoryNotFound"
    assert reason("hf://none") == "InvalidSource"


def test_a_gated_repository_needs_a_token_with_access(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add("org/one-GGUF")
    assert reason("hf://org/one-GGUF") == "TokenRequired"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert reason("hf://org/one-GGUF") == "AccessDenied"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert model_path("hf://org/one-GGUF").read_bytes() == GGUF


def test_a_connection_that_ends_early_is_continued_where_it_ended(hub: Hub) -> None:
    hub.cut_after["one.gguf"] = 300_000
    assert model_path("hf://org/one-GGUF").read_bytes() == GGUF
    (_, begin), (_, resumed) = hub.downloads
    assert begin == 0
    assert 0 < resumed <= 300_000


def test_a_download_interrupted_by_the_end_of_the_process_is_continued(hub: Hub, tmp_path: Path) -> None:
    model_path("hf://org/one-GGUF")
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    partial = folder.with_name(f"{folder.name}.partial")
    folder.rename(partial)
    (partial / ".tierserve.json").unlink()
    (partial / "one.gguf").rename(partial / "one.gguf.incomplete")
    os.truncate(partial / "one.gguf.incomplete", 1000)
    assert model_path("hf://org/one-GGUF").read_bytes() == GGUF
    assert hub.downloads[-1] == ("one.gguf", 1000)


def test_a_server_that_always_ends_early_is_named_and_the_next_start_continues(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "_ATTEMPTS", 1)
    hub.cut_after["one.gguf"] = 300_000
    hub.hold = None
    original = hub.cut_after

    class Always(dict[str, int]):
        def pop(self, name: str, *_: Any) -> int:  # type: ignore[override]
            return 0 if hub.downloads[-1][1] else 300_000

    hub.cut_after = Always()
    assert reason("hf://org/one-GGUF") == "Truncated"
    hub.cut_after = original
    hub.cut_after.clear()
    assert model_path("hf://org/one-GGUF").read_bytes() == GGUF


def test_a_corrupt_file_is_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.corrupt.add("one.gguf")
    assert reason("hf://org/one-GGUF") == "ChecksumMismatch"
    assert list((tmp_path / "cache").rglob("*.gguf*")) == []
    hub.corrupt.clear()
    assert model_path("hf://org/one-GGUF").read_bytes() == GGUF


def test_a_file_truncated_in_the_cache_is_downloaded_again(hub: Hub) -> None:
    path = model_path("hf://org/one-GGUF")
    os.truncate(path, 10)
    assert model_path("hf://org/one-GGUF").read_bytes() == GGUF


def test_without_network_the_version_in_the_cache_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_path("hf://org/one-GGUF")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert model_path("hf://org/one-GGUF") == path
    assert reason("hf://org/tiny-GGUF/q4.gguf") == "Unreachable"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert model_path("hf://org/one-GGUF") == path
    assert reason("hf://org/tiny-GGUF/q4.gguf") == "NotCached"


def test_progress_is_reported_from_none_to_all(hub: Hub) -> None:
    seen: list[sources.Progress] = []
    sources.report_to(seen.append)
    model_path("hf://org/one-GGUF")
    assert (seen[0].done, seen[0].total) == (0, len(GGUF))
    assert (seen[-1].done, seen[-1].total) == (len(GGUF), len(GGUF))
    assert seen[0].source == "hf://org/one-GGUF"


def test_an_error_passes_between_processes_with_its_reason() -> None:
    import pickle

    with pytest.raises(SourceError) as caught:
        model_path("hf://org/none")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), "RepositoryNotFound")


def test_a_mirror_without_the_file_that_it_lists_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Hub({"org/a": {"main": {"../../a.gguf": GGUF}}})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert reason("hf://org/a") == "InvalidSource", "a file outside the folder of the model"
    assert not (tmp_path / "a.gguf").exists()
