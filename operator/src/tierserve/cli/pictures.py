"""Plot of a command: its path is checked before the work; a failed plot does not lose the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tierserve.cli.errors import UserError
from tierserve.cli.files import check_writable

# The formats of matplotlib that browsers display.
ENDINGS = (".png", ".svg", ".pdf")


class Picture:
    """Target of the plot: the path of --out, or a default path (best effort).

    Attributes:
        path: the file.
        problem: why it could not be written; empty otherwise.
    """

    def __init__(self, out: Path | None, default: Path) -> None:
        """Raise UserError if `out` cannot be written."""
        self.given = out is not None
        self.path = out or default
        self.problem = ""
        if out is not None:
            if out.suffix.lower() not in ENDINGS:
                raise UserError(
                    f"--out: must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} ({out})",
                    "give such a path",
                )
            check_writable("--out", out)

    def draw(self, draw: Callable[[Path], None]) -> None:
        """Write the plot; an OSError is kept in `problem`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draw(self.path)
        except OSError as error:
            self.problem = error.strerror or str(error)

    @property
    def written(self) -> str | None:
        """Path of the written plot, for JSON; None without one."""
        return None if self.problem else str(self.path)

    def report(self) -> None:
        """Report a failed plot after the table: on stderr, or as UserError if --out was given."""
        if self.problem and self.given:
            raise UserError(f"--out: {self.problem} ({self.path})", "the table above is complete", code=1)
        if self.problem:
            print(f"no plot: {self.path}: {self.problem} (hint: give another path with --out)", file=sys.stderr)
