"""The gradient noise scale that the monitor logs, from an update's micro-batches."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import TrainerCallback
from watched_runs import LOGGED, measured

from hfwarmup.measuring.noise_scale import noise_and_signal
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.probes.gradient_noise import gradients_are_whole


def test_the_noise_scale_is_made_of_the_micro_batches_and_the_batch(make_trainer, tiny_llama):
    """The second update is measured; its gradients are computed again from the model's recorded inputs."""

    class Weights(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                self.before = copy.deepcopy(kwargs["model"].state_dict())

    weights, calls = Weights(), []
    trainer = make_trainer(weights, gradient_accumulation_steps=4, max_grad_norm=1e-3, **LOGGED)
    trainer.model.register_forward_pre_hook(
        lambda _, __, kwargs: calls.append(kwargs["input_ids"]) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    watch_warmup(trainer)
    trainer.train()
    model = tiny_llama()
    model.load_state_dict(weights.before)
    gradients = []
    for tokens in calls[4:8]:
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    small = sum(gradient.square().sum().item() for gradient in gradients) / 4
    big = (sum(gradients) / 4).square().sum().item()
    noise, signal = noise_and_signal(small, big, small_batch=2, big_batch=8)
    expected = max(0.0, noise) / signal if signal > 0 else math.inf
    assert measured(trainer, "noise_scale_samples")[2] == pytest.approx(expected, rel=1e-4)


def test_micro_batches_of_one_sample_have_no_noise_however_many_labels_they_keep(make_trainer, blocks):
    """All tokens are the same; an update's first micro-batch has labels for one sample and its second for two."""
    sample = blocks(1)[0]
    masked = {**sample, "labels": torch.full_like(sample["labels"], -100)}
    run = LOGGED | {"max_steps": 20, "logging_steps": 1, "train_sampling_strategy": "sequential"}
    trainer = make_trainer(
        trainer={"train_dataset": [sample, masked, sample, sample]}, gradient_accumulation_steps=2, **run
    )
    watch_warmup(trainer)
    trainer.train()
    noise, signal = measured(trainer, "gradient_noise"), measured(trainer, "gradient_signal")
    norms = {entry["step"]: entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry}
    assert list(noise) == list(range(1, 21))
    assert signal == pytest.approx({step: norm**2 for step, norm in norms.items()}, rel=1e-4)
    assert max(abs(noise[step]) / signal[step] for step in noise) < 1e-3


def test_the_batch_size_is_the_one_that_was_found_to_fit(make_trainer, monkeypatch):
    """4 samples do not fit into memory, so accelerate tries fewer."""
    sizes = []
    monkeypatch.setattr(
        "hfwarmup.trainer.probes.gradient_noise.noise_and_signal",
        lambda *_, **batches: sizes.append(batches) or (1.0, 1.0),
    )

    class Full(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            if state.train_batch_size == 4:
                raise RuntimeError("CUDA out of memory.")

    own = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "auto_find_batch_size": True}
    trainer = make_trainer(Full(), **LOGGED | {"max_steps": 20, "logging_steps": 1}, **own)
    watch_warmup(trainer)
    trainer.train()
    fitting = trainer.state.train_batch_size
    assert fitting < 4
    assert sizes[0] == {"small_batch": fitting, "big_batch": 2 * fitting}


def test_the_rest_of_an_epoch_may_be_a_single_micro_batch(make_trainer, blocks):
    """An epoch has five micro-batches: an update of four, and an update of one, which has nothing to compare."""
    every = LOGGED | {"logging_steps": 1, "max_steps": 20}
    trainer = make_trainer(trainer={"train_dataset": blocks(10)}, gradient_accumulation_steps=4, **every)
    watch_warmup(trainer)
    trainer.train()
    assert list(measured(trainer, "noise_scale_samples")) == list(range(1, 20, 2))
    assert not any(p._backward_hooks for p in trainer.model.parameters())


def test_a_gradient_with_the_scalers_factor_is_not_taken(monkeypatch):
    state = SimpleNamespace(distributed_type=DistributedType.MULTI_GPU)
    monkeypatch.setattr("hfwarmup.trainer.compat.AcceleratorState", lambda: state)
    assert [gradients_are_whole(SimpleNamespace(fp16=fp16)) for fp16 in (False, True)] == [True, False]
    state.distributed_type = DistributedType.FSDP
    assert not gradients_are_whole(SimpleNamespace(fp16=False))
