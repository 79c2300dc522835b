"""Strict YAML configs: every key knows its line, and every mistake is reported at once. Needs ruamel.yaml only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from hfwarmup.schedules.options import did_you_mean

MOVED = {
    "warmup_ratio": 'write warmup: "10%" (transformers 5 has no warmup_ratio)',
    "num_warmup_steps": "write warmup: 500",
    "num_training_steps": "write max_steps",
    "lr": "write learning_rate",
    "batch_size": "write per_device_train_batch_size",
    "evaluation_strategy": "write eval_strategy",
}
"""Names that people bring from elsewhere, and what to write instead."""


class ConfigError(ValueError):
    """All that is wrong with a config, one line each."""

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(findings))


def read_config(
    path: Path,
    known: Collection[str] | None = None,
    check: Callable[[str, Any], str | None] = lambda _key, _value: None,
) -> dict[str, Any]:
    """The settings of one YAML file (YAML 1.2: `2e-5` is a number).

    Raises ConfigError for a file that cannot be read, and with every key that is not `known` (None: all are) and every
    value of which `check(key, value)` has something to say, each with file and line.
    """
    settings = _load(path)
    findings = []
    for key, value in settings.items():
        unknown = known is not None and key not in known
        finding = unknown_key(str(key), known or ()) if unknown else check(str(key), _plain(value))
        if finding is not None:
            findings.append(f"{path}:{settings.lc.key(key)[0] + 1}: {finding}")
    if findings:
        raise ConfigError(findings)
    return {str(key): _plain(value) for key, value in settings.items()}


def unknown_key(key: str, known: Collection[str]) -> str:
    """What to say of a key that no argument has.

    >>> unknown_key("learnign_rate", ["learning_rate"])
    "unknown setting 'learnign_rate'; did you mean 'learning_rate'?"
    """
    if key in MOVED:
        return f"unknown setting {key!r}; {MOVED[key]}."
    hint = did_you_mean(key, known)
    return f"unknown setting {key!r}{hint}" + (" Remove it, or see --help." if hint == "." else "")


def _load(path: Path) -> CommentedMap:
    """The file as a map that knows its lines; duplicate keys are errors."""
    if not path.is_file():
        raise ConfigError([f"{path}: no such config file; see configs/ for those that come with the recipes."])
    try:
        settings = YAML().load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context or "not YAML").splitlines()[0]
        raise ConfigError([f"{path}{line}: {problem}."]) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not YAML text ({str(error).splitlines()[0]})."]) from None
    if settings is None:
        return CommentedMap()
    if not isinstance(settings, CommentedMap):
        raise ConfigError([f"{path}: a config is a map of settings, one `name: value` a line."])
    return settings


def _plain(value: Any) -> Any:
    """ruamel's round-trip types, which remember how they were written, as Python's own."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, ScalarBoolean):  # an int to Python
        return bool(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
