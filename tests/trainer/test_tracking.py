"""What a tracker has of a run: the plan as hyperparameters and text, the schedule as a picture."""

from __future__ import annotations

import json
import sqlite3
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import hfwarmup
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.planning.plan import Plan
from hfwarmup.trainer.planning import plan_of, plan_training, planned_arguments
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan

VALUES = {
    "peak_lr": 1e-3,
    "warmup": "25%",
    "warmup_steps": 1,
    "warmup_fraction": 0.25,
    "total_steps": 4,
    "global_batch_size": 8,
    "batch_scale": 1.0,
}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train four updates under a tracker, with the plan tracked."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    hfwarmup.register()

    def run(report_to: str, *, max_steps: int = 4) -> Plan:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        row = torch.arange(4)
        args = TrainingArguments(
            str(tmp_path / "run"),
            max_steps=4,
            learning_rate=1e-3,
            lr_scheduler_type="warmup_cosine",
            use_cpu=True,
            report_to=report_to,
            logging_steps=2,
            save_strategy="no",
            disable_tqdm=True,
        )
        warmup = WarmupArguments(warmup="25%")
        planned = planned_arguments(args, warmup, plan_training(args, warmup, num_samples=32))
        planned.max_steps = max_steps
        rows = [{"input_ids": row, "labels": row}] * 32
        model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
        trainer = Trainer(model=model, args=planned, train_dataset=rows)
        trainer.add_callback(Replan(args, warmup, num_samples=32))
        track_plan(trainer)
        trainer.train()
        return plan_of(trainer.args)

    return run


def events(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def hyperparameters_in(accumulator: EventAccumulator) -> dict:
    content = accumulator.PluginTagToContent(metadata.PLUGIN_NAME)[metadata.SESSION_START_INFO_TAG]
    chosen = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: value.string_value or value.number_value for name, value in chosen.items()}


def test_tensorboard_has_the_plan_and_the_curve(train, tmp_path):
    plan = train("tensorboard")
    found = events(tmp_path / "events")
    assert hyperparameters_in(found) == VALUES
    text = found.Tensors("warmup/plan/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "\n\n".join(plan.reasons)
    assert found.Tags()["images"] == ["warmup/schedule"]
    assert (found.Images("warmup/schedule")[0].width, found.Images("warmup/schedule")[0].height) == (1040, 546)
    assert [event.step for event in found.Scalars("train/loss")] == [2, 4]  # in the same run


def test_a_plan_made_again_is_the_one_that_is_tracked(train, tmp_path):
    train("tensorboard", max_steps=8)
    assert hyperparameters_in(events(tmp_path / "events"))["total_steps"] == 8


def test_trackio_has_the_plan_and_the_curve(train, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # its folder is settled when it is imported
    plan = train("trackio")
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        (config,) = (json.loads(row[0]) for row in connection.execute("select config from configs"))
        logged = [json.loads(row[0]) for row in connection.execute("select metrics from metrics order by id")]
    assert {name: config[f"warmup/{name}"] for name in VALUES} == VALUES
    assert config["warmup/reasons"] == list(plan.reasons)
    assert logged[0]["warmup/schedule"]["_type"] == "trackio.image"
    assert sum("train/loss" in entry for entry in logged) == 2


def test_without_a_tracker_nothing_is_written(train, tmp_path):
    train("none")
    assert not (tmp_path / "events").exists()
    assert not (tmp_path / "run" / "schedule.png").exists()
    assert np.all([name.name != "trackio" for name in tmp_path.iterdir()])
