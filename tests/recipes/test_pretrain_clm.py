"""The recipe as its users start it: what it says, what it leaves behind, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import hfwarmup
from hfwarmup.cli import app
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.parsing import parse_arguments

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "pretrain_clm.py"
CONFIGS = ROOT / "configs" / "pretrain_clm"
PEAK, START, WARMUP, UPDATES = 1e-3, 1e-7, 3, 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Forty files of words, with some order in them."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(100)]
    for index in range(40):
        (folder / f"{index:02}.txt").write_text(" ".join(rng.choices(words, k=300)))
    return folder


@pytest.fixture(scope="module")
def flags(corpus, tmp_path_factory):
    """The flags that make the smoke run smaller still: 12 updates, 3 of them warmup, checkpoints at 6 and 12."""
    cache = tmp_path_factory.mktemp("cache")

    def make(output_dir, **own) -> list[str]:
        settings = {
            "config": CONFIGS / "smoke.yaml",
            "dataset": corpus,
            "output_dir": output_dir,
            "vocab_size": 300,
            "block_size": 32,
            "precision": "fp32",
            "learning_rate": PEAK,
            "warmup": WARMUP,
            "max_steps": UPDATES,
            "logging_steps": 1,
            "eval_steps": 6,
            "save_steps": 6,
            "disable_tqdm": "true",
            "use_cpu": "true",
            **own,
        }
        return [word for name, value in settings.items() for word in (f"--{name}", str(value))]

    make.cache = cache
    return make


@pytest.fixture(scope="module")
def launch(flags):
    """Runs launch.sh with this interpreter, as a user would."""

    def run(output_dir, *more: str, num_processes: int = 1, **own) -> subprocess.CompletedProcess:
        launchers = ("ACCELERATE_", "NUM_", "MACHINE_", "MAIN_PROCESS_", "SLURM_", "MIXED_", "OMP_", "MALLOC_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
        env = {
            **clean,
            "HFWARMUP_PYTHON": sys.executable,
            "NUM_PROCESSES": str(num_processes),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_DATASETS_CACHE": str(flags.cache),
            "HF_HUB_OFFLINE": "1",
        }
        command = [ROOT / "launch.sh", "pretrain_clm", *flags(output_dir, **own), *more]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
            try:
                stdout, stderr = process.communicate(timeout=150)
            except subprocess.TimeoutExpired:  # asked to end, the launcher ends its ranks; killed, it would leave them
                process.terminate()
                _, stderr = process.communicate(timeout=60)
                pytest.fail(f"the launch did not end:\n{stderr}")
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    return run


@pytest.fixture
def recipe(flags, monkeypatch, own_process_state):
    """Runs the recipe in this process and returns what it ends with."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", flags.cache)

    def run(output_dir, **own) -> str:
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *flags(output_dir, **own)])
        try:
            runpy.run_path(str(RECIPE), run_name="__main__")
        except SystemExit as exit_:
            return str(exit_.code)  # what Python prints on the way out
        return ""

    return run


