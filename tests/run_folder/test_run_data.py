"""A run folder is read as far as it is, and what it does not have is said."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from hfwarmup.run_folder.data import planned_rates, read_run, read_runs


def test_a_finished_run_misses_nothing(make_run):
    run = read_run(make_run(steps=60))
    assert run.missing == ()
    assert (run.name, run.updates, run.total_steps, run.warmup_steps) == ("run", 60, 60, 12)
    assert run.results["eval_loss"] == 3.25


def test_series_are_those_of_the_log(make_run):
    run = read_run(make_run(steps=60))
    assert [step for step, _ in run.series("loss")] == list(range(1, 61))
    assert [step for step, _ in run.series("eval_loss")] == [15, 30, 45, 60]
    assert run.series("no such key") == []


MISSING = [
    # files that are not there, what is said
    (
        ["all_results.json"],
        ["no all_results.json yet: 45 of 60 updates done."],
    ),
    (
        ["learning_rates.csv"],
        ["no learning_rates.csv yet: the learning rates come from the log."],
    ),
    (
        ["run.json"],
        ["no run.json: plan, schedule, command and environment are unknown (a RunRecorder writes the file)."],
    ),
]


@pytest.mark.parametrize(("files", "lines"), MISSING, ids=lambda value: value[0])
def test_what_is_missing_is_said_in_one_line(files, lines, make_run):
    folder = make_run(steps=60, made=45 if files == ["all_results.json"] else 60)
    for name in files:
        (folder / name).unlink(missing_ok=True)
    assert list(read_run(folder).missing) == lines


def test_a_run_that_has_just_begun_is_readable(make_run):
    folder = make_run(steps=60, made=0)
    (folder / "learning_rates.csv").unlink()
    run = read_run(folder)
    assert (run.updates, run.total_steps) == (0, 60)
    assert len(planned_rates(run)) == 60


def test_the_log_gives_the_learning_rates_that_the_record_does_not_have_yet(make_run):
    """The Trainer logs the rate of the last update, step - 1."""
    folder = make_run(steps=60, made=45)
    record = folder / "learning_rates.csv"
    whole = read_run(folder).rates
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:31]))
    assert read_run(folder).rates == whole


def test_the_plan_goes_on_beyond_the_updates_made(make_run):
    half, whole = make_run("half", steps=60, made=30), make_run("whole", steps=60)
    assert planned_rates(read_run(half)) == planned_rates(read_run(whole))


def test_a_sparse_log_leaves_the_plan_exact(make_run):
    folder = make_run(steps=60, made=45)
    whole = planned_rates(read_run(folder))
    (folder / "learning_rates.csv").unlink()
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] % 10 == 0))
    assert planned_rates(read_run(folder)) == whole


def test_a_plateau_is_not_drawn_into_the_future(make_run):
    schedule = {"name": "warmup_plateau", "given_warmup_steps": 6, "total_steps": 60, "peak_lrs": [1e-3], "options": {}}
    run = read_run(make_run(steps=60, made=45, schedule=schedule))
    assert len(planned_rates(run)) == 45


def test_a_schedule_of_the_users_own_is_drawn_as_recorded(make_run):
    schedule = {"name": "mine", "given_warmup_steps": 6, "total_steps": 60, "peak_lrs": [1e-3], "options": {}}
    run = read_run(make_run(steps=60, schedule=schedule, scheduler="mine"))
    assert run.missing == ("the schedule mine is not one of hfwarmup's, so its warmup is not drawn.",)
    assert (run.warmup_steps, len(planned_rates(run))) == (0, 60)


def test_the_folder_of_any_trainer_is_read_from_its_last_checkpoint(make_run, tmp_path):
    log = [{"loss": 2.0, "learning_rate": 1e-4, "step": 1}, {"loss": 1.0, "learning_rate": 1e-4, "step": 2}]
    checkpoint = tmp_path / "other" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    run = read_run(tmp_path / "other")
    assert run.series("loss") == [(1, 2.0), (2, 1.0)]
    assert run.updates == 2


@pytest.mark.parametrize("name", ["run.json", "all_results.json"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": "b', "is not valid JSON (Unterminated string starting at: line 1 column 7 (char 6))"),
        ("[1]", "does not hold a JSON object"),
    ],
)
def test_a_damaged_file_is_named(make_run, name, text, said):
    path = make_run(steps=60) / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"\A{re.escape(f'{path} {said}')}; repair it or move it away\.\Z"):
        read_run(path.parent)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    message = (
        f"{tmp_path} holds no run: neither run.json nor log.jsonl nor trainer_state.json is there; "
        "give a run's output_dir."
    )
    with pytest.raises(ValueError, match="holds no run") as caught:
        read_run(tmp_path)
    assert str(caught.value) == message


def test_two_runs_of_one_name_are_called_by_their_paths(make_run, tmp_path):
    first = make_run("a/run")
    second = tmp_path / "b" / "run"
    shutil.copytree(first, second)
    assert [run.name for run in read_runs([first, second])] == [str(first), str(second)]
    assert [run.name for run in read_runs([first])] == ["run"]
