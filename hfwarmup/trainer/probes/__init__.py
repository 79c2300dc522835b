"""The measurements of the monitor, one a file: it measures every Probe that a file of this folder defines."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from hfwarmup.trainer.probes.base import Probe


def probe_kinds() -> list[type[Probe]]:
    """The probes of this folder's files, in the order of the files' names.

    >>> [kind.__name__ for kind in probe_kinds() if kind.__module__.endswith("relative_update")]
    ['RelativeUpdate']
    """
    modules = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
    return [kind for module in modules for kind in vars(module).values() if _is_probe_of(kind, module.__name__)]


def _is_probe_of(kind: object, module: str) -> bool:
    """Whether this is a probe that the module itself defines; one that it imports does not count."""
    return isinstance(kind, type) and issubclass(kind, Probe) and kind.__module__ == module and kind is not Probe
