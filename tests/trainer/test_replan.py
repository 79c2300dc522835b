"""The plan follows the batch and the length that a Trainer really has."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import hfwarmup
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.trainer.planning import plan_of, plan_training, planned_arguments
from hfwarmup.trainer.replan import Replan

SAMPLES = [{"input_ids": torch.arange(8) % 16, "labels": torch.arange(8) % 16} for _ in range(64)]


class FitsUpTo(LlamaForCausalLM):
    """A model that runs out of memory above a batch of 4."""

    def forward(self, input_ids, labels=None):
        if len(input_ids) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(input_ids, labels=labels)


class Probe(TrainerCallback):
    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.rates = []
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])


def planned_trainer(tmp_path, model_class=LlamaForCausalLM, warmup="25%", **settings):
    hfwarmup.register()
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    schedule = {"lr_scheduler_type": "gradual_warmup", "lr_scheduler_kwargs": {"initial_lr": 0.0}}
    args = TrainingArguments(
        str(tmp_path),
        learning_rate=1.6e-3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **{**schedule, **settings},
    )
    warmup = WarmupArguments(warmup=warmup, reference_batch_size=16)
    plan = plan_training(args, warmup, num_samples=len(SAMPLES))
    probe = Probe()
    replan = Replan(args, warmup, num_samples=len(SAMPLES))
    planned = planned_arguments(args, warmup, plan)
    return Trainer(model_class(config), planned, train_dataset=SAMPLES, callbacks=[replan, probe]), probe


def test_auto_find_batch_size_scales_peak_and_warmup_to_the_batch_that_fits(tmp_path):
    trainer, probe = planned_trainer(
        tmp_path, FitsUpTo, per_device_train_batch_size=16, num_train_epochs=2, auto_find_batch_size=True
    )
    assert (plan_of(trainer.args).peak_lr, plan_of(trainer.args).warmup_steps, plan_of(trainer.args).total_steps) == (
        1.6e-3,
        2,
        8,
    )
    trainer.train()
    fitted = trainer.state.train_batch_size
    assert fitted <= 4
    scale = fitted / 16
    total = 2 * -(-64 // fitted)
    assert trainer.state.max_steps == total
    # 25% of the 8 updates at the reference batch are 2; the linear rule takes 2 k, at least 1.
    steps = max(1, int(2 * scale + 0.5))
    assert (plan_of(trainer.args).scale, plan_of(trainer.args).warmup_steps, plan_of(trainer.args).total_steps) == (
        scale,
        steps,
        total,
    )
    expected = [1.6e-3 * scale * min(1.0, t / steps) for t in range(total)]
    assert probe.rates == pytest.approx(expected, rel=1e-12)


def test_a_second_train_of_another_length_gets_a_warmup_of_its_own(tmp_path):
    trainer, probe = planned_trainer(tmp_path, per_device_train_batch_size=16, max_steps=8)
    trainer.train()
    assert probe.rates == [1.6e-3 * min(1.0, t / 2) for t in range(8)]
    trainer.args.max_steps = 16
    trainer.train()
    assert plan_of(trainer.args).warmup_steps == 4  # 25% of 16
    assert probe.rates == [1.6e-3 * min(1.0, t / 4) for t in range(16)]


def test_a_length_from_beta2_stays_in_a_second_train_of_another_length(tmp_path):
    """untuned_linear: update t runs at the peak times min(1, (1 - beta2) (t + 1) / 2)."""
    schedule = {"lr_scheduler_type": "untuned_linear", "lr_scheduler_kwargs": None, "adam_beta2": 0.5}
    trainer, probe = planned_trainer(tmp_path, warmup=None, per_device_train_batch_size=16, max_steps=8, **schedule)
    trainer.train()
    trainer.args.max_steps = 16
    trainer.train()
    assert plan_of(trainer.args).total_steps == 16
    assert probe.rates == [1.6e-3 * min(1.0, 0.25 * (t + 1)) for t in range(16)]


@pytest.mark.parametrize(
    ("num_processes", "accumulation"),
    [(1, 8), (2, 4), (4, 2), (8, 1)],  # 64 = 8 per device x processes x accumulation
)
def test_target_batch_size_is_kept_on_any_number_of_processes(tmp_path, monkeypatch, num_processes, accumulation):
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: num_processes))
    args = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=8, max_steps=10)
    plan = plan_training(args, WarmupArguments(target_batch_size=64, warmup="2"), num_samples=640)
    assert (plan.gradient_accumulation_steps, plan.global_batch_size) == (accumulation, 64)


def test_a_global_batch_that_does_not_divide_is_an_error(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=8, max_steps=10)
    with pytest.raises(ValueError, match="target_batch_size=20 is no multiple of 8 per device x 1 processes; change"):
        plan_training(args, WarmupArguments(target_batch_size=20), num_samples=640)
