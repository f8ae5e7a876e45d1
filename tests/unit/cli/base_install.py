"""Runs `tierserve` as after `pip install tierserve` without extras: only the packages of the base can be imported.

Usage: python base_install.py tierserve|kubectl-tierserve ARGUMENTS
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

COMMANDS = {"tierserve": "tierserve.cli.main", "kubectl-tierserve": "tierserve.cli.kubectl"}


def base() -> set[str]:
    """Distributions that the package brings without extras, with all that these need."""
    found: set[str] = set()
    todo = ["tierserve"]
    while todo:
        name = normal(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # for another system or Python
            continue
        todo += [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in needed if "extra ==" not in one]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Blocked(MetaPathFinder):
    """Finds nothing of what the base does not bring, as if it were not installed."""

    def __init__(self) -> None:
        brought = base()
        self.modules = {
            module
            for module, distributions in packages_distributions().items()
            if not brought.intersection(map(normal, distributions))
        }

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    sys.meta_path.insert(0, Blocked())
    sys.argv = [program, *arguments]
    importlib.import_module(COMMANDS[program]).main()
