"""pretrain_clm on one, two and four processes, and on two machines: the same learning rates and the same losses.

What makes them the same: Trainer's sampler is a seedable one, so every process draws the same permutation, and
accelerate deals the batches round robin, batch i to process i mod N. With N processes and 4 / N accumulation, update u
therefore sees the batches 4u to 4u + 3 in every world, and its loss is a mean over their tokens: only the order of the
additions differs. It takes fp32, a model without dropout (processes have masks of their own) and an epoch that is not
over (its last samples are repeated until every process has a whole batch). Trainer's eval_loss is left out: it weighs
batches, not tokens, and so depends a little on how the samples are dealt.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hfwarmup
from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).parents[2]
UPDATES = 12
FLAGS = {
    "model_type": "llama",
    "config_overrides": json.dumps(
        {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        }
    ),
    "vocab_size": 300,
    "block_size": 16,
    "precision": "fp32",
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "reference_batch_size": 8,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "warmup_cosine",
    "lr_scheduler_kwargs": '{"weight_decay": "proportional"}',
    "weight_decay": 0.1,
    "warmup": 2,
    "max_steps": UPDATES,
    "logging_steps": 1,
    "save_strategy": "no",
    "eval_strategy": "no",
}


class Launcher:
    """Starts launch.sh pretrain_clm on a corpus of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, words = folder, random.Random(0)
        (folder / "corpus").mkdir()
        for index in range(60):
            text = " ".join(words.choice(["warm", "up", "cold", "down", "step", "rate"]) for _ in range(100))
            (folder / "corpus" / f"{index:02}.txt").write_text(text)

    def start(self, name: str, *, accumulation: int, **environment: str) -> subprocess.Popen:
        flags = {**FLAGS, "gradient_accumulation_steps": accumulation}
        flags |= {"dataset": self.folder / "corpus", "output_dir": self.folder / name}
        words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        config = ROOT / "configs" / "pretrain_clm" / "smoke.yaml"
        own = {"HFWARMUP_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        own |= {"HF_DATASETS_CACHE": str(self.folder / "cache")}
        return subprocess.Popen(
            [ROOT / "launch.sh", "pretrain_clm", "--config", config, *words],
            env={**os.environ, **own, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    @functools.cache  # noqa: B019  lives as long as the module's tests
    def on_processes(self, num_processes: int) -> Run:
        process = self.start(f"on{num_processes}", accumulation=4 // num_processes, NUM_PROCESSES=str(num_processes))
        return self.finish(f"on{num_processes}", process)

    def finish(self, name: str, process: subprocess.Popen) -> Run:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return Run(self.folder / name, said)


class Run:
    """What a finished run left."""

    def __init__(self, folder: Path, said: str) -> None:
        self.said = said
        self.learning_rates = read_learning_rates(folder / "learning_rates.csv")
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        self.losses = [entry["loss"] for entry in history if "loss" in entry]
        name = "warmup/noise_scale_samples"
        self.noise_scales = [entry[name] for entry in history if name in entry]
        self.weights = load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    return Launcher(tmp_path_factory.mktemp("launched"))


def check_planned(run: Run) -> None:
    """The global batch of 16 is twice the reference: 5e-3 and 2 updates become 1e-2 and 4."""
    planned = hfwarmup.get_schedule("warmup_cosine", peak_lr=1e-2, num_warmup_steps=4, num_training_steps=UPDATES)
    assert run.learning_rates == [(t, planned(t), planned(t)) for t in range(UPDATES)]


def check_same_losses(run: Run, other: Run) -> None:
    """Within rounding, and the rounding has no direction: the mean residual is within four standard errors of zero."""
    assert len(run.losses) == len(other.losses) == UPDATES
    assert run.losses[-1] < 0.8 * run.losses[0]  # it learns, so that a difference would grow
    assert run.losses == pytest.approx(other.losses, rel=1e-5)
    torch.testing.assert_close(run.weights, other.weights, rtol=1e-3, atol=1e-5)
    assert run.noise_scales == pytest.approx(other.noise_scales, rel=1e-3)
    assert len(run.noise_scales) == UPDATES
    residuals = [a - b for a, b in zip(run.losses, other.losses, strict=True)]
    error = statistics.stdev(residuals) / math.sqrt(UPDATES)
    assert abs(statistics.fmean(residuals)) <= 4 * error


def test_one_process_applies_the_planned_learning_rates(launcher):
    check_planned(launcher.on_processes(1))


@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_instead_of_accumulation_change_nothing(launcher, num_processes):
    run = launcher.on_processes(num_processes)
    assert f"4 per device x {num_processes} processes x {4 // num_processes} accumulation" in run.said
    assert f"all {num_processes} ranks applied the same {UPDATES} learning rates" in run.said
    check_planned(run)
    check_same_losses(run, launcher.on_processes(1))


def test_two_machines_train_together(launcher):
    """Two launchers on the loopback, as on two machines with a common folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"NUM_MACHINES": "2", "MAIN_PROCESS_IP": "127.0.0.1", "MAIN_PROCESS_PORT": port}
    machines = [launcher.start("machines", accumulation=2, **place, MACHINE_RANK=str(rank)) for rank in (0, 1)]
    first, second = (launcher.finish("machines", machine) for machine in machines)
    assert "all 2 ranks applied the same" in first.said
    assert "ranks applied" not in second.said
    check_planned(first)
    check_same_losses(first, launcher.on_processes(1))
