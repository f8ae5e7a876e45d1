"""The command `tierserve`; for services in a cluster there is `kubectl tierserve` (kubectl.py)."""

from __future__ import annotations

import typer

from tierserve.cli.console import console
from tierserve.cli.doctor.command import doctor
from tierserve.cli.errors import run
from tierserve.cli.explain import explain
from tierserve.cli.init.command import init
from tierserve.cli.loadgen.command import load
from tierserve.cli.local import down, status, up
from tierserve.cli.plan.command import plan
from tierserve.cli.profile.command import profile
from tierserve.cli.report import report
from tierserve.cli.simulate.command import simulate
from tierserve.cli.top.command import top
from tierserve.cli.validate import validate

app = typer.Typer(
    name="tierserve",
    help="Tiered generative-AI serving: plan, run and load-test a GenAIDeployment on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for command in (init, validate, plan, simulate, profile, up, status, top, console, explain, report, doctor, down, load):
    app.command()(command)


def main() -> None:
    """Run the command `tierserve`."""
    run(app, "tierserve")


if __name__ == "__main__":
    main()
