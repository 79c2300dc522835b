"""The files of a run: written whole, and read while they are still being written."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hfwarmup.run_folder.files import log_line, read_log, write_atomically


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_broken_line_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    message = f"{path}:2: '{{\"st' is not JSON; remove the line."
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        read_log(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-7, "1e-07"),
        (float("nan"), "NaN"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.5), "0.5"),
        (torch.tensor(2.0), "2.0"),
        ("words", '"words"'),
    ],
)
def test_numbers_of_other_packages_become_plain_ones(value, text):
    assert log_line({"value": value}) == f'{{"value": {text}}}\n'


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "run.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \udc80")
    assert path.read_text() == "old"
