"""A setting's value in the type of its field: YAML brings values with types, a flag brings text."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import EnumType
from functools import cache
from numbers import Real
from typing import Any, Literal

from hfwarmup.errors import UserError, check_choice
from hfwarmup.planning.durations import Duration, parse_duration

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
LARGEST = 2**63 - 1
"""The largest whole number that torch and NumPy can hold."""


_WORDS: dict[Any, str] = {
    Duration: "a duration such as 500, '5%' or '2 epochs'",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    Literal: "one of {names}",
    str: "text (in quotes)",
    list: "a list of texts",
    dict: "a map",
    types.NoneType: "",
}
"""Type of a value -> what to call it in a message; Literal stands for all that is one of some words."""


@dataclass(frozen=True)
class Kinds:
    """What the value of a setting may be; a type hint with several alternatives allows several."""

    types: frozenset[Any]
    """keys of _WORDS"""
    choices: tuple[Any, ...]
    """the values of a Literal, and the enums whose values are allowed"""
    items: Any = Any
    """type hint of a map's values"""

    def __contains__(self, kind: Any) -> bool:
        return kind in self.types

    def names(self) -> list[str]:
        """The words that may be chosen; those of an enum as it is now, since `register` extends one."""
        names: list[str] = []
        for kind in self.choices:
            members: Any = kind if isinstance(kind, EnumType) else ()
            names += [str(member.value) for member in members] or [str(kind)]
        return names

    def __str__(self) -> str:
        kinds = self.types - {int} if float in self else self.types
        words = " or ".join(text for kind, text in _WORDS.items() if kind in kinds and text)
        return words.format(names=", ".join(self.names())) or "nothing: only Python can set it"


@cache
def kinds_of(hint: Any) -> Kinds:
    """The kinds of values that a type hint allows.

    >>> str(kinds_of(int | None)), str(kinds_of(str | list[str]))
    ('a whole number', 'text (in quotes) or a list of texts')
    """
    found: set[Any] = set()
    choices: list[Any] = []
    items: Any = Any
    for part in _alternatives(hint):
        if typing.get_origin(part) is dict and typing.get_args(part):
            items = typing.get_args(part)[1]
        if isinstance(part, EnumType):
            choices.append(part)
        elif typing.get_origin(part) is Literal:
            choices += [choice for choice in typing.get_args(part) if isinstance(choice, str)]
        else:
            found |= {typing.get_origin(part) or part} & _WORDS.keys()
    if choices:  # transformers writes `SomeEnum | str`, and means the enum's words
        found = found - {str} | {Literal}
    if Duration in found:  # all that parse_duration reads
        found &= {Duration, types.NoneType}
    return Kinds(frozenset(found), tuple(choices), items)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(part for each in typing.get_args(hint) for part in _alternatives(each))
    return (hint,)


def hints_of(*kinds: type) -> dict[str, Any]:
    """Field -> type hint, of all fields of some dataclasses that can be given; a default of None is allowed too.

    >>> hints_of(Duration)["amount"]
    <class 'float'>
    """
    found: dict[str, Any] = {}
    for kind in kinds:
        hints = _hints(kind)
        for item in (item for item in fields(typing.cast(Any, kind)) if item.init):
            hint = hints[item.name]
            found[item.name] = typing.Optional[hint] if item.default is None else hint  # noqa: UP045  hint may be a string's type
    return found


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def choices_of(*kinds: type) -> dict[str, list[str]]:
    """Field -> the words that it may be, of fields whose metadata has `choices`.

    >>> choices_of(Duration)
    {}
    """
    given = [item for kind in kinds for item in fields(typing.cast(Any, kind)) if item.init]
    return {item.name: list(item.metadata["choices"]) for item in given if "choices" in item.metadata}


def defaults_of(*kinds: type) -> dict[str, Any]:
    """Field -> default of all fields of some dataclasses; a field that must be given has none.

    >>> defaults_of(Duration)
    {}
    """
    found: dict[str, Any] = {}
    for item in (item for kind in kinds for item in fields(typing.cast(Any, kind)) if item.init):
        if item.default is not MISSING:
            found[item.name] = item.default
        elif item.default_factory is not MISSING:
            found[item.name] = item.default_factory()
    return found


