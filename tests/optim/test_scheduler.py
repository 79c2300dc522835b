"""The torch scheduler: parity, groups, what comes after a warmup, resuming, weight decay, accelerate."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import json
import logging
import math
import os
import pickle
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

import hfwarmup
from hfwarmup import WarmupScheduler, get_schedule
from hfwarmup.optim.groups import stretch_warmup
from hfwarmup.optim.weight_decay import decay_coefficient
from hfwarmup.schedules.named import SCHEDULES

ROOT = Path(__file__).parents[2]


def optimizer_of(*lrs, kind=torch.optim.SGD, **settings):
    """An optimizer with one parameter a learning rate, each in a group of its own, ready to be stepped."""
    parameters = [torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in lrs]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    groups = [{"params": [parameter], "lr": lr} for parameter, lr in zip(parameters, lrs, strict=True)]
    return kind(groups, **settings)


def rates(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def update(optimizer, scheduler):
    """One update of a training loop; the learning rates it ran at."""
    applied = rates(optimizer)
    optimizer.step()
    scheduler.step()
    return applied


def run(optimizer, scheduler, updates):
    return [update(optimizer, scheduler) for _ in range(updates)]


def saved(optimizer, scheduler):
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    return file.getvalue()


def load(data, optimizer, scheduler):
    """The optimizer first, as Trainer does, and nothing but plain types."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])


def assert_resumes_anywhere(make, updates):
    """What `make()` builds, stopped after any update and loaded into a fresh pair or one ahead, goes on the same."""
    optimizer, scheduler = make()
    checkpoints, whole = [], []
    for _ in range(updates):
        checkpoints.append(saved(optimizer, scheduler))
        whole.append(update(optimizer, scheduler))
    for done, checkpoint in enumerate(checkpoints):
        fresh_optimizer, fresh_scheduler = make()
        load(checkpoint, fresh_optimizer, fresh_scheduler)
        assert fresh_scheduler.get_last_lr() == rates(fresh_optimizer)
        assert run(fresh_optimizer, fresh_scheduler, updates - done) == whole[done:], f"stopped after update {done}"
        load(checkpoint, fresh_optimizer, fresh_scheduler)  # back from the end
        assert run(fresh_optimizer, fresh_scheduler, updates - done) == whole[done:], f"rolled back to update {done}"


# Parity with transformers

TRANSFORMERS_OWN = {
    "warmup_linear": (transformers.get_linear_schedule_with_warmup, {"initial_lr": 0.0}),
    "warmup_cosine": (transformers.get_cosine_schedule_with_warmup, {"initial_lr": 0.0, "final_lr": 0.0}),
}
LENGTHS = [(7, 50), (0, 20), (1, 3), (49, 50), (300, 1000)]


@pytest.mark.parametrize(("warmup_steps", "total_steps"), LENGTHS)
@pytest.mark.parametrize("name", TRANSFORMERS_OWN)
def test_equals_transformers_to_the_last_bit(name, warmup_steps, total_steps):
    theirs, options = TRANSFORMERS_OWN[name]
    lrs = (3e-4, 1e-3, 0.7)
    their_optimizer, our_optimizer = optimizer_of(*lrs), optimizer_of(*lrs)
    their_run = run(their_optimizer, theirs(their_optimizer, warmup_steps, total_steps), total_steps + 1)
    scheduler = WarmupScheduler(
        our_optimizer, name, num_warmup_steps=warmup_steps, num_training_steps=total_steps, **options
    )
    assert run(our_optimizer, scheduler, total_steps + 1) == their_run


@pytest.mark.parametrize("name", TRANSFORMERS_OWN)
def test_equals_transformers_when_saved_and_loaded_at_every_step(name):
    theirs, options = TRANSFORMERS_OWN[name]

    def make():
        optimizer = optimizer_of(3e-4, 1e-3, kind=torch.optim.AdamW)
        return optimizer, WarmupScheduler(optimizer, name, num_warmup_steps=7, num_training_steps=30, **options)

    their_optimizer = optimizer_of(3e-4, 1e-3, kind=torch.optim.AdamW)
    their_run = run(their_optimizer, theirs(their_optimizer, 7, 30), 30)
    assert run(*make(), 30) == their_run
    assert_resumes_anywhere(make, 30)


# Every schedule on an optimizer


def scheduler_of(optimizer, name, *, warmup_steps=6, total_steps=30, **options):
    if name in ("untuned_linear", "untuned_exponential", "radam_warmup", "gi_warmup"):
        warmup_steps, options = None, {"beta2": 0.8, **options}  # 10 updates
    return WarmupScheduler(optimizer, name, num_warmup_steps=warmup_steps, num_training_steps=total_steps, **options)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_group_runs_at_the_schedule_of_its_own_peak(name):
    lrs = [1e-3, 0.5, 1e-3, 0.0]
    optimizer = optimizer_of(*lrs)
    scheduler = scheduler_of(optimizer, name)
    beta2 = {"beta2": 0.8} if scheduler.spec.given_warmup_steps is None else {}
    lengths = {"num_warmup_steps": scheduler.spec.given_warmup_steps, "num_training_steps": 30}
    planned = [get_schedule(name, peak_lr=lr, **lengths, **beta2) for lr in lrs]
    applied = run(optimizer, scheduler, 35)
    assert applied == [[schedule(step) for schedule in planned] for step in range(35)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_resumes_anywhere(name):
    def make():
        optimizer = optimizer_of(1e-3, 0.5)
        return optimizer, scheduler_of(optimizer, name)

    assert_resumes_anywhere(make, 34)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_state_is_plain_data(name):
    optimizer = optimizer_of(1e-3, 0.5)
    scheduler = scheduler_of(optimizer, name)
    run(optimizer, scheduler, 8)
    state = scheduler.state_dict()
    assert json.loads(json.dumps(state, allow_nan=True)) == state


def test_what_torch_knows_of_a_scheduler():
    optimizer = optimizer_of(1.0, 0.5)
    scheduler = scheduler_of(optimizer, "warmup_plateau")
    assert isinstance(scheduler, LRScheduler)
    assert not isinstance(scheduler, ReduceLROnPlateau)  # Trainer steps those only at evaluations
    assert scheduler.base_lrs == [1.0, 0.5]
    assert scheduler.last_epoch == 0
    run(optimizer, scheduler, 3)
    assert scheduler.last_epoch == 3
    assert scheduler.get_last_lr() == scheduler.get_lr() == rates(optimizer)


def test_a_tensor_learning_rate_stays_the_same_tensor():
    """Compiled and captured optimizers read the learning rate from its storage."""
    optimizer = optimizer_of(torch.tensor(0.5), torch.tensor(0.25))
    tensors = [group["lr"] for group in optimizer.param_groups]
    scheduler = scheduler_of(optimizer, "warmup_linear", initial_lr=0.0)
    assert run(optimizer, scheduler, 8)[3] == [0.25, 0.125]  # half of each peak
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, tensors, strict=True))
    assert rates(optimizer) == pytest.approx([0.5 * 22 / 24, 0.25 * 22 / 24])


