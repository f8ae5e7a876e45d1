"""`tierserve validate FILE`: the verdict of the API server and of the planner, before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import orjson
import typer

from tierserve.api.advice import hints
from tierserve.api.errors import Problem, ValidationFailed
from tierserve.api.loading import examined, text_of
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.yaml_source import documents, line_of
from tierserve.cli.errors import UserError
from tierserve.plan.placement import place


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said about one file."""

    file: str
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files with one GenAIDeployment each.")],
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Check files as the API server does, and whether the planner can place the models; exit code 1 on errors."""
    if output not in {"text", "json"}:
        raise UserError(f"--output {output!r} is unknown", "choose text or json")
    verdicts = [judge(file) for file in files]
    sys.stdout.write(_as_json(verdicts) if output == "json" else _as_text(verdicts))
    if any(verdict.errors for verdict in verdicts):
        raise typer.Exit(1)


def judge(file: Path) -> Verdict:
    """Errors and warnings of one file; raises UserError when it cannot be read."""
    try:
        text = text_of(file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}", "give the path of a GenAIDeployment file") from error
    except ValidationFailed as error:
        return Verdict(str(file), error.problems, ())
    return judge_text(str(file), text)


def judge_text(file: str, text: str) -> Verdict:
    """Errors and warnings of a text; `file` is how the messages call it."""
    try:
        gaid, problems = examined(text)
    except ValidationFailed as error:
        return Verdict(file, error.problems, ())
    if gaid is None:
        return Verdict(file, tuple(problems), ())
    return Verdict(file, _placed(text, _unplaceable(gaid)), _placed(text, hints(gaid)))


def _unplaceable(gaid: GenAIDeployment) -> Sequence[Problem]:
    """What only the planner can know: a model too large for a preset, a target below the bare service time."""
    try:
        place(gaid)
    except ValidationFailed as error:
        return error.problems
    return []


def _placed(text: str, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    if not problems:
        return ()
    _, lines = documents(text)[0]
    return tuple(replace(problem, line=line_of(problem.path, lines)) for problem in problems)


def _as_text(verdicts: Sequence[Verdict]) -> str:
    lines = [problem.format(verdict.file) for verdict in verdicts for problem in verdict.errors]
    lines += [problem.format(f"warning: {verdict.file}") for verdict in verdicts for problem in verdict.warnings]
    errors, warnings = sum(len(v.errors) for v in verdicts), sum(len(v.warnings) for v in verdicts)
    counts = [_count(errors, "error")] if errors else ["valid"]
    counts += [_count(warnings, "warning")] if warnings else []
    return "\n".join([*lines, ", ".join(counts), ""])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _as_json(verdicts: Sequence[Verdict]) -> str:
    whole = [{"valid": not verdict.errors, **asdict(verdict)} for verdict in verdicts]
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2, default=str).decode() + "\n"