def read_value(name: str, value: Any, hint: Any) -> Any:
    """A value of a YAML file, or of Python, in the type that `hint` asks for.

    Nothing changes its kind: text is no number, and a number is no text. A whole number serves where a number is asked
    for, and 1e3 where a whole one is. A map may also be JSON text.

    Raises:
        UserError: one line with the setting, its value and what it may be.

    >>> read_value("max_steps", 1e3, int), read_value("learning_rate", 1, float), read_value("seed", None, int | None)
    (1000, 1.0, None)
    >>> read_value("max_steps", "40", int)
    Traceback (most recent call last):
    hfwarmup.errors.UserError: max_steps='40': give a whole number.
    >>> read_value("warmup_stretch", {"embed": "x"}, dict[str, float])
    Traceback (most recent call last):
    hfwarmup.errors.UserError: warmup_stretch['embed']='x': give a number.
    """
    kinds = kinds_of(hint)
    if value is None and types.NoneType in kinds:
        return None
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif isinstance(value, Real):
        return _read_number(name, value, kinds)
    elif isinstance(value, Duration) and Duration in kinds:
        return value
    elif isinstance(value, str):
        return _read_string(name, value, kinds)
    elif isinstance(value, Sequence) and list in kinds:
        if all(isinstance(item, str) for item in value):
            return list(value)
    elif isinstance(value, Mapping) and dict in kinds:
        return _read_items(name, read_map(name, dict(value)), kinds.items)
    raise _wrong(name, value, kinds)


def read_words(name: str, words: Sequence[str], hint: Any) -> Any:
    """The words behind a flag in the type that `hint` asks for; a flag alone stands for true.

    >>> read_words("seed", ["3"], int), read_words("bf16", [], bool), read_words("metrics", ["f1", "mse"], list[str])
    (3, True, ['f1', 'mse'])
    """
    kinds = kinds_of(hint)
    if not words:
        if bool not in kinds:
            raise UserError(f"{name} has no value; write --{name} VALUE.")
        return True
    if list in kinds and (len(words) > 1 or str not in kinds):
        return list(words)
    if len(words) > 1:
        raise UserError(f"unexpected argument {words[1]!r}; write --name value.")
    (word,) = words
    if types.NoneType in kinds and word == "null":
        return None
    return read_value(name, _typed(word, kinds), hint)


def _typed(word: str, kinds: Kinds) -> Any:
    """The word as the value that YAML would bring: a truth, or a number where text is not allowed; else the text."""
    if bool in kinds and word.lower() in (*TRUE, *FALSE):
        return word.lower() in TRUE
    if (int in kinds or float in kinds) and str not in kinds:
        return as_number(word)
    return word


def as_number(word: str) -> int | float | str:
    """The number that a word writes, or else the word.

    >>> as_number("40"), as_number("2e-5"), as_number("many")
    (40, 2e-05, 'many')
    """
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word


def _read_number(name: str, value: Any, kinds: Kinds) -> Any:
    too_large = isinstance(value, int) and abs(value) > LARGEST
    if too_large or not math.isfinite(value):
        raise UserError(f"{name}={_shown(value)}: give a finite number of at most 19 digits.")
    if float in kinds:
        return float(value)
    if int in kinds and value == int(value):
        return int(value)
    if Duration in kinds:
        return parse_duration(value)
    raise _wrong(name, value, kinds)


def _read_string(name: str, value: str, kinds: Kinds) -> Any:
    if Duration in kinds:
        return parse_duration(value) if value else None
    # Elsewhere the text of a map may be the path of its file.
    if dict in kinds and (value.lstrip().startswith("{") or str not in kinds or name.endswith("_kwargs")):
        return _read_items(name, read_map(name, value), kinds.items)
    if str in kinds:
        return value
    if Literal in kinds and (value in kinds.names() or bool not in kinds):
        check_choice(name, value, kinds.names())
        return value
    raise _wrong(name, value, kinds)


def _read_items(name: str, given: dict[str, Any], hint: Any) -> dict[str, Any]:
    """A map whose values have the type that `hint` asks for."""
    return given if hint is Any else {key: read_value(f"{name}[{key!r}]", value, hint) for key, value in given.items()}


def read_map(setting: str, given: Any) -> dict[str, Any]:
    """A setting that is a map, given as one or as JSON; UserError, in one line, for anything else.

    >>> read_map("config_overrides", '{"hidden_size": 256}')
    {'hidden_size': 256}
    >>> read_map("lr_scheduler_kwargs", "factor: 2")
    Traceback (most recent call last):
    hfwarmup.errors.UserError: lr_scheduler_kwargs='factor: 2' is not JSON (Expecting value); quote its names.
    """
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "too deep")
        raise UserError(f"{setting}={_shown(given)} is not JSON ({reason}); quote its names.") from None
    if not isinstance(parsed, dict):
        raise UserError(f"{setting}={_shown(given)}: give a map of settings.")
    if not all(isinstance(name, str) for name in parsed):
        raise UserError(f"{setting}={_shown(given)}: each name in a map is text; write it in quotes.")
    return parsed


def _wrong(name: str, value: Any, kinds: Kinds) -> UserError:
    return UserError(f"{name}={_shown(value)}: give {kinds}.")


def _shown(value: Any) -> str:
    """A value in a message: as in YAML, and not longer than a line."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else _in_python(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _in_python(value: Any) -> str:
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a number of over 19 digits"  # Python refuses to write 5,000 of them
    return repr(value) if isinstance(value, str | list | dict | float | int) else str(value)
