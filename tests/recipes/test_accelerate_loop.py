"""The raw loop trains as the Trainer does: learning rates, losses, resume, any number of processes."""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch

import hfwarmup
from hfwarmup.recipe import data as data_module
from hfwarmup.recipe.data import prepare_data
from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "configs" / "accelerate_loop" / "smoke.yaml"
NUM_BLOCKS = 52  # 13 batches of 4, and so 7 updates an epoch, the last of one batch
SETTINGS = {
    "dataset": "CORPUS",
    "validation_fraction": 0.1,
    "vocab_size": 300,
    "block_size": 16,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "precision": "fp32",
    "learning_rate": 1e-2,
    "reference_batch_size": 8,
    "lr_scheduler_type": "warmup_cosine",
    "warmup": 4,
    "max_steps": 10,
    "weight_decay": 0.1,
    "logging_steps": 1,
    "save_strategy": "no",
    "eval_strategy": "no",
}
LLAMA = {  # without dropout
    "model_type": "llama",
    "config_overrides": json.dumps(
        {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        }
    ),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Thirty files of thirty words, and their own cache of datasets."""
    folder, words = tmp_path_factory.mktemp("corpus"), random.Random(0)
    for index in range(30):
        text = " ".join(words.choice(["warm", "up", "cold", "down", "step", "rate"]) for _ in range(30))
        (folder / f"{index:02}.txt").write_text(text)
    return folder


def whole_blocks(*args, **kwargs):
    """The data without its last block: not all its tokens are labels, which a Trainer weighs and the loop does not."""
    data = prepare_data(*args, **kwargs)
    return replace(data, train=data.train.select(range(NUM_BLOCKS)))


@pytest.fixture
def run(corpus, tmp_path, monkeypatch):
    """Run a recipe's main in this process, in a new folder unless `output_dir` is given; returns the folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(data_module, "prepare_data", whole_blocks)
    logger = logging.getLogger("hfwarmup")
    before = logger.handlers, logger.propagate, logger.level

    def run(recipe="accelerate_loop", output_dir=None, **flags):
        folder = output_dir or tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        flags = {**SETTINGS, **flags, "dataset": corpus, "output_dir": folder}
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", [recipe, "--config", str(SMOKE), *words])
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]()
        return folder

    yield run
    logger.handlers, logger.propagate, logger.level = before


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def logged(folder: Path, key: str) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in history if key in entry]


def schedule(name: str = "warmup_cosine", peak_lr: float = 1e-2, **options):
    return hfwarmup.get_schedule(name, peak_lr=peak_lr, num_warmup_steps=4, num_training_steps=10, **options)


# The same training


def test_the_loop_trains_as_the_trainer_does(run):
    """The same samples, gradients, learning rates and weights: also where an epoch's last update is a short one."""
    own = {**LLAMA, "max_grad_norm": 0.5}
    loop, trainer = run(**own), run("pretrain_clm", **own)
    assert logged(loop, "loss") == pytest.approx(logged(trainer, "loss"), rel=2e-5)
    assert logged(loop, "grad_norm") == pytest.approx(logged(trainer, "grad_norm"), rel=1e-3)
    assert (loop / "learning_rates.csv").read_text() == (trainer / "learning_rates.csv").read_text()
    last = {folder: json.loads((folder / "all_results.json").read_text()) for folder in (loop, trainer)}
    assert last[loop]["eval_loss"] == pytest.approx(last[trainer]["eval_loss"], rel=1e-4)


