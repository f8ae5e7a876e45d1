"""Start-up time and CPU of a replica on this machine, forked and as Ray starts it.

    python -m bench.serving.replica_start            about four minutes on 2 cores
    python -m bench.serving.replica_start --replicas 4

One tier of the emulated engine; the minimum is raised by several replicas at once, and the time until all of them serve
and the CPU seconds of the machine are measured.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench.serving.ray_autoscaler import POOL, ROOT, Bench, Policy, machine, running
from tierserve.runtime.local import ray_cluster


@dataclass(frozen=True)
class Cost:
    """Time and CPU of `replicas` that started at once."""

    label: str
    replicas: int
    seconds: float
    cpu_s: float

    def row(self) -> str:
        return (
            f"| {self.label} | {self.replicas} | {self.seconds:.1f} | {self.cpu_s:.0f} "
            f"| {self.cpu_s / self.replicas:.1f} |"
        )


def main() -> None:
    """Run both and write docs/benchmarks/replica-start.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=8)
    replicas = parser.parse_args().replicas
    costs = [measure("forked", replicas)]
    ray_cluster.PREFORK_HOOK = Path("/nonexistent")  # without the hook workers start as Ray starts them
    costs.append(measure("as Ray starts it", replicas))
    text = page(costs)
    path = ROOT / "docs" / "benchmarks" / "replica-start.md"
    path.write_text(text)
    print(text, path, sep="\n")


def measure(label: str, replicas: int) -> Cost:
    """Start a pool of one replica, raise its minimum, and wait."""
    with running(quick=True) as bench:
        bench.deploy(fixed(1))
        time.sleep(5.0)
        before, began = busy_s(), time.monotonic()
        raise_minimum(bench, 1 + replicas)
        while bench.runtime.rest.applications()[POOL].running < 1 + replicas:
            time.sleep(0.2)
        return Cost(label, replicas, time.monotonic() - began, busy_s() - before)


def fixed(replicas: int) -> Policy:
    """A fixed number of replicas."""
    return Policy(f"fixed-{replicas}", "", "", {"min_replicas": replicas, "max_replicas": replicas})


def raise_minimum(bench: Bench, replicas: int) -> None:
    """Declare the same application with another number of replicas."""
    serve = deepcopy(dict(bench.desired.serve))
    serve["applications"][0]["deployments"][0]["autoscaling_config"] = fixed(replicas).autoscaling
    serve["applications"][0]["args"]["max_queue"] = 1000  # as `Bench.deploy` has it, or all replicas would be replaced
    bench.apply(replace(bench.desired, serve=serve))


def busy_s() -> float:
    """CPU seconds of the whole machine since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def page(costs: list[Cost]) -> str:
    """The Markdown page."""
    rows = "\n".join(cost.row() for cost in costs)
    return f"""# Start-up time of replicas

Made by `python -m bench.serving.replica_start` on {machine()}: a replica of the emulated engine, several at once.

| | replicas | seconds until all serve | CPU seconds | CPU seconds each |
|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
