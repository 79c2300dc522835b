"""`hfwarmup validate` finds what a run would find, in all configs at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "configs" / "pretrain_clm" / "smoke.yaml"


def run(*words):
    return CliRunner().invoke(app, ["validate", *map(str, words)])


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Writes a config of a recipe, and is its path from here."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, recipe: str = "pretrain_clm") -> Path:
        path = Path("configs", recipe, "run.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_every_mistake_of_every_file_is_said_and_the_status_is_1(config):
    bad, worse = config("learnign_rate: 1\nwarmup: 10\nwarmup_steps: 5\n"), config("num_unit: 3\n", "train_timeseries")
    checked = run(bad, SMOKE, worse)
    assert checked.exit_code == 1
    assert checked.stdout.splitlines() == [
        f"error: {bad}:1: unknown setting 'learnign_rate'; did you mean 'learning_rate'?",
        f"error: {bad}:2: warmup='10 steps' and warmup_steps=5 are both given; keep warmup.",
        f"{SMOKE}: no mistakes, for pretrain_clm",
        f"error: {worse}:1: unknown setting 'num_unit'; did you mean 'num_units'?",
    ]


def test_the_plans_warnings_are_shown(config):
    path = config("max_steps: 10_000\nwarmup: 10\nlr_scheduler_type: warmup_cosine\nreference_batch_size: 8\n")
    checked = run(path, "--num_processes", "2")
    assert checked.exit_code == 0
    first, *warnings = checked.stdout.splitlines()
    assert first == f"{path}: no mistakes, for pretrain_clm"
    assert [line.partition(", ")[0] for line in warnings] == [
        f"warning: {path}: warmup is 20 of 10000 steps (0.20%)",
        f"warning: {path}: lr_scaling=linear at k = 2 with optim=adamw_torch_fused: for Adam theory has sqrt(k) "
        "(Malladi et al. 2022",
    ]


def test_what_the_plan_refuses_is_a_mistake(config):
    path = config("max_steps: 10\ntarget_batch_size: 12\n")
    checked = run(path)
    assert checked.exit_code == 1
    assert checked.stdout.startswith("error: target_batch_size=12 is no multiple of 8 per device x 1 processes")


def test_a_number_that_no_run_can_have_is_a_mistake_with_its_line(config):
    path = config("max_steps: 10\nlearning_rate: -1\nreference_batch_size: 0\n")
    checked = run(path)
    assert checked.exit_code == 1
    assert checked.stdout.splitlines() == [
        f"error: {path}:2: learning_rate=-1.0: give a finite learning rate, 0 or more.",
        f"error: {path}:3: reference_batch_size=0: give a whole number, 1 or more.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_type: gpt9", "3: model_type='gpt9' is no architecture of transformers; did you mean 'gptj'?"),
        ("model_type: gpt2\nconfig_overrides: {n_emb: 64}",
         "4: config_overrides: gpt2 has no setting 'n_emb'; did you mean 'n_embd'?"),
        ("config_overrides: {hidden_size: 64}", "3: no model is named; "),
        ("model_type: llama\nconfig_overrides: {hidden_size: 64, num_attention_heads: 3}",
         "4: config_overrides={'hidden_size': 64, 'num_attention_heads': 3}: cannot build llama with them ("),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_is_a_mistake_with_its_line(config, text, said):
    path = config(f"max_steps: 10\nwarmup: 1\n{text}\n")
    checked = run(path)
    assert checked.exit_code == 1
    assert checked.stdout.startswith(f"error: {path}:{said}")
    assert checked.stdout.count("\n") == 1


def test_a_model_that_needs_the_tokens_of_its_tokenizer_is_no_mistake(config):
    """cwm takes no None for bos_token_id, and neomme no vocabulary of 0."""
    for model_type in ("cwm", "neomme"):
        assert run(config(f"max_steps: 10\nmodel_type: {model_type}\n")).exit_code == 0


def test_a_length_that_depends_on_the_data_is_planned_when_it_is_given(config):
    path = config("num_train_epochs: 1\nwarmup: 1\n")
    assert run(path).stdout.splitlines()[1].startswith("not planned: the run's length depends on the data")
    assert "warmup is 1 of 1250 steps (0.08%)" in run(path, "--num_samples", "10000").stdout


def test_the_recipe_is_that_of_the_folder_or_the_given_one(config, tmp_path):
    path = config("mlm_probability: 0.3\nmax_steps: 5\n")
    assert "a setting of pretrain_mlm; run that recipe" in run(path).stdout
    assert run(path, "--recipe", "pretrain_mlm").exit_code == 0
    loose = tmp_path / "loose.yaml"
    loose.write_text("max_steps: 5\n")
    assert run(loose).stdout == (
        f"error: {loose}: cannot tell which recipe this config is for; begin it with the line "
        "`# recipe: NAME`, put it into configs/NAME/, or "
        "give --recipe NAME.\n"
    )
    loose.write_text("# recipe: pretrain_mlm\nmax_steps: 5\n")
    assert run(loose).stdout.splitlines()[0] == f"{loose}: no mistakes, for pretrain_mlm"


def test_no_file_and_an_empty_file_are_named_as_such(config, tmp_path):
    none, empty, void = tmp_path / "none.yaml", tmp_path / "empty.yaml", config("# nothing yet\n")
    empty.write_text("")
    assert run(none, empty, void).stdout.splitlines() == [
        f"error: {none}: this config file does not exist; configs/ has those of the recipes.",
        f"error: {empty}: the file is empty; write settings, one `name: value` a line.",
        f"error: {void}: the file is empty; write settings, one `name: value` a line.",
    ]


def test_a_script_of_ones_own_judges_its_configs(config):
    Path("mine.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from hfwarmup.recipe import RecipeArguments, WarmupArguments\n"
        "@dataclass(kw_only=True)\n"
        "class Own:\n"
        "    depth: int = field(default=3)\n"
        "ARGUMENTS = (Own, WarmupArguments, RecipeArguments)\n"
    )
    path = config("depht: 4\nmax_steps: 5\n", "mine")
    assert run(path).stdout == f"error: {path}:1: unknown setting 'depht'; did you mean 'depth'?\n"
    Path("bare.py").write_text("")
    assert run(path, "--recipe", "bare.py").stdout == (
        "error: bare.py has no ARGUMENTS; define ARGUMENTS, the classes that it gives to parse_arguments.\n"
    )
    Path("needy.py").write_text("import nowhere_to_be_found\n")
    assert run(path, "--recipe", "needy.py").stdout.startswith(
        "error: needy.py needs nowhere_to_be_found, which is not"
    )
