"""Strict YAML configs: each key has its line, and every mistake is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from hfwarmup.errors import UserError, did_you_mean
from hfwarmup.planning.aliases import ALIASES, advice


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """The settings of one YAML file, as they stand there."""

    path: Path
    """where it is, as it was given"""
    values: dict[str, Any]
    """name -> value, in the order of the file"""
    lines: dict[str, int]
    """name -> line, from 1 on"""
    duplicates: tuple[tuple[int, str], ...]
    """line and finding of each key that stands twice in one map"""

    def line(self, name: str) -> int:
        """Where a setting stands; 1 for what an anchor brings in."""
        return self.lines.get(name, 1)


def load_config(path: Path) -> ConfigFile:
    """A YAML file (YAML 1.2: `2e-5` is a number) with the line of each setting.

    Raises UserError for a file that cannot be read as a map of settings.
    """
    if not path.is_file():
        raise UserError(f"{path}: this config file does not exist; configs/ has those of the recipes.")
    try:
        root, values = _compose(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context or "not YAML").splitlines()[0]
        raise UserError(f"{path}{line}: {problem}.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML text ({str(error).splitlines()[0]}).") from None
    if root is None:
        return ConfigFile(path=path, values={}, lines={}, duplicates=())
    if not isinstance(root, MappingNode):
        raise UserError(f"{path}: a config is a map of settings: write one `name: value` a line.")
    return ConfigFile(
        path=path,
        values={str(key): value for key, value in values.items()},
        lines={str(key.value): key.start_mark.line + 1 for key, _ in root.value},
        duplicates=tuple(_duplicates(root)),
    )


def read_config(
    path: Path,
    known: Collection[str] | None = None,
    check: Callable[[str, Any], str | None] = lambda _key, _value: None,
) -> dict[str, Any]:
    """The settings of one YAML file, when nothing is wrong with them.

    Raises UserError as `load_config` does, and with every duplicate key, every key that is not `known` (None: all
    are) and every value of which `check(key, value)` has something to say, each with file and line.
    """
    config = load_config(path)
    findings = set(config.duplicates)
    for key, value in config.values.items():
        unknown = known is not None and key not in known
        finding = unknown_key(key, known or (), value) if unknown else check(key, value)
        if finding is not None:
            findings.add((config.line(key), finding))
    if findings:
        raise UserError(*[f"{path}:{line}: {finding}" for line, finding in sorted(findings)])
    return config.values


def unknown_key(key: str, known: Collection[str], value: Any = None, owners: Sequence[str] = ()) -> str:
    """The message for a key that is no setting: what to write here, whose setting it is, or the nearest name.

    `known` may map each setting to its type hint, so that advice is valid; `owners` are recipes that have the setting.

    >>> unknown_key("learnign_rate", ["learning_rate"])
    "unknown setting 'learnign_rate'; did you mean 'learning_rate'?"
    >>> unknown_key("warmup_epochs", ["warmup"], 2)
    'unknown setting \\'warmup_epochs\\'; write warmup: "2 epochs".'
    """
    if (here := advice(key, value, known)) is not None:
        return f"unknown setting {key!r}; write {here}."
    if owners:
        return f"unknown setting {key!r}, a setting of {', '.join(owners)}; run that recipe, or remove it."
    hint = "." if key in ALIASES else did_you_mean(key, known)  # a name with a meaning of its own is no slip
    return f"unknown setting {key!r}{hint}" + (" Remove it, or see --help." if hint == "." else "")


def _compose(text: str) -> tuple[Node | None, Any]:
    """The tree of the file, whose nodes know their lines, and what it says."""
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True  # _duplicates finds all of them
    root = yaml.compose(text)
    return root, {} if root is None else yaml.constructor.construct_document(root)


def _duplicates(node: Node) -> Iterator[tuple[int, str]]:
    """Line and finding of each key that stands twice in one map, at any depth."""
    first_lines: dict[str, int] = {}
    for item in node.value:
        key, *children = item if isinstance(node, MappingNode) else (None, item)
        if key is not None:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in first_lines:
                yield line, f"{name!r} is also in line {first_lines[name]}; keep one of the two."
            first_lines.setdefault(name, line)
        for child in children:
            if isinstance(child, CollectionNode):
                yield from _duplicates(child)
