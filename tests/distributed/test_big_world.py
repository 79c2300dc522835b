"""A world of 1024 processes, rehearsed in one: torch's fake process group, which sends nothing anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import hfwarmup

REHEARSAL = """
import json, sys
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

torch.set_num_threads(1)
dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1024)

import hfwarmup
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.trainer.planning import plan_training, planned_arguments

class Rehearsal(TrainerCallback):
    rates = []

    def on_train_begin(self, args, state, control, **kwargs):
        # The fake exchange of gradients returns nothing, which DDP's reducer does not take: each keeps its own.
        trainer.model_wrapped.register_comm_hook(None, keep)

    def on_optimizer_step(self, args, state, control, optimizer, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

def keep(_, bucket):
    kept = torch.futures.Future()
    kept.set_result(bucket.buffer())
    return kept

hfwarmup.register()
args = RecipeArguments(
    output_dir=sys.argv[1], per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=2,
    learning_rate=1e-4, lr_scheduler_type="warmup_cosine", precision="fp32", use_cpu=True, save_strategy="no",
    logging_strategy="no", disable_tqdm=True,
)
warmup = WarmupArguments(warmup="100k samples", reference_batch_size=256, lr_scaling="sqrt",
                         warmup_scaling="constant_samples", max_warmup_fraction=1.0)
tokens = torch.zeros(200_000, 4, dtype=torch.long)
samples = [{"input_ids": row, "labels": row} for row in tokens]
plan = plan_training(args, warmup, num_samples=len(samples))
config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                     num_key_value_heads=1, max_position_embeddings=8, use_cache=False)
planned = planned_arguments(args, warmup, plan)
trainer = Trainer(LlamaForCausalLM(config), planned, train_dataset=samples, callbacks=[Rehearsal])
trainer.train()
spec = trainer.lr_scheduler.spec
print(json.dumps({
    "world": [args.world_size, trainer.accelerator.num_processes], "updates": trainer.state.max_steps,
    "plan": json.loads(plan.to_json()), "rates": Rehearsal.rates, "lengths": [spec.warmup_steps, spec.total_steps],
}))
"""


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    world = {"WORLD_SIZE": "1024", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    result = subprocess.run(
        [sys.executable, "-c", REHEARSAL, tmp_path_factory.mktemp("run")],
        env={**os.environ, **world, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_trainer_sees_the_world_that_the_plan_sees(rehearsal):
    plan = rehearsal["plan"]
    assert rehearsal["world"] == [1024, 1024]
    assert plan["global_batch_size"] == 2 * 1024 * 2
    assert plan["scale"] == 16.0
    assert plan["peak_lr"] == 1e-4 * 4  # sqrt(16)
    assert plan["warmup_steps"] == 24  # 100k samples are 390.6 updates of 256, and a sixteenth of that
    # 200,000 samples are 98 batches of 2 a process, 49 updates an epoch.
    assert rehearsal["updates"] == plan["total_steps"] == 2 * 49
    assert rehearsal["lengths"] == [24, 98]


def test_every_update_of_the_big_world_runs_at_the_planned_learning_rate(rehearsal):
    schedule = hfwarmup.get_schedule("warmup_cosine", peak_lr=4e-4, num_warmup_steps=24, num_training_steps=98)
    assert rehearsal["rates"] == [schedule(update) for update in range(98)]
