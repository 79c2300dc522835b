"""Does a killed run end as if nothing had happened? kill -9 at random updates, resume, compare to the last bit.

    python benchmarks/kill_drill.py [--recipes pretrain_clm …] [--kills 20] [--seed 0] [--folder FOLDER]

Each recipe runs its `smoke.yaml` once without interruption. Then runs of the same configuration are started through
launch.sh, their whole process group is killed at a random update, and `--resume auto` goes on to the end: the learning
rate of every update and the final weights must be those of the first run. The first kill of each recipe is at an update
that saves, and a kill at such an update comes while the checkpoint is being written. The exit status is 1 if any run
differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPES = (
    "pretrain_clm",
    "pretrain_mlm",
    "finetune_classification",
    "finetune_sft",
    "train_seq2seq",
    "train_timeseries",
    "accelerate_loop",
)
POLL_SECONDS = 0.002
A_LOGGED_UPDATE = re.compile(r"update \d+ of \d+: loss ")
"""How a recipe says an update, with logging_steps=1."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a run has left behind."""

    learning_rates: str
    """The lines of learning_rates.csv: update, planned, applied."""
    weights: str
    """sha256 over the files of weights."""

    @property
    def num_updates(self) -> int:
        return len(self.learning_rates.splitlines()) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--kills", type=int, default=20, help="in all, the recipes in turn")
    parser.add_argument("--save_steps", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs go; empty: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if any(folder.glob("*")):
            sys.exit(f"--folder {folder} is not empty; name a new one.")
        sys.exit(0 if drill(options.recipes, options.kills, options.save_steps, options.seed, folder) else 1)


def drill(recipes: Sequence[str], kills: int, save_steps: int, seed: int, folder: Path) -> bool:
    """Whether all killed runs ended as the uninterrupted one of their recipe did."""
    rng = random.Random(seed)
    expected = {}
    for recipe in recipes[:kills]:
        run = Run(recipe, folder / recipe / "uninterrupted", save_steps)
        problem = run.finish()
        if problem:
            print(f"{recipe}: the uninterrupted run failed: {problem}")
            return False
        expected[recipe] = run.ending()
        print(f"{recipe}: {expected[recipe].num_updates} updates, weights {expected[recipe].weights[:12]}", flush=True)
    identical = 0
    for kill in range(kills):
        recipe = recipes[kill % len(recipes)]
        run = Run(recipe, folder / recipe / f"killed-{kill}", save_steps)
        num_updates = expected[recipe].num_updates
        saving = kill < len(recipes)  # the first kill of each recipe
        update = rng.randrange(save_steps, num_updates, save_steps) if saving else rng.randrange(num_updates)
        problem = run.kill_at(update)
        left = run.last_checkpoint()
        problem = problem or run.finish() or difference(run.ending(), expected[recipe])
        identical += not problem
        verdict = problem or "learning rates and weights identical"
        print(f"{kill + 1:2} {recipe}: killed after update {update} with {left}: {verdict}", flush=True)
    print(f"{identical} of {kills} killed runs ended with identical learning rates and weights")
    return identical == kills


class Run:
    """One run of a recipe's smoke.yaml in its own folder."""

    def __init__(self, recipe: str, folder: Path, save_steps: int) -> None:
        self.folder, self.save_steps = folder, save_steps
        settings = {"config": ROOT / "configs" / recipe / "smoke.yaml", "output_dir": folder, "save_steps": save_steps}
        settings |= {"save_strategy": "steps", "logging_steps": 1, "disable_tqdm": "true", "resume": "auto"}
        flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        self.command = [str(ROOT / "launch.sh"), recipe, *flags]
        self.environment = {"HFWARMUP_PYTHON": sys.executable, "NUM_PROCESSES": "1", **os.environ}
        self.environment["PYTHONUNBUFFERED"] = "1"  # an update is seen when it is made

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, to be killed whole
        )

    def finish(self) -> str:
        """Run to the end, from the last checkpoint if there is one. Returns what went wrong, or nothing."""
        process = self.start()
        output = process.communicate()[0]
        return "" if process.returncode == 0 else (output.strip().splitlines() or ["no output"])[-1]

    def kill_at(self, update: int) -> str:
        """Start, and kill -9 as soon as `update` updates are logged, or the checkpoint of this update appears.

        Returns what went wrong, or nothing.
        """
        process = self.start()
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen += bool(A_LOGGED_UPDATE.match(line))
            if seen == update and (seen or line.startswith("schedule ")):
                break
        checkpoint = self.folder / f"checkpoint-{update}"
        while update and update % self.save_steps == 0 and process.poll() is None and not checkpoint.exists():
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.read()  # ends when the last process of the group has gone
        return "" if process.wait() == -signal.SIGKILL else f"ended by itself with status {process.returncode}"

    def last_checkpoint(self) -> str:
        """The last one, and whether the Trainer had time to finish it: its state comes last."""
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        if not found:
            return "no checkpoint"
        return found[-1].name + ("" if (found[-1] / "trainer_state.json").exists() else " half-written")

    def ending(self) -> Ending:
        digest = hashlib.sha256()
        for path in sorted(self.folder.glob("*model*.safetensors")):
            digest.update(path.read_bytes())
        return Ending(learning_rates=(self.folder / "learning_rates.csv").read_text(), weights=digest.hexdigest())


def difference(found: Ending, expected: Ending) -> str:
    """What a run ended with that it should not have; nothing when the two are the same."""
    differing = [name for name in ("learning_rates", "weights") if getattr(found, name) != getattr(expected, name)]
    return f"DIFFERENT {' and '.join(differing)}" if differing else ""


if __name__ == "__main__":
    main()
