"""A run puts what watches it in the right order, and says what was forgotten."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback

from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.run import Run
from hfwarmup.trainer.planning import plan_of

WATCHING = ["Replan", "CheckBestMetric", "NonFiniteGuard", "RunRecorder", "KeepConfig", "PlanTracker", "LogLines"]

pytestmark = pytest.mark.usefixtures("own_process_state")


class Mine(TrainerCallback):
    """A callback of the recipe's own."""


@pytest.fixture
def begin(tmp_path, tiny_llama, blocks):
    """Makes a run, its planned arguments, and a Trainer with them."""

    def make(**own):
        settings = {"output_dir": str(tmp_path / "run"), "max_steps": 4, "per_device_train_batch_size": 2}
        settings |= {"use_cpu": True, "precision": "fp32", "disable_tqdm": True, "torch_compile": False}
        settings |= {"save_strategy": "no", "logging_steps": 1, "lr_scheduler_type": "gradual_warmup"}
        args = RecipeArguments(**settings, **own)
        run, model = Run(args, WarmupArguments(warmup="2")), tiny_llama()
        planned = run.plan(model, blocks(8), tokens_per_sample=4)
        datasets = {"train_dataset": blocks(8), "eval_dataset": blocks(2)}
        return run, args, planned, Trainer(model=model, args=planned, callbacks=[Mine()], **datasets)

    return make


def names(trainer: Trainer) -> list[str]:
    return [type(callback).__name__ for callback in trainer.callback_handler.callbacks]


def test_the_plan_leaves_what_was_given(begin):
    _, args, planned, _ = begin()
    assert plan_of(args) is None
    assert plan_of(planned).warmup_steps == planned.warmup_steps == 2
    assert plan_of(planned).warmup_tokens == 16


def test_what_watches_a_run_is_in_the_right_order(begin):
    """The monitor before the trackers, which see what it measures; Replan before all that reads the plan."""
    run, _, _, trainer = begin(report_to="tensorboard")
    run.train(trainer)
    order = names(trainer)
    assert order[0] == "WarmupMonitor"
    assert order.index("TensorBoardCallback") < order.index("Mine") < order.index("Replan")
    assert order[-len(WATCHING) :] == WATCHING


def test_without_the_monitor(begin):
    run, _, _, trainer = begin()
    run.train(trainer, monitor=False)
    assert "WarmupMonitor" not in names(trainer)


def test_an_evaluation_before_the_training_begins_the_log(begin, tmp_path):
    run, _, _, trainer = begin()
    before = trainer.evaluate()
    run.train(trainer)
    first, second, *_ = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert (first["step"], first["eval_loss"]) == (0, before["eval_loss"])
    assert second["step"] == 1


def test_a_loop_gets_the_same_without_a_trainer(begin):
    run, *_ = begin()
    kinds = [type(callback).__name__ for callback in run.callbacks()]
    assert kinds == ["WarmupCallback", "NonFiniteGuard", "RunRecorder", "KeepConfig", "LogLines"]


def test_arguments_without_a_plan_are_refused(begin):
    run, args, _, trainer = begin()
    trainer.args = args
    with pytest.raises(ValueError, match=r"^the Trainer's arguments follow no plan; give it args=run\.plan\(…\)\.$"):
        run.train(trainer)


def test_an_end_before_the_training_is_refused(begin, tmp_path):
    run, _, _, trainer = begin()
    with pytest.raises(ValueError, match=r"^the run is not trained yet; call run\.train\(trainer\) before run\.finish"):
        run.finish(trainer, {}, summary="none")
    assert not Path(tmp_path, "run", "all_results.json").exists()


def test_the_size_is_said(begin, capsys):
    begin()
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("llama, ")
    assert said[0].endswith(" parameters; 8 training samples of 4 tokens")
    assert said[1:3] == ["precision fp32: as asked for", said[2]]
    assert logging.getLogger("hfwarmup").level == logging.INFO


def test_a_best_metric_that_no_evaluation_has_is_one_line(begin):
    run, _, _, trainer = begin(metric_for_best_model="bleu", eval_strategy="steps", eval_steps=1)
    with pytest.raises(ValueError, match=r"^metric_for_best_model='bleu'\. Choose one of eval_loss, "):
        run.train(trainer)


def test_labels_that_no_batch_has_are_one_line(begin):
    run, _, _, trainer = begin(label_names=["target"])
    with pytest.raises(ValueError, match=r"^label_names=\['target'\]: a batch has input_ids, labels; name the labels"):
        run.train(trainer)
