"""A new measurement of the monitor is one new file, as CONTRIBUTING says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hfwarmup

EXAMPLE = Path(__file__).with_name("largest_weight.py")
PROGRAM = """
import json
import torch
from transformers import Trainer, TrainingArguments
from hfwarmup.trainer.monitor import watch_warmup

class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, x, labels):
        return {"loss": (self.linear(x).squeeze(-1) - labels).square().mean()}

def train(resume=None):
    args = TrainingArguments(
        "run", max_steps=40, logging_steps=2, save_steps=20, learning_rate=1e-2, weight_decay=20.0,
        report_to="none", disable_tqdm=True, use_cpu=True,
    )
    data = [{"x": torch.ones(3), "labels": torch.tensor(0.0)}] * 8
    trainer = Trainer(Regression(), args, train_dataset=data)
    watch_warmup(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return [[e["step"], e["warmup/largest_weight"]] for e in trainer.state.log_history if "loss" in e]

logs = train(), train("run/checkpoint-20")
print(json.dumps(logs))
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> list[dict[int, float]]:
    """update -> `warmup/largest_weight` of a whole run and of one resumed in its middle, by a copy of the package."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(hfwarmup.__file__).parent, folder / "hfwarmup")
    shutil.copy(EXAMPLE, folder / "hfwarmup/trainer/probes")
    finished = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return [dict(log) for log in json.loads(finished.stdout.splitlines()[-1])]


def test_its_value_is_in_the_log_of_every_marked_update(logs):
    whole, _ = logs
    assert list(whole) == list(range(2, 41, 2))
    assert all(value > 0 for value in whole.values())


def test_a_resumed_run_goes_on_from_the_logged_values(logs):
    """Weight decay makes the weights smaller and smaller, so after update 20 only the log knows the largest."""
    whole, resumed = logs
    assert len(set(whole.values())) == 1
    assert resumed == whole