def rates_of(folder: Path) -> list[float]:
    with (folder / "learning_rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == list(range(len(rows)))
    assert [row["planned"] for row in rows] == [row["applied"] for row in rows]
    return [float(row["applied"]) for row in rows]


def exponential(peak: float, warmup_steps: int) -> list[float]:
    return [peak * (START / peak) ** max(0.0, 1 - t / warmup_steps) for t in range(UPDATES)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# One process


@pytest.fixture(scope="module")
def one(launch, tmp_path_factory):
    """A finished run of one process: (what the launcher returned, the run's folder)."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    return launch(folder), folder


def test_the_plan_is_what_the_command_says(one, flags):
    result, folder = one
    _, config, *words = flags(folder)
    said = CliRunner().invoke(app, ["plan", *map(str, [config, *words])])
    assert said.exit_code == 0, said.output
    assert said.output in result.stderr


def test_a_run_succeeds_and_says_its_plan(one):
    result, _ = one
    assert result.returncode == 0, result.stderr
    said = result.stderr.splitlines()
    for line in (
        "precision fp32: as asked for",
        "global batch 8 = 8 per device x 1 processes x 1 accumulation, k = 1 times the reference batch of 8",
        "peak_lr 0.001",
        "warmup_steps 3",
        "warmup is 3 of 12 steps (25.0%), 24 samples, 768 tokens",
        "torch_compile false: as asked for",
        "schedule exponential_warmup: learning rate 1e-07 at update 0, 0.001 at update 3, 0.001 at update 11",
    ):
        assert said.count(line) == 1, line
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr


def test_the_last_lines_say_where_everything_is(one):
    result, folder = one
    *_, loss, model, metrics, pictures, card, report = result.stderr.splitlines()
    assert re.match(
        r"validation loss \d\.\d{3} nats a token, .*\d+\.\d{3} bits a byte; .* a uniform guess 5\.70$", loss
    )  # ln 300
    assert model.split() == ["model", str(folder / "model.safetensors")]
    assert metrics.split() == ["metrics", str(folder / "all_results.json")]
    assert pictures.split() == ["pictures", str(folder / "schedule.png"), str(folder / "loss.png")]
    assert card.split() == ["card", str(folder / "README.md")]
    assert report == f"to look at it: hfwarmup report {folder}"
    for path in (model, card, metrics, *pictures.split()[1:]):
        assert Path(path.split()[-1]).stat().st_size


def test_a_run_leaves_a_model_metrics_and_its_learning_rates(one):
    _, folder = one
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size == 300
    results = json.loads((folder / "all_results.json").read_text())
    assert results["eval_perplexity"] == pytest.approx(math.exp(results["eval_loss"]))
    assert results["eval_loss"] < math.log(300)
    assert results["eval_bits_per_byte"] < results["eval_loss"] / math.log(2)  # a token has more than one byte
    assert {"train_loss", "train_runtime"} <= set(results)
    assert rates_of(folder) == pytest.approx(exponential(PEAK, WARMUP), rel=1e-12)
    assert {"checkpoint-6", "checkpoint-12", "trainer_state.json", "training_args.bin"} <= set(os.listdir(folder))


def test_a_second_launch_into_the_same_folder_is_refused_and_touches_nothing(one, launch):
    _, folder = one
    before = contents(folder)
    result = launch(folder)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == (
        f"error: output_dir={folder} holds a run already; choose another output_dir, or go on from its last checkpoint "
        "with resume=auto."
    )
    assert "Traceback" not in result.stderr
    assert contents(folder) == before


# Two processes


def test_two_processes_double_batch_peak_and_warmup_and_apply_the_same_rates(launch, tmp_path):
    result = launch(tmp_path / "two", num_processes=2)
    assert result.returncode == 0, result.stderr
    said = result.stderr.splitlines()
    for line in (
        "global batch 16 = 8 per device x 2 processes x 1 accumulation, k = 2 times the reference batch of 8",
        "peak_lr 0.001 -> 0.002: lr_scaling=linear (eta k, Goyal et al. 2017)",
        "warmup_steps 3 -> 6: warmup_scaling=linear (T_w k steps, the ramp climbs at the same rate a step)",
        "warmup is 6 of 12 steps (50.0%), 96 samples, 3,072 tokens",
        f"all 2 ranks applied the same {UPDATES} learning rates",
    ):
        assert said.count(line) == 1, line
    for start in ("peak_lr 0.001 -> 0.002: ", "warmup_steps 3 -> 6: "):
        assert sum(line.startswith(start) for line in said) == 1, start
    assert rates_of(tmp_path / "two") == pytest.approx(exponential(2 * PEAK, 2 * WARMUP), rel=1e-12)
    assert "Traceback" not in result.stderr


# Resuming


def test_a_resumed_run_ends_with_the_same_weights(recipe, tmp_path):
    assert recipe(tmp_path / "run") == ""
    whole = contents(tmp_path / "run")
    for path in (tmp_path / "run").iterdir():  # as if the run had been cut off after its first checkpoint
        if path.name != "checkpoint-6":
            path.rename(tmp_path / path.name)
    assert recipe(tmp_path / "run", resume="auto") == ""
    resumed = contents(tmp_path / "run")
    assert resumed["model.safetensors"] == whole["model.safetensors"]
    last = "checkpoint-12/model.safetensors"
    assert resumed[last] == whole[last] != whole["checkpoint-6/model.safetensors"]


def test_a_finished_run_that_is_resumed_makes_no_further_update(recipe, tmp_path):
    """As a job that is queued again after its end does."""
    assert recipe(tmp_path / "run", max_steps=6) == ""
    before = contents(tmp_path / "run")
    assert recipe(tmp_path / "run", max_steps=6, resume="auto") == ""
    after = contents(tmp_path / "run")
    for name in ("learning_rates.csv", "model.safetensors"):
        assert after[name] == before[name]


def test_a_changed_schedule_stops_the_resumed_run_in_one_line(recipe, tmp_path):
    assert recipe(tmp_path / "run", max_steps=6, eval_steps=3, save_steps=3) == ""
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")  # a finished run would not be trained at all
    said = recipe(tmp_path / "run", max_steps=6, eval_steps=3, save_steps=3, resume="auto", learning_rate=2e-3)
    assert said.startswith("error: schedule changed since the checkpoint at update 3: learning_rate 0.001 -> 0.002; ")
    assert "\n" not in said


def test_must_without_a_checkpoint_is_refused(recipe, tmp_path):
    said = recipe(tmp_path / "run", resume="must")
    assert said == (
        f"error: resume=must, and {tmp_path}/run has no checkpoint; give the run's own output_dir, or resume=auto."
    )
    assert not (tmp_path / "run").exists()


# Errors


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"learnign_rate": 1}, "unknown setting 'learnign_rate'; did you mean 'learning_rate'?"),
        ({"model_type": "lama"}, "model_type='lama' is no architecture of transformers; did you mean 'llama'?"),
        (
            {"config_overrides": '{"n_embed": 8}'},
            "config_overrides: gpt2 has no setting 'n_embed'; did you mean 'n_embd'?",
        ),
        ({"warmup": "5 lightyears"}, "duration '5 lightyears' has the unknown unit 'lightyears'"),
        ({"warmup": "5%", "warmup_steps": 5}, "warmup='5%' and warmup_steps=5 are both given; keep warmup."),
        (
            {"lr_scheduler_kwargs": '{"final_ratio": 0.1}'},
            "'exponential_warmup' does not read 'final_ratio' with warmup_shape='exponential' and decay='constant'",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(own, said, recipe, tmp_path):
    ending = recipe(tmp_path / "run", **own)
    assert ending.startswith(f"error: {said}")
    assert "\n" not in ending


def test_a_warmup_longer_than_the_run_is_cut_and_that_is_said(recipe, tmp_path, capsys):
    assert recipe(tmp_path / "run", warmup=20) == ""
    assert rates_of(tmp_path / "run") == pytest.approx(exponential(PEAK, 6), rel=1e-12)
    assert "warning: warmup_steps 20 -> 6: cut to max_warmup_fraction=0.5 of 12 steps" in capsys.readouterr().err


def test_a_corpus_smaller_than_a_batch_is_trained_on_or_refused_in_one_line(recipe, tmp_path):
    """Two blocks of text and a batch of 8."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("once upon a time " * 12)
    said = recipe(tmp_path / "run", dataset=tmp_path, validation_fraction=0.5, max_steps=2)
    assert said == "" or re.fullmatch(r"error: [^\n]+", said)


@pytest.mark.parametrize("config", ["gi_adam", "radam", "schedule_free"])
def test_another_optimizer_by_name_trains_and_resumes(config, recipe, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    small = {
        "config": CONFIGS / f"{config}.yaml",
        "config_overrides": '{"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, '
        '"num_attention_heads": 1, "num_key_value_heads": 1}',
        "per_device_train_batch_size": 2,
        "warmup": 1 if config == "schedule_free" else 0,
        "max_steps": 4,
        "save_steps": 2,
        "eval_steps": 4,
    }
    assert recipe(whole, **small) == ""
    shutil.copytree(whole / "checkpoint-2", parts / "checkpoint-2")
    assert recipe(parts, **small, resume="must") == ""
    assert rates_of(whole)[0] == (START if config == "schedule_free" else PEAK / 8)  # batch 2 of 16
    torch.testing.assert_close(load_file(parts / "model.safetensors"), load_file(whole / "model.safetensors"))


def test_a_model_that_is_broken_stops_before_its_weights_change(one, recipe, tmp_path):
    """One weight of the embedding is not a number: the first loss is not either."""
    _, trained = one
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "generation_config.json"):
        (broken / name).write_bytes((trained / name).read_bytes())
    weights = load_file(trained / "model.safetensors")
    weights["transformer.wte.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    own = {"model": broken, "config_overrides": "{}", "tokenizer": trained}
    said = recipe(tmp_path / "run", **own)
    assert said == (
        "error: update 0: the loss or its gradient is not finite (gradient norm nan, learning rate 1e-07); stopped "
        "before the weights changed; lower learning_rate or lengthen warmup."
    )
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_learning_rate_that_is_absurd_stops_the_run(recipe, tmp_path):
    own = {"learning_rate": 1e38, "warmup": 1, "max_grad_norm": 0, "optim": "sgd"}
    said = recipe(tmp_path / "run", **own)
    assert re.fullmatch(
        r"error: update [1-9]\d*: the loss or its gradient is not finite \(gradient norm \w+, [^\n]+", said
    )


# The configs


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_parses(config, monkeypatch):
    hfwarmup.register()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    types = (ModelArguments, DataArguments, WarmupArguments, RecipeArguments)
    model, data, warmup, training = parse_arguments(*types, argv=["--config", str(config), "--use_cpu", "true"])
    assert Path(training.output_dir) == Path("runs", "pretrain_clm", config.stem)
    assert training.lr_scheduler_type.value in hfwarmup.schedules.named.SCHEDULES
    assert warmup.warmup != ""
    assert warmup.reference_batch_size
    assert hfwarmup.parse_duration(warmup.warmup).amount > 0 or training.optim.value in ("gi_adamw", "radam")
    assert data.dataset
    assert model.model or model.model_type
