"""The table of the recipes: every recipe is in it, and a row says what its run left."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "recipes_table.py"))


def test_every_recipe_has_a_row_and_every_row_a_config():
    rows = SCRIPT["ROWS"]
    assert {row.recipe for row in rows} == {path.stem for path in (ROOT / "recipes").glob("*.py")}
    assert all((ROOT / "configs" / row.recipe / f"{row.config}.yaml").is_file() for row in rows)
    assert len({row.name for row in rows}) == len(rows)


def test_a_row_starts_from_the_checkpoint_of_one_before_it():
    rows = SCRIPT["ROWS"]
    for index, row in enumerate(rows):
        assert not row.start or row.start in [earlier.name for earlier in rows[:index]]
    scratch = next(row for row in rows if row.note == "from scratch")
    assert scratch.command(Path("f"), 2)[1:] == [
        "finetune_classification",
        "--config=configs/finetune_classification/stdlib.yaml",
        "--output_dir=f/finetune_classification-stdlib-scratch",
        "--model=",
        "--max_steps=2",
    ]


def test_the_table_of_a_run(tmp_path):
    row = SCRIPT["ROWS"][0]
    results = {"eval_loss": 4.3712, "eval_baseline_loss": 6.58, "train_runtime": 90.0}
    run = {"parameters": {"total": 4_123_456}, "scheduler": "warmup_cosine"}
    run |= {"world_size": 1, "threads_per_process": 2, "device": "cpu (x86_64)"}
    (tmp_path / row.name).mkdir()
    for name, content in {"all_results": results, "run": run}.items():
        (tmp_path / row.name / f"{name}.json").write_text(json.dumps(content))
    *_, line, blank, where = SCRIPT["table"]([row], tmp_path).splitlines()
    assert line == (
        "| `pretrain_clm` | the standard library's source | 4.1M | `warmup_cosine` | 1.5 | 4.371 nats a token "
        "| 6.580, token frequencies |"
    )
    assert (blank, where) == ("", "2 threads, cpu (x86_64)")
