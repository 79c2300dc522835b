"""The sharpness that the monitor logs, and its ratio to the optimizer's stability threshold."""

from __future__ import annotations

import pytest
import torch
from transformers import Trainer
from watched_runs import LOGGED, POINTS, Regression, dropping_llama, measured, with_and_without

from hfwarmup.trainer.monitor import watch_warmup


def test_the_sharpness_of_a_known_hessian_over_the_threshold(make_trainer):
    """2 E[x x'] = diag(2, 8, 18) / 3 has the sharpness 6; the threshold of SGD without momentum is 2 / lr."""
    run = LOGGED | {"lr_scheduler_type": "gradual_warmup", "optim": "sgd"}
    trainer = make_trainer(trainer={"model": Regression(), "train_dataset": POINTS}, **run)
    watch_warmup(trainer, sharpness=True)
    trainer.train()
    assert measured(trainer, "sharpness") == pytest.approx(dict.fromkeys(range(2, 41, 2), 6.0), rel=0.01)
    assert measured(trainer, "sharpness_ratio")[40] == pytest.approx(6.0 / (2 / 1e-2), rel=0.01)


def test_at_a_learning_rate_of_zero_nothing_is_too_sharp(make_trainer):
    """The linear schedule of transformers makes its first update at a learning rate of 0."""
    run = LOGGED | {"lr_scheduler_type": "linear", "logging_steps": 1, "max_steps": 20, "optim": "sgd"}
    trainer = make_trainer(trainer={"model": Regression(), "train_dataset": POINTS}, **run)
    watch_warmup(trainer, sharpness=True)
    trainer.train()
    ratios = measured(trainer, "sharpness_ratio")
    assert ratios[1] == 0.0
    assert ratios[2] > 0.0
    assert measured(trainer, "sharpness")[1] == pytest.approx(6.0, rel=0.01)


def test_an_optimizer_without_a_threshold_is_refused_before_the_first_update(make_trainer):
    trainer = make_trainer(optim="adagrad", **LOGGED)
    watch_warmup(trainer, sharpness=True)
    with pytest.raises(ValueError, match=r"^Adagrad has no known stability threshold.*without sharpness=True\.$"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_sharpness_under_autocast_is_that_of_single_precision(make_trainer, caplog):
    """The learning rate is so small that the weights stay where they are."""
    run = LOGGED | {"max_steps": 20, "logging_steps": 1, "optim": "sgd", "learning_rate": 1e-12}
    found = []
    for bf16 in (False, True):
        trainer = make_trainer(trainer={"model": dropping_llama()}, bf16=bf16, **run)
        watch_warmup(trainer, sharpness=True)
        with caplog.at_level("INFO", "hfwarmup.trainer.probes.sharpness"):
            trainer.train()
        found.append(measured(trainer, "sharpness")[1])
    assert found[1] == pytest.approx(found[0], rel=0.02)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("sharpness by")]
    assert [line.split(",")[0] for line in said] == ["sharpness by double backward"] * 2


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from POINTS * 40


class Unlabelled(Regression):
    """Takes no labels; its Trainer computes the loss."""

    def forward(self, x):
        return {"predicted": self.linear(x).squeeze(-1)}


class LossOfItsOwn(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        return (model(**inputs)["predicted"] - labels).square().mean()


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (Regression(), Stream(), "the training data cannot be read by index"),
        (
            Unlabelled(),
            POINTS,
            "Unlabelled does not take this data by itself "
            "(Unlabelled.forward() got an unexpected keyword argument 'labels')",
        ),
    ],
)
def test_a_sharpness_that_cannot_be_measured_is_a_warning(make_trainer, caplog, model, data, reason):
    like = make_trainer(optim="sgd", remove_unused_columns=False, **LOGGED)
    kind = LossOfItsOwn if isinstance(model, Unlabelled) else Trainer
    trainer = kind(model=model, args=like.args, train_dataset=data)
    watch_warmup(trainer, sharpness=True)
    with caplog.at_level("WARNING", "hfwarmup.trainer.probes.sharpness"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if record.name.endswith("probes.sharpness")]
    assert said == [f"the sharpness is not measured: {reason}"]
    assert trainer.state.global_step == 40


def test_measuring_the_sharpness_leaves_the_training_as_it_is(make_trainer):
    trainer = with_and_without(lambda: make_trainer(trainer={"model": dropping_llama()}, **LOGGED), sharpness=True)
    assert measured(trainer, "sharpness_ratio")
