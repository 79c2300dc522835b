"""How a recipe ends: a user's mistake is one line and status 1, wherever the script lies; a bug keeps its traceback."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app
from hfwarmup.errors import NonFiniteError, RunStopped, UserError
from hfwarmup.recipe.console import run_recipe, setup_logging, without_dataset_bars

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", [UserError, RunStopped, NonFiniteError])
def test_a_mistake_of_the_user_is_one_line(kind):
    def main():
        raise kind("warmup=-1: give 0 or more.")

    with pytest.raises(SystemExit) as ending:
        run_recipe(main)
    assert ending.value.code == "error: warmup=-1: give 0 or more."


def test_each_finding_is_a_line():
    def main():
        raise UserError("a=1: drop it.", "b=2: drop it.")

    with pytest.raises(SystemExit) as ending:
        run_recipe(main)
    assert ending.value.code == "error: a=1: drop it.\nerror: b=2: drop it."


@pytest.mark.parametrize("kind", [ValueError, ArithmeticError, RuntimeError, OSError])
def test_any_other_error_keeps_its_traceback(kind):
    def main():
        raise kind("a bug")

    with pytest.raises(kind, match=r"^a bug$"):
        run_recipe(main)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train_timeseries.py", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    assert CliRunner().invoke(app, ["init", "train_timeseries", str(folder)]).exit_code == 0
    return folder


@pytest.mark.parametrize("where", ["checkout", "copy"])
def test_the_place_of_the_script_makes_no_difference(where, copy, tmp_path):
    """The library's own mistake ends in one line, and a bug of the script in a traceback, here and there."""
    folder = ROOT / "recipes" if where == "checkout" else copy
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    settings = ["--output_dir", str(tmp_path / "run"), "--use_cpu", "true", "--warmup", "1", "--max_steps", "2"]
    ended = run(folder, *settings)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: output_dir={tmp_path}/run holds a run already; ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_bug_in_a_copy_keeps_its_traceback(copy, tmp_path):
    script = (copy / "train_timeseries.py").read_text()
    (tmp_path / "train_timeseries.py").write_text(script.replace("engines = load_engines", "1 / 0  # ", 1))
    ended = run(tmp_path, "--output_dir", str(tmp_path / "run"), "--use_cpu", "true")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_what_changes_for_the_whole_process_is_in_one_place(own_process_state, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    with warnings.catch_warnings():
        setup_logging()
        warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    logger = logging.getLogger("hfwarmup")
    assert (logger.level, logger.propagate, len(logger.handlers)) == (logging.INFO, False, 1)
    for name in sorted((ROOT / "recipes").glob("*.py")):
        source = name.read_text(encoding="utf-8")
        assert not any(word in source for word in ("filterwarnings", "constants", "disable_progress", "set_verbosity"))


@pytest.mark.parametrize("hidden", [False, True])
def test_bars_are_hidden_for_a_while(hidden, own_process_state):
    (datasets.disable_progress_bars if hidden else datasets.enable_progress_bars)()
    with without_dataset_bars():
        assert datasets.are_progress_bars_disabled()
    assert datasets.are_progress_bars_disabled() == hidden
