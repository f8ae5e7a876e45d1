"""Request traces: arrivals and token counts as recorded by others, cut, compressed and capped for a machine.

Sources and licences are in data/README.md.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tierserve.loadgen.scenario import LoadError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SHIPPED = {
    "azure-code": ("azure_llm_2023_code.csv", "Azure LLM inference trace 2023 (code), CC-BY 4.0"),
    "mooncake-conversation": ("mooncake_conversation.csv", "Mooncake conversation trace, Apache-2.0"),
}
_RATES, _RATE_STEP_S = "servegen_rates_10min.csv", 600.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival.

    Attributes:
        times_s: arrival, seconds from the start of the piece; shape (n,), ascending.
        input_tokens, output_tokens: shape (n,).
        length_s: length of the piece; at least the last arrival.
    """

    name: str
    source: str
    times_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    length_s: float

    def __len__(self) -> int:
        return self.times_s.size

    @property
    def rate(self) -> float:
        """Mean arrivals per second."""
        return len(self) / self.length_s if self.length_s else 0.0

    def piece(self, start_s: float = 0.0, length_s: float | None = None) -> Trace:
        """The arrivals in [start_s, start_s + length_s), counted from start_s; a length beyond the end is cut.

        Raises:
            LoadError: the piece starts after the end or holds no request.
        """
        stop_s = self.length_s if length_s is None else min(start_s + length_s, self.length_s)
        low, high = np.searchsorted(self.times_s, (start_s, stop_s))
        if low >= high:
            raise LoadError(
                f"trace {self.name} has no request between {start_s:g} s and {stop_s:g} s",
                f"choose another piece of its {self.length_s:.0f} s",
            )
        return replace(
            self,
            times_s=self.times_s[low:high] - start_s,
            input_tokens=self.input_tokens[low:high],
            output_tokens=self.output_tokens[low:high],
            length_s=stop_s - start_s,
        )

    def compressed(self, time_scale: float) -> Trace:
        """The same requests in 1/time_scale of the time; the rate rises by that factor."""
        if not time_scale > 0:
            raise LoadError(f"time scale {time_scale:g} is not above 0", "10 replays ten times as fast")
        return replace(self, times_s=self.times_s / time_scale, length_s=self.length_s / time_scale)

    def capped(self, *, max_input: int | None = None, max_output: int | None = None, scale: float = 1.0) -> Trace:
        """Tokens multiplied by `scale`, then capped; at least one each."""
        return replace(
            self,
            input_tokens=_scaled(self.input_tokens, scale, max_input),
            output_tokens=_scaled(self.output_tokens, scale, max_output),
        )


def trace_names() -> tuple[str, ...]:
    """Names that `load_trace` knows; a path to a CSV file of the same columns works too."""
    return tuple(_SHIPPED)


def load_trace(name: str | Path, *, seed: int = 0) -> Trace:
    """A shipped trace by name, or a CSV file with the columns of either.

    Columns `TIMESTAMP, ContextTokens, GeneratedTokens` (UTC) or `timestamp_ms, input_length, output_length`. Requests
    that share one time stamp are spread at random (seeded) over the time to the next stamp.

    Raises:
        LoadError: unknown name, unreadable file or columns.
    """
    if str(name) in _SHIPPED:
        file, source = _SHIPPED[str(name)]
        with resources.files("tierserve.loadgen").joinpath("data", file).open(encoding="utf-8") as lines:
            return _read(str(name), source, lines, seed)
    path = Path(name)
    if not path.is_file():
        raise LoadError(f"no trace {name}", f"shipped are {', '.join(_SHIPPED)}; or give the path of a CSV file")
    with path.open(encoding="utf-8", newline="") as lines:
        return _read(path.stem, path.name, lines, seed)


def rate_names() -> tuple[str, ...]:
    """Categories that `load_rates` knows."""
    return tuple(dict.fromkeys(row[0] for row in _rate_rows()))


def load_rates(category: str) -> tuple[Floats, float]:
    """Requests per second of a ServeGen category, and the seconds that each value holds for.

    Raises:
        LoadError: unknown category.
    """
    values = [float(row[2]) for row in _rate_rows() if row[0] == category]
    if not values:
        raise LoadError(f"no rates of {category}", f"shipped are {', '.join(rate_names())}")
    return np.array(values), _RATE_STEP_S


def _rate_rows() -> list[list[str]]:
    with resources.files("tierserve.loadgen").joinpath("data", _RATES).open(encoding="utf-8") as lines:
        return list(csv.reader(lines))[1:]


def _read(name: str, source: str, lines: IO[str], seed: int) -> Trace:
    rows = csv.reader(lines)
    header = next(rows, [])
    try:
        times, inputs, outputs = zip(*((row[0], row[1], row[2]) for row in rows if row), strict=True)
        stamps = _seconds(header[0], times)
        tokens = np.array(inputs, dtype=np.int64), np.array(outputs, dtype=np.int64)
    except (ValueError, IndexError, KeyError) as error:
        raise LoadError(
            f"trace {name}: {error}",
            "columns are TIMESTAMP,ContextTokens,GeneratedTokens or timestamp_ms,input_length,output_length",
        ) from error
    order = np.argsort(stamps, kind="stable")
    spread = _spread(stamps[order] - stamps[order[0]], np.random.default_rng(seed))
    return Trace(name, source, spread, tokens[0][order], tokens[1][order], float(spread[-1]) if spread.size else 0.0)


def _seconds(column: str, values: tuple[str, ...]) -> Floats:
    if column == "TIMESTAMP":
        return np.array(values, dtype="datetime64[ns]").astype(np.int64) / 1e9
    if column == "timestamp_ms":
        return np.array(values, dtype=np.float64) / 1e3
    raise KeyError(f"unknown first column {column!r}")


def _spread(stamps: Floats, rng: np.random.Generator) -> Floats:
    """Each batch of equal stamps as uniform order statistics over the time to the next stamp (Poisson in between)."""
    unique, batch, counts = np.unique(stamps, return_inverse=True, return_counts=True)
    if unique.size < 2 or counts.max() == 1:
        return stamps
    gaps = np.diff(unique)
    room = np.append(gaps, np.median(gaps)) * (counts > 1)
    return np.sort(stamps + rng.random(stamps.size) * room[batch])


def _scaled(tokens: Ints, scale: float, most: int | None) -> Ints:
    return np.asarray(np.clip(np.rint(tokens * scale), 1, most), dtype=np.int64)
