"""Services of this user on this machine: their names, status documents and pools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierserve.api import GenAIDeployment, ValidationFailed
from tierserve.api.loading import load_text
from tierserve.cli.errors import UserError

if TYPE_CHECKING:
    from tierserve.plan.placement import Placement


def _complete(incomplete: str) -> list[str]:
    """Return the names of known services that begin so, for the completion of the shell."""
    try:
        return [name for name in names(None) if name.startswith(incomplete)]
    except (UserError, ImportError):  # nothing to complete; the command itself reports why
        return []


ServiceName = Annotated[
    str | None, typer.Argument(help="Name of a service \\[all of this user]", autocompletion=_complete)
]
OnlyService = Annotated[
    str | None, typer.Argument(help="Name of a service \\[the only one that runs]", autocompletion=_complete)
]


def names(name: str | None) -> list[str]:
    """Return the service of this name, or every one that is known; UserError when there can be none of this name."""
    from tierserve.runtime.local.paths import LocalError, ServicePaths, known_services

    try:
        if name is None:
            return known_services()
        ServicePaths.of(name)
    except LocalError as error:
        raise UserError(error.message, error.hint, code=1) from error
    return [name]


def documents(name: str | None) -> list[dict[str, Any]]:
    """Return the status of the service of this name, or of every one that runs, with its target in words.

    Raises:
        UserError: no service of this name is running.
    """
    found = names(name)
    if not found:
        return []
    from tierserve.runtime.local.service import LocalService

    statuses = [LocalService.named(n).status() for n in found]
    if name is not None and not statuses[0]:
        raise UserError(f"NAME: no such service is running ({name})", "start one with tierserve up FILE", code=1)
    return [_with_target(d) for d in statuses if d]


def placements(document: Mapping[str, Any]) -> dict[str, Placement]:
    """Return the pools of a local service by name, from its file; empty while that cannot be read."""
    from tierserve.observe.model_files import with_model_sizes

    try:
        return placed(with_model_sizes(load_text(Path(document["file"]).read_text(encoding="utf-8"))))
    except (OSError, ValueError, ValidationFailed):  # the service then continues with its last valid version
        return {}


def placed(gaid: GenAIDeployment) -> dict[str, Placement]:
    """Return the pools of a GenAIDeployment by name; raises ValidationFailed if a model has no place."""
    from tierserve.plan.placement import place

    return {one.pool: one for one in place(gaid)}


def _with_target(document: dict[str, Any]) -> dict[str, Any]:
    objective = document.get("objective")
    if not objective:
        return document
    return {**document, "target": f"p{objective['percentile']:g} {objective['target_s'] * 1e3:.0f} ms"}
