"""Scaling rules on random loads: one case, or all loads to develop on.

python -m bench.robust --seed 17 --rule ours --rule hpa      one load: a table, and a picture per rule in out/robust/
python -m bench.robust --seed 17 --load spikes               the seed's load of another family
python -m bench.robust --trace azure-code-x10                a trace (its first half counts)
python -m bench.robust --develop --rule ours --jobs 2        seeds 1 to 100 and the traces: a summary by family
python -m bench.robust --develop --seeds 1-24 --families spikes,closed
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.autoscaling.measure import rules
from bench.robust.case import show
from bench.robust.judge import CHEAPEST, ORACLE
from bench.robust.loads import FAMILIES, TRACES, load_of, trace_of
from bench.robust.summary import names_of, run_all, summary


def seeds_of(text: str) -> list[int]:
    """`1-24,30` as a list."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def develop(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    families = arguments.families.split(",") if arguments.families else None
    loads = names_of("develop", arguments.seeds, families)
    rows = []
    for row in run_all("develop", loads, names, arguments.jobs):
        rows.append(row)
        if row.rule != CHEAPEST:
            sign = "met   " if row.met else "MISSED"
            print(
                f"{row.load:18} {row.rule:14} {sign} {row.share:8.2%} {row.gpu_hours:9.2f} h"
                f" {row.reversals:6.1f} turns/h {row.wall_s:6.1f} s",
                flush=True,
            )
    for rule in names:
        print("\n" + summary(rows, rule))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*rules(), CHEAPEST, ORACLE]
    parser.add_argument("--seed", type=int, help="one load")
    parser.add_argument("--load", choices=list(FAMILIES), help="family of that load; follows from the seed if omitted")
    parser.add_argument("--trace", choices=TRACES, help="one trace")
    parser.add_argument("--rule", action="append", choices=known, metavar="RULE", help=f"one of {', '.join(known)}")
    parser.add_argument("--develop", action="store_true", help="all loads to develop on")
    parser.add_argument("--seeds", type=seeds_of, help="only these of them, as 1-24,30")
    parser.add_argument("--families", help=f"only these of them: {','.join(FAMILIES)},trace")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    names = arguments.rule or ["ours"]
    if arguments.develop:
        develop(arguments, names)
    elif arguments.trace:
        show(trace_of(arguments.trace, "develop"), names)
    elif arguments.seed is not None:
        show(load_of(arguments.seed, arguments.load), names)
    else:
        parser.error("give --seed, --trace or --develop")


if __name__ == "__main__":
    main()
