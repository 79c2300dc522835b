"""Does pretraining pay at equal steps? `finetune_classification` from the encoder of pretrain_mlm and from scratch.

    ./launch.sh pretrain_mlm --config configs/pretrain_mlm/stdlib.yaml
    python benchmarks/warm_start.py [--encoder runs/pretrain_mlm/stdlib] [--folder runs/warm_start] [--workers 2]

Both starts get the same search: every peak learning rate with every weight decay at one seed. The best of each is then
run with other seeds, which had no part in choosing it, though the validation files are the same. A finished run in the
folder is read, not made again. The classes and the validation files are those of the recipe's default config.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEAKS, DECAYS = (1e-3, 2e-3, 4e-3, 8e-3), (0.01, 1.0, 2.0)
SEARCH_SEED, SEEDS = 0, (1, 2, 3)
STARTS = ("pretrained", "scratch")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuning of the default config."""

    start: str
    peak: float
    decay: float
    seed: int

    def make(self, folder: Path, encoder: Path) -> float:
        """Its validation accuracy; a run that fails ends the script with what it said last."""
        output = folder / f"{self.start}-{self.peak:g}-{self.decay:g}-{self.seed}"
        results = output / "all_results.json"
        if not results.exists():
            flags = {
                "config": "configs/finetune_classification/stdlib.yaml",
                "output_dir": output,
                "model": encoder if self.start == "pretrained" else "",
                "learning_rate": self.peak,
                "weight_decay": self.decay,
                "seed": self.seed,
                "save_strategy": "no",
            }
            words = ["./launch.sh", "finetune_classification", *(f"--{name}={value}" for name, value in flags.items())]
            run = subprocess.run(
                words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
            )
            if run.returncode:
                sys.exit(f"{output.name}: exit status {run.returncode}\n" + "\n".join(run.stderr.splitlines()[-10:]))
        accuracy = float(json.loads(results.read_text())["eval_accuracy"])
        print(f"{output.name}: {accuracy:.3f}", file=sys.stderr, flush=True)
        return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, default=ROOT / "runs/pretrain_mlm/stdlib")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/warm_start", help="where the runs go")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    options = parser.parse_args()
    encoder, folder = options.encoder.resolve(), options.folder.resolve()
    with ThreadPoolExecutor(options.workers) as pool:
        grid = [
            Run(start=start, peak=peak, decay=decay, seed=SEARCH_SEED)
            for start, peak, decay in product(STARTS, PEAKS, DECAYS)
        ]
        searched = dict(zip(grid, pool.map(lambda run: run.make(folder, encoder), grid), strict=True))
        best = [max((run for run in grid if run.start == start), key=lambda run: searched[run]) for start in STARTS]
        again = [Run(start=run.start, peak=run.peak, decay=run.decay, seed=seed) for run, seed in product(best, SEEDS)]
        repeated = dict(zip(again, pool.map(lambda run: run.make(folder, encoder), again), strict=True))
    print(grid_table(searched), seeds_table(best, repeated), sep="\n\n")


def grid_table(searched: dict[Run, float]) -> str:
    """Validation accuracy at the seed of the search, a column a peak."""
    lines = ["| start | weight decay | " + " | ".join(f"peak {peak:g}" for peak in PEAKS) + " |"]
    lines += ["|---" * (len(PEAKS) + 2) + "|"]
    for start, decay in product(STARTS, DECAYS):
        row = [searched[Run(start=start, peak=peak, decay=decay, seed=SEARCH_SEED)] for peak in PEAKS]
        lines.append(f"| {start} | {decay:g} | " + " | ".join(f"{accuracy:.3f}" for accuracy in row) + " |")
    return "\n".join(lines)


def seeds_table(best: list[Run], repeated: dict[Run, float]) -> str:
    """Validation accuracy of each start's best cell with the other seeds."""
    lines = ["| start | peak | weight decay | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean |"]
    lines += ["|---" * (len(SEEDS) + 4) + "|"]
    for run in best:
        row = [repeated[Run(start=run.start, peak=run.peak, decay=run.decay, seed=seed)] for seed in SEEDS]
        numbers = " | ".join(f"{accuracy:.3f}" for accuracy in (*row, statistics.fmean(row)))
        lines.append(f"| {run.start} | {run.peak:g} | {run.decay:g} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