def test_tensor_learning_rates_resume_anywhere():
    def make():
        optimizer = optimizer_of(torch.tensor(0.5, dtype=torch.float64), 0.25)
        return optimizer, scheduler_of(optimizer, "warmup_cosine")

    assert_resumes_anywhere(make, 12)


def stretched(optimizer):
    """The first group warms up over 6 updates, the second over 3."""
    optimizer.param_groups[1]["warmup_stretch"] = 0.5
    return scheduler_of(optimizer, "warmup_linear", initial_lr=0.0)


def test_groups_with_warmups_of_their_own_lengths():
    optimizer = optimizer_of(1.0, 1.0)
    lengths = [{"num_warmup_steps": warmup_steps, "num_training_steps": 30} for warmup_steps in (6, 3)]
    planned = [get_schedule("warmup_linear", peak_lr=1.0, initial_lr=0.0, **length) for length in lengths]
    assert run(optimizer, stretched(optimizer), 32) == [[schedule(step) for schedule in planned] for step in range(32)]


def test_groups_with_warmups_of_their_own_lengths_resume_anywhere():
    def make():
        optimizer = optimizer_of(1.0, 0.5)
        return optimizer, stretched(optimizer)

    assert_resumes_anywhere(make, 12)


def test_a_tensor_learning_rate_is_not_shared_by_groups_that_were_split():
    """Filled in place, one tensor for two groups would give both the rate of the last."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(1.0))
    stretch_warmup(optimizer, model, {"^1": 0.5})
    scheduler = scheduler_of(optimizer, "gradual_warmup", initial_lr=0.0)
    assert run(optimizer, scheduler, 4)[3] == [0.5, 1.0]


def test_a_walk_is_laid_anew_with_other_lengths_and_peaks():
    """After three updates the run turns out to have half the steps and half the batch."""
    optimizer = optimizer_of(1.0, 0.1)
    scheduler = scheduler_of(optimizer, "warmup_linear", initial_lr=0.0)
    run(optimizer, scheduler, 3)
    scheduler.replan(peak_scale=0.5, num_warmup_steps=4, num_training_steps=12)
    planned = [
        get_schedule("warmup_linear", peak_lr=peak, num_warmup_steps=4, num_training_steps=12, initial_lr=0.0)
        for peak in (0.5, 0.05)
    ]
    assert run(optimizer, scheduler, 10) == [[schedule(step) for schedule in planned] for step in range(3, 13)]
    assert scheduler.base_lrs == [0.5, 0.05]


def test_a_schedule_that_cannot_be_laid_anew_stays_what_it_was():
    optimizer = optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, "warmup_linear", initial_lr=0.0)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=r"^num_warmup_steps=9 > num_training_steps=5: "):
        scheduler.replan(peak_scale=1.0, num_warmup_steps=9, num_training_steps=5)
    assert scheduler.state_dict() == before


def test_further_calls_between_two_updates_change_nothing():
    """accelerate calls a prepared scheduler once per process."""
    optimizer, once = optimizer_of(1.0), optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, "warmup_cosine")
    applied = []
    for _ in range(34):
        applied.append(rates(optimizer))
        optimizer.step()
        for _ in range(4):
            scheduler.step()
    assert applied == run(once, scheduler_of(once, "warmup_cosine"), 34)


def test_a_walk_without_updates_counts_every_call():
    optimizer = optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, "warmup_linear", initial_lr=0.0)
    walked = []
    for _ in range(31):
        walked += scheduler.get_last_lr()
        scheduler.step()
    schedule = get_schedule("warmup_linear", peak_lr=1.0, num_warmup_steps=6, num_training_steps=30, initial_lr=0.0)
    assert walked == [schedule(step) for step in range(31)]


def test_calls_before_the_next_update_of_a_resumed_run_change_nothing_in_one_process():
    optimizer = optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, "warmup_linear")
    run(optimizer, scheduler, 4)
    checkpoint = saved(optimizer, scheduler)
    run(optimizer, scheduler, 3)
    load(checkpoint, optimizer, scheduler)  # back to update 4 in the same process
    scheduler.step()
    assert scheduler.last_epoch == 4
    update(optimizer, scheduler)
    assert scheduler.last_epoch == 5


def test_calls_before_the_first_update_are_said(caplog):
    optimizer = optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, "warmup_linear")
    for _ in range(3):
        scheduler.step()
    with caplog.at_level(logging.WARNING):
        run(optimizer, scheduler, 3)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        "scheduler.step() was called 3 times before the first optimizer update, so update 0 ran at the learning rate "
        "of update 3, and so on; fine if you meant to skip ahead, otherwise call scheduler.step() after "
        "optimizer.step()."
    )


@pytest.mark.parametrize("weight_decay", ["coupled", "independent", "constant"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("name", ["warmup_cosine", "warmup_plateau", "noam"])
def test_a_copy_in_mid_run_goes_on_the_same(name, copied, weight_decay):
    settings = {"weight_decay": weight_decay, **({"d_model": 64} if name == "noam" else {})}
    optimizer = optimizer_of(1.0, kind=torch.optim.AdamW, weight_decay=0.1)
    scheduler = scheduler_of(optimizer, name, **settings)
    run(optimizer, scheduler, 9)
    other_optimizer, other = copied((optimizer, scheduler))
    for parameter in other_optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    assert other.optimizer is other_optimizer
    assert run(other_optimizer, other, 12) == run(optimizer, scheduler, 12)
    assert [p.item() for g in other_optimizer.param_groups for p in g["params"]] == [
        p.item() for g in optimizer.param_groups for p in g["params"]
    ]


def test_no_warning_of_torch_about_the_order_of_steps():
    """filterwarnings is error here: this passes because nothing warns."""
    optimizer = optimizer_of(1.0)
    scheduler = hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=2)
    run(optimizer, scheduler, 6)


@pytest.mark.parametrize("name", ["warmup_linear", "warmup_plateau"])
def test_an_added_parameter_group_is_one_line(name):
    optimizer = optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, name)
    run(optimizer, scheduler, 8)  # past the peak
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5})
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        update(optimizer, scheduler)
    assert (
        str(error.value)
        == "the optimizer has 2 parameter groups, but had 1 when the scheduler was made; add groups before making it."
    )


@pytest.mark.parametrize("name", ["warmup_linear", "warmup_plateau"])
def test_a_replaced_scheduler_is_not_kept_alive(name):
    optimizer = optimizer_of(1.0)
    old = scheduler_of(optimizer, name)
    update(optimizer, old)
    reference = weakref.ref(old)
    del old
    scheduler_of(optimizer, name)
    gc.collect()
    assert reference() is None
    optimizer.step()  # and what it left behind still runs


# In front of another scheduler

AFTER = {
    "StepLR": lambda optimizer: StepLR(optimizer, 3, gamma=0.5),
    "MultiStepLR": lambda optimizer: MultiStepLR(optimizer, [2, 5], gamma=0.1),
    "CosineAnnealingLR": lambda optimizer: CosineAnnealingLR(optimizer, 12),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, max_lr=2.0, total_steps=30),
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.8 / (1 + epoch)),
    "CosineAnnealingWarmRestarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 4),
    "SequentialLR": lambda optimizer: SequentialLR(
        optimizer, [ConstantLR(optimizer, 0.5, 4), StepLR(optimizer, 3, gamma=0.5)], [4]
    ),
    "ChainedScheduler": lambda optimizer: ChainedScheduler(
        [StepLR(optimizer, 3, gamma=0.5), MultiStepLR(optimizer, [2], gamma=0.5)], optimizer
    ),
}


@pytest.mark.parametrize(
    "shape", ["gradual", "linear", "exponential", "cosine", "polynomial", "saturating", "constant"]
)
@pytest.mark.parametrize("after", AFTER)
def test_a_warmup_leads_to_the_first_rate_of_what_follows(after, shape):
    """Update t < T_w is the ramp, update T_w + n is the other scheduler's own n."""
    alone, optimizer = optimizer_of(1.0, 0.5, momentum=0.9), optimizer_of(1.0, 0.5, momentum=0.9)
    expected = run(alone, AFTER[after](alone), 15)
    scheduler = hfwarmup.warmup(AFTER[after](optimizer), num_warmup_steps=5, shape=shape)
    applied = run(optimizer, scheduler, 20)
    lengths = {"num_warmup_steps": 5, "num_training_steps": None}
    ramps = [get_schedule("hfwarmup", peak_lr=peak, warmup_shape=shape, **lengths) for peak in expected[0]]
    assert applied[:5] == [[ramp(step) for ramp in ramps] for step in range(5)]
    assert applied[5:] == expected


