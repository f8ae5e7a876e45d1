"""`kubectl_complete-tierserve`: what kubectl runs to complete the command line of its plugin.

kubectl (1.26 and newer) passes the words after `kubectl tierserve` and reads one candidate per line, and on the last
line a colon with the number of a directive of Cobra.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from tierserve.cli.kubectl import app

NO_FILES = ":4"
"""Cobra's ShellCompDirectiveNoFileComp: the shell does not add names of files."""
_PROGRAM = "kubectl-tierserve"


def main() -> None:
    """Print the candidates for the last word of the command line."""
    words = sys.argv[1:]
    # Typer's completion of bash takes the line from the environment, and prints one candidate per line.
    os.environ["_KUBECTL_TIERSERVE_COMPLETE"] = "complete_bash"
    os.environ["COMP_WORDS"] = " ".join([_PROGRAM, *words])
    os.environ["COMP_CWORD"] = str(max(len(words), 1))
    candidates = io.StringIO()
    with contextlib.redirect_stdout(candidates), contextlib.suppress(SystemExit):
        app(prog_name=_PROGRAM)
    lines = [line for line in candidates.getvalue().splitlines() if line]
    print("\n".join([*lines, NO_FILES]))


if __name__ == "__main__":
    main()
