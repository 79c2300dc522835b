"""`hfwarmup diagnose` on run folders."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app


@pytest.fixture
def run(tmp_path):
    """The folder of a run that began too steeply."""
    entry = {"step": 10, "loss": 6.0, "warmup/max_relative_update": 0.06}
    (tmp_path / "run.json").write_text(
        json.dumps({"max_steps": 100, "warmup_steps": 2, "peak_lr": 1e-2, "scheduler": "x"})
    )
    (tmp_path / "log.jsonl").write_text(json.dumps(entry) + "\n")
    return tmp_path


def test_it_says_what_happened(run):
    result = CliRunner().invoke(app, ["diagnose", str(run)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [
        f"{run}: warmup too steep: too short for a peak of 0.01, by 10% of the run",
        "  one update moved a weight matrix by 6.0% of its size (a ramp gentle enough stays below 3%)",
    ]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    result = CliRunner().invoke(app, ["diagnose", str(tmp_path)])
    assert result.exit_code == 1
    assert f"error: {tmp_path} holds no run" in result.output


def test_a_run_whose_warmup_is_not_on_record(run):
    (run / "run.json").write_text("{}")
    result = CliRunner().invoke(app, ["diagnose", str(run)])
    assert result.exit_code == 1
    assert result.output.strip() == (
        f"error: {run}: no run.json with the peak and the warmup; add hfwarmup.RunRecorder() to the callbacks of the "
        "Trainer, as recipes do."
    )
