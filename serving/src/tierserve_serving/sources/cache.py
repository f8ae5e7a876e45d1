"""Cache of downloaded models on a node: one download for all replicas, resumed after an interruption.

    NAME-HASH/                  a complete model, renamed to this name when all its files are verified
    NAME-HASH/.tierserve.json   its source, version, files and sizes
    NAME-HASH.partial/          a download in progress; FILE.incomplete is continued after an interruption
    NAME-HASH.lock              flock of the process that downloads
    NAME-HASH.used              shared flock of the processes that have the model loaded; not evicted meanwhile
    NAME-HASH.progress.json     bytes so far and in total

Locks are advisory locks of the file system, so they hold between the pods of a node, and end with their process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierserve_serving.sources.errors import Reason, SourceError, TransferError
from tierserve_serving.sources.remote import RemoteFile, Snapshot, Want

logger = logging.getLogger("ray.serve")
MANIFEST = ".tierserve.json"
_FILES_AT_ONCE = 4
_ATTEMPTS = 4  # without a byte more; then the reason is reported, 14 s after the first
_RETRY_S = 1.0  # doubled after each attempt
_REPORT_S = 1.0
_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_in_use: dict[Path, int] = {}
"""File descriptors of the shared locks of this process, which hold until it ends."""


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a download, for status and logs."""

    source: str
    done: int
    total: int


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class ModelCache:
    """The cache in one folder.

    Attributes:
        root: the folder; it is created.
        max_bytes: least recently used models are removed above this size; None for no limit but the disk's.
        report: called at the begin, about once a second, and at the end of a download.
    """

    root: Path
    max_bytes: int | None = None
    report: Report = field(default=lambda _: None)

    def get(self, source: str, want: Want, snapshot: Callable[[], Snapshot], *, offline: bool = False) -> Path:
        """Return the file or folder to load, downloaded if it is not complete in the cache.

        Where the source is not reachable, the last version in the cache is used.

        Raises:
            SourceError: with the reason.
        """
        self._make_root()
        if offline:
            return self._cached(source, want) or self._raise_not_cached(source)
        try:
            found = snapshot()
        except SourceError as error:
            cached = self._cached(source, want) if error.reason == "Unreachable" else None
            if cached is None:
                raise
            logger.warning("%s; the version in the cache is used: %s", error.message, cached)
            return cached
        folder = self.root / _folder_name(source, want, found.version)
        if not self._is_complete(folder):
            with _locked(folder.with_name(f"{folder.name}.lock")):
                if not self._is_complete(folder):  # else another replica downloaded it meanwhile
                    _Download(self, folder, source, want, found).run()
        return self._used(folder)

    def peek(self, source: str, want: Want) -> Path | None:
        """Return the file or folder of the last complete version of a source; it is neither locked nor marked as used.

        For a reader who can do without it, such as a plan.
        """
        folder = self._last_version(source, want)
        entry = _manifest(folder).get("entry") if folder else None
        return folder / entry if folder and entry else folder

    def evict(self, needed: int, keep: Path) -> None:
        """Remove least recently used models that no process has loaded, until `needed` bytes more fit."""
        interrupted = [
            folder for folder in self.root.glob("*.partial") if folder != keep.with_name(f"{keep.name}.partial")
        ]
        models = sorted(self._models(), key=lambda folder: (folder / MANIFEST).stat().st_mtime)
        for folder in (*interrupted, *models):
            if self._has_room(needed, keep):
                return
            if folder != keep and _remove_unused(folder):
                logger.info("model cache: %s removed, the least recently used", folder.name)

    def free_bytes(self) -> int:
        """Bytes that the disk has free."""
        return shutil.disk_usage(self.root).free

    def _has_room(self, needed: int, keep: Path) -> bool:
        others = sum(_size(folder) for folder in self._models() if folder != keep)
        return needed <= self.free_bytes() and (self.max_bytes is None or others + needed <= self.max_bytes)

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            readable = os.access(self.root, os.W_OK | os.X_OK)
        except OSError:
            readable = False
        if not readable:
            raise SourceError(
                f"the model cache {self.root} is not writable for user {os.getuid()}",
                "CacheNotWritable",
                "change the owner of the directory, or use another volume (tiers[].modelCache)",
            )

    def _models(self) -> list[Path]:
        return [manifest.parent for manifest in self.root.glob(f"*/{MANIFEST}") if manifest.parent.suffix != ".partial"]

    def _cached(self, source: str, want: Want) -> Path | None:
        """The last complete version of a source, marked as used."""
        folder = self._last_version(source, want)
        return self._used(folder) if folder else None

    def _last_version(self, source: str, want: Want) -> Path | None:
        manifests = ((folder, _manifest(folder)) for folder in self._models())
        complete = [
            ((folder / MANIFEST).stat().st_mtime, folder)
            for folder, manifest in manifests
            if manifest.get("source") == source and manifest.get("want") == want and self._is_complete(folder)
        ]
        return max(complete)[1] if complete else None

    def _raise_not_cached(self, source: str) -> Path:
        raise SourceError(
            f"{source} is not in the cache {self.root}, and HF_HUB_OFFLINE=1 allows no download",
            "NotCached",
            "start it once with network, copy the cache, or use file:// or pvc://",
        )

    def _is_complete(self, folder: Path) -> bool:
        """Whether every file has its size: a truncated one is downloaded again."""
        files = _manifest(folder).get("files", {})
        with contextlib.suppress(OSError):
            return bool(files) and all((folder / name).stat().st_size == size for name, size in files.items())
        return False

    def _used(self, folder: Path) -> Path:
        _hold_shared(folder.with_name(f"{folder.name}.used"))
        with contextlib.suppress(OSError):
            os.utime(folder / MANIFEST)
        entry = _manifest(folder).get("entry")
        return folder / entry if entry else folder


