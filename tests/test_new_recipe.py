"""A new recipe, made as CONTRIBUTING says: a script, a config and a test, and one name of this package to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = '''"""Learn digits in a random order by heart: the smallest recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, default_data_collator

from hfwarmup.recipe import (
    DataArguments,
    ModelArguments,
    RecipeArguments,
    Run,
    WarmupArguments,
    build_model,
    build_tokenizer,
    Range,
    parse_arguments,
    run_recipe,
)


@dataclass(kw_only=True)
class DigitArguments:
    """How many samples there are, and how long each is."""

    num_samples: int = field(default=64, metadata={"help": "samples, 1 or more"})
    num_digits: int = field(default=8, metadata={"help": "tokens a sample, 2 or more"})

    def __post_init__(self) -> None:
        Range(1, whole=True).check("num_samples", self.num_samples)
        Range(2, whole=True).check("num_digits", self.num_digits)


ARGUMENTS = (ModelArguments, DigitArguments, WarmupArguments, RecipeArguments)
FACTS = {"tokens_per_sample": "num_digits", "trainer": True}


def main() -> None:
    # 1. Arguments
    model_args, digit_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

    # 2. Data
    texts = Dataset.from_dict({"text": ["0123456789"]})
    tokenizer = build_tokenizer(DataArguments(vocab_size=257), texts)
    shape = (digit_args.num_samples, digit_args.num_digits)
    digits = torch.randint(1, 11, shape, generator=torch.Generator().manual_seed(args.seed))
    data = [{"input_ids": row, "labels": row} for row in digits]

    # 3. Model
    model = build_model(AutoModelForCausalLM, model_args, tokenizer, digit_args.num_digits)

    # 4. Plan
    planned = run.plan(model, data, tokens_per_sample=digit_args.num_digits)

    # 5. Training
    trainer = Trainer(
        model=model, args=planned, train_dataset=data, eval_dataset=data, data_collator=default_data_collator
    )
    run.train(trainer)

    # 6. Results
    metrics = trainer.evaluate()
    run.finish(trainer, metrics, summary=f"loss {metrics['eval_loss']:.3f} nats a digit")


if __name__ == "__main__":
    run_recipe(main)
'''
CONFIG = """\
output_dir: runs/learn_digits/smoke

model_type: llama
config_overrides:
  hidden_size: 16
  intermediate_size: 16
  num_hidden_layers: 1
  num_attention_heads: 1
  num_key_value_heads: 1
num_samples: 32
num_digits: 6

lr_scheduler_type: warmup_cosine
learning_rate: 1e-3
warmup: 8 samples
max_steps: 2
per_device_train_batch_size: 8
torch_compile: false
"""
TEST = '''"""The smoke run of learn_digits applies its plan."""

import csv
import runpy
import sys
from pathlib import Path

import datasets

ROOT = Path(__file__).parents[1]


def test_the_smoke_run_applies_its_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    config = ROOT / "configs" / "learn_digits" / "smoke.yaml"
    monkeypatch.setattr(sys, "argv", ["learn_digits.py", "--config", str(config), "--use_cpu", "true"])
    runpy.run_path(str(ROOT / "recipes" / "learn_digits.py"), run_name="__main__")
    rows = csv.DictReader((tmp_path / "runs" / "learn_digits" / "smoke" / "learning_rates.csv").open())
    assert [float(row["applied"]) for row in rows] == [1e-7, 1e-3]
'''


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """The three files; the path of the config."""
    folder = tmp_path_factory.mktemp("new")
    config = folder / "configs" / "learn_digits" / "smoke.yaml"
    files = {folder / "recipes" / "learn_digits.py": SCRIPT, folder / "tests" / "test_learn_digits.py": TEST}
    for path, text in {**files, config: CONFIG}.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return config


def test_it_is_planned_with_the_tokens_that_its_facts_name(config):
    result = CliRunner().invoke(app, ["plan", str(config), "--json"], catch_exceptions=False)
    plan = json.loads(result.stdout)
    assert (plan["warmup_steps"], plan["warmup_samples"], plan["warmup_tokens"]) == (1, 8, 48)


def test_it_is_validated_by_its_own_arguments(config):
    good = CliRunner().invoke(app, ["validate", str(config)], catch_exceptions=False)
    assert (good.stdout, good.exit_code) == (f"{config}: no mistakes, for learn_digits\n", 0)
    wrong = config.with_name("wrong.yaml")
    wrong.write_text(CONFIG.replace("num_samples: 32\nnum_digits: 6", "num_sample: 32\nnum_digits: 1"))
    bad = CliRunner().invoke(app, ["validate", str(wrong)], catch_exceptions=False)
    assert bad.stdout.splitlines() == [
        f"error: {wrong}:10: unknown setting 'num_sample'; did you mean 'num_samples'?",
        f"error: {wrong}:11: num_digits=1: give a whole number, 2 or more.",
    ]
    assert bad.exit_code == 1


def test_its_own_test_runs_it_for_two_updates(config):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    finished = subprocess.run(command, cwd=config.parents[2], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1 passed" in finished.stdout
