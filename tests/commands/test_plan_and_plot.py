"""The command line shows what will be trained, and what is wrong, without torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app
from hfwarmup.planning.recipe_files import recipe_names
from hfwarmup.schedules.named import SCHEDULES

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """\
learning_rate: 2e-3
warmup: "10%"
reference_batch_size: 16
per_device_train_batch_size: 16
max_steps: 100
lr_scheduler_type: warmup_linear
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


def run(*words: str):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_plan_gives_each_number_with_its_reason(config):
    assert run("plan", config, "--num_processes", "2").output.splitlines() == [
        "global batch 32 = 16 per device x 2 processes x 1 accumulation, k = 2 times the reference batch of 16",
        "peak_lr 0.002 -> 0.004: lr_scaling=linear (eta k, Goyal et al. 2017)",
        "warmup_steps 10 (10%) -> 20: warmup_scaling=linear (T_w k steps, the ramp climbs at the same rate a step)",
        "warmup is 20 of 100 steps (20.0%), 640 samples",
        "schedule warmup_linear: learning rate 1e-07 at update 0, 0.004 at update 20, 5e-05 at update 99",
        "warning: lr_scaling=linear at k = 2 with optim=adamw_torch_fused: for Adam theory has sqrt(k) (Malladi et al. "
        "2022, arXiv:2205.10287; Li et al. 2024, arXiv:2405.14578); compare with lr_scaling: sqrt.",
    ]


def test_plan_is_json_for_programs(config):
    plan = json.loads(run("plan", config, "--json", "--learning_rate", "1e-3").output)
    assert (plan["peak_lr"], plan["warmup_steps"], plan["total_steps"]) == (1e-3, 10, 100)
    plans = json.loads(run("plan", config, "--json", "--num_processes", "1,2,4").output)
    assert [each["global_batch_size"] for each in plans] == [16, 32, 64]
    assert [each["num_processes"] for each in plans] == [1, 2, 4]
    assert plans[1]["reasons"] == run("plan", config, "--num_processes", "2").output.splitlines()[:-1]
    assert [plans[1][name] for name in ("schedule", "first_lr", "peak_lr", "last_lr")] == [
        "warmup_linear", 1e-7, 4e-3, pytest.approx(4e-3 / 80)
    ]  # fmt: skip


def test_plan_puts_several_numbers_of_processes_side_by_side(config):
    rows = {
        line[:20].strip(): line[20:].split()
        for line in run("plan", config, "--num_processes", "1,8").output.splitlines()
    }
    assert rows["global batch"] == ["16", "128"]
    assert rows["peak learning rate"] == ["0.002", "0.016"]
    assert rows["warmup steps"] == ["10", "50"]  # 80 are cut to half of the run
    assert any(key.startswith("warning, 8 processes") for key in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learnign_rate", "1"], "error: unknown setting 'learnign_rate'; did you mean 'learning_rate'?"),
        (["--num_processes", "two"], "error: num_processes='two': give whole numbers, 1 or more, such as 1,8,64."),
        (["--warmup", "1.0"], "error: duration '1.0' can be read as '1 step' or as '100%'; write the one you mean."),
        (["--learning_rate", "abc"], "error: learning_rate='abc': give a number."),
        (["--lr_scheduler_kwargs", "3"], "error: lr_scheduler_kwargs='3': give a map of settings."),
        (["--lr", "1e-3"], "error: unknown setting 'lr'; write learning_rate: 0.001."),
        (["stray"], "error: unexpected argument 'stray'; write --name value."),
        (["--config", "b.yaml"], "error: config is given 2 times, b.yaml and {config}; keep one file."),
        (["--num_processes", "²"], "error: num_processes='²': give whole numbers, 1 or more, such as 1,8,64."),
        (
            ["--lr_scheduler_kwargs", '{"on_lr_mismatch": "eror"}'],
            "error: on_lr_mismatch='eror'; did you mean 'error'? Choose one of warn, error.",
        ),
    ],
)
def test_a_mistake_is_one_line(config, words, message):
    assert run("plan", config, *words).exception.code == message.replace("{config}", str(config))


