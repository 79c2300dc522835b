"""`hfwarmup diagnose` on run folders."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app


@pytest.fixture
def run(tmp_path):
    """A run's folder whose rank fell."""
    entry = {"step": 10, "loss": 6.0, "warmup/effective_rank": 7.0, "warmup/effective_rank_ratio": 0.14}
    (tmp_path / "run.json").write_text(json.dumps({"max_steps": 100, "warmup_steps": 2, "peak_lr": 1e-2}))
    (tmp_path / "log.jsonl").write_text(json.dumps(entry) + "\n")
    return tmp_path


def test_it_says_what_happened_and_keeps_it_for_the_report(run):
    result = CliRunner().invoke(app, ["diagnose", str(run)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [
        f"{run}: warmup too steep: too short for a peak of 0.01: the representation had collapsed at 10% of the run",
        "  effective rank 50 -> 7 by update 10, 0.14 of its start (a ramp gentle enough keeps 0.5)",
    ]
    assert json.loads((run / "diagnosis.json").read_text())["verdict"] == "too steep"


@pytest.mark.parametrize("missing", ["run.json", "log.jsonl"])
def test_a_folder_that_is_no_run_is_named(run, missing):
    (run / missing).unlink()
    result = CliRunner().invoke(app, ["diagnose", str(run)])
    assert result.exit_code == 1
    assert str(result.exception or result.stdout)
    assert f"{run}: no {missing} here; name the output_dir of a recipe's run." in result.output
