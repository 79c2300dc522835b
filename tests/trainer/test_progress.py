"""A run says each log entry in one line, beside its bars, and only from rank 0."""

from __future__ import annotations

import logging
import re

import pytest
from tqdm.auto import tqdm
from transformers import TrainerCallback

from hfwarmup.recipe.console import BesideBars
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.progress import show_progress

LOGGED = {"lr_scheduler_type": "gradual_warmup", "warmup_steps": 4, "logging_strategy": "steps", "logging_steps": 4}


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "hfwarmup.trainer.progress"]


@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_a_line_a_log_entry_and_nothing_printed(disable_tqdm, make_trainer, blocks, caplog, capsys):
    caplog.set_level(logging.INFO, "hfwarmup")
    own = {**LOGGED, "disable_tqdm": disable_tqdm, "eval_strategy": "steps", "eval_steps": 8}
    trainer = make_trainer(trainer={"eval_dataset": blocks(2)}, **own)
    show_progress(trainer)
    trainer.train()
    trainer.evaluate()  # the recipe says what came of it
    number = r"[\d.e-]+"
    for line, pattern in zip(
        lines(caplog),
        (
            f"update 4 of 8: loss {number}, grad_norm {number}, learning_rate 0.00075",
            f"update 8 of 8: loss {number}, grad_norm {number}, learning_rate 0.001",
            f"update 8 of 8: eval_loss {number}",
            f"update 8 of 8: train_runtime {number}, train_loss {number}",
        ),
        strict=True,
    ):
        assert re.fullmatch(pattern, line)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("8/8" in printed.err) == (not disable_tqdm)


def test_an_entry_of_the_monitor_alone_is_not_said(make_trainer, caplog):
    caplog.set_level(logging.INFO, "hfwarmup")
    trainer = make_trainer(**LOGGED)
    watch_warmup(trainer)
    show_progress(trainer)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == list(range(1, 9))
    said = [line.partition(":")[0] for line in lines(caplog) if " loss" in line]
    assert said == ["update 4 of 8", "update 8 of 8"]
    assert not any("warmup/" in line for line in lines(caplog))


def test_the_other_ranks_say_nothing(make_trainer, caplog):
    caplog.set_level(logging.INFO, "hfwarmup")

    class AnotherRank(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            state.is_world_process_zero = False

    trainer = make_trainer(AnotherRank(), disable_tqdm=True, **LOGGED)
    show_progress(trainer)
    trainer.train()
    assert lines(caplog) == []


def test_a_line_does_not_tear_a_bar(capsys):
    handler = BesideBars()
    with tqdm(total=2, ncols=40) as bar:
        bar.update()
        handler.emit(logging.LogRecord("hfwarmup", logging.INFO, "", 0, "a line", None, None))
    before, after = capsys.readouterr().err.split("a line\n")
    assert before.endswith("\r")  # the bar is wiped first,
    assert after.startswith("\r")  # and drawn again below
