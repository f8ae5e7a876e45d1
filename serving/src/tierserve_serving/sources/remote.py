"""What a remote source has: files with sizes and checksums, and which of them an engine needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from tierserve_serving.sources.errors import SourceError

Want = Literal["gguf", "folder", "adapter"]
"""What an engine loads: one GGUF file (its other parts beside it), or a folder with a model or a LoRA adapter."""
_MARKER = {"folder": "config.json", "adapter": "adapter_config.json"}
_WEIGHTS_IN_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ot")
_NEVER = ("*.gguf", "*.onnx", "*.onnx_data", "*.md", "*.png", "*.jpg", "*.gif", "*.pdf", ".*", "*/.*", "original/*")
_FIRST_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file.

    Attributes:
        name: path in the folder of the model.
        size: bytes.
        sha256: checksum, None if the source has none.
        read: opens the content from an offset; raises `TransferError` if it may be tried again.
        is_archive: whether it is a tar file whose members are the files of the model.
    """

    name: str
    size: int
    sha256: str | None
    read: Callable[[int], AbstractContextManager[Iterator[bytes]]]
    is_archive: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a model.

    Attributes:
        version: changes with the content: commit, digest, or hash of entity tags.
        files: the files to download.
        entry: the file that the engine loads, None for the folder.
    """

    version: str
    files: tuple[RemoteFile, ...]
    entry: str | None


def choose(names: Sequence[str], want: Want, file: str | None, source: str) -> tuple[list[str], str | None]:
    """Return the files that are needed and the one to load (None: the folder).

    Args:
        names: all files of the source.
        want: what the engine loads.
        file: the file that the source names, if any.
        source: as configured, for messages.

    Raises:
        SourceError: no file fits, or several do.
    """
    if want != "gguf":
        return _folder(names, file, source, _MARKER[want]), None
    candidates = [file] if file else [name for name in names if name.endswith(".gguf") and not _is_later_part(name)]
    if file and file not in names:
        gguf = ", ".join(name for name in names if name.endswith(".gguf")) or "none"
        raise SourceError(f"{source} has no file {file}", "FileNotFound", f"its GGUF files are: {gguf}")
    if len(candidates) != 1:
        found = ", ".join(candidates) or "none"
        raise SourceError(
            f"must name one GGUF file of {source} (it has: {found})", "AmbiguousFile", "append /FILE to choose one"
        )
    entry = candidates[0]
    return _parts(entry, names, source), entry


def _folder(names: Sequence[str], file: str | None, source: str, marker: str) -> list[str]:
    if file:
        raise SourceError(
            f"{source} names a file, and this engine loads a folder", "InvalidSource", f"remove /{file} at its end"
        )
    if marker not in names:
        raise SourceError(
            f"{source} has no {marker}, so it is no model in the format of transformers",
            "FileNotFound",
            "use another repository or folder, or engine llamacpp for GGUF files",
        )
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    unused = _NEVER + (_WEIGHTS_IN_OTHER_FORMATS if has_safetensors else ())
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in unused)]


def _is_later_part(name: str) -> bool:
    return re.search(r"-\d{5}-of-\d{5}\.gguf$", name) is not None and not _FIRST_PART.search(name)


def _parts(entry: str, names: Sequence[str], source: str) -> list[str]:
    """The file and, if it is the first of several parts, the others."""
    match = _FIRST_PART.search(entry)
    if match is None:
        return [entry]
    stem, count = entry[: match.start()], match[1]
    parts = [f"{stem}-{number:05d}-of-{count}.gguf" for number in range(1, int(count) + 1)]
    if missing := [part for part in parts if part not in names]:
        raise SourceError(f"{source} lacks {missing[0]}", "FileNotFound", "use a repository that has all parts")
    return parts
