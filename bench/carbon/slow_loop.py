"""Emissions of a day with the tiers in the order that `objective.optimize` applies, simulated.

    python -m bench.carbon.slow_loop [--days 6] [--write docs/benchmarks/carbon.md]

Each day has the rates of one day of ServeGen (10-minute means, scaled to two requests a second) and carbon curves made
at random: one tier's grid is solar, one's windy, one's even. `tierserve simulate` runs each day four times with the
same requests: the first cloud tier alone, all tiers in the order of the file, in the greenest order by the day's means
(which is known only afterwards), and with `mode: apply`. Nothing was developed on these days and seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from tierserve.loadgen.traces import load_rates

CATEGORIES = ("language/m-large", "language/m-mid", "language/m-small")
MEAN_RATE = 2.0
STEPS = 144
TIERS = ("edge", "cloud", "cloud-far")
KINDS = ("solar", "windy", "even")
HOURS = np.arange(0.0, 24.0, 0.5)


@dataclass(frozen=True)
class Day:
    """Rates of each ten minutes, and gCO2e/kWh of each half hour by tier."""

    name: str
    rates: tuple[float, ...]
    grids: dict[str, np.ndarray]


def grid(kind: str, dice: np.random.Generator) -> np.ndarray:
    """Return a made-up day of a grid: solar falls by 60 to 80% around noon, windy wanders by a factor of two."""
    level = dice.uniform(250.0, 550.0)
    if kind == "solar":
        noon, width = dice.normal(12.0, 1.5), dice.uniform(2.5, 4.0)
        shape = 1.0 - dice.uniform(0.6, 0.8) * np.exp(-((HOURS - noon) ** 2) / (2.0 * width**2))
    elif kind == "windy":
        shape = np.exp(0.9 * _wander(dice))
    else:
        shape = 1.0 + 0.05 * _wander(dice)
    return np.clip(level * shape, 20.0, 1000.0)


def _wander(dice: np.random.Generator) -> np.ndarray:
    """An autoregressive walk of half hours with a time constant of six hours and a standard deviation of one."""
    keep = np.exp(-0.5 / 6.0)
    walk = [dice.normal()]
    for _ in HOURS[1:]:
        walk.append(keep * walk[-1] + np.sqrt(1.0 - keep**2) * dice.normal())
    return np.array(walk)


def day(number: int) -> Day:
    category, which = CATEGORIES[number % len(CATEGORIES)], 7 + number // len(CATEGORIES)
    values, _ = load_rates(category)
    rates = values[which * STEPS : (which + 1) * STEPS]
    dice = np.random.default_rng(9000 + number)
    kinds = dice.permutation(KINDS)
    grids = {tier: grid(kind, dice) for tier, kind in zip(TIERS, kinds, strict=True)}
    name = f"{category.rpartition('-')[2]}, day {which + 1}: " + ", ".join(
        f"{tier} {kind}" for tier, kind in zip(TIERS, kinds, strict=True)
    )
    return Day(name, tuple((rates * MEAN_RATE / rates.mean()).round(3)), grids)


def service(one: Day, overflow: tuple[str, ...], mode: str) -> dict[str, Any]:
    rtt = {"edge": "8ms", "cloud": "40ms", "cloud-far": "90ms"}
    tiers = [
        {
            "name": name, "kind": "edge" if name == "edge" else "cloud", "accelerator": {"preset": "A100-80GB"},
            "network": {"rtt": rtt[name]}, "startup": "103s", "pue": 1.2,
            "replicas": {"min": 0, "max": 6 if name == "edge" else 20},
            "carbonSource": {"series": "\n".join(
                f"{int(h):02d}:{int(h % 1 * 60):02d},{g:.1f}" for h, g in zip(HOURS, one.grids[name], strict=True))},
        }
        for name in TIERS
    ]  # fmt: skip
    model = {
        "name": "m8b", "engine": "emulated", "memory": {"weights": "16Gi", "perToken": "128Ki"},
        "maxConcurrency": 8,
        "profile": {"alpha": "11.2ms", "beta": "103us", "gamma": "92ns"}, "output": {"tokens": 300},
    }  # fmt: skip
    return {
        "apiVersion": "serving.tierserve.io/v1alpha1",
        "kind": "GenAIDeployment",
        "metadata": {"name": "carbon"},
        "spec": {
            "objective": {
                "responseTime": {"percentile": 95, "target": "8s"},
                "optimize": {"by": "carbon", "mode": mode, "interval": "10m"},
            },
            "models": [model],
            "tiers": tiers,
            "traffic": [{"name": "chat", "input": 1000, "output": 300}],
            "routing": {"overflow": list(overflow)},
        },
    }


def simulated(one: Day, overflow: tuple[str, ...], mode: str = "off") -> dict[str, Any]:
    """Return what `tierserve simulate` finds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "carbon.yaml"
        file.write_text(yaml.safe_dump(service(one, overflow, mode)))
        command = [
            sys.executable, "-m", "tierserve.cli.main", "simulate", str(file), "-o", "json", "--duration", "10m",
            "--rate", ",".join(map(str, one.rates)), "--out", str(Path(folder) / "carbon.png"), "--initial", "1",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)["policies"][0]
    return found


