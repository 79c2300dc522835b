"""A new shape and a new name are one entry of one file each: added to a copy of the package, they work everywhere.

The entries are made as CONTRIBUTING.md says.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hfwarmup"

WARMUP_STEPS, TOTAL_STEPS = 10, 110

ENTRIES = {
    "decay": (
        "schedules/decay_shapes.py",
        "DECAY_SHAPES: dict[str, DecayShape] = {\n",
        """
def quarter_cosine(decay_steps: int, power: float) -> Height:
    return lambda n: math.cos(math.pi / 2 * n / decay_steps) ** power


DECAY_SHAPES: dict[str, DecayShape] = {
    "quarter_cosine": DecayShape(make=quarter_cosine),
""",
    ),
    "warmup": (
        "schedules/warmup_shapes.py",
        "WARMUP_SHAPES: dict[str, WarmupShape] = {\n",
        """
def root(warmup_steps: int, power: float) -> Height:
    return lambda n: (n / warmup_steps) ** (1 / power)


WARMUP_SHAPES: dict[str, WarmupShape] = {
    "root": WarmupShape(make=root, default_initial_lr=0.0),
""",
    ),
    "name": (
        "schedules/named.py",
        "SCHEDULES: dict[str, NamedSchedule] = {\n",
        """SCHEDULES: dict[str, NamedSchedule] = {
    "warmup_square": NamedSchedule(
        formula="gradual; then eta (1 - q)^2",
        source="Xie et al. 1999",
        defaults={"decay": "polynomial", "initial_lr": 0.0},
    ),
""",
    ),
}
"""What is added -> the file, the line that the entry follows, and that line with the entry."""

USES = [
    # (what is added, schedule, options, update -> its learning rate at peak 1)
    (
        "decay",
        "hfwarmup",
        {"decay": "quarter_cosine", "power": 1, "initial_lr": 0},
        lambda q: math.cos(math.pi / 2 * q),
    ),
    ("warmup", "hfwarmup", {"warmup_shape": "root", "power": 2}, lambda _: 1.0),
    ("name", "warmup_square", {}, lambda q: (1 - q) ** 2),
]

SCRIPT = """
import json, sys
import torch
import hfwarmup
from hfwarmup.cli import app
from transformers import TrainingArguments, get_scheduler

name, options, lengths = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
schedule = hfwarmup.get_schedule(name, peak_lr=1.0, **lengths, **options)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
scheduler = hfwarmup.WarmupScheduler(optimizer, name, **lengths, **options)
applied = []
for _ in range(lengths["num_training_steps"]):
    applied += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
hfwarmup.register()
args = TrainingArguments(lr_scheduler_type=name, lr_scheduler_kwargs=options, use_cpu=True)
by_transformers = get_scheduler(args.lr_scheduler_type, optimizer, scheduler_specific_kwargs=options, **lengths)
json.dump({
    "home": hfwarmup.__file__,
    "planned": [schedule(step) for step in range(lengths["num_training_steps"])],
    "applied": applied,
    "schedule of transformers": by_transformers.spec.name,
}, open("found.json", "w"))
app(["plot", "run.yaml", "-o", "curve.csv"], standalone_mode=False)
app(["plot", "run.yaml"], standalone_mode=False)
"""


def add(kind: str, folder: Path) -> None:
    """Copy the package into `folder` and make the entry: one edit of one file."""
    shutil.copytree(PACKAGE, folder / "hfwarmup", ignore=shutil.ignore_patterns("__pycache__"))
    file, before, after = ENTRIES[kind]
    source = (folder / "hfwarmup" / file).read_text(encoding="utf-8")
    assert source.count(before) == 1
    (folder / "hfwarmup" / file).write_text(source.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize(("kind", "name", "options", "fall"), USES, ids=[kind for kind, *_ in USES])
def test_one_entry_is_all_that_it_takes(kind, name, options, fall, tmp_path):
    add(kind, tmp_path)
    lengths = {"num_warmup_steps": WARMUP_STEPS, "num_training_steps": TOTAL_STEPS}
    config = {"learning_rate": 1.0, "warmup": WARMUP_STEPS, "max_steps": TOTAL_STEPS, "lr_scheduler_type": name}
    (tmp_path / "run.yaml").write_text(json.dumps({**config, "lr_scheduler_kwargs": options}))
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, json.dumps(options), json.dumps(lengths)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert Path(found["home"]).is_relative_to(tmp_path)
    rise = math.sqrt if kind == "warmup" else float
    expected = [
        rise(t / WARMUP_STEPS) if t < WARMUP_STEPS else fall((t - WARMUP_STEPS) / (TOTAL_STEPS - WARMUP_STEPS))
        for t in range(TOTAL_STEPS)
    ]
    assert found["planned"] == pytest.approx(expected, rel=1e-12)
    assert found["applied"] == found["planned"]
    assert found["schedule of transformers"] == name
    _, *rows = csv.reader((tmp_path / "curve.csv").read_text().splitlines())
    assert [float(rate) for _, rate in rows] == found["planned"]
    assert "┬" in run.stdout  # the curve as text, its warmup marked
