"""`initial_lr: auto` and `optim: gi_adamw`: what is settled before the first update, and that nothing else changes."""

from __future__ import annotations

import logging
import math
import re

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback

import hfwarmup
from hfwarmup.optim.gi_adam import GIAdamW
from hfwarmup.trainer import first_update
from hfwarmup.trainer.monitor import watch_warmup

SGD = {"optim": "sgd", "learning_rate": 3.0, "max_grad_norm": 0.0}
"""A peak at about 1.4 times the critical learning rate."""
AUTO = {"lr_scheduler_type": "gradual_warmup", "warmup_steps": 6, "lr_scheduler_kwargs": {"initial_lr": "auto"}}
UNMEASURED = (
    r"^initial_lr='auto' needs a Trainer, which measures it; give initial_lr a number, or call "
    r"start_at_critical_lr before the first update\.$"
)


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def auto(lr: float = 1.0, *, warmup_steps: int = 100, **options) -> hfwarmup.WarmupScheduler:
    options = {"name": "warmup_linear", "initial_lr": "auto", **options}
    return hfwarmup.WarmupScheduler(optimizer(lr), num_warmup_steps=warmup_steps, num_training_steps=1000, **options)


# initial_lr: auto in a Trainer


@pytest.fixture
def measured(make_trainer, probe):
    trainer = make_trainer(probe, max_steps=8, **SGD, **AUTO)
    trainer.train()
    return trainer, probe.rates


def test_the_ramp_starts_at_the_critical_learning_rate_and_keeps_its_rate(measured):
    """It reaches the peak after T_w (1 - eta_c / eta) updates."""
    trainer, rates = measured
    eta_c, peak = trainer.lr_scheduler.critical_lr, SGD["learning_rate"]
    steps = round(6 * (1 - eta_c / peak))
    assert 0 < eta_c < 0.9 * peak
    assert 0 < steps < 6
    assert rates[0] == pytest.approx(eta_c, rel=1e-12)
    assert rates[:steps] == pytest.approx([eta_c + (peak - eta_c) * t / steps for t in range(steps)], rel=1e-12)
    assert rates[steps:] == [peak] * (8 - steps)


def test_the_loss_falls_below_the_critical_learning_rate_and_rises_above(measured, make_trainer, blocks):
    """On the batch that was measured: two samples, spread over eight."""
    trainer, _ = measured
    fresh = make_trainer(**SGD).model
    batch = {name: torch.stack([blocks(8)[index][name] for index in (0, 4)]) for name in ("input_ids", "labels")}
    loss = fresh(**batch).loss
    gradients = torch.autograd.grad(loss, list(fresh.parameters()))

    def loss_at(lr: float) -> float:
        with torch.no_grad():
            for parameter, gradient in zip(fresh.parameters(), gradients, strict=True):
                parameter -= lr * gradient
            moved = fresh(**batch).loss.item()
            for parameter, gradient in zip(fresh.parameters(), gradients, strict=True):
                parameter += lr * gradient
        return moved

    eta_c = trainer.lr_scheduler.critical_lr
    assert loss_at(eta_c / 1.3) < loss.item() < loss_at(1.3 * eta_c)


def test_measuring_changes_nothing_else(measured, make_trainer):
    """A run that is told the same start as numbers ends with the same weights, to the last bit."""
    trainer, _ = measured
    spec = trainer.lr_scheduler.spec
    told = make_trainer(
        max_steps=8,
        **SGD,
        lr_scheduler_type="gradual_warmup",
        warmup_steps=spec.warmup_steps,
        lr_scheduler_kwargs={"initial_ratio": spec.options["initial_ratio"]},
    )
    told.train()
    torch.testing.assert_close(told.model.state_dict(), trainer.model.state_dict(), rtol=0, atol=0)


def test_a_critical_learning_rate_above_the_peak_leaves_no_warmup_and_says_so(make_trainer, probe, caplog):
    with caplog.at_level(logging.INFO, logger="hfwarmup"):
        make_trainer(probe, **{**SGD, "learning_rate": 1e-3}, **AUTO).train()
    assert probe.rates == [1e-3] * 8
    lines = [record.getMessage() for record in caplog.records]
    assert any(re.fullmatch(r"initial_lr: auto: critical .* warmup 6 -> 0 updates, -?\d saved", line) for line in lines)
    assert any(line.endswith("so there is no warmup. A warmup may still help later in the run (docs/predictors.md); it "
               "is safer to give initial_lr a number.") for line in lines)  # fmt: skip


