"""`tierserve validate FILE`: the checks of the API server and of the planner."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from tierserve.api.errors import Problem, ValidationFailed
from tierserve.api.loading import Examined, examine
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.warnings import hints
from tierserve.cli.files import read_text
from tierserve.cli.output import TextOrData, emit
from tierserve.observe.model_files import context_problems, with_model_sizes
from tierserve.plan.placement import place


@dataclass(frozen=True, slots=True)
class Verdict:
    """Errors and warnings of one GenAIDeployment of a file; `name` is empty if unknown."""

    file: str
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    name: str = ""


def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files with GenAIDeployments; - reads standard input")
    ],
    output: TextOrData = "text",
) -> None:
    """Check files as the API server does, and whether the planner can place the models; exit code 1 on errors.

    Every GenAIDeployment of a file is checked; other kinds are ignored.

    Example: tierserve validate examples/assistant.yaml
    """
    verdicts = [verdict for file in files for verdict in judge(file)]
    if output == "text":
        sys.stdout.write(_as_text(verdicts))
    else:
        emit([_as_data(verdict) for verdict in verdicts], output)
    if any(verdict.errors for verdict in verdicts):
        raise typer.Exit(1)


def judge(file: Path) -> list[Verdict]:
    """Errors and warnings of each GenAIDeployment in a file; raises UserError when it cannot be read."""
    try:
        return [_judged(str(file), one) for one in examine(read_text(file))]
    except ValidationFailed as error:
        return [Verdict(str(file), error.problems, ())]


def _judged(file: str, one: Examined) -> Verdict:
    if one.gaid is None:
        return Verdict(file, one.problems, (), one.name)
    # What the model's files say is a warning: the API server, which cannot read them, accepts the resource.
    warnings = one.with_lines([*hints(one.gaid), *context_problems(one.gaid)])
    return Verdict(file, one.with_lines(_unplaceable(with_model_sizes(one.gaid))), warnings, one.name)


def _unplaceable(gaid: GenAIDeployment) -> Sequence[Problem]:
    """Return problems that only the planner finds: a model too large for a preset, a target below the service time."""
    try:
        place(gaid)
    except ValidationFailed as error:
        return error.problems
    return []


def _as_text(verdicts: Sequence[Verdict]) -> str:
    lines = [problem.format(verdict.file) for verdict in verdicts for problem in verdict.errors]
    lines += [problem.format(f"warning: {verdict.file}") for verdict in verdicts for problem in verdict.warnings]
    errors, warnings = sum(len(v.errors) for v in verdicts), sum(len(v.warnings) for v in verdicts)
    counts = [_count(errors, "error")] if errors else ["valid"]
    counts += [_count(warnings, "warning")] if warnings else []
    return "\n".join([*lines, ", ".join(counts), ""])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _as_data(verdict: Verdict) -> dict[str, Any]:
    values = {"valid": not verdict.errors, **asdict(verdict)}
    # A value that is wrong may be of any type; those that JSON does not have are shown as text.
    data: dict[str, Any] = orjson.loads(orjson.dumps(values, default=str))
    return data