@pytest.mark.parametrize("after", AFTER)
def test_what_follows_resumes_anywhere(after):
    def make():
        optimizer = optimizer_of(1.0, 0.5, momentum=0.9)
        return optimizer, hfwarmup.warmup(AFTER[after](optimizer), num_warmup_steps=5)

    assert_resumes_anywhere(make, 16)


def test_without_a_warmup_what_follows_begins_at_once():
    alone, optimizer = optimizer_of(1.0), optimizer_of(1.0)
    scheduler = hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=0)
    assert run(optimizer, scheduler, 8) == run(alone, StepLR(alone, 2), 8)


AFTER_ERRORS = [
    (
        lambda optimizer: hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=2, shape="noam"),
        "shape='noam' does not reach the peak at an update of your choice; use for example 'gradual'.",
    ),
    (
        lambda optimizer: hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=2, shape="radam"),
        "shape='radam' does not reach the peak at an update of your choice; use for example 'gradual'.",
    ),
    (
        lambda optimizer: hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=2, shape="exponentiel"),
        "shape='exponentiel'; did you mean 'exponential'? "
        "Choose one of linear, gradual, exponential, cosine, polynomial, saturating, constant, noam, untuned_linear, "
        "untuned_exponential, radam, gi.",
    ),
    (
        lambda optimizer: hfwarmup.warmup(optimizer, num_warmup_steps=2),
        "after is of type SGD; give a torch scheduler, for example StepLR(…).",
    ),
    (
        lambda optimizer: hfwarmup.warmup(scheduler_of(optimizer, "warmup_linear"), num_warmup_steps=2),
        "after is a WarmupScheduler, which has its own warmup; choose its decay instead.",
    ),
    (
        lambda optimizer: hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=2, tau=1.0),
        "'hfwarmup' does not read 'tau' with warmup_shape='gradual' and decay='constant'. "
        "It takes decay, initial_lr, initial_ratio, warmup_shape, weight_decay.",
    ),
    (
        lambda optimizer: hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=-2),
        "num_warmup_steps=-2: give a whole number of updates, 0 or more.",
    ),
]


@pytest.mark.parametrize(("make", "message"), AFTER_ERRORS)
def test_a_warmup_that_cannot_be(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        make(optimizer_of(1.0))
    assert str(error.value) == message


def test_what_follows_must_not_have_been_stepped():
    optimizer = optimizer_of(1.0)
    after = StepLR(optimizer, 2)
    run(optimizer, after, 3)
    with pytest.raises(ValueError, match=r"^after has made 3 steps; wrap it before it is stepped\.$"):
        hfwarmup.warmup(after, num_warmup_steps=2)


def test_a_decay_beside_what_follows_is_not_ignored_in_silence():
    with pytest.raises(ValueError, match="decay"):
        hfwarmup.warmup(StepLR(optimizer_of(1.0), 2), num_warmup_steps=2, decay="linear", num_training_steps=9)


@pytest.mark.parametrize("after", [None, "StepLR", "LambdaLR"])
def test_parity_with_gradual_warmup_scheduler(after):
    """The same ramp from 0; its next scheduler then begins one update later, holding the peak for two updates."""
    warmup_scheduler = pytest.importorskip("warmup_scheduler")
    lrs, warmup_steps, updates = (1.0, 0.3), 6, 20
    their_optimizer, our_optimizer = optimizer_of(*lrs), optimizer_of(*lrs)
    followed = None if after is None else AFTER[after]
    if after == "LambdaLR":
        followed = lambda optimizer: LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))  # noqa: E731  begins at 1
    with warnings.catch_warnings():  # it asks its next scheduler for a rate outside of a step
        warnings.filterwarnings("ignore", message="To get the last learning rate computed by the scheduler")
        theirs = warmup_scheduler.GradualWarmupScheduler(
            their_optimizer, 1.0, warmup_steps, followed and followed(their_optimizer)
        )
        their_run = run(their_optimizer, theirs, updates)
    if followed is None:
        ours = scheduler_of(our_optimizer, "gradual_warmup", warmup_steps=warmup_steps, initial_lr=0.0)
    else:
        ours = hfwarmup.warmup(followed(our_optimizer), num_warmup_steps=warmup_steps, initial_lr=0.0)
    our_run = run(our_optimizer, ours, updates)
    assert our_run[: warmup_steps + 1] == their_run[: warmup_steps + 1]
    assert our_run[warmup_steps : updates - 1] == their_run[warmup_steps + 1 :]