def test_a_resumed_run_does_not_measure_again(make_trainer, probe, tmp_path, monkeypatch):
    settings = {"output_dir": str(tmp_path), "max_steps": 8, **SGD, **AUTO}
    whole = make_trainer(**settings, save_strategy="steps", save_steps=4)
    whole.train()
    monkeypatch.setattr(first_update, "measure_critical_lr", None)
    resumed = make_trainer(probe, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.lr_scheduler.critical_lr == whole.lr_scheduler.critical_lr
    assert probe.rates == [whole.lr_scheduler.spec.learning_rates(t)[0] for t in range(4, 8)]


def test_accumulation_and_clipping_are_the_trainings_own(make_trainer):
    """Four micro-batches of one are the batch of four; a clipped gradient has a larger critical learning rate."""
    found = {}
    for name, settings in {
        "one batch": {"per_device_train_batch_size": 4},
        "accumulated": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        "clipped": {"per_device_train_batch_size": 4, "max_grad_norm": 0.01},
    }.items():
        trainer = make_trainer(**{**SGD, **settings}, **AUTO)
        trainer.train()
        found[name] = trainer.lr_scheduler.critical_lr
    assert found["accumulated"] == pytest.approx(found["one batch"], rel=1e-4)
    assert found["clipped"] > 2 * found["one batch"]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from ({"input_ids": torch.zeros(4, dtype=torch.long), "labels": torch.zeros(4, dtype=torch.long)},) * 99


class Line(nn.Module):
    """Gives no loss: that is its Trainer's affair."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x):
        return {"logits": self.linear(x).squeeze(-1)}


class LossOfItsOwn(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        return (model(**inputs)["logits"] - labels).square().mean()


@pytest.fixture
def make_line_trainer(make_trainer):
    def make(**settings):
        like = make_trainer(remove_unused_columns=False, **settings)
        points = [{"x": torch.eye(4)[index], "labels": torch.tensor(1.0)} for index in range(4)]
        return LossOfItsOwn(model=Line(), args=like.args, train_dataset=points)

    return make


STREAMS = "the training data is a stream, so no batch can be read before the training"
NO_LABELS = "Line does not take this data by itself (Line.forward() got an unexpected keyword argument 'labels')"


def test_auto_on_data_that_streams_is_an_error(make_trainer):
    with pytest.raises(ValueError, match=rf"^initial_lr: auto: {STREAMS}; give initial_lr a number\.$"):
        make_trainer(trainer={"train_dataset": Stream()}, **SGD, **AUTO).train()


def test_auto_with_a_loss_of_the_trainers_own_is_an_error(make_line_trainer):
    message = re.escape(f"initial_lr: auto: {NO_LABELS}; give initial_lr a number.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_line_trainer(**SGD, **AUTO).train()


@pytest.mark.parametrize(("kind", "reason"), [("stream", STREAMS), ("own loss", NO_LABELS)])
def test_gi_adamw_without_first_batches_begins_at_its_first_update(
    make_trainer, make_line_trainer, caplog, kind, reason
):
    settings = {"optim": "gi_adamw", "max_steps": 1, "adam_beta2": 0.99, "max_grad_norm": 0.0}
    with caplog.at_level(logging.WARNING, logger="hfwarmup.trainer.first_update"):
        if kind == "stream":
            trainer = make_trainer(trainer={"train_dataset": Stream()}, **settings)
        else:
            trainer = make_line_trainer(**settings)
        before = [weight.detach().clone() for weight in trainer.model.parameters()]
        trainer.train()
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"GIAdamW: {reason}; the second moment starts from the gradients of the first update"]
    largest = max((w - b).abs().max().item() for w, b in zip(trainer.model.parameters(), before, strict=True))
    assert largest == pytest.approx(1e-3 * math.sqrt(1 - 0.99), rel=0.3)  # where AdamW's is 1e-3; a few are less alike


def test_frozen_weights_in_the_optimizer_stay_and_the_rest_is_measured(make_trainer, tiny_llama):
    """`AdamW(model.parameters())` holds them all, which torch allows."""
    found = []
    for holds_all in (True, False):
        model = tiny_llama()
        model.model.embed_tokens.requires_grad_(False)
        held = [p for p in model.parameters() if holds_all or p.requires_grad]
        optimizer = GIAdamW(held, lr=1e-3, betas=(0.9, 0.99))
        trainer = make_trainer(trainer={"model": model, "optimizers": (optimizer, None)}, **AUTO)
        watch_warmup(trainer, sharpness=True)
        trainer.train()
        sharpness = [entry["warmup/sharpness"] for entry in trainer.state.log_history if "warmup/sharpness" in entry]
        assert len(sharpness) == 8
        found.append([trainer.lr_scheduler.critical_lr, *sharpness])
    assert found[0] == pytest.approx(found[1], rel=1e-2)


# initial_lr: auto without a Trainer


def test_unmeasured_it_is_an_error_at_the_first_step():
    scheduler = auto()
    scheduler.optimizer.step()
    with pytest.raises(ValueError, match=UNMEASURED):
        scheduler.step()


@pytest.mark.parametrize(
    ("critical_lr", "start", "steps"),
    [(0.25, 0.25, 75), (0.999, 0.999, 0), (1.0, 1.0, 0), (float("inf"), 1.0, 0), (0.0, 1e-7, 100)],
)
def test_the_start_and_length_by_hand(critical_lr, start, steps):
    scheduler = auto()
    scheduler.start_at_critical_lr(critical_lr)
    assert scheduler.spec.warmup_steps == steps
    assert scheduler.get_last_lr() == pytest.approx([start if steps else 1.0])
    for _ in range(steps):
        scheduler.step()
    assert scheduler.get_last_lr() == [1.0]


def test_every_group_starts_at_the_same_share_of_its_peak():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.5, 1.0)]
    scheduler = hfwarmup.WarmupScheduler(
        torch.optim.SGD(groups), "gradual_warmup", num_warmup_steps=100, initial_lr="auto"
    )
    scheduler.start_at_critical_lr(0.25)
    assert scheduler.get_last_lr() == [0.125, 0.25]


def test_planning_again_keeps_the_start_where_it_was_measured():
    scheduler = auto()
    scheduler.start_at_critical_lr(0.25)
    scheduler.replan(peak_scale=0.5, num_warmup_steps=40, num_training_steps=500)
    assert scheduler.spec.warmup_steps == 20
    assert scheduler.get_last_lr() == [0.25]


def test_the_measured_start_is_in_the_state():
    scheduler = auto()
    scheduler.start_at_critical_lr(0.25)
    loaded = auto()
    loaded.load_state_dict(scheduler.state_dict())
    loaded.step()
    assert loaded.get_last_lr() == pytest.approx([0.25 + 0.75 / 75])


def test_a_checkpoint_without_a_measured_start_is_an_error():
    earlier = hfwarmup.WarmupScheduler(optimizer(), "warmup_linear", num_warmup_steps=100, num_training_steps=1000)
    with pytest.raises(
        ValueError,
        match=r"^initial_lr='auto' is measured when a run begins, but the run of the checkpoint at update 0 did "
        r"not use it; give initial_lr a number, or pass on_schedule_change=checkpoint to keep the old schedule\.$",
    ):
        auto().load_state_dict(earlier.state_dict())
    kept = auto(on_schedule_change="checkpoint")
    kept.load_state_dict(earlier.state_dict())
    kept.step()
    assert kept.get_last_lr() == pytest.approx([0.01], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("noam", {}, r"^'noam' does not read 'initial_lr' with warmup_shape='noam'"),
        ("warmup_linear", {"initial_ratio": 0.1}, r"^initial_lr=1e-07 and initial_ratio=0.1 set the same value"),
    ],
)
def test_a_schedule_without_such_a_start_is_an_error(name, options, message):
    with pytest.raises(ValueError, match=message):
        auto(name=name, **options)


# optim: gi_adamw, radam and schedule-free


class SecondMoment(TrainerCallback):
    """The optimizer's second moments before the first update, and the random state."""

    def on_train_begin(self, args, state, control, **kwargs):
        inner = first_update.unwrapped(kwargs["optimizer"])
        self.optimizer, self.random_state = inner, torch.get_rng_state()
        self.values = (
            [inner.state[p]["exp_avg_sq"].clone() for p in kwargs["model"].parameters()] if inner.state else []
        )


def test_gi_adamw_by_name_begins_at_the_gradients_of_four_batches(make_trainer, blocks):
    seen, plain = SecondMoment(), SecondMoment()
    trainer = make_trainer(seen, optim="gi_adamw", max_grad_norm=0.0, weight_decay=0.1)
    model = trainer.model
    squares = []
    for first in range(0, 8, 2):  # all eight samples, two a batch
        rows = blocks(8)[first : first + 2]
        batch = {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}
        squares.append([g**2 for g in torch.autograd.grad(model(**batch).loss, list(model.parameters()))])
    trainer.train()
    make_trainer(plain, max_grad_norm=0.0).train()
    assert isinstance(seen.optimizer, GIAdamW)
    for index, value in enumerate(seen.values):
        expected = torch.stack([square[index] for square in squares]).mean(0)
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(seen.random_state, plain.random_state, rtol=0, atol=0)


def test_the_first_update_is_small_by_the_square_root_of_beta2(make_trainer):
    changes = {}
    for optim in ("adamw_torch", "gi_adamw"):
        trainer = make_trainer(optim=optim, adam_beta2=0.999, max_steps=1, lr_scheduler_type="constant")
        before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
        trainer.train()
        changes[optim] = torch.cat(
            [(w - before[name]).flatten() for name, w in trainer.model.named_parameters()]
        ).norm()
    assert 0.01 < changes["gi_adamw"] / changes["adamw_torch"] < 0.1  # sqrt(1 - 0.999) = 0.03 where the gradients agree


def test_a_resumed_run_is_not_initialised_again(make_trainer, tmp_path):
    settings = {"output_dir": str(tmp_path), "optim": "gi_adamw", "max_steps": 8, "lr_scheduler_type": "gradual_warmup"}
    whole = make_trainer(**settings, warmup_steps=2, save_strategy="steps", save_steps=4)
    whole.train()
    resumed = make_trainer(**settings, warmup_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_the_settings_of_optim_args(make_trainer):
    seen = SecondMoment()
    make_trainer(seen, optim="gi_adamw", optim_args="init_batches=2, fused=true").train()
    assert seen.optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim": "gi_adamw", "optim_args": "init_batches=0"},
         r"^optim_args: init_batches=0: give a whole number of batches, 1 or more\.$"),
        ({"optim": "gi_adamw", "optim_args": "batches=2"},
         r"^optim_args: gi_adamw has no option 'batches'; it takes fused, init_batches\.$"),
        ({"optim": "radam", "optim_args": "r=2"}, r"^optim_args: radam has no option 'r'; it takes none\.$"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_an_error(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings).train()


def test_radam_is_torchs_with_decoupled_decay(make_trainer):
    trainer = make_trainer(optim="radam", weight_decay=0.1, adam_beta2=0.98)
    trainer.train()
    group = trainer.optimizer.param_groups[0]
    assert isinstance(first_update.unwrapped(trainer.optimizer), torch.optim.RAdam)
    assert (group["decoupled_weight_decay"], group["weight_decay"], group["betas"]) == (True, 0.1, (0.9, 0.98))


@pytest.mark.parametrize(("schedule", "own_warmup"), [("gradual_warmup", 0), ("constant", 3)])
def test_schedule_free_warms_up_once(make_trainer, probe, schedule, own_warmup):
    pytest.importorskip("schedulefree")
    trainer = make_trainer(probe, optim="schedule_free_adamw", lr_scheduler_type=schedule, warmup_steps=3)
    trainer.train()
    assert trainer.optimizer.param_groups[0]["warmup_steps"] == own_warmup
    assert probe.rates[0] == (1e-7 if schedule == "gradual_warmup" else 1e-3)


@pytest.mark.parametrize("optim", ["gi_adamw", "radam"])
def test_an_optimizer_that_warms_up_by_itself_needs_no_schedule_for_it(make_trainer, caplog, optim):
    make_trainer(optim=optim, lr_scheduler_type="gradual_warmup", warmup_steps=0).train()
    assert not [record for record in caplog.records if "has no warmup" in record.getMessage()]
