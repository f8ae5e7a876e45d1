"""The cache by itself: eviction, a full disk, one that is not writable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tierserve_serving.sources.cache import ModelCache
from tierserve_serving.sources.errors import SourceError
from tierserve_serving.sources.remote import RemoteFile, Snapshot

SIZE = 100_000


@contextmanager
def content(size: int, offset: int) -> Iterator[Iterator[bytes]]:
    yield iter([bytes(size - offset)])


def snapshot(size: int = SIZE) -> Snapshot:
    return Snapshot("1", (RemoteFile("a.gguf", size, None, partial(content, size)),), "a.gguf")


def fill(root: Path, name: str) -> None:
    """Put a model into the cache by a process that has ended, so that it is not in use."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_cache import *\n"
        f"ModelCache(Path({str(root)!r})).get({name!r}, 'gguf', snapshot)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def models(root: Path) -> list[str]:
    return sorted(path.parent.name.partition("-")[0] for path in root.glob("*/.tierserve.json"))


def test_the_least_recently_used_model_is_removed_for_a_new_one(tmp_path: Path) -> None:
    for age, name in ((300, "hf://old"), (200, "hf://used"), (100, "hf://new")):
        fill(tmp_path, name)
        (manifest,) = tmp_path.glob(f"{name[5:]}-*/.tierserve.json")
        os.utime(manifest, (manifest.stat().st_mtime - age,) * 2)
    cache = ModelCache(tmp_path, max_bytes=3 * SIZE)
    cache.get("hf://used", "gguf", snapshot)
    cache.get("hf://next", "gguf", snapshot)
    assert models(tmp_path) == ["new", "next", "used"]
    cache.get("hf://last", "gguf", snapshot)
    assert models(tmp_path) == ["last", "next", "used"], "used is in use by this process"


def test_a_model_that_another_process_has_loaded_is_kept(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_cache import *\n"
        f"ModelCache(Path({str(tmp_path)!r})).get('hf://loaded', 'gguf', snapshot)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        cache = ModelCache(tmp_path, max_bytes=SIZE)
        cache.get("hf://mine", "gguf", snapshot)
        assert models(tmp_path) == ["loaded", "mine"], "above the limit rather than without the file in use"
        other.communicate("")
    cache.evict(SIZE, tmp_path / "none")
    assert models(tmp_path) == ["mine"]


def test_a_model_larger_than_the_cache_may_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        ModelCache(tmp_path, max_bytes=SIZE - 1).get("hf://big", "gguf", snapshot)
    assert caught.value.reason == "CacheTooSmall"


def test_a_model_larger_than_the_disk_is_refused_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        ModelCache(tmp_path).get("hf://big", "gguf", lambda: snapshot(10**18))
    assert caught.value.reason == "DiskFull"
    assert "GB free" in str(caught.value)
    assert list(tmp_path.rglob("*.incomplete")) == []


@contextmanager
def full_disk(offset: int) -> Iterator[Iterator[bytes]]:
    """A real ENOSPC in the middle of a download: /dev/full refuses every write."""

    def chunks() -> Iterator[bytes]:
        yield b"GGUF"
        with Path("/dev/full").open("wb", buffering=0) as disk:
            disk.write(b"x")

    yield chunks()


def test_a_disk_that_is_full_during_the_download_is_named_and_the_next_start_continues(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    full = Snapshot("1", (RemoteFile("a.gguf", SIZE, None, full_disk),), "a.gguf")
    with pytest.raises(SourceError) as caught:
        cache.get("hf://a", "gguf", lambda: full)
    assert caught.value.reason == "DiskFull"
    assert cache.get("hf://a", "gguf", snapshot).read_bytes() == b"GGUF" + bytes(SIZE - 4)


def test_a_cache_that_is_not_writable_is_named() -> None:
    with pytest.raises(SourceError) as caught:
        ModelCache(Path("/proc/models")).get("hf://a", "gguf", snapshot)
    assert caught.value.reason == "CacheNotWritable"
