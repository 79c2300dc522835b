"""The effective rank that the monitor logs, and the probe batch that it is measured on."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaForCausalLM, default_data_collator
from watched_runs import LOGGED, POINTS, Regression, dropping_llama, measured

from hfwarmup.measuring.representation import effective_rank
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.probes.representation import last_hidden_state


def test_the_rank_is_that_of_the_weights_after_the_update(make_trainer, blocks):
    trainer = make_trainer(**LOGGED)
    watch_warmup(trainer)
    trainer.train()
    batch = {name: torch.stack([row[name] for row in blocks(8)]) for name in ("input_ids", "labels")}
    with torch.no_grad():
        hidden = trainer.model.eval()(**batch, output_hidden_states=True).hidden_states[-1].flatten(0, 1)
    ranks, ratios = measured(trainer, "effective_rank"), measured(trainer, "effective_rank_ratio")
    assert ranks[40] == pytest.approx(effective_rank(hidden), rel=1e-5)
    assert len({round(ranks[step] / ratios[step], 9) for step in ranks}) == 1  # all over the same initial rank


class Pair(LlamaForCausalLM):
    """Accepts `output_hidden_states` and returns none, as a model with two towers does."""

    def forward(self, *args, output_hidden_states=False, **kwargs):
        return super().forward(*args, **kwargs)


class Loader:
    """An iterable that hides its data set."""

    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        return iter(self._loader)

    def __len__(self):
        return len(self._loader)


def hide_dataset(trainer):
    loader = trainer.get_train_dataloader()
    trainer.get_train_dataloader = lambda: Loader(loader)


@pytest.mark.parametrize(
    ("parts", "change", "reason"),
    [
        (
            {"model": Regression(), "train_dataset": POINTS},
            None,
            "TypeError: Regression.forward() got an unexpected keyword argument 'output_hidden_states'",
        ),
        (
            {"model": Pair(dropping_llama().config)},
            None,
            "the output of Pair has neither hidden_states nor decoder_hidden_states",
        ),
        ({}, hide_dataset, "the training data cannot be read by index"),
    ],
)
def test_where_no_rank_can_be_measured_it_says_why_and_the_run_goes_on(make_trainer, caplog, parts, change, reason):
    trainer = make_trainer(trainer=parts, remove_unused_columns=False, **LOGGED)
    if change:
        change(trainer)
    watch_warmup(trainer)
    with caplog.at_level("INFO", "hfwarmup.trainer.probes.representation"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert said == [f"the effective rank is not measured: {reason}"]
    assert measured(trainer, "effective_rank") == {}
    assert len(measured(trainer, "relative_update")) == 20


class Tagged(LlamaForCausalLM):
    """Takes the names of its samples, as a model for several tasks does."""

    def forward(self, names, **kwargs):
        assert isinstance(names, list)
        return super().forward(**kwargs)


def test_what_a_collator_gives_beside_tensors_goes_to_the_model_as_it_is(make_trainer, blocks):
    def collate(samples):
        return {"names": ["a"] * len(samples), **default_data_collator(samples)}

    parts = {"model": Tagged(dropping_llama().config), "data_collator": collate}
    trainer = make_trainer(trainer=parts, remove_unused_columns=False, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert len(measured(trainer, "effective_rank")) == 20


def test_a_rank_that_began_at_zero_has_no_ratio(make_trainer, tiny_llama, tmp_path):
    model = tiny_llama()
    torch.nn.init.zeros_(model.model.norm.weight)
    model.model.norm.weight.requires_grad_(False)
    settings = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 20, **LOGGED}
    for resumed in (None, str(tmp_path / "checkpoint-20")):
        trainer = make_trainer(trainer={"model": model}, **settings)
        watch_warmup(trainer)
        trainer.train(resume_from_checkpoint=resumed)
        assert measured(trainer, "effective_rank")[40] == 0.0
        assert math.isnan(measured(trainer, "effective_rank_ratio")[40])


class Locked:
    """Cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, samples):
        return default_data_collator(samples)


def test_a_collator_that_cannot_be_copied_serves_as_it_is(make_trainer):
    trainer = make_trainer(trainer={"data_collator": Locked()}, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert len(measured(trainer, "effective_rank")) == 20


def test_padding_is_no_row_of_the_rank(tiny_llama):
    batch = {"input_ids": torch.tensor([[1, 2, 3, 4]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    args = SimpleNamespace(device=torch.device("cpu"), bf16=False)
    assert last_hidden_state(tiny_llama(), batch, args).shape == (2, 32)
