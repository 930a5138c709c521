"""A program that is installed as one file, packed as hosts have it and imported from there."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from plugins.module_utils.packed_program import pack


class Packed:
    """All modules of a program as one; a name that is replaced here is replaced wherever it is used."""

    __slots__ = ("modules", "program")  # without a __dict__, monkeypatch puts back what was there

    def __init__(self, sources: Path, directory: Path) -> None:
        """Pack a package into a file of this directory, and load it; once in a process."""
        program = directory / sources.name.replace("_", "-")
        program.write_bytes(pack(sources))
        program.chmod(0o755)
        sys.path.insert(0, str(program))
        package = importlib.import_module(sources.name)
        names = [each.name for each in pkgutil.walk_packages(package.__path__, f"{sources.name}.")]
        object.__setattr__(self, "program", program)
        object.__setattr__(self, "modules", [importlib.import_module(name) for name in names])

    def having(self, name: str) -> list[ModuleType]:
        """Modules in which this name is known."""
        return [module for module in self.modules if name in vars(module)]

    def __getattr__(self, name: str) -> Any:
        if found := self.having(name):
            return getattr(found[0], name)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        for module in self.having(name):
            setattr(module, name, value)
