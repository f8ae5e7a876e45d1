"""The picture of a command: refused before the work where it cannot be written, and never at the cost of the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tierserve.cli.errors import UserError
from tierserve.cli.files import check_writable

# Of what matplotlib writes, those that a browser shows.
ENDINGS = (".png", ".svg", ".pdf")


class Picture:
    """Where the picture goes: the path of --out, or a default that is only tried.

    Attributes:
        path: the file.
        problem: why it could not be written; empty while all is well.
    """

    def __init__(self, out: Path | None, default: Path) -> None:
        """Raise UserError when a path that was given cannot be written."""
        self.given = out is not None
        self.path = out or default
        self.problem = ""
        if out is not None:
            if out.suffix.lower() not in ENDINGS:
                raise UserError(
                    f"--out {out}: is not a kind of picture",
                    f"give a path that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}",
                )
            check_writable("--out", out)

    def draw(self, draw: Callable[[Path], None]) -> None:
        """Write it, or keep why not."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draw(self.path)
        except OSError as error:
            self.problem = error.strerror or str(error)

    @property
    def written(self) -> str | None:
        """The path, once the picture is there; for JSON."""
        return None if self.problem else str(self.path)

    def report(self) -> None:
        """After the figures: say on stderr why there is no picture; UserError where it was asked for."""
        if self.problem and self.given:
            raise UserError(f"--out {self.path}: {self.problem}", "the figures above are complete", code=1)
        if self.problem:
            print(f"no picture: {self.path}: {self.problem}; --out names another place", file=sys.stderr)
