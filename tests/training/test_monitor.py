"""The monitor measures what it says, logs it where the Trainer logs, and leaves the training alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, set_seed

from hfwarmup.measuring.noise_scale import noise_and_signal
from hfwarmup.measuring.representation import effective_rank
from hfwarmup.schedules.shapes import radam
from hfwarmup.training.monitor import WarmupMonitor, watch_warmup

RUN = {"max_steps": 40, "lr_scheduler_type": "warmup_cosine", "warmup_steps": 10, "learning_rate": 1e-2}
LOGGED = RUN | {"logging_strategy": "steps", "logging_steps": 2}


def dropping_llama():
    """Two blocks with dropout in the attention, so that a draw too many shows in the weights."""
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, num_key_value_heads=1, attention_dropout=0.3, **sizes))


def measured(trainer, name):
    """step -> value, of the entries that hold it."""
    key = f"warmup/{name}"
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def test_a_run_with_it_and_one_without_end_bit_identical(make_trainer):
    ends = []
    for watch in (False, True):
        trainer = make_trainer(trainer={"model": dropping_llama()}, gradient_accumulation_steps=2, **LOGGED)
        if watch:
            watch_warmup(trainer)
        trainer.train()
        ends.append([p.detach().clone() for p in trainer.model.parameters()])
    assert measured(trainer, "effective_rank")
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_modes_gradients_and_random_state_are_as_before(make_trainer):
    class Probe(TrainerCallback):
        def __init__(self):
            self.seen = []

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            model = kwargs["model"]
            gradients = [p.grad.clone() for p in model.parameters()]
            self.seen.append((torch.get_rng_state(), gradients, [m.training for m in model.modules()]))

    before, after = Probe(), Probe()
    trainer = make_trainer(before, WarmupMonitor(), after, trainer={"model": dropping_llama()}, **LOGGED)
    trainer.model.model.norm.eval()  # one module of its own mode
    trainer.train()
    for (rng, gradients, modes), (later_rng, later_gradients, later_modes) in zip(before.seen, after.seen, strict=True):
        assert torch.equal(rng, later_rng)
        assert modes == later_modes
        assert all(torch.equal(*pair) for pair in zip(gradients, later_gradients, strict=True))


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


def test_an_update_of_known_size(make_trainer):
    """SGD without momentum moves a matrix by lr x its gradient; clipped to a norm of 1e-3 the whole moves lr x 1e-3."""

    class Norms(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == args.max_steps - 1:
                lr = kwargs["optimizer"].param_groups[0]["lr"]
                matrices = [p for p in kwargs["model"].parameters() if p.ndim == 2]
                self.largest = max(lr * (p.grad.norm() / p.norm()).item() for p in matrices)

    norms = Norms()
    trainer = make_trainer(norms, optim="sgd", **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "relative_update")[40] == pytest.approx(norms.largest, rel=1e-3)
    assert measured(trainer, "max_relative_update")[40] >= max(measured(trainer, "relative_update").values())


def test_it_measures_at_twenty_points_that_are_logged_anyway(make_trainer):
    trainer = make_trainer(**LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert list(measured(trainer, "effective_rank")) == list(range(2, 41, 2))


def test_where_the_log_is_rarer_its_measurements_are_logged_too(make_trainer):
    trainer = make_trainer(**RUN, logging_strategy="steps", logging_steps=30)
    watch_warmup(trainer)
    trainer.train()
    assert sorted(measured(trainer, "effective_rank")) == list(range(2, 41, 2))
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == list(range(2, 41, 2))


def test_a_tracker_sees_the_values_too(make_trainer):
    class Tracker(TrainerCallback):
        def __init__(self):
            self.seen = {}

        def on_log(self, args, state, control, logs, **kwargs):
            if "loss" in logs:
                self.seen[state.global_step] = dict(logs)

    tracker = Tracker()  # an integration's callback stands before those of the caller, and so does the monitor
    trainer = make_trainer(tracker, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    ranks = measured(trainer, "effective_rank")
    assert {step: tracker.seen[step]["warmup/effective_rank"] for step in ranks} == ranks


def test_a_resumed_run_goes_on_from_the_same_initial_rank(make_trainer, tmp_path):
    whole = make_trainer(output_dir=str(tmp_path), save_strategy="steps", save_steps=20, **LOGGED)
    watch_warmup(whole)
    whole.train()
    resumed = make_trainer(output_dir=str(tmp_path), **LOGGED)
    watch_warmup(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    for name in ("effective_rank_ratio", "max_relative_update"):
        assert measured(resumed, name) == pytest.approx(measured(whole, name))


def test_the_rectification_is_that_of_radam(make_trainer):
    trainer = make_trainer(**LOGGED, adam_beta2=0.95)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "rectification")[20] == radam(20, 0.95)


def test_the_share_of_clipped_updates(make_trainer):
    trainer = make_trainer(**LOGGED, max_grad_norm=1e-6)
    watch_warmup(trainer)
    trainer.train()
    assert set(measured(trainer, "clipped_share").values()) == {1.0}


def test_the_noise_scale_is_made_of_micro_batch_and_batch(make_trainer):
    """One measured update: its first micro-batch's gradient and the logged norm of the whole, before clipping."""

    class FirstMicroBatch(TrainerCallback):
        def on_substep_end(self, args, state, control, **kwargs):
            if state.global_step == 1 and not hasattr(self, "squared"):
                gradients = [p.grad for p in kwargs["model"].parameters()]
                self.squared = torch.nn.utils.get_total_norm(gradients).item() ** 2 * 4**2

    first = FirstMicroBatch()
    trainer = make_trainer(first, gradient_accumulation_steps=4, max_grad_norm=1e-3, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    norm = next(entry["grad_norm"] for entry in trainer.state.log_history if entry["step"] == 2)
    noise, signal = noise_and_signal(first.squared, norm**2, small_batch=2, big_batch=8)
    expected = max(0.0, noise) / signal if signal > 0 else math.inf
    assert measured(trainer, "noise_scale_samples")[2] == pytest.approx(expected, rel=1e-4)


class Regression(torch.nn.Module):
    """The mean of (w x - y)^2, whose Hessian is 2 E[x x']."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1, bias=False)

    def forward(self, x, labels):
        return {"loss": (self.linear(x).squeeze(-1) - labels).square().mean()}


POINTS = [{"x": torch.tensor(x), "labels": torch.tensor(1.0)} for x in ([1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0])]


def test_a_model_without_hidden_states_has_no_rank(make_trainer, caplog):
    trainer = make_trainer(trainer={"model": Regression(), "train_dataset": POINTS}, **LOGGED)
    watch_warmup(trainer)
    with caplog.at_level("INFO", "hfwarmup.training.monitor"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if record.name.endswith("monitor")]
    assert said == ["no effective rank is measured: the model has no hidden states or the data no length"]
    assert measured(trainer, "effective_rank") == {}
    assert len(measured(trainer, "relative_update")) == 20


def test_the_sharpness_of_a_known_hessian_over_the_threshold(make_trainer):
    """2 E[x x'] = diag(2, 8, 18) / 3 has the sharpness 6; SGD without momentum stands 2 / lr."""
    run = LOGGED | {"lr_scheduler_type": "gradual_warmup", "optim": "sgd"}
    trainer = make_trainer(trainer={"model": Regression(), "train_dataset": POINTS}, **run)
    watch_warmup(trainer, sharpness=True)
    trainer.train()
    assert measured(trainer, "sharpness") == pytest.approx(dict.fromkeys(range(2, 41, 2), 6.0), rel=0.01)
    assert measured(trainer, "sharpness_ratio")[40] == pytest.approx(6.0 / (2 / 1e-2), rel=0.01)


def test_measuring_the_sharpness_leaves_the_training_as_it_is(make_trainer):
    ends = []
    for watch in (False, True):
        trainer = make_trainer(trainer={"model": dropping_llama()}, **LOGGED)
        if watch:
            watch_warmup(trainer, sharpness=True)
        trainer.train()
        ends.append([p.detach().clone() for p in trainer.model.parameters()])
    assert measured(trainer, "sharpness_ratio")
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_a_matrix_that_begins_at_zero_is_no_measure(make_trainer, tiny_llama):
    model = tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    trainer = make_trainer(trainer={"model": model}, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "max_relative_update")[2] < 0.2  # its own first update would be without bound


def test_padding_is_no_row_of_the_rank(tiny_llama):
    monitor = WarmupMonitor()
    batch = {"input_ids": torch.tensor([[1, 2, 3, 4]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    monitor._probe = batch
    args = SimpleNamespace(device=torch.device("cpu"), bf16=False)
    assert monitor._hidden(tiny_llama(), args).shape == (2, 32)


def test_it_warns_once_of_a_ramp_that_is_too_steep(make_trainer, caplog):
    trainer = make_trainer(**LOGGED | {"warmup_steps": 0, "learning_rate": 1.0})
    watch_warmup(trainer)
    with caplog.at_level("WARNING", "hfwarmup.training.monitor"):
        trainer.train()
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("monitor")]
    assert message.startswith("warmup too steep: too short for a peak of 1, by 10% of the run")
