"""Looks names up in a module: `python look_up.py MODULE`; JSON in, what is missing out.

A program of its own, because two versions of TensorRT do not go into one process.
"""

from __future__ import annotations

import json
import sys
from functools import reduce
from importlib import import_module
from types import ModuleType


def is_there(module: ModuleType, owners: list[str], name: str) -> bool:
    """Whether one of the owners, or the module, has a name."""
    for owner in [getattr(module, each, None) for each in owners] or [module]:
        try:
            reduce(getattr, name.split("."), owner)
        except AttributeError:
            continue
        return True
    return not owners and name in _members(module)


def _members(module: ModuleType) -> set[str]:
    """The members of a module's enumerations, whose own names are not always beside them."""
    kinds = [value for value in vars(module).values() if hasattr(value, "__members__")]
    return {name for kind in kinds for name in kind.__members__}


if __name__ == "__main__":
    found = import_module(sys.argv[1])
    given = json.load(sys.stdin)
    missing = [[owners, name] for owners, name in given if not is_there(found, owners, name)]
    print(json.dumps({"version": getattr(found, "__version__", ""), "missing": missing}))
