"""A Trainer small enough to run real updates in milliseconds, and a probe of what it applied."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

import hfwarmup

VOCABULARY = 16


class LearningRateProbe(TrainerCallback):
    """The learning rate with which the optimizer made each update: read after it, before the scheduler moves on."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.rates.append(float(kwargs["optimizer"].param_groups[0]["lr"]))


@pytest.fixture(scope="session", autouse=True)
def _registered():
    hfwarmup.register()


@pytest.fixture
def probe() -> LearningRateProbe:
    return LearningRateProbe()


@pytest.fixture
def tiny_llama():
    """Makes the same Llama each time: one block, 32 wide."""

    def make() -> LlamaForCausalLM:
        set_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=8,
            bos_token_id=0,
            eos_token_id=1,
            use_cache=False,
        )
        return LlamaForCausalLM(config)

    return make


@pytest.fixture
def blocks():
    """Makes a dataset of `count` samples of four tokens each."""

    def make(count: int) -> list[dict[str, torch.Tensor]]:
        tokens = torch.randint(VOCABULARY, (count, 4), generator=torch.Generator().manual_seed(0))
        return [{"input_ids": row, "labels": row} for row in tokens]

    return make


@pytest.fixture
def make_trainer(tmp_path, tiny_llama, blocks):
    """Makes a Trainer of 8 updates; arguments are TrainingArguments', and `trainer` passes the Trainer's own."""

    def make(*callbacks: TrainerCallback, folder: str | Path = "run", trainer=None, arguments=TrainingArguments, **own):
        settings = {
            "max_steps": 8,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "save_strategy": "no",
            "use_cpu": True,
        }
        args = arguments(output_dir=str(tmp_path / folder), **{**settings, **own})
        own_trainer = {"model": tiny_llama(), "train_dataset": blocks(8), **(trainer or {})}
        return Trainer(args=args, callbacks=list(callbacks), **own_trainer)

    return make
