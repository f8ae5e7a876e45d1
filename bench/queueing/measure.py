"""Queueing formulas compared with other libraries: `make bench`, or python -m bench.queueing.measure [--out FILE.json].

Shows the medians of one Erlang C and of one staffing for loads up to a million erlangs, beside the plain recursion for
Erlang B (in Python, as most calculators have it) and pyworkforce, and the error of each against 50-digit arithmetic.
Ends with status 1 if a bound of the project is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mpmath as mp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tierserve.queueing import erlang_c, log_erlang_c, response_quantile, servers_for

SIZES = ((10, 8.0), (1_000, 970.0), (10_000, 9_900.0), (100_000, 99_800.0), (1_000_000, 999_000.0))
PEER_LIMIT = 20_000  # pyworkforce takes seconds above
EVALUATION_BOUND_US, STAFFING_BOUND_US, ERROR_BOUND = 15.0, 100.0, 1e-12


def recursion(c: int, a: float) -> float:
    """Erlang C by the recursion of Erlang B, as in textbooks: exact, and linear in c."""
    b = 1.0
    for k in range(1, c + 1):
        b = a * b / (k + a * b)
    return c * b / (c - a * (1.0 - b))


def recursive_staffing(a: float, chance: float) -> int:
    """Least c with C <= chance, by continuing the recursion."""
    b, c = 1.0, 0
    while True:
        c += 1
        b = a * b / (c + a * b)
        if c > a and c * b / (c - a * (1.0 - b)) <= chance:
            return c


def peer_staffing(a: float, chance: float) -> int:
    """pyworkforce: agents for a load of `a` erlangs so that at most `chance` wait."""
    from pyworkforce.queuing import ErlangC

    model = ErlangC(transactions=a, aht=1.0, asa=1e-9, interval=1.0, shrinkage=0.0)
    return int(model.required_positions(service_level=1.0 - chance, max_occupancy=1.0)["raw_positions"])


def median_us(work: Callable[[], object], budget_s: float = 0.6) -> float:
    """Median time of one call in microseconds, over as many rounds as the budget allows."""
    start = time.perf_counter()
    work()
    once = max(time.perf_counter() - start, 1e-7)
    number = max(1, int(0.002 / once))
    rounds = max(3, min(200, int(budget_s / (once * number))))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(number):
            work()
        times.append((time.perf_counter() - start) / number)
    return statistics.median(times) * 1e6


def truth(c: float, a: float) -> mp.mpf:
    """ln C with 50 digits."""
    with mp.workdps(50):
        servers, load = mp.mpf(c), mp.mpf(a)
        b = mp.exp(servers * mp.log(load) - load - mp.log(mp.gammainc(servers + 1, load)))
        return mp.log(servers * b / (servers - load * (1 - b)))


def error(log_c: float, c: float, a: float) -> float:
    """Relative error of ln C."""
    exact = truth(c, a)
    return abs(float((mp.mpf(log_c) - exact) / exact))


def has_peer() -> bool:
    """Whether pyworkforce is installed (extra `bench`)."""
    try:
        import pyworkforce.queuing  # noqa: F401
    except ImportError:
        return False
    return True


def measure() -> list[dict[str, float | None]]:
    """One row per size."""
    rows: list[dict[str, float | None]] = []
    peer = has_peer()
    for c, a in SIZES:
        least = servers_for(a, max_p_wait=0.2)
        with_peer = peer and c <= PEER_LIMIT
        assert recursive_staffing(a, 0.2) == least
        rows.append(
            {
                "servers": c,
                "load": a,
                "evaluation_us": median_us(partial(erlang_c, c, a)),
                "log_evaluation_us": median_us(partial(log_erlang_c, c, a)),
                "recursion_us": median_us(partial(recursion, c, a)),
                "error_ln_c": error(log_erlang_c(c, a), c, a),
                "recursion_error_ln_c": error(math.log(recursion(c, a)), c, a),
                "staffing_us": median_us(partial(servers_for, a, max_p_wait=0.2)),
                "staffing_response_us": median_us(partial(servers_for, a, max_response_quantile=3.5)),
                "response_quantile_us": median_us(partial(response_quantile, c, a, 1.0, 0.95)),
                "recursive_staffing_us": median_us(partial(recursive_staffing, a, 0.2)),
                "pyworkforce_staffing_us": median_us(partial(peer_staffing, a, 0.2)) if with_peer else None,
                "staffing": least,
                "pyworkforce_staffing": peer_staffing(a, 0.2) if with_peer else None,
            }
        )
    return rows


def machine() -> str:
    """Cores, memory and Python of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {memory:.0f} GiB, {platform.machine()}, Python {platform.python_version()}"


