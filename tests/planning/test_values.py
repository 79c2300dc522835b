"""A value keeps its kind: what YAML brings and what a flag says become the type of the field, or one line."""

from __future__ import annotations

import datetime
import re
from enum import Enum
from typing import Any, Literal

import pytest

from hfwarmup.planning.durations import Duration
from hfwarmup.planning.values import read_value, read_words

Strategy = Enum("Strategy", {"NO": "no", "STEPS": "steps"})
LENGTH = str | int | float | Duration | None
A_DURATION = "write for example 500, '5%', '2 epochs', '100k samples' or '20M tokens'."

READ = [
    # type of the field, value in YAML, words of a flag, what it is
    (int, 7, ["7"], 7),
    (int, 1e3, ["1e3"], 1000),
    (float, 7, ["7"], 7.0),
    (float, 2e-5, ["2e-5"], 2e-5),
    (bool, True, ["true"], True),
    (bool, False, ["no"], False),
    (str, "40", ["40"], "40"),
    (str, "true", ["true"], "true"),
    (int | None, None, ["null"], None),
    (str | list[str], "wandb", ["wandb"], "wandb"),
    (str | list[str], ["wandb", "trackio"], ["wandb", "trackio"], ["wandb", "trackio"]),
    (list[str], ["f1"], ["f1"], ["f1"]),
    (dict[str, Any], {"a": 1}, ['{"a": 1}'], {"a": 1}),
    (dict | str | None, "file.json", ["file.json"], "file.json"),
    (Strategy | str, "no", ["no"], "no"),
    (bool | Literal["auto"], "auto", ["auto"], "auto"),
    (bool | Literal["auto"], True, ["true"], True),
    (LENGTH, 500, ["500"], Duration(amount=500, unit="steps")),
    (LENGTH, "5%", ["5%"], Duration(amount=5, unit="%")),
    (LENGTH, None, ["null"], None),
]


@pytest.mark.parametrize(("hint", "in_yaml", "words", "expected"), READ)
def test_a_value_and_the_words_of_a_flag_mean_the_same(hint, in_yaml, words, expected):
    for value in (read_value("x", in_yaml, hint), read_words("x", words, hint)):
        assert value == expected
        assert type(value) is type(expected)


REFUSED = [
    # type of the field, value in YAML, what is said of it
    (int, "40", "x='40': give a whole number."),
    (int, 2.5, "x=2.5: give a whole number."),
    (int, True, "x=true: give a whole number."),
    (int, 10**400, "x=a number of over 19 digits: give a finite number of at most 19 digits."),
    (float, None, "x=null: give a number."),
    (float, float("nan"), "x=nan: give a finite number of at most 19 digits."),
    (float, "2e-5", "x='2e-5': give a number."),
    (bool, 1, "x=1: give true or false."),
    (str, {"path": "y"}, "x={'path': 'y'}: give text (in quotes)."),
    (str, 1.10, "x=1.1: give text (in quotes)."),
    (str, datetime.date(2026, 1, 2), "x=2026-01-02: give text (in quotes)."),
    (str | None, ["full_shard", "auto_wrap"], "x=['full_shard', 'auto_wrap']: give text (in quotes)."),
    (list[str], [1], "x=[1]: give a list of texts."),
    (dict[str, Any], "a: 1", "x='a: 1' is not JSON (Expecting value); quote its names."),
    (Strategy | str, False, "x=false: give one of no, steps."),
    (Strategy | str, "step", "x='step'; did you mean 'steps'? Choose one of no, steps."),
    (Literal["never", "auto"], "maybe", "x='maybe'. Choose one of never, auto."),
    (LENGTH, [5], "x=[5]: give a duration such as 500, '5%' or '2 epochs'."),
    (LENGTH, "moons", f"duration 'moons': {A_DURATION}"),
    (object, 5, "x=5: give nothing: only Python can set it."),
]


@pytest.mark.parametrize(("hint", "value", "said"), REFUSED)
def test_a_value_of_another_kind_is_one_line(hint, value, said):
    with pytest.raises(ValueError, match=rf"\A{re.escape(said)}\Z"):
        read_value("x", value, hint)


@pytest.mark.parametrize(
    ("hint", "words", "said"),
    [
        (int, [], "x has no value; write --x VALUE."),
        (int, ["1", "2"], "unexpected argument '2'; write --name value."),
        (int, ["many"], "x='many': give a whole number."),
    ],
)
def test_words_that_are_no_value_are_one_line(hint, words, said):
    with pytest.raises(ValueError, match=rf"\A{re.escape(said)}\Z"):
        read_words("x", words, hint)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ValueError, match=r"\Ax=\{'k': 'v{70}\.\.\.: give text \(in quotes\)\.\Z"):
        read_value("x", {"k": "v" * 500}, str)
