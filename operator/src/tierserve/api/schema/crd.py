"""Writes or checks the CustomResourceDefinition: ``python -m tierserve.api.schema.crd --write|--check FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tierserve.api.schema.definition import text


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m tierserve.api.schema.crd", description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=Path, metavar="FILE")
    group.add_argument("--check", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(text(), encoding="utf-8")
        return 0
    if given.check.exists() and given.check.read_text(encoding="utf-8") == text():
        return 0
    print(f"{given.check} is not what the models say\n    run `make crds` and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