def test_h_is_help_and_no_setting(config):
    assert "--num_processes" in run("plan", config, "-h").output


def test_a_key_that_is_no_text_is_one_line(config):
    config.write_text(CONFIG + "lr_scheduler_kwargs: {1: 2}\n")
    assert run("plan", config).exception.code == (
        f"error: {config}:7: lr_scheduler_kwargs={{1: 2}}: each name in a map is text; write it in quotes."
    )


def test_plot_says_the_same_of_a_value_of_a_wrong_kind(config):
    found = run("plot", config, "--lr_scheduler_kwargs", "3", "--per_device_train_batch_size", "eight").exception
    assert found.code.splitlines() == [
        "error: lr_scheduler_kwargs='3': give a map of settings.",
        "error: per_device_train_batch_size='eight': give a whole number.",
    ]


def test_every_slip_in_the_file_is_said_with_its_line(config):
    config.write_text(CONFIG + "warmup_ratio: 0.1\nlearnign_rate: 1\nmax_steps: 5\nmetric_for_best_model: loss\n")
    assert run("plan", config).exception.code.splitlines() == [
        f"error: {config}:7: unknown setting 'warmup_ratio'; write warmup: \"10%\" "
        "(transformers 5 has no warmup_ratio).",
        f"error: {config}:8: unknown setting 'learnign_rate'; did you mean 'learning_rate'?",
        f"error: {config}:9: 'max_steps' is also in line 5; keep one of the two.",
    ]


def test_a_schedule_of_transformers_is_planned_without_its_curve(config):
    plan = json.loads(run("plan", config, "--json", "--lr_scheduler_type", "cosine").output)
    assert (plan["schedule"], plan["first_lr"], plan["warmup_steps"]) == ("cosine", None, 10)
    assert (
        "first learning rate"
        not in run("plan", config, "--lr_scheduler_type", "cosine", "--num_processes", "1,2").output
    )


def test_tokens_are_counted_where_every_sample_has_as_many():
    packed, padded = (ROOT / "configs" / name / "smoke.yaml" for name in ("pretrain_clm", "finetune_sft"))
    tokens = [json.loads(run("plan", path, "--json").output)["warmup_tokens"] for path in (packed, padded)]
    assert tokens == [10 * 8 * 64, None]


def test_a_run_in_epochs_needs_the_number_of_samples(config):
    words = ["plan", config, "--max_steps", "-1", "--num_train_epochs", "2"]
    assert run(*words).exception.code == (
        "error: num_train_epochs=2 depends on the data; give --num_samples (the size of the training set), or "
        "max_steps."
    )
    # 2 epochs of 320 samples in batches of 16
    assert json.loads(run(*words, "--num_samples", "320", "--json").output)["total_steps"] == 40


def test_a_warmup_in_epochs_needs_the_number_of_samples(config):
    words = ["plan", config, "--warmup", "2epochs"]
    assert run(*words).exception.code == (
        "error: warmup='2 epochs' depends on the data; give --num_samples (the size of the training set), or a warmup "
        "in steps."
    )
    assert json.loads(run(*words, "--num_samples", "320", "--json").output)["warmup_steps"] == 40  # 320 / 16 an epoch
    assert json.loads(run("plan", config, "--warmup", "0 epochs", "--json").output)["warmup_steps"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_steps", "-3"], "max_steps=-3: give a whole number of updates, or -1 for a run of num_train_epochs."),
        (["--num_samples", "-5", "--max_steps", "-1"], "num_samples=-5: give a whole number, 1 or more."),
    ],
)
def test_a_count_that_no_run_has_is_named_as_it_was_given(config, words, message):
    assert run("plan", config, *words).exception.code == f"error: {message}"


