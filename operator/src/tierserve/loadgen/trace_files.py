"""Files of request traces: columns by their names, in the public forms, as downloads and spreadsheets leave them.

A file is CSV (comma, semicolon or tab) or JSON lines, in UTF-8 or UTF-16 with or without byte order mark, plain or
gzip. Every cell is checked: a trace that is read wrongly plans for the wrong machine.
"""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierserve.loadgen.errors import LoadError

_Request = tuple[float, int, int]  # arrival in seconds of any origin, input tokens, output tokens
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TOKENS = 1_000_000_000  # of one request; more is a wrong column
_MAX_LENGTH_S = 10 * 365.25 * 86_400.0  # ten years; more is a wrong unit or a wrong cell
_SHOWN_CHARS, _SHOWN_COLUMNS = 40, 120  # characters of a wrong cell and of wrong column names in a message


@dataclass(frozen=True, slots=True)
class _Form:
    """A published form.

    Attributes:
        source: whose it is.
        time, inputs, outputs: names of the columns; case, blanks and underscores do not matter.
        unit_s: seconds of a time that is a number. A time may be a date in every form.
    """

    source: str
    time: str
    inputs: str
    outputs: str
    unit_s: float = 1.0

    def __str__(self) -> str:
        return f"{self.time}, {self.inputs}, {self.outputs} ({self.source})"


_FORMS = (
    _Form("Azure 2023, 2024", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    _Form("BurstGPT", "Timestamp", "Request tokens", "Response tokens"),
    _Form("Mooncake JSON lines, ms", "timestamp", "input_length", "output_length", 1e-3),
    _Form("ServeGen", "timestamp", "input_tokens", "output_tokens"),
    _Form("as shipped", "timestamp_ms", "input_length", "output_length", 1e-3),
)
HINT = "columns are, in any order: " + "; ".join(map(str, _FORMS))


def read_columns(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return arrivals (seconds from the first, ascending), input tokens and output tokens of the requests in a file.

    Raises:
        LoadError: the file cannot be read or a cell is wrong; the message has file, line and cell.
    """
    try:
        with _opened(path) as binary, _decoded(binary) as text:
            requests = list(_requests(path.name, text))
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise LoadError(f"{path}: {_reason(error)}", "check the file") from error
    if not requests:
        raise LoadError(f"{path.name}: has no requests", HINT)
    times, inputs, outputs = (np.array(column) for column in zip(*requests, strict=True))
    order = np.argsort(times, kind="stable")
    arrivals = np.asarray(times[order] - times[order[0]], dtype=np.float64)
    if not arrivals[-1] > 0.0:
        raise LoadError(f"{path.name}: all requests have the same time", "give requests at two times at least")
    if arrivals[-1] > _MAX_LENGTH_S:
        days = arrivals[-1] / 86_400.0
        raise LoadError(
            f"{path.name}: its first and last request are {days:,.0f} days apart", "check the times and their unit"
        )
    return arrivals, inputs[order].astype(np.int64), outputs[order].astype(np.int64)


def _reason(error: Exception) -> str:
    if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
        return f"it is damaged gzip ({error})"
    return str(getattr(error, "strerror", None) or error)


def _opened(path: Path) -> io.BufferedReader:
    """Open a file or a pipe, unpacked if it begins as gzip does."""
    if not path.is_fifo() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")  # a folder, or a device such as /dev/zero
    raw = path.open("rb")
    if raw.peek(2)[:2] != b"\x1f\x8b":
        return raw
    return io.BufferedReader(gzip.GzipFile(fileobj=raw))


def _decoded(binary: io.BufferedReader) -> io.TextIOWrapper:
    """Return the text. What is no UTF-8 cannot pass for a number, and does no harm in the columns that are not read."""
    utf16 = binary.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(binary, "utf-16" if utf16 else "utf-8-sig", errors="replace", newline="")


def _requests(name: str, text: Iterable[str]) -> Iterator[_Request]:
    form: _Form | None = None
    dates: bool | None = None
    for place, record in _records(name, text):
        form = form or _form(name, record)
        moment, is_date = _moment(place, form, record.get(_key(form.time)))
        if dates is not None and is_date != dates:
            raise _wrong(place, form.time, record.get(_key(form.time)), "a number among dates, or a date among numbers")
        dates = is_date
        yield moment, _tokens(place, form.inputs, record), _tokens(place, form.outputs, record)


def _records(name: str, text: Iterable[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield file and line of each record, and its cells by the key of their column."""
    lines = enumerate(text, start=1)
    number, first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    rest = chain([first], (line for _, line in lines))
    read = _json_records if first.lstrip().startswith("{") else _csv_records
    for offset, record in read(name, number - 1, rest):
        yield f"{name}, line {offset}", record


def _csv_records(name: str, before: int, lines: Iterator[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    head = next(lines)
    reader = csv.reader(chain([head], lines), delimiter=max(",;\t", key=head.count))
    header = [_key(column) for column in next(reader)]
    _form(name, dict.fromkeys(header))  # a file with no request in it may still have the wrong columns
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        line = before + reader.line_num
        if len(cells) != len(header):
            raise LoadError(
                f"{name}, line {line}: {len(cells)} cells, but the header has {len(header)}", "correct the line"
            )
        yield line, dict(zip(header, cells, strict=True))


def _json_records(name: str, before: int, lines: Iterator[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(lines, start=before + 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LoadError(f"{name}, line {number}: invalid JSON ({error})", "give one object per line") from error
        if not isinstance(record, dict):
            raise LoadError(f"{name}, line {number}: not a JSON object", "give one object per line")
        yield number, {_key(column): cell for column, cell in record.items()}


def _form(name: str, record: Mapping[str, object]) -> _Form:
    for form in _FORMS:
        if {_key(form.time), _key(form.inputs), _key(form.outputs)} <= record.keys():
            return form
    columns = ", ".join(map(repr, record))
    shown = columns if len(columns) <= _SHOWN_COLUMNS else columns[:_SHOWN_COLUMNS] + "..."
    raise LoadError(f"{name}: unknown columns ({shown})", HINT)


def _key(column: str) -> str:
    return re.sub(r"[\s_]", "", column).lower()


def _moment(place: str, form: _Form, cell: object) -> tuple[float, bool]:
    """Return a time in seconds, and whether it is a date; a date without offset is UTC."""
    value = _number(cell)
    if value is not None:
        return value * form.unit_s, False
    try:
        date = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        raise _wrong(place, form.time, cell, "not a time such as 2024-05-11 03:00:00.25 or a number") from None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return (aware - _EPOCH).total_seconds(), True


def _tokens(place: str, column: str, record: Mapping[str, object]) -> int:
    cell = record.get(_key(column))
    value = _number(cell)
    if value is None or not 0.0 <= value <= _MAX_TOKENS:
        raise _wrong(place, column, cell, f"not a number of tokens from 0 to {_MAX_TOKENS:,}")
    return round(value)


def _number(cell: object) -> float | None:
    """Return the finite number in a cell, else None."""
    if not isinstance(cell, str | int | float) or isinstance(cell, bool):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _wrong(place: str, column: str, cell: object, why: str) -> LoadError:
    text = "" if cell is None else str(cell).strip()
    if not text:
        return LoadError(f"{place}: {column} is empty", "fill the cell or take the line out")
    shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
    return LoadError(f"{place}: {column} is {why} ({shown!r})", "correct the cell or take the line out")