def compared(number: int) -> dict[str, Any]:
    one = day(number)
    greenest = tuple(sorted(TIERS, key=lambda name: float(one.grids[name].mean())))
    runs = {
        "cloud": simulated(one, ("cloud",)),
        "file": simulated(one, TIERS),
        "hindsight": simulated(one, greenest),
        "loop": simulated(one, TIERS, "apply"),
    }
    print(one.name, {name: round(run["carbon_g"]) for name, run in runs.items()}, flush=True)
    return {"day": one.name, "runs": runs}


def page(rows: list[dict[str, Any]]) -> str:
    def ratio(row: dict[str, Any], other: str) -> float:
        return float(row["runs"]["loop"]["carbon_g"] / row["runs"][other]["carbon_g"])

    def cells(row: dict[str, Any]) -> str:
        runs = row["runs"]
        grams = " | ".join(f"{runs[name]['carbon_g'] / 1e3:.2f}" for name in ("cloud", "file", "hindsight", "loop"))
        met = " | ".join(f"{runs[name]['within']:.2%}" for name in ("cloud", "file", "loop"))
        saved = f"{1 - ratio(row, 'cloud'):.0%} | {1 - ratio(row, 'file'):.0%}"
        return f"| {row['day']} | {grams} | {saved} | {met} | {len(runs['loop']['changes'])} |"

    heads = (
        "| day | cloud alone, kg | file's order, kg | greenest order by the day's mean, kg | `mode: apply`, kg "
        "| saved: of cloud alone | of the file's order | in time: cloud alone | file's order | apply | changes |"
    )
    return "\n".join(
        [
            "# Emissions of a day with `objective.optimize`",
            "",
            "Made by `python -m bench.carbon.slow_loop --write docs/benchmarks/carbon.md`; its first lines say what is",
            "compared. Simulated: no accelerator was measured. The loop is the operator's own code",
            "(`plan/optimizer.py`), fed with what the simulated gateway saw; the carbon curves are made up. An 8B",
            "model on A100s with 8 slots a replica, start-up 103 s, p95 within 8 s, all tiers scale to zero.",
            "",
            heads,
            "|" + "---|" * 11,
            *map(cells, rows),
            "",
            f"Median saved: {1 - median(ratio(row, 'cloud') for row in rows):.0%} of the first cloud tier alone, "
            f"{1 - median(ratio(row, 'file') for row in rows):.0%} of the order of the file. "
            f"Worst day beside the order of the file: {max(ratio(row, 'file') for row in rows) - 1:+.1%}.",
            "",
            f"Python {platform.python_version()}, {platform.machine()}; the figures do not depend on the machine.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=6)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(compared, range(arguments.days)))
    text = page(rows)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
