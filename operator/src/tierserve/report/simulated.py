"""The picture of `tierserve simulate`: load and replicas over time, and how long requests took."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tierserve.simulate.types import Pool, Workload

if TYPE_CHECKING:
    from tierserve.simulate.results import TiersResult
    from tierserve.simulate.run import Result

_BINS = 240


def draw(found: Mapping[str, Result], work: Workload, pool: Pool, path: Path) -> None:
    """Write a picture of the runs, by name.

    Args:
        found: runs of the same workload.
        work: who asked.
        pool: whose replicas.
        path: a PNG, SVG or PDF file in a folder that is there.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 7), sharex=True)
    edges = np.linspace(0.0, work.length_s, _BINS + 1)
    width = edges[1] - edges[0]
    each = pool.profile.service_time(pool.slots, pool.input_tokens, pool.output_tokens) / pool.slots
    load = np.histogram(work.times_s, edges)[0] * each / width
    above.fill_between(edges[:-1] / 60, load, step="post", color="lightgrey", label="load, in full replicas")
    for name, one in found.items():
        (line,) = above.step(one.decided_s / 60, one.target, where="post", lw=1.2, label=f"{name}: desired")
        below.plot(edges[:-1] / 60, _p95(one, edges), ".", ms=3, color=line.get_color(), label=name)
    above.set(ylabel="replicas", xlim=(0, work.length_s / 60))
    above.legend(fontsize=8)
    below.set(xlabel="minutes", ylabel="response p95 (s)", yscale="log")
    below.legend(fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def draw_tiers(found: Mapping[str, TiersResult], length_s: float, path: Path) -> None:
    """Write a picture of runs of several pools, by name: replicas and requests of each pool, and what users waited.

    Args:
        found: runs of the same requests with the same pools.
        length_s: seconds that are shown.
        path: a PNG, SVG or PDF file in a folder that is there.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sites = next(iter(found.values())).sites
    figure, axes = plt.subplots(len(sites) + 1, 1, figsize=(10, 3 + 2.5 * len(sites)), sharex=True)
    edges = np.linspace(0.0, length_s, _BINS + 1)
    for p, (site, above) in enumerate(zip(sites, axes, strict=False)):
        rates = above.twinx()
        for name, one in found.items():
            pool = one.pools[p]
            (line,) = above.step(pool.decided_s / 60, pool.target, where="post", lw=1.2, label=f"{name}: desired")
            rate = np.histogram(pool.arrive_s, edges)[0] / (edges[1] - edges[0])
            rates.fill_between(edges[:-1] / 60, rate, step="post", alpha=0.15, color=line.get_color())
        above.set(ylabel=f"replicas of {site}", ylim=(0, None))
        rates.set(ylabel="requests/s (area)", ylim=(0, None))
        above.legend(fontsize=8)
    for name, one in found.items():
        axes[-1].plot(edges[:-1] / 60, _p95(one, edges), ".", ms=3, label=name)
    axes[-1].set(xlabel="minutes", ylabel="response p95 (s)", yscale="log", xlim=(0, length_s / 60))
    axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _p95(one: Result | TiersResult, edges: np.ndarray) -> list[float]:
    """p95 of the response of those who arrived in each part; NaN where no request did or one was never answered."""
    response = one.response_s
    cuts = np.searchsorted(one.arrive_s, edges)
    parts = [response[a:b] for a, b in itertools.pairwise(cuts)]
    values = [float(np.quantile(p, 0.95, method="higher")) if p.size else np.nan for p in parts]
    return [v if np.isfinite(v) else np.nan for v in values]
