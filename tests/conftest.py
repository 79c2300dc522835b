"""What several folders of tests share: a recipe imported, the process left as it was, and a Trainer of milliseconds."""

from __future__ import annotations

import gc
import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest
import torch
import transformers
from run_folders import write_run
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

import hfwarmup

RECIPES = Path(__file__).parents[1] / "recipes"
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


@pytest.fixture(scope="module")
def own_process_state():
    """One thread, no bars; what running a recipe changes in this process is put back."""
    logger, threads = logging.getLogger("hfwarmup"), torch.get_num_threads()
    before = logger.handlers, logger.propagate, logger.level
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
    torch.set_num_threads(threads)
    logger.handlers, logger.propagate, logger.level = before
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def load_recipe(own_process_state) -> Callable[[str], ModuleType]:
    """Imports a recipe by its name."""
    loaded = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        loaded.append(name)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """`write_run` into a folder of the test's own."""
    return lambda name="run", **own: write_run(tmp_path / name, **own)
