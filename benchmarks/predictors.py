"""Which early measurement predicts what a too-short warmup costs? The runs; predictor_tables.py reads them.

    python benchmarks/predictors.py [--rig llama …] [--workers 2]     hours of one core; goes on where it stopped

A cell is a run: a rig, a peak learning rate, a warmup, a seed, always `warmup_cosine`, watched by `watch_warmup`. The
cells, each with its whole log, are added to runs/predictors/cells.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path("runs/predictors/cells.jsonl")
WARMUP_SHARES = (0.0, 0.02, 0.10, 0.25, 0.5)
CHECK_SHARES = (0.0, 0.10)
STDLIB = {"vocab_size": 4096}


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A model, its data and its optimizer; what varies is the peak, the warmup and the seed."""

    build: str
    """Name of the function here that gives (model, train set, validation set, collator)."""
    peaks: tuple[float, ...]
    steps: int
    batch_size: int
    settings: dict[str, Any]
    """Further TrainingArguments."""
    warmup_shares: tuple[float, ...] = WARMUP_SHARES
    seeds: tuple[int, ...] = (0, 1)
    check_peaks: tuple[float, ...] = ()
    """Peaks that are run on three seeds with no warmup and with 10%, to compare what `diagnose` says."""


ADAM = {"optim": "adamw_torch_fused", "max_grad_norm": 1.0}
PRETRAINING = ADAM | {"adam_beta2": 0.95, "weight_decay": 0.1}
RIGS = {
    "llama": Rig(  # the default recipe, at a quarter of its batch
        build="default_llama",
        peaks=(2e-3, 6e-3, 2e-2),
        steps=240,
        batch_size=4,
        settings=PRETRAINING,
        check_peaks=(2e-3, 6e-3, 2e-2, 6e-2),
    ),
    "recipe": Rig(  # the default recipe itself at 1, 3, 10 and 30 times its peak, and what is gentler than all of them
        build="default_llama",
        peaks=(2e-3,),
        warmup_shares=(0.25,),
        seeds=(0, 1, 2),
        steps=240,
        batch_size=16,
        settings=PRETRAINING,
        check_peaks=(2e-3, 6e-3, 2e-2, 6e-2),
    ),
    "post_ln": Rig(build="post_ln_bert", peaks=(3e-4, 1e-3, 3e-3), steps=400, batch_size=16, settings=ADAM),
    "finetune": Rig(build="finetuned_bert", peaks=(3e-4, 1e-3, 3e-3), steps=200, batch_size=16, settings=ADAM),
    "sgd": Rig(
        build="small_llama",
        peaks=(0.3, 1.0, 3.0),
        steps=300,
        batch_size=16,
        settings={"optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    rig: str
    peak: float
    warmup_share: float
    seed: int


def cells(names: list[str]) -> list[Cell]:
    """All cells of some rigs, each once."""
    found = []
    for name in names:
        rig = RIGS[name]
        grid = list(itertools.product(rig.seeds, rig.peaks, rig.warmup_shares))
        grid += itertools.product((0, 1, 2), rig.check_peaks, CHECK_SHARES)
        grid.sort(key=lambda cell: cell[0])  # what is interrupted has whole seeds
        found += [Cell(rig=name, peak=peak, warmup_share=share, seed=seed) for seed, peak, share in grid]
    return list(dict.fromkeys(found))


def train(cell: Cell) -> dict[str, Any]:
    """One run, its final validation loss (nats) and its whole log."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    import hfwarmup
    from hfwarmup.trainer.monitor import watch_warmup
    from hfwarmup.trainer.non_finite import NonFiniteGuard

    torch.set_num_threads(1)
    hfwarmup.register()
    rig = RIGS[cell.rig]
    torch.manual_seed(cell.seed)
    model, train_set, validation_set, collator = globals()[rig.build]()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            lr_scheduler_type="warmup_cosine",
            learning_rate=cell.peak,
            warmup_steps=round(cell.warmup_share * rig.steps),
            max_steps=rig.steps,
            per_device_train_batch_size=rig.batch_size,
            per_device_eval_batch_size=64,
            logging_steps=rig.steps // 60,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=True,
            seed=cell.seed,
            **rig.settings,
        )
        trainer = Trainer(model, args, collator, train_set, callbacks=[NonFiniteGuard()])
        trainer.remove_callback(PrinterCallback)
        watch_warmup(trainer)
        try:
            trainer.train()
            torch.manual_seed(0)  # a masking collator draws the same masks for every cell
            final_loss = trainer.evaluate(validation_set)["eval_loss"]
        except FloatingPointError as error:
            final_loss = math.nan
            trainer.state.log_history.append({"step": trainer.state.global_step, "stopped": str(error)})
    return {**asdict(cell), "final_loss": final_loss, "log": trainer.state.log_history}


def default_llama() -> tuple[Any, ...]:
    from hfwarmup.planning.config import read_config

    config = read_config(Path(__file__).parents[1] / "configs/pretrain_clm/stdlib.yaml")
    return _language_model("llama", dict(config["config_overrides"]), block_size=config["block_size"])


def small_llama() -> tuple[Any, ...]:
    size = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 2}
    return _language_model("llama", size | {"num_key_value_heads": 2}, block_size=64)


def post_ln_bert() -> tuple[Any, ...]:
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling

    model, data = _bert(AutoModelForMaskedLM)
    columns = [split.remove_columns("labels") for split in (data.train, data.validation)]
    collator = DataCollatorForLanguageModeling(data.tokenizer, mlm_probability=0.3)
    return model, columns[0], columns[1].select(range(512)), collator


def finetuned_bert() -> tuple[Any, ...]:
    """The post-LN encoder after 1000 updates of masked language modelling, to tell which package 64 tokens are from."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, default_data_collator

    encoder = _pretrained_encoder()
    _, data = _bert(AutoModelForSequenceClassification)
    train_set, validation_set, names = _package_samples(data.tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=len(names))
    return model, Dataset.from_dict(train_set), Dataset.from_dict(validation_set), default_data_collator


def _language_model(model_type: str, overrides: dict[str, Any], block_size: int) -> tuple[Any, ...]:
    from transformers import AutoModelForCausalLM, default_data_collator

    from hfwarmup.planning.arguments import DataArguments, ModelArguments
    from hfwarmup.recipe.data import prepare_data
    from hfwarmup.recipe.model import build_model

    data = prepare_data(DataArguments(block_size=block_size, **STDLIB))
    arguments = ModelArguments(model_type=model_type, config_overrides=json.dumps(overrides))
    model = build_model(AutoModelForCausalLM, arguments, data.tokenizer, block_size)
    return model, data.train, data.validation.select(range(16384 // block_size)), default_data_collator


def _bert(auto_class: Any) -> tuple[Any, Any]:
    """transformers' BERT, whose blocks end with their LayerNorm, and the corpus in blocks of 64 tokens."""
    from hfwarmup.planning.arguments import DataArguments, ModelArguments
    from hfwarmup.recipe.data import prepare_data
    from hfwarmup.recipe.model import build_model

    data = prepare_data(DataArguments(block_size=64, vocab_size=1024), special_tokens={"mask_token": "<|mask|>"})
    data.tokenizer.pad_token = data.tokenizer.eos_token
    size = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2}
    arguments = ModelArguments(model_type="bert", config_overrides=json.dumps(size))
    return build_model(auto_class, arguments, data.tokenizer, 64), data


def _pretrained_encoder() -> Path:
    """Made once, beside the results."""
    from transformers import Trainer, TrainingArguments

    folder = RESULTS.parent / "encoder"
    if not (folder / "model.safetensors").exists():
        model, train_set, _, collator = post_ln_bert()
        with tempfile.TemporaryDirectory() as scratch:
            args = TrainingArguments(
                scratch, max_steps=1000, per_device_train_batch_size=32, learning_rate=1e-3, warmup_steps=300,
                lr_scheduler_type="warmup_cosine", save_strategy="no", report_to="none", use_cpu=True, bf16=True,
                logging_steps=100, disable_tqdm=True,
            )  # fmt: skip
            Trainer(model, args, collator, train_set).train()
        model.save_pretrained(folder)
    return folder


def _package_samples(tokenizer: Any) -> tuple[dict[str, list[Any]], dict[str, list[Any]], list[str]]:
    """Blocks of 64 tokens of the files of the 12 packages with most files, split as the corpus is."""
    from collections import Counter

    from hfwarmup.planning.arguments import DataArguments
    from hfwarmup.recipe.corpus import load_corpus

    corpus = load_corpus(DataArguments(**STDLIB))
    counts = Counter(source.split("/")[0] for source in corpus["train"]["source"] if "/" in source)
    names = [name for name, _ in counts.most_common(12)]
    splits = []
    for split in ("train", "validation"):
        rows: dict[str, list[Any]] = {"input_ids": [], "labels": []}
        for source, text in zip(corpus[split]["source"], corpus[split]["text"], strict=True):
            if source.split("/")[0] in names and "/" in source:
                ids = tokenizer(text)["input_ids"]
                blocks = [ids[start : start + 64] for start in range(0, len(ids) - 63, 64)][:40]
                rows["input_ids"] += blocks
                rows["labels"] += [names.index(source.split("/")[0])] * len(blocks)
        splits.append(rows)
    validation = {name: values[:1024] for name, values in splits[1].items()}
    return splits[0], validation, names


def run(rigs: list[str], workers: int) -> None:
    """Train the cells that are not in the results yet, and add each as soon as it is done."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    done = {Cell(**{name: row[name] for name in Cell.__dataclass_fields__}) for row in rows}
    waiting = [cell for cell in cells(rigs) if cell not in done]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=10) as pool, RESULTS.open("a") as file:
        for number, row in enumerate(pool.imap_unordered(train, waiting), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            place = f"{row['rig']} peak {row['peak']:g} warmup {row['warmup_share']:.0%} seed {row['seed']}"
            print(f"{number}/{len(waiting)} {place}: {row['final_loss']:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rig", nargs="+", choices=RIGS, default=list(RIGS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    run(options.rig, options.workers)


if __name__ == "__main__":
    main()
