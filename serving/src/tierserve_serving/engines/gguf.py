"""Metadata of a GGUF file (the specification is docs/gguf.md of ggml), read without its lists.

The package `gguf` reads every token of the vocabulary into an array of its own, which takes seconds at each start.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def metadata(path: Path) -> dict[str, Any]:
    """Return the values by key; of a list its length, as a range. Raises `ValueError` if it is no GGUF file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path.name} is not a GGUF file")
        version, _, count = _unpack(file, "IQQ")
        if version not in (2, 3):
            raise ValueError(f"{path.name} has version {version} of GGUF")
        return {_string(file): _value(file, _unpack(file, "I")[0]) for _ in range(count)}


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
