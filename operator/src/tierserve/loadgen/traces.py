"""Request traces: arrivals and token counts as recorded by others, cut, compressed and capped for a machine.

Sources and licences are in data/README.md.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierserve.loadgen.errors import LoadError, LoadUsageError
from tierserve.loadgen.trace_files import read_columns

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
            LoadUsageError: the piece starts after the end or holds no request.
        """
        stop_s = self.length_s if length_s is None else min(start_s + length_s, self.length_s)
        low = np.searchsorted(self.times_s, start_s)
        # The last request comes at the very end of the trace and belongs to it.
        high = np.searchsorted(self.times_s, stop_s, side="right" if stop_s == self.length_s else "left")
        if low >= high:
            raise LoadUsageError(
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
            raise LoadUsageError(f"time_scale: must be above 0 ({time_scale:g})", "10 replays ten times as fast")
        return replace(self, times_s=self.times_s / time_scale, length_s=self.length_s / time_scale)

    def capped(self, *, max_input: int | None = None, max_output: int | None = None, scale: float = 1.0) -> Trace:
        """Tokens multiplied by `scale`, then capped; at least one each."""
        return replace(
            self,
            input_tokens=_scaled(self.input_tokens, scale, max_input),
            output_tokens=_scaled(self.output_tokens, scale, max_output),
        )


def trace_names() -> tuple[str, ...]:
    """Names that `load_trace` knows; the path of a file works too."""
    return tuple(_SHIPPED)


def load_trace(name: str | Path, *, seed: int = 0) -> Trace:
    """A shipped trace by name, or a file in one of the forms of `trace_files`.

    Requests that share one time stamp are spread at random (seeded) over the tick of the recording's clock.

    Raises:
        LoadError: unknown name, unreadable file, or a wrong cell.
    """
    if str(name) in _SHIPPED:
        file, source = _SHIPPED[str(name)]
        with resources.as_file(resources.files("tierserve.loadgen").joinpath("data", file)) as path:
            return _read(path, str(name), source, seed)
    path = Path(name)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise LoadError(
            f"trace: is unknown ({name}): {reason}", f"choose one of {', '.join(_SHIPPED)}; or give the path of a file"
        ) from None
    return _read(path, path.name.split(".")[0] or path.name, path.name, seed)


def _read(path: Path, name: str, source: str, seed: int) -> Trace:
    stamps, inputs, outputs = read_columns(path)
    spread = _spread(stamps, np.random.default_rng(seed))
    return Trace(name, source, spread, inputs, outputs, float(spread[-1]))


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


def _spread(stamps: Floats, rng: np.random.Generator) -> Floats:
    """Each batch of equal stamps as uniform order statistics over the clock's tick (Poisson in between).

    The tick is the least distance of two stamps: 3 s for Mooncake, 1 s for BurstGPT.
    """
    unique, counts = np.unique(stamps, return_counts=True)
    if unique.size < 2 or counts.max() == 1:
        return stamps
    shared = np.repeat(counts > 1, counts)
    return np.sort(stamps + rng.random(stamps.size) * np.diff(unique).min() * shared)


def _scaled(tokens: Ints, scale: float, most: int | None) -> Ints:
    return np.asarray(np.clip(np.rint(tokens * scale), 1, most), dtype=np.int64)
