"""A run's record is complete: every learning rate, every log entry, and how to begin it again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from transformers import TrainerCallback

import hfwarmup
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.planning.plan import plan_run
from hfwarmup.run_folder.files import read_learning_rates, read_log
from hfwarmup.schedules.spec import ScheduleSpec
from hfwarmup.trainer.planning import follow, plan_training, planned_arguments
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan

ETA, ETA0 = 1e-3, 1e-7
UPDATES = range(8)
RUN = {"lr_scheduler_type": "gradual_warmup", "warmup_steps": 4}
LOGGED = {**RUN, "logging_strategy": "steps", "logging_steps": 2}


def gradual(t: int) -> float:
    return ETA0 + (ETA - ETA0) * min(1, t / 4)


# The learning rates


def record_of(trainer) -> list[tuple[int, float, float]]:
    return read_learning_rates(Path(trainer.args.output_dir, "learning_rates.csv"))


def test_the_record_has_every_update_as_planned_and_as_applied(make_trainer):
    trainer = make_trainer(RunRecorder(), **RUN)
    trainer.train()
    record = record_of(trainer)
    assert [update for update, _, _ in record] == list(UPDATES)
    assert [planned for _, planned, _ in record] == [applied for _, _, applied in record]
    assert [planned for _, planned, _ in record] == pytest.approx([gradual(t) for t in UPDATES], rel=1e-12)


def test_the_record_is_a_csv_with_a_head_and_exact_numbers(make_trainer):
    trainer = make_trainer(RunRecorder(), **RUN)
    trainer.train()
    with Path(trainer.args.output_dir, "learning_rates.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["update", "planned", "applied"]
    assert rows[0] == ["0", "1e-07", "1e-07"]
    schedule = hfwarmup.get_schedule("gradual_warmup", peak_lr=ETA, num_warmup_steps=4, num_training_steps=8)
    assert [float(row[2]) for row in rows] == [schedule(t) for t in UPDATES]  # to the last bit, through the file


def test_the_record_shows_what_was_applied_where_it_was_not_planned(make_trainer):
    class Meddler(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            kwargs["optimizer"].param_groups[0]["lr"] = 0.5

    trainer = make_trainer(Meddler(), RunRecorder(), **RUN)
    trainer.train()
    assert {applied for _, _, applied in record_of(trainer)} == {0.5}
    assert [planned for _, planned, _ in record_of(trainer)] == pytest.approx([gradual(t) for t in UPDATES])


@pytest.mark.parametrize("made", [8, 6], ids=["a finished run", "a run cut off beyond its checkpoint"])
def test_after_a_resume_the_record_has_every_update_once(made, make_trainer):
    """The checkpoint is that of update 3, but `made` updates are on record when the run goes on from it."""
    own = {**RUN, "save_strategy": "steps", "save_steps": 3}
    trainer = make_trainer(RunRecorder(), **own)
    trainer.train()
    record = Path(trainer.args.output_dir, "learning_rates.csv")
    whole = record.read_text()
    record.write_text("".join(whole.splitlines(keepends=True)[: made + 1]))
    resumed = make_trainer(RunRecorder(), output_dir=trainer.args.output_dir, **own)
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-3")
    assert record.read_text() == whole


def test_a_run_that_begins_anew_leaves_no_row_of_the_earlier_one(make_trainer):
    trainer = make_trainer(RunRecorder(), **RUN)
    trainer.train()
    whole = record_of(trainer)
    trainer.train()
    assert record_of(trainer) == whole


def test_the_record_is_on_disk_at_every_checkpoint(make_trainer):
    class Crash(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    trainer = make_trainer(RunRecorder(), Crash(), save_strategy="steps", save_steps=4, **RUN)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [update for update, _, _ in record_of(trainer)] == [0, 1, 2, 3]


def test_the_record_of_another_scheduler_is_what_was_applied(make_trainer):
    trainer = make_trainer(RunRecorder(), lr_scheduler_type="linear", warmup_steps=4)
    trainer.train()
    expected = [ETA * (t / 4 if t < 4 else (8 - t) / 4) for t in UPDATES]
    assert record_of(trainer) == [(t, pytest.approx(lr), pytest.approx(lr)) for t, lr in enumerate(expected)]


# The log


def log_of(trainer) -> list[dict]:
    return read_log(Path(trainer.args.output_dir, "log.jsonl"))


def test_the_log_is_what_the_trainer_logged(make_trainer):
    trainer = make_trainer(RunRecorder(), **LOGGED)
    trainer.train()
    assert log_of(trainer) == trainer.state.log_history
    assert [entry["step"] for entry in log_of(trainer) if "loss" in entry] == [2, 4, 6, 8]


def test_an_entry_is_on_disk_as_soon_as_it_is_logged(make_trainer):
    seen = []

    class Reader(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(len(log_of(trainer)))

    trainer = make_trainer(RunRecorder(), Reader(), **LOGGED)
    trainer.train()
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3]  # the entry of an update comes after its on_step_end


def test_an_evaluation_before_and_after_the_training_is_in_the_log(make_trainer, blocks):
    trainer = make_trainer(RunRecorder(), trainer={"eval_dataset": blocks(2)}, **LOGGED)
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert [entry["step"] for entry in log_of(trainer) if "eval_loss" in entry] == [0, 8]


@pytest.mark.parametrize("torn", ["", '{"loss": 1'], ids=["whole lines", "a line that a kill cut off"])
def test_after_a_resume_the_log_goes_on_from_the_checkpoint(torn, make_trainer):
    """The checkpoint is that of update 4; the entries of the updates behind it are made anew."""
    own = {**LOGGED, "save_strategy": "steps", "save_steps": 4}
    trainer = make_trainer(RunRecorder(), **own)
    trainer.train()
    log = Path(trainer.args.output_dir, "log.jsonl")
    losses = [(entry["step"], entry["loss"]) for entry in log_of(trainer) if "loss" in entry]
    log.write_text(log.read_text() + torn)
    resumed = make_trainer(RunRecorder(), output_dir=trainer.args.output_dir, **own)
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-4")
    assert [(entry["step"], entry["loss"]) for entry in log_of(resumed) if "loss" in entry] == losses


def test_a_training_that_begins_anew_leaves_no_entry_of_the_earlier_one(make_trainer):
    trainer = make_trainer(RunRecorder(), **LOGGED)
    trainer.train()
    trainer.train()
    assert [entry["step"] for entry in log_of(trainer) if "loss" in entry] == [2, 4, 6, 8]


def test_a_trainer_that_only_evaluates_writes_nothing(make_trainer, blocks):
    trainer = make_trainer(RunRecorder(), trainer={"eval_dataset": blocks(2)}, **LOGGED)
    trainer.evaluate()
    assert list(Path(trainer.args.output_dir).iterdir()) == []


# How it was begun


def run_of(trainer) -> dict:
    return json.loads(Path(trainer.args.output_dir, "run.json").read_text())


def test_the_schedule_on_record_gives_the_learning_rates_again(make_trainer):
    trainer = make_trainer(RunRecorder(), **RUN)
    trainer.train()
    again = ScheduleSpec(**run_of(trainer)["schedule"])
    assert [again.learning_rates(update)[0] for update in UPDATES] == [row[2] for row in record_of(trainer)]


def test_versions_device_and_parameters_are_on_record(make_trainer):
    trainer = make_trainer(RunRecorder(), **RUN)
    next(trainer.model.parameters()).requires_grad_(False)
    trainer.train()
    run = run_of(trainer)
    assert set(run["versions"]) == {"python", "torch", "transformers", "accelerate", "hfwarmup"}
    assert run["versions"]["hfwarmup"] == hfwarmup.__version__
    assert (run["device"].partition(" ")[0], run["precision"], run["world_size"]) == ("cpu", "fp32", 1)
    frozen = next(trainer.model.parameters()).numel()
    assert run["parameters"] == {
        "total": trainer.model.num_parameters(),
        "trained": trainer.model.num_parameters() - frozen,
    }


@pytest.fixture
def plan():
    return plan_run(learning_rate=ETA, warmup=4, total_steps=8, global_batch_size=2)


def test_the_plan_is_on_record_with_its_reasons(make_trainer, plan):
    trainer = make_trainer(RunRecorder(), **RUN)
    follow(trainer.args, plan)
    trainer.train()
    assert run_of(trainer)["plan"] == json.loads(plan.to_json())


def test_a_plan_made_again_is_the_one_on_record(make_trainer):
    trainer, warmup = make_trainer(**{**RUN, "warmup_steps": 0}), WarmupArguments(warmup="4")
    given = trainer.args
    trainer.args = planned_arguments(given, warmup, plan_training(given, warmup, num_samples=8))
    trainer.args.max_steps = 16
    for callback in (Replan(given, warmup, num_samples=8), RunRecorder()):
        trainer.add_callback(callback)
    trainer.train()
    assert run_of(trainer)["plan"]["total_steps"] == 16
    assert run_of(trainer)["schedule"]["total_steps"] == 16


def test_another_scheduler_and_no_plan_are_on_record_as_such(make_trainer):
    trainer = make_trainer(RunRecorder(), lr_scheduler_type="linear", warmup_steps=4)
    trainer.train()
    run = run_of(trainer)
    assert (run["plan"], run["schedule"], run["scheduler"]) == (None, None, "LambdaLR")


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_the_peak_of_a_scheduler_that_keeps_none_is_the_learning_rate(make_trainer, blocks, schedule):
    parts = {"eval_dataset": blocks(2)}
    trainer = make_trainer(RunRecorder(), trainer=parts, lr_scheduler_type=schedule, eval_strategy="epoch")
    trainer.train()
    assert run_of(trainer)["peak_lr"] == ETA


def test_the_commands_of_a_resumed_run_are_on_record_with_the_update_they_took_over_at(make_trainer, monkeypatch):
    own = {**RUN, "save_strategy": "steps", "save_steps": 3}
    monkeypatch.setenv("HFWARMUP_COMMAND", "./launch.sh first")
    trainer = make_trainer(RunRecorder(), **own)
    trainer.train()
    monkeypatch.setenv("HFWARMUP_COMMAND", "./launch.sh second --resume auto")
    resumed = make_trainer(RunRecorder(), output_dir=trainer.args.output_dir, **own)
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-3")
    assert run_of(resumed)["commands"] == [
        {"from_update": 0, "command": "./launch.sh first"},
        {"from_update": 3, "command": "./launch.sh second --resume auto"},
    ]
