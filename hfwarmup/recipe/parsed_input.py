"""What a config file and flags set, and all that is wrong with it."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfwarmup.errors import UserError, nearest
from hfwarmup.planning.aliases import MOVED, moved_to
from hfwarmup.planning.config import ConfigFile, load_config, unknown_key
from hfwarmup.planning.recipe_files import recipes_with
from hfwarmup.planning.settings_file import DEFAULT, Setting


class Given:
    """The settings of the file of --config and of the flags, which win, each as the words of one flag.

    A misspelt name counts as the nearest one, so that what follows from it is judged as if it were right.

    Args:
        argv: the flags.
        options: each option string of the parser -> the setting that it is for.
        parser: judges the words of one flag; it raises UserError.
    """

    def __init__(self, argv: Sequence[str], *, options: Mapping[str, str], parser: ArgumentParser) -> None:
        self.words: dict[str, list[str]] = {}
        """setting -> the words of its flag"""
        self.empty: dict[str, Any] = {}
        """settings of the file that are null or an empty list, which no flag can say"""
        self.findings: list[str] = []
        """what is wrong, one line each"""
        self._options, self._parser = options, parser
        self._known = sorted(set(options.values()) - {"help", "config"})
        self._file: ConfigFile | None = None
        self._flags: set[str] = set()
        groups = _flag_groups(argv)
        for words in groups:
            if words[0].partition("=")[0] == "--config" and self._mistake(words) is None:
                self._read_file(Path(words[-1].removeprefix("--config=")))
        for words in groups:
            self._read_flag(words)

    def setting(self, name: str, value: Any) -> Setting:
        """A setting with its origin; `value` is what the parser made of it."""
        in_file = self._file is not None and name in self._file.values
        place = f"{self._file.path}:{self._file.line(name)}" if self._file and in_file else ""
        if name in self._flags:
            origin = f"flag, over {place}" if in_file else "flag"
        elif self._file and in_file:
            value, origin = self._file.values[name], place
        else:
            origin = DEFAULT
        return Setting(name=name, value=getattr(value, "value", value), origin=origin)

    def contradict(self, message: str, setting: str = "") -> None:
        """A finding on settings that do not go together; it gets the line of the first that is in the file.

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
        findings = set(self._file.duplicates)
        for key, value in self._file.values.items():
            name = key if key in self._known else self._meant(key)
            mistake = None if name is None else self._mistake(_as_flag(name, value))
            if key not in self._known:
                findings.add((self._file.line(key), self._unknown(key, value)))
            elif mistake is not None:
                findings.add((self._file.line(key), mistake))
            if name is not None and mistake is None and (name == key or name not in self._file.values):
                self._set(name, value)
        self.findings += [f"{path}:{line}: {finding}" for line, finding in sorted(findings)]

    def _set(self, name: str, value: Any) -> None:
        if value is None or value == []:
            self.empty[name] = value
        else:
            self.words[name] = _as_flag(name, value)

    def _read_flag(self, words: list[str]) -> None:
        option, equals, text = words[0].partition("=")
        name = self._options.get(option)
        value = text if equals else next(iter(words[1:]), None)
        if not option.startswith("-"):
            self.findings.append(f"stray argument {words[0]!r}; a setting begins with --.")
        elif name is None:
            self.findings.append(self._unknown(option.lstrip("-").replace("-", "_"), value))
        elif (mistake := self._mistake(words)) is not None:
            self.findings.append(mistake)
        elif name != "config":
            self.words[name] = words
            self._flags.add(name)

    def _mistake(self, words: Sequence[str]) -> str | None:
        """What is wrong with the words of one flag, None if nothing is."""
        try:
            stray = self._parser.parse_known_args(list(words))[1]
        except UserError as error:
            return str(error)
        return f"stray argument {stray[0]!r}; a setting begins with --." if stray else None

    def _unknown(self, key: str, value: Any) -> str:
        owners = [] if moved_to(key, value, self._known) else recipes_with(key)
        if not owners:
            return unknown_key(key, self._known, _number(value))
        return f"unknown setting {key!r}, which is of {', '.join(owners)}; run that recipe, or remove it."

    def _meant(self, key: str) -> str | None:
        """The setting that a name which is none most likely stands for."""
        return MOVED[key] if MOVED.get(key) in self._known else nearest(key, self._known)


def _flag_groups(argv: Sequence[str]) -> list[list[str]]:
    """Each flag with its values; a word before the first flag is alone."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or word == "-h" or not groups or not groups[-1][0].startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _as_flag(key: str, value: Any) -> list[str]:
    """A setting of the file as the flag that says the same, so that both are read and checked in one way."""
    if value is None or value == []:
        return []
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    text = json.dumps(value) if isinstance(value, dict | bool) else str(value)
    return [f"--{key}={text}"]


def _number(value: Any) -> Any:
    """The number that a word is, or the word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
