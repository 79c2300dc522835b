"""The recipes' table in docs/benchmarks.md, from real runs: each default config through launch.sh, one after another.

    python benchmarks/recipes_table.py [--folder runs/table] [--only pretrain_mlm …] [--max_steps 2]

A checkpoint that one recipe makes is what the next one starts from. A finished run in the folder is read, not made
again, so a table that was interrupted goes on; `--max_steps` rehearses it in a folder of its own. The runs are silent
unless one fails. Minutes are those of the training with its evaluations.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = ("recipe", "data", "parameters", "schedule", "minutes", "result", "baseline")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, and what the table says of it."""

    recipe: str
    config: str = "stdlib"
    note: str = ""
    """what tells it from another row of the recipe; its first word names the run's folder"""
    start: str | None = None
    """the row's name whose checkpoint is fine-tuned; empty: a new model; None: as the config says"""
    data: str
    metric: str
    """a key of all_results.json; the baseline's has `baseline_` after the split"""
    unit: str
    baseline: str
    """what the baseline is"""

    @property
    def name(self) -> str:
        """The run's folder."""
        return "-".join([self.recipe, self.config, *self.note.split()[-1:]])

    def command(self, folder: Path, max_steps: int) -> list[str]:
        """The launch that makes the run."""
        flags = {"config": f"configs/{self.recipe}/{self.config}.yaml", "output_dir": folder / self.name}
        if self.start is not None:
            flags["model"] = folder / self.start if self.start else ""
        if max_steps:
            flags["max_steps"] = max_steps
        return ["./launch.sh", self.recipe, *(f"--{key}={value}" for key, value in flags.items())]

    def cells(self, folder: Path) -> Iterator[str]:
        """The table's cells, from the run's own files."""
        results, run = (
            json.loads((folder / self.name / file).read_text()) for file in ("all_results.json", "run.json")
        )
        split, _, metric = self.metric.partition("_")
        yield f"`{self.recipe}`" + (f", {self.note}" if self.note else "")
        yield self.data
        yield _short(run["parameters"]["total"])
        yield f"`{run['scheduler']}`"
        yield f"{results['train_runtime'] / 60:.1f}"
        yield f"{_round(results[self.metric])} {self.unit}"
        yield f"{_round(results[f'{split}_baseline_{metric}'])}, {self.baseline}"


PRETRAINING = {"data": "the standard library's source", "metric": "eval_loss", "baseline": "token frequencies"}
CLASSES = {"recipe": "finetune_classification", "data": "docstring to package", "metric": "eval_accuracy"}
CLASSES |= {"unit": "accuracy", "baseline": "the largest package"}
ENGINES = {"recipe": "train_timeseries", "data": "run-to-failure series", "metric": "test_rmse"}
ENGINES |= {"unit": "cycles RMSE", "baseline": "linear regression"}
ROWS = (
    Row(recipe="pretrain_clm", unit="nats a token", **PRETRAINING),
    Row(recipe="accelerate_loop", unit="nats a token", **PRETRAINING),
    Row(recipe="pretrain_mlm", unit="nats a masked token", **PRETRAINING),
    Row(note="pretrained", start="pretrain_mlm-stdlib", **CLASSES),
    Row(note="from scratch", start="", **CLASSES),
    Row(note="layer-wise, pretrained", config="layerwise", start="pretrain_mlm-stdlib", **CLASSES),
    Row(note="pretrained", config="plateau", start="pretrain_mlm-stdlib", **CLASSES),
    Row(
        recipe="finetune_sft",
        start="pretrain_clm-stdlib",
        data="docstring to code",
        metric="eval_loss",
        unit="nats a token",
        baseline="the untouched checkpoint",
    ),
    Row(
        recipe="train_seq2seq",
        data="function to its docstring's first line",
        metric="eval_rouge_l",
        unit="ROUGE-L",
        baseline="the function's name",
    ),
    Row(config="cmapss_like", **ENGINES),
    Row(config="plateau", **ENGINES),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "table", help="where the runs go")
    parser.add_argument("--only", nargs="+", default=[row.recipe for row in ROWS], metavar="RECIPE")
    parser.add_argument("--max_steps", type=int, default=0, help="updates a run; 0: as the configs say")
    options = parser.parse_args()
    rows = [row for row in ROWS if row.recipe in options.only]
    for row in rows:
        make(row, options.folder.resolve(), options.max_steps)
    print(table(rows, options.folder))


def make(row: Row, folder: Path, max_steps: int) -> None:
    """Make a run that is not there yet; one that fails ends the script with what it said last."""
    if (folder / row.name / "all_results.json").exists():
        print(f"{row.name}: is there", file=sys.stderr)
        return
    command = row.command(folder, max_steps)
    print(*command, file=sys.stderr, flush=True)
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{row.name}: exit status {run.returncode}\n" + "\n".join(run.stderr.splitlines()[-10:]))


def table(rows: Sequence[Row], folder: Path) -> str:
    """The rows in Markdown, and on how many cores they were made."""
    runs = [json.loads((folder / row.name / "run.json").read_text()) for row in rows]
    cores = sorted({run["world_size"] * run["threads_per_process"] for run in runs})
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells(folder) for row in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{' or '.join(map(str, cores))} threads, {' or '.join(sorted({run['device'] for run in runs}))}"


def _short(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count / 1e3:.0f}k"


def _round(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


if __name__ == "__main__":
    main()
