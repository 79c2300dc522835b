"""A recipe's arguments out of a YAML file and flags, both checked in one way; all that is wrong is said at once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, cast

from transformers import HfArgumentParser, TrainingArguments

from hfwarmup.errors import UserError, did_you_mean
from hfwarmup.planning.arguments import read_map
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.parsed_input import Given
from hfwarmup.trainer.registration import register


def parse_arguments(*types: type, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """The dataclasses `types`, filled from `--config FILE` (YAML) and flags; a flag wins over the file.

    RecipeArguments among them get `settings`: every value as it was read, with its origin. Prints all that is wrong,
    one line each, from the first process of each machine, and exits with status 1 when something is.
    """
    register()  # so that lr_scheduler_type takes the names of this package
    try:
        return read_arguments(types, sys.argv[1:] if argv is None else argv)
    except UserError as error:
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        sys.exit("\n".join(f"error: {finding}" for finding in error.findings) if first else 1)


def read_arguments(types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    """`parse_arguments` without its ending: raises UserError with all findings.

    First those of the file, in its order (keys that stand twice or are unknown, values that cannot be), then those of
    the flags, then settings that contradict each other.
    """
    parser = _Parser(types, allow_abbrev=False)  # type: ignore[arg-type]
    parser.add_argument("--config", type=Path, help="a YAML file of settings; flags win over it")
    required = [action.dest for action in parser._actions if action.required]
    for action in parser._actions:
        action.required = False  # the file may have it
    given = Given(argv, options={option: a.dest for option, a in parser._option_string_actions.items()}, parser=parser)
    missing = [name for name in required if name not in given.words]
    given.findings += [f"{name} is missing; give --{name}, or set it in the config." for name in missing]
    parser.set_defaults(**given.empty)
    values = vars(parser.parse_args([word for words in given.words.values() for word in words]))
    filled = [] if missing else _fill(types, values, given)
    if given.findings:
        raise UserError(*given.findings)
    settings = tuple(given.setting(name, values[name]) for kind in types for name in _names(kind))
    for item in filled:
        if isinstance(item, RecipeArguments):
            item.settings = settings
    return tuple(filled)


def _fill(types: Sequence[type], values: Mapping[str, Any], given: Given) -> list[Any]:
    """The dataclasses; what they and the plan have against the values becomes a finding."""
    if {"warmup", "lr_scheduler_type"} <= values.keys():
        for setting, mistake in _plan_settings(values).mistakes():
            given.contradict(mistake, setting)
    filled: dict[type, Any] = {}
    for kind in sorted(types, key=lambda kind: issubclass(kind, TrainingArguments)):
        with _one_process() if given.findings else nullcontext():
            try:
                filled[kind] = kind(**{name: values[name] for name in _names(kind)})
            except ValueError as error:
                given.contradict(str(error))
    return [filled[kind] for kind in types if kind in filled]


@contextmanager
def _one_process() -> Iterator[None]:
    """TrainingArguments made here join no process group: this process will end with what is wrong."""
    launched = {name: os.environ.pop(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(launched)


def _plan_settings(values: Mapping[str, Any]) -> PlanSettings:
    plain = {name: getattr(value, "value", value) for name, value in values.items()}
    try:
        plain["lr_scheduler_kwargs"] = read_map("lr_scheduler_kwargs", plain.get("lr_scheduler_kwargs") or {})
    except ValueError:
        plain["lr_scheduler_kwargs"] = None  # TrainingArguments says it
    return PlanSettings.pick(plain)


def _names(kind: type) -> list[str]:
    return [item.name for item in fields(cast(Any, kind)) if item.init]


class _Parser(HfArgumentParser):
    """transformers' parser, which says one line where argparse prints its usage."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"argument --(\w+)(/\S+)?: ", r"\1: ", message)
        choice = re.fullmatch(r"(\w+): invalid choice: (.*?) \(choose from (.*)\)", message)
        if choice is None:
            raise UserError(f"{message}.")
        name, value, choices = choice[1], choice[2].strip("'"), choice[3].replace("'", "")
        raise UserError(f"{name}={value!r}{did_you_mean(value, choices.split(', '))} Choose one of {choices}.")
