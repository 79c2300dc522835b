"""A recipe's arguments out of a YAML file and flags, both checked in one way."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, cast

from transformers import HfArgumentParser

from hfwarmup.planning.config import ConfigError, read_config, unknown_key


def parse_arguments(*types: type, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """The dataclasses `types`, filled from `--config FILE` (YAML) and flags; a flag wins over the file.

    Prints what is wrong, one line each, and exits with status 1 when something is.
    """
    try:
        return _parse(types, sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


def _parse(types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    parser = _Parser(types, allow_abbrev=False)  # type: ignore[arg-type]
    parser.add_argument("--config", type=Path, help="a YAML file of settings; flags win over it")
    known = {field.name for kind in types for field in fields(cast(Any, kind)) if field.init}
    config = _config_path(argv)
    if config is not None:
        for action in parser._actions:
            action.required = False  # the file may have it
        settings = read_config(config, known, parser.check)
        parser.set_defaults(**dict.fromkeys(key for key, value in settings.items() if value is None))
        argv = [*(word for key, value in settings.items() for word in _as_flag(key, value)), *argv]
    *filled, _, unknown = parser.parse_args_into_dataclasses(
        list(argv), return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        flags = [word.split("=")[0].lstrip("-").replace("-", "_") for word in unknown if word.startswith("--")]
        stray = [f"stray argument {unknown[0]!r}; a setting begins with --."]
        raise ConfigError([unknown_key(flag, known) for flag in flags] or stray)
    return tuple(filled)


def _as_flag(key: str, value: Any) -> list[str]:
    """A setting of the file as the flag that says the same, so that both are read and checked in one way."""
    if value is None:
        return []
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    text = json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
    return [f"--{key}={text}"]


class _Parser(HfArgumentParser):
    """transformers' parser, which says one line where argparse prints its usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError([re.sub(r"argument --(\w+)(/\S+)?: ", r"\1: ", message) + "."])

    def check(self, key: str, value: Any) -> str | None:
        """What is wrong with one setting of a file, None if nothing is."""
        try:
            self.parse_known_args(_as_flag(key, value))
        except ConfigError as error:
            return str(error)
        return None


def _config_path(argv: Sequence[str]) -> Path | None:
    finder = _Parser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    return cast("Path | None", finder.parse_known_args(list(argv))[0].config)
