"""A Trainer small enough to run real updates in milliseconds, and a probe of what it applied."""

from __future__ import annotations

import gc
from typing import Any

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


@pytest.fixture(scope="session", autouse=True)
def _quick():
    """A model this small waits for its threads, and each `train()` for a collection of all that was imported."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture
def probe() -> LearningRateProbe:
    return LearningRateProbe()


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def blocks():
    """Makes a dataset of `count` samples of four tokens each."""

    def make(count: int) -> list[dict[str, torch.Tensor]]:
        tokens = torch.randint(VOCABULARY, (count, 4), generator=torch.Generator().manual_seed(0))
        return [{"input_ids": row, "labels": row} for row in tokens]

    return make


@pytest.fixture(scope="session")
def make_trainer(tmp_path_factory, tiny_llama, blocks):
    """Makes a Trainer of 8 updates in a new folder; keywords are TrainingArguments', `trainer` holds the Trainer's."""

    def make(*callbacks: TrainerCallback, trainer: dict[str, Any] | None = None, **own: Any) -> Trainer:
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
        if "output_dir" not in own:
            own["output_dir"] = str(tmp_path_factory.mktemp("run"))
        trainers_own = {"model": tiny_llama(), "train_dataset": blocks(8), **(trainer or {})}
        return Trainer(args=TrainingArguments(**{**settings, **own}), callbacks=list(callbacks), **trainers_own)

    return make
