"""`initial_lr: auto` and `optim: gi_adamw` in a Trainer on two ranks over gloo: measured once, as on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_on_ranks
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

import hfwarmup
from hfwarmup.trainer.first_update import unwrapped

WORLD, UPDATES = 2, 4
SETTINGS = {
    "auto": {
        "optim": "sgd",
        "learning_rate": 6.0,
        "lr_scheduler_type": "gradual_warmup",
        "warmup_steps": 4,
        "lr_scheduler_kwargs": {"initial_lr": "auto"},
    },
    "gi": {"optim": "gi_adamw", "learning_rate": 1e-2, "lr_scheduler_type": "constant"},
}


def train(folder: Path, name: str, num_processes: int) -> dict[str, Any]:
    """Four updates on batches of four; what they were made with."""
    hfwarmup.register()
    set_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(
        vocab_size=16, max_position_embeddings=8, use_cache=False, bos_token_id=0, eos_token_id=1, **sizes
    )
    tokens = torch.randint(16, (32, 8), generator=torch.Generator().manual_seed(0))
    args = TrainingArguments(
        output_dir=str(folder / name),
        max_steps=UPDATES,
        per_device_train_batch_size=4 // num_processes,
        max_grad_norm=1.0,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **SETTINGS[name],
    )
    trainer = Trainer(
        model=LlamaForCausalLM(config), args=args, train_dataset=[{"input_ids": row, "labels": row} for row in tokens]
    )
    trainer.train()
    optimizer = unwrapped(trainer.optimizer)
    return {
        "critical_lr": getattr(trainer.lr_scheduler, "critical_lr", 0.0),
        "weights": [weight.detach() for weight in trainer.model.parameters()],
        "second_moment": [state.get("exp_avg_sq") for state in optimizer.state.values()],
    }


def train_each(_: int, folder: Path) -> dict[str, dict[str, Any]]:
    return {name: train(folder, name, WORLD) for name in SETTINGS}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank ended with, by setting."""
    return run_on_ranks(train_each, tmp_path_factory.mktemp("first_update"))


@pytest.mark.parametrize("name", SETTINGS)
def test_two_ranks_start_as_one_does(ranks, name, tmp_path):
    alone = train(tmp_path, name, 1)
    for rank in ranks:
        found = rank[name]
        assert found["critical_lr"] == pytest.approx(alone["critical_lr"], rel=1e-6)
        torch.testing.assert_close(found["weights"], alone["weights"], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found["second_moment"], alone["second_moment"], rtol=1e-3, atol=1e-8)
    assert ranks[0][name]["critical_lr"] == ranks[1][name]["critical_lr"]
    torch.testing.assert_close(ranks[0][name]["weights"], ranks[1][name]["weights"], rtol=0, atol=0)


def test_the_start_was_measured(ranks):
    assert 0 < ranks[0]["auto"]["critical_lr"] < 6.0
