"""What starting the warmup at the measured critical learning rate (`initial_lr: auto`) costs or gains in the end.

Three small models on the standard library's bytes: a Llama under AdamW, a BERT (post-LN) under AdamW, and the Llama
under SGD with momentum. Each is trained with the full warmup (from 1e-7) and with `initial_lr: auto`, three seeds, and
the final validation losses are compared. A run takes up to 20 seconds of one core.

    python benchmarks/initial_lr_auto.py results.csv          # finished runs of the file are not run again
    python benchmarks/initial_lr_auto.py results.csv --cells 1
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sysconfig
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

import hfwarmup

LENGTH, BATCH, UPDATES, WARMUP_STEPS = 64, 16, 300, 60
BYTES, MASK = 256, 256
"""Tokens are bytes, and one more token masks them."""
SIZES = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama, AdamW": {"learning_rate": 3e-3, "optim": "adamw_torch"},
    "post-LN encoder, AdamW": {"learning_rate": 2e-3, "optim": "adamw_torch"},
    "llama, SGD momentum 0.9": {"learning_rate": 0.3, "optim": "sgd", "optim_args": "momentum=0.9"},
}
SEEDS = (0, 1, 2)
STARTS = {"full": {}, "auto": {"initial_lr": "auto"}}
COLUMNS = ("model", "seed", "start", "critical_lr", "warmup_steps", "first_lr", "validation_loss")


def blocks() -> tuple[Tensor, Tensor]:
    """Training and validation blocks of bytes; the last 5% of the files validate."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    cut = len(files) * 95 // 100
    parts = (b"".join(path.read_bytes() for path in part) for part in (files[:cut], files[cut:]))
    rows = [torch.frombuffer(bytearray(text), dtype=torch.uint8).long() for text in parts]
    train, validation = (row[: len(row) // LENGTH * LENGTH].view(-1, LENGTH) for row in rows)
    return train, validation[:256]


def samples(rows: Tensor, masked: bool) -> list[dict[str, Tensor]]:
    """Blocks to predict the next byte of, or with 15% of the bytes masked, always the same ones."""
    if not masked:
        return [{"input_ids": row, "labels": row} for row in rows]
    hidden = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)) < 0.15
    inputs, labels = rows.masked_fill(hidden, MASK), rows.masked_fill(~hidden, -100)
    return [{"input_ids": row, "labels": label} for row, label in zip(inputs, labels, strict=True)]


def build(name: str) -> PreTrainedModel:
    if name.startswith("post-LN"):
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return BertForMaskedLM(
            BertConfig(vocab_size=BYTES + 1, max_position_embeddings=LENGTH, pad_token_id=None, **SIZES, **dropout)
        )
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=BYTES, max_position_embeddings=LENGTH, use_cache=False, pad_token_id=None, **SIZES)
    )


def run(name: str, seed: int, start: str, folder: str) -> dict[str, Any]:
    """One training; a row of the results."""
    set_seed(seed)
    train, validation = (samples(rows, name.startswith("post-LN")) for rows in blocks())
    args = TrainingArguments(
        output_dir=folder,
        seed=seed,
        max_steps=UPDATES,
        warmup_steps=WARMUP_STEPS,
        lr_scheduler_type="warmup_cosine",
        lr_scheduler_kwargs=STARTS[start],
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64,
        max_grad_norm=0.0,  # clipping hides what a too-short warmup does
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **SETTINGS[name],
    )
    trainer = Trainer(model=build(name), args=args, train_dataset=train, eval_dataset=validation)
    trainer.train()
    scheduler = trainer.lr_scheduler
    return {
        "model": name,
        "seed": seed,
        "start": start,
        "critical_lr": scheduler.critical_lr,
        "warmup_steps": scheduler.spec.warmup_steps,
        "first_lr": scheduler.spec.learning_rates(0)[0],
        "validation_loss": trainer.evaluate()["eval_loss"],
    }


def finished(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def missing(path: Path) -> Iterator[tuple[str, int, str]]:
    done = {(row["model"], int(row["seed"]), row["start"]) for row in finished(path)}
    return (cell for cell in product(SETTINGS, SEEDS, STARTS) if cell not in done)


def append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def report(path: Path) -> None:
    rows = finished(path)
    for name in SETTINGS:
        own = [row for row in rows if row["model"] == name]
        full, auto = ({row["seed"]: row for row in own if row["start"] == start} for start in STARTS)
        seeds = full.keys() & auto.keys()
        if not seeds:
            continue
        changes = [float(auto[s]["validation_loss"]) / float(full[s]["validation_loss"]) - 1 for s in seeds]
        steps = ", ".join(auto[seed]["warmup_steps"] for seed in seeds)
        spread = f"from {min(changes):+.2%} to {max(changes):+.2%} over {len(seeds)} seeds"
        print(f"{name}: warmup {WARMUP_STEPS} -> {steps} updates; final validation loss with auto")
        print(f"  {statistics.mean(changes):+.2%}, {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="a CSV file, made or continued")
    parser.add_argument("--cells", type=int, default=None, help="runs to make at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    hfwarmup.register()
    for cell in list(missing(options.results))[: options.cells]:
        with tempfile.TemporaryDirectory() as folder:
            row = run(*cell, folder)
        append(options.results, row)
        print(row)
    report(options.results)


if __name__ == "__main__":
    main()
