"""What a config file and flags set: each value in its type, with its origin, and all that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hfwarmup.errors import UserError
from hfwarmup.planning.aliases import advice
from hfwarmup.planning.config import ConfigFile, load_config, unknown_key
from hfwarmup.planning.durations import Duration
from hfwarmup.planning.recipe_files import recipes_with
from hfwarmup.planning.settings_file import DEFAULT, Setting
from hfwarmup.planning.values import as_number, read_value, read_words

NEIGHBOURS = ("adam_beta1",)
"""Settings of TrainingArguments with nearly the name of a setting in `hints`: they are not misspelt."""

Findings = list[tuple[int, str]]
"""Line of the file, and what is wrong there."""


class ParsedInput:
    """The settings of the file of `--config` and of the flags, which win over it.

    Args:
        argv: the flags.
        hints: setting -> type hint, of all settings that there are.
        strict: whether every other name is a mistake. If not, only a misspelt name is one, or a name from elsewhere.
    """

    def __init__(self, argv: Sequence[str], hints: Mapping[str, Any], *, strict: bool = True) -> None:
        self.values: dict[str, Any] = {}
        """setting -> its value, of those that were given and are right"""
        self.findings: list[str] = []
        """what is wrong, one line each"""
        self.has_unknown = False
        """whether a name is no setting: what is missing may then stand under that name"""
        self.wants_help = False
        """whether --help was among the flags"""
        self._hints, self._strict = hints, strict
        self._file: ConfigFile | None = None
        groups = _flag_groups(argv)
        self._flags = {_name_of(words) for words in groups} & hints.keys()
        files = [Path(words[1]) for words in groups if words[0] == "--config" and len(words) == 2]
        if len(files) > 1:
            self.findings.append(f"config is given {len(files)} times, {' and '.join(map(str, files))}; keep one file.")
        elif files:
            self._read_file(files[0])
        for words in groups:
            self._read_flag(words)

    def setting(self, name: str, value: Any) -> Setting:
        """A setting with its origin; `value` is what the run has."""
        in_file = self._file is not None and name in self._file.values
        place = f"{self._file.path}:{self._file.line(name)}" if self._file and in_file else ""
        if name in self._flags:
            origin = f"flag, over {place}" if in_file else "flag"
        else:
            origin = place or DEFAULT
        value = str(value) if isinstance(value, Duration) else getattr(value, "value", value)
        return Setting(name=name, value=value, origin=origin)

    def add_mistakes(self, mistakes: Iterable[tuple[str, str]]) -> None:
        """Findings on single settings: each with its name and what is wrong with it."""
        for setting, mistake in mistakes:
            self.add_conflict(mistake, setting)

    def add_conflict(self, message: str, setting: str = "") -> None:
        """A finding on settings that do not go together, with the line of the first of them that is in the file.

        That is `setting`, or one that the message names.
        """
        text = " ".join(message.split())
        named = [setting] if setting else [*re.findall(r"\b(\w+)=", text), *re.findall(r"\w+", text)]
        found = text
        if self._file is not None:
            in_file = [name for name in named if name in self._file.values and name not in self._flags]
            found = f"{self._file.path}:{self._file.line(in_file[0])}: {text}" if in_file else text
        if found not in self.findings:
            self.findings.append(found)

    def _read_file(self, path: Path) -> None:
        try:
            self._file = load_config(path)
        except UserError as error:
            self.findings += error.findings
            return
        found: Findings = list(self._file.duplicates)
        for key, value in self._file.values.items():
            try:
                if key in self._flags:  # which win over whatever stands here
                    continue
                if key in self._hints:
                    self.values[key] = read_value(key, value, self._hints[key])
                else:
                    self._check_unknown(key, value)
            except UserError as error:
                found.append((self._file.line(key), str(error)))
        self.findings += [f"{path}:{line}: {finding}" for line, finding in sorted(set(found))]

    def _read_flag(self, words: list[str]) -> None:
        name = _name_of(words)
        self.wants_help = self.wants_help or words[0] in ("-h", "--help")
        try:
            if not words[0].startswith("-"):
                raise UserError(f"unexpected argument {words[0]!r}; write --name value.")
            if name == "config":
                if len(words) != 2:
                    raise UserError("config has no value; write --config FILE.")
            elif name in self._hints:
                self.values[name] = read_words(name, words[1:], self._hints[name])
            elif not self.wants_help:
                self._check_unknown(name, as_number(words[1]) if words[1:] else None)
        except UserError as error:
            self.findings.append(str(error))

    def _check_unknown(self, key: str, value: Any) -> None:
        """Raise UserError for a name that is no setting; when not strict, only for one that stands for a setting."""
        if self._strict:
            self.has_unknown = True
            raise UserError(unknown_key(key, self._hints, value, owners=recipes_with(key)))
        is_slip = bool(get_close_matches(key, list(self._hints), n=1, cutoff=0.9)) and key not in NEIGHBOURS
        if is_slip or advice(key, value, self._hints) is not None:
            raise UserError(unknown_key(key, self._hints, value))


def _name_of(words: Sequence[str]) -> str:
    """The setting that a flag names; words may be joined by hyphens."""
    return words[0].removeprefix("--").replace("-", "_")


def _flag_groups(argv: Sequence[str]) -> list[list[str]]:
    """Each flag with its words; `--name=value` is a flag with one, and a word before the first flag is alone."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") and "=" in word:
            groups.append(word.split("=", 1))
        elif word.startswith("--") or word == "-h" or not groups or not groups[-1][0].startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups
