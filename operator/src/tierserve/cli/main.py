"""The command `tierserve`, also found by kubectl as `kubectl tierserve`."""

from __future__ import annotations

import sys

import typer

from tierserve.cli.errors import UserError
from tierserve.cli.load import load
from tierserve.cli.local import down, status, up
from tierserve.cli.plan import plan
from tierserve.cli.validate import validate

app = typer.Typer(
    name="tierserve",
    help="Tiered generative-AI serving: one file in, three tiers serving, response time held while connections grow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for command in (validate, plan, up, status, down, load):
    app.command()(command)


def main() -> None:
    """Run the command; a mistake of the user's ends in two lines, not in a traceback."""
    try:
        app()
    except UserError as error:
        print(f"tierserve: {error}", file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
