"""Scaling rules on random loads: one case, all loads to develop on, or the page.

    python -m bench.robust --seed 17 --rule ours --rule hpa      one load: a table, and pictures in out/robust/
    python -m bench.robust --seed 17 --load spikes               the seed's load of another family
    python -m bench.robust --trace azure-code-x10                a trace (its first half counts)
    python -m bench.robust --develop --rule ours --jobs 2        seeds 1 to 100 and the traces: a summary by family
    python -m bench.robust --develop --seeds 1-24 --families spikes,closed
    python -m bench.robust --judge --jobs 2                      seeds 101 to 300 and the second halves, and the page
    python -m bench.robust --subset                              the table of tests/unit/bench/test_robust_subset.py

A rule is a name, with another setting than the published one as `hpa=0.55`. Also `plan` and `plan-1.25`, fixed pools.
Rows accumulate in out/robust/. An interrupted run of --judge continues; --develop runs all again unless told to --keep.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.autoscaling.measure import ROOT, rules
from bench.robust import page
from bench.robust.case import show
from bench.robust.judge import CHEAPEST, ORACLE, OUT, PLANS, Row, judge_rule
from bench.robust.loads import FAMILIES, TRACES, Part, load_of, trace_of
from bench.robust.summary import ROWS, SUBSET, load_named, names_of, read, run_all, summary


def seeds_of(text: str) -> list[int]:
    """`1-24,30` as a list."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def rule_of(text: str) -> str:
    """A rule's name, as it is, once it is seen to be one."""
    name, _, value = text.partition("=")
    known = (*rules(), *PLANS, CHEAPEST, ORACLE)
    if name not in known:
        raise argparse.ArgumentTypeError(f"is not a rule ({name}): choose one of {', '.join(known)}")
    float(value or 0.0)
    return text


def report(row: Row) -> None:
    sign = "met   " if row.met else "MISSED"
    print(
        f"{row.load:18} {row.rule:16} {sign} {row.share:8.2%} {row.gpu_hours:9.2f} h"
        f" {row.reversals:6.1f} turns/h {row.cpu_s:6.1f} s",
        flush=True,
    )


def develop(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    loads = names_of("develop", arguments.seeds, arguments.families)
    tasks = [(name, names) for name in loads]
    for row in run_all("develop", tasks, arguments.jobs, ROWS["develop"], keep=arguments.keep):
        if row.rule != CHEAPEST:
            report(row)
    for rule in names:
        print("\n" + summary(read(ROWS["develop"]), loads, rule))


def whole(arguments: argparse.Namespace, part: Part, out: Path) -> None:
    """Run all rules of the page on a part, and write the page."""
    loads = names_of(part, arguments.seeds, arguments.families)
    tasks = [(name, page.rules_on(name, k, arguments.peers_every, arguments.rule)) for k, name in enumerate(loads)]
    if not arguments.page_only:
        for row in run_all(part, tasks, arguments.jobs, ROWS[part], keep=True):
            report(row)
    print(page.write_page(read(ROWS[part]), loads, part, out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="one load")
    parser.add_argument("--load", choices=list(FAMILIES), help="family of that load; follows from the seed if omitted")
    parser.add_argument("--trace", choices=TRACES, help="one trace")
    parser.add_argument("--rule", type=rule_of, action="append", help="rule; may be given several times")
    parser.add_argument("--develop", action="store_true", help="all loads to develop on")
    parser.add_argument("--judge", action="store_true", help="all loads to judge by, once, when the rules are final")
    parser.add_argument("--subset", action="store_true", help="the loads of the test, as its table")
    parser.add_argument("--seeds", type=seeds_of, help="only these of them, as 1-24,30")
    parser.add_argument("--families", type=lambda text: text.split(","), help=f"only these: {','.join(FAMILIES)},trace")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep", action="store_true", help="with --develop: keep rows of earlier calls")
    parser.add_argument("--peers-every", type=int, default=1, help="run others' rules on every n-th load only")
    parser.add_argument("--page-only", action="store_true", help="write the page from the rows of earlier calls")
    parser.add_argument("--try-page", action="store_true", help="the page of the loads to develop on, in out/robust/")
    arguments = parser.parse_args()
    names = arguments.rule or ["ours"]
    if arguments.judge:
        whole(arguments, "judge", ROOT / "docs" / "benchmarks")
    elif arguments.try_page:
        whole(arguments, "develop", OUT)
    elif arguments.develop:
        develop(arguments, names)
    elif arguments.subset:
        for name in SUBSET:
            row = judge_rule(load_named("develop", name), names[0])
            figures = f"{row.share:.4f}, {row.gpu_hours:.3f}, {row.reversals:.1f}"
            print(f'    Expected("{name}", {figures}),  # {row.cpu_s:.0f} s', flush=True)
    elif arguments.trace:
        show(trace_of(arguments.trace, "develop"), names)
    elif arguments.seed is not None:
        show(load_of(arguments.seed, arguments.load), names)
    else:
        parser.error("give --seed, --trace, --develop, --judge or --subset")


if __name__ == "__main__":
    main()
