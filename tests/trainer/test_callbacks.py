"""The guard stops before the weights change, and a scheduler is described in one line."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import TrainerCallback

import hfwarmup
from hfwarmup.schedules.named import SCHEDULES
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.running import planned_warmup_steps
from hfwarmup.trainer.warmup_callback import describe

ETA = 1e-3
RUN = {"lr_scheduler_type": "gradual_warmup", "warmup_steps": 4}


# The guard


class Snapshots(TrainerCallback):
    """The weights at the beginning of each update."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.weights.append({name: value.clone() for name, value in kwargs["model"].state_dict().items()})


def scaled_loss(factor_of_update):
    """A Trainer's compute_loss_func: the sum of the logits' means, times a factor of its own at each call."""
    calls = iter(range(1000))

    def loss(outputs, labels, **_):
        return outputs.logits.mean() * factor_of_update(next(calls))

    return loss


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf")])
def test_the_guard_stops_before_a_loss_that_is_not_finite_reaches_the_weights(factor, make_trainer):
    snapshots = Snapshots()
    loss = scaled_loss(lambda call: factor if call == 3 else 1.0)
    trainer = make_trainer(NonFiniteGuard(), snapshots, trainer={"compute_loss_func": loss}, **RUN)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    assert str(caught.value) in {
        f"update 3: the loss or its gradient is not finite (gradient norm {norm}, learning rate 0.000750025); "
        "stopped before the weights changed; lower learning_rate or lengthen warmup."
        for norm in ("nan", "inf")
    }
    assert len(snapshots.weights) == 4
    before, after = snapshots.weights[3], trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after)
    assert not all(torch.equal(snapshots.weights[2][name], after[name]) for name in after)


def test_the_guard_sees_a_bad_loss_in_the_middle_of_an_accumulation(make_trainer):
    loss = scaled_loss(lambda call: float("nan") if call == 2 else 1.0)  # the first of update 1's two batches
    trainer = make_trainer(NonFiniteGuard(), trainer={"compute_loss_func": loss}, gradient_accumulation_steps=2, **RUN)
    with pytest.raises(FloatingPointError, match=r"^update 1: "):
        trainer.train()


@pytest.mark.parametrize(
    "max_grad_norm", [0.0, 1.0]
)  # clipping to 1 / inf would hide an infinite norm as zeros and NaN
def test_the_guard_sees_a_gradient_that_is_infinite_under_clipping_too(max_grad_norm, make_trainer):
    class Poison(TrainerCallback):
        """One infinite gradient element, after a finite loss."""

        def on_train_begin(self, args, state, control, **kwargs):
            weight = next(kwargs["model"].parameters())
            weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([0]), float("inf")))

    with pytest.raises(FloatingPointError, match=r"^update 0: "):
        make_trainer(NonFiniteGuard(), Poison(), max_grad_norm=max_grad_norm, **RUN).train()


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e15])
def test_the_guard_lets_finite_losses_pass(factor, make_trainer, probe):
    """1e15: gradients whose squares are near the end of float32 and still finite."""
    loss = scaled_loss(lambda _: factor)
    trainer = make_trainer(NonFiniteGuard(), probe, trainer={"compute_loss_func": loss}, **RUN)
    trainer.train()
    assert len(probe.rates) == 8


def test_the_guard_changes_no_weight(make_trainer):
    finals = []
    for callbacks in ((), (NonFiniteGuard(),)):
        trainer = make_trainer(*callbacks, **RUN)
        trainer.train()
        finals.append(trainer.model.state_dict())
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


# A checkpoint without the scheduler's state


@pytest.fixture
def weights_only(make_trainer, probe, tmp_path):
    """Trains 8 updates with checkpoints of weights alone, and makes the trainer that resumes at update 4."""

    def make(**own):
        settings = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 4, "save_only_model": True}
        settings |= {"lr_scheduler_type": "warmup_linear", "warmup_steps": 2}
        make_trainer(probe, **settings).train()
        whole, probe.rates = probe.rates, []
        resumed = make_trainer(probe, **{**settings, **own})
        return whole, resumed, str(tmp_path / "checkpoint-4")

    return make


@pytest.mark.parametrize("policy", ["error", "checkpoint"])
def test_a_resumed_run_does_not_warm_up_a_second_time_in_silence(policy, weights_only, probe):
    _, resumed, checkpoint = weights_only(lr_scheduler_kwargs={"on_schedule_change": policy})
    said = (
        "the checkpoint at update 4 was saved without the scheduler's state (save_only_model?), so resuming "
        "would repeat the warmup; start a new run from its weights, or pass on_schedule_change=config to continue at "
        "update 4."
    )
    with pytest.raises(ValueError, match=rf"\A{re.escape(said)}\Z"):
        resumed.train(resume_from_checkpoint=checkpoint)
    assert probe.rates == []