@pytest.fixture(scope="module")
def launched(corpus, tmp_path_factory):
    """Launch ten updates on so many processes, with 4 / N accumulation; returns the folder and what was said."""
    root = tmp_path_factory.mktemp("launched")

    @functools.cache
    def launch(num_processes: int) -> tuple[Path, str]:
        folder = root / str(num_processes)
        flags = {**SETTINGS, **LLAMA, "gradient_accumulation_steps": 4 // num_processes}
        flags |= {"dataset": corpus, "output_dir": folder, "warmup_scaling": "constant_steps"}
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        env = {**os.environ, "HFWARMUP_PYTHON": sys.executable, "NUM_PROCESSES": str(num_processes)}
        env |= {"HF_DATASETS_CACHE": str(root / "cache"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [ROOT / "launch.sh", "accelerate_loop", "--config", SMOKE, *words]
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return folder, result.stderr

    return launch


def test_the_launched_recipe_applies_the_plan_and_leaves_its_results(launched):
    """The global batch is 16, twice the reference, and so is the peak."""
    folder, said = launched(1)
    assert "global batch 16 = 4 per device x 1 processes x 4 accumulation, k = 2 times" in said
    assert "peak_lr 0.01 -> 0.02: lr_scaling=linear" in said
    planned = schedule(peak_lr=2e-2)
    assert read_learning_rates(folder / "learning_rates.csv") == [(t, planned(t), planned(t)) for t in range(10)]
    for name in ("model.safetensors", "all_results.json", "trainer_state.json", "schedule.png", "loss.png"):
        assert (folder / name).is_file()


@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_more_processes_apply_the_same_learning_rates_to_the_same_samples(num_processes, launched):
    (one, _), (folder, said) = launched(1), launched(num_processes)
    assert f"global batch 16 = 4 per device x {num_processes} processes x {4 // num_processes} accumulation" in said
    assert f"all {num_processes} ranks applied the same 10 learning rates" in said
    assert (folder / "learning_rates.csv").read_bytes() == (one / "learning_rates.csv").read_bytes()
    # Three updates of 16 fit into the epoch of 55 samples; its last ones are repeated to fill every process's batch.
    assert logged(folder, "loss")[:3] == pytest.approx(logged(one, "loss")[:3], rel=1e-5)


# Resume


@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("warmup_cosine", [1, 4, 7, 8]),  # inside the warmup, at T_w, between epochs, in the decay
        ("warmup_plateau", [7]),  # between two evaluations
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(run, tmp_path, name, updates):
    """With dropout, and beside the debris of a checkpoint that was cut off."""
    own = {"lr_scheduler_type": name, "save_strategy": "steps", "eval_strategy": "steps", "eval_steps": 3}
    if name == "warmup_plateau":
        own["lr_scheduler_kwargs"] = json.dumps({"patience": 0, "threshold": 10.0})  # reduced at every evaluation
    whole = run(save_steps=1, **own)
    for update in updates:
        cut = tmp_path / f"cut{update}"
        cut.mkdir()
        (whole / f"checkpoint-{update}").rename(cut / f"checkpoint-{update}")
        (cut / "learning_rates.csv").write_bytes((whole / "learning_rates.csv").read_bytes())
        (cut / "checkpoint-9").mkdir()
        (cut / "checkpoint-9" / "scheduler.bin").write_bytes(b"half")
        run(output_dir=cut, resume="must", save_steps=9, **own)
        assert weights(cut) == weights(whole)
        assert (cut / "learning_rates.csv").read_bytes() == (whole / "learning_rates.csv").read_bytes()
        assert logged(cut, "loss") == logged(whole, "loss")
    if name == "warmup_plateau":
        assert [row[2] for row in read_learning_rates(whole / "learning_rates.csv")][-4:] == [1e-2 / 10] * 3 + [
            1e-2 / 100
        ]


def test_old_checkpoints_are_deleted(run):
    folder = run(save_strategy="steps", save_steps=4, save_total_limit=2)
    assert {path.name for path in folder.glob("*checkpoint*")} == {"checkpoint-8", "checkpoint-10"}


# Groups


def groups(folder: Path, update: int) -> list[dict]:
    """The optimizer's groups in a checkpoint: as the update will use them."""
    return torch.load(folder / f"checkpoint-{update}" / "optimizer.bin", weights_only=True)["param_groups"]


def test_layers_warm_up_at_their_own_pace(run):
    folder = run(**LLAMA, warmup_stretch='{"embed": 0.5, "lm_head": 2}', save_strategy="steps", save_steps=1)
    for update in (1, 2, 3, 6, 9):
        lrs = {group["warmup_stretch"]: group["lr"] for group in groups(folder, update)}
        expected = {
            stretch: hfwarmup.get_schedule(
                "warmup_cosine", peak_lr=1e-2, num_warmup_steps=round(4 * stretch), num_training_steps=10
            )(update)
            for stretch in (0.5, 1.0, 2.0)
        }
        assert lrs == expected


def test_weight_decay_follows_the_warmup(run):
    own = {"lr_scheduler_kwargs": '{"weight_decay": "proportional"}', "save_strategy": "steps", "save_steps": 1}
    folder = run(**own)
    for update in (1, 3, 4, 9):
        decayed, other = groups(folder, update)
        assert decayed["weight_decay"] == 0.1 * decayed["lr"] / 1e-2
        assert other["weight_decay"] == 0.0


# Mistakes

CHOOSE = "remove it, or choose a recipe with a Trainer, such as pretrain_clm."


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"optim": "adafactor"},
            "error: optim=adafactor has no effect in this loop; " + CHOOSE,
        ),
        (
            {"report_to": "tensorboard"},
            "error: report_to=['tensorboard'] has no effect in this loop; " + CHOOSE,
        ),
        (
            {"eval_strategy": "epoch"},
            "error: this loop logs, evaluates and saves by steps; replace the strategy 'epoch' by 'steps'.",
        ),
        (
            {"warmup_stretch": "embed: 2"},
            "error: warmup_stretch='embed: 2' is not JSON (Expecting value); quote its names.",
        ),
    ],
)
def test_a_setting_that_the_loop_does_not_follow_is_an_error(run, flags, message):
    with pytest.raises(SystemExit) as caught:
        run(**flags)
    assert str(caught.value) == message


def test_a_schedule_that_accelerate_would_step_once_a_process_is_refused(run):
    with pytest.raises(ValueError, match="cosine"):
        run(lr_scheduler_type="cosine")
