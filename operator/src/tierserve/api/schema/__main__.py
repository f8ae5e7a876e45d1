"""Writes or checks the CustomResourceDefinition: `python -m tierserve.api.schema --write FILE | --check FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tierserve.api.schema.crd import text


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m tierserve.api.schema", description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=Path, metavar="FILE")
    group.add_argument("--check", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text(), encoding="utf-8")
        return 0
    if options.check.exists() and options.check.read_text(encoding="utf-8") == text():
        return 0
    print(f"{options.check} is stale\n    hint: run `make crds` and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
