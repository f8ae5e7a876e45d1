"""From a file or a text to a `GenAIDeployment`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tierserve.api.errors import Problem, ValidationFailed
from tierserve.api.v1alpha1.deployment import KIND, GenAIDeployment
from tierserve.api.yaml_source import documents, line_of


def load(source: Path | str) -> GenAIDeployment:
    """Read a file (a path, or a text with a line break) and validate it; raises ValidationFailed or OSError."""
    gaid, problems = examined(text_of(source))
    if gaid is None:
        raise ValidationFailed(problems)
    return gaid


def text_of(source: Path | str) -> str:
    """The text itself, or the text of the file that `source` names."""
    if isinstance(source, str) and "\n" in source:
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValidationFailed([Problem("", "is not text in UTF-8", "give a YAML file")]) from error


def examined(text: str) -> tuple[GenAIDeployment | None, list[Problem]]:
    """The one document in a text, validated, with the line of each problem.

    Raises ValidationFailed for what is not YAML.
    """
    found = documents(text)
    if len(found) != 1:
        hint = f"give one {KIND} in a file"
        return None, [Problem("", f"has {len(found)} documents", hint)]
    document, lines = found[0]
    gaid, problems = _validated(document)
    return gaid, [replace(problem, line=line_of(problem.path, lines)) for problem in problems]


def parse(document: Any) -> GenAIDeployment:
    """Validate a document that was read already; raises ValidationFailed."""
    gaid, problems = _validated(document)
    if gaid is None:
        raise ValidationFailed(problems)
    return gaid


def _validated(document: Any) -> tuple[GenAIDeployment | None, list[Problem]]:
    # Late: CEL takes 0.15 s to import, and a replica that only uses the types should start fast.
    from tierserve.api.schema.checks import validated

    return validated(document)