def show(rows: list[dict[str, float | None]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"Medians in microseconds on {machine()}")
    one = Table(title="one Erlang C", title_justify="left", box=SIMPLE_HEAD)
    for name in ("c", "load", "tierserve", "in ln", "recursion", "ratio", "error ln C", "error recursion"):
        one.add_column(name, justify="right")
    staff = Table(title="staffing: least c with P(wait) <= 0.2", title_justify="left", box=SIMPLE_HEAD)
    for name in ("load", "c", "tierserve", "for a p95 response", "recursion", "ratio", "pyworkforce", "ratio"):
        staff.add_column(name, justify="right")
    for row in rows:
        one.add_row(*_evaluation_cells(row))
        staff.add_row(*_staffing_cells(row))
    console.print(one, staff)


def _evaluation_cells(row: dict[str, float | None]) -> tuple[str, ...]:
    r = {key: value or 0.0 for key, value in row.items()}
    return (
        f"{r['servers']:,.0f}",
        f"{r['load']:,.0f}",
        f"{r['evaluation_us']:.2f}",
        f"{r['log_evaluation_us']:.2f}",
        f"{r['recursion_us']:,.1f}",
        f"{r['recursion_us'] / r['evaluation_us']:,.1f}x",
        f"{r['error_ln_c']:.1e}",
        f"{r['recursion_error_ln_c']:.1e}",
    )


def _staffing_cells(row: dict[str, float | None]) -> tuple[str, ...]:
    r, peer = {key: value or 0.0 for key, value in row.items()}, row["pyworkforce_staffing_us"]
    return (
        f"{r['load']:,.0f}",
        f"{r['staffing']:,.0f}",
        f"{r['staffing_us']:.1f}",
        f"{r['staffing_response_us']:.1f}",
        f"{r['recursive_staffing_us']:,.1f}",
        f"{r['recursive_staffing_us'] / r['staffing_us']:,.1f}x",
        "-" if peer is None else f"{peer:,.0f}",
        "-" if peer is None else f"{peer / r['staffing_us']:,.1f}x",
    )


def broken(rows: list[dict[str, float | None]]) -> list[str]:
    """Bounds of the project that this run exceeded."""
    limits = {
        "evaluation_us": EVALUATION_BOUND_US,
        "log_evaluation_us": EVALUATION_BOUND_US,
        "staffing_us": STAFFING_BOUND_US,
        "error_ln_c": ERROR_BOUND,
    }
    return [
        f"{name} {row[name]:.3g} at c = {row['servers']:,.0f} is above {limit:g}"
        for row in rows
        for name, limit in limits.items()
        if (row[name] or 0.0) > limit
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench-queueing.json"), help="where the figures go")
    out = parser.parse_args().out
    rows = measure()
    show(rows)
    if not has_peer():
        print("pyworkforce is not installed: pip install 'tierserve[bench]' puts it beside")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), "unit": "us, median", "rows": rows}, indent=2) + "\n")
    print(f"figures: {out}")
    problems = broken(rows)
    for problem in problems:
        print(f"bound broken: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