class _Download:
    """Download of one snapshot into `folder`; the caller holds the lock."""

    def __init__(self, cache: ModelCache, folder: Path, source: str, want: Want, snapshot: Snapshot) -> None:
        self._cache, self._folder, self._source, self._want, self._snapshot = cache, folder, source, want, snapshot
        self._partial = folder.with_name(f"{folder.name}.partial")
        self._total = sum(file.size for file in snapshot.files)
        self._done = 0
        self._reported = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self) -> None:
        if self._folder.exists():  # incomplete: some file was truncated or deleted
            shutil.rmtree(self._partial, ignore_errors=True)
            self._folder.rename(self._partial)
            (self._partial / MANIFEST).unlink(missing_ok=True)
        try:
            self._partial.mkdir(exist_ok=True)
            self._make_room()
            self._add(0, force=True)
            self._fetch_all()
            self._finish()
        except OSError as error:
            if error.errno in _FULL:
                raise self._disk_full() from error
            raise
        self._add(0, force=True)

    def _make_room(self) -> None:
        present = sum(file.stat().st_size for file in self._partial.rglob("*") if file.is_file())
        needed = max(0, self._total - present)
        limit = self._cache.max_bytes
        if limit is not None and self._total > limit:
            raise SourceError(
                f"{self._source} has {_gb(self._total)}, and the model cache may have {_gb(limit)}",
                "CacheTooSmall",
                "raise tiers[].modelCache.maxSize",
            )
        self._cache.evict(self._total if limit is not None else needed, self._folder)
        if needed > self._cache.free_bytes():
            raise self._disk_full()

    def _disk_full(self) -> SourceError:
        return SourceError(
            f"{self._source} has {_gb(self._total)}, and the disk of the model cache {self._cache.root} has "
            f"{_gb(self._cache.free_bytes())} free",
            "DiskFull",
            "use a larger volume (tiers[].modelCache), or delete files there; the download is continued",
        )

    def _fetch_all(self) -> None:
        with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="download") as pool:
            futures = [pool.submit(self._fetch, file) for file in self._snapshot.files]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        errors = [error for future in done if (error := future.exception()) is not None]
        if errors:
            raise errors[0]

    def _fetch(self, file: RemoteFile) -> None:
        target = self._partial / file.name
        if not target.resolve().is_relative_to(self._partial.resolve()):
            raise SourceError(
                f"{self._source} has a file {file.name!r} outside its folder", "InvalidSource", "do not use it"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.stat().st_size == file.size:  # verified before the interruption
            self._add(file.size)
            return
        target.unlink(missing_ok=True)
        incomplete = target.with_name(f"{target.name}.incomplete")
        checksum = self._receive(file, incomplete)
        if file.sha256 is not None and checksum != file.sha256:
            incomplete.unlink()
            raise SourceError(
                f"{self._source}: {file.name} has SHA-256 {checksum[:12]}..., the source lists {file.sha256[:12]}...",
                "ChecksumMismatch",
                "try again; if it stays, the file of the source or a proxy before it is corrupt",
            )
        incomplete.rename(target)

    def _receive(self, file: RemoteFile, path: Path) -> str:
        """Append to `path` until the file is complete; returns its SHA-256."""
        failures = 0
        while True:
            digest, offset = hashlib.sha256(), 0
            if path.exists():
                offset = _hash_into(digest, path, file.size)
            self._add(offset)
            before = offset
            try:
                if offset < file.size:
                    offset = self._append(file, path, offset, digest)
                if offset == file.size:
                    path.touch()
                    return digest.hexdigest()
                problem = f"the connection ended after {offset} of {file.size} bytes"
            except TransferError as error:
                problem = str(error)
                offset = path.stat().st_size if path.exists() else 0
            self._add(-offset)
            failures = 0 if offset > before else failures + 1
            if failures >= _ATTEMPTS:
                reason: Reason = "Truncated" if offset else "Unreachable"
                raise SourceError(
                    f"{self._source}: {file.name} cannot be downloaded: {problem}".splitlines()[0][:300],
                    reason,
                    "check the network and try again; the download is continued",
                )
            if self._stop.wait(_RETRY_S * 2**failures):
                raise TransferError("another file failed")

    def _append(self, file: RemoteFile, path: Path, offset: int, digest: Any) -> int:
        with file.read(offset) as chunks, path.open("ab") as sink:
            for chunk in chunks:
                data = chunk[: file.size - offset]
                sink.write(data)
                digest.update(data)
                offset += len(data)
                self._add(len(data))
                if self._stop.is_set():
                    raise TransferError("another file failed")
            sink.flush()
            os.fsync(sink.fileno())
        return offset

    def _finish(self) -> None:
        for file in self._snapshot.files:
            if file.is_archive:
                _extract(self._partial / file.name, self._partial)
        names = [path for path in self._partial.rglob("*") if path.is_file() and not path.name.endswith(".incomplete")]
        files = {str(path.relative_to(self._partial)): path.stat().st_size for path in names}
        entry = self._snapshot.entry
        if any(file.is_archive for file in self._snapshot.files):
            entry = _entry_of_archive(sorted(files), self._want, self._source)
        manifest = {
            "source": self._source,
            "want": self._want,
            "version": self._snapshot.version,
            "entry": entry,
            "files": files,
        }
        (self._partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        self._partial.rename(self._folder)

    def _add(self, count: int, *, force: bool = False) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if not force and now - self._reported < _REPORT_S:
                return
            self._reported = now
            progress = Progress(self._source, self._done, self._total)
        content = {"source": self._source, "done": progress.done, "total": progress.total, "time": time.time()}
        file = self._folder.with_name(f"{self._folder.name}.progress.json")
        with contextlib.suppress(OSError):
            temporary = file.with_suffix(f".{threading.get_ident()}")
            temporary.write_text(json.dumps(content))
            temporary.replace(file)
        self._cache.report(progress)


def _entry_of_archive(names: list[str], want: Want, source: str) -> str | None:
    from tierserve_serving.sources.remote import choose

    _, entry = choose(names, want, None, source)
    return entry


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()


def _folder_name(source: str, want: Want, version: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", source.partition("://")[2])[:60].strip("-.")
    return f"{readable}-{hashlib.sha256(f'{source} {want} {version}'.encode()).hexdigest()[:12]}"


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return content


def _size(folder: Path) -> int:
    return sum(_manifest(folder).get("files", {}).values())


def _hash_into(digest: Any, path: Path, size: int) -> int:
    """Hash what was received before; what is longer than the file is cut off."""
    with path.open("rb+") as file:
        file.truncate(min(path.stat().st_size, size))
        while block := file.read(_BLOCK):
            digest.update(block)
        return file.tell()


def _remove_unused(folder: Path) -> bool:
    """Remove a model or an interrupted download, unless a process has it loaded or downloads it."""
    name = folder.name.removesuffix(".partial")
    if folder.with_name(f"{name}.used") in _in_use:
        return False
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder.with_name(f"{name}.lock"), wait=False))
            stack.enter_context(_locked(folder.with_name(f"{name}.used"), wait=False))
        except BlockingIOError:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock; BlockingIOError if another process holds it and `wait` is False."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _hold_shared(path: Path) -> None:
    if path not in _in_use:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _in_use[path] = descriptor


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