def test_plot_csv_holds_every_update(config, tmp_path):
    run("plot", config, "-o", tmp_path / "curve.csv", "--lr_scheduler_kwargs", '{"initial_lr": 0}')
    header, *rows = list(csv.reader((tmp_path / "curve.csv").read_text().splitlines()))
    assert header == ["update", "run"]
    rates = [float(rate) for _, rate in rows]
    assert rates == [2e-3 * (t / 10 if t < 10 else (100 - t) / 90) for t in range(100)]


def test_plot_keeps_configs_of_one_name_apart(config, tmp_path):
    other = tmp_path / "other" / "run.yaml"
    other.parent.mkdir()
    other.write_text(CONFIG.replace("2e-3", "4e-3"))
    run("plot", config, other, ROOT / "configs/pretrain_clm/smoke.yaml", "-o", tmp_path / "curves.csv")
    header, *rows = list(csv.reader((tmp_path / "curves.csv").read_text().splitlines()))
    assert header == ["update", str(config), str(other), "smoke"]
    assert [float(rate) for rate in rows[10][1:3]] == [2e-3, 4e-3]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_writes_pictures(config, tmp_path, suffix):
    assert run("plot", config, "-o", tmp_path / f"curve.{suffix}").exit_code == 0
    assert (tmp_path / f"curve.{suffix}").read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_plot_as_text_marks_the_end_of_the_warmup(config):
    *_, axis, ticks = run("plot", config).output.splitlines()
    assert axis.index("┬") - axis.index("└") - 1 == 10 * 72 // 100
    assert ticks.split()[:3] == ["0", "10", "100"]


def test_a_schedule_of_transformers_is_not_drawn(config):
    """Nor is linear, which is transformers' default where a config names none."""
    config.write_text(CONFIG.replace("lr_scheduler_type: warmup_linear\n", ""))
    for name, words in (("cosine", ["--lr_scheduler_type", "cosine"]), ("linear", [])):
        assert run("plot", config, *words).exception.code == (
            f"error: {config}: {name} is a schedule of transformers and is not drawn; set lr_scheduler_type to a name "
            "of `hfwarmup list`, such as warmup_linear."
        )
        assert run("plan", config, *words).output.splitlines()[-1] == f"schedule {name}, transformers' own"


@pytest.mark.parametrize("columns", [80, 200])
def test_list_names_every_recipe_and_every_schedule(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    output = run("list").output
    entries = [line[2:].split()[0] for line in output.splitlines() if line.startswith("  ") and line[2] != " "]
    assert entries == [*recipe_names(), *SCHEDULES]
    assert max(len(line) for line in output.splitlines() if line.startswith("  ")) <= columns


def test_plan_and_plot_load_neither_torch_nor_transformers(config, tmp_path):
    code = (
        "import sys; from hfwarmup.cli import app\n"
        f"config = {str(config)!r}\n"
        "for words in (['plan', config], ['plot', config], ['plot', config, '-o', 'c.svg']):\n"
        "    app(words, standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


RECIPES = [path for path in sorted((ROOT / "configs").glob("*/*.yaml")) if path.parent.name != "accelerate"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_plan_reads_every_config(path):
    assert run("plan", path, "--num_samples", "10000").output.startswith("global batch")


def test_a_start_that_is_measured_is_said_to_be_unknown(config):
    """What is shown is the whole warmup."""
    words = ["--lr_scheduler_kwargs", '{"initial_lr": "auto"}']
    assert run("plan", config, *words).output.splitlines()[-1] == (
        "initial_lr auto: the start is measured when the run begins; a critical learning rate eta_c shortens the "
        "warmup to warmup_steps (1 - eta_c / peak). The whole warmup is shown here; see hfwarmup find-lr."
    )
    assert run("plot", config, *words).output.startswith("run (initial_lr auto: at most): warmup_linear")
    plan = json.loads(run("plan", config, *words, "--json").output)
    assert (plan["warmup_steps"], plan["first_lr"]) == (10, None)
