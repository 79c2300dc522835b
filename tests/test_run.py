"""`python -m hfwarmup.run` runs a script as plain python would, but for the names that it finds registered."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """\
import sys
from dataclasses import dataclass
from transformers import HfArgumentParser, TrainingArguments
import helper

if __name__ == "__main__":
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    print(args.lr_scheduler_type.value, helper.NAME, sys.argv[0].endswith("train.py"))
"""


def run(*words: str, cwd):
    command = [sys.executable, "-m", "hfwarmup.run", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def scripts(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "helper.py").write_text("NAME = 'beside the script'\n")
    return folder


FLAGS = ("--output_dir", "out", "--lr_scheduler_type", "warmup_cosine", "--use_cpu", "true")


def test_a_script_finds_the_names_its_arguments_and_its_neighbours(scripts, tmp_path):
    assert run(scripts / "train.py", *FLAGS, cwd=tmp_path).stdout == "warmup_cosine beside the script True\n"


def test_a_module_too(scripts):
    assert run("-m", "train", *FLAGS, cwd=scripts).stdout == "warmup_cosine beside the script True\n"


def test_its_exit_status_is_the_scripts(tmp_path):
    (tmp_path / "fails.py").write_text("raise SystemExit(3)\n")
    assert run("fails.py", cwd=tmp_path).returncode == 3


def test_what_is_not_there_is_one_line(tmp_path):
    missing = run("none.py", cwd=tmp_path)
    assert missing.returncode == 1
    assert missing.stderr == "error: 'none.py' is neither a file nor a command; give a script's path, or -m MODULE.\n"
