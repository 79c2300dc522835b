"""The monitor measures what it says, logs it where the Trainer logs, and leaves the training alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, default_data_collator
from watched_runs import LOGGED, POINTS, RUN, dropping_llama, measured, with_and_without

from hfwarmup.schedules.warmup_shapes import radam
from hfwarmup.trainer.monitor import WarmupMonitor, watch_warmup


def test_a_run_with_it_and_one_without_end_bit_identical(make_trainer):
    trainer = with_and_without(
        lambda: make_trainer(trainer={"model": dropping_llama()}, gradient_accumulation_steps=2, **LOGGED)
    )
    assert measured(trainer, "effective_rank")


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


def test_an_update_of_known_size(make_trainer):
    """SGD without momentum moves a matrix by lr x its clipped gradient."""

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


def test_a_resumed_run_goes_on_from_what_was_measured_before(make_trainer, tmp_path):
    run = LOGGED | {"gradient_accumulation_steps": 2}
    whole = make_trainer(output_dir=str(tmp_path), save_strategy="steps", save_steps=20, **run)
    watch_warmup(whole)
    whole.train()
    resumed = make_trainer(output_dir=str(tmp_path), **run)
    watch_warmup(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    for name in ("effective_rank_ratio", "max_relative_update", "noise_scale_samples"):
        assert measured(resumed, name) == pytest.approx(measured(whole, name))


def test_the_rectification_is_that_of_radam(make_trainer):
    trainer = make_trainer(**LOGGED, adam_beta2=0.95)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "rectification")[20] == radam(0.95)(20)


def test_the_share_of_clipped_updates(make_trainer):
    trainer = make_trainer(**LOGGED, max_grad_norm=1e-6)
    watch_warmup(trainer)
    trainer.train()
    assert set(measured(trainer, "clipped_share").values()) == {1.0}


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_scheduler_that_keeps_no_peaks_is_judged_at_its_learning_rate(make_trainer, caplog, blocks, schedule):
    run = LOGGED | {"lr_scheduler_type": schedule, "warmup_steps": 0, "learning_rate": 1.0, "eval_strategy": "epoch"}
    trainer = make_trainer(trainer={"eval_dataset": blocks(2)}, **run)
    watch_warmup(trainer)
    with caplog.at_level("WARNING", "hfwarmup.trainer.monitor"):
        trainer.train()
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("monitor")]
    assert message.startswith("warmup too steep: too short for a peak of 1, by 10% of the run")


class Shift(torch.nn.Module):
    """A model of one vector."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x, labels):
        return {"loss": (x + self.shift).square().mean()}


def test_a_model_without_matrices_is_measured_at_the_marks_alone(make_trainer):
    trainer = make_trainer(trainer={"model": Shift(), "train_dataset": POINTS}, **RUN, logging_steps=40)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "relative_update") == dict.fromkeys(range(2, 41, 2), 0.0)


class Noisy(torch.utils.data.Dataset):
    """Draws new tokens each time from the random states of Python and numpy, as an augmentation does."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        tokens = torch.tensor([random.randrange(16), *np.random.randint(16, size=3)])
        return {"input_ids": tokens, "labels": tokens}


class Masking:
    """Drops tokens at random, with its own generator."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, samples):
        batch = default_data_collator(samples)
        dropped = torch.rand(batch["input_ids"].shape, generator=self.generator) < 0.3
        return batch | {"input_ids": batch["input_ids"].masked_fill(dropped, 0)}


def test_a_collator_that_draws_from_its_own_generator_draws_the_same(make_trainer):
    trainer = with_and_without(lambda: make_trainer(trainer={"data_collator": Masking()}, **LOGGED))
    assert measured(trainer, "effective_rank")


def test_data_that_draws_at_random_draws_the_same(make_trainer):
    trainer = with_and_without(lambda: make_trainer(trainer={"train_dataset": Noisy()}, **LOGGED))
    assert measured(trainer, "effective_rank")


def test_a_matrix_that_begins_at_zero_is_left_out(make_trainer, tiny_llama):
    model = tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    trainer = make_trainer(trainer={"model": model}, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "max_relative_update")[2] < 0.2  # its own first update would be without bound


def test_it_warns_once_of_a_ramp_that_is_too_steep(make_trainer, caplog):
    trainer = make_trainer(**LOGGED | {"warmup_steps": 0, "learning_rate": 1.0})
    watch_warmup(trainer)
    with caplog.at_level("WARNING", "hfwarmup.trainer.monitor"):
        trainer.train()
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("monitor")]
    assert message.startswith("warmup too steep: too short for a peak of 1, by 10% of the run")
