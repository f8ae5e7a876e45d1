"""A profiled replica as tables and lines for a terminal, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tierserve.cli.profile.result import Check, Profiled, duration
from tierserve.queueing.batching.fitting import NAMES
from tierserve_serving.engines.model_sizes import ModelSizes

POOR_FIT = 0.15
"""Largest error of a cell beyond which the table has a warning: twice what a busy machine commonly gives."""


def show(console: Console, done: Profiled) -> None:
    """Print cells, coefficients, what they say about the replica, and the block to paste."""
    console.print(f"[bold]{done.model}[/bold] at {done.target}: closed loops, mean times of each batch and size")
    console.print(_cells(done))
    console.print(_coefficients(done))
    for line in _lines(done):
        console.print(line, soft_wrap=True)
    if done.checks:
        console.print(_checks(done))
    console.print(f"\n{done.block}", markup=False, soft_wrap=True)


def as_json(done: Profiled, plot: str | None) -> dict[str, object]:
    """Return the same as a document; times are in seconds."""
    profile, estimate = done.fit.profile, done.estimate
    return {
        "target": done.target,
        "model": done.model,
        "profile": {name: duration(getattr(profile, name)) for name in NAMES},
        "coefficients": {
            name: {"value": getattr(profile, name), "low": interval.low, "high": interval.high}
            for name, interval in done.fit.intervals.items()
        },
        "meanError": done.fit.mean_error,
        "largestError": done.fit.largest_error,
        "slots": done.slots,
        "largestBatch": done.largest.batch,
        "largestUsefulBatch": done.useful,
        "tokensPerSecond": done.largest.tokens_per_s,
        "weightsBytes": done.sizes and done.sizes.weights,
        "cacheBytesPerToken": done.sizes and done.sizes.cache_per_token,
        "longestContext": done.sizes and done.sizes.context,
        "startup": done.startup_s,
        "estimate": estimate
        and {
            "tier": estimate.tier,
            "accelerator": estimate.accelerator,
            **{name: getattr(estimate.profile, name) for name in NAMES},
        },
        "refusedPrompts": {str(tokens): message for tokens, message in done.refused.items()},
        "cells": [
            {
                "batch": one.cell.batch,
                "inputTokens": one.cell.input,
                "outputTokens": one.cell.output,
                "requests": len(one.cell.times),
                "mean": one.cell.mean,
                "firstToken": None if math.isnan(one.first_token_s) else one.first_token_s,
                "tokensPerSecond": one.cell.tokens_per_s,
                "fitted": fitted,
                "error": error,
            }
            for one, fitted, error in zip(done.cells, done.fit.fitted, done.fit.errors, strict=True)
        ],
        "verify": [_check_json(check) for check in done.checks],
        "plot": plot,
    }


def _check_json(check: Check) -> dict[str, object]:
    run = check.run
    return {
        "load": check.load,
        "rate": run.rate,
        "requests": run.requests,
        "failed": run.failed,
        "predicted": check.predicted_s,
        "measured": run.mean_s,
        "halfWidth": None if math.isnan(run.half_width_s) else run.half_width_s,
        "error": check.error,
    }


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _cells(done: Profiled) -> Table:
    table = _table("batch", "prompt", "response", "requests", "mean", "first token", "tokens/s", "fitted", "error")
    for one, fitted, error in zip(done.cells, done.fit.fitted, done.fit.errors, strict=True):
        cell = one.cell
        table.add_row(
            str(cell.batch),
            f"{cell.input:.0f}",
            f"{cell.output:.0f}",
            str(len(cell.times)),
            _time(cell.mean),
            _time(one.first_token_s),
            f"{cell.tokens_per_s:,.1f}",
            _time(fitted),
            f"{error:+.1%}",
        )
    return table


def _coefficients(done: Profiled) -> Table:
    estimate = done.estimate
    heads = ("coefficient", "measured", "95% interval")
    table = _table(*heads, *((f"estimate for {estimate.accelerator}", "measured / estimate") if estimate else ()))
    for name, interval in done.fit.intervals.items():
        value = getattr(done.fit.profile, name)
        row = [name, duration(value), f"{duration(interval.low)} to {duration(interval.high)}"]
        if estimate:
            planned = getattr(estimate.profile, name)
            row += [duration(planned), f"{value / planned:.3g}" if planned > 0.0 else "-"]
        table.add_row(*row)
    return table


def _lines(done: Profiled) -> Iterator[str]:
    cell, fit = done.largest, done.fit
    yield f"fit: mean error {fit.mean_error:.1%}, largest {fit.largest_error:.1%}"
    if fit.largest_error > POOR_FIT:
        yield "[yellow]the engine does not follow the model in all cells, or the machine was busy[/yellow]"
    size = f"{cell.input:.0f} + {cell.output:.0f} tokens"
    slots = f" of {done.slots} slots" if done.slots else ""
    yield f"largest batch measured: {cell.batch}{slots}, {cell.tokens_per_s:,.1f} output tokens/s at {size}"
    if done.useful < cell.batch:
        yield f"batches above {done.useful} do not raise the throughput: maxConcurrency: {done.useful} costs none"
    if done.slots and done.slots > cell.batch:
        yield "[yellow]slots above the largest batch measured are extrapolated[/yellow]"
    if done.startup_s:
        parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in done.startup_s.items())
        yield f"start-up {sum(done.startup_s.values()):.2f} s: {parts}"
    if done.sizes:
        yield from _sizes(done.sizes)
    for tokens, message in done.refused.items():
        yield f"[yellow]prompts of {tokens} tokens are left out:[/yellow] {message}"


def _sizes(sizes: ModelSizes) -> Iterator[str]:
    if sizes.cache_per_token:
        yield f"key-value cache: {sizes.cache_per_token / 1024:.4g} KiB per token"
    if sizes.weights and sizes.cache_per_token:
        yield f"for a cluster: memory: {{weights: {sizes.weights}, perToken: {sizes.cache_per_token}}}"
    yield from (f"[yellow]{reason}[/yellow]" for reason in sizes.unknown)


def _checks(done: Profiled) -> Table:
    table = _table("load", "arrivals/s", "requests", "failed", "predicted mean", "measured mean", "95%", "error")
    for check in done.checks:
        run = check.run
        table.add_row(
            f"{check.load:g}",
            f"{run.rate:.3g}",
            str(run.requests),
            str(run.failed),
            _time(check.predicted_s),
            _time(run.mean_s),
            f"+- {_time(run.half_width_s)}",
            f"{check.error:+.1%}",
        )
    return table


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1.0 else f"{seconds:.2f} s"