def test_a_schedule_whose_state_was_not_saved_can_go_on_where_the_run_is(weights_only, probe, caplog):
    whole, resumed, checkpoint = weights_only(lr_scheduler_kwargs={"on_schedule_change": "config"})
    resumed.train(resume_from_checkpoint=checkpoint)
    assert probe.rates == whole[4:]
    assert any("continues at update 4, at learning rate 0.000666667, and" in line for line in caplog.messages)


def test_a_plateau_whose_state_was_not_saved_cannot_go_on(weights_only, blocks):
    _, resumed, checkpoint = weights_only(
        lr_scheduler_type="warmup_plateau",
        lr_scheduler_kwargs={"on_schedule_change": "config"},
        eval_strategy="steps",
        trainer={"eval_dataset": blocks(8)},
    )
    with pytest.raises(ValueError, match=r"would repeat the warmup; start a new run from its weights\.\Z"):
        resumed.train(resume_from_checkpoint=checkpoint)


def test_a_state_that_stands_at_update_zero_is_a_state(make_trainer, probe, tmp_path):
    """As under fp16, whose scaler skips the first updates: the schedule waits for them."""
    settings = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 4}
    settings |= {"lr_scheduler_type": "warmup_linear", "warmup_steps": 2}
    make_trainer(probe, **settings).train()
    whole, probe.rates = probe.rates, []
    file = tmp_path / "checkpoint-4" / "scheduler.pt"
    torch.save({**torch.load(file, weights_only=True), "last_epoch": 0}, file)
    make_trainer(probe, **settings).train(resume_from_checkpoint=str(file.parent))
    assert probe.rates == whole[:4]


# Arguments


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("final_ratio=0.1", "'final_ratio=0.1' is not JSON (Expecting value); quote its names."),
        ([1], "[1]: give a map of settings."),
    ],
)
def test_options_that_are_no_map_are_one_line(options, said, make_trainer):
    with pytest.raises(ValueError, match=rf"\A{re.escape(f'lr_scheduler_kwargs={said}')}\Z"):
        make_trainer(lr_scheduler_type="warmup_cosine", lr_scheduler_kwargs=options)


@pytest.mark.parametrize(
    ("name", "warmup_steps"),
    [("gradual_warmup", 4), ("linear", 4), ("constant_with_warmup", 4), ("constant", 0), ("reduce_lr_on_plateau", 0)],
)
def test_the_warmup_that_is_run_is_the_one_that_is_reported(name, warmup_steps, make_trainer, blocks):
    """transformers' constant and plateau drop warmup_steps."""
    trainer = make_trainer(
        lr_scheduler_type=name, warmup_steps=4, eval_strategy="epoch", trainer={"eval_dataset": blocks(2)}
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=8)
    assert planned_warmup_steps(trainer.args, trainer.state, {"lr_scheduler": trainer.lr_scheduler}) == warmup_steps


# One line


def scheduler_of(name, *, total, groups=1):
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    optimizer = torch.optim.AdamW(parameters, lr=ETA, betas=(0.9, 0.75))
    warmup_steps = None if name in {"untuned_linear", "untuned_exponential", "radam_warmup", "gi_warmup"} else 4
    return hfwarmup.WarmupScheduler(optimizer, name, num_warmup_steps=warmup_steps, num_training_steps=total)


@pytest.mark.parametrize(
    ("name", "total", "groups", "line"),
    [
        ("warmup_linear", 8, 1, "learning rate 1e-07 at update 0, 0.001 at update 4, 0.00025 at update 7"),
        ("gradual_warmup", None, 3, "learning rate 1e-07 at update 0, 0.001 at update 4 (3 parameter groups)"),
    ],
)
def test_a_scheduler_in_one_line(name, total, groups, line):
    assert describe(scheduler_of(name, total=total, groups=groups)) == f"schedule {name}: {line}"


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_said_of_an_update_is_what_it_runs_at(name):
    scheduler = scheduler_of(name, total=20)
    said = re.findall(r"(\S+) at update (\d+)", describe(scheduler))
    assert len(said) == 3
    assert [rate for rate, _ in said] == [f"{scheduler.spec.learning_rates(int(update))[0]:g}" for _, update in said]
