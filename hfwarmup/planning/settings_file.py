"""The settings that a run really has, each with its origin, as a config that makes the run again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT = "default"
"""The origin of what nobody has set."""

_PLAIN_WORD = re.compile(r"[A-Za-z_][\w./-]*")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # JSON writes them as they are, YAML may not
_YAML_CONSTANT = re.compile(r"true|false|null", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a run as it was read, before the plan scales it."""

    name: str
    """the argument's name"""
    value: Any
    """plain data"""
    origin: str
    """`flag`, `default`, or file:line"""


def settings_text(settings: Iterable[Setting], *, recipe: str, notes: Mapping[str, str]) -> str:
    """A YAML file of `settings`, one a line with its origin; what was set comes first.

    Secrets, whose names end with `_token`, are left out. The first line says which `recipe` they are for; `notes` has
    what the plan makes of a setting, by name.

    >>> settings = [
    ...     Setting(name="seed", value=0, origin="default"),
    ...     Setting(name="learning_rate", value=1e-3, origin="runs/a.yaml:4"),
    ... ]
    >>> print(settings_text(settings, recipe="pretrain_clm", notes={"learning_rate": "0.002 by the plan"}), end="")
    # recipe: pretrain_clm
    # The settings of this run before its plan, each with its origin; --config with this file makes it again.
    learning_rate: 0.001                    # runs/a.yaml:4; 0.002 by the plan
    <BLANKLINE>
    seed: 0                                 # default
    """
    blocks: dict[bool, list[str]] = {True: [], False: []}
    for setting in settings:
        if setting.name.endswith("_token"):
            continue
        origin = "; ".join(filter(None, (setting.origin, notes.get(setting.name))))
        line = f"{setting.name}: {_as_yaml(setting.value)}"
        blocks[setting.origin != DEFAULT].append(f"{line:<39} # {origin}\n")
    header = (
        f"# recipe: {recipe}\n"
        "# The settings of this run before its plan, each with its origin; --config with this file makes it again.\n"
    )
    return header + "\n".join("".join(lines) for lines in blocks.values() if lines)


def _as_yaml(value: Any) -> str:
    """Plain data on one line: words as they are, everything else as JSON, which YAML 1.2 reads."""
    if isinstance(value, str) and _PLAIN_WORD.fullmatch(value) and not _YAML_CONSTANT.fullmatch(value):
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
