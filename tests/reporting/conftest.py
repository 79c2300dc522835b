"""Run folders for the tests of the reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import write_run


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """`write_run` into a folder of the test's own."""
    return lambda name="run", **own: write_run(tmp_path / name, **own)
