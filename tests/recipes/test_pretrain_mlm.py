"""Masks are a function of seed, epoch and block; the baseline is what it says; a run leaves an encoder to fine-tune."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from datasets import Dataset

import hfwarmup
from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe.data import build_tokenizer, pack, tokenize
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "pretrain_mlm"


@pytest.fixture(scope="module")
def recipe(load_recipe):
    return load_recipe("pretrain_mlm")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Forty files of words."""
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(100)]
    for index in range(40):
        (folder / f"{index:02}.txt").write_text(" ".join(rng.choices(words, k=60)))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tokenizer(corpus, cache, recipe):
    texts = Dataset.from_dict({"text": [file.read_text() for file in sorted(corpus.iterdir())]})
    arguments = DataArguments(vocab_size=320)
    return build_tokenizer(arguments, texts, str(cache), special_tokens=recipe.SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def blocks(corpus, tokenizer):
    texts = Dataset.from_dict({"text": [file.read_text() for file in sorted(corpus.iterdir())]})
    return pack(tokenize(texts, tokenizer), 32)


def flags(corpus, output_dir, **own) -> list[str]:
    """The smoke config on the small corpus, in 32-bit."""
    settings = {
        "config": CONFIGS / "smoke.yaml",
        "dataset": corpus,
        "output_dir": output_dir,
        "vocab_size": 320,
        "block_size": 32,
        "precision": "fp32",
        "disable_tqdm": "true",
        "use_cpu": "true",
        **own,
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def run(recipe, corpus, cache, monkeypatch):
    """Runs the recipe's main in this process."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)

    def main(output_dir, **own) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", ["pretrain_mlm.py", *flags(corpus, output_dir, **own)])
        recipe.main()
        return json.loads((output_dir / "all_results.json").read_text())

    return main


# The masks


def labels_of(masked, index=slice(None)):
    return torch.stack([masked[i]["labels"] for i in range(len(masked))])[index]


def test_a_mask_depends_on_seed_epoch_and_block_and_on_nothing_else(recipe, blocks, tokenizer):
    masked, again, other = (recipe.MaskedBlocks(blocks, tokenizer, 0.15, seed) for seed in (0, 0, 1))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [masked[i] for i in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    for i in reversed(range(8)):
        assert torch.equal(again[i]["input_ids"], first[i]["input_ids"])
        assert torch.equal(again[i]["labels"], first[i]["labels"])
    assert not torch.equal(labels_of(other), labels_of(masked))
    again.epoch.fill_(1)
    assert not torch.equal(labels_of(again), labels_of(masked))
    again.epoch.fill_(0)
    assert torch.equal(labels_of(again), labels_of(masked))
    targets = labels_of(masked) != -100
    assert not torch.equal(targets[0], targets[1])


def test_targets_are_the_asked_share_of_the_text_and_the_rest_is_untouched(recipe, blocks, tokenizer):
    masked = recipe.MaskedBlocks(blocks, tokenizer, 0.3, 0)
    share = (labels_of(masked) != -100).float().mean()
    assert 0.27 < share < 0.33  # of about 6000 tokens: standard deviation 0.006
    for index in (0, 5, len(blocks) - 1):
        original, sample = blocks[index], masked[index]
        target = sample["labels"] != -100
        assert torch.equal(sample["labels"][target], original["input_ids"][target])
        assert torch.equal(sample["input_ids"][~target], original["input_ids"][~target])


def test_no_special_token_and_no_token_twice_is_a_target(recipe, blocks, tokenizer):
    masked = recipe.MaskedBlocks(blocks, tokenizer, 1.0, 0)
    original = torch.stack([blocks[i]["labels"] for i in range(len(blocks))])
    assert (original[-1] == -100).any()
    assert (original == tokenizer.eos_token_id).any()
    expected = original.masked_fill(original == tokenizer.eos_token_id, -100)
    assert torch.equal(labels_of(masked), expected)


# Runs


def test_evaluations_of_the_same_weights_are_equal(run, tmp_path):
    """At a vanishing learning rate the weights stay: every evaluation, in any epoch, gives the same loss."""
    run(tmp_path / "run", max_steps=30, eval_steps=10, learning_rate=1e-20, lr_scheduler_kwargs='{"initial_lr": 0}',
        lr_scheduler_type="gradual_warmup", weight_decay=0)  # fmt: skip
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    losses = [row["eval_loss"] for row in history if "eval_loss" in row]
    assert len(losses) >= 3
    assert len(set(losses)) == 1


def test_a_run_resumed_in_its_second_epoch_ends_with_the_same_weights(run, tmp_path, recipe):
    own = {"max_steps": 40, "save_steps": 25, "eval_strategy": "no"}
    run(tmp_path / "run", **own)
    whole = (tmp_path / "run" / "model.safetensors").read_bytes()
    epoch = json.loads((tmp_path / "run" / "checkpoint-25" / "trainer_state.json").read_text())["epoch"]
    assert epoch > 1
    assert epoch % 1
    for path in (tmp_path / "run").iterdir():  # as if the run had been cut off after its first checkpoint
        if path.name != "checkpoint-25":
            path.rename(tmp_path / path.name)
    run(tmp_path / "run", **own, resume="auto")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole


def test_the_smoke_config_launches(corpus, cache, tmp_path):
    launchers = ("ACCELERATE_", "NUM_", "MACHINE_", "MAIN_PROCESS_", "SLURM_", "MIXED_", "OMP_", "MALLOC_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    own = {"HFWARMUP_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    environment = {**clean, **own, "HF_DATASETS_CACHE": str(cache)}
    command = [ROOT / "launch.sh", "pretrain_mlm", *flags(corpus, tmp_path / "run", max_steps=2, warmup=1)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert result.stderr.splitlines()[-6].startswith("validation loss 5.")
    baseline = re.search(r"token frequencies alone give (\d\.\d+) nats", result.stderr.splitlines()[-6])
    assert 0 < float(baseline[1]) < math.log(320)  # below a uniform guess over the vocabulary
    assert [applied for _, _, applied in read_learning_rates(tmp_path / "run" / "learning_rates.csv")] == [1e-7, 1e-3]
    assert {"model.safetensors", "schedule.png", "loss.png", "tokenizer.json"} <= set(os.listdir(tmp_path / "run"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    assert (tokenizer.mask_token, tokenizer.pad_token, tokenizer.model_max_length) == ("<|mask|>", "<|pad|>", 32)
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert results["eval_baseline_loss"] == pytest.approx(float(baseline[1]), abs=1e-3)
    assert results["eval_bits_per_masked_token"] == pytest.approx(results["eval_loss"] / math.log(2))


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_parses(config, recipe):
    hfwarmup.register()
    types = (
        recipe.ModelArguments,
        DataArguments,
        recipe.MaskingArguments,
        recipe.WarmupArguments,
        recipe.RecipeArguments,
    )
    _, _, masking, warmup, training = parse_arguments(*types, argv=["--config", str(config), "--use_cpu", "true"])
    assert Path(training.output_dir) == Path("runs", "pretrain_mlm", config.stem)
    assert 0 < masking.mlm_probability < 1
    assert warmup.reference_batch_size
