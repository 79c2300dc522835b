"""YAML configs: numbers are numbers, and everything that is wrong is said at once, with its line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hfwarmup.errors import UserError
from hfwarmup.planning.config import read_config, unknown_key

KNOWN = ["learning_rate", "max_steps", "per_device_train_batch_size", "warmup", "bf16", "lr_scheduler_kwargs", "note"]


@pytest.fixture
def read(tmp_path):
    """Reads a text as the config file run.yaml; what an error says is given without the folder."""

    def read_text(text: str | bytes, known=KNOWN):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            return read_config(path, known)
        except UserError as error:
            raise UserError(*[line.replace(f"{tmp_path}/", "") for line in error.findings]) from None

    return read_text


VALUES = [
    # (as written, what it is): YAML 1.2
    ("2e-5", 2e-5),  # PyYAML reads a string
    ("1E-3", 1e-3),
    ("3.0e-4", 3e-4),
    ("1e5", 1e5),
    ("0.1", 0.1),
    ("10", 10),
    ("1_000", 1000),
    ("010", 10),  # not octal
    ("true", True),
    ("yes", "yes"),  # not a boolean
    ("off", "off"),
    ("5%", "5%"),
    ("20M tokens", "20M tokens"),
    ('"10%"', "10%"),
    ("null", None),
    ("", None),
    ("[1, 2e-5, two]", [1, 2e-5, "two"]),
    ("{final_ratio: 0.1, warmup: cosine}", {"final_ratio": 0.1, "warmup": "cosine"}),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_value(read, text, value):
    (read_value,) = read(f"note: {text}\n").values()
    assert read_value == value
    assert type(read_value) is type(value)  # Python's own, not ruamel's


def test_values_inside_are_pythons_own_too(read):
    nested = read("note: {rate: 2e-5, names: [a, 'b'], deep: {on: true}}\n")["note"]
    assert type(nested) is dict
    assert type(nested["rate"]) is float
    assert type(nested["names"]) is list
    assert [type(name) for name in nested["names"]] == [str, str]
    assert type(nested["deep"]) is dict
    assert nested["deep"]["on"] is True


def test_an_anchored_value_stays_what_it_is(read):
    settings = read("bf16: &flag true\nnote: *flag\n")
    assert settings == {"bf16": True, "note": True}
    assert settings["bf16"] is True
    assert settings["note"] is True


def test_the_settings_come_in_the_order_of_the_file(read):
    assert list(read("warmup: 5%\nlearning_rate: 1e-3\nmax_steps: 10\n")) == ["warmup", "learning_rate", "max_steps"]


def test_an_empty_file_sets_nothing(read):
    assert read("") == {}
    assert read("# only a comment\n") == {}


FINDINGS = [
    # every unknown key at once, each with its line and what is nearest
    (
        "learnign_rate: 1e-3\nwarmup: 5%\n\nmax_step: 10\nzzz: 1\n",
        [
            "run.yaml:1: unknown setting 'learnign_rate'; did you mean 'learning_rate'?",
            "run.yaml:4: unknown setting 'max_step'; did you mean 'max_steps'?",
            "run.yaml:5: unknown setting 'zzz'. Remove it, or see --help.",
        ],
    ),
    # names from elsewhere say where they went
    ("warmup_ratio: 0.1\n", [
        "run.yaml:1: unknown setting 'warmup_ratio'; write warmup: \"10%\" (transformers 5 has no warmup_ratio).",
    ]),
    ("num_warmup_steps: 5\n", ["run.yaml:1: unknown setting 'num_warmup_steps'; write warmup: 5."]),
    ("num_training_steps: 5\n", ["run.yaml:1: unknown setting 'num_training_steps'; write max_steps: 5."]),
    ("lr: 1e-3\n", ["run.yaml:1: unknown setting 'lr'; write learning_rate: 0.001."]),
    ("batch_size: 5\n", ["run.yaml:1: unknown setting 'batch_size'; write per_device_train_batch_size: 5."]),
    ("warmup_epochs: 5\n", ["run.yaml:1: unknown setting 'warmup_epochs'; write warmup: \"5 epochs\"."]),
    # and only if they went to a setting that there is
    ("evaluation_strategy: no\n", ["run.yaml:1: unknown setting 'evaluation_strategy'. Remove it, or see --help."]),
    # duplicate keys: which would win is nobody's guess
    (
        "warmup: 1\nmax_steps: 5\nwarmup: 2\n",
        ["run.yaml:3: 'warmup' is also in line 1; keep one of the two."],
    ),
    # at any depth, beside everything else
    (
        "lr: 1\nnote:\n  - {a: 1, b: 2, a: 3}\nnote: 2\n",
        [
            "run.yaml:1: unknown setting 'lr'; write learning_rate: 1.",
            "run.yaml:3: 'a' is also in line 3; keep one of the two.",
            "run.yaml:4: 'note' is also in line 2; keep one of the two.",
        ],
    ),
    # not YAML, or not a map of settings
    ("warmup: [1\n", ["run.yaml:2: expected ',' or ']', but got '<stream end>'."]),
    ("warmup:\t5\n", ["run.yaml:1: found character '\\t' that cannot start any token."]),
    ("warmup: 1\n---\nwarmup: 2\n", ["run.yaml:2: but found another document."]),
    ("just text\n", ["run.yaml: a config is a map of settings: write one `name: value` a line."]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "findings"), FINDINGS)
def test_what_is_wrong_is_said_with_its_line(read, text, findings):
    with pytest.raises(UserError) as error:
        read(text)
    assert list(error.value.findings) == findings
    assert str(error.value) == "\n".join(findings)


@pytest.mark.parametrize("text", ["warmup: \x01\n", b"warmup: \xff\n"], ids=["control character", "not UTF-8"])
def test_a_file_that_is_not_text_is_one_finding(read, text):
    with pytest.raises(UserError, match=r"^run\.yaml[^\n]*$"):
        read(text)


def test_utf8_is_read_whatever_the_machines_locale(tmp_path):
    """Python warns, when asked to, wherever the locale would decide."""
    (tmp_path / "run.yaml").write_bytes("note: Hägele et al.\n".encode())
    program = (
        "from pathlib import Path; from hfwarmup.planning.config import read_config; "
        "assert read_config(Path('run.yaml'), ['note']) == {'note': 'H\\xe4gele et al.'}"
    )
    flags = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning"]
    finished = subprocess.run([sys.executable, *flags, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_a_list_is_not_a_config(read):
    with pytest.raises(
        UserError, match=r"^run\.yaml: a config is a map of settings: write one `name: value` a line\.$"
    ):
        read("- warmup: 1\n")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError) as error:
        read_config(tmp_path / "none.yaml", KNOWN)
    assert (
        str(error.value)
        == f"{tmp_path / 'none.yaml'}: this config file does not exist; configs/ has those of the recipes."
    )


def test_a_name_that_moved_is_fine_where_it_is_known(read):
    assert read("lr: 1e-3\n", known=["lr"]) == {"lr": 1e-3}


def test_the_nearest_key_is_named():
    assert unknown_key("warmp", KNOWN) == "unknown setting 'warmp'; did you mean 'warmup'?"
    assert unknown_key("qqqq", KNOWN) == "unknown setting 'qqqq'. Remove it, or see --help."
