"""Makes run folders as the recipes leave them, without training."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from hfwarmup.planning.plan import plan_run
from hfwarmup.run_folder.files import LEARNING_RATES, LOG, RUN, log_line, write_learning_rates
from hfwarmup.schedules.spec import ScheduleSpec

SPIKE_AT = 40
"""The update whose loss is three times that of its neighbours."""


def write_run(folder: Path, *, steps: int = 60, made: int | None = None, measured: bool = False, **about: Any) -> Path:
    """A run folder of `steps` updates of which `made` are made, finished where that is all; returns it.

    The loss falls from 8 to about 3 with one spike, the gradient norm with it; `about` replaces keys of run.json.
    """
    made = steps if made is None else made
    folder.mkdir(parents=True)
    plan = plan_run(learning_rate=1e-3, warmup="10%", total_steps=steps, global_batch_size=16, reference_batch_size=8)
    spec = ScheduleSpec(
        name="warmup_cosine", given_warmup_steps=plan.warmup_steps, total_steps=steps, peak_lrs=[plan.peak_lr] * 2
    )
    command = "NUM_PROCESSES=2 ./launch.sh pretrain_clm --config configs/pretrain_clm/stdlib.yaml"
    run = {
        "begun": "2026-01-02T03:04:05+00:00",
        "commands": [{"from_update": 0, "command": command}],
        "max_steps": steps,
        "warmup_steps": plan.warmup_steps,
        "peak_lr": plan.peak_lr,
        "plan": json.loads(plan.to_json()),
        "schedule": spec.to_dict(),
        "scheduler": spec.name,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "hfwarmup": "0.1.0"},
        "device": "cpu (x86_64)",
        "precision": "bf16",
        "world_size": 2,
        "threads_per_process": 1,
        "environment": {"OMP_NUM_THREADS": "1"},
        "parameters": {"total": 4_262_144, "trained": 4_262_144},
        **about,
    }
    rates = [spec.learning_rates(update)[0] for update in range(made)]
    (folder / RUN).write_text(json.dumps(run))
    (folder / LOG).write_text("".join(map(log_line, _entries(rates, steps, measured))))
    write_learning_rates(folder / LEARNING_RATES, [(update, rate, rate) for update, rate in enumerate(rates)])
    if made == steps:
        results = {"eval_loss": 3.25, "eval_perplexity": 25.79, "train_runtime": 12.5}
        (folder / "all_results.json").write_text(json.dumps(results))
    return folder


def _entries(rates: list[float], steps: int, measured: bool) -> list[dict[str, Any]]:
    noise, entries = random.Random(0), []
    for update, rate in enumerate(rates):
        loss = 3 + 5 * math.exp(-6 * update / steps) + noise.gauss(0, 0.02)
        spike = 3.0 if update + 1 == SPIKE_AT else 1.0
        entry = {"loss": loss * spike, "grad_norm": 0.2 * loss * spike, "learning_rate": rate, "step": update + 1}
        if measured:
            entry |= {"warmup/effective_rank": 55 - 0.2 * update, "warmup/max_relative_update": 0.06}
        entries.append(entry)
        if (update + 1) % (steps // 4) == 0:
            entries.append({"eval_loss": loss + 0.1, "eval_runtime": 1.0, "step": update + 1})
    return entries
