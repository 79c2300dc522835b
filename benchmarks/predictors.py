"""Which early measurement predicts what a too-short warmup costs? Many small runs, then rank correlations.

    python benchmarks/predictors.py run [--rig llama …] [--workers 2]     hours of one core; goes on where it stopped
    python benchmarks/predictors.py table [--csv docs/predictors.csv]     the tables of docs/predictors.md

A cell is a run: a rig, a peak learning rate, a warmup, a seed, always `warmup_cosine`, watched by `watch_warmup`. Its
price is its final validation loss less the best one of its rig, peak and seed over all warmups. Each measurement is
read at 10% and at 25% of the run and ranked against the prices of the rig's cells (Spearman's rho over peaks, warmups
and seeds together).
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

import pandas as pd

from hfwarmup.measuring.spikes import robust_z_scores
from hfwarmup.measuring.verdict import Diagnosis, diagnose

PREFIX = "warmup/"
RESULTS = Path("runs/predictors/cells.jsonl")
WARMUP_SHARES = (0.0, 0.02, 0.10, 0.25, 0.5)
CHECK_SHARES = (0.0, 0.10)
READ_AT = (0.10, 0.25)
WORTH = 0.01  # a gentler ramp must gain 1% of the loss to count
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
    check_peaks: tuple[float, ...] = ()
    """Peaks that are run on three seeds with no warmup and with 10%, to compare what `diagnose` says."""


ADAM = {"optim": "adamw_torch_fused", "max_grad_norm": 1.0}
RIGS = {
    "llama": Rig(  # the default recipe, at a quarter of its batch
        build="default_llama",
        peaks=(2e-3, 6e-3, 2e-2),
        steps=240,
        batch_size=4,
        settings=ADAM | {"adam_beta2": 0.95, "weight_decay": 0.1},
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
        grid = list(itertools.product((0, 1), rig.peaks, WARMUP_SHARES))
        grid += itertools.product((0, 1, 2), rig.check_peaks, CHECK_SHARES)
        found += [Cell(rig=name, peak=peak, warmup_share=share, seed=seed) for seed, peak, share in grid]
    return list(dict.fromkeys(found))


def train(cell: Cell) -> dict[str, Any]:
    """One run, its final validation loss (nats) and its whole log."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    import hfwarmup
    from hfwarmup.training.callbacks import NonFiniteGuard
    from hfwarmup.training.monitor import watch_warmup

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

    from hfwarmup.training.arguments import DataArguments, ModelArguments
    from hfwarmup.training.data import prepare_data
    from hfwarmup.training.model import build_model

    data = prepare_data(DataArguments(block_size=block_size, **STDLIB))
    arguments = ModelArguments(model_type=model_type, config_overrides=json.dumps(overrides))
    model = build_model(AutoModelForCausalLM, arguments, data.tokenizer, block_size)
    return model, data.train, data.validation.select(range(16384 // block_size)), default_data_collator


def _bert(auto_class: Any) -> tuple[Any, Any]:
    """transformers' BERT, whose blocks end with their LayerNorm, and the corpus in blocks of 64 tokens."""
    from hfwarmup.training.arguments import DataArguments, ModelArguments
    from hfwarmup.training.data import prepare_data
    from hfwarmup.training.model import build_model

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

    from hfwarmup.training.arguments import DataArguments
    from hfwarmup.training.corpus import load_corpus

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


def read_cells() -> pd.DataFrame:
    """A row a cell: its settings, its price (nats) and the log of its training."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    table = pd.DataFrame(rows).drop_duplicates(["rig", "peak", "warmup_share", "seed"], keep="last")
    table["final_loss"] = table["final_loss"].fillna(math.inf)  # diverged: worse than all that did not
    table["price"] = table["final_loss"] - table.groupby(["rig", "peak", "seed"])["final_loss"].transform("min")
    return table


def measurements(log: list[dict[str, Any]], share: float) -> dict[str, float]:
    """What had been measured when `share` of the run was done."""
    steps = max(entry["step"] for entry in log)
    entries = [entry for entry in log if "loss" in entry and entry["step"] <= share * steps]
    measured = [entry for entry in entries if PREFIX + "relative_update" in entry]
    if not measured:  # stopped by a loss that is not finite
        return {}
    last = {name.removeprefix(PREFIX): value for name, value in measured[-1].items() if name.startswith(PREFIX)}
    losses = [entry["loss"] for entry in entries]
    return {
        "effective rank / its start": last["effective_rank_ratio"],
        "lowest effective rank / its start": min(entry[PREFIX + "effective_rank_ratio"] for entry in measured),
        "largest relative update": last["max_relative_update"],
        "relative update": last["relative_update"],
        "angle of the update": last["angle"],
        "change of the representation": last["representation_change"],
        "lowest gradient norm": min(entry["grad_norm"] for entry in entries),
        "share of clipped updates": last.get("clipped_share", math.nan),
        "training loss": sum(losses[-5:]) / len(losses[-5:]),
        "largest loss z-score": max((z for z in robust_z_scores(losses) if not math.isnan(z)), default=math.nan),
    }


def predictor_table(cells_done: pd.DataFrame, against: str) -> str:
    """Spearman's rho of each measurement with a column of the cells, a column a rig and a share of the run."""
    columns = {}
    for rig, share in itertools.product(RIGS, READ_AT):
        of_rig = cells_done[(cells_done["rig"] == rig) & cells_done["seed"].isin((0, 1)) & _in_grid(cells_done)]
        read = pd.DataFrame([measurements(log, share) for log in of_rig["log"]], index=of_rig.index).dropna(how="all")
        if len(read):
            ranked = read.rank().corrwith(of_rig.loc[read.index, against].rank())
            columns[f"{rig}, {share:.0%} of {len(read)} runs"] = ranked
    table = pd.DataFrame(columns)
    lines = ["| measurement | " + " | ".join(table.columns) + " |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{rho:+.2f}" for rho in row) + " |" for name, row in table.iterrows()]
    return "\n".join(lines)


def loss_table(cells_done: pd.DataFrame) -> str:
    """Final validation losses, the mean over the seeds, a column a warmup."""
    means = cells_done.pivot_table(index=["rig", "peak"], columns="warmup_share", values="final_loss", sort=False)
    lines = ["| rig | peak | " + " | ".join(f"T_w {share:.0%}" for share in means.columns) + " |"]
    lines += ["|---" * (len(means.columns) + 2) + "|"]
    for (rig, peak), row in means.iterrows():
        cells_of_row = ["diverged" if math.isinf(loss) else "" if math.isnan(loss) else f"{loss:.3f}" for loss in row]
        lines.append(f"| {rig} | {peak:g} | " + " | ".join(cells_of_row) + " |")
    return "\n".join(lines)


def verdict_table(cells_done: pd.DataFrame) -> str:
    """What `diagnose` says of the checked cells, beside what a gentler ramp did with the same seed."""
    rows = ["| peak | T_w | seed | diagnose | final loss | best of the gentler | right |", "|---" * 7 + "|"]
    checked = cells_done[(cells_done["rig"] == "llama") & cells_done["warmup_share"].isin(CHECK_SHARES)]
    for cell in checked.sort_values(["peak", "warmup_share", "seed"]).itertuples():
        said, gentler = judge(cell), _gentler(cells_done, cell)
        right = "" if math.isnan(gentler) else "yes" if _says_steep(said) == _paid(cell, gentler) else "no"
        numbers = f"{cell.final_loss:.3f} | {gentler:.3f}".replace("nan", "")
        rows.append(f"| {cell.peak:g} | {cell.warmup_share:.0%} | {cell.seed} | {said.verdict} | {numbers} | {right} |")
    return "\n".join(rows)


def accuracy_table(cells_done: pd.DataFrame) -> str:
    """How often `diagnose` was right, a row a rig: it says too steep (or failed), and a gentler ramp gained 1%."""
    rows = ["| rig | runs | said and so | said and not so | not said and not so | not said and so |", "|---" * 6 + "|"]
    for rig, group in cells_done.groupby("rig", sort=False):
        counts = {(said, paid): 0 for said in (True, False) for paid in (True, False)}
        for cell in group.itertuples():
            gentler = _gentler(cells_done, cell)
            if not math.isnan(gentler):
                counts[_says_steep(judge(cell)), _paid(cell, gentler)] += 1
        order = ((True, True), (True, False), (False, False), (False, True))
        rows.append(f"| {rig} | {sum(counts.values())} | " + " | ".join(str(counts[key]) for key in order) + " |")
    return "\n".join(rows)


def judge(cell: Any) -> Diagnosis:
    steps = RIGS[cell.rig].steps
    return diagnose(cell.log, total_steps=steps, warmup_steps=round(cell.warmup_share * steps), peak_lr=cell.peak)


def _says_steep(diagnosis: Diagnosis) -> bool:
    return diagnosis.verdict in ("too steep", "failed")


def _paid(cell: Any, gentler: float) -> bool:
    return bool(gentler < cell.final_loss * (1 - WORTH))


def _gentler(cells_done: pd.DataFrame, cell: Any) -> float:
    """The best final loss of the cells with the same seed, a peak as high or lower and a warmup as long or longer."""
    same = cells_done[(cells_done["rig"] == cell.rig) & (cells_done["seed"] == cell.seed)]
    ramp = same[(same["peak"] <= cell.peak) & (same["warmup_share"] >= cell.warmup_share)]
    others = ramp[(ramp["peak"] < cell.peak) | (ramp["warmup_share"] > cell.warmup_share)]
    return float(others["final_loss"].min())


def _in_grid(cells_done: pd.DataFrame) -> pd.Series:
    return pd.Series([peak in RIGS[rig].peaks for rig, peak in zip(cells_done["rig"], cells_done["peak"], strict=True)])


def table(csv: Path | None) -> None:
    """The tables of docs/predictors.md, and every cell's measurements as CSV."""
    done = read_cells()
    print("## Final validation loss, nats\n", loss_table(done), sep="\n")
    for column in ("price", "final_loss"):
        print(f"\n## Spearman's rho with the {column.replace('_', ' ')}\n", predictor_table(done, column), sep="\n")
    print("\n## What diagnose says\n", accuracy_table(done), "", verdict_table(done), sep="\n")
    if csv is not None:
        settings = done[["rig", "peak", "warmup_share", "seed", "final_loss", "price"]]
        columns = [
            pd.DataFrame([measurements(log, share) for log in done["log"]], index=done.index) for share in READ_AT
        ]
        read = [column.add_suffix(f", {share:.0%}") for column, share in zip(columns, READ_AT, strict=True)]
        pd.concat([settings, *read], axis="columns").to_csv(csv, index=False, float_format="%.4g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--rig", nargs="+", choices=RIGS, default=list(RIGS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="where `table` writes the measurements of every cell")
    options = parser.parse_args()
    if options.command == "run":
        run(options.rig, options.workers)
    else:
        table(options.csv)


if __name__ == "__main__":
    main()
