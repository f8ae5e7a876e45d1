"""The command `tierserve`; for services in a cluster there is `kubectl tierserve` (kubectl.py)."""

from __future__ import annotations

import typer

from tierserve.cli.console import console
from tierserve.cli.errors import run
from tierserve.cli.loadgen.command import load
from tierserve.cli.local import down, status, up
from tierserve.cli.plan.command import plan
from tierserve.cli.profile.command import profile
from tierserve.cli.simulate.command import simulate
from tierserve.cli.validate import validate

app = typer.Typer(
    name="tierserve",
    help="Tiered generative-AI serving: plan, run and load-test a GenAIDeployment on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for command in (validate, plan, simulate, profile, up, status, console, down, load):
    app.command()(command)


def main() -> None:
    """Run the command `tierserve`."""
    run(app, "tierserve")


if __name__ == "__main__":
    main()