# Plateau

STALLED = [1.0] * 20
MOVING = [5.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def plateau_run(optimizer, scheduler, updates, metrics, *, every, begin=0):
    """`updates` updates with an evaluation after every `every` of them; the rates the updates ran at."""
    applied = []
    for done in range(begin + 1, begin + updates + 1):
        applied += update(optimizer, scheduler)
        if done % every == 0:
            scheduler.observe_metric(metrics[done // every - 1])
    return applied


def bare_plateau_run(warmup_steps, updates, metrics, *, every, **settings):
    """torch's own ReduceLROnPlateau, which is shown the evaluations from T_w on and nothing before."""
    ramp = get_schedule("gradual_warmup", peak_lr=1.0, num_warmup_steps=warmup_steps, num_training_steps=None)
    optimizer = optimizer_of(1.0)
    plateau = ReduceLROnPlateau(optimizer, **settings)
    applied = []
    for done in range(updates):
        if done % every == 0 and done >= max(warmup_steps, 1):
            plateau.step(metrics[done // every - 1])
        applied.append(ramp(done) if done < warmup_steps else rates(optimizer)[0])
    return applied


def plateau_by_name(optimizer, warmup_steps, **settings):
    return WarmupScheduler(optimizer, "warmup_plateau", num_warmup_steps=warmup_steps, **settings)


def plateau_by_wrapping(optimizer, warmup_steps, **settings):
    return hfwarmup.warmup(ReduceLROnPlateau(optimizer, **settings), num_warmup_steps=warmup_steps)


@pytest.mark.parametrize("make", [plateau_by_name, plateau_by_wrapping])
@pytest.mark.parametrize("warmup_steps", [0, 5, 6, 7, 12])  # 6 and 12: an evaluation exactly at T_w
@pytest.mark.parametrize("metrics", [STALLED, MOVING], ids=["stalled", "moving"])
def test_patience_counts_from_the_peak(make, warmup_steps, metrics):
    settings = {"factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": 0.1, "threshold": 0.01}
    optimizer = optimizer_of(1.0)
    applied = plateau_run(optimizer, make(optimizer, warmup_steps, **settings), 55, metrics, every=3)
    assert applied == bare_plateau_run(warmup_steps, 55, metrics, every=3, **settings)


def test_patience_in_words():
    """T_w = 4, patience 1, one evaluation an update: the first that counts is at update 4 and is the best so far."""
    optimizer = optimizer_of(1.0)
    scheduler = plateau_by_name(optimizer, 4, factor=0.1, patience=1, initial_lr=0.0)
    assert plateau_run(optimizer, scheduler, 9, STALLED, every=1) == [
        0.0,
        0.25,
        0.5,
        0.75,  # stalled all along, and not listened to
        1.0,  # T_w: the evaluation before this update sets the best
        1.0,  # one bad evaluation is forgiven
        0.1,  # the second is not
        0.1,
        0.1 * 0.1,
    ]


@pytest.mark.parametrize("make", [plateau_by_name, plateau_by_wrapping])
def test_a_plateau_resumes_before_and_after_every_evaluation(make):
    settings = {"factor": 0.5, "patience": 1, "cooldown": 1}
    optimizer = optimizer_of(1.0)
    whole = plateau_run(optimizer, make(optimizer, 6, **settings), 30, MOVING, every=2)
    assert set(whole[6:]) == {1.0, 0.5, 0.25}  # it was reduced twice

    for stopped in range(30):
        optimizer = optimizer_of(1.0)
        scheduler = make(optimizer, 6, **settings)
        begun = plateau_run(optimizer, scheduler, stopped, MOVING, every=2)
        checkpoint = saved(optimizer, scheduler)
        optimizer = optimizer_of(1.0)
        scheduler = make(optimizer, 6, **settings)
        load(checkpoint, optimizer, scheduler)
        assert begun + plateau_run(optimizer, scheduler, 30 - stopped, MOVING, every=2, begin=stopped) == whole


def test_a_checkpoint_before_the_evaluation_at_the_peak_still_counts_it():
    """T_w = 2 with an evaluation there: Trainer may save before it evaluates."""
    first, second = optimizer_of(1.0), optimizer_of(1.0)
    scheduler, fresh = (plateau_by_name(optimizer, 2, factor=0.1, patience=0) for optimizer in (first, second))
    run(first, scheduler, 2)
    load(saved(first, scheduler), second, fresh)
    fresh.observe_metric(1.0)  # the best
    fresh.observe_metric(1.0)  # bad, patience 0
    assert rates(second) == [0.1]


def test_mode_max_wants_the_metric_to_rise():
    optimizer = optimizer_of(1.0)
    scheduler = plateau_by_name(optimizer, 0, mode="max", patience=0, factor=0.5, metric="eval_accuracy")
    for accuracy, lr in [(0.5, 1.0), (0.6, 1.0), (0.6, 0.5), (0.5, 0.25), (0.9, 0.25)]:
        scheduler.observe_metric(accuracy)
        assert rates(optimizer) == scheduler.get_last_lr() == [lr]


def test_only_a_plateau_listens_to_a_metric():
    scheduler = scheduler_of(optimizer_of(1.0), "warmup_linear")
    with pytest.raises(ValueError, match=r"^schedule 'warmup_linear' does not read a metric; use 'warmup_plateau'\.$"):
        scheduler.observe_metric(1.0)


def test_min_lr_above_the_peak_is_an_error():
    with pytest.raises(ValueError, match=r"^min_lr=2\.0 is above the peak learning rate 1\.0; lower it\.$"):
        plateau_by_name(optimizer_of(1.0), 2, min_lr=2.0)


def test_a_frozen_group_does_not_forbid_a_min_lr():
    optimizer = optimizer_of(1.0, 0.0)
    plateau_by_name(optimizer, 0, min_lr=0.01)
    assert rates(optimizer) == [1.0, 0.0]


# Resuming under another schedule


def stopped_at(updates, name="warmup_linear", lr=1.0, **settings):
    optimizer = optimizer_of(lr)
    scheduler = scheduler_of(optimizer, name, **settings)
    run(optimizer, scheduler, updates)
    return saved(optimizer, scheduler)


def resumed(checkpoint, policy, name="warmup_linear", lr=1.0, **settings):
    optimizer = optimizer_of(lr)
    scheduler = scheduler_of(optimizer, name, on_schedule_change=policy, **settings)
    load(checkpoint, optimizer, scheduler)
    return optimizer, scheduler


EITHER = "pass on_schedule_change=config to follow the new schedule from here on, or checkpoint to keep the old one."
LONGER = (
    "to train longer pass on_schedule_change=config (the decay takes the new length, so the learning rate jumps) "
    "or checkpoint (the old decay ends where it would have, and its last learning rate stays)."
)
CHANGES = [
    # (what the resumed run has instead of warmup_linear, peak 1, T_w = 6, T = 30; the message)
    ({"warmup_steps": 8}, f"warmup_steps 6 -> 8; {EITHER}"),
    ({"lr": 0.5}, f"learning_rate 1.0 -> 0.5; {EITHER}"),
    ({"total_steps": 60}, f"max_steps 30 -> 60; {LONGER}"),
    ({"total_steps": 60, "warmup_steps": 8}, f"warmup_steps 6 -> 8, max_steps 30 -> 60; {EITHER}"),
    ({"final_ratio": 0.1}, f"final_ratio None -> 0.1; {EITHER}"),
    ({"name": "warmup_cosine"}, f"decay linear -> cosine, final_ratio None -> 0.1; {EITHER}"),
    ({"weight_decay": "independent"}, f"weight_decay coupled -> independent; {EITHER}"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_error_stops_and_shows_both_values(change, message):
    checkpoint = stopped_at(10)
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        resumed(checkpoint, "error", **change)
    assert str(error.value) == f"schedule changed since the checkpoint at update 10: {message}"


def test_error_is_the_default():
    with pytest.raises(ValueError, match=r"^schedule changed since the checkpoint"):
        load(
            stopped_at(10),
            optimizer := optimizer_of(1.0),
            scheduler_of(optimizer, "warmup_linear", total_steps=60),
        )


@pytest.mark.parametrize(("change", "_message"), CHANGES)
def test_config_follows_the_new_schedule_from_there_on(change, _message):
    new_optimizer = optimizer_of(change.get("lr", 1.0))
    settings = {"name": "warmup_linear", **{key: value for key, value in change.items() if key != "lr"}}
    new_run = run(new_optimizer, scheduler_of(new_optimizer, **settings), 40)
    for done in (0, 4, 6, 10, 29):
        assert run(*resumed(stopped_at(done), "config", **change), 40 - done) == new_run[done:]


@pytest.mark.parametrize(("change", "_message"), CHANGES)
def test_checkpoint_goes_on_with_the_old_schedule(change, _message):
    old_optimizer = optimizer_of(1.0)
    old_run = run(old_optimizer, scheduler_of(old_optimizer, "warmup_linear"), 40)
    for done in (0, 4, 6, 10, 29):
        assert run(*resumed(stopped_at(done), "checkpoint", **change), 40 - done) == old_run[done:]


PLATEAU = {"name": "warmup_plateau", "patience": 0, "factor": 0.5}


@pytest.mark.parametrize("done", [3, 10])
def test_a_plateau_comes_and_goes_under_config(done):
    """What is followed from the checkpoint on is the new schedule, with nothing seen yet."""
    optimizer, scheduler = resumed(stopped_at(done), "config", **PLATEAU)
    run(optimizer, scheduler, 10)
    for metric in (1.0, 1.0):
        scheduler.observe_metric(metric)
    assert rates(optimizer) == [0.5]
    cosine_optimizer = optimizer_of(1.0)
    cosine = run(cosine_optimizer, scheduler_of(cosine_optimizer, "warmup_cosine"), 30)
    checkpoint = stopped_at(done, **PLATEAU)
    assert run(*resumed(checkpoint, "config", "warmup_cosine"), 30 - done) == cosine[done:]


@pytest.mark.parametrize("done", [3, 10])
def test_a_plateau_comes_and_goes_under_checkpoint(done):
    """The old schedule goes on: a linear decay without any plateau, or a plateau with what it had reduced."""
    linear_optimizer = optimizer_of(1.0)
    linear = run(linear_optimizer, scheduler_of(linear_optimizer, "warmup_linear"), 30)
    assert run(*resumed(stopped_at(done), "checkpoint", **PLATEAU), 30 - done) == linear[done:]
    optimizer = optimizer_of(1.0)
    scheduler = scheduler_of(optimizer, **PLATEAU)
    run(optimizer, scheduler, done)
    for metric in (1.0, 1.0):  # before the peak it does not listen
        scheduler.observe_metric(metric)
    checkpoint, whole = saved(optimizer, scheduler), run(optimizer, scheduler, 12)
    assert whole[-1] == [1.0 if done == 3 else 0.5]
    kept_optimizer, kept = resumed(checkpoint, "checkpoint", "warmup_cosine")
    assert run(kept_optimizer, kept, 12) == whole
    kept.observe_metric(0.5)
    kept.observe_metric(0.5)
    assert rates(kept_optimizer) == [whole[-1][0] / 2]


@pytest.mark.parametrize("wraps", [True, False])
def test_what_follows_on_one_side_only_is_an_error(wraps):
    def make(wrapped):
        optimizer = optimizer_of(1.0)
        if wrapped:
            return optimizer, hfwarmup.warmup(StepLR(optimizer, 2), num_warmup_steps=2)
        return optimizer, WarmupScheduler(optimizer, num_warmup_steps=2)

    checkpoint = saved(*make(not wraps))
    which = "this schedule" if wraps else "the checkpoint's schedule"
    with pytest.raises(ValueError, match=f"^only {which} has a scheduler after its warmup; build the checkpoint"):
        load(checkpoint, *make(wraps))


def test_what_was_kept_is_kept_when_resumed_again():
    optimizer, scheduler = resumed(stopped_at(10), "checkpoint", total_steps=60)
    run(optimizer, scheduler, 5)
    again = resumed(saved(optimizer, scheduler), "error")  # the old schedule is what it was
    assert rates(again[0]) == [15 / 24]


def test_config_warns_of_the_jump(caplog):
    with caplog.at_level(logging.WARNING):
        resumed(stopped_at(18), "config", total_steps=54)
    assert [record.getMessage() for record in caplog.records] == [
        "on_schedule_change=config: max_steps 30 -> 54; update 18 runs at 0.75 instead of 0.5"
    ]


def test_checkpoint_warns_of_what_it_does_without(caplog):
    with caplog.at_level(logging.WARNING):
        resumed(stopped_at(18), "checkpoint", total_steps=54)
    assert [record.getMessage() for record in caplog.records] == [
        "on_schedule_change=checkpoint: keeping the checkpoint's schedule, without the change max_steps 30 -> 54"
    ]


@pytest.mark.parametrize("policy", ["error", "config", "checkpoint"])
@pytest.mark.parametrize("name", ["gradual_warmup", "noam", "warmup_plateau", "constant_warmup"])
def test_a_decay_without_an_end_is_extended_in_silence(policy, name, caplog):
    long_optimizer = optimizer_of(1.0)
    long_run = run(long_optimizer, scheduler_of(long_optimizer, name, total_steps=60), 50)
    with caplog.at_level(logging.WARNING):
        assert run(*resumed(stopped_at(10, name), policy, name, total_steps=60), 40) == long_run[10:]
    assert caplog.records == []


def test_config_changes_what_a_plateau_does():
    """The warning says patience 10 -> 0, factor 0.1 -> 0.5: so it must be."""
    checkpoint = stopped_at(10, "warmup_plateau")
    optimizer, scheduler = resumed(checkpoint, "config", "warmup_plateau", patience=0, factor=0.5)
    scheduler.observe_metric(1.0)
    scheduler.observe_metric(1.0)
    assert rates(optimizer) == [0.5]


def test_checkpoint_keeps_what_a_plateau_does():
    optimizer, scheduler = resumed(stopped_at(10, "warmup_plateau"), "checkpoint", "warmup_plateau", patience=0)
    for _ in range(5):
        scheduler.observe_metric(1.0)
    assert rates(optimizer) == [1.0]


@pytest.mark.parametrize("after", [None, "StepLR"])
def test_config_with_a_warmup_that_is_over_by_now_reaches_the_peak(after):
    """Stopped at update 12 of a warmup of 20, resumed with one of 10: update 12 is past it, at the peak."""

    def make(warmup_steps):
        optimizer = optimizer_of(1.0)
        policy = {"on_schedule_change": "config"}
        if after is None:
            return optimizer, plateau_by_name(optimizer, warmup_steps, **policy)
        return optimizer, hfwarmup.warmup(StepLR(optimizer, 50), num_warmup_steps=warmup_steps, **policy)

    optimizer, scheduler = make(20)
    run(optimizer, scheduler, 12)
    fresh_optimizer, fresh_scheduler = make(10)
    load(saved(optimizer, scheduler), fresh_optimizer, fresh_scheduler)
    assert run(fresh_optimizer, fresh_scheduler, 3) == [[1.0]] * 3


@pytest.mark.parametrize("after", ["StepLR", "LambdaLR", "CosineAnnealingLR", "SequentialLR", "ChainedScheduler"])
def test_config_with_a_new_peak_moves_what_follows(after):
    """Peak 1 -> 2 after the warmup: everything from here on is twice what it was."""

    def make(lr):
        optimizer = optimizer_of(lr)
        return optimizer, hfwarmup.warmup(AFTER[after](optimizer), num_warmup_steps=3, on_schedule_change="config")

    optimizer, scheduler = make(1.0)
    run(optimizer, scheduler, 6)
    checkpoint = saved(optimizer, scheduler)
    old_run = run(optimizer, scheduler, 6)
    fresh_optimizer, fresh_scheduler = make(2.0)
    load(checkpoint, fresh_optimizer, fresh_scheduler)
    new_run = run(fresh_optimizer, fresh_scheduler, 6)
    assert [lr for (lr,) in new_run] == pytest.approx([2 * lr for (lr,) in old_run], rel=1e-12)


def test_a_frozen_group_may_be_thawed_by_config():
    def make(lr):
        optimizer = optimizer_of(1.0, lr)
        return optimizer, hfwarmup.warmup(StepLR(optimizer, 50), num_warmup_steps=2, on_schedule_change="config")

    optimizer, scheduler = make(0.0)
    run(optimizer, scheduler, 5)
    fresh_optimizer, fresh_scheduler = make(0.5)
    load(saved(optimizer, scheduler), fresh_optimizer, fresh_scheduler)
    assert rates(fresh_optimizer) == [1.0, 0.5]


def test_the_state_of_another_scheduler_is_refused():
    optimizer = optimizer_of(1.0)
    other = LambdaLR(optimizer, lambda _: 1.0)
    with pytest.raises(ValueError, match=r"^the checkpoint's scheduler is not a WarmupScheduler") as error:
        scheduler_of(optimizer_of(1.0), "warmup_linear").load_state_dict(other.state_dict())
    assert str(error.value).endswith("resume with the schedule that wrote it, or start a new run from its weights.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"on_schedule_change": "ignore"},
            "on_schedule_change='ignore'. Choose one of error, config, checkpoint.",
        ),
        ({"on_lr_mismatch": "stop"}, "on_lr_mismatch='stop'. Choose one of warn, error."),
    ],
)
def test_an_unknown_policy_is_refused(settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        scheduler_of(optimizer_of(1.0), "warmup_linear", **settings)
    assert str(error.value) == message


# beta2 from the optimizer


def test_beta2_is_read_from_the_optimizer():
    optimizer = optimizer_of(1.0, 0.5, kind=torch.optim.AdamW, betas=(0.9, 0.95))
    scheduler = WarmupScheduler(optimizer, "untuned_linear")
    assert scheduler.spec.warmup_steps == 40  # 2 / (1 - 0.95)
    assert run(optimizer, scheduler, 41)[19] == pytest.approx([0.5, 0.25])  # counted from 1


def test_a_given_beta2_wins_over_the_optimizers():
    optimizer = optimizer_of(1.0, kind=torch.optim.AdamW)
    assert WarmupScheduler(optimizer, "gi_warmup", beta2=0.9).spec.warmup_steps == 20


def test_beta2_that_cannot_be_read_is_asked_for():
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        WarmupScheduler(optimizer_of(1.0), "radam_warmup")
    assert str(error.value) == "'radam_warmup' takes its length from beta2, and SGD has no betas; set beta2."
    optimizer = optimizer_of(1.0, 1.0, kind=torch.optim.Adam)
    optimizer.param_groups[1]["betas"] = (0.9, 0.95)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        WarmupScheduler(optimizer, "radam_warmup")
    assert (
        str(error.value) == "'radam_warmup' takes its length from beta2, and Adam has several (0.95, 0.999); set beta2."
    )


# Weight decay

DECAY = [
    # (mode, learning rate, share of the weight that an update takes) at lambda = 0.1 and eta = 1e-2
    ("coupled", 1e-2, 1e-3),  # eta s lambda at the peak
    ("coupled", 5e-3, 5e-4),  # half way up: half
    ("coupled", 0.0, 0.0),  # no learning, no decay
    ("independent", 1e-2, 0.1),  # s lambda: lambda at the peak, whatever the peak
    ("independent", 5e-3, 0.05),
    ("independent", 0.0, 0.0),
    ("proportional", 1e-2, 1e-3),  # eta s^2 lambda: as coupled at the peak
    ("proportional", 5e-3, 2.5e-4),  # a quarter of it half way up
    ("proportional", 0.0, 0.0),
    ("constant", 1e-2, 0.1),  # lambda, always
    ("constant", 5e-3, 0.1),
    ("constant", 1e-5, 0.1),
]


@pytest.mark.parametrize(("mode", "lr", "share"), DECAY)
def test_decay_coefficient(mode, lr, share):
    """torch's AdamW takes lr times the coefficient."""
    assert lr * decay_coefficient(mode, 0.1, lr=lr, peak_lr=1e-2) == pytest.approx(share, rel=1e-12)


SHARES = {
    "coupled": lambda s, eta: eta * s,
    "independent": lambda s, _eta: s,
    "proportional": lambda s, eta: eta * s**2,
    "constant": lambda _s, _eta: 1.0,
}
"""Share of the weight that an update takes, over lambda, at s = lr / eta."""


@pytest.mark.parametrize("resume", [None, 3, 9], ids=["in one go", "resumed in the warmup", "resumed after it"])
@pytest.mark.parametrize("mode", SHARES)
def test_adamw_shrinks_a_weight_without_gradient_as_the_mode_says(mode, resume):
    """Two groups of other peaks and decays, 12 updates of linear warmup and decay, in double precision."""
    groups = [(0.5, 0.1), (0.01, 0.02)]  # (peak, lambda)

    def make():
        optimizer = optimizer_of(*(peak for peak, _ in groups), kind=torch.optim.AdamW)
        for group, (_, decay) in zip(optimizer.param_groups, groups, strict=True):
            group["weight_decay"] = decay
        return optimizer, scheduler_of(
            optimizer, "warmup_linear", total_steps=12, initial_ratio=0.25, final_ratio=0.5, weight_decay=mode
        )

    optimizer, scheduler = make()
    for done in range(12):
        if done == resume:
            weights = [group["params"][0].detach().clone() for group in optimizer.param_groups]
            checkpoint = saved(optimizer, scheduler)
            optimizer, scheduler = make()
            load(checkpoint, optimizer, scheduler)
            for group, weight in zip(optimizer.param_groups, weights, strict=True):
                group["params"][0].data.copy_(weight)
        update(optimizer, scheduler)
    heights = [0.25 + 0.75 * t / 6 if t < 6 else 0.5 + 0.5 * (12 - t) / 6 for t in range(12)]
    for group, (peak, decay) in zip(optimizer.param_groups, groups, strict=True):
        expected = math.prod(1 - decay * SHARES[mode](height, peak) for height in heights)
        assert group["params"][0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", ["independent", "proportional", "constant"])
@pytest.mark.parametrize("resume", [False, True])
def test_back_to_coupled_the_weight_decay_is_the_groups_own(mode, resume):
    """The scaled one of the schedule before would shrink the weights by up to 1 / peak as much."""
    optimizer = optimizer_of(1e-2, kind=torch.optim.AdamW, weight_decay=0.1)
    scheduler = scheduler_of(optimizer, "warmup_cosine", weight_decay=mode)
    run(optimizer, scheduler, 10)
    checkpoint = saved(optimizer, scheduler)
    if resume:
        optimizer = optimizer_of(1e-2, kind=torch.optim.AdamW, weight_decay=0.1)
        coupled = scheduler_of(optimizer, "warmup_cosine", on_schedule_change="config")
        load(checkpoint, optimizer, coupled)
    else:
        coupled = scheduler_of(optimizer, "warmup_cosine")
    run(optimizer, coupled, 3)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("mode", SHARES)
def test_a_group_without_decay_keeps_none(mode):
    optimizer = optimizer_of(0.5, kind=torch.optim.AdamW, weight_decay=0.0)
    scheduler = scheduler_of(optimizer, "warmup_linear", initial_lr=0.1, final_lr=0.1, weight_decay=mode)
    run(optimizer, scheduler, 10)
    assert optimizer.param_groups[0]["params"][0].item() == 1.0


@pytest.mark.parametrize("mode", ["coupled", "independent", "proportional"])
def test_a_frozen_group_decays_nothing(mode):
    optimizer = optimizer_of(0.5, 0.0, kind=torch.optim.AdamW, weight_decay=0.1)
    run(optimizer, scheduler_of(optimizer, "warmup_linear", weight_decay=mode), 10)
    assert optimizer.param_groups[1]["params"][0].item() == 1.0


@pytest.mark.parametrize(
    ("lrs", "settings"),
    [
        ((1.0,), {"final_lr": 0.1, "initial_lr": 0.0}),  # 0 at the start
        ((1.0,), {"initial_lr": 0.1}),  # 0 at the end
        ((1.0, 0.0), {"initial_ratio": 0.1, "final_ratio": 0.1}),  # 0 in the second group
    ],
)
def test_constant_weight_decay_needs_a_learning_rate_above_zero(lrs, settings):
    optimizer = optimizer_of(*lrs, kind=torch.optim.AdamW, weight_decay=0.1)
    with pytest.raises(
        ValueError,
        match=r"^weight_decay='constant' divides by the learning rate, which reaches 0; set initial_lr and final_lr\.$",
    ):
        scheduler_of(optimizer, "warmup_linear", weight_decay="constant", **settings)


def test_constant_weight_decay_survives_what_follows_reaching_zero():
    """CosineAnnealingLR ends at 0: one line that says so, not a ZeroDivisionError."""
    optimizer = optimizer_of(1.0, kind=torch.optim.AdamW, weight_decay=0.1)
    scheduler = hfwarmup.warmup(CosineAnnealingLR(optimizer, 3), num_warmup_steps=2, weight_decay="constant")
    with pytest.raises(ValueError, match=r"^weight_decay='constant' divides by the learning rate, which reaches 0"):
        run(optimizer, scheduler, 8)


# accelerate


@pytest.fixture
def accelerator():
    """accelerate in this process, on the CPU, accumulating four batches; its global state is put back."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    def reset():
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
        GradientState._reset_state()

    reset()
    yield Accelerator(cpu=True, gradient_accumulation_steps=4)
    reset()


@pytest.mark.parametrize("order", ["optimizer alone first", "together"])
def test_in_accelerate_with_accumulation_the_planned_rates_are_applied(accelerator, order):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(torch.ones(48, 2), batch_size=1)
    if order == "together":
        scheduler = scheduler_of(optimizer, "warmup_cosine", warmup_steps=3, total_steps=12)
        model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    else:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        scheduler = accelerator.prepare(scheduler_of(optimizer, "warmup_cosine", warmup_steps=3, total_steps=12))
    applied = []
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).sum())
            if accelerator.sync_gradients:
                applied += rates(optimizer)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    planned = get_schedule("warmup_cosine", peak_lr=1e-3, num_warmup_steps=3, num_training_steps=12)
    assert applied == [planned(step) for step in range(12)]


def test_an_update_that_fp16_skipped_does_not_advance(accelerator):
    """A real GradScaler: updates 0, 3 and 4 overflow and are skipped."""
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler

    raw = optimizer_of(1.0)
    (parameter,) = raw.param_groups[0]["params"]
    scheduler = scheduler_of(raw, "warmup_linear", initial_lr=0.0)
    optimizer = AcceleratedOptimizer(raw, scaler=torch.amp.GradScaler("cpu"), device_placement=False)
    prepared = AcceleratedScheduler(scheduler, [optimizer])
    seen = []
    for overflow in (True, False, False, True, True, False):
        parameter.grad = torch.full_like(parameter, math.inf if overflow else 0.0)
        optimizer.scaler.scale(torch.zeros(1))  # as a backward does first
        optimizer.step()
        prepared.step()
        seen.append((optimizer.step_was_skipped, scheduler.last_epoch))
    assert seen == [(True, 0), (False, 1), (False, 2), (True, 2), (True, 2), (False, 3)]
    assert rates(raw) == [3 / 6]


TWO_RANKS = """
import json, sys
import torch
from accelerate import Accelerator
from hfwarmup import WarmupScheduler
from hfwarmup.recipe.console import run_recipe

def main():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(torch.ones(48, 2), batch_size=2)
    scheduler = WarmupScheduler(optimizer, "warmup_cosine", num_warmup_steps=3, num_training_steps=12)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    applied = []
    for _ in range(2):  # 12 batches a rank and epoch, 6 updates
        for batch in loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(batch).sum())
                if accelerator.sync_gradients:
                    applied.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    with open(f"{sys.argv[1]}/rank{accelerator.process_index}.json", "w") as file:
        json.dump({"processes": accelerator.num_processes, "applied": applied}, file)
    accelerator.wait_for_everyone()

run_recipe(main)  # the group must outlive the model that is wrapped, see leave_process_group
"""


def test_on_two_processes_both_apply_exactly_the_planned_rates(tmp_path):
    """accelerate steps a prepared scheduler once per process; a plain one has finished its warmup at half time."""
    script = tmp_path / "train.py"
    script.write_text(TWO_RANKS)
    config = ROOT / "configs" / "accelerate" / "cpu_2proc.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    ranks = ["--num_processes", "2", "--main_process_port", "0", str(script), str(tmp_path)]
    finished = subprocess.run(
        launch + ranks,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    planned = get_schedule("warmup_cosine", peak_lr=1e-3, num_warmup_steps=3, num_training_steps=12)
    for rank in range(2):
        result = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert result == {"processes": 2, "applied": [planned(step) for step in range(12)]}


def test_many_updates_of_many_groups_stay_on_plan():
    """1000 updates of 50 groups with 7 peaks between them."""
    lrs = [10.0 ** -(1 + n % 7) for n in range(50)]
    optimizer = optimizer_of(*lrs)
    scheduler = scheduler_of(optimizer, "warmup_wsd", warmup_steps=100, total_steps=1000, initial_ratio=0.01)
    lengths = {"num_warmup_steps": 100, "num_training_steps": 1000, "initial_ratio": 0.01}
    planned = {lr: get_schedule("warmup_wsd", peak_lr=lr, **lengths) for lr in lrs}
    for step in range(1000):
        assert update(optimizer, scheduler) == [planned[lr](step) for lr in lrs]


def test_interleaved_schedulers_on_two_optimizers_do_not_mix():
    first, second = optimizer_of(1.0), optimizer_of(0.5)
    one, other = scheduler_of(first, "warmup_linear"), scheduler_of(second, "cosine_bell")
    applied = [(update(first, one), update(second, other)) for _ in range(12)]
    alone, beside = optimizer_of(1.0), optimizer_of(0.5)
    assert applied == list(
        itertools.zip_longest(
            run(alone, scheduler_of(alone, "warmup_linear"), 12), run(beside, scheduler_of(beside, "cosine_bell"), 12)
        )
    )
