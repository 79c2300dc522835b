"""`hfwarmup find-lr`: it measures where a run would begin, trains nothing and leaves nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import transformers.trainer
from typer.testing import CliRunner

from hfwarmup.cli import app
from hfwarmup.measuring.critical_lr import critical_lr
from hfwarmup.measuring.range_test import RangeTest
from hfwarmup.trainer.find_lr import FoundLr, find_lr

SCRIPT = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, set_seed

from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.recipe.parsing import parse_arguments

warmup, args = parse_arguments(WarmupArguments, RecipeArguments)
set_seed(0)
sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
model = LlamaForCausalLM(LlamaConfig(vocab_size=16, max_position_embeddings=8, use_cache=False, **sizes))
rows = torch.randint(16, (64, 8), generator=torch.Generator().manual_seed(0))
data = [{"input_ids": row, "labels": row} for row in rows]
args = planned_arguments(args, warmup, plan_training(args, warmup, num_samples=len(data)))
Trainer(model=model, args=args, train_dataset=data).train()
raise SystemExit("trained")
"""
CONFIG = """\
output_dir: never
lr_scheduler_type: gradual_warmup
learning_rate: 0.02
warmup: 40
max_steps: 100
per_device_train_batch_size: 8
precision: fp32
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """A recipe of one's own, `mine.py`, with the config beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SCRIPT)
    path = tmp_path / "configs" / "mine" / "run.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CONFIG)
    return path


def run(*words: str):
    return CliRunner().invoke(app, ["find-lr", *words])


def test_it_reports_both_measurements_and_their_limits(config):
    result = run(str(config), "--range_updates", "12")
    assert result.exit_code == 0, result.output
    assert re.search(r"loss after one step of AdamW", result.stdout)
    found = re.search(r"critical learning rate eta_c = (\S+), between (\S+) and (\S+), (\d+) forward", result.stdout)
    eta_c, lower, upper, forwards = (float(text) for text in found.groups())
    assert lower < eta_c < upper
    assert forwards <= 12
    saved = float(re.search(r"forwards / 2 = (\S+) of 40 updates", result.stdout)[1])
    assert saved == pytest.approx(40 * min(1, eta_c / 0.02) - forwards / 2, abs=0.3)
    assert re.search(r"peaks to try: \S+ \(steepest fall\) to \S+ \(lowest loss\)|the loss never falls", result.stdout)
    assert "does not say" in result.stdout


def test_settings_win_and_the_range_test_can_be_left_out(config):
    result = run(str(config), "--range_updates", "0", "--optim", "sgd", "--learning_rate", "0.5")
    assert "one step of SGD" in result.stdout
    assert "the peak 0.5 is" in result.stdout
    assert "range test:" not in result.stdout


def test_it_leaves_no_folder_no_callback_and_no_argument(config):
    before = sys.argv, list(sys.path), set(transformers.trainer.DEFAULT_CALLBACKS)
    assert run(str(config), "--range_updates", "0").exit_code == 0
    assert (sys.argv, sys.path) == before[:2]
    assert len({*transformers.trainer.DEFAULT_CALLBACKS} - before[2]) <= 2  # those of register()
    assert sorted(path.name for path in config.parents[2].iterdir()) == ["configs", "mine.py"]


def test_the_picture(config, tmp_path):
    picture = tmp_path / "steps.png"
    assert run(str(config), "--range_updates", "8", "-o", str(picture)).exit_code == 0
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("below", "above", "said"),
    [
        (False, False, ""),
        (True, False, "; cut by the range that was tried: the fall may begin lower"),
        (True, True, "; cut by the range that was tried: the fall may begin lower, the loss may fall on above"),
    ],
)
def test_an_end_of_the_range_is_not_said_to_be_found(config, monkeypatch, below, above, said):
    points, ends = ((1e-3, 2.0), (1e-2, 1.5), (0.1, 1.0)), {"open_below": below, "open_above": above}
    found = FoundLr(
        critical=critical_lr(lambda lr: (1 - 7 * lr) ** 2, start=1.0, upper=10.0),
        range_test=RangeTest(points=points, steepest=1e-3, lowest=0.1, **ends),
        peak_lr=0.02,
        warmup_steps=40,
        optimizer="AdamW",
    )
    monkeypatch.setattr("hfwarmup.trainer.find_lr.find_lr", lambda *_, **__: found)
    lines = run(str(config)).stdout.splitlines()
    assert f"peaks to try: 0.001 (steepest fall) to 0.1 (lowest loss){said}" in lines


def test_measuring_moves_no_weight(config):
    """Two measurements in one process see the same model."""
    first, second = (
        find_lr(config.parents[2] / "mine.py", ["--config", str(config)], range_updates=5) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("place", "words", "message"),
    [
        ("elsewhere", [], r"^error: .*run.yaml: for which recipe\? Begin it with the line `# recipe: NAME`, or "
                          r"put it into configs/NAME/\.$"),
        ("mine", ["-o", "x.svg"], r"^error: output=x.svg: choose a name that ends in \.png\.$"),
        ("mine", ["-o", "nowhere/x.png"],  # before anything is measured
         r"^error: output=nowhere/x.png: there is no folder nowhere; make it, or choose another\.$"),
        ("mine", ["--range_updates", "2"], r"^error: range_updates=2: give 3 or more, or 0 for no range test\.$"),
        ("mine", ["--range_updates", "-1", "--learning_rate", "nonsense"],  # nothing else is read before
         r"^error: range_updates=-1: give 3 or more, or 0 for no range test\.$"),
    ],
)  # fmt: skip
def test_errors_are_one_line(config, place, words, message):
    moved = config.parents[1] / place / "run.yaml"
    moved.parent.mkdir(exist_ok=True)
    moved.write_text(CONFIG)
    result = run(str(moved), *words)
    assert re.match(message, str(result.exception))


@pytest.mark.parametrize("folder", ["configs/pretrain_clm", "."])
def test_a_config_that_is_not_there_is_said_at_once(folder):
    path = Path(folder, "none.yaml")
    message = f"error: {path}: no such config file; see configs/ for those that come with the recipes."
    assert run(str(path)).exception.code == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "FACTS = {'trainer': False}\n",
            r"mine.py: find-lr measures in a Trainer, and FACTS of this script say that it uses none\.$",
        ),
        ("from transformers import Trainer\n", r"mine.py: ended without training, so nothing was measured\.$"),
    ],
)
def test_a_script_that_does_not_train_is_an_error(tmp_path, source, message):
    script = tmp_path / "mine.py"
    script.write_text(source)
    with pytest.raises(ValueError, match=message):
        find_lr(script, [], range_updates=0)
