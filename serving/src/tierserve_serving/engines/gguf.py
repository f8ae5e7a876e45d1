"""Metadata of a GGUF file (the specification is docs/gguf.md of ggml), read without its lists.

The package `gguf` reads every token of the vocabulary into an array of its own, which takes seconds at each start.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4  # of ggml (GGML_MAX_DIMS)


def metadata(path: Path) -> dict[str, Any]:
    """Return the values by key; of a list its length, as a range. Raises `ValueError` if it is no GGUF file."""
    with path.open("rb") as file:
        return _metadata(file, path.name)[0]


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a GGUF file.

    Attributes:
        metadata: as `metadata` returns them.
        shapes: dimensions of each tensor, the innermost first.
        least_bytes: the file has more than these: the last tensor begins there.
    """

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    least_bytes: int


def header(path: Path) -> Header:
    """Return metadata and tensors of a file. Raises `ValueError` if it is no GGUF file."""
    with path.open("rb") as file:
        values, count = _metadata(file, path.name)
        shapes, last = {}, 0
        for _ in range(count):
            name, dimensions = _string(file), _unpack(file, "I")[0]
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"{path.name}: a tensor has {dimensions} dimensions")
            shapes[name] = _unpack(file, f"{dimensions}Q")
            _, offset = _unpack(file, "IQ")
            last = max(last, offset)
        alignment = int(values.get("general.alignment", 32))
        return Header(values, shapes, -(-file.tell() // alignment) * alignment + last)


def _metadata(file: BinaryIO, name: str) -> tuple[dict[str, Any], int]:
    """Values by key, and the number of tensors."""
    if file.read(4) != b"GGUF":
        raise ValueError(f"{name} is not a GGUF file")
    version, tensors, count = _unpack(file, "IQQ")
    if version not in (2, 3):
        raise ValueError(f"{name} has version {version} of GGUF")
    return {_string(file): _value(file, _unpack(file, "I")[0]) for _ in range(count)}, tensors


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    size = struct.calcsize("<" + form)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file is cut off")
    return struct.unpack("<" + form, data)


def _string(file: BinaryIO) -> str:
    return file.read(_unpack(file, "Q")[0]).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind in _NUMBERS:
        return _unpack(file, _NUMBERS[kind])[0]
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        raise ValueError(f"a value has the unknown type {kind}")
    of, count = _unpack(file, "IQ")
    if of in _NUMBERS:
        numbers = _unpack(file, f"{count}{_NUMBERS[of]}")
        return list(numbers) if count < 10_000 else range(count)
    for _ in range(count):
        _value(file, of)
    return range(count)
