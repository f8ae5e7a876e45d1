"""What `tierserve simulate` understands of its options: rules, pools, requests, failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tierserve.api import GenAIDeployment
from tierserve.cli.errors import UserError
from tierserve.cli.simulate.options import Options
from tierserve.loadgen.units import seconds
from tierserve.loadgen.workloads import traced
from tierserve.plan.placement import Placement
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.types import Floats, Objective, Pool, Workload
from tierserve.simulate.workload import Sizes, steps, thickened

if TYPE_CHECKING:
    from tierserve.simulate.cluster import Setup

_COPY_SPREAD_S = 5.0


def rules() -> Mapping[str, Rule]:
    """All rules by name, ours first."""
    from tierserve.simulate.policies.ours import OURS
    from tierserve.simulate.policies.registry import RULES

    return {**{one.name: one for one in OURS}, **RULES}


def chosen(text: str) -> tuple[Rule, float]:
    """The rule of `--policy NAME=VALUE`, and the value of its knob."""
    name, _, value = text.partition("=")
    rule = rules().get(name)
    if rule is None:
        raise UserError(f"--policy: is unknown ({name!r})", f"choose one of {', '.join(rules())}")
    try:
        return rule, float(value) if value else rule.default
    except ValueError as error:
        raise UserError(
            f"--policy: value must be a number ({text!r})", f"give {rule.knob}, e.g. {rule.default:g}"
        ) from error


def label(rule: Rule, value: float) -> str:
    """Name of a run in tables and pictures."""
    return f"{rule.name}={value:g}"


def first_token_s(gaid: GenAIDeployment, options: Options) -> float:
    """Target of the first token as users see it, seconds."""
    given = gaid.spec.objective.first_token
    return seconds(options.ttft) if options.ttft else given.value if given else float("inf")


def pool_of(gaid: GenAIDeployment, one: Placement, options: Options, ttft_s: float) -> Pool:
    """The pool of a placement; `ttft_s`: the target of the first token there."""
    # The tokens of a trace are not those of the file: a target of the whole response would judge its answers' lengths.
    response_s = float("inf") if options.ttft else one.target_s
    return Pool(
        profile=one.profile,
        slots=one.slots,
        startup_s=seconds(options.startup) if options.startup else one.startup_s,
        objective=Objective(response_s, ttft_s, percentile=one.percentile),
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        min_replicas=one.min_replicas,
        max_replicas=one.max_replicas,
        gpus=float(gaid.tier(one.tier).hardware.per_replica),
    )


def requests(options: Options, input_tokens: float, output_tokens: float) -> Workload:
    """The requests of `--trace` or `--rate`, the latter with so many tokens each."""
    if (options.trace is None) == (options.rate is None):
        raise UserError("--trace, --rate: exactly one is required", "for example --trace azure-code, or --rate 5,20,5")
    if options.rate is not None:
        sizes = Sizes(input_tokens, output_tokens)
        return steps(_rates(options.rate), seconds(options.duration), sizes, options.seed, options.rate)
    return recorded(str(options.trace), options.copies, options.seed)


def recorded(trace: str, copies: int, seed: int = 1) -> Workload:
    """The requests of a trace, each as so many within 5 s; raises LoadError where there is no such trace."""
    if copies < 1:
        raise UserError(f"--copies: must be at least 1 ({copies})", "give 1 for the trace as it is")
    return thickened(traced(trace, seed=seed), copies, _COPY_SPREAD_S, seed)


def _rates(text: str) -> list[float]:
    try:
        values = [float(one) for one in text.split(",")]
    except ValueError as error:
        raise UserError(f"--rate: must be a list of numbers ({text!r})", "for example 5,20,5") from error
    if min(values) < 0.0 or max(values) <= 0.0 or max(values) > 1e6:
        raise UserError(f"--rate: is out of range ({text!r})", "give requests per second from 0 to 1e6, one above 0")
    return values


def setups(options: Options, pools: Mapping[str, Pool], first: str) -> dict[str, Setup]:
    """How each pool behaves, by name; failures without a pool are those of the `first`."""
    from tierserve.simulate.cluster import Setup

    failures = _failures(options, tuple(pools), first)
    try:
        return {
            name: Setup(
                router=options.router,
                initial=options.initial if options.initial is not None else pool.min_replicas,
                startup_spread=options.startup_spread,
                failures=tuple(failures[name]),
                seed=options.seed,
            )
            for name, pool in pools.items()
        }
    except ValueError as error:
        raise UserError(f"--{error}", "see `tierserve simulate --help`") from error


def _failures(options: Options, pools: tuple[str, ...], first: str) -> dict[str, list[tuple[float, int]]]:
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in pools}
    for text in options.failures:
        what, _, pool = text.partition("@")
        when, _, count = what.partition("=")
        if count and not count.isdigit():
            raise UserError(f"--fail: must be TIME=COUNT or TIME=COUNT@POOL ({text!r})", "for example 10m=2")
        if pool and pool not in found:
            raise UserError(f"--fail: pool is not simulated ({pool!r})", f"choose one of {', '.join(pools)}")
        found[pool or first].append((seconds(when), int(count or 1)))
    return found


def p95(values: Floats) -> float:
    """The 95th percentile; 0 of nothing."""
    return float(np.quantile(values, 0.95, method="higher")) if values.size else 0.0
