"""A recipe's arguments out of a YAML file and flags, both read in one way; all that is wrong is said at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from typing import Any, cast

from transformers import TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.planning.parsed_input import ParsedInput
from hfwarmup.planning.ranges import range_mistakes
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.planning.values import choices_of, defaults_of, hints_of, kinds_of
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.rehearsal import impossible_values, rehearse
from hfwarmup.trainer.registration import register


def parse_arguments(*types: type, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """The dataclasses `types`, filled from `--config FILE` (YAML) and flags; a flag wins over the file.

    The schedules' names are registered first. RecipeArguments among the types get `settings`: every value as it was
    read, with its origin. Prints all that is wrong, one line each, from the first process of each machine, and exits
    with status 1 when something is.
    """
    try:
        return read_arguments(types, sys.argv[1:] if argv is None else argv)
    except UserError as error:
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        sys.exit(error.report() if first else 1)


def read_arguments(types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    """`parse_arguments` without its ending: raises UserError with all findings.

    First those of the file, in its order (keys that stand twice or are unknown, values that cannot be), then those of
    the flags, then settings that contradict each other.
    """
    register()
    hints, defaults = hints_of(*types), defaults_of(*types)
    given = ParsedInput(argv, hints)
    if given.wants_help:
        _print_help(types)
        raise SystemExit(0)
    missing = [name for name in hints if name not in defaults and name not in given.values]
    given.findings += [f"{name} is missing; give --{name}, or set it in the config." for name in missing]
    filled = [] if missing else _fill(types, given, defaults)
    if given.findings:
        raise UserError(*given.findings)
    settings = tuple(given.setting(name, given.values.get(name, defaults.get(name))) for name in hints)
    for item in filled:
        if isinstance(item, RecipeArguments):
            item.settings = settings
    return tuple(filled)


def _fill(types: Sequence[type], given: ParsedInput, defaults: Mapping[str, Any]) -> list[Any]:
    """The dataclasses; what they, the plan and the first update have against the values becomes a finding."""
    mistakes = range_mistakes(given.values)
    if {"warmup", "lr_scheduler_type"} <= defaults.keys():
        mistakes += PlanSettings.pick({**defaults, **given.values}).mistakes()
    if any(issubclass(kind, TrainingArguments) for kind in types):
        mistakes += impossible_values(given.values, defaults, choices_of(*types))
    given.add_mistakes(mistakes)
    right = {name: value for name, value in given.values.items() if name not in dict(mistakes)}
    filled: dict[type, Any] = {}
    with _one_process() if given.findings else nullcontext():
        for kind in sorted(types, key=lambda kind: issubclass(kind, TrainingArguments)):
            own = {name: right[name] for name in hints_of(kind) if name in right}
            filled[kind] = _construct(kind, own, given)
            if isinstance(filled[kind], RecipeArguments) and not given.findings:
                given.add_mistakes(rehearse(filled[kind]))
    return [filled[kind] for kind in types if filled[kind] is not None]


def _construct(kind: type, own: Mapping[str, Any], given: ParsedInput) -> Any:
    """The dataclass, or None and a finding. What TrainingArguments misses may stand under a name that is unknown."""
    try:
        return kind(**own)
    except UserError as error:
        for finding in error.findings:
            given.add_conflict(finding)
    except Exception as error:  # transformers and accelerate raise anything for values that they cannot use
        if not (given.has_unknown and issubclass(kind, TrainingArguments)):
            setting = _culprit(kind, own)
            given.add_conflict(_as_finding(setting, own.get(setting), error), setting)
    return None


def _culprit(kind: Callable[..., Any], own: Mapping[str, Any]) -> str:
    """The setting without which the dataclass can be made; empty where it takes more than one."""
    for name in reversed(list(own)):
        try:
            kind(**{other: value for other, value in own.items() if other != name})
        except Exception:
            continue
        return name
    return ""


def _as_finding(setting: str, value: Any, error: Exception) -> str:
    reason = " ".join(str(error).split()).strip().rstrip(".")
    if isinstance(error, ValueError) and (not setting or setting in reason):
        return f"{reason}."
    named = f"{setting}={value!r}: " if setting else ""
    return f"{named}transformers refuses it ({type(error).__name__}: {reason}); change or remove it."


@contextmanager
def _one_process() -> Iterator[None]:
    """TrainingArguments made here join no process group: this process will end with what is wrong."""
    launched = {name: os.environ.pop(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(launched)


def _print_help(types: Sequence[type]) -> None:
    """Every setting, in the groups of the dataclasses."""
    parser = argparse.ArgumentParser(description="Settings, as flags or in the YAML file of --config.", add_help=False)
    parser.add_argument("--config", metavar="FILE", help="a YAML file of settings; flags win over it")
    for kind in types:
        group = parser.add_argument_group(kind.__name__)
        for item in (item for item in fields(cast(Any, kind)) if item.init):
            words = f"{item.metadata.get('help', '')} ({kinds_of(hints_of(kind)[item.name])})"
            group.add_argument(f"--{item.name}", metavar="VALUE", help=words.strip().replace("%", "%%"))
    parser.print_help()
