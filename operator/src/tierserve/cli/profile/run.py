"""What `tierserve profile` does; apart from its options, since numpy and aiohttp take a second to import."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tierserve.api import GenAIDeployment, ValidationFailed
from tierserve.api.loading import load_text
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.files import STDIN, check_writable, parsed
from tierserve.cli.output import console, emit
from tierserve.cli.pictures import Picture
from tierserve.cli.profile.engine import Chosen, choose, pool_config, started
from tierserve.cli.profile.options import Options
from tierserve.cli.profile.picture import draw
from tierserve.cli.profile.result import Check, Estimate, Profiled
from tierserve.cli.profile.table import as_json, show
from tierserve.cli.profile.yaml_edit import with_profile
from tierserve.loadgen.errors import LoadError
from tierserve.loadgen.profiling import Endpoint, Grid, OnProgress, Replica, connect, doubling
from tierserve.loadgen.units import header, seconds
from tierserve.observe.model_files import model_sizes, with_model_sizes
from tierserve.plan.hardware import Tokens, roofline
from tierserve.queueing.batching.fitting import Fit, fit_profile, largest_useful_batch
from tierserve.queueing.batching.response import BatchWork, batch_response

LOADS = (0.5, 0.9)
"""Of --verify: arrival rate over the rate of a full replica."""
DEFAULT_BATCH = 8


def execute(given: Options) -> None:
    """Measure, fit, show, and write the file if asked to.

    Raises:
        UserError: an option that cannot be, a replica that does not start, or a measurement that fails.
    """
    try:
        if given.is_url:
            _server(given)
        else:
            _file(given)
    except LoadError as error:
        raise UserError(error.message, error.hint, error.exit_code) from error


def _server(given: Options) -> None:
    for option, value in (("--tier", given.tier), ("--write", given.write)):
        if value:
            raise UserError(f"{option}: requires FILE", f"leave {option} out, or give a file in place of the URL")
    picture = _picture(given, given.model or "replica")
    _finish(given, _profiled(given, _endpoint(given, given.target, given.model), None), picture)


def _file(given: Options) -> None:
    file = Path(given.target)
    text, gaid = parsed(file)
    gaid = with_model_sizes(gaid)
    if given.write:
        if file == STDIN:
            raise UserError("--write: requires a file", "give the path of the file in place of -")
        check_writable("--write", file)
    chosen = choose(gaid, given.model, given.tier, given.batch)
    picture = _picture(given, chosen.model.name)
    with started(pool_config(gaid, chosen)) as replica:
        done = _profiled(given, _endpoint(given, replica.url, chosen.model.name), chosen)
    done = replace(
        done,
        target=str(file),
        startup_s=replica.startup_s,
        estimate=_estimate(chosen, done),
        sizes=model_sizes(chosen.model),
    )
    _finish(given, done, picture)
    if given.write:
        _write(file, text, gaid, done)


def _finish(given: Options, done: Profiled, picture: Picture) -> None:
    picture.draw(lambda path: draw(done, path))
    if given.output != "table":
        emit(as_json(done, picture.written), given.output)
    else:
        show(console(), done)
    picture.report()


def _picture(given: Options, name: str) -> Picture:
    file_name = re.sub(r"[^\w.-]", "-", name)
    return Picture(given.out, Path("out") / f"profile-{file_name}.png")


def _endpoint(given: Options, url: str, model: str | None) -> Endpoint:
    headers = tuple(header(text) for text in given.headers)
    if given.api_key and given.is_url and not any(name.lower() == "authorization" for name, _ in headers):
        headers = (header(f"Authorization: Bearer {given.api_key}"), *headers)
    return Endpoint(
        url, model, seconds(given.timeout), headers, given.cacert, given.insecure, given.allow_remote
    )  # fmt: skip


def _profiled(given: Options, endpoint: Endpoint, chosen: Chosen | None) -> Profiled:
    inputs, duration_s = _inputs(given, chosen), seconds(given.verify_duration)
    with _bar() as bar:
        task = bar.add_task("connect", total=None)

        def progress(k: int, total: int, what: str) -> None:
            bar.update(task, completed=k, total=total, description=what)

        return asyncio.run(_Measurement(given, inputs, duration_s, chosen, progress).run(endpoint))


def _inputs(given: Options, chosen: Chosen | None) -> tuple[int, ...]:
    """Prompt lengths; of a file only those that the context has room for."""
    inputs = _lengths(given.prompts)
    if chosen is None:
        return inputs
    longest, context = max(given.output_tokens, given.long_output_tokens), chosen.model.context_tokens
    inputs = tuple(i for i in inputs if i + longest <= context)
    if not inputs:
        raise UserError(
            f"--prompts: none fits the context of {context} tokens beside a response of {longest}",
            "give shorter prompts or responses",
        )
    return inputs


@dataclass(frozen=True, slots=True)
class _Measurement:
    given: Options
    inputs: tuple[int, ...]
    duration_s: float
    chosen: Chosen | None
    progress: OnProgress

    async def run(self, endpoint: Endpoint) -> Profiled:
        given = self.given
        async with connect(endpoint, seed=given.seed) as replica:
            taken, refused = await replica.accepted(self.inputs)
            if not taken:
                raise UserError(f"--prompts: {next(iter(refused.values()))}", "give shorter prompts", code=1)
            batches = doubling(self._largest(replica))
            grid = Grid(batches, taken, given.output_tokens, given.long_output_tokens, given.rounds)
            measured = await replica.measure(grid, self.progress)
            cells = [one.cell for one in measured]
            try:
                fit = fit_profile(cells, seed=given.seed)
            except ValueError as error:
                raise UserError(str(error), "give other --batch, --prompts, --output-tokens", code=1) from error
            checks = await self._verify(replica, fit, grid) if given.verify else ()
            return Profiled(
                endpoint.url,
                replica.model,
                measured,
                fit,
                grid.middle,
                replica.slots,
                largest_useful_batch(cells),
                refused,
                checks=checks,
            )

    def _largest(self, replica: Replica) -> int:
        largest = self.given.batch or (self.chosen.slots if self.chosen else replica.slots or DEFAULT_BATCH)
        if replica.slots and largest > replica.slots:
            raise UserError(
                f"--batch: must be at most the slots of the replica, {replica.slots} (got {largest})",
                "above them requests wait, and the fit has no queue",
            )
        return largest

    async def _verify(self, replica: Replica, fit: Fit, grid: Grid) -> tuple[Check, ...]:
        slots, duration_s = max(grid.batches), self.duration_s
        middle = (1.0, float(grid.middle), float(grid.output))
        sizes = self.chosen.placement.mixture if self.chosen else (middle,)
        capacity = slots / fit.profile.mean_service_time(slots, sizes)
        checks = []
        for k, load in enumerate(LOADS):
            self.progress(k, len(LOADS), f"load {load:g} for {duration_s:.0f} s")
            try:
                run = await replica.open_loop(sizes, load * capacity, duration_s, slots, self.given.seed)
            except LoadError as error:  # the profile is measured, and is shown
                Console(stderr=True).print(f"--verify: load {load:g}: {error.message}", style="yellow", highlight=False)
                break
            # Of the sizes that came, so that the chance of the draw is not taken for an error of the prediction.
            predicted = batch_response(run.rate, 1, BatchWork(fit.profile, slots, run.sizes)).mean_response
            checks.append(Check(load, predicted, run))
        return tuple(checks)


def _estimate(chosen: Chosen, done: Profiled) -> Estimate:
    """What the planner would take for the model without a profile."""
    hardware = chosen.tier.hardware
    tokens = Tokens(done.largest.input, done.largest.output)
    return Estimate(chosen.tier.name, hardware.name, roofline(chosen.model, hardware, tokens))


def _write(file: Path, text: str, gaid: GenAIDeployment, done: Profiled) -> None:
    edited = with_profile(text, done.model, done.block)
    if edited is None:
        raise UserError(f"--write: the model {done.model} is not written out in {file}", f"paste {done.block}", code=1)
    try:
        after = load_text(edited)
    except ValidationFailed as error:
        raise invalid(file, error.problems) from error
    if {one.name for one in after.spec.models} != {one.name for one in gaid.spec.models}:
        raise UserError(f"--write: {file} cannot be edited", f"paste {done.block}", code=1)
    with file.open("w", encoding="utf-8", newline="") as stream:
        stream.write(edited)


def _lengths(text: str) -> tuple[int, ...]:
    try:
        lengths = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1:
        raise UserError(f"--prompts: must be numbers of tokens (got {text!r})", "for example --prompts 16,128,512")
    return tuple(sorted(lengths))


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
