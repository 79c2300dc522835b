"""The model card has the run in it, and a push to the hub publishes it and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import hfwarmup
from hfwarmup.planning.plan import plan_run
from hfwarmup.recipe.results import finish_run
from hfwarmup.reporting.card import write_card
from hfwarmup.trainer.planning import follow
from hfwarmup.trainer.recorder import RunRecorder

SUMMARY = "validation loss 3.25 nats a token; a uniform guess is 8.32"


def test_the_card_has_the_run_in_it(make_run):
    card = write_card(make_run("warm-llama"), summary=SUMMARY, library_name="transformers", tags=["more"])
    loaded = ModelCard.load(card)
    assert loaded.data.to_dict() == {"library_name": "transformers", "tags": ["hfwarmup", "more"]}
    for part in (
        "# warm-llama\n\nValidation loss 3.25 nats a token; a uniform guess is 8.32.\n",
        "| warmup T_w | 12 updates, 20.0% of the run |\n| global batch | 16 samples, k = 2 times the reference |\n",
        "(schedule.png)",
        "(loss.png)",
        "\n1. peak_lr 0.001 -> 0.002: lr_scaling=linear (eta k, Goyal et al. 2017)\n1. ",
        "| metric | value |\n|---|---|\n| eval_loss | 3.25 |\n| eval_perplexity | 25.79 |\n",
        "```bash\nNUM_PROCESSES=2 ./launch.sh pretrain_clm --config configs/pretrain_clm/stdlib.yaml\n```\n",
        "| transformers | 5.23.0 |\n",
    ):
        assert part in loaded.text
    assert not re.search(r"\n{3}", loaded.text)


def test_a_resumed_run_shows_each_command(make_run):
    commands = [{"from_update": 0, "command": "first"}, {"from_update": 30, "command": "second"}]
    text = write_card(make_run(commands=commands), summary=SUMMARY).read_text()
    assert "```bash\nfirst\n```\n\nFrom update 30:\n\n```bash\nsecond\n```\n" in text


@pytest.fixture(scope="module")
def make_trainer():
    """Makes a Trainer of two updates, of a model or of a LoRA adapter."""
    hfwarmup.register()

    def make(folder: Path, *, adapter: bool = False) -> Trainer:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2)) if adapter else model
        row = torch.arange(4)
        args = TrainingArguments(
            str(folder),
            max_steps=2,
            lr_scheduler_type="warmup_cosine",
            warmup_steps=1,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        follow(args, plan_run(learning_rate=args.learning_rate, warmup=1, total_steps=2, global_batch_size=8))
        rows = [{"input_ids": row, "labels": row}] * 16
        return Trainer(model=model, args=args, train_dataset=rows, callbacks=[RunRecorder()])

    return make


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers so
@pytest.mark.parametrize(("adapter", "library"), [(False, "transformers"), (True, "peft")])
def test_what_a_push_publishes_is_this_card(adapter, library, make_trainer, tmp_path, monkeypatch):
    published = {}

    class Hub:
        def upload_folder(self, *, folder_path, **_):
            published.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir() if path.is_file()})

    monkeypatch.setattr("transformers.trainer.hf_api", Hub)
    trainer = make_trainer(tmp_path / "run", adapter=adapter)
    trainer.train()
    finish_run(trainer, train_metrics={}, eval_metrics={"eval_loss": 3.25}, summary=SUMMARY)
    saved = (tmp_path / "run" / "README.md").read_text()
    assert ModelCard.load(tmp_path / "run" / "README.md").data.library_name == library
    assert "| eval_loss | 3.25 |" in saved
    trainer.hub_model_id = "someone/warm-llama"
    trainer.model.model_tags = ["trackio"]
    trainer.push_to_hub()
    pushed = published["README.md"].decode()
    assert ModelCard(pushed).data.tags == ["hfwarmup", "trackio"]
    assert pushed.split("\n## Plan")[1] == saved.split("\n## Plan")[1]
    assert {"schedule.png", "loss.png", "run.json"} <= set(published)


def test_a_plain_module_names_no_library(make_run):
    data = ModelCard.load(write_card(make_run(), summary=SUMMARY)).data.to_dict()
    assert data == {"tags": ["hfwarmup"]}


def test_a_run_without_a_plan_has_a_card(make_run):
    folder = make_run(plan=None, schedule=None, scheduler="LambdaLR")
    assert json.loads((folder / "run.json").read_text())["plan"] is None
    text = write_card(folder, summary=SUMMARY).read_text()
    assert "## Plan" not in text
    assert "## Results" in text
